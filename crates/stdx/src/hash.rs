//! The keyed hash of keys.
//!
//! Clients choose the keys and can watch iteration order through SCAN, so the hash must be safe
//! against an attacker who adapts: SipHash-1-3 under a secret of the process. It costs some 6 ns
//! for a 16-byte key, about 5 ns more than the fast hashes that exclude this attacker.

use siphasher::sip::SipHasher13;

/// A 64-bit keyed hash function. Copies share the key.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    sip: SipHasher13,
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher(secret)")
    }
}

impl KeyHasher {
    /// A hasher under the given 128-bit secret.
    #[must_use]
    pub fn new(secret: (u64, u64)) -> Self {
        KeyHasher { sip: SipHasher13::new_with_keys(secret.0, secret.1) }
    }

    /// The hash of one key.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.sip.hash(key)
    }
}
