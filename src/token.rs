//! Who a token speaks for: verifies a JWT and gives its claims, and makes one.
//!
//! Promises: only keys of the configuration are trusted, each for one algorithm; `exp` is required; `nbf`, `iss` and
//! `aud` are checked; time is what the caller says it is. Why a token was refused is for the debug log alone and never
//! contains any of it. It does not know about revoked tokens, which the store keeps, nor about cookies and tickets.

mod jwks;
mod keys;
mod known;
mod signed;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::event::{Topic, UserId};
use crate::token::jwks::{Jwks, JwksError, Pace};
use crate::token::keys::{KeySet, TrustedKey};
use crate::token::known::Known;
use crate::token::signed::Signed;

/// How far the clocks of issuer and server may differ.
pub const LEEWAY_MS: u64 = 30_000;
/// The end of the year 9999: a later `exp` is a mistake, most often milliseconds where seconds are meant.
const TIME_S_MAX: u64 = 253_402_300_799;
/// Length of a token's own id.
const JTI_BYTES_MAX: usize = 256;
/// Length of a topic pattern, as that of a topic.
const PATTERN_BYTES_MAX: usize = 128;

/// What a verified token says.
#[derive(Debug, Clone)]
pub struct Claims {
    pub sub: UserId,
    pub scope: Scopes,
    /// When the token ends by its own word; the leeway is not in it.
    pub expires_ms: UnixMs,
    pub issued_ms: Option<UnixMs>,
    pub jti: Option<String>,
    /// What the user may subscribe itself to.
    pub topics: Vec<TopicPattern>,
}

/// What a caller may do beyond acting for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    publish: bool,
    admin: bool,
}

impl Scopes {
    /// Reads a `scope` claim: words between spaces, unknown ones ignored.
    pub fn parse(scope: &str) -> Scopes {
        let has = |wanted| scope.split(' ').any(|word| word == wanted);
        Scopes {
            publish: has("publish"),
            admin: has("admin"),
        }
    }

    /// May publish to anyone and act for users.
    pub fn may_publish(self) -> bool {
        self.publish || self.admin
    }

    /// May do everything.
    pub fn is_admin(self) -> bool {
        self.admin
    }
}

/// A topic, or the beginning of topics where a `*` stands at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    /// The text without the `*`.
    start: Box<str>,
    is_prefix: bool,
}

impl TopicPattern {
    pub fn matches(&self, topic: &Topic) -> bool {
        if self.is_prefix {
            topic.as_str().starts_with(&*self.start)
        } else {
            topic.as_str() == &*self.start
        }
    }
}

impl FromStr for TopicPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<TopicPattern, &'static str> {
        let (start, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let is_topic = start.parse::<Topic>().is_ok() || (start.is_empty() && is_prefix);
        if !is_topic || text.len() > PATTERN_BYTES_MAX {
            return Err("a topic pattern must be a topic, with a * at most at its end");
        }
        let start = start.into();
        Ok(TopicPattern { start, is_prefix })
    }
}

/// Why a token was refused. A caller is told 401 and nothing else, whatever the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token has expired")]
    Expired,
    /// The cause is a fixed sentence for the debug log.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Where the trusted keys are and what every token must say.
#[derive(Debug)]
pub struct Settings {
    /// Empty: no token is signed by a secret.
    pub hs256_secret: SecretString,
    /// PEM files. A file's name without its ending is the `kid` of its key.
    pub public_keys: Vec<PathBuf>,
    /// A file or an address; empty for none.
    pub jwks: String,
    /// Empty: not checked.
    pub issuer: String,
    /// A token must name one of these; none: not checked.
    pub audience: Vec<String>,
}

/// Why the keys could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the public key {path} is not usable: {reason}")]
    Key { path: PathBuf, reason: String },
    #[error("the JWKS {place} is not usable: {source}")]
    Jwks {
        place: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("no key is configured that could verify a token")]
    NoKey,
}

#[derive(Debug)]
pub struct Verifier {
    /// The secret and the PEM files, which stay as they are while the server runs.
    fixed: KeySet,
    jwks: Option<Jwks>,
    issuer: String,
    audience: Vec<String>,
    known: Known<Verified>,
}

impl Verifier {
    pub async fn open(settings: Settings) -> Result<Verifier, OpenError> {
        Verifier::open_at_pace(settings, Pace::default()).await
    }

