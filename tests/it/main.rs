//! The black-box suite: every module is a part of PROTOCOL.md or of FAULTS.md, told from outside the server.
//!
//! Promises: one binary, offline, any order, in parallel, without skips. All replies come through `door`, all frames
//! through `sse`, all deliveries through `delivery`. It never looks into the server: only HTTP, signals, exit codes,
//! `/metrics` and the log tell.

mod client;
mod delivery;
mod door;
mod fold;
mod harness;
mod inbox;
mod live;
mod reader;
mod sse;
mod talk;
mod tokens;
mod websocket;
mod write;

mod admin;
mod auth;
mod authority;
mod bad_cursors;
mod bad_http;
mod badge;
mod commands;
mod converge;
mod conversations;
mod described;
mod draining;
mod entities;
mod erase;
mod erase_rows;
mod erase_talk;
mod export;
mod feeds;
mod flood;
mod groups;
mod history;
mod hostile;
mod idempotency;
mod isolated;
mod keys;
mod messages;
mod notifications;
mod operation;
mod poll;
mod preferences;
mod presence;
mod privacy;
mod publishing;
mod reading;
mod receipts;
mod reset;
mod retention;
mod running;
mod seam;
mod session;
mod signals;
mod simulation;
mod slow;
mod socket;
mod state;
mod store;
mod stream;
mod taken;
mod tidy;
mod tidy_docs;
mod topics;
mod trace;
mod typing;
mod unusual;
mod wire;
