//! Deadlines of keys.

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];
