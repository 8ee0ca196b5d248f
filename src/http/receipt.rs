//! The answer to a publish: its receipt as JSON, alone or in the list of a batch.
//!
//! Promises: it is written by hand, since each publish has one, and still is JSON: no text in a receipt needs an escape.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::clock::rfc3339;
use crate::http::error::Problem;
use crate::id::Position;
use crate::publish::Receipt;

/// What a receipt takes, unless its id is long.
const TOLD_BYTES: usize = 192;

/// A receipt as the reply tells it.
pub fn told(receipt: &Receipt) -> String {
    let mut json = String::with_capacity(TOLD_BYTES);
    let mut digits = itoa::Buffer::new();
    json.push('{');
    if let Some(Position { epoch, seq }) = &receipt.position {
        let seq = digits.format(*seq);
        json.extend(["\"cursor\":\"", epoch.as_str(), "-", seq, "\","]);
    }
    let is_duplicate = if receipt.is_duplicate {
        "true"
    } else {
        "false"
    };
    json.extend(["\"duplicate\":", is_duplicate]);
    json.extend([",\"id\":\"", receipt.id.as_str(), "\""]);
    json.extend([",\"recipients\":", digits.format(receipt.recipients)]);
    if let Some(position) = &receipt.position {
        json.extend([",\"seq\":", digits.format(position.seq)]);
    }
    json.extend([",\"time\":\"", &rfc3339(receipt.time_ms), "\"}"]);
    json
}

/// The fault of one item of a batch, in place of its receipt.
pub fn refused(problem: &Problem) -> String {
    let (status, code, message) = (problem.status().as_u16(), problem.code, &problem.message);
    json!({ "error": { "status": status, "code": code, "message": message } }).to_string()
}

pub fn reply_to_batch(results: &[String]) -> axum::response::Response {
    reply(
        StatusCode::OK,
        format!("{{\"results\":[{}]}}", results.join(",")),
    )
}

pub fn reply(status: StatusCode, json: String) -> axum::response::Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, UserNo};

    #[test]
    fn a_receipt_is_told_with_its_position_where_there_is_one() {
        let epoch = Epoch::of(1, UserNo(2), 3);
        let mut receipt = Receipt {
            id: "e-1".parse().unwrap(),
            time_ms: 1_795_228_200_123,
            recipients: 12,
            is_duplicate: true,
            position: None,
        };
        let alone =
            r#"{"duplicate":true,"id":"e-1","recipients":12,"time":"2026-11-21T02:30:00.123Z"}"#;
        assert_eq!(told(&receipt), alone);
        (receipt.is_duplicate, receipt.recipients) = (false, 1);
        receipt.position = Some(Position { epoch, seq: 42 });
        let placed = format!(
            r#"{{"cursor":"{epoch}-42","duplicate":false,"id":"e-1","recipients":1,"seq":42,"time":"2026-11-21T02:30:00.123Z"}}"#
        );
        assert_eq!(told(&receipt), placed);
    }
}
