//! The buffers that multishot receives put their bytes into, shared with the kernel by a ring.
//!
//! The kernel takes buffers from the ring in order; each turn gives back those it took, in the same
//! order. So the bytes of a burst lie one after the other in memory, and mostly need no copy to
//! become one chunk.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io::Result;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers of a worker.
pub(super) const BUFFERS: u16 = 128;
/// Bytes of one buffer.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;
/// Name of the buffers to the kernel.
pub(super) const GROUP: u16 = 0;

/// The kernel wants the ring on a page of its own; the buffers follow it.
const RING_BYTES: usize = 4096;
const LAYOUT: Layout =
    match Layout::from_size_align(RING_BYTES + BUFFERS as usize * BUFFER_BYTES, 4096) {
        Ok(layout) => layout,
        Err(_) => panic!("the layout is valid"),
    };
const _: () = assert!(size_of::<BufRingEntry>() * BUFFERS as usize <= RING_BYTES);

/// See the module's text.
pub(super) struct Buffers {
    memory: NonNull<u8>,
    tail: u16,
    /// Buffers that hold received bytes of this turn, in the order they were taken.
    taken: Vec<u16>,
    /// Whether buffers were used since their memory was last given back to the system.
    is_used: bool,
    is_leaked: bool,
}

impl Buffers {
    /// Makes all buffers available to the ring of `submitter`, which must be closed, or have no
    /// request under way, when the buffers go.
    pub(super) fn register(submitter: &Submitter<'_>) -> Result<Self> {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(LAYOUT) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(LAYOUT) };
        let mut buffers = Buffers {
            memory,
            tail: 0,
            taken: Vec::with_capacity(BUFFERS as usize),
            is_used: false,
            is_leaked: false,
        };
        // SAFETY: the memory begins with a page for the ring and lives as long as `buffers`.
        unsafe {
            submitter.register_buf_ring_with_flags(memory.as_ptr() as u64, BUFFERS, GROUP, 0)
        }?;
        buffers.taken.extend(0..BUFFERS);
        buffers.give_back();
        Ok(buffers)
    }

    /// Notes that the kernel put bytes into a buffer. Returns where they begin.
    pub(super) fn take(&mut self, buffer: u16) -> u32 {
        assert!(buffer < BUFFERS, "the kernel names a buffer it was given");
        self.taken.push(buffer);
        self.is_used = true;
        u32::from(buffer) * BUFFER_BYTES as u32
    }

    /// Received bytes of this turn.
    pub(super) fn bytes(&self, start: u32, len: u32) -> &[u8] {
        let end = start as usize + len as usize;
        assert!(end <= BUFFERS as usize * BUFFER_BYTES, "the bytes lie in the buffers");
        // SAFETY: the buffers follow the page of the ring, so `start` is within the memory.
        let first = unsafe { self.memory.as_ptr().add(RING_BYTES + start as usize) };
        // SAFETY: the range was checked above, the memory was zeroed at first, and the kernel does
        // not write to buffers that it took until `give_back`, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(first, len as usize) }
    }

    /// Makes the buffers that were taken available again.
    pub(super) fn give_back(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        for at in 0..self.taken.len() {
            self.publish(self.taken[at]);
        }
        self.taken.clear();
        let ring = self.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the ring lies at the begin of the memory.
        let tail = unsafe { BufRingEntry::tail(ring) };
        // SAFETY: the tail is an aligned u16 within the ring's page, and is only ever accessed
        // atomically, by this and by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn publish(&mut self, buffer: u16) {
        let slot = usize::from(self.tail % BUFFERS);
        let offset = RING_BYTES + usize::from(buffer) * BUFFER_BYTES;
        // SAFETY: there are as many slots as buffers, all within the ring's page.
        let entry = unsafe { self.memory.as_ptr().cast::<BufRingEntry>().add(slot) };
        // SAFETY: the kernel does not read this slot before the tail is beyond it; at most
        // `BUFFERS` buffers exist, so it was consumed if it was ever used.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.memory.as_ptr() as u64 + offset as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Gives the memory of the buffers back to the system until they are used again. To be called
    /// when all completions were taken: the kernel fills buffers only while the ring is entered.
    pub(super) fn rest(&mut self) {
        if !self.is_used || !self.taken.is_empty() {
            return;
        }
        self.is_used = false;
        // SAFETY: the buffers follow the page of the ring, within the memory.
        let first = unsafe { self.memory.as_ptr().add(RING_BYTES) };
        let bytes = BUFFERS as usize * BUFFER_BYTES;
        // SAFETY: the pages belong to the buffers alone, and none holds bytes that are still wanted;
        // they read as zero afterwards. If the system refuses, the memory just stays.
        let _refused = unsafe { libc::madvise(first.cast(), bytes, libc::MADV_DONTNEED) };
    }

    /// Never frees the memory: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.is_leaked = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.is_leaked {
            // SAFETY: the memory is from `alloc_zeroed` with this layout, and no request that
            // could write to it is under way; else the owner had called `leak`.
            unsafe { dealloc(self.memory.as_ptr(), LAYOUT) };
        }
    }
}
