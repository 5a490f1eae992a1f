//! Keys that clients wait for, as a command sees them that holds their partitions. See
//! [`crate::blocking`].

use super::{Keys, Keyspace, PARTITIONS, Ready, Shard};
use crate::blocking::Waiter;
use crate::table::Group;
use hypercache_store::types::Kind;
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Partitions that were released before those were served who wait for their keys. Bounded by the
/// number of partitions.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    partitions: Mutex<BTreeSet<u16>>,
    is_some: AtomicBool,
}

/// What a script has made ready so far, by partition.
type Aside = Vec<(u16, VecDeque<Ready>)>;

impl Keyspace {
    /// Whether clients were left unserved that wait for keys that are ready. No partition that is being
    /// tried at this moment counts: who tries it knows of it again afterwards.
    #[inline]
    #[must_use]
    pub fn has_unserved(&self) -> bool {
        self.unserved.is_some.load(Relaxed)
    }

    /// Notes that clients wait for a key of a partition that is ready, and were not served.
    #[cold]
    pub(crate) fn leave_unserved(&self, partition: u16) {
        let mut partitions = self.unserved.partitions.lock();
        partitions.insert(partition);
        self.unserved.is_some.store(true, Relaxed);
    }

    /// Takes a partition with clients that were not served, after number `after`.
    #[inline]
    pub(crate) fn take_unserved(&self, after: Option<u16>) -> Option<u16> {
        if !self.unserved.is_some.load(Relaxed) {
            return None;
        }
        let mut partitions = self.unserved.partitions.lock();
        let next = partitions.range(after.map_or(0, |after| after + 1)..).next().copied()?;
        partitions.remove(&next);
        self.unserved.is_some.store(!partitions.is_empty(), Relaxed);
        Some(next)
    }
}

impl Shard {
    /// Ends the record of what was done, for copies on other nodes, and notes that clients are not served
    /// yet who wait for keys that changed, if so. Before every unlocking after a change.
    #[inline]
    pub fn leave_ready(&mut self, keyspace: &Keyspace, partition: u16) {
        self.end_record(keyspace, partition);
        self.is_unserved = self.history.has_ready();
        if self.is_unserved {
            keyspace.leave_unserved(partition);
        }
    }
}

impl<'a> Keys<'a> {
    /// Has a client wait for a key, which must be held, until it changes.
    pub(crate) fn wait_for(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let db = self.db;
        let (shard, _) = self.shard_of(key);
        shard.history.add_waiter(db, key, waiter);
    }

    /// The next client that waits for a key; see [`super::History::next_waiter`].
    pub(crate) fn next_waiter(
        &mut self,
        ready: &Ready,
        after: u64,
        done: &[Group],
    ) -> Option<Arc<Waiter>> {
        self.shard_of(&ready.key).0.history.next_waiter(ready, after, done)
    }

    /// What a key of the selected database holds.
    pub(crate) fn kind_of(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(|entry| entry.kind())
    }

    /// Removes a client that waited for a key, if its partition is held or free. Returns whether.
    pub(crate) fn remove_waiter(&mut self, db: u8, key: &[u8], number: u64) -> bool {
        let partition = super::partition_of(key);
        if self.is_held(partition) {
            self.held_shard(partition).history.remove_waiter(db, key, number);
            return true;
        }
        let Some(mut shard) = self.keyspace.try_lock(partition) else { return false };
        shard.history.remove_waiter(db, key, number);
        true
    }

    /// Whether those must be served first who wait for keys of the one partition that is held.
    #[inline]
    pub(crate) fn is_one_unserved(&self) -> bool {
        self.one.as_ref().is_some_and(|one| one.shard.is_unserved)
    }

    /// Whether one partition is held, and nobody is to be told of a change of its keys.
    #[inline]
    pub(crate) fn is_one_alone(&self) -> bool {
        let is_told = |shard: &Shard| shard.is_changed && shard.history.is_observed();
        self.one.as_ref().is_some_and(|one| !is_told(&one.shard))
    }

    /// Whether clients wait for a key that is ready, of the partitions that are held.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.one.as_ref().is_some_and(|one| one.shard.history.has_ready())
            || self.many.iter().any(|(_, shard)| shard.history.has_ready())
    }

    /// Whether clients wait for a key of a partition that is ready, which is held.
    pub(crate) fn is_ready(&self, partition: u16) -> bool {
        self.seen_shard(partition).is_some_and(|shard| shard.history.has_ready())
    }

    /// Takes the key that became ready first, of the partitions that are held.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let one = self.one.as_mut().map(|one| &mut one.shard);
        let all = one.into_iter().chain(self.many.iter_mut().map(|(_, shard)| shard));
        let found = all.filter_map(|shard| Some((shard.history.first_ready()?, shard)));
        let (_, shard) = found.min_by_key(|(stamp, _)| *stamp)?;
        shard.history.take_ready()
    }

    /// Gives back a key whose waiting clients could not be served.
    pub(crate) fn put_ready_back(&mut self, ready: Ready) {
        let shard = self.held_shard(super::partition_of(&ready.key));
        shard.history.put_ready_back(VecDeque::from([ready]));
    }

    /// Takes what is ready of all partitions that are held but these.
    pub(crate) fn set_ready_aside(&mut self, but: &[u16]) -> Aside {
        let others = self.many.iter_mut().filter(|(p, _)| !but.contains(p));
        others.map(|(p, shard)| (*p, shard.history.set_ready_aside())).collect()
    }

    /// Gives that back.
    pub(crate) fn bring_ready_back(&mut self, aside: Aside) {
        for (partition, ready) in aside {
            self.held_shard(partition).history.put_ready_back(ready);
        }
    }

    /// Numbers of the partitions that are held.
    pub(crate) fn held(&self) -> Vec<u16> {
        let one = self.one.iter().map(|one| one.at.partition);
        one.chain(self.many.iter().map(|(partition, _)| *partition)).collect()
    }

    fn is_held(&self, partition: u16) -> bool {
        self.one.as_ref().is_some_and(|one| one.at.partition == partition)
            || self.many.binary_search_by_key(&partition, |(p, _)| *p).is_ok()
    }

    /// Holds one more partition if that needs no waiting, as it is out of order; whose turn it is to
    /// run a script waits for it. Returns whether it is held.
    pub(crate) fn reach(&mut self, partition: u16) -> bool {
        debug_assert!((partition as usize) < PARTITIONS, "the number of a partition");
        if self.is_held(partition) {
            return true;
        }
        if self.has_turn() {
            self.hold_more(&[partition]);
            return true;
        }
        let Some(shard) = self.keyspace.try_lock(partition) else { return false };
        self.many.extend(self.one.take().map(|one| (one.at.partition, one.shard)));
        self.many.push((partition, shard));
        self.many.sort_unstable_by_key(|(p, _)| *p);
        true
    }
}
