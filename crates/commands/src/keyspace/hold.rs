//! How commands get hold of partitions: in ascending order, and not for ever when a script keeps one.
//! See [`crate::turn`] for why nobody waits in a circle.

use super::{Keys, Keyspace, Located, One, PARTITIONS, Partition, Shard};
use hypercache_journal::Effect;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often one who waits for a partition looks whether to wait on.
const PATIENCE: Duration = Duration::from_millis(1);

/// Why a partition is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GaveUp {
    /// A script holds it beyond `busy-reply-threshold`.
    Busy,
    /// Who waited holds what others need.
    Holds,
}

impl Keyspace {
    /// Locks one partition for a command; `None` when a script holds it beyond
    /// `busy-reply-threshold`.
    #[inline]
    pub(crate) fn lock_or_busy(&self, partition: u16) -> Option<MutexGuard<'_, Shard>> {
        let shard = &self.partition(partition).shard;
        shard.try_lock().or_else(|| self.lock_slowly(partition, || false).ok())
    }

    /// Waits for a partition until it is free, a script holds it beyond `busy-reply-threshold`, or
    /// `gives_up` holds.
    #[cold]
    fn lock_slowly(
        &self,
        partition: u16,
        gives_up: impl Fn() -> bool,
    ) -> Result<MutexGuard<'_, Shard>, GaveUp> {
        let Partition { shard, is_of_script, .. } = self.partition(partition);
        loop {
            if let Some(shard) = shard.try_lock_for(PATIENCE) {
                return Ok(shard);
            }
            // Another long command is waited for: it ends without anybody's help.
            if self.turn.is_busy() && is_of_script.load(Relaxed) {
                return Err(GaveUp::Busy);
            }
            if gives_up() {
                return Err(GaveUp::Holds);
            }
        }
    }

    /// Locks one partition if that needs no waiting: for work that can be done another time.
    #[inline]
    pub fn try_lock(&self, partition: u16) -> Option<MutexGuard<'_, Shard>> {
        self.partition(partition).shard.try_lock()
    }

    /// Locks one partition if it becomes free within `patience`.
    pub(crate) fn try_lock_for(
        &self,
        partition: u16,
        patience: Duration,
    ) -> Option<MutexGuard<'_, Shard>> {
        let shard = &self.partition(partition).shard;
        shard.try_lock().or_else(|| shard.try_lock_for(patience))
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
                Ok(shard) => held.push((partition, shard)),
                Err(GaveUp::Busy) => return None,
                Err(GaveUp::Holds) => held.clear(),
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
        self.note_script(true);
        true
    }

    /// Hands each new record of what is held to `notify`.
    pub(crate) fn notify(&mut self, notify: &mut dyn FnMut(Effect<'_>)) {
        match &mut self.one {
            Some(one) => one.shard.take_notifications(notify),
            None => self.notify_in_order(notify),
        }
    }

    /// Notes in the partitions that are held whether a script holds them.
    #[inline]
    pub(super) fn note_script(&self, is_of_script: bool) {
        if self.turn.is_some() {
            let flag = |p| &self.keyspace.partition(p).is_of_script;
            self.many.iter().for_each(|(p, _)| flag(*p).store(is_of_script, Relaxed));
        }
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
        self.note_script(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::WorkerStats;
    use crate::turn::Kind;

    #[test]
    fn only_what_a_script_holds_is_busy() {
        let (keyspace, stats) = (Keyspace::new((1, 2)), WorkerStats::default());
        let mut script = Keys::new(&keyspace, &stats, 0, 0);
        assert!(script.take_turn() && script.hold_many(&mut vec![3]));
        keyspace.turn.begin(Kind::Script, 0, None);
        keyspace.turn.note_busy(0, 0);
        script.hold_more(&[5]);
        assert!(keyspace.lock_or_busy(3).is_none() && keyspace.lock_or_busy(5).is_none());
        std::thread::scope(|scope| {
            let long = keyspace.lock(4);
            let waits = scope.spawn(|| keyspace.lock_or_busy(4).is_some());
            let waits_for_more = scope.spawn(|| keyspace.lock_all(&[2, 4]).is_some());
            std::thread::sleep(20 * PATIENCE);
            drop(long);
            assert!(waits.join().is_ok_and(|is_held| is_held), "another command is waited for");
            assert!(waits_for_more.join().is_ok_and(|is_held| is_held), "also with one held");
        });
        keyspace.turn.end();
        script.release(None);
        assert!([3, 4, 5].iter().all(|p| keyspace.try_lock(*p).is_some()));
        assert!([3, 4, 5].iter().all(|p| !keyspace.partition(*p).is_of_script.load(Relaxed)));
    }
}
