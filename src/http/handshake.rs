//! The opening handshake of a WebSocket (RFC 6455 section 4.2.1, RFC 7692 section 7, RFC 8441): what yawc takes on trust.
//!
//! Promises: a request that is no proper handshake is refused with the reason; of the compression offers only one that
//! can be honoured is left. It reads headers and nothing else.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::http::error::Problem;

pub const SUBPROTOCOL: &str = "tidings.v1";
const DEFLATE: &str = "permessage-deflate";
/// `Sec-WebSocket-Key` is base64 of 16 bytes: 22 characters and two signs of padding.
const KEY_CHARS: usize = 22;

pub fn not_a_socket() -> Problem {
    Problem::bad_request(
        "not_a_websocket",
        "this path takes a WebSocket handshake (RFC 6455)",
    )
}

/// Whether this is a handshake of version 13.
pub fn check(parts: &Parts) -> Result<(), Problem> {
    let headers = &parts.headers;
    let is_proper = match parts.version {
        Version::HTTP_2 => parts.method == Method::CONNECT,
        _ => {
            let has_key = only(headers, header::SEC_WEBSOCKET_KEY).is_some_and(is_key);
            let upgrades = names(headers, header::UPGRADE, "websocket")
                && names(headers, header::CONNECTION, "upgrade");
            parts.method == Method::GET && has_key && upgrades
        }
    };
    let version = only(headers, header::SEC_WEBSOCKET_VERSION);
    match (is_proper, version) {
        (false, _) | (true, None) => Err(not_a_socket()),
        (true, Some("13")) => Ok(()),
        (true, Some(_)) => {
            let message = "only version 13 of the protocol is spoken here (RFC 6455)";
            let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_version", message);
            Err(problem
                .with_header(header::SEC_WEBSOCKET_VERSION, "13")
                .with_header(header::UPGRADE, "websocket"))
        }
    }
}

/// The value of a header that stands exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    let digits = key.strip_suffix("==").unwrap_or("");
    digits.len() == KEY_CHARS && digits.bytes().all(is_base64)
}

/// Whether a comma-separated header names a token, in whatever case.
fn names(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Leaves the first offer of permessage-deflate that can be honoured, and no other. Returns the window, in bits, that it
/// wants what we compress to keep to (RFC 7692, section 7.1.2.1).
pub fn keep_good_offer(headers: &mut HeaderMap) -> Option<u8> {
    let values = headers
        .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let good = values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find_map(|offer| honoured(offer).map(|window| (offer, window)));
    let (offer, window) = good.unzip();
    match offer.and_then(|offer| HeaderValue::from_str(offer).ok()) {
        Some(offer) => drop(headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, offer)),
        None => drop(headers.remove(header::SEC_WEBSOCKET_EXTENSIONS)),
    }
    window.flatten()
}

/// Whether the offer's parameters are known and stand once, and the window that it wants of us.
fn honoured(offer: &str) -> Option<Option<u8>> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some(DEFLATE) {
        return None;
    }
    let mut seen = Vec::new();
    let mut window = None;
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            (
                "server_no_context_takeover"
                | "client_no_context_takeover"
                | "client_max_window_bits",
                None,
            ) => {}
            ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
            ("server_max_window_bits", Some(bits)) => window = Some(window_bits(bits)?),
            _ => return None,
        }
    }
    Some(window)
}

/// 8 to 15, without leading zeros.
fn window_bits(bits: &str) -> Option<u8> {
    let number: u8 = bits.parse().ok()?;
    ((8..=15).contains(&number) && number.to_string() == bits).then_some(number)
}

/// Whether `tidings.v1` is selected, and the token that may stand beside it.
pub fn subprotocols(headers: &HeaderMap) -> Result<(bool, Option<String>), Problem> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if offered.is_empty() {
        return Ok((false, None));
    }
    if !offered.contains(&SUBPROTOCOL) {
        return Err(Problem::bad_request(
            "unknown_subprotocol",
            "offer tidings.v1, or no subprotocol",
        ));
    }
    let token = offered.iter().find_map(|name| name.strip_prefix("bearer."));
    Ok((true, token.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offers_that_can_be_honoured_are_left() {
        for (good, window) in [
            ("permessage-deflate", None),
            ("permessage-deflate; client_max_window_bits", None),
            (
                "permessage-deflate; client_max_window_bits=\"10\"; server_no_context_takeover",
                None,
            ),
            ("permessage-deflate; server_max_window_bits=10", Some(10)),
            ("permessage-deflate;server_max_window_bits = \"8\"", Some(8)),
        ] {
            assert_eq!(honoured(good), Some(window), "{good}");
        }
        for bad in [
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ] {
            assert_eq!(honoured(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        let offers = "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9";
        headers.insert(
            header::SEC_WEBSOCKET_EXTENSIONS,
            HeaderValue::from_static(offers),
        );
        assert_eq!(keep_good_offer(&mut headers), Some(9));
        let left = &headers[header::SEC_WEBSOCKET_EXTENSIONS];
        assert_eq!(left, "permessage-deflate; server_max_window_bits=9");
    }

    #[test]
    fn a_key_is_base64_of_sixteen_bytes() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25j\u{e9}Q==",
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
