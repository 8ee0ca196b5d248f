//! Tidings: one durable log per user, read in every way a client can read.
//!
//! Modules in reading order; a module names only those of lower layers (`tests/it/tidy.rs` holds the order).

pub mod clock;
pub mod config;
pub mod event;

pub mod secret;
pub mod token;

pub mod cli;
