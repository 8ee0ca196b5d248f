//! Tokens for the tests, signed here with the secret that the harness configures.
//!
//! Promises: `Token::of` is a valid token of a user for one hour, until a test changes its claims or its header.
//! It never asks the server for a token.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

/// The HS256 secret of every server of the harness.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough-0123456789";

/// The claims of one token, changed before it is signed.
#[derive(Clone)]
pub struct Token(Map<String, Value>);

/// A user acting for itself.
pub fn user(name: &str) -> String {
    Token::of(name).sign()
}

/// A backend that may publish to anyone.
pub fn publisher() -> String {
    Token::of("backend").claim("scope", "publish").sign()
}

pub fn admin() -> String {
    Token::of("operator").claim("scope", "admin").sign()
}

impl Token {
    pub fn of(user: &str) -> Token {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), json!(user));
        claims.insert("exp".to_owned(), json!(unix_seconds() + 3600));
        claims.insert("iat".to_owned(), json!(unix_seconds()));
        Token(claims)
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Token {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Token {
        self.0.remove(name);
        self
    }

    pub fn expires_in(self, seconds: i64) -> Token {
        let now = i64::try_from(unix_seconds()).unwrap();
        self.claim("exp", now + seconds)
    }

    pub fn sign(&self) -> String {
        self.sign_with(&Header::default(), SECRET)
    }

    pub fn sign_with(&self, header: &Header, secret: &str) -> String {
        encode(
            header,
            &self.0,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    }

    pub fn claims(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Base64url without padding, as tokens write it.
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for position in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * position)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[test]
fn base64url_is_that_of_rfc_4648() {
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg"),
        ("fo", "Zm8"),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg"),
    ] {
        assert_eq!(base64url(plain.as_bytes()), encoded);
    }
    assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
}
