//! Whole databases: DBSIZE, FLUSHALL, FLUSHDB, KEYS, SCAN, SWAPDB, ...

use crate::table::Command;

pub(crate) const COMMANDS: &[Command] = &[];
