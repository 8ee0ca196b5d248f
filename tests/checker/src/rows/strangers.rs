//! X: who has no token, or not the right one, gets no event, whatever position they name.

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Duration, timeout};

use crate::history::{Invariant, Recorder};
use crate::http::{self, Ask, Link, Target};
use crate::reader::open_socket;
use crate::truth;

const OTHER_SECRET: &str = "a-secret-that-the-server-was-never-told";
/// How long a stranger listens to a connection that should have been closed.
const LISTEN_TIME: Duration = Duration::from_millis(200);

/// Tries every way in with no token, a forged one, and the token of somebody else.
pub async fn probe(recorder: &Recorder, target: &Target, user: &str) -> Result<()> {
    let log = truth::read_log(target, user).await?;
    let cursor = crate::history::Position {
        seq: log.floor - 1,
        ..log.head
    };
    let tokens = [
        ("no token", String::new()),
        ("a forged token", http::token_by(OTHER_SECRET, user, None)?),
        ("another user's token", http::token("stranger", None)?),
    ];
    let mut attempts = Vec::new();
    for (who, token) in &tokens {
        for path in ["format=json&wait=0", "format=sse", "format=ndjson"] {
            for named in [
                format!("cursor={cursor}"),
                "cursor=start".to_owned(),
                format!("cursor=start&user={user}"),
            ] {
                let ask = Ask::get(format!("/v1/events?{path}&{named}"), token);
                let resumed = Ask {
                    last_event_id: Some(cursor.to_string()),
                    ..ask.clone()
                };
                attempts.extend([ask, resumed].map(|ask| (*who, Way::Http(ask))));
            }
        }
        let path = format!("/v1/ws?cursor={cursor}");
        attempts.push((who, Way::Socket(path, token.clone())));
    }
    // All at once, since each listens for as long as nothing is said.
    let heard = join_all(attempts.iter().map(|(_, way)| way.hear(target))).await;
    for ((who, way), heard) in attempts.iter().zip(heard) {
        // The payload of every event names the user it is meant for, so its name must not be heard.
        let leak = format!("\"for\":\"{user}\"");
        let what = format!("with {who} {} tells events of {user}", way.path());
        recorder.claim(Invariant::Isolated, !heard.contains(&leak), what);
    }
    Ok(())
}

/// A way in: a request, or a WebSocket's path and token.
enum Way {
    Http(Ask),
    Socket(String, String),
}

impl Way {
    fn path(&self) -> &str {
        match self {
            Way::Http(ask) => &ask.path,
            Way::Socket(path, _) => path,
        }
    }

    async fn hear(&self, target: &Target) -> String {
        match self {
            Way::Http(ask) => hear(target, ask).await,
            Way::Socket(path, token) => hear_socket(target, path, token).await,
        }
    }
}

/// Everything that comes within a moment.
async fn hear(target: &Target, ask: &Ask) -> String {
    let mut heard = Vec::new();
    let listening = async {
        let response = Link::open(target.required()?).await?.stream(ask).await?;
        let mut body = http_body_util::BodyStream::new(response.into_body());
        while let Some(frame) = body.next().await {
            heard.extend(frame?.into_data().unwrap_or_default());
        }
        Ok::<(), anyhow::Error>(())
    };
    // A refusal, an end and silence are all as they should be.
    timeout(LISTEN_TIME, listening).await.ok();
    String::from_utf8_lossy(&heard).into_owned()
}

async fn hear_socket(target: &Target, path: &str, token: &str) -> String {
    let mut heard = String::new();
    let listening = async {
        let mut socket = open_socket(target, path, token).await?;
        while let Some(message) = socket.next().await {
            heard.push_str(message?.to_text().unwrap_or_default());
        }
        Ok::<(), anyhow::Error>(())
    };
    timeout(LISTEN_TIME, listening).await.ok();
    heard
}
