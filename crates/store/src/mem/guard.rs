//! Tells AddressSanitizer which slots are free: a use of one is then an error, as if it came from the
//! process allocator. Without `--cfg asan`, which `cargo xtask sanitize` gives, it does nothing.

/// Bytes of a free slot that stay accessible: its link to the next one.
const LINK: usize = size_of::<usize>();

#[cfg(asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const u8, bytes: usize);
    fn __asan_unpoison_memory_region(start: *const u8, bytes: usize);
}

/// Notes that memory was cut into slots, which are free. Before it may have been cut otherwise, and links lie
/// where other slots were.
#[inline(always)]
pub(super) fn cut(start: usize, bytes: usize, slots: usize) {
    #[cfg(asan)]
    {
        // SAFETY: this changes no contents; the memory is that of a slab of which no slot is anybody's.
        unsafe {
            __asan_unpoison_memory_region(start as *const u8, bytes * slots);
        }
        (0..slots).for_each(|number| forbid(start + number * bytes, bytes));
    }
    let _ = (start, bytes, slots);
}

/// Notes that a slot is free.
#[inline(always)]
pub(super) fn forbid(slot: usize, bytes: usize) {
    #[cfg(asan)]
    // SAFETY: this changes no contents; the slot is a slot, and nobody's.
    unsafe {
        __asan_poison_memory_region((slot + LINK) as *const u8, bytes - LINK);
    }
    let _ = (slot, bytes, LINK);
}

/// Notes that a slot is in use.
#[inline(always)]
pub(super) fn allow(slot: usize, bytes: usize) {
    #[cfg(asan)]
    // SAFETY: this changes no contents.
    unsafe {
        __asan_unpoison_memory_region((slot + LINK) as *const u8, bytes - LINK);
    }
    let _ = (slot, bytes);
}
