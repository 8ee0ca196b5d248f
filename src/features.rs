//! The features: one file each, the rules that turn a command into drafts and rows.
//!
//! Promises: a feature decides first and commits once: events and state are one commit. None of them knows of HTTP or
//! of another transport.

// Each kind of row begins with a byte of its own, listed here so that no two features share one:
// `a` acks · `b` messages · `B` message ids · `c` conversations · `C` conversations that all have left ·
// `d` 1:1 of two users · `f` gathered feed events · `g` gathered notifications · `h` inbox heads ·
// `j` revoked tokens · `m` members of a conversation · `n` inbox · `N` inbox ids · `o` a sender's own messages ·
// `p` preferences · `q` tickets · `r` revoked users · `R` reads to be told · `s` presence · `u` conversations of a user

pub mod ack;
pub mod badge;
pub mod conversation;
pub mod crowd;
pub mod inbox;
pub mod message;
pub mod preferences;
pub mod receipts;
pub mod retention;
pub mod revoke;
pub mod snapshot;
pub mod subscribe;
pub mod ticket;
