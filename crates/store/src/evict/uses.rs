//! What the 32 bits of an entry say of its use. That depends on the policy in force ([`Mode`]): the
//! second of the last use, Redis' counter of uses, or the [`State`] that the server's own policy keeps.
//!
//! [`Uses`] is shared by all databases, [`Tally`] is what each of them has. A hit costs the table one
//! comparison more than before when the policy wants no more than the time.

use super::marks::Marks;
use super::{EXPIRED, Ghosts, Policy, Score, State, Tick, mixed};
use crate::mem::entry::EntryPtr;
use crate::mrc::Curve;
use hypercache_stdx::rng::Rng;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What the bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Mode {
    /// The second of the last use.
    #[default]
    Time,
    /// Minutes of the last use above a counter of 8 bits that rises ever more rarely, as in Redis.
    Frequency,
    /// [`State`].
    Learned,
}

impl Mode {
    fn from_number(number: u8) -> Mode {
        match number {
            1 => Mode::Frequency,
            2 => Mode::Learned,
            _ => Mode::Time,
        }
    }
}

/// What orders the keys that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By what [`Mode`] says of their use.
    Use,
    /// The one whose time is up first.
    Deadline,
    /// None: as it comes.
    Random,
}

/// The counter of a new key, so that it is not the first to go.
const COUNTER_FIRST: u32 = 5;
/// Uses that a database counts before it tells all others.
const TOLD_AT: u32 = 32;
/// Newcomers that are waiting to be looked at.
const NEWCOMERS: usize = 16;
/// From this mean size of entries on, twice as many keys are remembered as there are.
const LARGE_BYTES: usize = 150;

/// Where a key is, in one word: 32 low and 16 high bits of its hash, as the table needs them to find it,
/// and the numbers of its partition and database between these. Never 0 for a key of a tally that was
/// placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts(u64);

/// Logical databases; the lowest bits of a place are the number of one.
const DATABASES: usize = 16;
const PLACE_SHIFT: u32 = 32;
const PLACE_MASK: u64 = 0xffff;

impl Whereabouts {
    fn new(hash: u64, place: u16) -> Self {
        Whereabouts(hash & !(PLACE_MASK << PLACE_SHIFT) | u64::from(place) << PLACE_SHIFT)
    }

    /// As much of the key's hash as finds it.
    #[must_use]
    pub fn hash(self) -> u64 {
        self.0
    }

    /// The number that its database was given by [`Tally::new`].
    #[must_use]
    pub fn place(self) -> u16 {
        (self.0 >> PLACE_SHIFT) as u16
    }
}

/// The miss-ratio curve of a logical database.
#[derive(Debug)]
struct Watch {
    /// Made with the first use.
    curve: Mutex<Option<Box<Curve>>>,
    /// Hashes, mixed, up to this one are seen.
    up_to: AtomicU64,
    /// All uses, as far as they were told.
    uses: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        let (curve, uses) = (Mutex::default(), AtomicU64::new(0));
        Watch { curve, up_to: AtomicU64::new(u64::MAX), uses }
    }
}

impl Watch {
    fn curve(&self) -> std::sync::MutexGuard<'_, Option<Box<Curve>>> {
        self.curve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn see(&self, mixed: u64, bytes_of_all: &AtomicUsize) {
        let mut curve = self.curve();
        let curve = curve.get_or_insert_with(|| {
            let curve = Box::<Curve>::default();
            bytes_of_all.fetch_add(curve.bytes(), Relaxed);
            curve
        });
        curve.see(mixed);
        self.up_to.store(curve.threshold(), Relaxed);
    }
}

/// What all databases share.
#[derive(Debug)]
pub struct Uses {
    mode: AtomicU8,
    /// How slowly the counter of uses rises, and in how many minutes it falls by one.
    pub log_factor: AtomicU32,
    /// See `log_factor`.
    pub decay_minutes: AtomicU32,
    /// Made when it is first wanted.
    learned: OnceLock<Box<Policy>>,
    learned_bytes: AtomicUsize,
    /// Keys of all databases, as far as they told.
    keys: AtomicUsize,
    marks: Mutex<Marks>,
    /// By number of the database.
    curves: [Watch; DATABASES],
    /// Keys that came since somebody looked, by their hash, with their scores.
    newcomers: [(AtomicU64, AtomicI64); NEWCOMERS],
}

