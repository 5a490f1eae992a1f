//! Learns how keys of each class are used, by watching some.
//!
//! Keys whose hash is below a threshold are watched, **whether or not they are still in the cache**, so
//! that what is learned is not the consequence of our own decisions. (Beckmann et al., "LHD: improving
//! cache hit rate by maximizing hit density", NSDI 2018, learn from what is cached; that is the main
//! difference.) The threshold is such that what is watched stands for [`DEPTH`] caches full of keys.
//!
//! Of each watched key: when it was used last, and what class it had then. When it is used again, the
//! class had a hit at that age; when it falls out, or is still waiting when scores are made, it was
//! lost from sight at that age.

use super::hazard::{Grid, grid, indices};
use super::state::{BINS, CLASSES, Class, Tick, bin_of};
use super::watched::Watched;

/// Keys watched at most.
const WATCHED_MAX: usize = 16 * 1024;
/// How many caches full of keys those watched stand for.
const DEPTH: usize = 16;
/// Uses of watched keys between two computations, at least.
const PERIOD_MIN: usize = 1024;
/// The first computations come four times as often.
const HASTY: u32 = 6;
/// What is kept of older counts at each computation.
const KEPT: f32 = 0.974;

/// A watched key: its last use.
#[derive(Clone, Copy, Debug)]
struct Use {
    at: Tick,
    class: Class,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Learner {
    watched: Watched<Use>,
    hits: Grid,
    lost: Grid,
    /// Uses since the last computation.
    uses: usize,
    computations: u32,
    /// The cache's size in keys that it is made for.
    slots: usize,
}

impl Learner {
    /// For a cache of `slots` keys.
    pub(super) fn new(slots: usize) -> Self {
        let watched = Watched::new((slots * DEPTH).clamp(64, WATCHED_MAX));
        Learner { watched, hits: grid(), lost: grid(), uses: 0, computations: 0, slots }
    }

    pub(super) fn bytes(&self) -> usize {
        self.watched.bytes() + 2 * size_of::<[[f32; BINS]; CLASSES]>()
    }

    /// Hashes up to this one are to be watched.
    pub(super) fn threshold(&self) -> u64 {
        let stands_for = (self.slots * DEPTH) as f64;
        // From 1.0 on the conversion gives the greatest number.
        (WATCHED_MAX as f64 / stands_for * u64::MAX as f64) as u64
    }

    /// Notes that the cache's size changed. Returns whether that made a difference.
    pub(super) fn set_slots(&mut self, slots: usize) -> bool {
        let is_alike = slots * 8 >= self.slots * 7 && slots * 7 <= self.slots * 8;
        if is_alike {
            return false;
        }
        self.slots = slots;
        let (threshold, len_max) = (self.threshold(), (slots * DEPTH).clamp(64, WATCHED_MAX));
        let old = std::mem::replace(&mut self.watched, Watched::new(len_max));
        for (hash, last) in old.oldest_first() {
            if hash <= threshold {
                self.watched.put(hash, last);
            }
        }
        true
    }

    /// Notes a use of a watched key, which has `class` from now on. Returns whether it is time to compute.
    pub(super) fn note(&mut self, hash: u64, class: Class, now: Tick) -> bool {
        let (before, dropped) = self.watched.put(hash, Use { at: now, class });
        if let Some(Use { at, class }) = before {
            self.hits[class.number()][bin_of(now.wrapping_sub(at))] += 1.0;
        }
        if let Some(Use { at, class }) = dropped {
            self.lost[class.number()][bin_of(now.wrapping_sub(at))] += 1.0;
        }
        self.uses += 1;
        let period = PERIOD_MIN.max(self.watched.len() / 16);
        self.uses >= if self.computations < HASTY { period / 4 } else { period }
    }

    /// Computes the index of every class and age, and hands them to `f` class by class.
    pub(super) fn compute(&mut self, now: Tick, f: impl FnMut(usize, &[f32; BINS])) {
        let mut lost = self.lost.clone();
        for (_, Use { at, class }) in self.watched.oldest_first() {
            lost[class.number()][bin_of(now.wrapping_sub(at))] += 1.0;
        }
        indices(&self.hits, &lost, f);
        for count in self.hits.iter_mut().chain(self.lost.iter_mut()).flatten() {
            *count *= KEPT;
        }
        (self.uses, self.computations) = (0, self.computations + 1);
    }
}
