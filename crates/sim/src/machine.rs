//! What a partition holds in the simulator: registers, changed by records of effects.
//!
//! An entry counts its changes, so a record that is applied twice or not at all shows in the digest even
//! where the value is the same. A record may change several keys, so that a full copy has to take a
//! part of it.

use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use hypercache_stdx::crc32c::crc32c;
use std::collections::BTreeMap;

/// A key's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: u64,
    /// Changes so far.
    pub changes: u64,
}

/// A change: the key's place in hash order, and its new value.
pub type Change = (u64, u64);

/// Where a key is in hash order.
#[must_use]
pub fn place_of(key: u64) -> u64 {
    // Never 0, which is where a walk begins.
    (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// The record of some changes.
#[must_use]
pub fn record_of(changes: &[Change]) -> Vec<u8> {
    changes.iter().flat_map(|(at, value)| [*at, *value].map(u64::to_le_bytes)).flatten().collect()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

fn changes_of(record: &[u8]) -> Vec<Change> {
    let words: Vec<u64> = words(record).collect();
    words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Registers {
    entries: BTreeMap<u64, Entry>,
    loading: Option<BTreeMap<u64, Entry>>,
    /// Pieces of copies that were refused: with messages in order there are none.
    pub refused: u64,
}

fn apply_to(entries: &mut BTreeMap<u64, Entry>, record: &[u8]) {
    for (at, value) in changes_of(record) {
        let entry = entries.entry(at).or_insert(Entry { value, changes: 0 });
        entry.value = value;
        entry.changes += 1;
    }
}

impl Registers {
    /// The value at a place.
    #[must_use]
    pub fn get(&self, at: u64) -> Option<u64> {
        self.entries.get(&at).map(|entry| entry.value)
    }

    /// Equal for equal contents.
    #[must_use]
    pub fn digest(&self) -> u32 {
        self.entries.iter().fold(0, |crc, (at, entry)| {
            let words = [*at, entry.value, entry.changes].map(u64::to_le_bytes);
            crc32c(crc, words.as_flattened())
        })
    }
}

impl Data for Registers {
    fn apply(&mut self, record: &[u8]) {
        apply_to(&mut self.entries, record);
    }

    fn touched(&self, record: &[u8], each: &mut dyn FnMut(u64)) {
        changes_of(record).iter().for_each(|(at, _)| each(*at));
    }

    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk {
        let count = (bytes_max / 24).max(1);
        let mut bytes = Vec::new();
        let mut ahead = self.entries.range(from.0..);
        for (at, entry) in ahead.by_ref().take(count) {
            let words = [*at, entry.value, entry.changes].map(u64::to_le_bytes);
            bytes.extend_from_slice(words.as_flattened());
        }
        Chunk { bytes, next: ahead.next().map(|(at, _)| Cursor(*at)) }
    }

    fn part_before(&self, record: &[u8], cursor: Cursor) -> Part {
        let all = changes_of(record);
        let before: Vec<Change> = all.iter().filter(|(at, _)| *at < cursor.0).copied().collect();
        match before.len() {
            0 => Part::Nothing,
            n if n == all.len() => Part::All,
            _ => Part::Some(record_of(&before)),
        }
    }

    fn load_begin(&mut self, keep: bool) {
        if !keep {
            self.entries.clear();
        }
        self.loading = Some(BTreeMap::new());
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart> {
        let words: Vec<u64> = words(bytes).collect();
        let loading = self.loading.as_mut().ok_or(BadPart)?;
        for entry in words.chunks_exact(3) {
            // A key arrives once: by its piece of the copy, with all that happened to it before.
            let twice = loading.insert(entry[0], Entry { value: entry[1], changes: entry[2] });
            if twice.is_some() {
                self.refused += 1;
                return Err(BadPart);
            }
        }
        Ok(())
    }

    fn load_record(&mut self, record: &[u8]) {
        if let Some(loading) = &mut self.loading {
            apply_to(loading, record);
        }
    }

    fn load_end(&mut self) {
        self.entries = self.loading.take().unwrap_or_default();
    }

    fn load_abort(&mut self) {
        self.loading = None;
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.loading = None;
    }
}
