//! What is remembered of keys that were evicted, so that one that comes back is no stranger.
//!
//! Sets of eight: a fingerprint of 16 bits and the 32 bits of [`State`] each, so 6 bytes per key. The
//! one that was used longest ago makes room. Two keys of a set share a fingerprint once in some 8,000
//! looks; the history of another key is then believed, which does little harm.

use super::state::{State, Tick};
use crate::table::prefetch_value;

/// A power of two.
const WAYS: usize = 1 << WAY_BITS;
const WAY_BITS: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Set {
    /// 0 where there is none.
    fingerprints: [u16; WAYS],
    states: [u32; WAYS],
}

impl Set {
    /// The way that a fingerprint is put into: its own, else one that is free, else the one that was used
    /// longest ago. All eight are looked at, whatever they hold: that is quicker than to choose.
    fn way_for(&self, fingerprint: u16, now: Tick) -> usize {
        let ways_with = |wanted: u16| -> u32 {
            (0..WAYS).map(|way| u32::from(self.fingerprints[way] == wanted) << way).sum()
        };
        let (same, free) = (ways_with(fingerprint), ways_with(0));
        if same | free != 0 {
            return if same != 0 { same } else { free }.trailing_zeros() as usize;
        }
        let age_and_way =
            |way| State::from_bits(self.states[way]).age(now) << WAY_BITS | way as u32;
        (0..WAYS).map(age_and_way).max().unwrap_or_default() as usize % WAYS
    }
}

/// See the module's text. Takes memory with the first key that is evicted.
#[derive(Debug, Default)]
pub struct Ghosts {
    sets: Vec<Set>,
}

impl Ghosts {
    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Set>()
    }

    /// Takes memory for `keys` keys, unless it has about as much. What it knew is forgotten then.
    pub fn fit(&mut self, keys: usize) {
        let wanted = keys.div_ceil(WAYS).max(1);
        let is_alike = self.sets.len() >= wanted / 2 && self.sets.len() <= wanted * 2;
        if !is_alike {
            self.sets = vec![Set::default(); wanted];
        }
    }

    /// Forgets all and gives the memory back.
    pub fn clear(&mut self) {
        self.sets = Vec::new();
    }

    fn place_of(&self, hash: u64) -> (usize, u16) {
        // Only the bits by which the table finds a key; which have other uses, so mix.
        let hash = hash & !(0xffff << 32);
        let mixed = (hash ^ hash >> 29).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let set = ((mixed >> 32) * self.sets.len() as u64) >> 32;
        (set as usize, (mixed as u16).max(1))
    }

    /// Remembers a key.
    pub fn put(&mut self, hash: u64, state: State, now: Tick) {
        let (set, fingerprint) = self.place_of(hash);
        let Some(set) = self.sets.get_mut(set) else { return };
        let way = set.way_for(fingerprint, now);
        set.fingerprints[way] = fingerprint;
        set.states[way] = state.bits();
    }

    /// Asks for the memory that [`Self::put`] will want.
    pub fn expect(&self, hash: u64) {
        if let Some(Set { fingerprints, states }) = self.sets.get(self.place_of(hash).0) {
            // Half of the sets lie on two lines.
            prefetch_value(fingerprints);
            prefetch_value(&states[WAYS - 1]);
        }
    }

    /// Takes what is remembered of a key.
    pub fn take(&mut self, hash: u64) -> Option<State> {
        let (set, fingerprint) = self.place_of(hash);
        let set = self.sets.get_mut(set)?;
        let way = set.fingerprints.iter().position(|&other| other == fingerprint)?;
        set.fingerprints[way] = 0;
        Some(State::from_bits(set.states[way]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_latest_of_each_set() {
        let mut ghosts = Ghosts::default();
        assert_eq!(ghosts.take(1), None);
        ghosts.put(1, State::new(0), 0);
        assert_eq!((ghosts.take(1), ghosts.bytes()), (None, 0), "it has no memory yet");
        ghosts.fit(800);
        assert_eq!(ghosts.bytes(), 100 * size_of::<Set>());
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..2000).for_each(|n| ghosts.put(hash(n), State::new(n), n));
        let known = (1600..2000).filter(|&n| ghosts.take(hash(n)) == Some(State::new(n))).count();
        assert!(known > 360, "{known} of the last 400");
        let known = (0..400).filter(|&n| ghosts.take(hash(n)) == Some(State::new(n))).count();
        assert!(known < 40, "{known} of the first 400");
        assert_eq!(ghosts.take(hash(1900)), None, "it was taken");
    }
}
