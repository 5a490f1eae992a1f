//! How keys are drawn and given up when memory is full. See [`crate::evict`].
//!
//! Both happen in batches. What a draw reads is asked for before any of it is read, so that a batch waits
//! for memory twice (for its buckets, then for its entries) and not once per key; and one lock, one number at
//! random and one look at what the policy learned serve all of it.

use super::{Db, EntryPtr, Place};
use crate::evict::{EXPIRED, Mode, Order, Pool, Score, Whereabouts};
use crate::found::Removed;
use crate::table::Hint;
use hypercache_stdx::rng::Rng;
use smallvec::SmallVec;

/// Keys given up together at most.
pub const BATCH_MAX: usize = 8;
/// Of a database that may lose fewer keys than this times the batch, fewer go at once: its worst are soon
/// gone, and what goes then is worth more than what other databases have.
const KEYS_EACH: usize = 64;
/// No more go at once than make about this much room: where entries are large, one may be enough.
const BATCH_BYTES: usize = 4096;

/// Keys of the buckets of a draw: six of each, most often.
type Drawn = SmallVec<[EntryPtr; 8 * (BATCH_MAX + 1)]>;

/// Which keys may be given up, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Only keys with a deadline.
    pub is_volatile: bool,
    /// Which goes first.
    pub order: Order,
}

impl Choice {
    fn allows(self, entry: EntryPtr) -> bool {
        !self.is_volatile || entry.deadline().is_some()
    }
}

/// Brings what giving up some keys reads towards the cache, each step for all of them: given are the hash
/// that [`Whereabouts`] has, and a hint of the table.
pub fn expect(victims: impl Iterator<Item = (u64, Hint)>) {
    let mut hints: SmallVec<[(u64, Hint); BATCH_MAX]> = victims.collect();
    hints.iter_mut().for_each(|(hash, hint)| hint.find_block(*hash));
    hints.iter_mut().for_each(|(_, hint)| hint.find_bucket());
    for (hash, hint) in &mut hints {
        // One that is not in the first bucket of its chain is waited for.
        let _is_found = hint.find_entry(*hash);
    }
}

impl Db {
    /// What is kept of uses.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Keeps something else of uses from now on. Takes a step per key.
    pub fn set_mode(&mut self, mode: Mode, now_s: u32) {
        if mode == self.mode {
            return;
        }
        let Db { table, tally, .. } = self;
        tally.begin_mode(mode, now_s);
        table.for_each(|entry| {
            entry.set_access(tally.converted(self.mode, mode, entry.access(), now_s));
        });
        self.mode = mode;
    }

    /// Moves the entry of a key of this hash to another slot of memory, if it is the one at `address`.
    /// Returns whether it is.
    pub fn relocate(&mut self, hash: u64, address: u64) -> bool {
        let places = self.table.find_tagged(hash);
        let place = places.into_iter().find(|place| place.entry().address() == address);
        place.is_some_and(Place::relocate)
    }

    /// How many keys [`Self::draw`] may find.
    #[must_use]
    pub fn candidates(&self, choice: Choice) -> usize {
        if choice.is_volatile { self.expires } else { self.len() }
    }

    /// How many keys to give up at once.
    fn batch(&self, choice: Choice) -> usize {
        let by_keys = self.candidates(choice) / KEYS_EACH;
        let by_bytes = BATCH_BYTES * self.len() / self.entry_bytes.max(1);
        (1 + by_keys.min(by_bytes)).min(BATCH_MAX)
    }

    /// Draws some keys that may go, of which a pool keeps the worst. Returns how many keys of the pool should
    /// go for that: 0 if there is none to draw.
    pub fn draw(
        &self,
        choice: Choice,
        now_ms: u64,
        rng: &mut Rng,
        pool: &mut Pool<Whereabouts>,
    ) -> usize {
        let buckets = self.buckets();
        if self.candidates(choice) == 0 || buckets == 0 {
            return 0;
        }
        let batch = self.batch(choice);
        let first = rng.below(buckets as u64) as usize;
        let scale = self.tally.scale(self.mode, choice.order, now_ms);
        for entry in self.drawn(choice, first, (batch + 1).min(buckets)) {
            let score = scale.score(entry);
            if pool.wants(score) {
                let hash = self.table.hasher().hash(entry.key());
                pool.offer(score, self.tally.whereabouts(hash));
            }
        }
        // Most of those that go now are of this draw.
        pool.worst(batch).for_each(|at| self.tally.expect(*at));
        batch
    }

    /// The keys that may go of so many buckets, of which `first` is the first. Where few keys may go, of
    /// the next ones that have some.
    fn drawn(&self, choice: Choice, first: usize, run: usize) -> Drawn {
        let buckets = self.buckets();
        let numbers = |start| (start..start + run).map(|n| n % buckets);
        self.table.prefetch_buckets(numbers(first));
        let mut drawn = Drawn::new();
        for start in (first..first + buckets).step_by(run) {
            self.table.take_buckets(numbers(start), |entry| drawn.push(entry));
            if choice.is_volatile {
                drawn.retain(|entry| choice.allows(*entry));
            }
            if !drawn.is_empty() {
                break;
            }
        }
        drawn
    }

    /// Gives up the key that was drawn with a score, unless it is worth more by now or gone. Says whether
    /// its time was past, which is another reason to go.
    pub fn give_up(
        &mut self,
        at: Whereabouts,
        (choice, drawn): (Choice, Score),
        now_ms: u64,
    ) -> Option<(Removed, bool)> {
        /// What is worth more than this beyond what it was has been used since.
        const SLACK: Score = 64;
        let slack = if self.mode == Mode::Learned { SLACK } else { 0 };
        // What is remembered last is asked for first.
        self.tally.expect(at);
        let scale = self.tally.scale(self.mode, choice.order, now_ms);
        let (place, score) = self.table.find_tagged(at.hash()).into_iter().find_map(|place| {
            let score = scale.score(place.entry());
            let is_as_drawn = choice.allows(place.entry()) && score <= drawn.saturating_add(slack);
            is_as_drawn.then_some((place, score))
        })?;
        let removed = self.remove_place(at.hash(), place);
        if self.mode == Mode::Learned {
            let bits = removed.0.entry().access();
            self.tally.remember(at.hash(), bits, self.table.len(), self.entry_bytes);
        }
        Some((removed, score == EXPIRED))
    }
}
