//! How keys are drawn and given up when memory is full. See [`crate::evict`].

use super::{Db, EntryPtr};
use crate::evict::{EXPIRED, Mode, Order, Score, Whereabouts};
use crate::found::Removed;
use smallvec::SmallVec;

/// Keys of two buckets, most often.
type Drawn = SmallVec<[EntryPtr; 32]>;

/// Buckets that a draw looks at together.
const BUCKETS: usize = 2;

/// Where the next draws look: memory that one of them reads is asked for by the two before, so that none
/// waits for it. Of use while draws are of one database; else it only costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    now: usize,
    next: usize,
    later: usize,
}

/// The numbers of the buckets of a draw.
fn run(first: usize, buckets: usize) -> impl Iterator<Item = usize> + Clone {
    (first..first + BUCKETS.min(buckets)).map(move |n| n % buckets)
}

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

    /// How many keys [`Self::draw`] may find.
    #[must_use]
    pub fn candidates(&self, choice: Choice) -> usize {
        if choice.is_volatile { self.expires } else { self.len() }
    }

    /// Draws some keys that may go and hands each to `f` with its score; `random(n)` gives a number below
    /// `n`. There are some if [`Self::candidates`] says so, but not with each draw.
    pub fn draw(
        &self,
        choice: Choice,
        now_ms: u64,
        ahead: &mut Ahead,
        mut random: impl FnMut(u64) -> u64,
        mut f: impl FnMut(Score, &dyn Fn() -> Whereabouts),
    ) {
        let buckets = self.buckets();
        if self.candidates(choice) == 0 || buckets == 0 {
            return;
        }
        let mut drawn = Drawn::new();
        self.table.prefetch_buckets(run(ahead.later, buckets));
        self.table.take_buckets(run(ahead.next, buckets), &mut drawn);
        drawn.clear();
        let first = ahead.now;
        *ahead = Ahead { now: ahead.next, next: ahead.later, later: random(1 << 32) as usize };
        // Where few keys may go, the next ones that do are found, one bucket after the other.
        for start in (0..buckets).step_by(BUCKETS) {
            self.table.take_buckets(run(first + start, buckets), &mut drawn);
            drawn.retain(|entry| choice.allows(*entry));
            if !drawn.is_empty() {
                break;
            }
        }
        for entry in drawn {
            let at = || self.tally.whereabouts(self.table.hasher().hash(entry.key()));
            f(self.tally.score(self.mode, choice.order, entry, now_ms), &at);
        }
    }

    /// Asks for the memory that giving up a key will want, if it is one of this database.
    pub fn expect(&self, at: Whereabouts) {
        self.tally.expect(at);
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
        let places = self.table.find_tagged(at.hash());
        let (place, score) = places.into_iter().find_map(|place| {
            let score = self.tally.score(self.mode, choice.order, place.entry(), now_ms);
            let is_as_drawn = choice.allows(place.entry()) && score <= drawn.saturating_add(slack);
            is_as_drawn.then_some((place, score))
        })?;
        if self.mode == Mode::Learned {
            self.tally.remember(at.hash(), place.entry(), self.table.len(), self.entry_bytes);
        }
        Some((self.remove_place(at.hash(), place), score == EXPIRED))
    }
}
