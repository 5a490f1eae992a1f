//! How commands get hold of partitions: in ascending order, and not for ever when a script keeps one.
//! See [`crate::turn`] for why nobody waits in a circle.

use super::{Keys, Keyspace, Located, One, PARTITIONS, Shard};
use parking_lot::MutexGuard;
use std::time::Duration;

/// How often one who waits for a partition looks whether to wait on.
const PATIENCE: Duration = Duration::from_millis(1);

impl Keyspace {
    /// Locks one partition for a command; `None` when a script holds it beyond
    /// `busy-reply-threshold`.
    #[inline]
    pub(crate) fn lock_or_busy(&self, partition: u16) -> Option<MutexGuard<'_, Shard>> {
        let shard = &self.partition(partition).shard;
        shard.try_lock().or_else(|| self.lock_slowly(partition, || false))
    }

    /// Waits for a partition until it is free, a script holds it beyond `busy-reply-threshold`, or
    /// `gives_up` holds.
    #[cold]
    fn lock_slowly(
        &self,
        partition: u16,
        gives_up: impl Fn() -> bool,
    ) -> Option<MutexGuard<'_, Shard>> {
        let shard = &self.partition(partition).shard;
        loop {
            if let Some(shard) = shard.try_lock_for(PATIENCE) {
                return Some(shard);
            }
            if self.turn.is_busy() || gives_up() {
                return None;
            }
        }
    }

    /// Locks one partition if that needs no waiting: for work that can be done another time.
    #[inline]
    pub fn try_lock(&self, partition: u16) -> Option<MutexGuard<'_, Shard>> {
        self.partition(partition).shard.try_lock()
    }

    /// Locks partitions in the ascending order in which they are given. Waits for none while it
    /// holds another when a script wants more partitions; see [`Turn`].
    fn lock_all(&self, partitions: &[u16]) -> Option<Vec<(u16, MutexGuard<'_, Shard>)>> {
        let mut held = Vec::with_capacity(partitions.len());
        while held.len() < partitions.len() {
            let partition = partitions[held.len()];
            if let Some(shard) = self.try_lock(partition) {
                held.push((partition, shard));
                continue;
            }
            let is_first = held.is_empty();
            match self.lock_slowly(partition, || !is_first && self.turn.wants_more()) {
                Some(shard) => held.push((partition, shard)),
                None if self.turn.is_busy() => return None,
                None => held.clear(),
            }
        }
        Some(held)
    }
}

impl<'a> Keys<'a> {
    /// Locks the partition of one key that was located before. As all that locks for a command it
    /// says whether it could: not when a script holds what is needed for too long.
    #[inline]
    #[must_use]
    pub fn hold_one(&mut self, at: &'a Located) -> bool {
        let Some(shard) = self.keyspace.lock_or_busy(at.partition) else { return false };
        self.one = Some(One { at, shard });
        true
    }

    /// Locks the partitions named, in ascending order whatever the order given.
    #[must_use]
    pub fn hold_many(&mut self, partitions: &mut Vec<u16>) -> bool {
        partitions.sort_unstable();
        partitions.dedup();
        let Some(held) = self.keyspace.lock_all(partitions) else { return false };
        self.many = held;
        true
    }

    /// Locks all partitions.
    #[must_use]
    pub fn hold_all(&mut self) -> bool {
        self.hold_many(&mut (0..PARTITIONS as u16).collect())
    }

    /// Takes the turn to run a script, before any partition.
    #[must_use]
    pub fn take_turn(&mut self) -> bool {
        debug_assert!(self.one.is_none() && self.many.is_empty(), "the turn comes first");
        self.turn = self.keyspace.turn.take();
        self.turn.is_some()
    }

    /// Whether it is this command's turn to run a script, or that of one in its transaction.
    #[must_use]
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Whether a partition is held.
    #[inline]
    #[must_use]
    pub fn holds(&self, partition: u16) -> bool {
        match &*self.many {
            [(only, _)] => *only == partition,
            many => many.binary_search_by_key(&partition, |(p, _)| *p).is_ok(),
        }
    }

    /// Locks further partitions, none of which is held, for the script whose turn it is.
    #[cold]
    pub fn hold_more(&mut self, partitions: &[u16]) {
        debug_assert!(self.turn.is_some(), "only the one whose turn it is may wait for more");
        self.keyspace.turn.set_wants_more(true);
        let lock = |&p: &u16| (p, self.keyspace.lock(p));
        self.many.extend(partitions.iter().map(lock));
        self.keyspace.turn.set_wants_more(false);
        self.many.sort_unstable_by_key(|(p, _)| *p);
    }
}
