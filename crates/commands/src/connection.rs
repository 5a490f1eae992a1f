//! Family connection.

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];
