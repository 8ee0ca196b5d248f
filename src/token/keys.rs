//! The keys that the server trusts, each bound to one algorithm and at most one name.
//!
//! Promises: a key that could never verify anything is refused when it is read, not when a token comes. A name from a
//! token is looked up in a map and is never a path or an address. It reads neither files nor the network.

use std::collections::HashMap;

use aws_lc_rs::signature::{self as crypto, ParsedPublicKey, VerificationAlgorithm};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;

/// Keys in one set; an issuer in rotation has two or three.
const KEYS_MAX: usize = 64;
/// Keys that are tried for a token that names none.
const UNNAMED_TRIES_MAX: usize = 8;
/// Length of an RSA modulus: 2048 to 8192 bits, with room for a leading zero.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1025;

#[derive(Debug, Clone)]
pub struct TrustedKey {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
    kid: Option<String>,
}

impl TrustedKey {
    pub fn from_secret(secret: &[u8]) -> TrustedKey {
        TrustedKey {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
            kid: None,
        }
    }

    /// Reads a PEM public key; its kind decides the algorithm.
    pub fn from_pem(pem: &[u8], kid: Option<String>) -> Result<TrustedKey, &'static str> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err("it holds a private key; give the public one");
        }
        let (algorithm, key) = if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            (Algorithm::ES256, key)
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (Algorithm::EdDSA, key)
        } else if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (Algorithm::RS256, key)
        } else {
            return Err("it is not a PEM public key");
        };
        TrustedKey {
            algorithm,
            key,
            kid,
        }
        .checked()
    }

    /// Reads one key of a JWKS; keys for other uses are not an error of the set, so the caller leaves them out.
    fn from_jwk(jwk: &Jwk) -> Result<TrustedKey, &'static str> {
        if !matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        ) {
            return Err("it is not for signatures");
        }
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return Err("its kind is none of RSA, P-256 and Ed25519"),
        };
        if jwk.common.key_algorithm.is_some_and(|alg| alg != named) {
            return Err("its algorithm is none of RS256, ES256 and EdDSA");
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "its numbers are not base64url")?;
        let kid = jwk.common.key_id.clone();
        TrustedKey {
            algorithm,
            key,
            kid,
        }
        .checked()
    }

    /// Refuses a key that the cryptographic library would refuse for every token.
    fn checked(self) -> Result<TrustedKey, &'static str> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::RS256 => &crypto::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::ES256 => &crypto::ECDSA_P256_SHA256_FIXED,
            _ => &crypto::ED25519,
        };
        let is_usable = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => ParsedPublicKey::new(algorithm, bytes).is_ok(),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RSA_MODULUS_BYTES.contains(&n.len()) && (1..=8).contains(&e.len())
            }
        };
        if is_usable {
            Ok(self)
        } else {
            Err("it is not an RSA key of 2048 to 8192 bits, nor on P-256, nor Ed25519")
        }
    }
}

#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<TrustedKey>,
    /// Places in `keys`; keys of different kinds may share a name.
    by_kid: HashMap<String, Vec<usize>>,
}

impl KeySet {
    pub fn new(keys: Vec<TrustedKey>) -> KeySet {
        let mut by_kid: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            if let Some(kid) = &key.kid {
                by_kid.entry(kid.clone()).or_default().push(place);
            }
        }
        KeySet { keys, by_kid }
    }

    /// Reads a JWK set. Keys that cannot verify a token are left out, as RFC 7517 section 5 asks.
    pub fn from_jwks(json: &[u8]) -> Result<KeySet, &'static str> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        let jwks: Jwks = serde_json::from_slice(json).map_err(|_| "it is not a JWK set")?;
        if jwks.keys.len() > KEYS_MAX {
            return Err("it has more than 64 keys");
        }
        let read = |value| {
            let jwk: Jwk = serde_json::from_value(value).map_err(|_| "it is not a JWK")?;
            TrustedKey::from_jwk(&jwk)
        };
        let keys = jwks.keys.into_iter().filter_map(|value| {
            read(value)
                .inspect_err(|reason| tracing::warn!(reason, "A key of the JWKS is left out"))
                .ok()
        });
        Ok(KeySet::new(keys.collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn has_kid(&self, kid: &str) -> bool {
        self.by_kid.contains_key(kid)
    }

    /// The keys that may have signed a token: those of its `kid`, or, where it names none, those of its algorithm.
    pub fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> Vec<&TrustedKey> {
        let named: Vec<&TrustedKey> = match kid {
            Some(kid) => self
                .by_kid
                .get(kid)
                .map(|places| places.iter().map(|&place| &self.keys[place]).collect())
                .unwrap_or_default(),
            None => self.keys.iter().collect(),
        };
        named
            .into_iter()
            .filter(|key| key.algorithm == algorithm)
            .take(UNNAMED_TRIES_MAX)
            .collect()
    }
}
