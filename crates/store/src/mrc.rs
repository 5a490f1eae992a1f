//! What hit ratio a cache of any size would have: SHARDS with a fixed number of samples (Waldspurger et
//! al., "Efficient MRC construction with SHARDS", FAST 2015), with its correction.
//!
//! Of keys whose hash is below a threshold every use is seen. How many *other* such keys were used since
//! the last use of a key, divided by their share of all keys, is how large a cache that gives up the one
//! that was used longest ago would have to be for this use to be a hit. When there are more than
//! [`SAMPLES`] keys, the one with the greatest hash goes and the threshold falls to it. A use stands for
//! as many uses as there are keys per sample; what these add up to more or less than the uses that there
//! were belongs to keys used so often that they are hits anywhere, and is counted there: without that a
//! single hot key in or out of the sample spoils the curve.
//!
//! **Cost.** About 0.5 MB. A use that is not seen costs a multiplication and a comparison; one that is,
//! four walks of up to 15 steps through a tree of counts. These are made for [`BATCH`] uses together, so that
//! one finds in the cache what the one before it read. Measured against the exact curve: see
//! `docs/eviction.md`. **Tried** (in a study before this code): a fixed share of 1 in 100 or 1,000, which
//! is off by up to 5 points, and the same without the correction, which is off by up to 13.

use crate::evict::Watched;
use std::collections::BinaryHeap;

/// Keys that are seen at most.
const SAMPLES: usize = 8192;
/// Uses that are seen together.
const BATCH: usize = 64;
/// Uses until positions are numbered anew.
const POSITIONS: usize = 4 * SAMPLES;
/// Distances are told apart in so many steps per doubling.
const STEPS: f64 = 32.0;
const BUCKETS: usize = 40 * STEPS as usize;

/// See the module's text.
#[derive(Debug)]
pub struct Curve {
    /// The position of the last use of each key.
    keys: Watched<u32>,
    hashes: BinaryHeap<u64>,
    /// How many keys have their last use at positions up to some.
    tree: Tree,
    next: usize,
    /// Uses by the logarithm of their distance.
    counts: Box<[f64]>,
    /// Uses that the samples stand for, first ones included.
    represented: f64,
    threshold: u64,
    /// Hashes of the latest uses, which are seen together.
    waiting: Vec<u64>,
}

impl Default for Curve {
    fn default() -> Self {
        Curve {
            keys: Watched::new(SAMPLES + 1),
            hashes: BinaryHeap::with_capacity(SAMPLES + 1),
            tree: Tree::new(),
            next: 0,
            counts: vec![0.0; BUCKETS].into_boxed_slice(),
            represented: 0.0,
            threshold: u64::MAX,
            waiting: Vec::with_capacity(BATCH),
        }
    }
}

impl Curve {
    /// Hashes up to this one are to be seen. It only falls.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.hashes.capacity() * 8 + POSITIONS * 2 + (BUCKETS + BATCH) * 8
    }

    fn share(&self) -> f64 {
        self.threshold as f64 / u64::MAX as f64
    }

    /// Sees a use of a key; one with a hash above the threshold is ignored.
    pub fn see(&mut self, hash: u64) {
        self.waiting.push(hash);
        if self.waiting.len() == BATCH {
            self.see_waiting();
        }
    }

    fn see_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.drain(..).for_each(|hash| self.see_now(hash));
        self.waiting = waiting;
    }

    fn see_now(&mut self, hash: u64) {
        if hash > self.threshold {
            return;
        }
        if self.next == POSITIONS {
            self.number_anew();
        }
        let (position, share) = (self.next, self.share());
        self.next += 1;
        self.represented += 1.0 / share;
        let (before, _) = self.keys.put(hash, position as u32);
        if let Some(before) = before {
            let between = self.tree.up_to(position) - self.tree.up_to(before as usize + 1);
            self.tree.add(before as usize, false);
            self.counts[bucket_of(f64::from(between) / share)] += 1.0 / share;
        } else {
            self.hashes.push(hash);
        }
        self.tree.add(position, true);
        if self.keys.len() > SAMPLES {
            self.drop_greatest();
        }
    }

    fn drop_greatest(&mut self) {
        let Some(hash) = self.hashes.pop() else { return };
        if let Some(position) = self.keys.remove(hash) {
            self.tree.add(position as usize, false);
        }
        self.threshold = hash - 1;
    }

    /// Numbers the last uses from 0 on, in their order.
    fn number_anew(&mut self) {
        self.tree = Tree::new();
        let in_order: Vec<u64> = self.keys.oldest_first().map(|(hash, _)| hash).collect();
        for (position, hash) in in_order.iter().enumerate() {
            self.keys.put(*hash, position as u32);
            self.tree.add(position, true);
        }
        self.next = in_order.len();
    }

    /// The share of `uses`, which is how many there were, that a cache of `keys` keys had answered.
    #[must_use]
    pub fn hit_ratio(&mut self, keys: f64, uses: u64) -> f64 {
        self.see_waiting();
        if uses == 0 || keys < 1.0 {
            return 0.0;
        }
        let place = (keys.log2() * STEPS).clamp(0.0, (BUCKETS - 1) as f64);
        let (whole, part) = (place as usize, place.fract());
        let below: f64 = self.counts[..whole].iter().sum();
        let hits = below + self.counts[whole] * part + (uses as f64 - self.represented);
        (hits / uses as f64).clamp(0.0, 1.0)
    }
}

