//! The features: one file each, the rules that turn a command into drafts and rows.
//!
//! Promises: a feature decides first and commits once. None of them knows of HTTP or of another transport.

pub mod ack;
pub mod revoke;
pub mod snapshot;
pub mod subscribe;
pub mod ticket;
