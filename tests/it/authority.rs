//! FAULTS.md section 4.6: whose things a caller can reach, field by field and list by list, as tables that
//! `/openapi.json` is held against.
//!
//! Promises: an operation without its row fails, so does a row without its operation. Another's thing, a deleted one and
//! one that never was are answered with the same status and the same body, the request's id aside.

mod lists;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::described::{Operation, ROWS, Who, operation_ids, operations};
use crate::harness::{Server, start};
use crate::inbox::text;
use crate::reader::{Ask, Reader, Transport, open};
use crate::talk;
use crate::tokens;

/// What an operation names in its path or body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Nothing of anyone's but the caller's own, which the token says.
    Own,
    Conversation,
    Member,
    Message,
    /// A user's own things: only that user and an administrator may.
    User,
    /// Something for a backend or an operator: the scope decides before anything is looked up.
    Scoped,
    /// A user who subscribes; whose topics the token names.
    Subscriber,
    /// Ids in the body or in the query; `named_in_bodies` has its case.
    InBody,
}

use Names::{Conversation, InBody, Member, Message, Own, Scoped, Subscriber, User};

const OBJECTS: &[(&str, Names)] = &[
    ("get_v1_events", Own),
    ("get_v1_state", Own),
    ("get_v1_preferences", Own),
    ("patch_v1_preferences", Own),
    ("post_v1_ack", Own),
    ("post_v1_publish", Scoped),
    ("post_v1_users_user_notify", Scoped),
    ("get_v1_topics_topic_subscribers", Scoped),
    ("put_v1_topics_topic_subscribers_user", Subscriber),
    ("delete_v1_topics_topic_subscribers_user", Subscriber),
    ("post_v1_conversations", Own),
    ("get_v1_conversations", Own),
    ("get_v1_conversations_id", Conversation),
    ("patch_v1_conversations_id", Conversation),
    ("get_v1_conversations_id_members", Conversation),
    ("put_v1_conversations_id_members_user", Member),
    ("delete_v1_conversations_id_members_user", Member),
    ("post_v1_conversations_id_messages", Conversation),
    ("get_v1_conversations_id_messages", Conversation),
    ("delete_v1_conversations_id_messages_message", Message),
    ("post_v1_conversations_id_read", Conversation),
    ("put_v1_presence", InBody),
    ("get_v1_presence", InBody),
    ("post_v1_conversations_id_typing", Conversation),
    ("post_v1_conversations_id_signals", Conversation),
    ("get_v1_notifications", InBody),
    ("post_v1_notifications_read", InBody),
    ("post_v1_session", Own),
    ("delete_v1_session", Own),
    ("post_v1_session_refresh", InBody),
    ("post_v1_tickets", Own),
    ("post_demo_login", Own),
    ("post_demo_act", Own),
    ("post_v1_admin_revoke", Scoped),
    ("delete_v1_admin_connections_conn", Scoped),
    ("get_v1_admin_stats", Scoped),
    ("get_v1_admin_connections", Scoped),
    ("get_v1_admin_users_user", Scoped),
    ("get_v1_admin_trace_event", Scoped),
    ("get_v1_users_user_export", User),
    ("delete_v1_users_user", User),
    ("get_healthz", Own),
    ("get_readyz", Own),
    ("get_metrics", Own),
    ("get_openapi_json", Own),
    ("get_docs", Own),
    ("get_root", Own),
    ("get_static_path", Own),
];

/// mallory calls; alice and bob have what she must not reach.
struct World {
    server: Server,
    own: String,
    foreign: String,
    /// Everyone has left it.
    deleted: String,
    /// Messages by conversation: of mallory, of another member, taken back.
    own_messages: [String; 3],
    foreign_message: String,
    notification: String,
    alice: Reader,
}

const MISSING: &str = "01890000-0000-7000-8000-000000000000";

