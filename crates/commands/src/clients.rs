//! The CLIENT command.

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];

/// Whether a request must wait for the end of CLIENT PAUSE.
pub fn is_paused(
    _shared: &crate::Shared,
    _now_ms: u64,
    _entry: Option<&crate::table::Entry>,
    _session: &crate::Session,
) -> bool {
    false
}
