//! Which key to give up when memory is full: **GIX**, a policy that learns what each kind of key is
//! still good for.
//!
//! A victim is the one of some sampled keys with the least *score*: its index (the best rate of hits
//! that keeping it can give, see [`hazard`]) divided by its size. The index depends on the key's class
//! and on how long it was not used; both come from 32 bits that are kept of each key ([`state`]). How
//! keys of a class behave is learned online from a few that are watched ([`learner`]). Known policies
//! are special cases: where the hazard falls with age this is LRU; where it depends on how often a key
//! was used, LFU; where keys that were used once have little hazard, it resists scans; and where it peaks
//! at the length of a loop, it gives up the newest, which is the best that can be done.
//!
//! **Cost.** Per key 4 bytes, which take the place of the access time, and 6 per key that is remembered
//! after it went ([`ghosts`]). About 0.8 MB for what is learned, however many keys there are. A hit
//! changes the 4 bytes and takes no lock, unless its key is watched. Scores are logarithms in 16 bits, so
//! that dividing by the size is a subtraction.
//!
//! **Time** is counted in shares of the cache's size: [`TICKS_PER_TURNOVER`] ticks are as many requests as
//! there are keys. So a class means the same at every size.
//!
//! **Tried** (figures in `docs/design/003-eviction.md`): see there for S3-FIFO, SIEVE, W-TinyLFU, ARC,
//! LHD, GDSF and others on the same traces.

mod ghosts;
mod hazard;
mod learner;
mod marks;
mod pool;
mod state;
mod uses;
mod watched;

pub use ghosts::Ghosts;
pub use pool::Pool;
pub use state::{Class, State, Tick};
pub(crate) use uses::Tally;
pub use uses::{Mode, Order, Uses, Whereabouts};
pub(crate) use watched::Watched;

use learner::Learner;
use state::{BINS, CLASSES, FIRST_CLASSES, bin_of};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI16, AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};

/// Ticks while as many requests arrive as there are keys.
pub const TICKS_PER_TURNOVER: u64 = 256;

/// Steps of a score per doubling.
const STEPS: f32 = 256.0;

/// A score: the less, the sooner a key should go.
pub type Score = i64;

/// The score of a key whose time is past.
pub const EXPIRED: Score = Score::MIN;

/// Binary places of the clock: the step is exact enough for a billion keys, and it wraps after years.
const PLACES: u32 = 28;

/// Time in shares of the cache's size.
#[derive(Debug, Default)]
struct Clock {
    /// Ticks with [`PLACES`] binary places.
    position: AtomicU64,
    /// What one request adds.
    step: AtomicU64,
}

/// What is shared by all who use the policy: the clock, what was learned, and who is watched.
#[derive(Debug)]
pub struct Policy {
    clock: Clock,
    /// Hashes, mixed, up to this one are watched.
    watched_up_to: AtomicU64,
    /// Keys in the cache that clock and learner are made for.
    slots: AtomicU32,
    /// Logarithms of indices.
    scores: Box<[[AtomicI16; BINS]; CLASSES]>,
    learner: Mutex<Learner>,
}

/// The bits that decide whether a key is watched, independent of where the table puts it.
#[inline]
fn mixed(hash: u64) -> u64 {
    let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}

impl Default for Policy {
    fn default() -> Self {
        Policy::new()
    }
}

impl Policy {
    /// A policy that has learned nothing: of keys alike in use it gives up the one that was used longest
    /// ago.
    #[must_use]
    pub fn new() -> Policy {
        let rows: Box<[_]> =
            (0..CLASSES).map(|_| std::array::from_fn(|_| AtomicI16::new(0))).collect();
        let scores = rows.try_into().expect("it has as many rows");
        let (clock, learner) = (Clock::default(), Mutex::new(Learner::new(0)));
        let watched_up_to = AtomicU64::new(u64::MAX);
        clock.position.store(1 << (state::TICK_BITS + PLACES), Relaxed);
        let policy = Policy { clock, watched_up_to, slots: AtomicU32::new(0), scores, learner };
        policy.expect_nothing();
        policy.set_slots(1);
        policy
    }

    /// Scores as of keys that are used the more rarely the longer they were not.
    fn expect_nothing(&self) {
        for (class, scores) in self.scores.iter().enumerate() {
            let is_known = class >= FIRST_CLASSES;
            for (bin, score) in scores.iter().enumerate() {
                score.store(if is_known { 256 } else { 0 } - 64 * bin as i16, Relaxed);
            }
        }
    }

