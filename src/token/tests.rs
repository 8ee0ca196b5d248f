//! Tests of tokens: keys made for one test, and tokens put together byte by byte so that they can be wrong.

mod accepted;
mod refused;
mod rotation;

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as crypto, KeyPair};
use aws_lc_rs::{hmac, rsa};
use serde_json::{Value, json};

use super::*;

/// 2026-11-21T02:30:00Z, the moment at which the tests judge.
const NOW_S: u64 = 1_795_228_200;
const NOW_MS: u64 = NOW_S * 1000;
const SECRET: &str = "a secret of thirty-two bytes or more";

/// A key pair as an issuer has it.
struct Issuer {
    alg: &'static str,
    kid: String,
    /// Without `kid`.
    jwk: Value,
    pem: String,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

impl Issuer {
    fn hs256(secret: &[u8]) -> Issuer {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Issuer {
            alg: "HS256",
            kid: String::new(),
            jwk: json!({"kty": "oct", "k": base64url(secret)}),
            pem: String::new(),
            sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
        }
    }

    fn es256(kid: &str) -> Issuer {
        let pair = crypto::EcdsaKeyPair::generate(&crypto::ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        Issuer {
            alg: "ES256",
            kid: kid.to_owned(),
            jwk: json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}),
            pem: pem(pair.public_key().as_der().unwrap().as_ref()),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.unwrap().as_ref().to_vec()
            }),
        }
    }

    fn eddsa(kid: &str) -> Issuer {
        let pair = crypto::Ed25519KeyPair::generate().unwrap();
        let x = base64url(pair.public_key().as_ref());
        Issuer {
            alg: "EdDSA",
            kid: kid.to_owned(),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
            pem: pem(pair.public_key().as_der().unwrap().as_ref()),
            sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
        }
    }

    fn rs256(kid: &str) -> Issuer {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let numbers = crypto::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let (n, e) = (base64url(&numbers.n), base64url(&numbers.e));
        Issuer {
            alg: "RS256",
            kid: kid.to_owned(),
            jwk: json!({"kty": "RSA", "n": n, "e": e}),
            pem: pem(pair.public_key().as_der().unwrap().as_ref()),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &crypto::RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .unwrap();
                signature
            }),
        }
    }

    /// A good token, with the `kid` if there is one.
    fn token(&self) -> String {
        let mut header = json!({"alg": self.alg});
        if !self.kid.is_empty() {
            header["kid"] = self.kid.as_str().into();
        }
        self.token_of(&header.to_string(), &claims().to_string())
    }

    /// Signs any header and claims.
    fn token_of(&self, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.as_bytes())
        );
        format!("{message}.{}", base64url(&(self.sign)(message.as_bytes())))
    }

    fn jwk_with(&self, fields: Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = self.kid.as_str().into();
        for (name, value) in fields.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    /// Writes the PEM file whose name is the `kid`.
    fn write_pem(&self, directory: &Path) -> PathBuf {
        let path = directory.join(format!("{}.pem", self.kid));
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 3600, "iss": "https://id.example", "aud": "tidings"})
}

fn claims_with(fields: Value) -> String {
    let mut claims = claims();
    for (name, value) in fields.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.to_string()
}

fn settings() -> Settings {
    Settings {
        hs256_secret: SECRET.into(),
        public_keys: Vec::new(),
        jwks: String::new(),
        issuer: "https://id.example".to_owned(),
        audience: vec!["tidings".to_owned(), "tidings-staging".to_owned()],
    }
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for place in 0..=group.len() {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(ALPHABET[sextet as usize]));
        }
    }
    text
}

fn pem(der: &[u8]) -> String {
    let mut body = base64url(der).replace('-', "+").replace('_', "/");
    body.extend(std::iter::repeat_n('=', (4 - body.len() % 4) % 4));
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}
