//! The features: one file each, the rules that turn a command into drafts and rows.
//!
//! Promises: a feature decides first and commits once: events and state are one commit. None of them knows of HTTP or
//! of another transport.

// Each kind of row has a byte of its own, listed here so that no two features share one:
// `a` acks · `b` messages · `B` message ids · `c` conversations · `C` conversations that all have left ·
// `d` 1:1 of two users · `e` erasures that are not over · `f` gathered feed events · `F` their topics ·
// `g` gathered notifications · `h` inbox heads · `j` revoked tokens · `m` members of a conversation · `n` inbox ·
// `N` inbox ids · `o` a sender's own messages · `p` preferences · `q` tickets · `r` revoked users ·
// `R` reads to be told · `s` presence · `S` who is here · `u` conversations of a user ·
// `w` whose presence a user watches · `W` unread notifications

pub mod ack;
pub mod acquaintance;
pub mod badge;
pub mod conversation;
pub mod crowd;
pub mod digest;
pub mod entity;
pub mod erase;
pub mod export;
pub mod feed;
pub mod inbox;
pub mod message;
pub mod news;
pub mod notification;
pub mod people;
pub mod person;
pub mod picture;
pub mod pointers;
pub mod preferences;
pub mod presence;
pub mod receipts;
pub mod redact;
pub mod retention;
pub mod revoke;
pub mod schedule;
pub mod snapshot;
pub mod subscribe;
pub mod ticket;
pub mod trace;
pub mod typing;
pub mod typists;
