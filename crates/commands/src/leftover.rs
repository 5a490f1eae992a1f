//! Registrations of keys that outlive their reason for a moment, because their partition was held.
//!
//! A wait that ends ([`crate::blocking`]) and keys that are watched no longer are registered with
//! partitions. These may be held by a long script or command, which a worker must not wait for when a
//! client's time is over or its connection ends. So what cannot be removed at once, and what is too
//! much for once, comes here, and each turn of each worker removes some. Until then it does no harm: a
//! wait that was ended is passed over, and a flag that nobody looks at may be raised.
//!
//! Bounded: above [`KEYS_MAX`] keys nothing comes here but what is held ([`Leftovers::is_full`]), and
//! while a partition is held nobody can register with it. So there is that many, and what one client
//! per worker had registered when there was room yet, and per client at most one wait and one set of
//! watched keys in partitions that are held; all that took the same memory before. Who comes when
//! there is no room works as long as it did to register.

use crate::blocking::Waiter;
use crate::charge::Charge;
use crate::keyspace::{WatchFlag, partition_of};
use crate::shared::Shared;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Registrations that are to be removed.
#[derive(Debug)]
pub(crate) enum Leftover {
    /// Of a wait that was ended.
    Wait {
        /// The wait.
        waiter: Arc<Waiter>,
        /// Numbers of its keys.
        left: VecDeque<u32>,
    },
    /// Of keys that are watched no longer.
    Watch {
        /// Raised when one of them changes.
        flag: WatchFlag,
        /// Database and key of each.
        left: VecDeque<(u8, Box<[u8]>)>,
        /// What they counted as before, until all are gone.
        #[expect(dead_code, reason = "it counts as long as it is there")]
        charge: Charge,
    },
}

/// Keys that one turn tries to remove at most.
const KEYS_PER_TURN: usize = 256;
/// With more keys than this who ends a wait or watches no longer removes all that is free itself.
const KEYS_MAX: usize = 16 * 1024;

impl Leftover {
    /// How many keys are left.
    fn keys(&self) -> usize {
        match self {
            Leftover::Wait { left, .. } => left.len(),
            Leftover::Watch { left, .. } => left.len(),
        }
    }

    /// Tries to remove up to `max` keys. Returns how many were tried.
    fn clear(&mut self, shared: &Shared, max: usize) -> usize {
        let lock = |key: &[u8]| shared.keyspace.try_lock(partition_of(key));
        match self {
            Leftover::Wait { waiter, left } => {
                let (db, keys) = waiter.keys();
                try_some(left, max, |i| {
                    let key = &keys[*i as usize];
                    let shard = lock(key);
                    shard.map(|mut s| s.history.remove_waiter(db, key, waiter.number())).is_some()
                })
            }
            Leftover::Watch { flag, left, .. } => try_some(left, max, |(db, key)| {
                lock(key).map(|mut shard| shard.history.unwatch(*db, key, flag)).is_some()
            }),
        }
    }
}

/// Gives up to `max` items to `remove`, and keeps at the end those that it could not do. Returns how
/// many it gave.
fn try_some<T>(items: &mut VecDeque<T>, max: usize, mut remove: impl FnMut(&T) -> bool) -> usize {
    let count = items.len().min(max);
    for _ in 0..count {
        let Some(item) = items.pop_front() else { break };
        if !remove(&item) {
            items.push_back(item);
        }
    }
    count
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Leftovers {
    list: Mutex<VecDeque<Leftover>>,
    len: AtomicUsize,
    /// Keys of all.
    keys: AtomicUsize,
}

impl Leftovers {
    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are left in all.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Whether only what is held may be left.
    pub(crate) fn is_full(&self) -> bool {
        self.keys() > KEYS_MAX
    }

    pub(crate) fn add(&self, leftover: Leftover) {
        let mut list = self.list.lock();
        self.keys.fetch_add(leftover.keys(), Relaxed);
        list.push_back(leftover);
        self.len.store(list.len(), Relaxed);
    }

    fn take(&self) -> Option<Leftover> {
        let mut list = self.list.lock();
        let first = list.pop_front();
        self.keys.fetch_sub(first.as_ref().map_or(0, Leftover::keys), Relaxed);
        self.len.store(list.len(), Relaxed);
        first
    }
}

/// Removes some leftovers. Once a turn of each worker; no lock is held. Returns whether it is worth
/// while to go on at once: some were removed, and others are left.
#[inline]
pub fn clear_some(shared: &Shared) -> bool {
    !shared.leftovers.is_empty() && clear(shared)
}

#[cold]
fn clear(shared: &Shared) -> bool {
    let (mut max, mut removed) = (KEYS_PER_TURN, 0);
    for _ in 0..shared.leftovers.len() {
        if max == 0 {
            break;
        }
        let Some(mut leftover) = shared.leftovers.take() else { break };
        let before = leftover.keys();
        max -= leftover.clear(shared, max);
        let left = leftover.keys();
        removed += before - left;
        if left > 0 {
            shared.leftovers.add(leftover);
        }
    }
    removed > 0 && !shared.leftovers.is_empty()
}
