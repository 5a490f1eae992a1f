//! Where a key belongs, and the first steps towards it. Hot path.

use super::{Keyspace, PARTITIONS, Shard, TALLY};
use hypercache_protocol::slot::{SLOTS, SlotFinder, slot_of};
use hypercache_store::evict::Mode;
use hypercache_store::{Hint, prefetch_to_write};
use std::mem::offset_of;

/// Number of the partition that owns a key.
#[inline]
#[must_use]
pub fn partition_of(key: &[u8]) -> u16 {
    partition_of_slot(slot_of(key))
}

/// Number of the partition that a slot is part of.
#[inline]
pub(crate) fn partition_of_slot(slot: u16) -> u16 {
    slot / (SLOTS / PARTITIONS as u16)
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    /// Address of the key in the request that it is an argument of, by which it is known again.
    pub(super) start: usize,
    /// Length of the key.
    pub(super) len: u32,
    /// Number of the partition.
    pub partition: u16,
    /// Number of the database that it is looked for in beforehand.
    pub db: u8,
    /// Whether it is a command on collections that has this key.
    pub holds_object: bool,
    /// Keyed hash.
    pub hash: u64,
    /// Where it is, as far as that was found out before its partition is locked.
    pub hint: Hint,
}

impl Keyspace {
    /// Brings what is looked at first for a key towards the cache: its partition, which is about to
    /// be locked and perhaps written to, and, found without any lock, the head of its table.
    #[inline]
    pub fn approach(&self, at: &mut Located, is_write: bool) {
        let shard = &self.partition(at.partition).shard;
        prefetch_to_write(std::ptr::from_ref(shard).cast());
        if is_write {
            let history = shard.data_ptr().wrapping_byte_add(offset_of!(Shard, history));
            prefetch_to_write(history.cast_const().cast());
        }
        if self.uses.mode() == Mode::Learned {
            let tally = shard.data_ptr().wrapping_byte_add(TALLY);
            prefetch_to_write(tally.cast_const().cast());
        }
        at.hint = self.core(at.partition, at.db).hint();
    }

    /// Where a key of a database belongs.
    #[inline(always)]
    #[must_use]
    pub fn locate(&self, key: &[u8], db: u8) -> Located {
        let (partition, hash) = self.place_and_hash(key);
        let (start, len) = (key.as_ptr().addr(), key.len() as u32);
        Located { start, len, partition, db, holds_object: false, hash, hint: Hint::default() }
    }

    /// Partition and keyed hash of a key, in one pass over it. Not copied to where it is called from,
    /// so that its result comes in two registers.
    #[inline(never)]
    pub(super) fn place_and_hash(&self, key: &[u8]) -> (u16, u64) {
        let (words, rest) = key.as_chunks::<8>();
        let (mut slot, mut hash) = (SlotFinder::default(), self.begun);
        for word in words {
            slot.add(word);
            hash.add(word);
        }
        (partition_of_slot(slot.finish(rest, key)), hash.finish(rest, key))
    }
}
