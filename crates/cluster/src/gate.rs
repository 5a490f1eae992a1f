//! When a reply may leave.
//!
//! A worker never waits for replication: it executes, puts the reply into the connection's gate together
//! with what the reply needs, and goes on. At the end of a turn, after the clock was read once, each
//! connection lets go what is at its front and has what it needs. So replies keep their order, and a
//! pause of the process between execution and the check is harmless: what was read was true before the
//! check, and the check says that nobody else could have changed it since.

use crate::ids::{Epoch, Lsn, PartitionId};
use std::collections::VecDeque;

/// How much may be lost at a failover, by namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What was not replicated yet.
    Async,
    /// At most this much.
    Bounded {
        /// Age of the oldest record that is not replicated.
        age_us: u64,
        /// Bytes that are not replicated.
        bytes: usize,
    },
    /// Nothing.
    Sync,
}

/// What a reply needs before it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells nothing of the keyspace.
    Nothing,
    /// That the replica, which read on its own, still has leave to.
    Leave {
        /// Partition.
        partition: PartitionId,
    },
    /// That the node still holds its lease and the partition's primacy of this term.
    Lease {
        /// Partition.
        partition: PartitionId,
        /// Its primary's term at execution.
        term: Epoch,
    },
    /// As `Lease`, and that no more than this is yet to be replicated.
    Bound {
        /// Partition.
        partition: PartitionId,
        /// Its primary's term at execution.
        term: Epoch,
        /// Age of the oldest record that is not replicated.
        age_us: u64,
        /// Bytes that are not replicated.
        bytes: usize,
    },
    /// That the record is committed. No lease: all copies in sync have it, so nothing can undo it.
    Commit {
        /// Partition.
        partition: PartitionId,
        /// Its primary's term at execution.
        term: Epoch,
        /// The record.
        lsn: Lsn,
    },
    /// Both: it is committed and the lease is held. What a read of an uncommitted value waits for.
    CommitAndLease {
        /// Partition.
        partition: PartitionId,
        /// Its primary's term at execution.
        term: Epoch,
        /// The record.
        lsn: Lsn,
    },
}

impl Need {
    /// What the reply to a write needs.
    #[must_use]
    pub fn of_write(durability: Durability, partition: PartitionId, term: Epoch, lsn: Lsn) -> Need {
        match durability {
            Durability::Async => Need::Lease { partition, term },
            Durability::Bounded { age_us, bytes } => Need::Bound { partition, term, age_us, bytes },
            Durability::Sync => Need::Commit { partition, term, lsn },
        }
    }

    /// The partition that it is about.
    #[must_use]
    pub fn partition(&self) -> Option<PartitionId> {
        match *self {
            Need::Nothing => None,
            Need::Leave { partition }
            | Need::Lease { partition, .. }
            | Need::Bound { partition, .. }
            | Need::Commit { partition, .. }
            | Need::CommitAndLease { partition, .. } => Some(partition),
        }
    }
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves.
    Leave,
    /// It waits.
    Wait,
    /// It never leaves: nobody knows what came of the command. The connection is closed.
    Unknown,
}

/// The replies of one connection that have not left.
#[derive(Clone, Debug)]
pub struct Gate<T> {
    waiting: VecDeque<(Need, T)>,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Gate { waiting: VecDeque::new() }
    }
}

impl<T> Gate<T> {
    /// How many wait. The connection stops reading beyond its bound.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds the reply to the newest command.
    pub fn push(&mut self, need: Need, reply: T) {
        self.waiting.push_back((need, reply));
    }

    /// Lets go what may leave, in order.
    ///
    /// # Errors
    /// When a reply never will; the connection is to be closed, and with it all that follow.
    pub fn release(
        &mut self,
        judge: &mut dyn FnMut(&Need) -> Verdict,
        leave: &mut dyn FnMut(T),
    ) -> Result<(), Closed> {
        while let Some((need, _)) = self.waiting.front() {
            match judge(need) {
                Verdict::Wait => return Ok(()),
                Verdict::Unknown => return Err(Closed),
                Verdict::Leave => self.waiting.pop_front().into_iter().for_each(|(_, t)| leave(t)),
            }
        }
        Ok(())
    }
}

/// The outcome of a command is unknown, and so is that of all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_keep_their_order() {
        let (partition, term) = (PartitionId(0), Epoch(1));
        let mut gate = Gate::default();
        gate.push(Need::Nothing, 'a');
        gate.push(Need::Commit { partition, term, lsn: Lsn(5) }, 'b');
        gate.push(Need::Lease { partition, term }, 'c');
        let mut sent = Vec::new();
        let mut committed = Lsn(4);
        for expected in ["a", "abc"] {
            let mut judge = |need: &Need| match need {
                Need::Commit { lsn, .. } if *lsn > committed => Verdict::Wait,
                _ => Verdict::Leave,
            };
            assert_eq!(gate.release(&mut judge, &mut |reply| sent.push(reply)), Ok(()));
            assert_eq!(sent.iter().collect::<String>(), expected);
            committed = Lsn(5);
        }
        assert!(gate.is_empty());
        gate.push(Need::Lease { partition, term }, 'd');
        assert_eq!(gate.release(&mut |_| Verdict::Unknown, &mut |_| ()), Err(Closed));
    }
}
