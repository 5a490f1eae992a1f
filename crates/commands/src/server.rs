//! Commands about the server itself.

use crate::client::Client;
use crate::context::Cx;
use crate::error::Outcome;
use crate::session::Session;
use crate::shared::Shared;
use crate::table::Command;
use hypercache_protocol::parse::Args;

pub(crate) const COMMANDS: &[Command] = &[];

/// The last slow commands.
#[derive(Debug, Default)]
pub struct SlowLog {}

impl SlowLog {
    /// Sets how many entries are kept.
    pub fn set_max(&self, _max: usize) {}

    /// Notes a command that took `micros`.
    pub fn add(&self, _client: &Client, _args: Args<'_>, _micros: u64) {}
}

/// Events that took long.
#[derive(Debug, Default)]
pub struct LatencyMonitor {}

impl LatencyMonitor {
    /// Notes an event that took `millis`.
    pub fn add(&self, _event: &'static str, _millis: u64) {}
}

/// Stops feeding a monitor.
pub(crate) fn stop_monitoring(_shared: &Shared, _session: &Session) {}

/// Tells monitors of a command.
pub(crate) fn feed_monitors(_shared: &Shared, _session: &Session, _args: Args<'_>) {}

/// HELP of a container.
pub(crate) fn help(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    crate::help::help(cx, args)
}
