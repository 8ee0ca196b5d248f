//! What is said about the API is what the API does: `/openapi.json`, `/docs`, `asyncapi.yaml`, and who may call what
//! (FAULTS.md section 4.6), as a table that the description generates.
//!
//! Promises: an operation without its row in `ROWS` fails, and so does a row without its operation. It reads the
//! description as every generator of clients would, over HTTP.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Options, Server, start};
use crate::tokens;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anyone,
    AnyUser,
    Publisher,
    Admin,
}

use Who::{Admin, AnyUser, Anyone, Publisher};

/// Every operation, who may call it, and a body that it takes.
pub const ROWS: &[(&str, Who, &str)] = &[
    ("get_v1_events", AnyUser, ""),
    ("get_v1_state", AnyUser, ""),
    ("post_v1_ack", AnyUser, r#"{"cursor":"aaaaaa-0"}"#),
    (
        "post_v1_publish",
        Publisher,
        r#"{"to":{"user":"zoe"},"type":"note.new"}"#,
    ),
    (
        "post_v1_users_user_notify",
        Publisher,
        r#"{"kind":"like","title":"t"}"#,
    ),
    ("get_v1_topics_topic_subscribers", Publisher, ""),
    ("put_v1_topics_topic_subscribers_user", Publisher, ""),
    ("delete_v1_topics_topic_subscribers_user", Publisher, ""),
    (
        "post_v1_conversations",
        AnyUser,
        r#"{"members":["zoe","amy"]}"#,
    ),
    ("get_v1_conversations", AnyUser, ""),
    ("get_v1_conversations_id", AnyUser, ""),
    ("patch_v1_conversations_id", AnyUser, r#"{"name":"x"}"#),
    ("get_v1_conversations_id_members", AnyUser, ""),
    ("put_v1_conversations_id_members_user", AnyUser, ""),
    ("delete_v1_conversations_id_members_user", AnyUser, ""),
    (
        "post_v1_conversations_id_messages",
        AnyUser,
        r#"{"content":"x"}"#,
    ),
    ("get_v1_conversations_id_messages", AnyUser, ""),
    ("delete_v1_conversations_id_messages_message", AnyUser, ""),
    ("post_v1_conversations_id_read", AnyUser, r#"{"upto":0}"#),
    ("put_v1_presence", AnyUser, r#"{"status":"auto"}"#),
    ("get_v1_presence", AnyUser, ""),
    (
        "post_v1_conversations_id_typing",
        AnyUser,
        r#"{"state":"start"}"#,
    ),
    (
        "post_v1_conversations_id_signals",
        AnyUser,
        r#"{"kind":"a","data":1}"#,
    ),
    ("get_v1_notifications", AnyUser, ""),
    ("post_v1_notifications_read", AnyUser, r#"{"all":true}"#),
    ("get_v1_preferences", AnyUser, ""),
    ("patch_v1_preferences", AnyUser, r#"{"sound":true}"#),
    ("post_v1_session", AnyUser, ""),
    ("delete_v1_session", Anyone, ""),
    ("post_v1_session_refresh", AnyUser, r#"{"conn":"none"}"#),
    ("post_v1_tickets", AnyUser, ""),
    ("post_demo_login", Anyone, r#"{"user":"zoe"}"#),
    (
        "post_demo_act",
        Anyone,
        r#"{"kind":"post","user":"zoe","text":"hi"}"#,
    ),
    ("post_v1_admin_revoke", Admin, r#"{"jti":"none"}"#),
    ("delete_v1_admin_connections_conn", Admin, ""),
    ("get_v1_admin_stats", Admin, ""),
    ("get_v1_admin_connections", Admin, ""),
    ("get_v1_admin_users_user", Admin, ""),
    ("get_v1_admin_trace_event", Admin, ""),
    ("get_v1_users_user_export", AnyUser, ""),
    ("delete_v1_users_user", AnyUser, ""),
    ("get_healthz", Anyone, ""),
    ("get_readyz", Anyone, ""),
    ("get_metrics", Anyone, ""),
    ("get_openapi_json", Anyone, ""),
    ("get_docs", Anyone, ""),
    ("get_root", Anyone, ""),
    ("get_static_path", Anyone, ""),
];

pub struct Operation {
    pub id: String,
    pub method: String,
    pub path: String,
    pub document: Value,
}

/// The ids of all operations described.
pub async fn operation_ids(server: &Server) -> BTreeSet<String> {
    let described = operations(server).await;
    described.into_iter().map(|o| o.id).collect()
}

pub async fn operations(server: &Server) -> Vec<Operation> {
    let document = server.get("/openapi.json").send().await.expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, document) in item.as_object().unwrap() {
            operations.push(Operation {
                id: document["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                document: document.clone(),
            });
        }
    }
    operations
}

/// The path with its parameters filled in: someone else's things, or things that are not there.
fn filled(path: &str) -> String {
    let values = [
        ("{user}", "victim"),
        ("{topic}", "feed:x"),
        ("{conn}", "none"),
        ("{path}", "index.html"),
        ("{id}", "none"),
        ("{event}", "none"),
        ("{message}", "none"),
    ];
    let mut path = path.to_owned();
    for (name, value) in values {
        path = path.replace(name, value);
    }
    assert!(!path.contains('{'), "no value for a parameter of {path}");
    path
}

#[tokio::test]
async fn every_operation_has_its_row_and_every_row_its_operation() {
    let server = start(Options::new()).await;
    let described = operation_ids(&server).await;
    let rows: BTreeSet<String> = ROWS.iter().map(|(id, ..)| (*id).to_owned()).collect();
    assert_eq!(rows.len(), ROWS.len(), "a row stands twice");
    assert_eq!(described, rows);
}

#[tokio::test]
async fn an_operation_answers_those_who_may_call_it_and_nobody_else() {
    let server = start(Options::new().set("limits.auth_failures_per_minute", 10_000)).await;
    let (user, publisher, admin) = (
        tokens::user("mallory"),
        tokens::publisher(),
        tokens::admin(),
    );
    for operation in operations(&server).await {
        let (_, who, body) = ROWS.iter().find(|(id, ..)| *id == operation.id).unwrap();
        let path = filled(&operation.path);
        let call = async |token: Option<&str>| {
            let mut call = server.call(&operation.method, &path);
            if operation.id == "get_v1_events" {
                call = call.header("accept", "application/json");
            }
            if !body.is_empty() {
                call = call.body("application/json", *body);
            }
            if let Some(token) = token {
                call = call.token(token);
            }
            call.send().await
        };
        let expected: [bool; 4] = match who {
            Anyone => [true, true, true, true],
            AnyUser => [false, true, true, true],
            Publisher => [false, false, true, true],
            Admin => [false, false, false, true],
        };
        let tokens = [None, Some(&user), Some(&publisher), Some(&admin)];
        for (token, is_let_in) in tokens.into_iter().zip(expected) {
            let reply = call(token.map(String::as_str)).await;
            let refusal = if token.is_none() { 401 } else { 403 };
            let is_refused = matches!(reply.status, 401 | 403);
            let what = format!("{} {path} as {token:?}: {reply:?}", operation.method);
            assert_eq!(is_refused, !is_let_in, "{what}");
            assert!(is_let_in || reply.status == refusal, "{what}");
            assert!(reply.status != 405 && reply.status < 500, "{what}");
            let documented = &operation.document["responses"][reply.status.to_string()];
            assert!(documented.is_object(), "a status without its words: {what}");
            if reply.status >= 400 {
                let words = documented["description"].as_str().unwrap();
                let code = reply.code();
                assert!(
                    words.contains(&format!("`{code}`")),
                    "{code} is not documented: {what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_shown_without_the_internet() {
    let server = start(Options::new()).await;
    assert_eq!(
        server.get("/docs").send().await.header("location"),
        Some("/docs/")
    );
    let page = server.get("/docs/").send().await;
    assert_eq!(page.status, 200);
    let mut text = String::new();
    flate2::read::GzDecoder::new(page.body.as_ref())
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.contains("swagger-ui-bundle.js") && !text.contains("https://"),
        "the page loads from elsewhere: {text}"
    );
    for file in [
        "swagger-ui-bundle.js",
        "swagger-initializer.js",
        "swagger-ui.css",
    ] {
        let reply = server.get(&format!("/docs/{file}")).send().await;
        assert_eq!(reply.status, 200, "{file}");
        assert!(reply.header("content-security-policy").is_some(), "{file}");
    }
    assert_eq!(
        server.get("/docs/../../etc/passwd").send().await.status,
        404
    );
}

#[tokio::test]
async fn references_of_the_description_lead_somewhere() {
    let server = start(Options::new()).await;
    let document = server.get("/openapi.json").send().await.expect(200);
    let text = document.to_string();
    let mut count = 0;
    for rest in text.split("#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name} is not described"
        );
        count += 1;
    }
    assert!(count > 20, "{count} references");
    assert_eq!(document["info"]["title"], json!("Tidings"));
}

/// What stands between the quotes that follow `before` in a source file.
fn quoted_after(text: &str, before: &str) -> BTreeSet<String> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_documented_code_is_used() {
    let documented = quoted_after(&source("src/http/docs/codes.rs"), ", \"");
    let mut used = String::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if !path.ends_with("docs/codes.rs") && !path.ends_with("http/routes.rs") {
                used.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let is_code = |text: &&String| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let unused: Vec<&String> = documented
        .iter()
        .filter(is_code)
        .filter(|code| !used.contains(&format!("\"{code}\"")))
        .collect();
    assert!(documented.len() > 40 && unused.is_empty(), "{unused:?}");
}

#[test]
fn the_streams_description_names_what_the_source_names() {
    let described = source("static/asyncapi.yaml");
    let frame = source("src/frame.rs");
    for name in quoted_after(&frame, "\"type\":\"sys.") {
        assert!(
            described.contains(&format!("const: sys.{name}")),
            "sys.{name}"
        );
    }
    let ops = source("src/http/commands.rs");
    let known = ops
        .split("const KNOWN")
        .nth(1)
        .unwrap()
        .split("];")
        .next()
        .unwrap();
    let described_ops = described
        .split("op: { enum: [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap();
    let described_ops: BTreeSet<&str> = described_ops.split(", ").collect();
    let known: BTreeSet<&str> = known.split('"').skip(1).step_by(2).collect();
    assert_eq!(known, described_ops);
    let socket = source("src/http/socket.rs");
    for line in socket
        .lines()
        .filter(|line| line.starts_with("const ") && line.contains(": u16"))
    {
        let code = line.rsplit(' ').next().unwrap().trim_end_matches(';');
        assert!(
            described.contains(&format!("      {code}: ")),
            "close code {code}"
        );
    }
}

/// Families of the events that the server makes by itself.
const FAMILIES: [&str; 7] = [
    "message.",
    "conversation.",
    "notification.",
    "typing.",
    "presence.",
    "feed.",
    "preferences.",
];

#[test]
fn every_type_that_the_features_make_is_described() {
    let described = source("static/asyncapi.yaml");
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/features")];
    let mut made = BTreeSet::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let quoted = code.split('"').skip(1).step_by(2);
            let is_type = |text: &&str| {
                let family = FAMILIES.iter().find(|family| text.starts_with(**family));
                let rest = family.map(|family| &text[family.len()..]);
                rest.is_some_and(|rest| {
                    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase())
                })
            };
            made.extend(quoted.filter(is_type).map(str::to_owned));
        }
    }
    assert!(made.len() > 10, "{made:?}");
    for name in made {
        assert!(
            described.contains(&format!("    {name}: ")),
            "{name} is not described"
        );
    }
}
