//! The features: one file each, the rules that turn a command into drafts and rows. They know nothing of HTTP.

pub mod ack;
pub mod revoke;
pub mod snapshot;
pub mod subscribe;
pub mod ticket;
