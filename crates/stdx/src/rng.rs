//! A small seeded random number generator (SplitMix64, Steele et al. 2014). Not for secrets:
//! [`entropy`] is where a secret comes from.

use std::hash::{BuildHasher, RandomState};

/// A generator; the same seed gives the same numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// A generator seeded from the operating system.
    #[must_use]
    pub fn from_entropy() -> Self {
        Rng(entropy())
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n` (0 when `n` is 0), without the bias of a remainder.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// 64 bits that an outsider cannot guess, from the operating system's generator.
#[must_use]
pub fn entropy() -> u64 {
    // The standard library seeds `RandomState` from the operating system and hashes with SipHash,
    // so distinct inputs give independent, unguessable outputs.
    let state = RandomState::new();
    let here = &raw const state as usize;
    state.hash_one((here, crate::clock::mono_ns()))
}
