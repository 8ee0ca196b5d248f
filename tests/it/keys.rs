//! PROTOCOL.md section 4: public keys as PEM files and as a JWKS, and what `kid` may and may not do.
//!
//! Promises: key pairs are made anew in each test; no key lies in the repository. What is tested is that the
//! configuration reaches the verifier; its own table of bad tokens stands beside it.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{Options, Server, eventually, spawn};
use crate::tokens::{self, Token, base64url};

struct Key {
    pair: Ed25519KeyPair,
    private: Vec<u8>,
}

impl Key {
    fn fresh() -> Key {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        Key { pair, private }
    }

    fn sign(&self, user: &str, kid: Option<&str>) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = kid.map(str::to_owned);
        let key = EncodingKey::from_ed_der(&self.private);
        encode(&header, &Token::of(user).claims(), &key).unwrap()
    }

    fn jwk(&self, kid: &str) -> Value {
        let x = base64url(self.pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x})
    }

    /// The public key as PEM: the twelve bytes are those of RFC 8410 before an Ed25519 key.
    fn pem(&self) -> String {
        let mut der = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend(self.pair.public_key().as_ref());
        let text = base64url(&der).replace('-', "+").replace('_', "/");
        let padding = "=".repeat((4 - text.len() % 4) % 4);
        format!("-----BEGIN PUBLIC KEY-----\n{text}{padding}\n-----END PUBLIC KEY-----\n")
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn status(server: &Server, token: &str) -> u16 {
    server
        .get("/v1/events?format=json")
        .token(token)
        .send()
        .await
        .status
}

#[tokio::test]
async fn pem_files_bring_public_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two, other) = (Key::fresh(), Key::fresh(), Key::fresh());
    let files = [("one.pem", &one), ("two.pem", &two)].map(|(name, key)| {
        write(directory.path(), name, &key.pem())
            .display()
            .to_string()
    });
    let server = spawn(Options::new().set("auth.public_keys", files.join(",")));
    for (what, token, expected) in [
        ("the first key", one.sign("alice", None), 200),
        ("the second key", two.sign("alice", None), 200),
        ("another key", other.sign("alice", None), 401),
        ("the secret beside them", tokens::user("alice"), 200),
        (
            "a public key as a secret",
            Token::of("alice").sign_with(&Header::default(), &one.pem()),
            401,
        ),
    ] {
        assert_eq!(status(&server, &token).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_jwks_file_brings_keys_by_their_kid_and_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Key::fresh(), Key::fresh());
    let keys = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let both = keys(&[one.jwk("one"), two.jwk("two")]);
    let file = write(directory.path(), "keys.json", &both);
    let server = spawn(Options::new().set("auth.jwks", file.display()));
    for (what, token, expected) in [
        ("by its kid", one.sign("alice", Some("one")), 200),
        ("by its kid too", two.sign("alice", Some("two")), 200),
        (
            "by the kid of the other",
            two.sign("alice", Some("one")),
            401,
        ),
    ] {
        assert_eq!(status(&server, &token).await, expected, "{what}");
    }
    let three = Key::fresh();
    write(directory.path(), "keys.json", &keys(&[three.jwk("three")]));
    let token = three.sign("alice", Some("three"));
    eventually("a rotated key is found", async || {
        status(&server, &token).await == 200
    })
    .await;
}

#[tokio::test]
async fn keys_that_cannot_be_read_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let broken = write(
        directory.path(),
        "broken.pem",
        "-----BEGIN PUBLIC KEY-----\nxx\n",
    );
    for (key, path) in [
        ("auth.public_keys", broken.display().to_string()),
        ("auth.public_keys", "/no/such/key.pem".to_owned()),
        ("auth.jwks", "/no/such/keys.json".to_owned()),
        ("auth.jwks", broken.display().to_string()),
    ] {
        let started = crate::harness::try_spawn(Options::new().set(key, &path));
        let failure = started
            .err()
            .unwrap_or_else(|| panic!("{key}={path} was taken"));
        assert_eq!(
            failure.status.and_then(|status| status.code()),
            Some(1),
            "{failure:?}"
        );
        assert!(failure.stderr.contains(&path), "{failure:?}");
    }
}
