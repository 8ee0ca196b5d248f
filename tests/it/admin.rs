//! What an administrator is told: PROTOCOL.md section 5, `/v1/admin/*`.
//!
//! Promises: for each call who may ask, what it says, and that long lists come in pages.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;

const PATHS: [&str; 5] = [
    "/v1/admin/stats",
    "/v1/admin/connections",
    "/v1/admin/users/alice",
    "/v1/admin/users/nobody",
    "/v1/admin/trace/e-1",
];

impl Server {
    pub async fn ask(&self, path: &str) -> Value {
        self.get(path)
            .token(&tokens::admin())
            .send()
            .await
            .expect(200)
    }
}

async fn live(server: &Server, transport: Transport, user: &str) -> Reader {
    let mut reader = open(server, transport, &Ask::user(user)).await;
    reader.next_of(Kind::Live).await;
    reader
}

#[tokio::test]
async fn only_administrators_are_told() {
    let server = spawn(Options::new());
    server.notes("alice", 1).await;
    for path in PATHS {
        server.get(path).send().await.refused(&[401]);
        for token in [tokens::user("alice"), tokens::publisher()] {
            let refused = server.get(path).token(&token).send().await;
            assert_eq!(refused.refused(&[403]), "forbidden", "{path}");
        }
    }
    for path in ["/v1/admin/users/nobody", "/v1/admin/trace/none"] {
        let unknown = server.get(path).token(&tokens::admin()).send().await;
        assert_eq!(unknown.refused(&[404]), "not_found", "{path}");
    }
    for path in [
        "/v1/admin/users/a%20b",
        "/v1/admin/trace/a%20b",
        "/v1/admin/connections?limit=0",
        "/v1/admin/connections?limit=1001",
        "/v1/admin/connections?users=alice",
        "/v1/admin/connections?user=a%20b",
    ] {
        let refused = server.get(path).token(&tokens::admin()).send().await;
        refused.refused(&[400]);
    }
}

#[tokio::test]
async fn the_server_in_numbers() {
    let server = spawn(Options::new().set("limits.recipients", 77));
    let _readers = [
        live(&server, Transport::Sse, "alice").await,
        live(&server, Transport::Socket, "alice").await,
        live(&server, Transport::Ndjson, "bob").await,
    ];
    server.notes("alice", 20).await;
    let stats = server.ask("/v1/admin/stats").await;
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&stats["logs"], &stats["events"]), (&json!(2), &json!(20)));
    let by_transport = json!({"ndjson": 1, "sse": 1, "websocket": 1});
    assert_eq!(
        stats["connections"],
        json!({"total": 3, "by_transport": by_transport})
    );
    assert_eq!(
        (&stats["store"]["healthy"], &stats["draining"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(stats["limits"]["recipients"], 77);
    assert!(stats["bytes"]["disk"].as_u64() > Some(0), "{stats}");
    assert!(
        stats["sync_ms"]["p99_below"].as_f64() > Some(0.0),
        "{stats}"
    );
    eventually("the rate of events is told", async || {
        let stats = server.ask("/v1/admin/stats").await;
        let rate = &stats["rates"]["events_per_second"];
        rate.as_f64()
            .is_some_and(|rate| rate > 0.0 && rate <= 40_000.0)
    })
    .await;
}

#[tokio::test]
async fn who_is_connected_comes_in_pages() {
    let server = spawn(Options::new());
    let mut readers = Vec::new();
    for user in ["alice", "bob", "alice", "carol", "alice"] {
        readers.push(live(&server, Transport::Sse, user).await);
    }
    server.notes("bob", 4).await;
    readers[1].events(4).await;
    let mut found: Vec<Value> = Vec::new();
    let mut path = "/v1/admin/connections?limit=2".to_owned();
    loop {
        let page = server.ask(&path).await;
        let page_of = page["connections"].as_array().unwrap();
        assert!(page_of.len() <= 2, "{page}");
        found.extend(page_of.iter().cloned());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/admin/connections?limit=2&after={next}"),
            None => break,
        }
    }
    let mut users: Vec<&str> = found
        .iter()
        .filter_map(|one| one["user"].as_str())
        .collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "alice", "alice", "bob", "carol"]);
    let of_alice = server.ask("/v1/admin/connections?user=alice").await;
    assert_eq!(
        of_alice["connections"].as_array().unwrap().len(),
        3,
        "{of_alice}"
    );
    let of_nobody = server.ask("/v1/admin/connections?user=nobody").await;
    assert_eq!(of_nobody, json!({"connections": [], "next": null}));

    let bob = found.iter().find(|one| one["user"] == "bob").unwrap();
    assert_eq!(bob["transport"], "sse");
    let conn = bob["conn"].as_str().unwrap();
    eventually("bob's reader is at its head", async || {
        let of_bob = server.ask("/v1/admin/connections?user=bob").await;
        let bob = &of_bob["connections"][0];
        bob["lag"] == 0
            && bob["cursor"]
                .as_str()
                .is_some_and(|cursor| cursor.ends_with("-4"))
    })
    .await;
    let path = format!("/v1/admin/connections/{conn}");
    server
        .call("DELETE", &path)
        .token(&tokens::admin())
        .send()
        .await
        .expect(204);
    readers[1].next_of(Kind::Bye).await;
    eventually("bob's connection is off the list", async || {
        let of_bob = server.ask("/v1/admin/connections?user=bob").await;
        of_bob["connections"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn one_user_as_the_server_knows_it() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 5).await;
    let path = "/v1/topics/feed:x/subscribers/alice";
    server
        .call("PUT", path)
        .token(&tokens::publisher())
        .send()
        .await
        .expect(204);
    for (device, n) in [("phone", 2), ("laptop", 4)] {
        let cursor = head.replace("-5", &format!("-{n}"));
        let ack = json!({"cursor": cursor, "device": device});
        let ack = server
            .post("/v1/ack")
            .token(&tokens::user("alice"))
            .json(&ack);
        ack.send().await.expect(200);
    }
    let _reader = live(&server, Transport::Sse, "alice").await;
    let told = server.ask("/v1/admin/users/alice").await;
    assert_eq!(
        (&told["user"], &told["head"]),
        (&json!("alice"), &json!(head))
    );
    assert_eq!(told["epoch"], head.split('-').next().unwrap());
    assert_eq!(
        (&told["earliest"], &told["subscriptions"]),
        (&json!(1), &json!(["feed:x"]))
    );
    assert!(told["bytes"].as_u64() > Some(500), "{told}");
    let devices = told["devices"].as_array().unwrap();
    let acked: Vec<(&Value, &Value)> = devices
        .iter()
        .map(|one| (&one["device"], &one["acked"]))
        .collect();
    let (four, two) = (
        json!(head.replace("-5", "-4")),
        json!(head.replace("-5", "-2")),
    );
    assert_eq!(acked, [(&json!("laptop"), &four), (&json!("phone"), &two)]);
    assert!(devices.iter().all(|one| {
        one["acked_at"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    }));
    assert_eq!(told["connections"][0]["transport"], "sse");
    assert_eq!(
        (&told["revoked_before"], &told["badge"]["messages"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(told["preferences"]["presence_visible"], true);
    let revoke = json!({"user": "alice", "issued_before": "2026-01-01T00:00:00.000Z"});
    let revoke = server
        .post("/v1/admin/revoke")
        .token(&tokens::admin())
        .json(&revoke);
    revoke.send().await.expect(204);
    let told = server.ask("/v1/admin/users/alice").await;
    assert_eq!(told["revoked_before"], "2026-01-01T00:00:00.000Z");
}