impl World {
    async fn new() -> World {
        let server = start(talk::options().set("demo.enabled", true)).await;
        let own = server
            .group(&["bob", "mallory", "peggy"], Some("Own"))
            .await;
        let foreign = server.group(&["alice", "bob"], Some("Foreign")).await;
        let deleted = server.group(&["mallory", "bob"], Some("Deleted")).await;
        server.say("mallory", &deleted, "soon gone").await;
        for user in ["bob", "mallory"] {
            let path = format!("/v1/conversations/{deleted}/members/{user}");
            server.of(user, "DELETE", &path).send().await.expect(204);
        }
        let mut own_messages = Vec::new();
        for user in ["mallory", "peggy", "mallory"] {
            own_messages.push(text(&server.say(user, &own, "said").await["id"]));
        }
        let gone = format!("/v1/conversations/{own}/messages/{}", own_messages[2]);
        server
            .of("mallory", "DELETE", &gone)
            .send()
            .await
            .expect(204);
        server.notes("erased", 1).await;
        assert_eq!(server.erase("erased", &tokens::admin()).await, 204);
        World {
            foreign_message: text(&server.say("alice", &foreign, "secret").await["id"]),
            notification: text(&server.notify("alice", "like").await["id"]),
            alice: open(&server, Transport::Sse, &Ask::user("alice")).await,
            own_messages: own_messages.try_into().expect("three"),
            server,
            own,
            foreign,
            deleted,
        }
    }

    /// Answers to mallory, with what names the one request taken out.
    async fn answer(&self, operation: &Operation, path: &str) -> (u16, Value) {
        let (_, _, body) = ROWS.iter().find(|(id, ..)| *id == operation.id).unwrap();
        let mut call = self.server.of("mallory", &operation.method, path);
        if !body.is_empty() {
            call = call.body("application/json", *body);
        }
        nameless(&call.send().await)
    }

    /// All these paths are answered alike, with one of the statuses.
    async fn same(&self, operation: &Operation, paths: &[String], statuses: &[u16]) {
        let mut answers = BTreeMap::new();
        for path in paths {
            let answer = self.answer(operation, path).await;
            assert!(
                statuses.contains(&answer.0),
                "{} {path}: {answer:?}",
                operation.id
            );
            answers.insert(path.clone(), answer);
        }
        let different: BTreeSet<String> = answers.values().map(|a| format!("{a:?}")).collect();
        assert_eq!(different.len(), 1, "{}: {answers:?}", operation.id);
    }
}

fn nameless(reply: &crate::client::Reply) -> (u16, Value) {
    let mut body = match reply.header("content-type").unwrap_or("").contains("json") {
        true if !reply.body.is_empty() => {
            serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
        }
        _ => Value::Null,
    };
    if let Some(members) = body.as_object_mut() {
        members.remove("request_id");
    }
    (reply.status, body)
}

