//! Many seeds, and the test of the test: mutants.

use crate::env::Stats;
use crate::run::{Verdict, run};
use hypercache_cluster::mutant::Mutant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// Sums of their counts.
    pub stats: Stats,
    /// Virtual time.
    pub lasted_us: u64,
    /// Seeds with a broken promise.
    pub failed: Vec<Verdict>,
}

impl Totals {
    fn add(&mut self, verdict: Verdict) {
        let (sum, one) = (&mut self.stats, verdict.stats);
        sum.events += one.events;
        sum.faults += one.faults;
        sum.triggered += one.triggered;
        sum.failovers += one.failovers;
        sum.handovers += one.handovers;
        sum.shrinks += one.shrinks;
        sum.joins += one.joins;
        sum.losses += one.losses;
        sum.copies += one.copies;
        sum.copies_in_sync += one.copies_in_sync;
        sum.writes += one.writes;
        sum.reads += one.reads;
        sum.replica_reads += one.replica_reads;
        sum.unknown += one.unknown;
        self.seeds += 1;
        self.lasted_us += verdict.lasted_us;
        if !verdict.violations.is_empty() {
            self.failed.push(verdict);
        }
    }

    /// Failed seeds whose broken promises begin like this.
    #[must_use]
    pub fn failed_with(&self, prefix: &str) -> usize {
        let is_such = |v: &&Verdict| v.violations.iter().any(|text| text.contains(prefix));
        self.failed.iter().filter(is_such).count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `count` seeds from `first` on, on `threads` threads; stops early when `has_enough` says so of the
/// totals.
#[must_use]
pub fn run_seeds(
    first: u64,
    count: u64,
    threads: usize,
    has_enough: &(dyn Fn(&Totals) -> bool + Sync),
) -> Totals {
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || has_enough(&lock(&totals)) {
                        return;
                    }
                    let verdict = run(seed, None);
                    lock(&totals).add(verdict);
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.failed.sort_by_key(|verdict| verdict.seed);
    totals
}

/// The first seed that shows that a rule is broken, within a budget.
#[must_use]
pub fn kill(mutant: Mutant, first: u64, budget: u64) -> Option<Verdict> {
    (first..first + budget).map(|seed| run(seed, Some(mutant))).find(|v| !v.violations.is_empty())
}