    fn learner(&self) -> std::sync::MutexGuard<'_, Learner> {
        self.learner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that clock, learner and scores take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.learner().bytes() + size_of_val(&*self.scores) + size_of::<Policy>()
    }

    /// Notes how many keys there are. Cheap when that is about what it was.
    pub fn set_slots(&self, slots: usize) {
        let slots = slots.clamp(1, u32::MAX as usize);
        let before = self.slots.load(Relaxed) as usize;
        if slots.abs_diff(before) * 16 <= before {
            return;
        }
        self.slots.store(slots as u32, Relaxed);
        self.clock.step.store((TICKS_PER_TURNOVER << PLACES) / slots as u64, Relaxed);
        let mut learner = self.learner();
        if learner.set_slots(slots) {
            self.watched_up_to.store(learner.threshold(), Relaxed);
        }
    }

    /// Lets `requests` requests pass.
    #[inline]
    pub fn advance(&self, requests: u64) {
        let by = self.clock.step.load(Relaxed) * requests;
        self.clock.position.fetch_add(by, Relaxed);
    }

    /// The time.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Tick {
        self.position() as Tick
    }

    /// The time, which does not begin anew.
    #[inline]
    fn position(&self) -> u64 {
        self.clock.position.load(Relaxed) >> PLACES
    }

    /// Lets the rest of the present tick pass.
    fn begin_tick(&self) {
        self.clock.position.fetch_add(1 << PLACES, Relaxed);
    }

    /// Tells the learner of a use of a key that has `state` after it, if the key is watched; `bytes` is
    /// its size.
    #[inline]
    pub fn note(&self, hash: u64, state: State, bytes: impl FnOnce() -> u32, now: Tick) {
        let mixed = mixed(hash);
        if self.watches(mixed) {
            self.note_watched(mixed, state.class(bytes()), now);
        }
    }

    /// Whether a key is watched whose hash, mixed, is given.
    #[inline]
    fn watches(&self, mixed: u64) -> bool {
        mixed <= self.watched_up_to.load(Relaxed)
    }

    #[cold]
    fn note_watched(&self, mixed: u64, class: Class, now: Tick) {
        let mut learner = self.learner();
        if learner.note(mixed, class, now) {
            learner.compute(now, |class, indices| {
                for (score, index) in self.scores[class].iter().zip(indices) {
                    score.store((index.log2() * STEPS) as i16, Relaxed);
                }
            });
        }
    }

    /// What it is worth to keep a key of this state and size, in steps of a logarithm.
    #[inline]
    #[must_use]
    pub fn score(&self, state: State, bytes: u32, now: Tick) -> Score {
        let index = self.scores[state.class(bytes).number()][bin_of(state.age(now))].load(Relaxed);
        Score::from(index) - log2_256(bytes)
    }
}

/// 256 times the logarithm to base 2, straight between powers of two; of 0 as of 1.
#[inline]
fn log2_256(n: u32) -> Score {
    let n = n.max(1);
    let exponent = n.ilog2();
    let mantissa = (n << (31 - exponent)) >> 23 & 255;
    Score::from(exponent << 8 | mantissa)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;
    use std::collections::HashMap;

    #[test]
    fn logarithms_rise() {
        assert_eq!([0, 1, 2, 3, 1 << 31].map(log2_256), [0, 0, 256, 384, 31 * 256]);
        assert!((1..5000).all(|n| log2_256(n) <= log2_256(n + 1)));
    }

    /// Hits of a cache of `slots` keys of one size, by the policy over all its keys.
    fn hits(slots: usize, requests: impl Iterator<Item = u64>) -> usize {
        let policy = Policy::new();
        let mut cache = HashMap::<u64, State>::new();
        let mut hits = 0;
        for key in requests {
            policy.advance(1);
            policy.set_slots(cache.len());
            let (hash, now) = (key.wrapping_mul(0xD6E8_FEB8_6659_FD93), policy.now());
            let before = cache.get(&key).copied();
            hits += usize::from(before.is_some());
            let state = before.map_or_else(|| State::new(now), |state| state.used(now));
            policy.note(hash, state, || 1, now);
            cache.insert(key, state);
            if cache.len() > slots {
                let worst = cache.iter().min_by_key(|(_, state)| policy.score(**state, 1, now));
                let worst = *worst.expect("it is not empty").0;
                cache.remove(&worst);
            }
        }
        hits
    }

    #[test]
    fn a_loop_is_kept_in_part() {
        let n = 40_000;
        let hits = hits(80, (0..n).map(|i| i % 100));
        assert!(hits > n as usize / 2, "{hits} of {n}; the least recently used would give 0");
    }

    #[test]
    fn keys_that_are_used_once_do_not_drive_out_those_that_are_used_again() {
        let mut rng = Rng::new(3);
        let n = 40_000;
        let hits = hits(60, (0..n).map(|i| if i % 4 == 0 { rng.below(50) } else { 1000 + i }));
        assert!(hits > n as usize / 4 * 9 / 10, "{hits} of {}", n / 4);
    }
}
