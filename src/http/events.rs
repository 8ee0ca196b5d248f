//! `GET /v1/events`: the caller's log as SSE, NDJSON or a JSON page.
//!
//! Promises: the form follows `format`, else `Accept`; the position follows header, then `cursor`, then `since`. An
//! `EventSource`, which gives up for ever on any status but 200, meets a limit as a stream that ends.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::cursor::filter::Filter;
use crate::cursor::start::Start;
use crate::cursor::{OnGap, Wish};
use crate::frame::{Control, Layout};
use crate::http::caller::{self, Caller, CookieRule, Credentials, Refusal};
use crate::http::error::{Problem, REQUEST_ID};
use crate::http::poll;
use crate::http::state::App;
use crate::http::stream::{self, Opening, Stream};
use crate::http::streaming::{Streaming, Takeable};
use crate::metrics::Transport;

/// Where an `EventSource` that met a limit comes back, in milliseconds.
const REFUSED_RETRY_MS: std::ops::RangeInclusive<u64> = 5_000..=30_000;
const USER_AGENT_CHARS: usize = 128;
/// Tells nginx not to gather what it passes on.
static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The query of every reader.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ReadQuery {
    pub cursor: String,
    pub last_event_id: String,
    #[serde(rename = "lastEventId")]
    pub last_event_id_camel: String,
    pub since: String,
    pub types: String,
    pub topics: String,
    pub format: String,
    pub wait: String,
    pub limit: String,
    pub named: String,
    pub on_gap: String,
    pub snapshot: String,
    pub control: String,
    pub ticket: String,
    pub access_token: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sse,
    Lines,
    Page,
}

/// The query, read strictly. Axum's extractor finds out where a fault is, which costs as much again as reading; it is
/// asked once there is one.
pub fn read_query(uri: &Uri) -> Result<ReadQuery, Problem> {
    let query = serde_urlencoded::from_str(uri.query().unwrap_or_default());
    query.or_else(|_| match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::bad_request("invalid_query", rejection.body_text())),
    })
}

/// Takes the request as it is: axum's extractor for the head copies it.
pub async fn read(State(app): State<Arc<App>>, request: Request) -> axum::response::Response {
    let (parts, _) = request.into_parts();
    let is_event_source = || accepts(&parts.headers, "text/event-stream");
    let answered = match read_query(&parts.uri) {
        Ok(query) => answer(&app, &parts, query).await,
        Err(problem) => Err(problem.into()),
    };
    match answered {
        Ok(response) => response,
        Err(Refusal::RevokedUser) if is_event_source() => StatusCode::NO_CONTENT.into_response(),
        Err(Refusal::Problem(problem)) if is_event_source() && problem.is_passing() => {
            app.metrics
                .refusals
                .get_or_create(&crate::metrics::Refusal { code: problem.code })
                .inc();
            let id = parts
                .headers
                .get(&REQUEST_ID)
                .and_then(|id| id.to_str().ok())
                .unwrap_or("");
            refused_stream(&app, &problem.for_request(id))
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

async fn answer(
    app: &Arc<App>,
    parts: &Parts,
    query: ReadQuery,
) -> Result<axum::response::Response, Refusal> {
    let form = form(&parts.headers, &query.format)?;
    let caller = admit(app, parts, &query).await?;
    let start = start(&parts.headers, &query);
    let response = match form {
        Form::Page => poll::page(app, caller, &parts.headers, &query, start).await?,
        Form::Lines => {
            let layout = Layout::Lines {
                has_control: !is_off(&query.control),
            };
            let opening = opening(Transport::Ndjson, &parts.headers, &query, start)?;
            streaming(
                stream::open(app, caller, opening).await?,
                layout,
                "application/x-ndjson",
            )
        }
        Form::Sse => {
            let layout = Layout::Sse {
                is_named: flag("named", &query.named)?,
            };
            let opening = opening(Transport::Sse, &parts.headers, &query, start)?;
            streaming(
                stream::open(app, caller, opening).await?,
                layout,
                "text/event-stream",
            )
        }
    };
    Ok(response)
}

async fn admit(app: &App, parts: &Parts, query: &ReadQuery) -> Result<Caller, Refusal> {
    let named = |value: &'_ str| (!value.is_empty()).then(|| value.to_owned());
    let (ticket, query_token) = (named(&query.ticket), named(&query.access_token));
    let credentials = Credentials {
        ticket: ticket.as_deref(),
        query_token: query_token.as_deref(),
        subprotocol_token: None,
    };
    caller::identify(
        app,
        &parts.headers,
        caller::peer(parts),
        &credentials,
        CookieRule::Plain,
    )
    .await
}

fn form(headers: &HeaderMap, format: &str) -> Result<Form, Problem> {
    match format {
        "sse" => return Ok(Form::Sse),
        "ndjson" => return Ok(Form::Lines),
        "json" => return Ok(Form::Page),
        "" => {}
        _ => {
            return Err(Problem::bad_request(
                "invalid_format",
                "format is sse, ndjson or json",
            ));
        }
    }
    let is_anything = || !headers.contains_key(header::ACCEPT) || accepts(headers, "*/*");
    let forms = [
        ("text/event-stream", Form::Sse),
        ("application/x-ndjson", Form::Lines),
        ("application/json", Form::Page),
    ];
    let named = forms
        .into_iter()
        .find(|(media_type, _)| accepts(headers, media_type));
    match named {
        Some((_, form)) => Ok(form),
        None if is_anything() => Ok(Form::Sse),
        None => {
            let message =
                "events come as text/event-stream, application/x-ndjson or application/json";
            Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "not_acceptable",
                message,
            ))
        }
    }
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut named = values
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or(item));
    named.any(|item| item.trim().eq_ignore_ascii_case(media_type))
}

