//! The CLIENT command.

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];
