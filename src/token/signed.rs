//! The form of a signed token: three parts, a header, a signature. It does not know what the claims mean.
//!
//! Promises: whatever is wrong with the form is found before any signature is computed, in time proportional to a
//! token of `TOKEN_BYTES_MAX`. The header decides nothing: it is compared with the keys that the server trusts.
//! Causes are fixed sentences, so that no part of a token can reach a log through them.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::event::Json;

/// Length of a whole token: a header of a request has 32 KiB, and real tokens stay below 4 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Length of a `kid`; issuers use a hash or a UUID.
const KID_BYTES_MAX: usize = 256;
/// Header fields that would let the token bring its own key, or its own rules of how to read it.
const REFUSED_FIELDS: [&str; 9] = [
    "crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "url",
];
/// Types of token that may stand in `typ`, in lower case.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// A token whose form is right and whose signature was not yet looked at.
#[derive(Debug)]
pub struct Signed<'a> {
    pub algorithm: Algorithm,
    /// The name of the key, as the token tells it.
    pub kid: Option<String>,
    /// What the signature covers: header and claims with the dot between them.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    pub fn parse(token: &'a str) -> Result<Signed<'a>, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is longer than 8 KiB");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token does not have three parts");
        };
        if ![header, claims, signature].into_iter().all(is_base64url) {
            return Err("a part of the token is not base64url");
        }
        let (algorithm, kid) = read_header(header)?;
        Ok(Signed {
            algorithm,
            kid,
            message: &token[..header.len() + 1 + claims.len()],
            claims,
            signature,
        })
    }

    /// Whether `key` made the signature. The algorithm is the key's, not the token's.
    pub fn is_signed_by(&self, key: &DecodingKey, algorithm: Algorithm) -> bool {
        let message = self.message.as_bytes();
        algorithm == self.algorithm
            && jsonwebtoken::crypto::verify(self.signature, message, key, algorithm)
                .unwrap_or(false)
    }

    /// The claims, each of which may stand once.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, &'static str> {
        let json = read_part(self.claims).ok_or("the claims are not acceptable JSON")?;
        serde_json::from_str(json.as_str())
            .map_err(|_| "a claim is missing or has the wrong type or form")
    }
}

/// One of the four algorithms that a configured key can have, and the key's name.
fn read_header(part: &str) -> Result<(Algorithm, Option<String>), &'static str> {
    let json = read_part(part).ok_or("the header is not acceptable JSON")?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json.as_str()).map_err(|_| "the header is not an object")?;
    if REFUSED_FIELDS
        .iter()
        .any(|field| header.contains_key(*field))
    {
        return Err("the header has a field that is not accepted");
    }
    let algorithm = match header.get("alg").and_then(|alg| alg.as_str()) {
        Some("HS256") => Algorithm::HS256,
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => return Err("the algorithm is none that a key can have"),
    };
    match header.get("typ").map(|typ| typ.as_str()) {
        None => {}
        Some(Some(typ)) if TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)) => {}
        Some(_) => return Err("the type is neither JWT nor at+jwt"),
    }
    match header.get("kid").map(|kid| kid.as_str()) {
        None => Ok((algorithm, None)),
        Some(Some(kid)) if (1..=KID_BYTES_MAX).contains(&kid.len()) => {
            Ok((algorithm, Some(kid.to_owned())))
        }
        Some(_) => Err("the kid is not a short text"),
    }
}

/// Decodes one part and checks that it is JSON without a key that stands twice.
fn read_part(part: &str) -> Option<Json> {
    // The library decodes the middle one of three parts and looks at nothing else.
    let framed = format!(".{part}.");
    let raw: Box<RawValue> = jsonwebtoken::dangerous::insecure_decode_claims(framed).ok()?;
    Json::checked(&raw).ok()
}

/// Whether `part` is base64url without padding in its one canonical spelling: no bits left over at its end.
fn is_base64url(part: &str) -> bool {
    let spare_bits = match part.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return false,
    };
    let is_alphabet = part.bytes().all(|byte| sextet(byte).is_some());
    let last = part.bytes().last().and_then(sextet);
    is_alphabet && last.is_some_and(|last| last & spare_bits == 0)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}
