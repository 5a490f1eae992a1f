//! Finding a compiled script by its digest, and the digest by the text, without hashing either.
//!
//! EVAL sends the text each time, and its SHA1 would take a third of the time of a short script. So the
//! texts that ran last are remembered, in places that a few of their bytes choose; a text that is
//! there byte by byte has the digest that is kept with it.

use hypercache_commands::scripts::Script;
use hypercache_stdx::sha1::Digest;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Texts that are remembered.
const PLACES: usize = 64;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Texts(Vec<Option<Arc<Script>>>);

/// Where a text is remembered.
fn place_of(text: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let middle = text.get(text.len() / 2..).and_then(<[u8]>::first_chunk);
    let words = word(text.first_chunk()) ^ word(text.last_chunk()).rotate_left(21);
    let mixed = (words ^ word(middle).rotate_left(42) ^ text.len() as u64).wrapping_mul(ODD);
    (mixed >> 58) as usize % PLACES
}

impl Texts {
    /// The digest of a text that is remembered.
    pub(crate) fn digest_of(&self, text: &[u8]) -> Option<Digest> {
        let script = self.0.get(place_of(text))?.as_ref()?;
        (script.body == text).then_some(script.digest)
    }

    /// Remembers a script, in the place of another if need be.
    pub(crate) fn remember(&mut self, script: &Arc<Script>) {
        self.0.resize(PLACES, None);
        self.0[place_of(&script.body)] = Some(Arc::clone(script));
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Takes the first bytes of a digest, which is a hash already, for its hash.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

/// Makes maps of digests.
pub(crate) type ByDigest = BuildHasherDefault<DigestHasher>;

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// The length, which is the same for all.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::sha1;

    #[test]
    fn a_text_is_known_byte_by_byte() {
        let mut texts = Texts::default();
        assert_eq!(texts.digest_of(b"return 1"), None);
        let scripts: Vec<_> = (0..500).map(|n| format!("return {n}")).collect();
        for text in &scripts {
            let digest = sha1::digest(text.as_bytes());
            let script = Script::new(digest, text.as_bytes()).expect("no shebang");
            texts.remember(&Arc::new(script));
            assert_eq!(texts.digest_of(text.as_bytes()), Some(digest));
        }
        let right = |text: &&String| {
            let known = texts.digest_of(text.as_bytes());
            assert!(known.is_none_or(|digest| digest == sha1::digest(text.as_bytes())), "{text}");
            known.is_some()
        };
        assert!((10..=PLACES).contains(&scripts.iter().filter(right).count()));
        texts.clear();
        assert_eq!(texts.digest_of(b"return 499"), None);
    }
}
