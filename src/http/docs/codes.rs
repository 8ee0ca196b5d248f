//! Every code that a refusal may carry, with its status and its meaning: the stable part of an error.
//!
//! Promises: a code has one status and one meaning wherever it comes from; a test compares this table with the codes
//! that the source names. It is words only.

/// One code of a problem object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    pub status: u16,
    pub meaning: &'static str,
}

const fn code(status: u16, code: &'static str, meaning: &'static str) -> Code {
    Code {
        code,
        status,
        meaning,
    }
}

/// All codes, in the order of their status.
pub const CODES: &[Code] = &[
    code(
        400,
        "ambiguous_length",
        "a request tells its length by Content-Length and by chunks",
    ),
    code(400, "bad_request", "the request is malformed"),
    code(400, "empty_batch", "a batch without events"),
    code(
        400,
        "invalid_activity",
        "activity is 1 to 64 characters without control characters",
    ),
    code(
        400,
        "invalid_batch",
        "an item of an atomic batch is refused: `errors` says which; nothing was stored",
    ),
    code(400, "invalid_body", "the body could not be read to its end"),
    code(400, "invalid_conn", "not a connection id"),
    code(400, "invalid_content", "content is 1 to 8000 characters"),
    code(400, "invalid_conversation_id", "not a conversation id"),
    code(400, "invalid_cursor", "not a position in a log"),
    code(
        400,
        "invalid_data",
        "data is no JSON, or nested deeper than 127 levels",
    ),
    code(
        400,
        "invalid_entity",
        "an entity event without its entity and id",
    ),
    code(
        400,
        "invalid_event",
        "an event that this call does not take",
    ),
    code(
        400,
        "invalid_filter",
        "types or topics that are no list of patterns",
    ),
    code(400, "invalid_format", "format is sse, ndjson or json"),
    code(400, "invalid_host", "a request names its host once"),
    code(400, "invalid_id", "not an event id"),
    code(
        400,
        "invalid_json",
        "the body is not the JSON that this call takes; the message says where",
    ),
    code(400, "invalid_key", "not a key"),
    code(400, "invalid_kind", "a kind is 1 to 32 of a-z 0-9 _ -"),
    code(
        400,
        "invalid_members",
        "too few members, or more than limits.recipients",
    ),
    code(
        400,
        "invalid_muted",
        "muted names types such as notification.like",
    ),
    code(400, "invalid_name", "name is 1 to 128 characters"),
    code(
        400,
        "invalid_notification",
        "a notification out of bounds; the message says which",
    ),
    code(
        400,
        "invalid_query",
        "a query parameter out of bounds; the message says which",
    ),
    code(
        400,
        "invalid_read",
        "name either ids or \"all\":true; upto or message_ids",
    ),
    code(400, "invalid_ref", "a ref is at most 128 bytes"),
    code(400, "invalid_revocation", "name either user or jti"),
    code(400, "invalid_state", "state is start or stop"),
    code(
        400,
        "invalid_status",
        "status is online, away, busy, offline or auto",
    ),
    code(400, "invalid_topic", "not a topic"),
    code(
        400,
        "invalid_ttl",
        "ttl is for ephemeral events, 0 to 86400 seconds",
    ),
    code(400, "invalid_type", "not an event type"),
    code(
        400,
        "invalid_url",
        "the percent-encoded bytes of the URL are not UTF-8",
    ),
    code(400, "invalid_user_id", "not a user id"),
    code(400, "no_recipient", "users is empty"),
    code(400, "not_a_websocket", "the request asks for no WebSocket"),
    code(
        400,
        "reserved_type",
        "a type that the server keeps for itself",
    ),
    code(400, "too_many_events", "a batch holds at most 500 events"),
    code(400, "too_many_ids", "a call names at most 1000 ids"),
    code(400, "too_many_muted", "muted names at most 100 types"),
    code(
        400,
        "too_many_recipients",
        "more users than limits.recipients",
    ),
    code(400, "too_many_users", "at most 200 users in one call"),
    code(400, "unknown_op", "no op of this version"),
    code(
        400,
        "unknown_subprotocol",
        "none of the offered subprotocols is known here",
    ),
    code(
        401,
        "unauthorized",
        "a valid token is needed; no reason is given away",
    ),
    code(403, "forbidden", "the token may not do this"),
    code(
        404,
        "not_found",
        "not there, or not for the caller to know of",
    ),
    code(404, "unknown_conversation", "no conversation to publish to"),
    code(
        405,
        "method_not_allowed",
        "this path does not know this method; see Allow",
    ),
    code(
        406,
        "not_acceptable",
        "events come as text/event-stream, application/x-ndjson or application/json",
    ),
    code(409, "ahead_of_head", "upto is beyond the newest message"),
    code(
        409,
        "conversation_full",
        "the conversation has as many members as limits.recipients allows",
    ),
    code(
        409,
        "cursor_not_here",
        "the cursor is of an earlier life of the log, or ahead of it",
    ),
    code(
        409,
        "direct_conversation",
        "a 1:1 conversation has no name and keeps its two members",
    ),
    code(
        409,
        "too_many_conversations",
        "a user is in as many conversations as one can be in",
    ),
    code(
        413,
        "body_too_large",
        "the body is larger than limits.body_bytes",
    ),
    code(
        413,
        "event_too_large",
        "the event is larger than limits.event_bytes",
    ),
    code(
        413,
        "signal_too_large",
        "the data of a signal is at most 4096 bytes",
    ),
    code(
        415,
        "unsupported_encoding",
        "compressed request bodies are not read",
    ),
    code(
        415,
        "unsupported_media_type",
        "this path does not read this Content-Type",
    ),
    code(
        422,
        "idempotency_mismatch",
        "this id or key was used before with another body",
    ),
    code(
        426,
        "websocket_version",
        "version 13 of the WebSocket protocol is spoken here",
    ),
    code(
        429,
        "rate_limited",
        "too many requests: wait as long as Retry-After says",
    ),
    code(
        429,
        "too_many_connections",
        "the user has as many open connections as it may",
    ),
    code(
        500,
        "internal_error",
        "the server could not answer; its log says why",
    ),
    code(
        503,
        "busy",
        "others have taken the places for this work: try again in a moment",
    ),
    code(
        503,
        "draining",
        "the server is about to stop: try again in a moment",
    ),
    code(
        503,
        "not_ready",
        "the disk is nearly full: publishes are refused, reading goes on",
    ),
    code(
        503,
        "search_given_up",
        "the search through the stored events took too long",
    ),
    code(
        503,
        "server_full",
        "the server has as many open connections as it may",
    ),
    code(
        503,
        "store_failed",
        "the server cannot store anything: whether this request was stored is not known",
    ),
    code(
        503,
        "too_many_tickets",
        "too many tickets wait for their first use",
    ),
    code(
        507,
        "disk_full",
        "the server's disk is nearly full: nothing was stored, reading goes on",
    ),
];

/// Whether the code stands in the table with this status.
pub fn is_known(name: &str, status: u16) -> bool {
    let mut codes = CODES.iter();
    codes.any(|code| code.code == name && code.status == status)
}

/// The named codes, grouped by status. A name that is not in the table is a fault of the route's description.
pub fn by_status(names: &[&str]) -> Vec<(u16, Vec<Code>)> {
    let mut groups: Vec<(u16, Vec<Code>)> = Vec::new();
    for name in names {
        assert!(
            CODES.iter().any(|code| code.code == *name),
            "the code {name} stands in CODES"
        );
    }
    for code in CODES.iter().filter(|code| names.contains(&code.code)) {
        match groups.last_mut() {
            Some((status, group)) if *status == code.status => group.push(*code),
            _ => groups.push((code.status, vec![*code])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_once_and_in_order() {
        for pair in CODES.windows(2) {
            let place = |code: &Code| (code.status, code.code);
            assert!(place(&pair[0]) < place(&pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn codes_are_grouped_by_status() {
        let groups = by_status(&["invalid_id", "rate_limited", "too_many_connections"]);
        let statuses: Vec<u16> = groups.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [400, 429]);
        assert_eq!(groups[1].1.len(), 2);
    }
}
