//! Leases: who is loading what, so that one client loads a value that is missing and the others wait
//! for it, and so that nothing is stored that was read before it changed (Nishtala et al., "Scaling
//! memcache at Facebook", NSDI 2013).
//!
//! A lease is of one key and one client, for a time. It is kept with the observers of its key in the
//! partition ([`crate::keyspace::History`]), where every write is told anyway: a write ends the lease, so
//! whoever comes with its token afterwards is refused. Keys without leases cost nothing, nor do writes
//! to them.
//!
//! Here is what is known of all leases together: how many there are, when each ends, and which are of a
//! client whose connection closes. A lease that ends by time or with its client is ended under the lock
//! of its partition by the next turn of any worker ([`end_due`]), and who waits for its key is tried again,
//! one of whom gets the next lease.
//!
//! **Cost.** Some 300 bytes per lease, which count as memory in use. Bounded by `lease-max`: beyond it
//! misses get no lease, as if nobody had asked for one.

use crate::charge::{Charge, Sum, heap, table};
use crate::shared::Shared;
use hypercache_stdx::{clock, rng};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A lease, with its key.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What its holder shows. Never given twice.
    pub(crate) token: u64,
    /// Who holds it.
    pub(crate) client: u64,
    /// When it ends, on the clock that never goes back, in ms.
    pub(crate) until_ms: u64,
    /// When it was given, on the same clock in microseconds.
    pub(crate) begun_us: u64,
    /// Invalidations of tags in its partition when it was given.
    pub(crate) invalidations: u64,
    all: Arc<Leases>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.all.forget(self.token);
    }
}

/// Where a lease is.
#[derive(Clone, Debug)]
struct Place {
    partition: u16,
    db: u8,
    key: Box<[u8]>,
    client: u64,
    until_ms: u64,
}

#[derive(Debug)]
struct Table {
    all: HashMap<u64, Place>,
    /// When each ends, with its token.
    by_time: BTreeSet<(u64, u64)>,
    /// Who holds each, with its token.
    by_client: BTreeSet<(u64, u64)>,
    keys_bytes: usize,
    charge: Charge,
}

impl Table {
    fn note_bytes(&mut self) {
        /// A set of pairs takes this much for each, about.
        const PAIR: usize = 24;
        let sets = (self.by_time.len() + self.by_client.len()) * PAIR;
        self.charge.set(table(&self.all) + sets + self.keys_bytes);
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Leases {
    table: Mutex<Table>,
    len: AtomicUsize,
    /// When the first one ends, on the clock that never goes back, in ms.
    next_ms: AtomicU64,
    last_token: AtomicU64,
}

/// Leases ended in one turn of a worker at most.
const ENDED_PER_TURN: usize = 256;

impl Leases {
    /// None yet. Tokens begin anywhere, so that one of before a restart or of another node is no other's.
    pub(crate) fn new(registered: &Arc<Sum>) -> Self {
        let (all, by_time, by_client, keys_bytes) = Default::default();
        let charge = Charge::new(registered);
        Leases {
            table: Mutex::new(Table { all, by_time, by_client, keys_bytes, charge }),
            len: AtomicUsize::new(0),
            next_ms: AtomicU64::new(u64::MAX),
            // Below 2^53, for clients that know numbers as doubles only.
            last_token: AtomicU64::new(rng::entropy() >> 12),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the first one ends, on the clock that never goes back, in ms.
    #[inline]
    #[must_use]
    pub fn next_ms(&self) -> u64 {
        self.next_ms.load(Relaxed)
    }

    /// A new lease of a key for `for_ms`, unless there are `max` already.
    pub(crate) fn grant(
        self: &Arc<Self>,
        (partition, db, key): (u16, u8, &[u8]),
        client: u64,
        for_ms: u64,
        invalidations: u64,
        max: usize,
    ) -> Option<Lease> {
        let begun_us = clock::mono_us();
        let until_ms = begun_us / 1000 + for_ms;
        let mut table = self.table.lock();
        if table.all.len() >= max {
            return None;
        }
        let token = self.last_token.fetch_add(1, Relaxed) + 1;
        let place = Place { partition, db, key: Box::from(key), client, until_ms };
        table.all.insert(token, place);
        table.by_time.insert((until_ms, token));
        table.by_client.insert((client, token));
        table.keys_bytes += heap(key.len());
        self.note_change(&mut table);
        drop(table);
        Some(Lease { token, client, until_ms, begun_us, invalidations, all: Arc::clone(self) })
    }

    fn note_change(&self, table: &mut Table) {
        table.note_bytes();
        self.len.store(table.all.len(), Relaxed);
        self.next_ms.store(table.by_time.first().map_or(u64::MAX, |(at, _)| *at), Relaxed);
    }

    fn forget(&self, token: u64) {
        let mut table = self.table.lock();
        let Some(place) = table.all.remove(&token) else { return };
        table.by_time.remove(&(place.until_ms, token));
        table.by_client.remove(&(place.client, token));
        table.keys_bytes -= heap(place.key.len());
        if table.all.is_empty() {
            table.all = HashMap::new();
        }
        self.note_change(&mut table);
    }

    /// Has the leases of a client end with the next turn.
    pub(crate) fn end_client(&self, client: u64) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        let Table { all, by_time, by_client, .. } = &mut *table;
        for (_, token) in by_client.range((client, 0)..=(client, u64::MAX)) {
            let Some(place) = all.get_mut(token) else { continue };
            by_time.remove(&(place.until_ms, *token));
            place.until_ms = 0;
            by_time.insert((0, *token));
        }
        self.note_change(&mut table);
    }

    /// Takes some whose time is over. They are there until their partitions forget them.
    fn take_due(&self, now_ms: u64) -> Vec<(u64, Place)> {
        let mut table = self.table.lock();
        let mut due = Vec::new();
        while due.len() < ENDED_PER_TURN
            && let Some(&(at, token)) = table.by_time.first()
            && at <= now_ms
        {
            table.by_time.pop_first();
            due.extend(table.all.get(&token).map(|place| (token, place.clone())));
        }
        self.note_change(&mut table);
        due
    }

    /// Gives one back that was taken and could not be ended.
    fn put_back(&self, token: u64) {
        let mut table = self.table.lock();
        let Some(until_ms) = table.all.get(&token).map(|place| place.until_ms) else { return };
        table.by_time.insert((until_ms, token));
        self.note_change(&mut table);
    }
}

/// Ends leases whose time is over, or whose clients are gone. Once a turn of each worker; no lock is held.
#[inline]
pub fn end_due(shared: &Shared) {
    let next_ms = shared.keyspace.leases.next_ms();
    if next_ms != u64::MAX && next_ms <= clock::mono_ms() {
        end_some(shared);
    }
}

#[cold]
fn end_some(shared: &Shared) {
    let leases = &shared.keyspace.leases;
    for (token, Place { partition, db, key, .. }) in leases.take_due(clock::mono_ms()) {
        // What a long command holds is looked at in another turn.
        let Some(mut shard) = shared.keyspace.try_lock(partition) else {
            leases.put_back(token);
            continue;
        };
        shard.history.end_lease(db, &key, Some(token));
        shard.leave_ready(&shared.keyspace, partition);
    }
}