impl Default for Uses {
    fn default() -> Self {
        Uses {
            mode: AtomicU8::new(0),
            log_factor: AtomicU32::new(10),
            decay_minutes: AtomicU32::new(1),
            learned: OnceLock::new(),
            learned_bytes: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            marks: Mutex::default(),
            curves: Default::default(),
            newcomers: Default::default(),
        }
    }
}

impl Uses {
    /// What the bits of new databases mean.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::from_number(self.mode.load(Relaxed))
    }

    /// Changes what the bits of new databases mean; [`Tally::set_mode`] is for those that are there.
    pub fn set_mode(&self, mode: Mode) {
        if mode == Mode::Learned {
            self.policy();
        }
        self.mode.store(mode as u8, Relaxed);
    }

    /// Bytes that are needed to learn, once they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.learned_bytes.load(Relaxed)
    }

    fn policy(&self) -> &Policy {
        self.learned.get_or_init(|| {
            let policy = Box::new(Policy::new());
            self.learned_bytes.fetch_add(policy.bytes(), Relaxed);
            policy
        })
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The second of the last use that the bits of an entry tell in a mode.
    #[must_use]
    pub fn last_use_s(&self, mode: Mode, bits: u32, now_s: u32) -> u32 {
        match mode {
            Mode::Time => bits,
            Mode::Frequency => now_s.saturating_sub(minutes_since(bits, now_s) * 60),
            Mode::Learned => {
                let position = self.policy().position();
                let age = u64::from(State::from_bits(bits).age(position as u32));
                let second = self.marks().second_of(position.saturating_sub(age));
                second.map_or(now_s, |second| second.min(now_s))
            }
        }
    }

    /// Seconds since the last use that the bits of an entry tell.
    #[must_use]
    pub fn idle_s(&self, bits: u32, now_s: u32) -> u32 {
        now_s.saturating_sub(self.last_use_s(self.mode(), bits, now_s))
    }

    /// Redis' counter of uses that the bits of an entry tell.
    #[must_use]
    pub fn frequency(&self, bits: u32, now_s: u32) -> u32 {
        let minutes = self.decay_minutes.load(Relaxed);
        let decay = minutes_since(bits, now_s).checked_div(minutes).unwrap_or(0);
        (bits & 255).saturating_sub(decay)
    }

    /// Bits after one more use of a key with Redis' counter; `salt` is another one each time.
    fn counted(&self, bits: u32, hash: u64, salt: u32, now_s: u32) -> u32 {
        let counter = self.frequency(bits, now_s);
        let above = u64::from(counter.saturating_sub(COUNTER_FIRST));
        let one_in = above * u64::from(self.log_factor.load(Relaxed)) + 1;
        let die = Rng::new(hash ^ u64::from(bits) << 32 ^ u64::from(salt)).below(one_in);
        let rises = counter < 255 && die == 0;
        minutes_of(now_s) << 8 | (counter + u32::from(rises))
    }

    /// The share of uses of a logical database that a cache of each of these numbers of keys had answered;
    /// and how many uses there were. `None` while nothing was seen.
    #[must_use]
    pub fn hit_ratios(&self, db: u8, keys: &[f64]) -> Option<(u64, Vec<f64>)> {
        let watch = &self.curves[db as usize % DATABASES];
        let uses = watch.uses.load(Relaxed);
        let mut curve = watch.curve();
        let curve = curve.as_mut().filter(|_| uses > 0)?;
        Some((uses, keys.iter().map(|&keys| curve.hit_ratio(keys, uses)).collect()))
    }

    /// Keys that came since this was asked last, with their scores.
    pub fn take_newcomers(&self, mut f: impl FnMut(Whereabouts, Score)) {
        if self.mode() != Mode::Learned {
            return;
        }
        for (key, score) in &self.newcomers {
            if key.load(Relaxed) != 0 {
                f(Whereabouts(key.swap(0, Relaxed)), score.load(Relaxed));
            }
        }
    }
}

/// Whole minutes, as many as there is room for.
fn minutes_of(seconds: u32) -> u32 {
    (seconds / 60) & 0xff_ffff
}

fn minutes_since(bits: u32, now_s: u32) -> u32 {
    minutes_of(now_s).wrapping_sub(bits >> 8) & 0xff_ffff
}

/// What one database has of it.
#[derive(Debug)]
pub(crate) struct Tally {
    shared: Arc<Uses>,
    ghosts: Ghosts,
    /// A number that says where the database is.
    place: u16,
    /// Uses that were not told to all yet, and the second of the last one.
    pending: u32,
    second: u32,
    /// Keys that the others know of.
    told_keys: usize,
}

