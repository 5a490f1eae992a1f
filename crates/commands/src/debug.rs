//! DEBUG: what tests need to reach inside.

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];
