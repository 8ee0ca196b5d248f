//! Conversations and messages as JSON, the same wherever they are told: in events, answers and the state.
//!
//! Promises: what a sender put into `data` comes out with the bytes that went in. How far others have come is told of
//! a message only where a status is given. It reads no row.

use serde_json::{Value, json};

use super::messages::Message;
use super::rows::{Head, Member};
use crate::clock::rfc3339;
use crate::event::{ConversationId, UserId};

/// Members that are named wherever a conversation is told; `member_count` says how many there are.
pub const MEMBERS_TOLD: usize = 100;

/// What is the same for all who see the conversation.
pub fn conversation(id: &ConversationId, head: &Head, names: &[UserId]) -> Value {
    json!({
        "id": id,
        "direct": head.is_direct,
        "name": head.name,
        "members": names,
        "member_count": head.members,
        "created": rfc3339(head.created_ms),
        "updated": rfc3339(head.updated_ms),
        "head": head.head,
    })
}

/// How far a message has come with those it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    word: &'static str,
    /// In a group: how many it reached, and how many have read it where that may be told.
    counts: Option<(usize, Option<usize>)>,
}

/// Who sees the status: a sender who has turned read receipts off sees no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    Shown,
    Hidden,
}

impl Status {
    pub const SENT: Status = Status {
        word: "sent",
        counts: None,
    };

    /// In a group: how many the message reached, and how many have read it where that may be told.
    pub fn counts(self) -> (usize, Option<usize>) {
        self.counts.unwrap_or_default()
    }

    /// The status of message `n`, from the rows of all members but its sender. It is delivered or read when that is
    /// true of everyone it was sent to; those who came later do not count.
    pub fn of(n: u64, head: &Head, others: &[Member], reads: Reads) -> Status {
        let addressed = others.iter().filter(|member| member.joined_n < n);
        let (mut count, mut delivered, mut read) = (0, 0, 0);
        for member in addressed {
            count += 1;
            delivered += usize::from(member.delivered_n >= n);
            read += usize::from(reads == Reads::Shown && member.receipt_n >= n);
        }
        let word = match count {
            0 => "sent",
            _ if read == count => "read",
            _ if delivered == count => "delivered",
            _ => "sent",
        };
        let read = (reads == Reads::Shown).then_some(read);
        Status {
            word,
            counts: (!head.is_direct).then_some((delivered, read)),
        }
    }
}

pub fn message(
    conversation: &ConversationId,
    message: &Message,
    sender: &UserId,
    status: Option<Status>,
) -> String {
    let mut told = json!({
        "id": message.id,
        "conversation_id": conversation,
        "n": message.n,
        "sender": sender,
        "content": message.content,
        "time": rfc3339(message.time_ms),
        "client_id": message.client_id,
    });
    if message.is_deleted {
        told["deleted"] = true.into();
    }
    if let Some(status) = status {
        told["status"] = status.word.into();
        if let Some((delivered_to, read_by)) = status.counts {
            told["delivered_to"] = delivered_to.into();
            if let Some(read_by) = read_by {
                told["read_by"] = read_by.into();
            }
        }
    }
    match &message.data {
        Some(data) => with(&told, "data", data.as_str()),
        None => told.to_string(),
    }
}

/// The object with one more member, whose value is JSON text already and stays as it is.
pub fn with(object: &Value, name: &str, value: &str) -> String {
    let text = object.to_string();
    let open = text
        .strip_suffix('}')
        .expect("an object ends with its brace");
    format!(r#"{open},"{name}":{value}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Json;
    use crate::id::UserNo;

    fn head(is_direct: bool) -> Head {
        Head {
            creator: UserNo(0),
            created_ms: 0,
            updated_ms: 0,
            head: 9,
            floor: 1,
            oldest_ms: 0,
            members: 3,
            is_direct,
            name: None,
        }
    }

    fn member(joined_n: u64, delivered_n: u64, receipt_n: u64) -> Member {
        Member {
            joined_n,
            delivered_n,
            receipt_n,
            ..Member::default()
        }
    }

    #[test]
    fn a_status_is_what_all_have_reached_to_whom_it_was_sent() {
        let check = |n, others: &[Member], reads, word, counts| {
            let status = Status::of(n, &head(false), others, reads);
            assert_eq!((status.word, status.counts), (word, Some(counts)), "{n}");
        };
        let others = [member(0, 5, 3), member(0, 4, 4), member(4, 4, 4)];
        check(3, &others, Reads::Shown, "read", (2, Some(2)));
        check(4, &others, Reads::Shown, "delivered", (2, Some(1)));
        check(3, &others, Reads::Hidden, "delivered", (2, None));
        check(5, &others, Reads::Shown, "sent", (1, Some(0)));
        check(4, &[member(4, 4, 4)], Reads::Shown, "sent", (0, Some(0)));
        let direct = Status::of(3, &head(true), &[member(0, 3, 3)], Reads::Shown);
        assert_eq!((direct.word, direct.counts), ("read", None));
    }

    #[test]
    fn data_keeps_its_bytes() {
        let message = Message {
            id: "m-1".parse().unwrap(),
            n: 1,
            sender: UserNo(0),
            time_ms: 0,
            client_id: None,
            content: "a \"b\"\n".to_owned(),
            data: Some(Json::parse(r#"{"b":18446744073709551616,"a":1.50}"#).unwrap()),
            is_deleted: false,
        };
        let id: ConversationId = "c".parse().unwrap();
        let told = super::message(&id, &message, &"bob".parse().unwrap(), Some(Status::SENT));
        assert_eq!(
            told,
            concat!(
                r#"{"client_id":null,"content":"a \"b\"\n","conversation_id":"c","id":"m-1","n":1,"sender":"bob","#,
                r#""status":"sent","time":"1970-01-01T00:00:00.000Z","data":{"b":18446744073709551616,"a":1.50}}"#
            )
        );
    }
}
