//! WAIT: how many copies have the client's last write.
//!
//! A copy counts when it is in sync and is known to have the record, so the answer is never too high. The
//! client waits as in any command that blocks; its worker looks at the copies when something is committed
//! and every few milliseconds ([`count`]).

use crate::blocking::{Late, Waiter, answer};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::session::LastWrite;
use crate::shared::Shared;
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_stdx::number;
use std::sync::Arc;

/// What a client waits for in WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    last: LastWrite,
    replicas: i64,
}

pub(crate) fn wait(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let replicas = number::parse_i64(args.get(1)).ok_or(ReplyError::NotAnInteger)?;
    let not_a_number = ReplyError::Text("ERR timeout is not an integer or out of range");
    let timeout_ms = number::parse_i64(args.get(2)).ok_or(not_a_number)?;
    let Ok(timeout_ms) = u64::try_from(timeout_ms) else {
        return Err(ReplyError::Text("ERR timeout is negative"));
    };
    let last = cx.session.cold().and_then(|cold| cold.last_write);
    let there = match last {
        Some(last) => cx.keys.with_shard(last.partition, |shard| {
            shard.partition().map_or(0, |partition| partition.replicas_with(last.lsn)) as i64
        }),
        None => copies_of_all(cx.shared),
    };
    let Some(last) = last.filter(|_| there < replicas) else {
        cx.reply.int(there);
        return Ok(());
    };
    let late = Late::Count(Asked { last, replicas });
    let how = (timeout_ms, OwnedArgs::copy_of(args));
    cx.wait_or(std::iter::empty(), how, |reply| reply.int(there), late)
}

/// How many copies there are of whatever this node is primary of: what a client that wrote nothing is told.
fn copies_of_all(shared: &Shared) -> i64 {
    let Some(plane) = shared.cluster.plane() else { return 0 };
    let (meta, me) = (plane.meta(), plane.me());
    let mine = meta.partitions.values().filter(|config| Some(config.primary) == me);
    mine.map(|config| config.isr.len() as i64 - 1).min().unwrap_or(0)
}

/// How many copies have what a client waits for; `None` while the partition is held.
#[must_use]
pub(crate) fn count(shared: &Shared, asked: &Asked) -> Option<i64> {
    let shard = shared.keyspace.try_lock(asked.last.partition)?;
    Some(shard.partition().map_or(0, |partition| partition.replicas_with(asked.last.lsn)) as i64)
}

/// Answers a client that waits in WAIT if as many copies have its write as it asked for. Returns whether
/// it waited until now.
pub fn look(shared: &Shared, waiter: &Arc<Waiter>) -> bool {
    let Some(asked) = waiter.asked().filter(|_| waiter.is_waiting()) else { return false };
    if let Some(there) = count(shared, &asked).filter(|there| *there >= asked.replicas) {
        answer(shared, waiter, |reply| reply.int(there));
    }
    true
}