    async fn open_at_pace(settings: Settings, pace: Pace) -> Result<Verifier, OpenError> {
        let mut fixed = Vec::new();
        let secret = settings.hs256_secret.expose_secret();
        if !secret.is_empty() {
            fixed.push(TrustedKey::from_secret(secret.as_bytes()));
        }
        for path in &settings.public_keys {
            fixed.push(open_pem(path).await?);
        }
        let jwks = match settings.jwks.as_str() {
            "" if fixed.is_empty() => return Err(OpenError::NoKey),
            "" => None,
            place => Some(open_jwks(place, pace).await?),
        };
        Ok(Verifier {
            fixed: KeySet::new(fixed),
            jwks,
            issuer: settings.issuer,
            audience: settings.audience,
            known: Known::default(),
        })
    }

    /// Gives the claims of `token` as judged at `now_ms`. Waits only for a JWKS that may have got the key that the
    /// token names; for that `refresh_forever` must run.
    pub async fn verify(&self, token: &str, now_ms: UnixMs) -> Result<Claims, Refused> {
        let keys = self.jwks.as_ref().map(Jwks::keys);
        if let Some(verified) = self.known.find(token, keys.as_ref()) {
            return verified.at(now_ms);
        }
        let signed = Signed::parse(token).map_err(Refused::Invalid)?;
        if let (Some(jwks), Some(kid)) = (&self.jwks, &signed.kid)
            && !self.fixed.has_kid(kid)
            && !jwks.keys().has_kid(kid)
        {
            jwks.wish().await;
        }
        // Those that there are now decide, and it is by them that the token is known.
        let keys = self.jwks.as_ref().map(Jwks::keys);
        if !self.is_trusted(&signed, keys.as_deref()) {
            return Err(Refused::Invalid("no trusted key made the signature"));
        }
        let raw: RawClaims = signed.claims().map_err(Refused::Invalid)?;
        let verified = self.judge(raw)?;
        let claims = verified.clone().at(now_ms)?;
        self.known.note(token, keys.as_ref(), &verified);
        Ok(claims)
    }

    /// Reads the JWKS again and again until `stop`; ends at once where there is none.
    pub async fn refresh_forever(self: Arc<Verifier>, stop: CancellationToken) {
        if let Some(jwks) = &self.jwks {
            jwks.refresh_forever(stop).await;
        }
    }

    fn is_trusted(&self, signed: &Signed<'_>, jwks: Option<&KeySet>) -> bool {
        let is_in = |keys: &KeySet| {
            keys.candidates(signed.algorithm, signed.kid.as_deref())
                .iter()
                .any(|trusted| signed.is_signed_by(&trusted.key, trusted.algorithm))
        };
        is_in(&self.fixed) || jwks.is_some_and(is_in)
    }

    /// Decides whether what the token says is well said and meant for this server; when it is so, `Verified::at` says.
    fn judge(&self, raw: RawClaims) -> Result<Verified, Refused> {
        let expires_ms = seconds_to_ms(raw.exp)?;
        let not_before_ms = seconds_to_ms(raw.nbf.unwrap_or(0))?;
        if !self.issuer.is_empty() && raw.iss.as_deref() != Some(self.issuer.as_str()) {
            return Err(Refused::Invalid("the issuer is another"));
        }
        if !self.audience.is_empty() && !raw.aud.names_one_of(&self.audience) {
            return Err(Refused::Invalid("the token is for another audience"));
        }
        if raw.jti.as_ref().is_some_and(|jti| !is_jti(jti)) {
            return Err(Refused::Invalid("the jti is not a short text"));
        }
        let topics = raw.topics.iter().map(|pattern| pattern.parse());
        let claims = Claims {
            sub: raw.sub,
            scope: Scopes::parse(&raw.scope),
            expires_ms,
            issued_ms: raw.iat.map(|iat| iat.0),
            jti: raw.jti,
            topics: topics.collect::<Result<_, _>>().map_err(Refused::Invalid)?,
        };
        Ok(Verified {
            claims,
            not_before_ms,
        })
    }
}

/// What a token says whose signature is good, before the time is looked at.
#[derive(Debug, Clone)]
struct Verified {
    claims: Claims,
    not_before_ms: UnixMs,
}

