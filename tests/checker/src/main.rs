//! Breaks a Tidings server and checks from outside that it kept its promises.
mod bench;
mod clean;
mod damages;
mod delivery;
mod history;
mod http;
mod invariants;
mod life;
mod nemesis;
mod power;
mod publisher;
mod reader;
mod rows;
mod sse;
mod stream;
mod truth;
mod view;

fn main() {}
