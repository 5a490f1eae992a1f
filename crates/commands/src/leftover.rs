//! Registrations of keys that outlive their reason for a moment, because their partition was held.
//!
//! A wait that ends ([`crate::blocking`]) and keys that are watched no longer are registered with
//! partitions. These may be held by a long script or command, which a worker must not wait for when a
//! client's time is over or its connection ends. So what cannot be removed at once, and what is too
//! much for once, comes here, and each turn of each worker removes some. Until then it does no harm: a
//! wait that was ended is passed over, and a flag that nobody looks at may be raised.
//!
//! Bounded: while a partition is held nobody can register with it, so there is at most one wait and
//! one set of watched keys per client, which took the same memory before.

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

impl Leftover {
    /// Tries to remove up to `max` keys. Returns how many were tried, and whether some are left.
    fn clear(&mut self, shared: &Shared, max: usize) -> (usize, bool) {
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

/// Gives up to `max` items to `remove`, and keeps at the end those that it could not do.
fn try_some<T>(
    items: &mut VecDeque<T>,
    max: usize,
    mut remove: impl FnMut(&T) -> bool,
) -> (usize, bool) {
    let count = items.len().min(max);
    for _ in 0..count {
        let Some(item) = items.pop_front() else { break };
        if !remove(&item) {
            items.push_back(item);
        }
    }
    (count, !items.is_empty())
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Leftovers {
    list: Mutex<VecDeque<Leftover>>,
    len: AtomicUsize,
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

    pub(crate) fn add(&self, leftover: Leftover) {
        let mut list = self.list.lock();
        list.push_back(leftover);
        self.len.store(list.len(), Relaxed);
    }

    fn take(&self) -> Option<Leftover> {
        let mut list = self.list.lock();
        let first = list.pop_front();
        self.len.store(list.len(), Relaxed);
        first
    }
}

/// Removes some leftovers. Once a turn of each worker; no lock is held.
#[inline]
pub fn clear_some(shared: &Shared) {
    if !shared.leftovers.is_empty() {
        clear(shared);
    }
}

#[cold]
fn clear(shared: &Shared) {
    let mut left = KEYS_PER_TURN;
    for _ in 0..shared.leftovers.len() {
        if left == 0 {
            return;
        }
        let Some(mut leftover) = shared.leftovers.take() else { return };
        let (tried, is_some) = leftover.clear(shared, left);
        left = left.saturating_sub(tried);
        if is_some {
            shared.leftovers.add(leftover);
        }
    }
}
