//! What a delivery allocates: nothing.
//!
//! Promises: the allocator itself counts, on the one thread that runs everything; log, cursor, wake and frames are the
//! server's own, over a store in memory. Sending is not looked at.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use tidings::accept::spare;
use tidings::clock::Clock;
use tidings::cursor::filter::Filter;
use tidings::cursor::start::Start;
use tidings::cursor::{Cursor, Delivery, OnGap, TURN_BYTES, Wish};
use tidings::event::{Draft, Event, Json, UserId};
use tidings::frame::Layout;
use tidings::http::frames::Frames;
use tidings::id::Random;
use tidings::metrics::Metrics;
use tidings::publish::{Audience, Publication, publish};
use tidings::store::memory::Memory;
use tidings::store::read::PageBounds;
use tidings::store::upkeep::Retention;
use tidings::store::{self, Surroundings};
use tidings::wake::Wakes;
use tokio::runtime::Builder;

const SUBSCRIBERS: usize = 20;
const EVENTS: u64 = 10;
const BOUNDS: PageBounds = PageBounds {
    bytes: TURN_BYTES,
    events: usize::MAX,
};

fn publication(number: u64, to: &UserId) -> Publication {
    let draft = Draft {
        id: format!("e-{number}").parse().unwrap(),
        event_type: "message.new".parse().unwrap(),
        time_ms: 1_795_228_200_123,
        topic: None,
        actor: None,
        data: Json::of(&"x".repeat(200).into()),
        exclude_conn: None,
    };
    Publication {
        event: Event::of(&draft),
        to: Audience::User(to.clone()),
        keys: Vec::new(),
        fingerprint: [0; 16],
    }
}

fn settings() -> store::Settings {
    store::Settings {
        directory: Path::new("").to_owned(),
        retention: Retention::default(),
        ring_bytes: 1 << 20,
        cache_bytes: 1 << 20,
        free_bytes_min: 0,
        ballast_bytes: 0,
    }
}

/// What is there for the reader now, framed.
fn deliver(cursor: &mut Cursor) -> usize {
    let next = cursor.next(&BOUNDS, None).now_or_never();
    let Some(Ok(Delivery::Events(page))) = next else {
        panic!("no event although one was committed");
    };
    let position = cursor.position();
    let mut frames = Frames::within(spare::take(), Layout::Sse { is_named: false }, 32);
    frames.reserve(
        page.len(),
        page.iter().map(|entry| entry.event.json().len()).sum(),
    );
    for entry in &page {
        frames.event(position, &entry.event);
    }
    let bytes = frames.into_bytes();
    let length = bytes.len();
    spare::give_back(bytes);
    length
}

#[test]
fn a_delivery_allocates_nothing() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wakes = Wakes::default();
        let surroundings = Surroundings {
            clock: Clock::system(),
            random: Random::system(),
            wakes: wakes.clone(),
            metrics: Arc::new(Metrics::default()),
        };
        let opened = store::open_on(Box::new(Memory::default()), &settings(), &surroundings);
        let (store, committer) = opened.unwrap();
        tokio::spawn(committer.run());
        let alice: UserId = "alice".parse().unwrap();
        publish(&store, publication(0, &alice)).await.unwrap();
        let user = store.find(&alice).unwrap();
        let mut cursors = Vec::new();
        for _ in 0..SUBSCRIBERS {
            let wish = Wish {
                start: Start::Now,
                on_gap: OnGap::Head,
                filter: Filter::default(),
                conn: None,
            };
            let opened = Cursor::open(store.clone(), wakes.subscribe(user), wish).await;
            let mut cursor = opened.unwrap();
            assert_eq!(cursor.next(&BOUNDS, None).await.unwrap(), Delivery::Live);
            cursors.push(cursor);
        }
        for number in 1..=EVENTS {
            publish(&store, publication(number, &alice)).await.unwrap();
            // The first turn on a thread gives it its buffer.
            if number == 1 {
                spare::give_back(BytesMut::with_capacity(1_024));
            }
            for cursor in &mut cursors {
                let counted = allocation_counter::measure(|| {
                    assert!(deliver(cursor) > 200);
                });
                assert_eq!(counted.count_total, 0, "event {number}: {counted:?}");
            }
        }
    });
}
