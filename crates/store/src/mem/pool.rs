//! Where table buckets live: blocks cut from regions of 2 MiB ([`crate::mem::region`]) that are never
//! unmapped.
//!
//! Blocks are powers of two of 64-byte buckets. A freed block goes to the free list of its size;
//! one of a page or more gives its physical memory back at once (`MADV_DONTNEED`) and keeps only
//! its addresses. That makes the memory *type-stable*: an address that once was a bucket is always
//! readable as a bucket of atomic words.
//!
//! Free blocks of less than a page are linked through their first words: a list beside them would have
//! to grow under the lock, and with it all that waits when the allocator touches new memory (4.7 ms
//! seen).
//!
//! The lock is taken once per table growth step of several buckets, not per request.

use super::region::{self, Pages, REGION_BYTES, Regions};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Words in a bucket.
pub(crate) const WORDS: usize = 8;

/// One cache line of the table.
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub(crate) words: [AtomicU64; WORDS],
}

const BUCKET_BYTES: usize = size_of::<Bucket>();
/// When this much of a region is left, the next one is prepared.
const SPARE_AT_BYTES: usize = REGION_BYTES / 4;
const PAGE_BYTES: usize = 4096;
/// Free lists for blocks of 2^0 .. 2^(CLASSES-1) buckets.
const CLASSES: usize = 32;
/// Of these, lists for blocks of less than a page.
const SMALL_CLASSES: usize = (PAGE_BYTES / BUCKET_BYTES).trailing_zeros() as usize;

struct Pool {
    /// Free blocks of less than a page, by log2 of their buckets: the address of the first, whose first
    /// word is that of the next. 0: none.
    free: [usize; SMALL_CLASSES],
    /// Addresses of larger free blocks, by log2 of their buckets. Not linked through the blocks, whose
    /// memory was given back.
    free_large: [Vec<usize>; CLASSES],
    /// The unused rest of the newest region.
    bump: usize,
    bump_end: usize,
    regions: Regions,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: [0; SMALL_CLASSES],
    free_large: [const { Vec::new() }; CLASSES],
    bump: 0,
    bump_end: 0,
    regions: Regions::new(),
});
static BYTES_IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all blocks that are handed out.
pub(crate) fn bytes_in_use() -> usize {
    BYTES_IN_USE.load(Ordering::Relaxed)
}

/// `1 << order` consecutive buckets with all words zero.
pub(crate) fn alloc(order: u32) -> &'static [Bucket] {
    let count = 1usize << order;
    let bytes = count * BUCKET_BYTES;
    BYTES_IN_USE.fetch_add(bytes, Ordering::Relaxed);
    let (address, recycled) = {
        let mut pool = lock();
        match pool.take_free(order as usize) {
            Some(address) => (address, true),
            None => (pool.carve(bytes), false),
        }
    };
    // SAFETY: `address` is `bytes` long, 64-byte aligned, mapped for the life of the process,
    // zero-initialised by the kernel, and only ever used as buckets of atomics.
    let block = unsafe { std::slice::from_raw_parts(address as *const Bucket, count) };
    if recycled && bytes < PAGE_BYTES {
        for word in block.iter().flat_map(|b| &b.words) {
            word.store(0, Ordering::Relaxed);
        }
    }
    block
}

/// Gives a block of [`alloc`] back. Its addresses stay readable.
pub(crate) fn free(block: &'static [Bucket]) {
    let bytes = size_of_val(block);
    let order = block.len().trailing_zeros();
    BYTES_IN_USE.fetch_sub(bytes, Ordering::Relaxed);
    let address = block.as_ptr() as usize;
    if bytes >= PAGE_BYTES {
        release_pages(address, bytes);
    }
    lock().keep_free(order as usize, address);
}

fn lock() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The first word of a free block, where the list of free ones goes on. For a reader of stale buckets
/// it is a word without a tag.
fn link_of(address: usize) -> &'static AtomicU64 {
    // SAFETY: a free block is mapped for the life of the process, aligned, and of atomic words.
    unsafe { AtomicU64::from_ptr(address as *mut u64) }
}

