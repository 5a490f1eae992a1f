//! The expiry index: a hierarchical timing wheel of key hashes (Varghese and Lauck, "Hashed and
//! hierarchical timing wheels", SOSP 1987).
//!
//! Six bytes per expiring key (32 bits that find its bucket, 16 that pick the entry), plus at most
//! a quarter of slack; adding is O(1), and a key is looked at again once per level it passes, at
//! most three times in its life. The wheel holds *hints*: the truth is the deadline in the entry.
//! A hint whose key is gone, or now lives longer, is dropped or moved when it comes due. So
//! deleting a key or refreshing its time to live never searches the wheel.
//!
//! Four levels of 64 slots, 128 ms a slot on the lowest: 8 s, 9 min, 9 h, 24 days; what lies
//! further waits on the last level and is moved on when it comes round.

const TICK_MS: u64 = 128;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const LEVELS: usize = 4;

/// The parts of a key's hash that find it again.
pub(crate) type Hint = [u16; 3];

pub(crate) fn pack(hash: u64) -> Hint {
    [hash as u16, (hash >> 16) as u16, (hash >> 48) as u16]
}

pub(crate) fn unpack(hint: Hint) -> u64 {
    u64::from(hint[0]) | u64::from(hint[1]) << 16 | u64::from(hint[2]) << 48
}

#[derive(Default)]
struct Level {
    occupied: u64,
    slots: Option<Box<[Vec<Hint>; SLOTS]>>,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Wheel {
    levels: [Level; LEVELS],
    /// Hints that came due and were not yet taken.
    due: Vec<Hint>,
    tick: u64,
    len: usize,
    bytes: usize,
}

fn tick_after(ms: u64) -> u64 {
    ms / TICK_MS + 1
}

impl Wheel {
    /// An empty wheel whose time is `now_ms`.
    pub(crate) fn new(now_ms: u64) -> Self {
        Wheel { tick: now_ms / TICK_MS, ..Wheel::default() }
    }

    /// An empty wheel at the time of this one.
    pub(crate) fn emptied(&self) -> Self {
        Wheel { tick: self.tick, ..Wheel::default() }
    }

    /// Hints held, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.due.capacity() * size_of::<Hint>()
    }

    /// Notes that the key of `hash` should be looked at just after `deadline_ms`.
    pub(crate) fn add(&mut self, hash: u64, deadline_ms: u64) {
        self.len += 1;
        self.put(pack(hash), tick_after(deadline_ms));
    }

    /// Adds a hint again that came due before its time: not before the next tick, even if the clock
    /// was set back and the wheel is ahead of it.
    pub(crate) fn add_again(&mut self, hash: u64, deadline_ms: u64) {
        self.len += 1;
        self.put(pack(hash), tick_after(deadline_ms).max(self.tick + 1));
    }

    fn put(&mut self, hint: Hint, tick: u64) {
        let distance = tick.saturating_sub(self.tick);
        if distance == 0 {
            self.due.push(hint);
            return;
        }
        let level = ((distance.ilog2() / SLOT_BITS) as usize).min(LEVELS - 1);
        let reach = (1u64 << (SLOT_BITS * LEVELS as u32)) - 1;
        let tick = tick.min(self.tick + reach);
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let ring = &mut self.levels[level];
        if ring.slots.is_none() {
            self.bytes += size_of::<[Vec<Hint>; SLOTS]>();
        }
        ring.occupied |= 1 << slot;
        let slots = ring.slots.get_or_insert_with(|| Box::new([const { Vec::new() }; SLOTS]));
        let list = &mut slots[slot];
        if list.len() == list.capacity() {
            let before = list.capacity();
            list.reserve_exact(before / 4 + 4);
            self.bytes += (list.capacity() - before) * size_of::<Hint>();
        }
        list.push(hint);
    }

    fn take_slot(&mut self, level: usize, slot: usize) -> Vec<Hint> {
        let ring = &mut self.levels[level];
        if ring.occupied & (1 << slot) == 0 {
            return Vec::new();
        }
        ring.occupied &= !(1 << slot);
        let list = ring.slots.as_mut().map(|s| std::mem::take(&mut s[slot])).unwrap_or_default();
        self.bytes -= list.capacity() * size_of::<Hint>();
        list
    }

    /// Moves time to `now_ms` and takes up to `max` hashes that came due. Bits 32 to 47 of each are
    /// zero. A hint from a far level comes early: the caller looks at the entry and, if it still
    /// has time, adds it again.
    pub(crate) fn take_due(&mut self, now_ms: u64, max: usize, out: &mut Vec<u64>) {
        self.advance(now_ms / TICK_MS);
        let from = self.due.len().saturating_sub(max);
        self.len -= self.due.len() - from;
        out.extend(self.due.drain(from..).map(unpack));
        if self.due.is_empty() {
            self.due = Vec::new();
        }
    }

    fn advance(&mut self, target: u64) {
        if self.len == self.due.len() {
            self.tick = self.tick.max(target);
        }
        while self.tick < target {
            self.tick += 1;
            if self.levels[0].occupied == 0 {
                // Nothing can come due before the next turn of the level above.
                let boundary = (self.tick | (SLOTS as u64 - 1)).min(target);
                let at_boundary = self.tick.is_multiple_of(SLOTS as u64);
                self.tick = if at_boundary { self.tick } else { boundary };
            }
            self.turn_upper_levels();
            let mut list = self.take_slot(0, self.tick as usize % SLOTS);
            self.due.append(&mut list);
        }
    }

    /// At the boundary of an upper level's slot its hints are due for another look.
    fn turn_upper_levels(&mut self) {
        for level in 1..LEVELS {
            let shift = SLOT_BITS * level as u32;
            if !self.tick.is_multiple_of(1 << shift) {
                return;
            }
            let mut list = self.take_slot(level, (self.tick >> shift) as usize % SLOTS);
            self.due.append(&mut list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;

    #[test]
    fn no_hint_is_lost_or_late() {
        let mut rng = Rng::new(7);
        let mut now = 1_000_000;
        let mut wheel = Wheel::new(now);
        let mut deadlines = std::collections::BTreeMap::new();
        for i in 0..2000u64 {
            let range = [500, 10_000, 600_000, 40_000_000, 9_000_000_000][i as usize % 5];
            deadlines.insert(i, now + rng.below(range));
            wheel.add(i, deadlines[&i]);
        }
        while !deadlines.is_empty() {
            let step = if deadlines.len() > 1000 { 100 } else { 3_000_000 };
            now += rng.below(step);
            let mut due = Vec::new();
            wheel.take_due(now, usize::MAX, &mut due);
            for hash in due {
                match deadlines.get(&hash) {
                    Some(&at) if at > now => wheel.add(hash, at),
                    _ => drop(deadlines.remove(&hash)),
                }
            }
            let late = deadlines.values().any(|&at| at + 2 * TICK_MS < now);
            assert!(!late, "a hint is later than two ticks at {now}");
        }
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn taking_is_bounded() {
        let mut wheel = Wheel::new(0);
        for i in 0..100 {
            wheel.add(i, 10);
        }
        let mut due = Vec::new();
        wheel.take_due(10_000, 30, &mut due);
        assert_eq!((due.len(), wheel.len()), (30, 70));
        wheel.take_due(10_000, 1000, &mut due);
        assert_eq!((due.len(), wheel.len()), (100, 0));
    }

    #[test]
    fn hashes_keep_the_bits_that_matter() {
        let hash = 0x1234_0000_89ab_cdef;
        assert_eq!(unpack(pack(hash)), hash);
    }
}