/// The path with its parameters filled in.
fn filled(path: &str, values: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    for (name, value) in values {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    path
}

#[tokio::test]
async fn every_operation_says_what_it_names() {
    let server = start(talk::options()).await;
    let described = operation_ids(&server).await;
    let rows: BTreeSet<String> = OBJECTS.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(described, rows);
    assert_eq!(rows.len(), OBJECTS.len(), "a row stands twice");
    for operation in operations(&server).await {
        let (_, names) = OBJECTS.iter().find(|(id, _)| *id == operation.id).unwrap();
        let expected: &[Names] = match operation.path.as_str() {
            path if path.contains("{message}") => &[Message],
            path if path.contains("/members/{user}") => &[Member],
            path if path.starts_with("/v1/conversations/{id}") => &[Conversation],
            path if path.starts_with("/v1/admin") => &[Scoped],
            path if path.contains("{user}") => &[User, Scoped, Subscriber],
            path if path.contains('{') => &[Scoped, Own],
            _ => &[Own, InBody, Scoped],
        };
        assert!(
            expected.contains(names),
            "{} names more than {names:?}",
            operation.id
        );
    }
}

#[tokio::test]
async fn what_is_anothers_is_answered_like_what_never_was() {
    let world = World::new().await;
    let strangers = [&world.foreign, &world.deleted, MISSING].map(str::to_owned);
    for operation in operations(&world.server).await {
        let (_, names) = OBJECTS.iter().find(|(id, _)| *id == operation.id).unwrap();
        let path = &operation.path;
        let mut paths = Vec::new();
        match names {
            Own | InBody => continue,
            Conversation => {
                paths.extend(strangers.iter().map(|id| filled(path, &[("id", id)])));
                world.same(&operation, &paths, &[404]).await;
                let own = world
                    .answer(&operation, &filled(path, &[("id", &world.own)]))
                    .await;
                assert!(own.0 < 300, "{}: {own:?}", operation.id);
            }
            Member => {
                for (id, user) in
                    pairs(&strangers, &["mallory", "alice", "bob", "nobody", "erased"])
                {
                    paths.push(filled(path, &[("id", id), ("user", user)]));
                }
                world.same(&operation, &paths, &[404]).await;
            }
            Message => {
                let ids = [&world.foreign_message, &world.own_messages[0], MISSING];
                for (id, message) in pairs(&strangers, &ids) {
                    paths.push(filled(path, &[("id", id), ("message", message)]));
                }
                for message in [&world.foreign_message, MISSING] {
                    paths.push(filled(path, &[("id", &world.own), ("message", message)]));
                }
                world.same(&operation, &paths, &[404]).await;
                let of = |n: usize| {
                    filled(
                        path,
                        &[("id", &world.own), ("message", &world.own_messages[n])],
                    )
                };
                world.same(&operation, &[of(1)], &[403]).await;
                world.same(&operation, &[of(2), of(0)], &[204]).await;
            }
            User => {
                let users = ["alice", "bob", "erased", "nobody"];
                paths.extend(users.map(|user| filled(path, &[("user", user)])));
                world.same(&operation, &paths, &[404]).await;
            }
            Scoped | Subscriber => {
                for user in ["alice", "mallory", "erased", "nobody"] {
                    let values = [
                        ("user", user),
                        ("topic", "feed:x"),
                        ("conn", user),
                        ("event", MISSING),
                    ];
                    paths.push(filled(path, &values));
                }
                let is_own = operation.id.starts_with("delete_v1_topics");
                paths.retain(|path| !is_own || !path.ends_with("mallory"));
                world.same(&operation, &paths, &[403]).await;
            }
        }
    }
    untouched(&world).await;
}

fn pairs<'a>(ids: &'a [String], others: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let pairs = ids
        .iter()
        .flat_map(|id| others.iter().map(move |other| (id.as_str(), *other)));
    pairs.collect()
}

/// Nothing of all that was tried has changed anything of alice's.
async fn untouched(world: &World) {
    let server = &world.server;
    let seen = server.seen("alice", &world.foreign).await;
    assert_eq!(
        (&seen["name"], &seen["head"]),
        (&json!("Foreign"), &json!(1))
    );
    // In the order in which the server came to know them.
    assert_eq!(seen["members"], json!(["bob", "alice"]));
    assert_eq!(seen["last_message"]["content"], "secret");
    assert_eq!(server.inbox("alice", "").await["unread"], 1);
    assert_eq!(
        server.types_of("alice").await,
        ["conversation.new", "message.new", "notification.new"]
    );
}