impl Tally {
    /// Of a database at `place`.
    pub(crate) fn new(shared: Arc<Uses>, place: u16) -> Self {
        Tally { shared, ghosts: Ghosts::default(), place, pending: 0, second: 0, told_keys: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.ghosts.bytes()
    }

    /// Lets time pass by one use of a key.
    fn tick(&mut self, hash: u64, keys: usize, now_s: u32) {
        self.pending += 1;
        if self.is_due(now_s) {
            self.tell(keys, now_s);
        }
        let watch = &self.shared.curves[self.place as usize % DATABASES];
        if mixed(hash) <= watch.up_to.load(Relaxed) {
            watch.see(mixed(hash), &self.shared.learned_bytes);
        }
    }

    /// Whether uses are to be told.
    #[inline]
    fn is_due(&self, now_s: u32) -> bool {
        self.pending >= TOLD_AT || self.second != now_s
    }

    #[cold]
    fn tell(&mut self, keys: usize, now_s: u32) {
        let Tally { shared, .. } = self;
        let more = keys.wrapping_sub(self.told_keys);
        let all = shared.keys.fetch_add(more, Relaxed).wrapping_add(more);
        let policy = shared.policy();
        policy.set_slots(all);
        policy.advance(u64::from(self.pending));
        let watch = &shared.curves[self.place as usize % DATABASES];
        watch.uses.fetch_add(u64::from(self.pending), Relaxed);
        if self.second != now_s {
            let mut marks = shared.marks();
            // So that what was used in another second has another tick.
            policy.begin_tick();
            marks.add(policy.position(), now_s);
        }
        (self.told_keys, self.pending, self.second) = (keys, 0, now_s);
    }

    /// Notes a use of an entry that is there, of a database of `keys`, for all modes but the time's.
    ///
    /// Most uses under the policy that learns change the state and nothing else. What is done for the others
    /// is a call in last place: so the function has nothing to save before.
    #[inline(never)]
    pub(crate) fn note(&mut self, mode: Mode, hash: u64, entry: EntryPtr, keys: usize, now_s: u32) {
        let bits = entry.access();
        match (mode, self.shared.learned.get()) {
            (Mode::Time, _) => entry.set_access(now_s),
            (Mode::Frequency, _) => {
                self.pending = self.pending.wrapping_add(1);
                entry.set_access(self.shared.counted(bits, hash, self.pending, now_s));
            }
            (Mode::Learned, Some(policy)) if !self.is_special(policy, hash, now_s) => {
                self.pending += 1;
                entry.set_access(State::from_bits(bits).used(policy.now()).bits());
            }
            (Mode::Learned, _) => self.note_special(hash, entry, keys, now_s),
        }
    }

    /// Whether more is to be done at the next use of a key than to change its state.
    #[inline]
    fn is_special(&self, policy: &Policy, hash: u64, now_s: u32) -> bool {
        let watch = &self.shared.curves[self.place as usize % DATABASES];
        let mixed = mixed(hash);
        self.is_due(now_s) || mixed <= watch.up_to.load(Relaxed) || policy.watches(mixed)
    }

    #[cold]
    fn note_special(&mut self, hash: u64, entry: EntryPtr, keys: usize, now_s: u32) {
        self.tick(hash, keys, now_s);
        let policy = self.shared.policy();
        let now = policy.now();
        let state = State::from_bits(entry.access()).used(now);
        entry.set_access(state.bits());
        policy.note(hash, state, || size_of_entry(entry), now);
    }

    /// Notes the first use of an entry.
    #[inline(never)]
    pub(crate) fn begin(
        &mut self,
        mode: Mode,
        hash: u64,
        entry: EntryPtr,
        keys: usize,
        now_s: u32,
    ) {
        match mode {
            Mode::Time => entry.set_access(now_s),
            Mode::Frequency => entry.set_access(minutes_of(now_s) << 8 | COUNTER_FIRST),
            Mode::Learned => self.begin_learned(hash, entry, keys, now_s),
        }
    }

    fn begin_learned(&mut self, hash: u64, entry: EntryPtr, keys: usize, now_s: u32) {
        self.tick(hash, keys, now_s);
        let policy = self.shared.policy();
        let now = policy.now();
        let before = self.ghosts.take(hash);
        let state = before.map_or_else(|| State::new(now), |state| state.used(now));
        entry.set_access(state.bits());
        let bytes = size_of_entry(entry);
        policy.note(hash, state, || bytes, now);
        let (key, score) = &self.shared.newcomers[hash as usize >> 4 & (NEWCOMERS - 1)];
        score.store(policy.score(state, bytes, now), Relaxed);
        key.store(Whereabouts::new(hash, self.place).0, Relaxed);
    }

    /// Asks for the memory that [`Self::remember`] will want, if the key is of this database.
    pub(crate) fn expect(&self, at: Whereabouts) {
        if at.place() == self.place {
            self.ghosts.expect(at.hash());
        }
    }

    /// Remembers a key that went to make room, of a database that has `keys` of `bytes` in all; `bits` is
    /// what was kept of its use.
    pub(crate) fn remember(&mut self, hash: u64, bits: u32, keys: usize, bytes: usize) {
        let is_large = bytes >= keys * LARGE_BYTES;
        self.ghosts.fit(keys * if is_large { 2 } else { 1 });
        let now = self.shared.policy().now();
        self.ghosts.put(hash, State::from_bits(bits), now);
    }

    /// Where a key of this database is.
    pub(crate) fn whereabouts(&self, hash: u64) -> Whereabouts {
        Whereabouts::new(hash, self.place)
    }

    /// What tells how much keys are worth, by their use or by their deadline, at `now_ms`.
    pub(crate) fn scale(&self, mode: Mode, order: Order, now_ms: u64) -> Scale<'_> {
        let by = match (order, mode) {
            (Order::Deadline, _) => By::Deadline,
            (Order::Random, _) => By::Chance,
            (Order::Use, Mode::Time) => By::Second,
            (Order::Use, Mode::Frequency) => By::Frequency(&self.shared, (now_ms / 1000) as u32),
            (Order::Use, Mode::Learned) => {
                let policy = self.shared.policy();
                By::Learned(policy, policy.now())
            }
        };
        Scale { now_ms, by }
    }

