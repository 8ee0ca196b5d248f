//! The sections of the configuration, each with its type and its checks.
//!
//! Promises: a value of one of these types that was read from `Values` is within its bounds and contradicts no other.
//! Bounds stand here once, and beside each key of config.toml for people to read; a test holds the two together.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::values::{ConfigError, Values};

/// Bytes of an HS256 secret: as many as the hash has (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Origins as browsers write them in `Origin`: compare them byte by byte.
    pub allowed_origins: Vec<String>,
    pub drain_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Empty: the one kept in the data directory.
    pub hs256_secret: SecretString,
    /// Path of a file or http(s) URL; empty: none.
    pub jwks: String,
    pub public_keys: Vec<PathBuf>,
    /// Empty: not checked.
    pub issuer: String,
    /// Empty: not checked.
    pub audience: Vec<String>,
    pub allow_query_token: bool,
}

#[derive(Debug, Clone)]
pub struct DemoConfig {
    pub enabled: bool,
    pub allow_public: bool,
}

/// Retention; zero is no bound.
#[derive(Debug, Clone)]
pub struct LogConfig {
    pub retention_events: u64,
    pub retention_days: f64,
    pub retention_bytes: u64,
    pub retention_total_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct LimitsConfig {
    pub connections_per_user: usize,
    pub connections: usize,
    pub event_bytes: usize,
    pub body_bytes: usize,
    pub recipients: usize,
    pub user_writes_per_second: NonZeroU32,
    pub user_writes_burst: NonZeroU32,
    pub publish_per_second: NonZeroU32,
    pub auth_failures_per_minute: NonZeroU32,
}

#[derive(Debug, Clone)]
pub struct StreamConfig {
    pub ping_seconds: Duration,
    pub retry_ms_min: Duration,
    pub retry_ms_max: Duration,
    pub write_timeout_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct WsConfig {
    pub ping_seconds: Duration,
    pub pong_timeout_seconds: Duration,
    pub auth_timeout_seconds: Duration,
    pub deflate: bool,
}

#[derive(Debug, Clone)]
pub struct PresenceConfig {
    pub offline_after_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct TypingConfig {
    pub repeat_seconds: Duration,
    pub clear_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct ConversationsConfig {
    /// `None`: messages stay as long as their conversation.
    pub message_retention_days: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct NotificationsConfig {
    pub inbox_max: u64,
    pub digest_threshold: usize,
    pub digest_window_seconds: Duration,
    pub digest_every_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct FeedConfig {
    pub digest_seconds: Duration,
}

#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Zero: publishing goes on until the disk is full.
    pub min_free_bytes: u64,
    /// Zero: no ballast file.
    pub ballast_bytes: u64,
    pub ring_bytes: usize,
    pub cache_bytes: u64,
}

pub fn server(values: &Values) -> Result<ServerConfig, ConfigError> {
    let listen = parse_listen(values.text("server.listen")?).ok_or_else(|| {
        let rule = "must be an IP address with a port, such as 127.0.0.1:8082 or [::]:8082";
        values.refuse("server.listen", rule)
    })?;
    let data_dir = values.text("server.data_dir")?;
    if data_dir.is_empty() || data_dir.contains('\0') {
        return Err(values.refuse("server.data_dir", "must be the path of a directory"));
    }
    let allowed_origins = values.list("server.allowed_origins")?;
    for origin in &allowed_origins {
        check_origin(origin).map_err(|rule| values.refuse("server.allowed_origins", &rule))?;
    }
    Ok(ServerConfig {
        listen,
        data_dir: PathBuf::from(data_dir),
        allowed_origins,
        drain_seconds: values.seconds("server.drain_seconds", 0.0..=3600.0)?,
    })
}

/// An address with a port; `localhost` is the one name that needs no look-up.
fn parse_listen(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// An origin must stand as browsers write it, since it is compared byte by byte.
fn check_origin(origin: &str) -> Result<(), String> {
    const RULE: &str =
        "must hold origins as scheme://host or scheme://host:port, such as https://app.example.com";
    if origin.contains('*') {
        return Err(format!("{RULE}, each written out without `*`"));
    }
    let url = reqwest::Url::parse(origin).map_err(|_| RULE.to_owned())?;
    let host = url.host_str().ok_or_else(|| RULE.to_owned())?;
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let canonical = format!("{}://{host}{port}", url.scheme());
    if canonical == origin {
        return Ok(());
    }
    Err(format!(
        "must hold origins as browsers write them, here {canonical}"
    ))
}

pub fn auth(values: &Values) -> Result<AuthConfig, ConfigError> {
    let secret = values.text("auth.hs256_secret")?;
    if !secret.is_empty() && secret.len() < SECRET_BYTES_MIN {
        let rule = format!(
            "must have at least {SECRET_BYTES_MIN} bytes: write a longer one, such as `openssl rand -hex 32` gives, \
             or leave it empty to have one made at the first start"
        );
        return Err(values.refuse("auth.hs256_secret", &rule));
    }
    let jwks = values.text("auth.jwks")?;
    if jwks.contains("://") && !is_http_url(jwks) {
        return Err(values.refuse("auth.jwks", "must be the path of a file or an http(s) URL"));
    }
    let public_keys = values.list("auth.public_keys")?;
    if public_keys.iter().any(String::is_empty) {
        return Err(values.refuse("auth.public_keys", "must hold paths of PEM files"));
    }
    let audience = values.list("auth.audience")?;
    Ok(AuthConfig {
        hs256_secret: SecretString::from(secret),
        jwks: jwks.to_owned(),
        public_keys: public_keys.into_iter().map(PathBuf::from).collect(),
        issuer: values.text("auth.issuer")?.to_owned(),
        audience: audience.into_iter().filter(|one| !one.is_empty()).collect(),
        allow_query_token: values.flag("auth.allow_query_token")?,
    })
}

fn is_http_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()))
}

/// With the demo on, anyone can be any user: on a public address only where that was asked for in so many words.
pub fn demo(values: &Values, listen: SocketAddr) -> Result<DemoConfig, ConfigError> {
    let is_loopback = listen.ip().to_canonical().is_loopback();
    let enabled = values.flag_or_auto("demo.enabled")?.unwrap_or(is_loopback);
    let allow_public = values.flag("demo.allow_public")?;
    if enabled && !is_loopback && !allow_public {
        let must = "not be true on the public address in";
        let cure = "set `demo.enabled` to false, or `demo.allow_public` to true if everyone may be any user";
        return Err(values.contradiction("demo.enabled", must, "server.listen", cure));
    }
    Ok(DemoConfig {
        enabled,
        allow_public,
    })
}

pub fn log(values: &Values) -> Result<LogConfig, ConfigError> {
    Ok(LogConfig {
        retention_events: values.whole("log.retention_events", 0..=1_000_000_000)?,
        retention_days: values.fraction("log.retention_days", 0.0..=36500.0)?,
        retention_bytes: values.whole("log.retention_bytes", 0..=1_000_000_000_000)?,
        retention_total_bytes: values
            .whole("log.retention_total_bytes", 0..=1_000_000_000_000_000)?,
    })
}

pub fn limits(values: &Values) -> Result<LimitsConfig, ConfigError> {
    let limits = LimitsConfig {
        connections_per_user: values.whole("limits.connections_per_user", 1..=1_000_000)?,
        connections: values.whole("limits.connections", 1..=1_000_000)?,
        event_bytes: values.whole("limits.event_bytes", 1..=16_777_216)?,
        body_bytes: values.whole("limits.body_bytes", 1..=1_073_741_824)?,
        recipients: values.whole("limits.recipients", 1..=1_000_000)?,
        user_writes_per_second: values.rate("limits.user_writes_per_second", 1_000_000)?,
        user_writes_burst: values.rate("limits.user_writes_burst", 1_000_000)?,
        publish_per_second: values.rate("limits.publish_per_second", 10_000_000)?,
        auth_failures_per_minute: values.rate("limits.auth_failures_per_minute", 1_000_000)?,
    };
    if limits.event_bytes <= limits.body_bytes {
        return Ok(limits);
    }
    let cure = "an event comes in a body, so lower the one or raise the other";
    let must = "be no more than";
    Err(values.contradiction("limits.event_bytes", must, "limits.body_bytes", cure))
}

pub fn stream(values: &Values) -> Result<StreamConfig, ConfigError> {
    let stream = StreamConfig {
        ping_seconds: values.seconds("stream.ping_seconds", 0.01..=3600.0)?,
        retry_ms_min: values.milliseconds("stream.retry_ms_min", 1.0..=3_600_000.0)?,
        retry_ms_max: values.milliseconds("stream.retry_ms_max", 1.0..=3_600_000.0)?,
        write_timeout_seconds: values.seconds("stream.write_timeout_seconds", 0.01..=3600.0)?,
    };
    if stream.retry_ms_min <= stream.retry_ms_max {
        return Ok(stream);
    }
    let cure = "lower the one or raise the other";
    let must = "be no more than";
    Err(values.contradiction("stream.retry_ms_min", must, "stream.retry_ms_max", cure))
}

pub fn ws(values: &Values) -> Result<WsConfig, ConfigError> {
    Ok(WsConfig {
        ping_seconds: values.seconds("ws.ping_seconds", 0.01..=3600.0)?,
        pong_timeout_seconds: values.seconds("ws.pong_timeout_seconds", 0.01..=3600.0)?,
        auth_timeout_seconds: values.seconds("ws.auth_timeout_seconds", 0.01..=3600.0)?,
        deflate: values.flag("ws.deflate")?,
    })
}

pub fn presence(values: &Values) -> Result<PresenceConfig, ConfigError> {
    let offline_after = values.seconds("presence.offline_after_seconds", 0.0..=86400.0)?;
    Ok(PresenceConfig {
        offline_after_seconds: offline_after,
    })
}

pub fn typing(values: &Values) -> Result<TypingConfig, ConfigError> {
    Ok(TypingConfig {
        repeat_seconds: values.seconds("typing.repeat_seconds", 0.01..=3600.0)?,
        clear_seconds: values.seconds("typing.clear_seconds", 0.01..=3600.0)?,
    })
}

pub fn conversations(values: &Values) -> Result<ConversationsConfig, ConfigError> {
    const DAY_SECONDS: f64 = 86_400.0;
    let days = values.fraction("conversations.message_retention_days", 0.0..=36500.0)?;
    Ok(ConversationsConfig {
        message_retention_days: (days > 0.0).then(|| Duration::from_secs_f64(days * DAY_SECONDS)),
    })
}

pub fn notifications(values: &Values) -> Result<NotificationsConfig, ConfigError> {
    let every = values.seconds("notifications.digest_every_seconds", 0.01..=86400.0)?;
    let window = values.seconds("notifications.digest_window_seconds", 0.01..=86400.0)?;
    Ok(NotificationsConfig {
        inbox_max: values.whole("notifications.inbox_max", 1..=1_000_000)?,
        digest_threshold: values.whole("notifications.digest_threshold", 1..=1_000_000)?,
        digest_window_seconds: window,
        digest_every_seconds: every,
    })
}

pub fn feed(values: &Values) -> Result<FeedConfig, ConfigError> {
    Ok(FeedConfig {
        digest_seconds: values.seconds("feed.digest_seconds", 0.01..=86400.0)?,
    })
}

pub fn store(values: &Values) -> Result<StoreConfig, ConfigError> {
    Ok(StoreConfig {
        min_free_bytes: values.whole("store.min_free_bytes", 0..=1_000_000_000_000_000)?,
        ballast_bytes: values.whole("store.ballast_bytes", 0..=1_000_000_000_000)?,
        ring_bytes: values.whole("store.ring_bytes", 1..=1_000_000_000_000)?,
        cache_bytes: values.whole("store.cache_bytes", 1..=1_000_000_000_000)?,
    })
}
