//! PROTOCOL.md section 5, preferences: the defaults, changes of some of them, refusals, and that all devices hear.
//!
//! Promises: what preferences do is tested with the features that obey them; here only that they are kept and told.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, spawn, start};
use crate::inbox::patient;
use crate::reader::{Ask, Transport, open};
use crate::tokens;

fn defaults() -> Value {
    json!({
        "presence_visible": true, "typing_visible": true, "read_receipts": true, "muted": [],
        "feed_auto": false, "sound": false, "desktop": false,
    })
}

#[tokio::test]
async fn a_change_keeps_what_it_does_not_name_and_is_kept() {
    let mut server = spawn(patient());
    assert_eq!(server.choose("alice", &json!({})).await, defaults());
    let change = json!({"read_receipts": false, "muted": ["notification.like", "notification.a", "notification.like"]});
    let mut expected = defaults();
    expected["read_receipts"] = json!(false);
    expected["muted"] = json!(["notification.a", "notification.like"]);
    assert_eq!(server.choose("alice", &change).await, expected);
    expected["sound"] = json!(true);
    expected["muted"] = json!([]);
    assert_eq!(
        server
            .choose("alice", &json!({"sound": true, "muted": []}))
            .await,
        expected
    );
    for round in 0..2 {
        let shown = async |user: &str| {
            let call = server.get("/v1/preferences").token(&tokens::user(user));
            call.send().await.expect(200)
        };
        assert_eq!(shown("alice").await, expected, "round {round}");
        assert_eq!(shown("bob").await, defaults(), "they are alice's own");
        assert_eq!(server.state("alice").await["preferences"], expected);
        server.kill9();
        server.restart();
    }
}

#[tokio::test]
async fn every_device_hears_of_a_change() {
    let server = start(Options::new()).await;
    let mut devices = Vec::new();
    for transport in Transport::ALL {
        let mut device = open(&server, transport, &Ask::user("alice").cursor("now")).await;
        device.next_of(Kind::Live).await;
        devices.push(device);
    }
    server.choose("alice", &json!({"desktop": true})).await;
    // The same again changes nothing and tells nothing.
    server.choose("alice", &json!({"desktop": true})).await;
    server.choose("alice", &json!({"sound": true})).await;
    for device in &mut devices {
        let first = device.event_of("preferences.updated").await;
        assert_eq!(
            (&first["data"]["desktop"], &first["data"]["sound"]),
            (&json!(true), &json!(false))
        );
        let second = device.event_of("preferences.updated").await;
        assert_eq!(
            (&second["data"]["desktop"], &second["data"]["sound"]),
            (&json!(true), &json!(true))
        );
    }
}

#[tokio::test]
async fn what_is_no_choice_is_refused() {
    let server = start(patient()).await;
    let patch = async |body: &Value| {
        let call = server.call("PATCH", "/v1/preferences");
        call.token(&tokens::user("alice")).json(body).send().await
    };
    let many: Vec<String> = (0..101).map(|n| format!("notification.k{n}")).collect();
    for (body, code) in [
        (json!({"colour": "blue"}), "invalid_json"),
        (json!({"sound": "yes"}), "invalid_json"),
        (json!({"muted": "notification.like"}), "invalid_json"),
        (json!({"muted": ["A B"]}), "invalid_json"),
        (json!([]), "invalid_json"),
        (json!({"muted": ["like"]}), "invalid_muted"),
        (
            json!({"muted": ["notification.like", "message.new"]}),
            "invalid_muted",
        ),
        (json!({"muted": many, "sound": true}), "too_many_muted"),
    ] {
        let reply = patch(&body).await;
        assert_eq!(reply.refused(&[400]), code, "{body}");
    }
    assert_eq!(
        patch(&json!({"muted": many[..100]})).await.expect(200)["sound"],
        false
    );
    server.get("/v1/preferences").send().await.refused(&[401]);
    server
        .post("/v1/preferences")
        .token(&tokens::user("alice"))
        .json(&json!({}))
        .send()
        .await
        .refused(&[405]);
}
