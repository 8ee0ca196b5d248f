//! A refused value: a stable code, and words for the person who sent it.
//!
//! Promises: the message names the rule that was broken and never repeats the value, which may be hostile.

/// A value that breaks the rules of its field, told in words for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Stable code of the problem, such as `invalid_user_id`.
    pub code: &'static str,
    pub message: String,
}

impl Invalid {
    pub fn new(code: &'static str, message: impl Into<String>) -> Invalid {
        Invalid {
            code,
            message: message.into(),
        }
    }
}
