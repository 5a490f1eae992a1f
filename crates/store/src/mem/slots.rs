//! Where entries are allocated. Hot path.
//!
//! Each thread keeps some free slots of each class for itself, in two chains: one that it takes from and
//! gives to, and one that is full. It asks the slabs ([`super::slab`]) when it has neither, or has both
//! full. So what goes to and fro between threads goes by the chain, some 4 KiB at a time, and a write
//! that makes room for itself uses the very slot that it freed.
//!
//! Cost: 5 KiB per thread, and twice 4 KiB of free slots per class that it uses often: what it did not
//! use for a while goes back ([`give_back_unused`]).
//!
//! What is longer than the longest slot, an entry with a very long key, is the process allocator's.

use super::classes::{ALL, CLASS, CLASSES, SLOT_MAX, class_of};
use super::slab::{self, Chain};
use super::{class_size, guard};
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;

/// Bytes of a full chain.
const CHAIN_BYTES: usize = 4 << 10;
const CHAIN_MAX: usize = 32;

/// Slots of a full chain.
#[inline(always)]
fn full(class: usize) -> usize {
    static FULL: [u8; CLASSES] = {
        let mut full = [1; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            let slots = CHAIN_BYTES / ALL[class].bytes as usize;
            if slots > 1 {
                full[class] = if slots < CHAIN_MAX { slots as u8 } else { CHAIN_MAX as u8 };
            }
            class += 1;
        }
        full
    };
    FULL[class] as usize
}

/// What a thread keeps of a class.
struct Rack {
    loaded: Cell<Chain>,
    /// Full or empty.
    spare: Cell<Chain>,
    /// What was loaded when the thread looked for what it does not use.
    seen: Cell<Chain>,
}

struct Racks([Rack; CLASSES]);

thread_local! {
    static RACKS: Racks = const { Racks([const { Rack::new() }; CLASSES]) };
}

impl Rack {
    const fn new() -> Self {
        Rack {
            loaded: Cell::new(Chain::EMPTY),
            spare: Cell::new(Chain::EMPTY),
            seen: Cell::new(Chain::EMPTY),
        }
    }

    #[inline(always)]
    fn take(&self, class: usize) -> usize {
        let mut chain = self.loaded.get();
        let Some(slot) = chain.pop() else { return self.reload(class) };
        self.loaded.set(chain);
        slot
    }

    #[cold]
    fn reload(&self, class: usize) -> usize {
        let mut chain = self.spare.take();
        if chain.len == 0 {
            chain = slab::lock().take(class, full(class));
        }
        let slot = chain.pop().expect("slabs give one slot at least");
        self.loaded.set(chain);
        slot
    }

    #[inline(always)]
    fn give(&self, class: usize, slot: usize) {
        let mut chain = self.loaded.get();
        if chain.len >= full(class) {
            chain = self.unload(class);
        }
        chain.push(slot);
        self.loaded.set(chain);
    }

    /// Puts the full chain away. Returns an empty one.
    #[cold]
    fn unload(&self, class: usize) -> Chain {
        let spare = self.spare.replace(self.loaded.get());
        if spare.len > 0 {
            slab::lock().give(class, spare);
        }
        Chain::EMPTY
    }

    /// Gives what is spare back, and what is loaded if it was not used since the last time.
    fn give_back_unused(&self, class: usize) {
        let is_used = self.seen.replace(self.loaded.get()) != self.loaded.get();
        let unused = if is_used { Chain::EMPTY } else { self.loaded.take() };
        for chain in [unused, self.spare.take()] {
            if chain.len > 0 {
                slab::lock().give(class, chain);
            }
        }
    }
}

impl Racks {
    fn give_back(&self) {
        for (class, rack) in self.0.iter().enumerate() {
            for chain in [rack.loaded.take(), rack.spare.take()] {
                if chain.len > 0 {
                    slab::lock().give(class, chain);
                }
            }
        }
    }
}

impl Drop for Racks {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Gives all slots back that this thread kept.
pub fn give_back_kept() {
    let _thread_ends = RACKS.try_with(Racks::give_back);
}

/// Gives slots back that this thread kept and did not use since it was last asked.
pub fn give_back_unused() {
    let _thread_ends = RACKS.try_with(|racks| {
        racks.0.iter().enumerate().for_each(|(class, rack)| rack.give_back_unused(class));
    });
}

/// Memory for an entry of `bytes`, which are not initialised.
#[inline]
pub(super) fn allocate(bytes: usize) -> NonNull<u8> {
    if bytes > SLOT_MAX {
        return allocate_long(bytes);
    }
    let class = class_of(bytes);
    let slot = RACKS.try_with(|racks| racks.0[class].take(class));
    slot_of(slot.unwrap_or_else(|_| take_one(class)), class)
}

/// As [`allocate`], from a slab that is not being emptied, which a thread's slots may be.
pub(super) fn allocate_to_stay(bytes: usize) -> NonNull<u8> {
    let class = class_of(bytes);
    slot_of(take_one(class), class)
}

fn take_one(class: usize) -> usize {
    slab::lock().take(class, 1).pop().expect("slabs give one slot at least")
}

#[inline(always)]
fn slot_of(slot: usize, class: usize) -> NonNull<u8> {
    guard::allow(slot, CLASS[class].bytes as usize);
    // SAFETY: slots lie in a mapping, so their addresses are not null.
    unsafe { NonNull::new_unchecked(slot as *mut u8) }
}

/// Frees the memory of an entry of `bytes`.
///
/// # Safety
/// It must come from [`allocate`] or [`allocate_to_stay`] with bytes of the same size of slot, and nobody
/// may use it any more.
#[inline]
pub(super) unsafe fn free(memory: NonNull<u8>, bytes: usize) {
    if bytes > SLOT_MAX {
        // SAFETY: what is as long came from `allocate_long`, with this layout; the rest is promised.
        return unsafe { std::alloc::dealloc(memory.as_ptr(), layout_of(bytes)) };
    }
    let (class, slot) = (class_of(bytes), memory.as_ptr() as usize);
    guard::forbid(slot, CLASS[class].bytes as usize);
    let kept = RACKS.try_with(|racks| racks.0[class].give(class, slot));
    if kept.is_err() {
        give_one(class, slot);
    }
}

/// As [`free`], for what is moved: the thread keeps none of a slab that is being emptied.
///
/// # Safety
/// As of [`free`].
pub(super) unsafe fn free_for_good(memory: NonNull<u8>, bytes: usize) {
    let (class, slot) = (class_of(bytes), memory.as_ptr() as usize);
    guard::forbid(slot, CLASS[class].bytes as usize);
    give_one(class, slot);
}

fn give_one(class: usize, slot: usize) {
    let mut chain = Chain::EMPTY;
    chain.push(slot);
    slab::lock().give(class, chain);
}

fn layout_of(bytes: usize) -> Layout {
    Layout::from_size_align(class_size(bytes), 16).expect("sizes of classes are valid layouts")
}

#[cold]
fn allocate_long(bytes: usize) -> NonNull<u8> {
    let layout = layout_of(bytes);
    // SAFETY: the layout has a size that is not zero.
    let memory = unsafe { std::alloc::alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
}