/// The bucket of a distance: a cache of 2^(bucket/STEPS) keys has less than it, the next one does not.
fn bucket_of(distance: f64) -> usize {
    (((distance + 1.0).log2() * STEPS) as usize).min(BUCKETS - 1)
}

/// Counts of positions, of which sums are found in a walk (Fenwick, "A new data structure for cumulative
/// frequency tables", 1994).
#[derive(Debug)]
struct Tree(Box<[u16]>);

impl Tree {
    fn new() -> Self {
        Tree(vec![0; POSITIONS + 1].into_boxed_slice())
    }

    /// Adds a position, or takes it away.
    fn add(&mut self, position: usize, is_there: bool) {
        let mut at = position + 1;
        while at <= POSITIONS {
            self.0[at] = if is_there { self.0[at] + 1 } else { self.0[at] - 1 };
            at += at & at.wrapping_neg();
        }
    }

    /// How many there are below a position.
    fn up_to(&self, position: usize) -> u32 {
        let (mut at, mut sum) = (position, 0);
        while at > 0 {
            sum += u32::from(self.0[at]);
            at &= at - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;

    fn hash(key: u64) -> u64 {
        Rng::new(key).next_u64()
    }

    #[test]
    fn a_loop_is_answered_by_a_cache_that_holds_it() {
        for keys in [1000u64, 100_000] {
            let mut curve = Curve::default();
            (0..keys * 10).for_each(|n| curve.see(hash(n % keys)));
            let mut ratio = |size: f64| curve.hit_ratio(size * keys as f64, keys * 10);
            assert!(ratio(0.9) < 0.02, "{}", ratio(0.9));
            assert!((ratio(1.1) - 0.9).abs() < 0.02, "{}", ratio(1.1));
            assert!(curve.bytes() < 600_000);
        }
    }

    #[test]
    fn keys_that_are_used_alike_are_hits_by_their_share() {
        let (mut curve, mut rng) = (Curve::default(), Rng::new(1));
        let (keys, uses) = (50_000, 1_000_000);
        (0..uses).for_each(|_| curve.see(hash(rng.below(keys))));
        for share in [0.1, 0.25, 0.5, 0.75] {
            let ratio = curve.hit_ratio(share * keys as f64, uses);
            assert!((ratio - share * 0.95).abs() < 0.03, "{ratio} of {share}");
        }
    }

    #[test]
    fn a_hot_key_out_of_the_sample_is_no_loss() {
        let mut curve = Curve::default();
        let keys = 100_000;
        let hot = (keys..).find(|&key| hash(key) > u64::MAX / 2).unwrap();
        (0..keys).for_each(|key| curve.see(hash(key)));
        for key in 0..keys {
            curve.see(hash(key));
            curve.see(hash(hot));
        }
        let ratio = curve.hit_ratio(1000.0, 3 * keys);
        assert!((ratio - 1.0 / 3.0).abs() < 0.02, "{ratio}");
    }
}
