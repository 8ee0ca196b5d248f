//! Breaks a Tidings server and checks from outside that it kept its promises.
mod clean;
mod damages;
mod history;
mod invariants;
mod stream;
mod view;

fn main() {}
