//! The client commands' way to a server: requests with a token, refusals in words, waits between tries.
//!
//! Promises: a token is sent to the given server only, never to a redirect's or a proxy's for loopback, and never
//! shown; a refusal is sorted into "try later" and "give up"; every wait and every reply read here has a bound.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::clock::Clock;
use crate::config::{AuthConfig, Config};
use crate::event::UserId;
use crate::{secret, token};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a reply that is read whole: 500 results of a batch take a twentieth.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a token lives that a command makes for itself; it makes a new one for each connection.
const OWN_TOKEN_TTL: Duration = Duration::from_secs(3600);
/// The first wait between two tries, doubled from try to try.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(15);
/// The longest wait that a server's Retry-After is followed for.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(300);

/// As whom a command speaks.
pub enum Credentials {
    Given(SecretString),
    /// Tokens are made for `sub` with the server's own secret.
    Own {
        auth: Box<AuthConfig>,
        secret: SecretString,
        sub: UserId,
        scope: &'static str,
    },
}

impl Credentials {
    /// The secret of the configuration, else the one that the server made in its data directory.
    pub fn own(config: &Config, sub: UserId, scope: &'static str) -> anyhow::Result<Credentials> {
        let secret = configured_secret(config)?;
        let auth = Box::new(config.auth.clone());
        Ok(Credentials::Own {
            auth,
            secret,
            sub,
            scope,
        })
    }

    fn bearer(&self) -> SecretString {
        match self {
            Credentials::Given(token) => token.clone(),
            Credentials::Own {
                auth,
                secret,
                sub,
                scope,
            } => {
                let grant = grant(auth, sub.clone(), scope, Vec::new(), OWN_TOKEN_TTL);
                SecretString::from(token::mint(secret, &grant))
            }
        }
    }
}

/// The HS256 secret that the server uses too.
pub fn configured_secret(config: &Config) -> anyhow::Result<SecretString> {
    if !config.auth.hs256_secret.expose_secret().is_empty() {
        return Ok(config.auth.hs256_secret.clone());
    }
    let data_dir: &Path = &config.server.data_dir;
    secret::read(data_dir).context("a token cannot be made")
}

/// What a token from now on for `ttl` says, with the issuer and audience that the server demands.
pub fn grant(
    auth: &AuthConfig,
    sub: UserId,
    scope: &str,
    topics: Vec<String>,
    ttl: Duration,
) -> token::Grant {
    let issued_s = Clock::system().wall_ms() / 1000;
    token::Grant {
        sub,
        scope: scope.to_owned(),
        topics,
        expires_s: issued_s.saturating_add(ttl.as_secs()),
        issued_s,
        jti: None,
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
    }
}

/// Why a request did not do what it should.
#[derive(Debug)]
pub enum Refusal {
    /// It may succeed later; the server may have said when.
    Later {
        reason: String,
        wait: Option<Duration>,
    },
    Final(String),
}

pub struct Server {
    url: Url,
    http: reqwest::Client,
    credentials: Credentials,
}

impl Server {
    pub fn new(url: Url, credentials: Credentials) -> anyhow::Result<Server> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        if is_loopback(&url) {
            http = http.no_proxy();
        }
        let http = http.build().context("no HTTP client can be made")?;
        Ok(Server {
            url,
            http,
            credentials,
        })
    }

    /// Posts JSON and reads the reply whole.
    pub async fn post(
        &self,
        path: &str,
        body: String,
        timeout: Duration,
    ) -> Result<String, Refusal> {
        let request = self
            .http
            .post(self.address(path)?)
            .bearer_auth(self.credentials.bearer().expose_secret())
            .header("content-type", "application/json")
            .timeout(timeout)
            .body(body);
        let response = self.accepted(request.send().await).await?;
        match whole(response).await {
            Ok(bytes) => String::from_utf8(bytes)
                .map_err(|_| Refusal::Final("the server's reply is not UTF-8".to_owned())),
            Err(reason) => Err(Refusal::Later { reason, wait: None }),
        }
    }

    /// Opens a reply that goes on; whoever reads it watches the time.
    pub async fn open(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, Refusal> {
        let mut address = self.address(path)?;
        address.query_pairs_mut().extend_pairs(query);
        let request = self
            .http
            .get(address)
            .bearer_auth(self.credentials.bearer().expose_secret());
        let sent = tokio::time::timeout(2 * CONNECT_TIMEOUT, request.send()).await;
        match sent {
            Ok(sent) => self.accepted(sent).await,
            Err(_) => Err(Refusal::Later {
                reason: format!("{} does not answer", self.url),
                wait: None,
            }),
        }
    }

    fn address(&self, path: &str) -> Result<Url, Refusal> {
        self.url
            .join(path)
            .map_err(|error| Refusal::Final(format!("{} is no address: {error}", self.url)))
    }

    async fn accepted(&self, sent: reqwest::Result<Response>) -> Result<Response, Refusal> {
        let response = sent.map_err(|error| Refusal::Later {
            reason: format!("{} cannot be reached: {}", self.url, innermost(&error)),
            wait: None,
        })?;
        let status = response.status();
        if status.is_success() && status != StatusCode::NO_CONTENT {
            return Ok(response);
        }
        let asked = retry_after(response.headers());
        let body = whole(response).await.unwrap_or_default();
        Err(refusal(status, asked, &body))
    }
}