impl Pool {
    fn take_free(&mut self, order: usize) -> Option<usize> {
        let Some(first) = self.free.get_mut(order) else { return self.free_large[order].pop() };
        let address = *first;
        if address == 0 {
            return None;
        }
        *first = link_of(address).load(Ordering::Relaxed) as usize;
        Some(address)
    }

    fn keep_free(&mut self, order: usize, address: usize) {
        let Some(first) = self.free.get_mut(order) else {
            return self.free_large[order].push(address);
        };
        link_of(address).store(*first as u64, Ordering::Relaxed);
        *first = address;
    }

    /// Cuts `bytes` (a power of two) from the newest region, aligned to itself up to a page.
    fn carve(&mut self, bytes: usize) -> usize {
        if bytes >= REGION_BYTES {
            return region::map(bytes, Pages::Huge);
        }
        let align = bytes.min(PAGE_BYTES);
        let mut start = self.bump.next_multiple_of(align);
        if self.bump == 0 || start + bytes > self.bump_end {
            self.keep_rest();
            start = self.regions.take();
            self.bump_end = start + REGION_BYTES;
        } else {
            self.keep_gap(self.bump, start);
        }
        self.bump = start + bytes;
        if self.bump_end - self.bump <= SPARE_AT_BYTES {
            self.regions.prepare();
        }
        start
    }

    /// Puts what is left of the region on the free lists, so that nothing is lost at its end.
    fn keep_rest(&mut self) {
        let (from, to) = (self.bump, self.bump_end);
        self.keep_gap(from, to);
    }

    fn keep_gap(&mut self, mut from: usize, to: usize) {
        while from < to {
            let largest = (to - from).ilog2().min(from.trailing_zeros());
            let bytes = 1usize << largest;
            self.keep_free((bytes / BUCKET_BYTES).trailing_zeros() as usize, from);
            from += bytes;
        }
    }
}

fn release_pages(address: usize, bytes: usize) {
    // SAFETY: the block was handed out by `alloc`, is page-aligned and a multiple of a page long;
    // nobody owns it now, and readers that still look see zeroed atomic words.
    let rc = unsafe { libc::madvise(address as *mut libc::c_void, bytes, libc::MADV_DONTNEED) };
    assert!(rc == 0, "madvise(MADV_DONTNEED) failed on table memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_distinct_and_reused() {
        let a = alloc(0);
        let b = alloc(7);
        assert_eq!((a.len(), b.len()), (1, 128));
        for bucket in a.iter().chain(b) {
            assert!(bucket.words.iter().all(|w| w.load(Ordering::Relaxed) == 0));
            bucket.words[3].store(9, Ordering::Relaxed);
        }
        free(a);
        free(b);
        for order in [0, 7] {
            let again = alloc(order);
            let dirty = again.iter().flat_map(|x| &x.words);
            assert!(dirty.map(|w| w.load(Ordering::Relaxed)).all(|w| w == 0));
            free(again);
        }
    }

    #[test]
    fn a_region_is_made_ready_ahead_of_its_use() {
        // The lock keeps all others from taking it.
        let mut pool = lock();
        pool.regions.prepare();
        let patience = (0..1000).map(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
        assert!(patience.into_iter().any(|()| region::is_ready()));
        let region = pool.regions.take();
        assert!(!region::is_ready(), "it is the one that was taken");
        // SAFETY: the region is mapped, aligned, and nobody else has it.
        let words = unsafe {
            std::slice::from_raw_parts(region as *const AtomicU64, REGION_BYTES / size_of::<u64>())
        };
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn every_order_is_aligned_to_a_line() {
        let blocks: Vec<_> = (0..17).map(alloc).collect();
        for block in &blocks {
            assert_eq!(block.as_ptr() as usize % 64, 0);
        }
        for block in blocks {
            free(block);
        }
    }
}
