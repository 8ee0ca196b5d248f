//! Tidings: one durable log per user, read in every way a client can read.
//!
//! Modules in reading order; a module names only those of lower layers (`tests/it/tidy.rs` holds the order).

pub mod accept;
pub mod clock;
pub mod event;
pub mod limits;
pub mod token;
