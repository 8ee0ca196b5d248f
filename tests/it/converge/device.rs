//! One device: it reads its user's log over whatever transport it finds, loses its connection, and goes on from its
//! cursor over another one.
//!
//! Promises: it folds every event exactly once and in order, so a hole, a repeat after the cursor, an event that was
//! shown and lost in a crash, and a reset all fail here.

use fastrand::Rng;
use serde_json::{Value, json};

use super::{DEVICES_PER_USER, USERS, World};
use crate::client::Call;
use crate::delivery::{self, Delivery, Kind};
use crate::fold::Known;
use crate::reader::{Ask, Reader, Transport, try_open};
use crate::tokens;

/// Deliveries after which a connection drops by itself, at most.
const DELIVERIES_MAX: usize = 16;

/// Reads until the run is over; gives what the device knows then.
pub async fn live(world: &World, number: usize, mut rng: Rng) -> Known {
    let user = USERS[number / DEVICES_PER_USER];
    let mut known = fresh(world, user).await;
    let mut over = world.is_over.subscribe();
    while !*over.borrow() {
        // Now and then the application is installed anew.
        if rng.u32(0..20) == 0 {
            known = fresh(world, user).await;
        }
        let transport = rng.choice(Transport::ALL).expect("not empty");
        let budget = rng.usize(1..=DELIVERIES_MAX);
        tokio::select! {
            biased;
            _ = over.wait_for(|is_over| *is_over) => {}
            () = world.cuts[number].notified() => {}
            () = session(world, transport, (&mut known, budget)) => {}
        }
        if rng.u32(0..3) == 0 {
            ack(world, &known, number).await;
        }
    }
    known
}

async fn fresh(world: &World, user: &str) -> Known {
    loop {
        let call = world.server.read().await.of(user, "GET", "/v1/state");
        if let Some(reply) = call.try_send().await {
            return Known::of(&reply.expect(200));
        }
    }
}

/// One connection, until it has told so much or ends. An ended one may be the server's death.
async fn session(world: &World, transport: Transport, (known, budget): (&mut Known, usize)) {
    if transport == Transport::Poll {
        return poll(world, known).await;
    }
    let mut reader = {
        let server = world.server.read().await;
        let ask = Ask::user(&known.user);
        let ask = match budget % 2 {
            0 => ask.cursor(&known.cursor),
            _ => ask.last_event_id(&known.cursor),
        };
        try_open(&server, transport, &ask)
            .await
            .unwrap_or_else(|reply| panic!("{transport:?} was refused: {reply:?}"))
    };
    for _ in 0..budget {
        let delivery = reader.next().await;
        if !take(known, &delivery) {
            return;
        }
    }
}

/// Folds what came; `false` at the end of the connection.
fn take(known: &mut Known, delivery: &Delivery) -> bool {
    match delivery.kind {
        Kind::Event => known.fold(&delivery.json),
        Kind::Ready | Kind::Live | Kind::Ping | Kind::Signal => {}
        Kind::End | Kind::Bye => return false,
        _ => panic!("{delivery:?} for {known:?}"),
    }
    true
}

/// One long poll; the server may die meanwhile.
async fn poll(world: &World, known: &mut Known) {
    let path = format!("/v1/events?format=json&wait=2&cursor={}", known.cursor);
    let call = world.server.read().await.of(&known.user, "GET", &path);
    if let Some(reply) = call.try_send().await {
        let page = reply.expect(200);
        delivery::check_page(&page);
        assert!(page["reset"].is_null(), "{page}");
        let events = page["events"].as_array().expect("checked above");
        events.iter().for_each(|event| known.fold(event));
    }
}

async fn ack(world: &World, known: &Known, number: usize) {
    let body = json!({"cursor": known.cursor, "device": format!("device-{number}")});
    let call = world.server.read().await.of(&known.user, "POST", "/v1/ack");
    if let Some(reply) = call.json(&body).try_send().await {
        reply.expect(200);
    }
}

/// Reads on to `cursor` over one connection. Gives the badge that it was greeted with.
pub async fn catch_up(reader: &mut Reader, known: &mut Known, cursor: &Value) -> Option<Value> {
    let mut badge = None;
    while known.cursor != *cursor {
        let delivery = reader.next().await;
        if delivery.kind == Kind::Ready {
            badge = Some(delivery.json["badge"].clone());
        }
        assert!(take(known, &delivery), "the connection ended");
    }
    badge
}

/// A call with the rights of a backend, so that the actors can act for the application too.
pub fn as_backend(call: Call) -> Call {
    call.token(&tokens::publisher())
}
