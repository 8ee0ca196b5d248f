//! The program: reads its arguments, runs one command, and tells the exit code. Nothing else lives here.
//!
//! Promises: wrong arguments end with 2 before anything happens; all else is `cli`'s.

use std::process::ExitCode;

use clap::Parser;
use tidings::cli::{self, Arguments};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(Arguments::parse())
}
