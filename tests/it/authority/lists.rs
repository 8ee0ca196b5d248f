//! Every list has a bound: each answer of `/openapi.json` that holds an array says here how it is bounded.
//!
//! Promises: an answer with a list that has no row fails; a `limit` beyond the bound is refused, or bounded where the
//! contract says so, and `limit=0` gives nothing without an end.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{filled, resolved};
use crate::described::operations;
use crate::harness::start;
use crate::talk;
use crate::tokens;

/// How the lists of an answer are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// By `limit`, which is at most this much.
    Limit(usize),
    /// In pages of a fixed size, with `next`.
    Page,
    /// By what was asked, which is bounded itself, or by a constant.
    Fixed,
}

use Bound::{Fixed, Limit, Page};

const LISTS: &[(&str, Bound)] = &[
    ("get_v1_events", Limit(1_000)),
    ("get_v1_state", Fixed),
    ("get_v1_preferences", Fixed),
    ("patch_v1_preferences", Fixed),
    ("post_v1_publish", Fixed),
    ("get_v1_topics_topic_subscribers", Page),
    ("post_v1_conversations", Fixed),
    ("get_v1_conversations", Limit(200)),
    ("get_v1_conversations_id", Fixed),
    ("patch_v1_conversations_id", Fixed),
    ("get_v1_conversations_id_members", Page),
    ("get_v1_conversations_id_messages", Limit(200)),
    ("get_v1_notifications", Limit(200)),
    ("get_v1_admin_connections", Limit(1_000)),
    ("get_v1_admin_users_user", Fixed),
    ("get_v1_admin_trace_event", Fixed),
];

fn has_list(document: &Value, answer: &Value) -> bool {
    let schema = resolved(document, &answer["content"]["application/json"]["schema"]);
    let mut members = schema["properties"].as_object().into_iter().flatten();
    members.any(|(_, member)| member.to_string().contains("\"array\""))
}

#[tokio::test]
async fn every_list_is_bounded() {
    let server = start(talk::options()).await;
    let id = server.direct("alice", "bob").await;
    server.say("bob", &id, "one").await;
    server.say("bob", &id, "two").await;
    let document = server.get("/openapi.json").send().await.expect(200);
    let mut found = BTreeSet::new();
    for operation in operations(&server).await {
        let answers = operation.document["responses"].as_object().unwrap();
        let mut successes = answers.iter().filter(|(status, _)| status.starts_with('2'));
        let parameters = operation.document["parameters"].to_string();
        let row = LISTS.iter().find(|(id, _)| *id == operation.id);
        if successes.any(|(_, answer)| has_list(&document, answer)) {
            found.insert(operation.id.clone());
            assert!(row.is_some(), "how is {} bounded?", operation.id);
        }
        let has_limit = parameters.contains("\"limit\"");
        match row {
            Some((_, Limit(max))) => {
                assert!(has_limit, "{} does not describe `limit`", operation.id);
                let path = filled(&operation.path, &[("id", &id)]);
                let ask = async |limit: &str| {
                    let call = server.get(&format!("{path}?limit={limit}"));
                    let call = call.header("accept", "application/json");
                    let token = match operation.path.contains("/admin/") {
                        true => tokens::admin(),
                        false => tokens::user("alice"),
                    };
                    call.token(&token).send().await
                };
                assert_eq!(ask(&max.to_string()).await.status, 200, "{}", operation.id);
                for limit in [
                    "0",
                    &(max + 1).to_string(),
                    "18446744073709551616",
                    "-1",
                    "x",
                ] {
                    ask(limit).await.refused(&[400]);
                }
            }
            Some((_, Page)) => {
                let pages = ["\"after\"", "\"before\""];
                let has_place = pages.iter().any(|name| parameters.contains(name));
                assert!(has_place, "{} describes no next page", operation.id);
            }
            _ => assert!(!has_limit, "{} has a limit and no row of it", operation.id),
        }
    }
    let rows: BTreeSet<String> = LISTS.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(found, rows, "a row without its list");
}
