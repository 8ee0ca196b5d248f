//! The program: reads its arguments, runs one command, and tells the exit code. Nothing else lives here.
//!
//! Promises: wrong arguments end with 2 before anything happens; all else is `cli`'s.

use std::process::ExitCode;

use clap::Parser;
use tidings::cli::{self, Arguments};

/// Pages that a burst left free go back to the system after two seconds, also while nothing is allocated. What a thread
/// keeps for itself to allocate again has at most 8 KiB apiece: with 32 KiB, the default, threads that rest kept 4 MiB.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] =
    b"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:2000,tcache_max:8192\0";

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(Arguments::parse())
}
