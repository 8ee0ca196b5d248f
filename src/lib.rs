//! Tidings: one durable log per user, read in every way a client can read.
//!
//! Modules in reading order; a module names only those of lower layers (`tests/it/tidy.rs` holds the order).

pub mod clock;
pub mod deadlines;
pub mod id;
pub mod metrics;

pub mod config;
pub mod event;

pub mod frame;
pub mod limits;
pub mod secret;
pub mod token;
pub mod wake;

pub mod store;

pub mod cursor;
pub mod publish;

pub mod features;

pub mod http;

pub mod accept;
pub mod server;

pub mod cli;
