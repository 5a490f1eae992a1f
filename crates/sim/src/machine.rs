//! What a partition holds in the simulator: registers, changed by records of effects.
//!
//! An entry counts its changes, so a record that is applied twice or not at all shows in the digest even
//! where the value is the same. A record may change several keys, so that a full copy has to take a
//! part of it.

use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use hypercache_stdx::crc32c::crc32c;
use std::collections::BTreeMap;

/// What a partition holds, as a node uses it: registers for the clients' calls, and what else there is.
pub trait Machine: Data + std::fmt::Debug {
    /// The value of a register.
    fn get(&self, key: u64) -> Option<u64>;
    /// Where a register is in hash order, which is also what stands for it in the table of dirty keys.
    fn place(&self, key: u64) -> u64;
    /// Gives registers values, and returns the record.
    fn write(&mut self, changes: &[(u64, u64)]) -> Vec<u8>;
    /// Changes something else; `n` says what. `None` when that changes nothing.
    fn other_write(&mut self, n: u64) -> Option<Vec<u8>>;
    /// Removes what is past its time.
    fn expire(&mut self) -> Option<Vec<u8>>;
    /// Wall clock, for what expires.
    fn set_time(&mut self, now_ms: u64);
    /// Equal for equal contents.
    fn digest(&self) -> u32;
    /// Pieces of copies that were refused: with messages in order there are none.
    fn refused(&self) -> u64;
}

/// What of a record is before a cursor.
#[must_use]
pub fn record_kind(before: Vec<u8>, record: &[u8]) -> Part {
    match before.len() {
        0 => Part::Nothing,
        n if n == record.len() => Part::All,
        _ => Part::Some(before),
    }
}

/// A key's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    value: u64,
    changes: u64,
}

/// A change: the key's place in hash order, and its new value.
type Change = (u64, u64);

/// Where a key is in hash order.
fn place_of(key: u64) -> u64 {
    // Never 0, which is where a walk begins.
    (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// The record of some changes.
fn record_of(changes: &[Change]) -> Vec<u8> {
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
    refused: u64,
}

fn apply_to(entries: &mut BTreeMap<u64, Entry>, record: &[u8]) {
    for (at, value) in changes_of(record) {
        let entry = entries.entry(at).or_insert(Entry { value, changes: 0 });
        entry.value = value;
        entry.changes += 1;
    }
}

impl Machine for Registers {
    fn get(&self, key: u64) -> Option<u64> {
        self.entries.get(&place_of(key)).map(|entry| entry.value)
    }

    fn place(&self, key: u64) -> u64 {
        place_of(key)
    }

    fn write(&mut self, changes: &[(u64, u64)]) -> Vec<u8> {
        let placed: Vec<Change> = changes.iter().map(|(k, v)| (place_of(*k), *v)).collect();
        let record = record_of(&placed);
        self.apply(&record);
        record
    }

    fn other_write(&mut self, _: u64) -> Option<Vec<u8>> {
        None
    }

    fn expire(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn set_time(&mut self, _: u64) {}

    fn digest(&self) -> u32 {
        self.entries.iter().fold(0, |crc, (at, entry)| {
            let words = [*at, entry.value, entry.changes].map(u64::to_le_bytes);
            crc32c(crc, words.as_flattened())
        })
    }

    fn refused(&self) -> u64 {
        self.refused
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
        record_kind(record_of(&before), record)
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