/// Sorts a status that is no success.
fn refusal(status: StatusCode, asked: Option<Duration>, body: &[u8]) -> Refusal {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = problem_words(&problem)
        .map(|words| format!(": {words}"))
        .unwrap_or_default();
    let number = status.as_u16();
    match number {
        204 => Refusal::Final("the server says that this user is revoked (204)".to_owned()),
        401 => Refusal::Final(
            "the server does not accept the token (401): make a new one with `tidings token`"
                .to_owned(),
        ),
        403 => Refusal::Final(format!("the token does not allow this (403){said}")),
        408 | 429 | 502 | 503 | 504 => Refusal::Later {
            reason: format!("the server says {number}{said}"),
            wait: asked,
        },
        _ => Refusal::Final(format!("the server refused it ({number}){said}")),
    }
}

/// The sentence of a problem object, wherever it stands.
pub fn problem_words(problem: &Value) -> Option<&str> {
    let places = [
        &problem["message"],
        &problem["error"]["message"],
        &problem["title"],
        &problem["error"]["title"],
        &problem["code"],
        &problem["error"],
    ];
    places.into_iter().find_map(Value::as_str)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(ASKED_WAIT_MAX))
}

async fn whole(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(format!("the reply broke off: {}", innermost(&error))),
        }
        if bytes.len() > REPLY_BYTES_MAX {
            return Err(format!("the reply is longer than {REPLY_BYTES_MAX} bytes"));
        }
    }
}

/// The cause at the end of the chain: "Connection refused", without the layers that passed it on.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Waits that grow from failure to failure, with jitter so that many clients do not come back at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait before the next try; no less than the server asked for.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = WAIT_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
        match asked {
            Some(asked) => asked + jittered.min(asked / 2),
            None => jittered,
        }
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted() {
        let sort = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            match refusal(status, None, body.as_bytes()) {
                Refusal::Later { reason, .. } => format!("later: {reason}"),
                Refusal::Final(reason) => format!("final: {reason}"),
            }
        };
        let cases = [
            (
                429,
                r#"{"message":"too fast"}"#,
                "later: the server says 429: too fast",
            ),
            (503, "<html>", "later: the server says 503"),
            (
                400,
                r#"{"title":"Bad"}"#,
                "final: the server refused it (400): Bad",
            ),
            (301, "", "final: the server refused it (301)"),
            (403, "{}", "final: the token does not allow this (403)"),
        ];
        for (status, body, expected) in cases {
            assert_eq!(sort(status, body), expected);
        }
        assert!(sort(401, "").starts_with("final: the server does not accept the token"));
        assert!(sort(204, "").starts_with("final: the server says that this user is revoked"));
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut backoff = Backoff::default();
        for exponent in 0..80 {
            let ceiling = WAIT_MIN.saturating_mul(1 << exponent.min(10)).min(WAIT_MAX);
            let wait = backoff.next_wait(None);
            assert!(
                wait <= ceiling && wait >= ceiling / 2,
                "{wait:?} of {ceiling:?}"
            );
        }
        backoff.succeeded();
        assert!(backoff.next_wait(None) <= WAIT_MIN);
        let asked = Duration::from_secs(4);
        let wait = backoff.next_wait(Some(asked));
        assert!(wait >= asked && wait <= asked * 3 / 2);
    }

    #[test]
    fn retry_after_is_read_and_bounded() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999"), Some(ASKED_WAIT_MAX));
        assert_eq!(read("Sat, 21 Nov 2026 11:00:00 GMT"), None);
    }

    #[test]
    fn loopback_is_known_in_every_form() {
        let is = |url: &str| is_loopback(&url.parse().unwrap());
        assert!(is("http://127.0.0.1:1/") && is("http://[::1]/") && is("http://localhost:1/"));
        assert!(!is("http://10.0.0.1/") && !is("http://localhost.example/"));
    }
}
