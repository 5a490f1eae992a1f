//! A trace of what growing tables cost: how many steps there were, how long the longest took, and
//! how many took how long.
//!
//! It is off unless somebody asks ([`set_traced`]); then a step costs two looks at the clock, and else
//! one look at a flag. A table takes a step once in about six insertions. The counts are of the whole
//! process, as the memory of buckets is ([`crate::mem::pool`]), and so is the switch.
//!
//! What is timed is all that a table does beyond writing a word into a bucket: to grow or shrink by a
//! bucket, which moves the keys of one group and may take a new block, and to add an overflow bucket.
//! So the first touch of new memory is in it. An overflow bucket that a step of growth needs counts
//! twice: in that step, and as one of its own.

use hypercache_stdx::clock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Powers of two of nanoseconds that steps are counted by: up to 2^35 ns, half a minute.
pub const TIMES: usize = 36;

static IS_TRACED: AtomicBool = AtomicBool::new(false);
static TRACE: Trace = Trace::new();

/// See the module's text.
struct Trace {
    max_ns: AtomicU64,
    recent_max_ns: AtomicU64,
    steps_by_time: [AtomicU64; TIMES],
}

impl Trace {
    const fn new() -> Self {
        Trace {
            max_ns: AtomicU64::new(0),
            recent_max_ns: AtomicU64::new(0),
            steps_by_time: [const { AtomicU64::new(0) }; TIMES],
        }
    }

    fn add(&self, nanos: u64) {
        let bits = (u64::BITS - nanos.leading_zeros()) as usize;
        self.steps_by_time[bits.min(TIMES - 1)].fetch_add(1, Relaxed);
        self.max_ns.fetch_max(nanos, Relaxed);
        self.recent_max_ns.fetch_max(nanos, Relaxed);
    }

    fn steps(&self) -> Steps {
        Steps {
            max_ns: self.max_ns.load(Relaxed),
            by_time: std::array::from_fn(|bits| self.steps_by_time[bits].load(Relaxed)),
        }
    }
}

/// The steps that were traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// What the longest took.
    pub max_ns: u64,
    /// Number `i` counts those that took less than 2^i ns, and that no lower one counts.
    pub by_time: [u64; TIMES],
}

impl Steps {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_time.iter().sum()
    }

    /// What a share of the steps, such as 0.999, took no longer than; rounded up to a power of two, or
    /// to the longest.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut below = 0;
        for (bits, count) in self.by_time.iter().enumerate() {
            below += count;
            if below >= wanted {
                return self.max_ns.min(1 << bits);
            }
        }
        self.max_ns
    }
}

/// Whether steps are timed from now on.
pub fn set_traced(is_traced: bool) {
    IS_TRACED.store(is_traced, Relaxed);
}

/// All steps that were traced so far.
#[must_use]
pub fn steps() -> Steps {
    TRACE.steps()
}

/// What the longest step took since this was asked last.
#[must_use]
pub fn take_recent_max_ns() -> u64 {
    TRACE.recent_max_ns.swap(0, Relaxed)
}

/// Forgets all steps.
pub fn reset() {
    TRACE.max_ns.store(0, Relaxed);
    TRACE.recent_max_ns.store(0, Relaxed);
    TRACE.steps_by_time.iter().for_each(|count| count.store(0, Relaxed));
}

/// Takes a step; times it if that is wanted.
#[inline]
pub(crate) fn step<T>(take: impl FnOnce() -> T) -> T {
    if !IS_TRACED.load(Relaxed) {
        return take();
    }
    let started_ns = clock::mono_ns();
    let result = take();
    TRACE.add(clock::mono_ns() - started_ns);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_powers_of_two() {
        let trace = Trace::new();
        assert_eq!((trace.steps().count(), trace.steps().quantile_ns(0.5)), (0, 0));
        for nanos in [0, 1, 1000, 1023, 1024, 70_000] {
            trace.add(nanos);
        }
        trace.add(u64::MAX);
        let steps = trace.steps();
        assert_eq!((steps.count(), steps.max_ns), (7, u64::MAX));
        assert_eq!([0, 1, 10, 11, 17, TIMES - 1].map(|i| steps.by_time[i]), [1, 1, 2, 1, 1, 1]);
        assert_eq!([0.1, 0.5, 0.7].map(|share| steps.quantile_ns(share)), [1, 1 << 10, 1 << 11]);
        assert_eq!(trace.recent_max_ns.swap(0, Relaxed), u64::MAX);
    }
}
