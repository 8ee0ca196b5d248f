//! What an administrator sees: the server in numbers, who is connected, and one user as the server knows it.
//!
//! Promises: for tokens with the scope `admin` only; every list is bounded and long ones come in pages. It shows no
//! token and no payload, and changes nothing.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::{UnixMs, rfc3339};
use crate::config::Config;
use crate::event::{ConnId, UserId};
use crate::features::trace::Traces;
use crate::features::{ack, badge, conversation, preferences};
use crate::http::caller::Caller;
use crate::http::connections::Connection;
use crate::http::error::Problem;
use crate::http::ops;
use crate::http::state::App;
use crate::id::{Position, UserNo};
use crate::metrics::summary::{Rates, Spread, Summary};
use crate::store::topics;

/// Connections in one page: as many as asked for, up to the greater.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Devices, connections and topics told of one user.
const TOLD_MAX: usize = 100;

/// What one server keeps for its administrators.
pub struct Watch {
    pub started_ms: UnixMs,
    /// What was counted over the last minute.
    pub rates: Rates,
    pub traces: Traces,
}

impl Watch {
    pub fn begin(now_ms: UnixMs) -> Watch {
        Watch {
            started_ms: now_ms,
            rates: Rates::default(),
            traces: Traces::default(),
        }
    }
}

/// `GET /v1/admin/stats`: the server in numbers.
pub async fn stats(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<JsonBody<Value>, Problem> {
    caller.must_administer()?;
    let text = ops::encoded(&app).await?;
    let summary = Summary::of(&text);
    let now_ms = app.clock.now_ms();
    let connections = app.connections.count();
    let total: u64 = connections.values().sum();
    Ok(JsonBody(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": rfc3339(app.watch.started_ms),
        "uptime_seconds": now_ms.saturating_sub(app.watch.started_ms) / 1_000,
        "logs": app.store.logs(),
        "events": summary.totals().events as u64,
        "bytes": {
            "live": summary.sum("tidings_live_bytes") as u64,
            "disk": summary.sum("tidings_disk_bytes") as u64,
        },
        "connections": { "total": total, "by_transport": connections },
        "rates": rates(&app, &summary),
        "publish_ms": millis(summary.spread("tidings_publish_seconds")),
        "sync_ms": millis(summary.spread("tidings_sync_seconds")),
        "lag_events": counts(summary.spread("tidings_lag_events")),
        "store": {
            "healthy": !app.store.has_failed() && !app.store.is_full(),
            "failed": app.store.has_failed(),
            "disk_full": app.store.is_full(),
            "index_backlog": summary.sum("tidings_index_backlog") as u64,
            "unsynced_values": summary.sum("tidings_unsynced_values") as u64,
        },
        "draining": app.connections.is_draining(),
        "limits": limits(&app.config),
    })))
}

/// What came a second over the last minute, or since the start; `null` in the first moment.
fn rates(app: &App, summary: &Summary<'_>) -> Value {
    let now = tokio::time::Instant::now();
    let Some((window, rates)) = app.watch.rates.until(now, summary.totals()) else {
        return Value::Null;
    };
    let rounded = |rate: f64| (rate * 100.0).round() / 100.0;
    json!({
        "window_seconds": window.as_secs_f64().round(),
        "publishes_per_second": rounded(rates.publishes),
        "events_per_second": rounded(rates.events),
        "syncs_per_second": rounded(rates.syncs),
        "delivered_per_second": rounded(rates.delivered),
    })
}

/// Percentiles are upper bounds: the value lies at or below.
fn millis(spread: Spread) -> Value {
    let bound = |bound: Option<f64>| bound.map(|seconds| (seconds * 1e6).round() / 1e3);
    json!({
        "count": spread.count,
        "p50_below": bound(spread.p50),
        "p90_below": bound(spread.p90),
        "p99_below": bound(spread.p99),
    })
}

fn counts(spread: Spread) -> Value {
    json!({
        "count": spread.count,
        "p50_below": spread.p50,
        "p90_below": spread.p90,
        "p99_below": spread.p99,
    })
}