impl Verified {
    /// The claims, if they hold at `now_ms`.
    fn at(self, now_ms: UnixMs) -> Result<Claims, Refused> {
        if now_ms >= self.claims.expires_ms.saturating_add(LEEWAY_MS) {
            return Err(Refused::Expired);
        }
        if self.not_before_ms > now_ms.saturating_add(LEEWAY_MS) {
            return Err(Refused::Invalid("the token is not valid yet"));
        }
        Ok(self.claims)
    }
}

async fn open_pem(path: &Path) -> Result<TrustedKey, OpenError> {
    let refused = |reason: String| OpenError::Key {
        path: path.to_owned(),
        reason,
    };
    let pem = tokio::fs::read(path).await;
    let pem = pem.map_err(|error| refused(error.to_string()))?;
    let kid = path.file_stem().and_then(|stem| stem.to_str());
    TrustedKey::from_pem(&pem, kid.map(str::to_owned)).map_err(|reason| refused(reason.to_owned()))
}

async fn open_jwks(place: &str, pace: Pace) -> Result<Jwks, OpenError> {
    Jwks::open(place, pace)
        .await
        .map_err(|error: JwksError| OpenError::Jwks {
            place: place.to_owned(),
            source: error.into(),
        })
}

/// The claims as they stand in a token. `null` is no value, unknown claims are ignored, none may stand twice.
#[derive(Deserialize)]
struct RawClaims {
    sub: UserId,
    exp: u64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<IssuedMs>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default)]
    aud: Audience,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    topics: Vec<String>,
}

/// Reads a claim that may be missing but not `null`.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// `iat` in milliseconds. Some issuers write it with a fraction.
struct IssuedMs(UnixMs);

impl<'de> Deserialize<'de> for IssuedMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IssuedMs, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=TIME_S_MAX as f64).contains(&seconds) {
            return Err(serde::de::Error::custom("iat is not a time"));
        }
        Ok(IssuedMs((seconds * 1000.0) as UnixMs))
    }
}

/// One name or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Audience {
        Audience::Several(Vec::new())
    }
}

impl Audience {
    fn names_one_of(&self, ours: &[String]) -> bool {
        match self {
            Audience::One(name) => ours.contains(name),
            Audience::Several(names) => names.iter().any(|name| ours.contains(name)),
        }
    }
}

fn seconds_to_ms(seconds: u64) -> Result<UnixMs, Refused> {
    if seconds > TIME_S_MAX {
        return Err(Refused::Invalid("a time lies beyond the year 9999"));
    }
    Ok(seconds * 1000)
}

fn is_jti(jti: &str) -> bool {
    (1..=JTI_BYTES_MAX).contains(&jti.len()) && !jti.chars().any(char::is_control)
}

/// What a token says, whoever signed it: for the fault that the checker must catch.
#[cfg(feature = "faults")]
pub fn unverified(token: &str) -> Option<serde_json::Value> {
    Signed::parse(token).ok()?.claims().ok()
}

/// What a token made here is to say. Times are Unix seconds, as in the token.
#[derive(Debug, Clone)]
pub struct Grant {
    pub sub: UserId,
    /// The words of the scope with spaces between them; empty for a user acting for itself.
    pub scope: String,
    pub topics: Vec<String>,
    pub expires_s: u64,
    pub issued_s: u64,
    pub jti: Option<String>,
    /// What the server's own configuration demands of a token; empty: nothing.
    pub issuer: String,
    pub audience: Vec<String>,
}

/// Makes a token signed with the HS256 secret.
pub fn mint(secret: &SecretString, grant: &Grant) -> String {
    let mut claims = serde_json::json!({
        "sub": grant.sub.as_str(),
        "exp": grant.expires_s,
        "iat": grant.issued_s,
    });
    if !grant.scope.is_empty() {
        claims["scope"] = grant.scope.as_str().into();
    }
    if !grant.topics.is_empty() {
        claims["topics"] = grant.topics.clone().into();
    }
    if let Some(jti) = &grant.jti {
        claims["jti"] = jti.as_str().into();
    }
    if !grant.issuer.is_empty() {
        claims["iss"] = grant.issuer.as_str().into();
    }
    if !grant.audience.is_empty() {
        claims["aud"] = grant.audience.clone().into();
    }
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let key = jsonwebtoken::EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&header, &claims, &key)
        .expect("an HMAC of a JSON object takes a key of any length")
}
