//! The CLIENT command.

use crate::error::{Outcome, ReplyError};
use crate::session::Session;
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

/// Names must be printable, without spaces, so that CLIENT LIST can be taken apart again.
fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// Names a connection; an empty name takes the name away.
pub(crate) fn set_name(session: &Session, name: &[u8]) -> Outcome {
    if !is_printable(name) {
        return Err(ReplyError::Text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    session.client.rename(|names| names.name = Box::from(name));
    Ok(())
}
