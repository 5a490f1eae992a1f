//! The one place where the command-line tools look at the time.

use std::time::Instant;

/// The time now, for measuring how long things take.
#[allow(
    clippy::disallowed_methods,
    reason = "the tools measure real servers, so their time is never simulated"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
