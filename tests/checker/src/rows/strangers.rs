//! X: who has no token, or not the right one, gets no event, whatever position they name.

use anyhow::Result;
use futures_util::StreamExt;
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
    for (who, token) in &tokens {
        for path in ["format=json&wait=0", "format=sse", "format=ndjson"] {
            for named in [
                format!("cursor={cursor}"),
                "cursor=start".to_owned(),
                format!("cursor=start&user={user}"),
            ] {
                let ask = Ask::get(format!("/v1/events?{path}&{named}"), token);
                judge(recorder, user, who, &ask.path, &hear(target, &ask).await);
                let resumed = Ask {
                    last_event_id: Some(cursor.to_string()),
                    ..ask
                };
                judge(
                    recorder,
                    user,
                    who,
                    &resumed.path,
                    &hear(target, &resumed).await,
                );
            }
        }
        let path = format!("/v1/ws?cursor={cursor}");
        judge(
            recorder,
            user,
            who,
            &path,
            &hear_socket(target, &path, token).await,
        );
    }
    Ok(())
}

/// The payload of every event names the user it is meant for, so its name must not be heard.
fn judge(recorder: &Recorder, user: &str, who: &str, path: &str, heard: &str) {
    let leak = format!("\"for\":\"{user}\"");
    let what = format!("with {who} {path} tells events of {user}");
    recorder.claim(Invariant::Isolated, !heard.contains(&leak), what);
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
