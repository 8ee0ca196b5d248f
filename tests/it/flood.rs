//! Issue 3: 10,000 notifications to one user make a bounded number of frames and a right badge.
//!
//! Promises: the flood comes over many connections at once, as fast as the server takes it; the bounds are those of the
//! rules (20 events, a digest each 5 s, a badge each 50 ms), whatever the machine.

use std::time::Instant;

use serde_json::json;

use crate::client::{Raw, WAIT};
use crate::delivery::Kind;
use crate::harness::spawn;
use crate::inbox::{ids, patient};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

/// Notifies `count` times over one connection, many requests under way at once.
async fn flood(address: std::net::SocketAddr, count: usize) {
    const UNDER_WAY: usize = 25;
    let mut raw = Raw::connect(address).await;
    let request = format!(
        "POST /v1/users/alice/notify HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
        tokens::publisher()
    );
    for _ in 0..count / UNDER_WAY {
        raw.send(request.repeat(UNDER_WAY).as_bytes()).await;
        for _ in 0..UNDER_WAY {
            let reply = raw.reply().await.expect("the server answers");
            assert_eq!(reply.status, 201, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn a_flood_makes_few_frames_and_a_right_badge() {
    const ALL: u64 = 10_000;
    let server = spawn(patient().set("limits.publish_per_second", 1_000_000));
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
    reader.next_of(Kind::Live).await;
    reader.wait = WAIT * 4;
    let started = Instant::now();
    let address = server.address;
    let floods: Vec<_> = (0..40)
        .map(|_| tokio::spawn(flood(address, ALL as usize / 40)))
        .collect();
    let (mut new, mut digests, mut gathered, mut badges) = (0, 0, 0, 0);
    let mut badge = 0;
    while new + gathered < ALL || badge < ALL {
        let delivery = reader.next().await;
        match delivery.str("type") {
            "notification.new" => new += 1,
            "notification.digest" => {
                digests += 1;
                gathered += delivery.json["data"]["count"].as_u64().unwrap();
            }
            "badge" => {
                badges += 1;
                badge = delivery.json["data"]["notifications"].as_u64().unwrap();
            }
            "sys.ping" => {}
            other => panic!("{other}: {delivery:?}"),
        }
    }
    for flood in floods {
        flood.await.expect("no request failed");
    }
    let seconds = started.elapsed().as_secs() + 1;
    println!("{ALL} in {seconds} s: {new} new, {digests} digests, {badges} badges");
    assert_eq!((new, new + gathered, badge), (20, ALL, ALL));
    assert!(
        digests <= seconds / 5 + 1,
        "{digests} digests in {seconds} s"
    );
    assert!(badges <= seconds * 20 + 1, "{badges} badges in {seconds} s");
    let page = server.inbox("alice", "unread=1&limit=200").await;
    assert_eq!(
        (&page["unread"], ids(&page).len(), &page["more"]),
        (&json!(ALL), 200, &json!(true))
    );
    assert_eq!(server.state("alice").await["badge"]["notifications"], ALL);
    assert_eq!(server.mark_read("alice", &json!({"all": true})).await, 0);
    reader.badge_of(0).await;
    server.assert_healthy().await;
}
