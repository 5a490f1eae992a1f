//! The only place that asks the machine what time it is.
//!
//! Everything else is handed a time, so that it can be tested and simulated. Wall time (`now_ms`)
//! decides expiry, as in Redis; monotonic time (`mono_us`) measures how long something took.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = since_epoch();
    since.as_secs() * 1000 + u64::from(since.subsec_millis())
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_us() -> u64 {
    since_epoch().as_micros() as u64
}

/// Nanoseconds of a monotonic clock that starts near zero with the process.
#[must_use]
pub fn mono_ns() -> u64 {
    let since = instant().duration_since(*START.get_or_init(instant));
    // Not `as_nanos`, whose result has 128 bits.
    since.as_secs() * NANOS_PER_SECOND + u64::from(since.subsec_nanos())
}

/// Milliseconds since the first call of a function of this kind. Never goes back, and goes on
/// evenly when the wall clock is set.
#[must_use]
pub fn mono_ms() -> u64 {
    mono_ns() / 1_000_000
}

/// Microseconds of a monotonic clock that starts near zero with the process.
#[must_use]
pub fn mono_us() -> u64 {
    mono_ns() / 1000
}

/// Microseconds of the clock that leases of the cluster go by: monotonic, and it goes on while the machine
/// is suspended, since others count on then. About 20 ns.
#[must_use]
pub fn boot_us() -> u64 {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    at.tv_sec as u64 * 1_000_000 + at.tv_nsec as u64 / 1000
}

/// A monotonic instant, for callers that need the standard type.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