    /// Bits for another mode, that say as much of an entry's use as can be said.
    pub(crate) fn converted(&self, from: Mode, to: Mode, bits: u32, now_s: u32) -> u32 {
        let last_use_s = self.shared.last_use_s(from, bits, now_s);
        match to {
            to if from == to => bits,
            Mode::Time => last_use_s,
            Mode::Frequency => minutes_of(last_use_s) << 8 | COUNTER_FIRST,
            Mode::Learned => {
                // In the order of their last use, a tick for each second.
                let now = self.shared.policy().now();
                State::new(now.wrapping_sub(now_s.saturating_sub(last_use_s))).bits()
            }
        }
    }

    /// Begins anew in a mode: forgets who was evicted, and uses that were not told.
    pub(crate) fn begin_mode(&mut self, mode: Mode, now_s: u32) {
        if mode == Mode::Learned {
            // What is converted has its ticks before this one.
            self.shared.marks().add(self.shared.policy().position(), now_s);
        }
        self.pending = 0;
        self.ghosts.clear();
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.shared.keys.fetch_sub(self.told_keys, Relaxed);
    }
}

/// What tells how much keys are worth at one time.
pub(crate) struct Scale<'a> {
    now_ms: u64,
    by: By<'a>,
}

enum By<'a> {
    Deadline,
    Chance,
    /// The second of the last use.
    Second,
    /// Redis' counter, in this second.
    Frequency(&'a Uses, u32),
    Learned(&'a Policy, Tick),
}

impl Scale<'_> {
    #[inline(always)]
    pub(crate) fn score(&self, entry: EntryPtr) -> Score {
        let deadline = entry.deadline();
        if deadline.is_some_and(|at| self.now_ms > at) {
            return EXPIRED;
        }
        let bits = entry.access();
        match self.by {
            By::Deadline => deadline.map_or(Score::MAX, |at| at as Score),
            By::Chance => 0,
            By::Second => Score::from(bits),
            By::Frequency(shared, now_s) => Score::from(shared.frequency(bits, now_s)),
            By::Learned(policy, now) => {
                policy.score(State::from_bits(bits), size_of_entry(entry), now)
            }
        }
    }
}

/// Bytes that an entry takes, as the policy counts them.
fn size_of_entry(entry: EntryPtr) -> u32 {
    u32::try_from(entry.bytes_used()).unwrap_or(u32::MAX)
}
