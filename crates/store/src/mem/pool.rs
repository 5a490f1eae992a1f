//! Where table buckets live: regions of 2 MiB and more, advised to be huge pages, never unmapped.
//!
//! Blocks are powers of two of 64-byte buckets. A freed block goes to the free list of its size;
//! one of a page or more gives its physical memory back at once (`MADV_DONTNEED`) and keeps only
//! its addresses. That makes the memory *type-stable*: an address that once was a bucket is always
//! readable as a bucket of atomic words.
//!
//! The lock is taken once per table growth step of several buckets, not per request.

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
const REGION_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;
/// Free lists for blocks of 2^0 .. 2^(CLASSES-1) buckets.
const CLASSES: usize = 32;

struct Pool {
    /// Addresses of free blocks, by log2 of their buckets.
    free: [Vec<usize>; CLASSES],
    /// The unused rest of the newest region.
    bump: usize,
    bump_end: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: [const { Vec::new() }; CLASSES], bump: 0, bump_end: 0 });
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
        match pool.free[order as usize].pop() {
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
    lock().free[order as usize].push(address);
}

fn lock() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pool {
    /// Cuts `bytes` (a power of two) from the newest region, aligned to itself up to a page.
    fn carve(&mut self, bytes: usize) -> usize {
        if bytes >= REGION_BYTES {
            return map_region(bytes);
        }
        let align = bytes.min(PAGE_BYTES);
        let mut start = self.bump.next_multiple_of(align);
        if self.bump == 0 || start + bytes > self.bump_end {
            self.keep_rest();
            start = map_region(REGION_BYTES);
            self.bump_end = start + REGION_BYTES;
        } else {
            self.keep_gap(self.bump, start);
        }
        self.bump = start + bytes;
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
            self.free[(bytes / BUCKET_BYTES).trailing_zeros() as usize].push(from);
            from += bytes;
        }
    }
}

/// Maps fresh zeroed memory, aligned to a huge page. Fails only when the machine has none left,
/// where a cache that must grow its table cannot go on.
fn map_region(bytes: usize) -> usize {
    let padded = bytes + REGION_BYTES;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            padded,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert!(base != libc::MAP_FAILED, "out of memory: cannot map {padded} bytes for the table");
    let start = (base as usize).next_multiple_of(REGION_BYTES);
    // SAFETY: the range lies inside the mapping made above; the advice changes no contents.
    let _advice_is_optional =
        unsafe { libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    start
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
