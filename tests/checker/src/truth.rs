//! The committed truth: a user's whole log, read page by page while nobody publishes.

use anyhow::{Context, Result, anyhow, bail};

use crate::delivery;
use crate::history::{CommittedLog, Read};
use crate::http::{Ask, Link, Target, token};

/// A log that needs more pages than this is not one that the checker wrote.
const PAGES_MAX: usize = 2_000;

/// Reads one user's log from its oldest event to its head. A server that shows one page for ever is not read for
/// ever: the log as it came is enough to judge it by.
pub async fn read_log(target: &Target, user: &str) -> Result<CommittedLog> {
    let mut link = Link::open(target.required()?).await?;
    let token = token(user, None)?;
    let mut cursor = "start".to_owned();
    let mut events = Vec::new();
    for _ in 0..PAGES_MAX {
        let path =
            format!("/v1/events?format=json&cursor={cursor}&limit=1000&wait=0&on_gap=earliest");
        let answer = link.ask(&Ask::get(path, &token)).await?;
        if !answer.is_success() {
            bail!(
                "reading the log of {user}: status {} {}",
                answer.status,
                answer.body
            );
        }
        for read in delivery::understand_page(&answer.body).map_err(|reason| anyhow!(reason))? {
            if let Read::Event(seen) = read {
                events.push(seen);
            }
        }
        let reached = answer.body["cursor"]
            .as_str()
            .context("a page without a cursor")?;
        let is_stuck = reached == cursor;
        reached.clone_into(&mut cursor);
        if answer.body["more"] != true || is_stuck {
            let head =
                delivery::position(&answer.body, "head").map_err(|reason| anyhow!(reason))?;
            let floor = events
                .first()
                .map_or(head.seq + 1, |event| event.position.seq);
            return Ok(CommittedLog {
                user: user.to_owned(),
                head,
                floor,
                events,
            });
        }
    }
    bail!("the log of {user} does not end within {PAGES_MAX} pages")
}
