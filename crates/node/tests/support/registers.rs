//! What a partition of the test's server holds: numbers by number, changed by records of one pair.

use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use std::collections::BTreeMap;

type Registry = BTreeMap<u64, u64>;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    entries: Registry,
    loading: Registry,
}

fn pair(record: &[u8]) -> (u64, u64) {
    let (words, _) = record.as_chunks::<8>();
    (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
}

fn record(key: u64, value: u64) -> Vec<u8> {
    [key, value].map(u64::to_le_bytes).concat()
}

impl Registers {
    pub(crate) fn get(&self, key: u64) -> Option<u64> {
        self.entries.get(&key).copied()
    }

    /// Gives a register a value, and returns the record.
    pub(crate) fn write(&mut self, key: u64, value: u64) -> Vec<u8> {
        self.entries.insert(key, value);
        record(key, value)
    }
}

impl Data for Registers {
    fn apply(&mut self, record: &[u8]) {
        let (key, value) = pair(record);
        self.entries.insert(key, value);
    }

    fn touched(&self, record: &[u8], each: &mut dyn FnMut(u64)) {
        each(pair(record).0);
    }

    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk {
        let mut ahead = self.entries.range(from.0..);
        let taken = ahead.by_ref().take((bytes_max / 16).max(1));
        let bytes = taken.flat_map(|(key, value)| record(*key, *value)).collect();
        Chunk { bytes, next: ahead.next().map(|(key, _)| Cursor(*key)) }
    }

    fn part_before(&self, record: &[u8], cursor: Cursor) -> Part {
        if pair(record).0 < cursor.0 { Part::All } else { Part::Nothing }
    }

    fn load_begin(&mut self, keep: bool) {
        self.loading.clear();
        if !keep {
            self.entries.clear();
        }
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart> {
        bytes.chunks_exact(16).for_each(|record| self.load_record(record));
        Ok(())
    }

    fn load_record(&mut self, record: &[u8]) {
        let (key, value) = pair(record);
        self.loading.insert(key, value);
    }

    fn load_end(&mut self) {
        self.entries = std::mem::take(&mut self.loading);
    }

    fn load_abort(&mut self) {
        self.loading.clear();
    }

    fn clear(&mut self) {
        self.entries.clear();
    }
}
