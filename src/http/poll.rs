//! One JSON page of the caller's log; with `wait` it comes as soon as there is anything (long poll, RFC 6202).
//!
//! Promises: always 200 with a usable cursor; what is lost is told in `reset`; a drain answers early and says when to
//! come back. It reads by the same cursor as every stream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use tokio::time::Instant;

use crate::cursor::filter::Filter;
use crate::cursor::start::Start;
use crate::cursor::{Cursor, Delivery};
use crate::frame::{PollEnd, PollPage};
use crate::http::caller::Caller;
use crate::http::connections::{self, Closing, Connections, Listed, Newcomer};
use crate::http::error::Problem;
use crate::http::events::{ReadQuery, opening};
use crate::http::presence;
use crate::http::state::App;
use crate::http::stream::{self, DRAIN_RETRY_MS};
use crate::id::{Position, UserNo};
use crate::metrics::{Outcome, Readers, Transport};
use crate::store::read::PageBounds;

const WAIT_SECONDS_MAX: f64 = 60.0;
const WAIT_SECONDS: f64 = 30.0;
const LIMIT_MAX: usize = 1000;
const LIMIT: usize = 500;
/// A page stops at this size even when `limit` allows more events.
const PAGE_BYTES: usize = 1 << 20;

pub async fn page(
    app: &Arc<App>,
    caller: Caller,
    headers: &HeaderMap,
    query: &ReadQuery,
    start: Option<Start>,
) -> Result<axum::response::Response, Problem> {
    if let Some(Start::Malformed(text)) = &start {
        let message =
            format!("{text:?} is no position: a cursor, a seq, start, now, -N, or a time in since");
        return Err(Problem::bad_request("invalid_cursor", message));
    }
    let (wait, bounds) = (wait(query, start.is_some())?, bounds(query)?);
    let opening = opening(Transport::Poll, headers, query, start)?;
    let seat = app.limits.connect(caller.user())?;
    let user = app.store.log(caller.user()).await?;
    let subscriber = app.wakes.subscribe(user);
    let wished = opening.wish.start.clone();
    let is_filtered = opening.wish.filter != Filter::default();
    let mut cursor = Cursor::open(app.store.clone(), subscriber, opening.wish).await?;
    stream::count_start(app, user, &wished, &cursor);
    let mut listed = Connections::list(
        &app.connections,
        Newcomer {
            id: connections::new_id(&app.random),
            user,
            transport: Transport::Poll,
            now_ms: app.clock.now_ms(),
            user_agent: &opening.user_agent,
            claims: &caller.claims,
            seat,
            start_seq: cursor.position().seq,
            is_filtered,
        },
    );
    let deadline = Instant::now() + wait;
    let mut page = PollPage::default();
    if !opening.has_position {
        write_picture(app, user, &cursor, &mut page).await?;
    }
    while page.is_empty() && listed.closing().is_none() {
        let delivery = cursor.next(&bounds, Some(deadline)).await?;
        if let Delivery::Events(events) = &delivery {
            listed.connection.wrote(events, app.clock.now_ms());
        }
        listed.connection.reach(cursor.position().seq);
        if !write(app, &cursor, &mut page, delivery)
            && (wait.is_zero() || Instant::now() >= deadline)
        {
            break;
        }
    }
    let poll_after_ms = end(app, &mut listed)?;
    let (position, head) = (cursor.position(), cursor.head());
    let is_more = position.seq < head.seq;
    Ok(response(
        page.into_json(PollEnd {
            position,
            head,
            is_more,
            poll_after_ms,
        })
        .freeze(),
    ))
}

/// One that names no position is told how others are and who types.
async fn write_picture(
    app: &App,
    user: UserNo,
    cursor: &Cursor,
    page: &mut PollPage,
) -> Result<(), Problem> {
    let picture = presence::picture(app, user).await?;
    let heard = picture.iter().filter(|signal| cursor.hears(signal));
    heard.for_each(|signal| page.signal(signal));
    Ok(())
}

/// How long to wait before the next poll, where this one was ended.
fn end(app: &App, listed: &mut Listed) -> Result<u64, Problem> {
    let Some(closing) = listed.closing() else {
        return Ok(0);
    };
    listed.ended(closing);
    match closing {
        Closing::Revoked => Err(Problem::unauthorized()),
        _ => Ok(app
            .random
            .between(*DRAIN_RETRY_MS.start(), *DRAIN_RETRY_MS.end())),
    }
}

/// Adds one delivery to the page. Tells whether it may be the last: pings and the like do not count.
fn write(app: &App, cursor: &Cursor, page: &mut PollPage, delivery: Delivery) -> bool {
    match delivery {
        Delivery::Events(events) => {
            let epoch = cursor.position().epoch;
            for entry in &events {
                page.event(
                    Position {
                        epoch,
                        seq: entry.seq,
                    },
                    &entry.event,
                );
            }
            app.metrics
                .delivered
                .get_or_create(&Readers {
                    transport: Transport::Poll,
                })
                .inc_by(events.len() as u64);
            true
        }
        Delivery::Signals(signals) => {
            signals.iter().for_each(|signal| page.signal(signal));
            true
        }
        Delivery::Reset(reset) => {
            let result = reset.reason.as_str();
            app.metrics.resets.get_or_create(&Outcome { result }).inc();
            page.reset(&stream::reset_control(&reset));
            true
        }
        Delivery::Moved | Delivery::Live | Delivery::Silence | Delivery::Woken => false,
    }
}

fn wait(query: &ReadQuery, has_position: bool) -> Result<Duration, Problem> {
    let seconds = match query.wait.as_str() {
        "" if has_position => WAIT_SECONDS,
        "" => 0.0,
        text => text
            .parse::<f64>()
            .ok()
            .filter(|seconds| (0.0..=WAIT_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| Problem::bad_request("invalid_query", "wait is 0 to 60 seconds"))?,
    };
    Ok(Duration::from_secs_f64(seconds))
}

fn bounds(query: &ReadQuery) -> Result<PageBounds, Problem> {
    let events = match query.limit.as_str() {
        "" => LIMIT,
        text => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Problem::bad_request("invalid_query", "limit is 1 to 1000"))?,
    };
    Ok(PageBounds {
        bytes: PAGE_BYTES,
        events,
    })
}

fn response(json: bytes::Bytes) -> axum::response::Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
