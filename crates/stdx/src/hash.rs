//! The keyed hash of keys. Hot path.
//!
//! Clients choose the keys and can watch iteration order through SCAN, so the hash must be safe
//! against an attacker who adapts: SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input
//! PRF", 2012, with the rounds that Rust's own maps use) under a secret of the process. Written out
//! for whole slices: about 100 instructions for a 16-byte key, two thirds of what a streaming
//! implementation takes.

/// A 64-bit keyed hash function. Copies share the key.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    secret: (u64, u64),
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher(secret)")
    }
}

/// A hash on its way, of a key that is handed in word by word, by whoever has other use for the
/// words. See [`KeyHasher::begin`]. Before the first word it is the same for all keys.
#[derive(Clone, Copy)]
pub struct Hashing {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashing(secret)")
    }
}

impl Hashing {
    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    /// Takes the next eight bytes.
    #[inline(always)]
    pub fn add(&mut self, word: &[u8; 8]) {
        self.absorb(u64::from_le_bytes(*word));
    }

    /// Takes the fewer bytes that are left of `key` and returns its hash.
    #[inline(always)]
    #[must_use]
    pub fn finish(mut self, rest: &[u8], key: &[u8]) -> u64 {
        let rest = match key.last_chunk::<8>() {
            // The key's last bytes without those of the word before: two shifts, since one by 64
            // would be none.
            Some(last) => u64::from_le_bytes(*last) >> 8 >> (56 - 8 * rest.len()),
            None => load_short(rest),
        };
        self.absorb((key.len() as u64) << 56 | rest);
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

impl KeyHasher {
    /// A hasher under the given 128-bit secret.
    #[must_use]
    pub fn new(secret: (u64, u64)) -> Self {
        KeyHasher { secret }
    }

    /// Begins the hash of a key.
    #[inline(always)]
    #[must_use]
    pub fn begin(&self) -> Hashing {
        let (k0, k1) = self.secret;
        Hashing {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    /// The hash of one key.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let (words, rest) = key.as_chunks::<8>();
        let mut hashing = self.begin();
        words.iter().for_each(|word| hashing.add(word));
        hashing.finish(rest, key)
    }
}

/// Up to eight bytes as a little-endian number, by at most two overlapping loads.
#[inline]
#[must_use]
pub fn load_short(bytes: &[u8]) -> u64 {
    if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let shift = 8 * (bytes.len() as u32 - 4);
        let high = u64::from(u32::from_le_bytes(*high)).unbounded_shl(shift);
        return u64::from(u32::from_le_bytes(*low)) | high;
    }
    if let (Some(low), Some(high)) = (bytes.first_chunk::<2>(), bytes.last_chunk::<2>()) {
        let shift = 8 * (bytes.len() as u32 - 2);
        return u64::from(u16::from_le_bytes(*low)) | u64::from(u16::from_le_bytes(*high)) << shift;
    }
    bytes.first().map_or(0, |&byte| u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher13;

    #[test]
    fn equals_the_reference_at_every_length() {
        let bytes: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(61) ^ 0x33).collect();
        let secret = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let (ours, reference) =
            (KeyHasher::new(secret), SipHasher13::new_with_keys(secret.0, secret.1));
        for len in 0..bytes.len() {
            let key = &bytes[..len];
            assert_eq!(ours.hash(key), reference.hash(key), "length {len}");
        }
    }

    #[test]
    fn short_loads_are_little_endian() {
        for len in 0..=8usize {
            let bytes: Vec<u8> = (1..=len as u8).collect();
            let mut word = [0; 8];
            word[..len].copy_from_slice(&bytes);
            assert_eq!(load_short(&bytes), u64::from_le_bytes(word), "length {len}");
        }
    }
}