/// Ids that stand in bodies and queries: what they name of another's is like what is not there.
#[tokio::test]
async fn named_in_bodies() {
    let mut world = World::new().await;
    let conn = text(&world.alice.next().await.json["conn"]);
    let server = &world.server;
    let same = async |method: &str,
                      of: &dyn Fn(&str) -> (String, Value),
                      names: [&str; 2],
                      status: u16| {
        let mut answers = Vec::new();
        for name in names {
            let (path, body) = of(name);
            let call = server.of("mallory", method, &path);
            let call = if body.is_null() {
                call
            } else {
                call.json(&body)
            };
            let (status, body) = nameless(&call.send().await);
            answers.push((status, body.to_string().replace(name, "…")));
        }
        assert_eq!(answers[0], answers[1], "{names:?}");
        assert_eq!(answers[0].0, status, "{answers:?}");
    };
    let conns = [conn.as_str(), "c0ffee00c0ffee00c0ffee00c0ffee00"];
    let at = |path: &'static str, body: fn(&str) -> Value| {
        move |name: &str| (path.to_owned(), body(name))
    };
    let presence = at(
        "/v1/presence",
        |name| json!({"status": "busy", "conn": name}),
    );
    same("PUT", &presence, conns, 404).await;
    let refresh = at("/v1/session/refresh", |name| json!({"conn": name}));
    same("POST", &refresh, conns, 404).await;
    let inbox = [world.notification.as_str(), MISSING];
    let read = at("/v1/notifications/read", |name| json!({"ids": [name]}));
    same("POST", &read, inbox, 200).await;
    let before = |name: &str| (format!("/v1/notifications?before={name}"), Value::Null);
    same("GET", &before, inbox, 404).await;
    let users = |name: &str| (format!("/v1/presence?users={name}"), Value::Null);
    same("GET", &users, ["alice", "nobody"], 200).await;
    let path = format!("/v1/conversations/{}/read", world.own);
    let messages = |name: &str| (path.clone(), json!({"message_ids": [name]}));
    same("POST", &messages, [&world.foreign_message, MISSING], 404).await;
    let path = format!("/v1/conversations/{}/members", world.foreign);
    let members = |name: &str| (format!("{path}?after={name}"), Value::Null);
    same("GET", &members, ["alice", "nobody"], 404).await;
    untouched(&world).await;
}

/// What the server alone decides.
const NEVER_SET: [&str; 14] = [
    "sender",
    "seq",
    "read_at",
    "n",
    "id",
    "read",
    "time",
    "cursor",
    "conversation_id",
    "creator",
    "unread",
    "delivered_to",
    "deleted",
    "no_such_field",
];

#[tokio::test]
async fn fields_that_a_caller_does_not_have_are_refused() {
    let world = World::new().await;
    let (document, mut bodies) = (
        world.server.get("/openapi.json").send().await.expect(200),
        0,
    );
    for operation in operations(&world.server).await {
        let (_, who, body) = ROWS.iter().find(|(id, ..)| *id == operation.id).unwrap();
        let content = &operation.document["requestBody"]["content"];
        if content.is_null() {
            assert!(
                body.is_empty(),
                "{} takes a body that is not described",
                operation.id
            );
            continue;
        }
        let schema = resolved(&document, &content["application/json"]["schema"]);
        let known = schema["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{}: {schema}", operation.id));
        let values = [("id", world.own.as_str()), ("user", "alice")];
        let path = filled(&operation.path, &values);
        let token = match who {
            Who::Publisher => tokens::publisher(),
            Who::Admin => tokens::admin(),
            _ => tokens::user("mallory"),
        };
        for name in NEVER_SET.iter().filter(|name| !known.contains_key(**name)) {
            let mut body: Value = serde_json::from_str(body).expect("the row's body");
            body[name] = json!(1);
            let call = world.server.call(&operation.method, &path).token(&token);
            let reply = call.json(&body).send().await;
            assert_eq!(reply.status, 400, "{name} of {}: {reply:?}", operation.id);
            bodies += 1;
        }
    }
    assert!(bodies > 100, "{bodies} bodies");
    let nested = json!({"to": {"user": "alice", "seq": 1}, "type": "note.new"});
    world.server.publish(&nested).await.refused(&[400]);
    let nested =
        json!({"to": {"user": "alice"}, "type": "note.new", "actor": {"id": "a", "seq": 1}});
    world.server.publish(&nested).await.refused(&[400]);
    untouched(&world).await;
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document
            .pointer(path.trim_start_matches('#'))
            .expect("it leads somewhere"),
        None => schema,
    }
}
