//! Commands about the server itself.

use crate::context::Cx;
use crate::error::Outcome;
use crate::table::Command;
use hypercache_protocol::parse::Args;

pub(crate) const COMMANDS: &[Command] = &[];

/// Events that took long.
#[derive(Debug, Default)]
pub struct LatencyMonitor {}

impl LatencyMonitor {
    /// Notes an event that took `millis`.
    pub fn add(&self, _event: &'static str, _millis: u64) {}
}

/// HELP of a container.
pub(crate) fn help(cx: &mut Cx<'_>, _args: Args<'_>) -> Outcome {
    cx.reply.array(0);
    Ok(())
}
