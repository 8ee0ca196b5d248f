//! PROTOCOL.md section 6, entity events: they name their entity, or are refused wherever they are published.
//!
//! Promises: a good one is an ordinary durable event to its topic. It looks at the form only: what an application makes
//! of it is the application's business.

use serde_json::{Value, json};

use crate::harness::{Options, start};
use crate::reader::{Ask, Transport, open};
use crate::write::results;

#[tokio::test]
async fn an_entity_event_reaches_who_subscribed() {
    let server = start(Options::new()).await;
    server.subscribe("entity:order", "alice").await;
    let sent = [
        ("entity.created", json!({"entity": "order", "id": "7"})),
        (
            "entity.updated",
            json!({"entity": "order", "id": 7, "version": 2, "fields": ["total"]}),
        ),
        (
            "entity.deleted",
            json!({"entity": "order", "id": "7", "version": "3f"}),
        ),
        ("entity.touched", json!("an application's own")),
    ];
    for (event_type, data) in &sent {
        let body = json!({"to": {"topic": "entity:order"}, "type": event_type, "data": data});
        assert_eq!(server.publish(&body).await.expect(201)["recipients"], 1);
    }
    for transport in Transport::ALL {
        let mut reader = open(&server, transport, &Ask::user("alice").cursor("start")).await;
        for (event_type, data) in &sent {
            assert_eq!(
                &reader.event_of(event_type).await["data"],
                data,
                "{transport:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_entity_event_without_its_entity_is_refused() {
    let server = start(Options::new()).await;
    let event =
        |data: Value| json!({"to": {"user": "alice"}, "type": "entity.updated", "data": data});
    for bad in [
        json!(null),
        json!("order"),
        json!({"entity": "order"}),
        json!({"id": "7"}),
        json!({"entity": "", "id": "7"}),
        json!({"entity": "order", "id": [7]}),
        json!({"entity": "order", "id": 1.5}),
        json!({"entity": "order", "id": "7", "version": false}),
    ] {
        let reply = server.publish(&event(bad.clone())).await;
        assert_eq!(reply.refused(&[400]), "invalid_entity", "{bad}");
        let mut signal = event(bad.clone());
        signal["ephemeral"] = json!(true);
        assert_eq!(
            server.publish(&signal).await.refused(&[400]),
            "invalid_entity",
            "{bad}"
        );
    }
    let good = event(json!({"entity": "order", "id": "7"}));
    let batch = json!({"events": [event(json!({})), good], "atomic": true});
    let reply = server.publish(&batch).await;
    reply.refused(&[400]);
    assert_eq!(
        reply.json()["errors"][0]["code"],
        "invalid_entity",
        "{reply:?}"
    );
    assert_eq!(
        server.types_of("alice").await,
        Vec::<String>::new(),
        "half applied"
    );
    let each = server
        .publish(&json!({"events": batch["events"]}))
        .await
        .expect(200);
    assert_eq!(
        results(&each)[0]["error"]["code"],
        "invalid_entity",
        "{each}"
    );
    assert_eq!(server.types_of("alice").await, ["entity.updated"]);
}
