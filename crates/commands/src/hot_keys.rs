//! Which keys take the most: calls, processor time and bytes on the network. Always on.
//!
//! One request of some 64 is measured: how long it took, and how many bytes it and its reply have. What its
//! keys took goes to the tables of its worker, with the weight of as many requests. A table has a fixed
//! number of places. A key that is not there while it is full takes the place, and the weight, of the
//! lightest one with a chance of its own weight in the sum of both, so that keys that come once do not
//! push out those that come often (Ben Basat et al., "Randomized admission policy for efficient top-k and
//! frequency estimation", INFOCOM 2017). What a table tells of a key is hence an estimate, the better the
//! hotter it is. Each minute all weights are halved, so it tells of the last minutes.
//!
//! **Cost.** 3 tables of 128 places per worker, which count as memory in use; of time see
//! `docs/design/005-stampede.md`. **Tried** on paper: the sketch in the hot path for each key, which costs
//! two to three per cent; Space-Saving, whose search for the lightest key is done for each key that comes
//! once.
//!
//! HOTKEYS START begins a **session** with tables of its own, into which all requests go that it wants.

use crate::charge::{Charge, Sum, heap, table};
use crate::dispatch::{Executor, Request};
use crate::shared::Shared;
use hypercache_protocol::slot::slot_of;
use hypercache_stdx::clock;
use hypercache_stdx::rng::Rng;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Of so many requests one is measured.
pub const EVERY: u32 = 64;
/// Keys in a table.
const PLACES: usize = 128;
/// Bytes of a key that are kept.
const KEY_MAX: usize = 1024;
/// Keys of one request that are noted.
const KEYS_MAX: usize = 64;
/// Between two halvings.
const HALVED_EVERY_MS: u64 = 60_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Calls,
    /// In nanoseconds.
    Time,
    Bytes,
}

/// A key with its database.
pub(crate) type Name = (u8, Box<[u8]>);

/// One table; see the module's text.
#[derive(Debug, Default)]
struct Top {
    weights: HashMap<Name, u64>,
    keys_bytes: usize,
    /// No key that is there weighs less.
    least: u64,
}

impl Top {
    fn add(&mut self, db: u8, key: &[u8], weight: u64, rng: &mut Rng) {
        let name = (db, Box::from(key));
        if let Some(sum) = self.weights.get_mut(&name) {
            *sum += weight;
            return;
        }
        if self.weights.len() < PLACES {
            return self.insert(name, weight);
        }
        let chance = rng.unit();
        let is_admitted = |least: u64| chance * (least + weight) as f64 <= weight as f64;
        if !is_admitted(self.least) {
            return;
        }
        let lightest = self.weights.iter().min_by_key(|(_, weight)| **weight);
        let Some((lightest, least)) = lightest.map(|(name, weight)| (name.clone(), *weight)) else {
            return;
        };
        self.least = least;
        if is_admitted(least) {
            self.weights.remove(&lightest);
            self.keys_bytes -= heap(lightest.1.len());
            self.insert(name, least + weight);
        }
    }

    fn insert(&mut self, name: Name, weight: u64) {
        self.keys_bytes += heap(name.1.len());
        self.weights.insert(name, weight);
    }

    fn halve(&mut self) {
        self.weights.values_mut().for_each(|weight| *weight /= 2);
        self.weights.retain(|_, weight| *weight > 0);
        self.keys_bytes = self.weights.keys().map(|(_, key)| heap(key.len())).sum();
        self.least /= 2;
    }

    fn bytes(&self) -> usize {
        table(&self.weights) + self.keys_bytes
    }
}

impl<'a> Executor<'a> {
    /// As [`Self::execute`], and notes what the request took.
    #[inline(never)]
    pub fn execute_measured(&mut self, request: &Request<'a>) {
        let (begun_ns, before) = (clock::mono_ns(), self.output_bytes());
        self.execute(request);
        let nanos = clock::mono_ns() - begun_ns;
        let (args, mut keys) = (request.args, SmallVec::<[&[u8]; 4]>::new());
        if let Some(entry) = request.entry {
            entry.row.keys.for_each(args, &mut |i, _| keys.push(args.get(i)));
        }
        let asked: usize = args.iter_from(0).map(<[u8]>::len).sum();
        let bytes = asked + self.output_bytes().saturating_sub(before);
        let (worker, db) = (self.cx.worker.id, self.cx.session.db);
        self.cx.shared.hot_keys.note(worker, db, &keys, nanos, bytes as u64);
    }
}