fn limits(config: &Config) -> Value {
    let (limits, log) = (&config.limits, &config.log);
    json!({
        "connections_per_user": limits.connections_per_user,
        "connections": limits.connections,
        "event_bytes": limits.event_bytes,
        "body_bytes": limits.body_bytes,
        "recipients": limits.recipients,
        "user_writes_per_second": limits.user_writes_per_second,
        "user_writes_burst": limits.user_writes_burst,
        "publish_per_second": limits.publish_per_second,
        "retention_events": log.retention_events,
        "retention_days": log.retention_days,
        "retention_bytes": log.retention_bytes,
        "retention_total_bytes": log.retention_total_bytes,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsQuery {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: Option<String>,
}

/// `GET /v1/admin/connections`: who is connected, in the order of connection ids.
pub async fn connections(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Result<Query<ConnectionsQuery>, QueryRejection>,
) -> Result<JsonBody<Value>, Problem> {
    caller.must_administer()?;
    let Query(query) =
        query.map_err(|rejection| Problem::bad_request("invalid_query", rejection.body_text()))?;
    let limit = limit(query.limit.as_deref())?;
    let after: Option<ConnId> = query.after.as_deref().map(str::parse).transpose()?;
    let user: Option<UserId> = query.user.as_deref().map(str::parse).transpose()?;
    let number = user.as_ref().map(|user| app.store.find(user));
    let (page, is_more) = match number {
        // Nobody of this name was ever here.
        Some(None) => (Vec::new(), false),
        number => app
            .connections
            .page(number.flatten(), after.as_ref(), limit),
    };
    let next = page.last().filter(|_| is_more).map(|last| last.id.clone());
    let told: Vec<Value> = page.iter().map(|one| told(&app, one)).collect();
    Ok(JsonBody(json!({ "connections": told, "next": next })))
}

fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else {
        return Ok(PAGE);
    };
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=PAGE_MAX).contains(limit))
        .ok_or_else(|| Problem::bad_request("invalid_query", "limit is 1 to 1000"))
}

/// One connection, and how far behind its log it is.
pub fn told(app: &App, connection: &Connection) -> Value {
    let view = app.store.view(connection.user);
    let cursor = Position {
        epoch: view.epoch,
        seq: connection.reached_seq(),
    };
    json!({
        "conn": connection.id,
        "user": app.store.name(connection.user),
        "transport": connection.transport.as_str(),
        "since": rfc3339(connection.since_ms),
        "cursor": cursor.to_string(),
        "lag": view.tail.saturating_sub(cursor.seq),
        "user_agent": connection.user_agent,
        "auth_expires": rfc3339(connection.expires_ms()),
    })
}

/// `GET /v1/admin/users/{id}`: one user as the server knows it.
pub async fn user(
    State(app): State<Arc<App>>,
    Path(user): Path<String>,
    caller: Caller,
) -> Result<JsonBody<Value>, Problem> {
    caller.must_administer()?;
    let name: UserId = user.parse()?;
    let user = app.store.find(&name).ok_or_else(Problem::not_found)?;
    let mut told = stored(&app, user).await?;
    let (connections, _) = app.connections.page(Some(user), None, TOLD_MAX);
    told["user"] = json!(name);
    told["connections"] = connections
        .iter()
        .map(|one| self::told(&app, one))
        .collect();
    told["revoked_before"] = json!(app.revocations.revoked_before(&name).map(rfc3339));
    Ok(JsonBody(told))
}

/// What the store knows of one user, most of it from one moment.
async fn stored(app: &App, user: UserNo) -> Result<Value, Problem> {
    let subscriptions = app
        .store
        .aside(move |rows| topics::of(rows, user, None, TOLD_MAX))
        .await?;
    let bytes = app.store.log_bytes(user);
    let told = app.store.look(move |transaction| {
        let badge = badge::count(transaction, user)?.to_json();
        let badge: Value = serde_json::from_str(&badge).expect("an object of three numbers");
        let view = transaction.view(user);
        let devices = ack::devices(transaction, user, None, TOLD_MAX)?;
        let devices: Vec<Value> = devices
            .iter()
            .map(|device| {
                json!({
                    "device": device.name,
                    "acked": device.acked.to_string(),
                    "acked_at": rfc3339(device.acked_ms),
                })
            })
            .collect();
        Ok(json!({
            "epoch": view.epoch.as_str(),
            "head": transaction.position(user).to_string(),
            "earliest": view.floor,
            "bytes": bytes,
            "devices": devices,
            "badge": badge,
            "conversations": conversation::count(transaction, user)?,
            "preferences": preferences::of(transaction, user)?,
        }))
    });
    let mut told = told.await?;
    told["subscriptions"] = json!(subscriptions);
    Ok(told)
}
