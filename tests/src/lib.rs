//! Helpers shared by the end-to-end tests: servers as processes, and connections to them that show
//! the very bytes of each reply.
//!
//! Everything here panics with a sentence when it fails, as a test would.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod faults;
pub mod links;
mod memcached;
mod program;
mod server;
mod wire;

pub use memcached::{serve_memcached, start_memcached};
pub use program::{Ended, Program, binary, free_port, is_installed, raise_open_files};
pub use server::{Server, Setup};
pub use wire::{Frame, Wire, request};

use hypercache_stdx::clock;
use std::time::Duration;

/// Longest that anything a test waits for may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Milliseconds of a clock that only goes forward.
pub fn mono_ms() -> u64 {
    clock::mono_ns() / 1_000_000
}

/// Waits until `look` finds something, and panics with `what` when it takes too long.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = mono_ms() + PATIENCE.as_millis() as u64;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(mono_ms() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says why a test has nothing to do here.
#[allow(clippy::print_stdout, reason = "whoever runs the tests wants to know")]
pub fn skipped(why: &str) {
    println!("skipped: {why}");
}