/// The tables of one worker.
#[derive(Debug, Default)]
struct Tables([Top; 3]);

impl Tables {
    fn add(&mut self, db: u8, key: &[u8], weights: [u64; 3], rng: &mut Rng) {
        for (top, weight) in self.0.iter_mut().zip(weights) {
            top.add(db, key, weight, rng);
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(Top::bytes).sum()
    }
}

#[derive(Debug)]
struct OfWorker {
    always: Tables,
    session: Tables,
    charge: Charge,
    rng: Rng,
}

/// What HOTKEYS START asked for.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) is_active: bool,
    pub(crate) by_time: bool,
    pub(crate) by_bytes: bool,
    /// How many keys are told.
    pub(crate) count: usize,
    /// Of so many requests one is measured.
    pub(crate) every: u32,
    /// Slots whose keys count; all if there are none.
    pub(crate) slots: Vec<u16>,
    /// When it ends by itself, on the clock that never goes back, in ms.
    pub(crate) until_ms: Option<u64>,
    pub(crate) begun: Totals,
    /// At its end.
    pub(crate) ended: Option<Totals>,
}

/// What the whole server took so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) now_ms: u64,
    pub(crate) commands_us: u64,
    pub(crate) net_bytes: u64,
    pub(crate) user_ms: u64,
    pub(crate) system_ms: u64,
}