/// `1` and `true` are yes; `0`, `false` and nothing are no.
pub fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        _ => Err(Problem::bad_request(
            "invalid_query",
            format!("{name} is 1 or 0"),
        )),
    }
}

fn is_off(value: &str) -> bool {
    matches!(value, "0" | "false")
}

/// Where the reader wants to start, and whether it said so. The header wins: a reconnecting `EventSource` still
/// carries the query of its first request.
pub fn start(headers: &HeaderMap, query: &ReadQuery) -> Option<Start> {
    let mut ids = headers.get_all("last-event-id").iter();
    if let Some(id) = ids.next() {
        let text = String::from_utf8_lossy(id.as_bytes());
        let text = if ids.next().is_some() {
            "two Last-Event-ID headers".into()
        } else {
            text
        };
        if !text.trim().is_empty() {
            return text.parse().ok();
        }
    }
    let names = [
        &query.cursor,
        &query.last_event_id,
        &query.last_event_id_camel,
    ];
    if let Some(text) = names.into_iter().find(|text| !text.trim().is_empty()) {
        return text.parse().ok();
    }
    Some(query.since.as_str())
        .filter(|since| !since.trim().is_empty())
        .map(Start::since)
}

/// What the query asks for, beside the form.
pub fn wish(start: Option<Start>, query: &ReadQuery) -> Result<Wish, Problem> {
    let on_gap = match query.on_gap.as_str() {
        "" | "head" => OnGap::Head,
        "earliest" => OnGap::Earliest,
        _ => {
            return Err(Problem::bad_request(
                "invalid_query",
                "on_gap is head or earliest",
            ));
        }
    };
    Ok(Wish {
        start: start.unwrap_or(Start::Now),
        on_gap,
        filter: Filter::parse(&query.types, &query.topics)?,
        conn: None,
    })
}

pub fn opening(
    transport: Transport,
    headers: &HeaderMap,
    query: &ReadQuery,
    start: Option<Start>,
) -> Result<Opening, Problem> {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or("");
    Ok(Opening {
        transport,
        has_position: start.is_some(),
        wish: wish(start, query)?,
        wants_snapshot: flag("snapshot", &query.snapshot)?,
        user_agent: agent.chars().take(USER_AGENT_CHARS).collect(),
    })
}

/// A response whose body is the stream's turns; the first leaves at once. The stream may be taken out of it.
fn streaming(
    stream: Stream,
    layout: Layout,
    content_type: &'static str,
) -> axum::response::Response {
    let takeable = Takeable::new(Streaming::new(stream, layout));
    let mut response = stream_response(takeable.clone().into_body(), content_type);
    response.extensions_mut().insert(takeable);
    response
}

pub fn stream_response(body: Body, content_type: &'static str) -> axum::response::Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert(X_ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
    response
}

fn refused_stream(app: &App, problem: &Problem) -> axum::response::Response {
    let mut frame = BytesMut::new();
    let retry_ms = app
        .random
        .between(*REFUSED_RETRY_MS.start(), *REFUSED_RETRY_MS.end());
    let control = Control::Refused {
        problem: &problem.to_json(),
    };
    Layout::Sse { is_named: false }.control(&mut frame, &control, Some(retry_ms));
    // As a stream, so that it looks to every client like one that ended.
    let only = futures_util::stream::once(std::future::ready(
        Ok::<Bytes, std::convert::Infallible>(frame.freeze()),
    ));
    stream_response(Body::from_stream(only), "text/event-stream")
}
