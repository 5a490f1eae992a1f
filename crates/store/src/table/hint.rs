//! Steps from a key's hash to its entry that are taken before the table is locked. Part of one of the
//! three rooms where `unsafe` lives. Hot path.

use super::{ADDRESS, Core, block_of, bucket_at, is_tagged, next_bucket};
use crate::mem::pool::{Bucket, WORDS};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// Where a key's bucket and entry are, found out step by step before the table is locked: each step
/// brings towards the cache what the next one reads, so that a batch of keys that takes each step
/// together waits for memory once per step and not once per key.
///
/// What a hint says may change at any time. Under the table's lock its epoch tells whether it still
/// holds; see [`crate::Key::hint`].
#[derive(Clone, Copy, Default)]
pub struct Hint {
    pub(super) epoch: u64,
    pub(super) stage: Stage,
}

/// What the last step found.
#[derive(Clone, Copy, Default)]
pub(super) enum Stage {
    /// Nothing to go on from.
    #[default]
    Nothing,
    /// The head of the table.
    Core(&'static Core),
    /// Where the address of the bucket's block is, and the bucket's place in the block.
    Block { block: &'static AtomicPtr<Bucket>, offset: u32 },
    /// The first bucket of the key's chain, and where in it the tag is, or [`NO_SLOT`].
    Bucket { bucket: &'static Bucket, slot: u32 },
}

impl std::fmt::Debug for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hint(epoch {})", self.epoch)
    }
}

impl Hint {
    /// Step 1: the table's head.
    #[inline]
    pub(crate) fn new(core: &'static Core) -> Self {
        prefetch_value(core);
        Hint { epoch: 0, stage: Stage::Core(core) }
    }

    /// Step 2: where the address of the bucket's block is.
    #[inline]
    pub fn find_block(&mut self, hash: u64) {
        let Stage::Core(core) = self.stage else { return };
        // Before the shape: then an epoch that is still the same under the lock means that shape
        // and blocks are, too.
        self.epoch = core.epoch.load(Acquire);
        let (block, offset, _) = block_of(core.shape().bucket_of(hash));
        let block = &core.blocks[block];
        prefetch_value(block);
        self.stage = Stage::Block { block, offset: offset as u32 };
    }

    /// Step 3: the bucket.
    #[inline]
    pub fn find_bucket(&mut self) {
        let Stage::Block { block, offset } = self.stage else { return };
        self.stage = match bucket_at(block, offset as usize) {
            Some(bucket) => {
                prefetch_value(bucket);
                Stage::Bucket { bucket, slot: NO_SLOT }
            }
            None => Stage::Nothing,
        }
    }

    /// Step 4: the entry; or the next bucket of the chain, if the entry is not in the first. Returns
    /// whether it is.
    #[inline]
    pub fn find_entry(&mut self, hash: u64) -> bool {
        let Stage::Bucket { bucket, slot } = &mut self.stage else { return false };
        match prefetch_tagged(bucket, hash) {
            Some(found) => *slot = found,
            None => prefetch_next(bucket),
        }
        *slot != NO_SLOT
    }

    /// Step 5: the entry, if it was not in the first bucket of the chain.
    #[inline]
    pub fn find_overflow(&self, hash: u64) {
        if let Stage::Bucket { bucket, slot: NO_SLOT } = self.stage
            && let Some(next) = next_bucket(bucket)
        {
            let _not_there_either = prefetch_tagged(next, hash);
        }
    }
}

/// The slot that says that the tag is not in the bucket.
const NO_SLOT: u32 = WORDS as u32;

#[cold]
fn prefetch_next(bucket: &Bucket) {
    if let Some(next) = next_bucket(bucket) {
        prefetch_value(next);
    }
}

/// Brings the entry with the tag of `hash` towards the cache, if the bucket has one.
#[inline]
fn prefetch_tagged(bucket: &Bucket, hash: u64) -> Option<u32> {
    for (slot, word) in (0..).zip(&bucket.words) {
        let word = word.load(Relaxed);
        if is_tagged(word, hash) {
            // The address is only computed with, never followed: the entry may be gone.
            let line = (word & ADDRESS) as *const u8;
            prefetch(line);
            prefetch(line.wrapping_add(64));
            return Some(slot);
        }
    }
    None
}

/// Brings the cache line of a value towards the cache.
#[inline]
pub(crate) fn prefetch_value<T>(value: &T) {
    prefetch(std::ptr::from_ref(value).cast());
}

/// Brings a line of memory towards the cache, to be written to: away from other cores, which may have
/// it. Whatever the address, nothing else comes of it.
#[inline]
pub fn prefetch_to_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _no_portable_prefetch = line;
}

#[inline]
pub(super) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _no_portable_prefetch = line;
}