impl Totals {
    pub(crate) fn of(shared: &Shared) -> Totals {
        let cpu = crate::system::cpu_of_process();
        let nanos = |stats: &crate::stats::WorkerStats| {
            stats.commands.iter().map(|command| command.nanos.get()).sum::<u64>()
        };
        Totals {
            now_ms: clock::now_ms(),
            commands_us: shared.sum(nanos) / 1000,
            net_bytes: shared.sum(|s| s.net_input_bytes.get() + s.net_output_bytes.get()),
            user_ms: (cpu.user * 1000.0) as u64,
            system_ms: (cpu.system * 1000.0) as u64,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct HotKeys {
    workers: Vec<Mutex<OfWorker>>,
    session: Mutex<Option<Session>>,
    /// Of so many requests one is measured.
    every: AtomicU32,
    halved_ms: Mutex<u64>,
}

impl HotKeys {
    /// Empty tables for so many workers.
    pub(crate) fn new(workers: usize, registered: &Arc<Sum>) -> Self {
        let new = || OfWorker {
            always: Tables::default(),
            session: Tables::default(),
            charge: Charge::new(registered),
            rng: Rng::from_entropy(),
        };
        HotKeys {
            workers: (0..workers).map(|_| Mutex::new(new())).collect(),
            session: Mutex::new(None),
            every: AtomicU32::new(EVERY),
            halved_ms: Mutex::new(0),
        }
    }

    /// Of so many requests one is to be measured.
    #[inline]
    #[must_use]
    pub fn every(&self) -> u32 {
        self.every.load(Relaxed)
    }

    /// Notes what a request took that was measured, and that stands for [`Self::every`] of them.
    pub(crate) fn note(&self, worker: usize, db: u8, keys: &[&[u8]], nanos: u64, bytes: u64) {
        let Some(of_worker) = self.workers.get(worker).filter(|_| !keys.is_empty()) else { return };
        let every = u64::from(self.every());
        let share = |sum: u64| sum * every / keys.len() as u64;
        let weights = [every, share(nanos).max(1), share(bytes).max(1)];
        let session = self.session.lock().as_ref().filter(|s| s.is_active).map(|s| s.slots.clone());
        let OfWorker { always, session: own, charge, rng } = &mut *of_worker.lock();
        for key in keys.iter().take(KEYS_MAX) {
            let wants = |slots: &Vec<u16>| slots.is_empty() || slots.contains(&slot_of(key));
            let key = &key[..key.len().min(KEY_MAX)];
            always.add(db, key, weights, rng);
            if session.as_ref().is_some_and(wants) {
                own.add(db, key, weights, rng);
            }
        }
        charge.set(always.bytes() + own.bytes());
    }

    /// The keys that took the most of something, of the last minutes or in the session.
    pub(crate) fn top(&self, metric: Metric, of_session: bool, count: usize) -> Vec<(Name, u64)> {
        let mut sums = BTreeMap::<Name, u64>::new();
        for of_worker in &self.workers {
            let of_worker = of_worker.lock();
            let tables = if of_session { &of_worker.session } else { &of_worker.always };
            for (name, weight) in &tables.0[metric as usize].weights {
                *sums.entry(name.clone()).or_default() += weight;
            }
        }
        let mut all: Vec<_> = sums.into_iter().collect();
        all.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        all.truncate(count);
        all
    }

    /// The session, if there is one. It ends here if its time is over.
    pub(crate) fn session(&self, shared: &Shared) -> Option<Session> {
        let is_over = |session: &Session| {
            session.is_active && session.until_ms.is_some_and(|at| clock::mono_ms() >= at)
        };
        let mut session = self.session.lock();
        if session.as_ref().is_some_and(is_over) {
            self.end(&mut session, shared);
        }
        session.clone()
    }

    fn end(&self, session: &mut Option<Session>, shared: &Shared) {
        self.every.store(EVERY, Relaxed);
        if let Some(session) = session {
            session.is_active = false;
            session.ended = Some(Totals::of(shared));
        }
    }

    /// Begins a session in the place of the one that was.
    pub(crate) fn start(&self, session: Session) {
        self.forget_session();
        self.every.store(session.every, Relaxed);
        *self.session.lock() = Some(session);
    }

    /// Ends the session; what it found stays. Returns whether there was one.
    pub(crate) fn stop(&self, shared: &Shared) -> bool {
        let mut session = self.session.lock();
        let is_active = session.as_ref().is_some_and(|session| session.is_active);
        if is_active {
            self.end(&mut session, shared);
        }
        is_active
    }

    /// Forgets what the session found.
    pub(crate) fn forget_session(&self) {
        *self.session.lock() = None;
        for of_worker in &self.workers {
            let OfWorker { always, session, charge, .. } = &mut *of_worker.lock();
            *session = Tables::default();
            charge.set(always.bytes());
        }
    }

    /// Has old uses count less, and ends a session whose time is over. At the ticks of one worker.
    pub fn tick(&self, shared: &Shared, now_ms: u64) {
        let _ended = self.session(shared);
        let mut halved_ms = self.halved_ms.lock();
        if now_ms.saturating_sub(*halved_ms) < HALVED_EVERY_MS {
            return;
        }
        *halved_ms = now_ms;
        for of_worker in &self.workers {
            let OfWorker { always, session, charge, .. } = &mut *of_worker.lock();
            always.0.iter_mut().for_each(Top::halve);
            charge.set(always.bytes() + session.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_of_many_keys_are_found() {
        let registered = Arc::default();
        let hot = HotKeys::new(2, &registered);
        let mut rng = Rng::new(5);
        let mut counts = [0_u64; 10];
        for n in 0..200_000_u64 {
            // One in ten to one in a hundred are of ten hot keys, the rest of keys that come once.
            let key = match rng.below(1000) {
                hot @ 0..10 => hot,
                100..200 => 0,
                _ => 1000 + n,
            };
            if let Some(count) = counts.get_mut(key as usize) {
                *count += 64;
            }
            let name = key.to_string();
            hot.note(n as usize % 2, 0, &[name.as_bytes()], 100, 10 * (key + 1));
        }
        let found = hot.top(Metric::Calls, false, 10);
        assert_eq!(&*found[0].0.1, b"0");
        let names: Vec<usize> = found
            .iter()
            .filter_map(|((_, key), _)| std::str::from_utf8(key).ok()?.parse().ok())
            .collect();
        let hot_ones = names.iter().filter(|key| **key < 10).count();
        assert!(hot_ones >= 9, "{found:?}");
        let ratio = found[0].1 as f64 / counts[0] as f64;
        assert!((0.95..1.1).contains(&ratio), "{ratio}");
        assert!(registered.bytes() < 200_000);
        for _ in 0..64 {
            hot.tick_for_test();
        }
        assert!(hot.top(Metric::Calls, false, 10).is_empty(), "long ago");
    }

    impl HotKeys {
        fn tick_for_test(&self) {
            for of_worker in &self.workers {
                of_worker.lock().always.0.iter_mut().for_each(Top::halve);
            }
        }
    }
}
