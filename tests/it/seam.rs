//! The seam between catching up and hearing what is new: readers that come, leave and change transport while events
//! are being published, over a crash of the server too.
//!
//! Promises: each reader's pieces, joined at its cursors, are the whole log, without a hole and without a repeat. The
//! places at which readers leave come from a seed, which a failure prints.

use std::time::Duration;

use serde_json::json;

use crate::client::Call;
use crate::delivery::{Delivery, Kind, seq_of};
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

const EVENTS: u64 = 400;

/// Reads until `last` and leaves after every few events, each time by another transport.
async fn hop(server: &Server, seed: u64, last: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cursor = "start".to_owned();
    let mut seqs: Vec<u64> = Vec::new();
    while seqs.last().copied().unwrap_or(0) < last {
        let transport = Transport::ALL[random.usize(..4)];
        let mut reader = open(server, transport, &Ask::user("alice").cursor(&cursor)).await;
        for _ in 0..random.usize(1..40) {
            let delivery = reader.next().await;
            match delivery.kind {
                Kind::Event => seqs.push(delivery.seq()),
                Kind::Ready | Kind::Live | Kind::Ping => {}
                _ => panic!("seed {seed}: {delivery:?}"),
            }
            if seqs.last() == Some(&last) {
                break;
            }
        }
        if let Some(last) = seqs.last() {
            assert_eq!(
                seq_of(reader.cursor()),
                *last,
                "seed {seed}: the cursor of {transport:?}"
            );
        }
        reader.cursor().clone_into(&mut cursor);
    }
    assert_eq!(seqs, (1..=last).collect::<Vec<u64>>(), "seed {seed}");
}

#[tokio::test]
async fn readers_that_hop_while_events_come_miss_nothing() {
    let server = spawn(Options::new());
    let publishing = async {
        for n in 1..=EVENTS {
            server.note("alice", json!({ "n": n })).await;
        }
    };
    let hopping = futures_util::future::join_all((1..=6).map(|seed| hop(&server, seed, EVENTS)));
    tokio::join!(publishing, hopping);
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_crash_takes_back_nothing_that_was_acked_or_shown() {
    let mut server = spawn(Options::new());
    let mut shown: Vec<Delivery> = Vec::new();
    let mut acked: Vec<(u64, String)> = Vec::new();
    let mut cursor = "start".to_owned();
    for round in 0..5 {
        let mut reader = open(&server, Transport::Sse, &Ask::user("alice").cursor(&cursor)).await;
        reader.wait = Duration::from_secs(5);
        let mut publishes = tokio::task::JoinSet::new();
        for n in 0..32 {
            publishes.spawn(publish_once(&server, format!("e-{round}-{n}")));
        }
        // Some are acked and shown, others are under way when the process dies.
        let mut seen = reader.events(8).await;
        server.kill9();
        while let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), reader.next()).await {
            match delivery.kind {
                Kind::Event => seen.push(delivery),
                Kind::End => break,
                _ => {}
            }
        }
        seen.last()
            .unwrap()
            .cursor
            .clone()
            .unwrap()
            .clone_into(&mut cursor);
        shown.extend(seen);
        while let Some(result) = publishes.join_next().await {
            acked.extend(result.unwrap());
        }
        server.restart();
    }
    let page = server.page("alice", "cursor=start&limit=1000&wait=0").await;
    let kept = page["events"].as_array().unwrap();
    for (position, event) in kept.iter().enumerate() {
        assert_eq!(event["seq"], position as u64 + 1, "the log is dense");
    }
    for event in &shown {
        let position = usize::try_from(event.seq()).unwrap() - 1;
        assert_eq!(
            kept.get(position),
            Some(&event.json),
            "what was shown is what is kept"
        );
    }
    for (seq, id) in &acked {
        let position = usize::try_from(*seq).unwrap() - 1;
        assert_eq!(kept[position]["id"], *id, "what was acked is what is kept");
    }
    assert!(
        !acked.is_empty() && shown.len() >= 40,
        "{} acked, {} shown",
        acked.len(),
        shown.len()
    );
}

/// Publishes one event on a bare connection; `None` when the server died before it answered.
fn publish_once(
    server: &Server,
    id: String,
) -> impl Future<Output = Option<(u64, String)>> + Send + use<> {
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "id": id, "data": 1});
    let call = Call::new(server.address, "POST", "/v1/publish")
        .token(&tokens::publisher())
        .json(&body);
    async move {
        let reply = call.try_send().await?;
        let seq = reply.expect(201)["seq"].as_u64()?;
        Some((seq, id))
    }
}
