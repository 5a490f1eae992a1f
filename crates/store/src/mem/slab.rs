//! Slabs: pages ([`super::pages`]) cut into slots of one size. What all threads share; what each keeps
//! for itself is in [`super::slots`].
//!
//! **Cost.** A slot has no header: which slab it is in follows from its address, and its size from what
//! is in it. A slab costs 20 bytes per page, 0.06 %, beside the slots that are free. Free slots of a slab
//! are a list through the slots themselves; those never used are no list yet, so a new slab touches
//! nothing.
//!
//! **Fast at**: giving and taking some 4 KiB of slots of one size under one lock. A slab with free slots
//! is in its class's list; one that was full goes to the front when a slot comes back, and is filled
//! again first. So slabs are full or sparse, and the sparse ones wait at the end of the list to be
//! emptied ([`Slabs::close`]). A slab that is empty goes back to the pages at once.
//!
//! **Tried**: mimalloc for entries, see `docs/design/005-item-memory.md`. Bonwick, "The slab allocator",
//! USENIX 1994, has the idea of slabs, and with Adams, "Magazines and vmem", 2001, that of what threads
//! keep.

#[cfg(test)]
mod tests;

use super::classes::{CLASS, CLASSES, ORDER_MAX, PAGE_BYTES};
use super::guard;
use super::pages::{Pages, REGION_PAGES, run_mask};
use super::region::REGION_BYTES;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// No page.
const NONE: u32 = u32::MAX;

/// The first word of a free slot: the address of the next one.
#[inline(always)]
fn link_of<'a>(slot: usize) -> &'a AtomicUsize {
    // SAFETY: a slot is mapped for the life of the process, aligned to a word and as long at least, and
    // nobody but its owner, who calls this, uses it while it is free.
    unsafe { AtomicUsize::from_ptr(slot as *mut usize) }
}

/// Free slots of one class, linked through their first words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    head: usize,
    pub(super) len: usize,
}

impl Chain {
    pub(super) const EMPTY: Chain = Chain { head: 0, len: 0 };

    #[inline(always)]
    pub(super) fn push(&mut self, slot: usize) {
        link_of(slot).store(self.head, Relaxed);
        *self = Chain { head: slot, len: self.len + 1 };
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<usize> {
        let slot = self.head;
        if slot == 0 {
            return None;
        }
        *self = Chain { head: link_of(slot).load(Relaxed), len: self.len - 1 };
        Some(slot)
    }
}

/// What a page is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Nothing.
    #[default]
    None,
    /// A slab, whose first page it is.
    First,
    /// A slab that begins so many pages before.
    Rest(u8),
}

/// A slab, kept with its first page.
#[derive(Clone, Copy, Debug, Default)]
struct Slab {
    part: Part,
    class: u8,
    /// It is being emptied: no slot of it is handed out.
    is_closed: bool,
    /// Slots that are handed out.
    used: u16,
    /// Slots that ever were.
    carved: u16,
    /// Number of a free slot plus one, the first of a list; 0: there is none.
    free: u16,
    next: u32,
    previous: u32,
}

const _: () = assert!(size_of::<Slab>() <= 20);

/// What is known of a class.
#[derive(Clone, Copy, Debug)]
struct Bin {
    /// The first slab with free slots that is not closed.
    first: u32,
    /// Free slots of all of these.
    free: usize,
}

/// Slabs that are being emptied: some consecutive pages of a region.
#[derive(Clone, Copy, Debug)]
struct Group {
    region: usize,
    mask: u64,
    /// Its pages that are free already.
    collected: u64,
}

/// A slab that is being emptied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) start: usize,
    pub(super) class: usize,
    pub(super) slots: usize,
}

/// How much memory there is for entries, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// What the system was asked for and may be resident.
    pub held: usize,
    /// Of it, pages that are in no slab.
    pub free: usize,
    /// Of it, slots that are in use, or kept by a thread for its next entries.
    pub used: usize,
    /// Whether there are free pages beside each other for a slab of the longest slots.
    pub has_run: bool,
}

impl Items {
    /// What is in slabs and not used: free slots, and what is left at the ends.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.held.saturating_sub(self.free + self.used)
    }
}

static HELD: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);
static HAS_RUN: AtomicBool = AtomicBool::new(false);

/// How much memory there is for entries just now, without a lock.
#[inline]
#[must_use]
pub fn items() -> Items {
    Items {
        held: HELD.load(Relaxed),
        free: FREE.load(Relaxed),
        used: USED.load(Relaxed),
        has_run: HAS_RUN.load(Relaxed),
    }
}

/// See the module's text.
pub(super) struct Slabs {
    pages: Pages,
    #[allow(clippy::vec_box, reason = "a list of many regions is copied when it grows")]
    regions: Vec<Box<[Slab; REGION_PAGES]>>,
    bins: [Bin; CLASSES],
    used_bytes: usize,
    group: Option<Group>,
    /// Where the next look for a group begins.
    next_region: usize,
}

static SLABS: Mutex<Slabs> = Mutex::new(Slabs::new());

pub(super) fn lock() -> MutexGuard<'static, Slabs> {
    SLABS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Slabs {
    const fn new() -> Self {
        Slabs {
            pages: Pages::new(),
            regions: Vec::new(),
            bins: [Bin { first: NONE, free: 0 }; CLASSES],
            used_bytes: 0,
            group: None,
            next_region: 0,
        }
    }

    #[inline]
    fn slab(&mut self, page: u32) -> &mut Slab {
        &mut self.regions[page as usize / REGION_PAGES][page as usize % REGION_PAGES]
    }

    fn publish(&self) {
        HELD.store(self.pages.held_regions() * REGION_BYTES, Relaxed);
        FREE.store(self.pages.free_pages() * PAGE_BYTES, Relaxed);
        USED.store(self.used_bytes, Relaxed);
        HAS_RUN.store(self.pages.has_run(ORDER_MAX), Relaxed);
    }

    /// Takes up to `wanted` slots of a class, one at least.
    pub(super) fn take(&mut self, class: usize, wanted: usize) -> Chain {
        let mut chain = Chain::EMPTY;
        while chain.len < wanted {
            let page = match self.bins[class].first {
                NONE if chain.len > 0 => break,
                NONE => self.new_slab(class),
                page => page,
            };
            self.take_from(page, class, wanted, &mut chain);
        }
        self.bins[class].free -= chain.len;
        self.used_bytes += chain.len * CLASS[class].bytes as usize;
        self.publish();
        chain
    }

    /// Takes slots from one slab until there are as many as wanted or it is full.
    fn take_from(&mut self, page: u32, class: usize, wanted: usize, chain: &mut Chain) {
        let start = self.pages.address_of(page);
        let (bytes, slots) = (CLASS[class].bytes as usize, CLASS[class].slots);
        let slab = self.slab(page);
        while chain.len < wanted && slab.used < slots {
            let number = if slab.free == 0 {
                slab.carved += 1;
                slab.carved - 1
            } else {
                let number = slab.free - 1;
                slab.free = link_of(start + number as usize * bytes).load(Relaxed) as u16;
                number
            };
            slab.used += 1;
            chain.push(start + number as usize * bytes);
        }
        if slab.used == slots {
            self.unlink(page, class);
        }
    }

    /// Gives slots of a class back.
    pub(super) fn give(&mut self, class: usize, mut chain: Chain) {
        self.used_bytes -= chain.len * CLASS[class].bytes as usize;
        while let Some(slot) = chain.pop() {
            self.give_one(class, slot);
        }
        self.publish();
    }

    fn give_one(&mut self, class: usize, slot: usize) {
        let mut page = self.pages.page_of(slot);
        if let Part::Rest(back) = self.slab(page).part {
            page -= u32::from(back);
        }
        let start = self.pages.address_of(page);
        let slab = self.slab(page);
        debug_assert!(slab.part == Part::First && slab.class as usize == class && slab.used > 0);
        link_of(slot).store(slab.free as usize, Relaxed);
        slab.free = ((slot - start) as u32 / CLASS[class].bytes) as u16 + 1;
        slab.used -= 1;
        let (used, is_closed) = (slab.used, slab.is_closed);
        if !is_closed {
            self.bins[class].free += 1;
            if used + 1 == CLASS[class].slots {
                self.link(page, class);
            }
        }
        if used == 0 {
            self.end_slab(page, class);
        }
    }

    fn new_slab(&mut self, class: usize) -> u32 {
        let order = CLASS[class].order as usize;
        let page = self.pages.take(order);
        while self.regions.len() < self.pages.regions() {
            self.regions.push(Box::new([Slab::default(); REGION_PAGES]));
        }
        for back in 1..1 << order {
            self.slab(page + u32::from(back)).part = Part::Rest(back);
        }
        *self.slab(page) = Slab { part: Part::First, class: class as u8, ..Slab::default() };
        let (bytes, slots) = (CLASS[class].bytes as usize, CLASS[class].slots as usize);
        guard::cut(self.pages.address_of(page), bytes, slots);
        self.bins[class].free += slots;
        self.link(page, class);
        page
    }

    /// Gives the pages of an empty slab back.
    fn end_slab(&mut self, page: u32, class: usize) {
        let order = CLASS[class].order as usize;
        let is_closed = self.slab(page).is_closed;
        if !is_closed {
            self.unlink(page, class);
            self.bins[class].free -= CLASS[class].slots as usize;
        }
        for page in page..page + (1 << order) {
            *self.slab(page) = Slab::default();
        }
        let pages = run_mask(page, order);
        match &mut self.group {
            Some(group) if is_closed => group.collected |= pages,
            _ => self.pages.give(page as usize / REGION_PAGES, pages),
        }
    }

    /// Puts a slab at the front of its class's list.
    fn link(&mut self, page: u32, class: usize) {
        let next = std::mem::replace(&mut self.bins[class].first, page);
        if next != NONE {
            self.slab(next).previous = page;
        }
        let slab = self.slab(page);
        (slab.previous, slab.next) = (NONE, next);
    }

    /// Takes a slab out of its class's list.
    fn unlink(&mut self, page: u32, class: usize) {
        let Slab { previous, next, .. } = *self.slab(page);
        if previous == NONE {
            self.bins[class].first = next;
        } else {
            self.slab(previous).next = next;
        }
        if next != NONE {
            self.slab(next).previous = previous;
        }
    }
}

// Emptying slabs.

/// log2 of the pages of a region, which may be emptied as a whole.
pub(super) const ORDER_REGION: usize = REGION_PAGES.trailing_zeros() as usize;
/// Regions looked at to find a group.
const LOOKED_AT: usize = 24;

/// What emptying a group would take and bring.
#[derive(Clone, Copy, Debug)]
struct Plan {
    group: Group,
    /// Bytes to move.
    moved: usize,
    /// Pages that are then free, less those that what is moved takes.
    gained: usize,
}

impl Slabs {
    /// Closes the slabs of `1 << order` pages, or of one longer slab, for whoever moves what is in them
    /// elsewhere: those of which least must be moved for what is gained. Returns them, and how many bytes
    /// are to be moved for each that is gained. None if nothing is gained anywhere, or a group is closed
    /// already.
    pub(super) fn close(&mut self, order: usize) -> Option<(Vec<Closed>, usize)> {
        if self.group.is_some() {
            return None;
        }
        let count = self.regions.len();
        let first = self.next_region;
        let mut best: Option<Plan> = None;
        for region in (0..count.min(LOOKED_AT)).map(|i| (first + i) % count) {
            for page in (0..REGION_PAGES).step_by(1 << order) {
                let Some(plan) = self.plan(region, page, order) else { continue };
                // Bytes to move for a page gained.
                let is_cheaper = |best: Plan| plan.moved * best.gained < best.moved * plan.gained;
                if best.is_none_or(is_cheaper) {
                    best = Some(plan);
                }
            }
        }
        self.next_region = first.wrapping_add(LOOKED_AT) % count.max(1);
        let Plan { group, moved, gained } = best?;
        Some((self.close_group(group), moved / (gained * PAGE_BYTES)))
    }

    /// What it takes to empty the group of a region that begins with `page`.
    fn plan(&self, region: usize, page: usize, order: usize) -> Option<Plan> {
        let slabs = &self.regions[region];
        let first = &slabs[page];
        let own = CLASS[first.class as usize].order as usize;
        let order = if first.part == Part::First { order.max(own) } else { order };
        let mask = run_mask(page as u32, order);
        let free = self.pages.free_of(region) & mask;
        let (mut moved, mut there) = (0, 0_usize);
        // Of each class: slots to move, and free ones of the same slabs.
        let mut needs = smallvec::SmallVec::<[(u8, usize, usize); 8]>::new();
        for slab in &slabs[page..page + (1 << order)] {
            match slab.part {
                Part::None => continue,
                Part::Rest(_) if there == 0 => return None,
                Part::Rest(_) => continue,
                Part::First if slab.is_closed => return None,
                Part::First => {}
            }
            let class = &CLASS[slab.class as usize];
            there += 1 << class.order;
            moved += slab.used as usize * class.bytes as usize;
            let need = (slab.used as usize, (class.slots - slab.used) as usize);
            match needs.iter_mut().find(|(number, ..)| *number == slab.class) {
                Some((_, used, free)) => (*used, *free) = (*used + need.0, *free + need.1),
                None => needs.push((slab.class, need.0, need.1)),
            }
        }
        let taken = needs.iter().map(|&(class, used, own_free)| {
            let elsewhere = self.bins[class as usize].free - own_free;
            let class = &CLASS[class as usize];
            used.saturating_sub(elsewhere).div_ceil(class.slots as usize) << class.order
        });
        let taken: usize = taken.sum();
        let others_free = self.pages.free_pages() - free.count_ones() as usize;
        let gained = if order == ORDER_REGION { REGION_PAGES } else { there.saturating_sub(taken) };
        let pays = moved <= there * PAGE_BYTES / 16 * 15 && gained > 0 && taken <= others_free;
        let group = Group { region, mask, collected: free };
        (there > 0 && pays).then_some(Plan { group, moved, gained })
    }

    fn close_group(&mut self, group: Group) -> Vec<Closed> {
        self.pages.withhold(group.region, group.collected);
        self.group = Some(group);
        let mut closed = Vec::new();
        for page in self.firsts_of(group) {
            let slab = *self.slab(page);
            let class = slab.class as usize;
            if slab.used < CLASS[class].slots {
                self.unlink(page, class);
                self.bins[class].free -= (CLASS[class].slots - slab.used) as usize;
            }
            self.slab(page).is_closed = true;
            let slots = slab.carved as usize;
            closed.push(Closed { start: self.pages.address_of(page), class, slots });
        }
        self.publish();
        closed
    }

    /// The first pages of the slabs of a group.
    fn firsts_of(&self, group: Group) -> impl Iterator<Item = u32> + use<> {
        let slabs = &self.regions[group.region];
        let is_first = |i: usize| group.mask >> i & 1 == 1 && slabs[i].part == Part::First;
        let firsts = (0..REGION_PAGES).map(|i| u64::from(is_first(i)) << i).sum::<u64>();
        let start = (group.region * REGION_PAGES) as u32;
        (0..REGION_PAGES as u32).filter(move |i| firsts >> i & 1 == 1).map(move |i| start + i)
    }

    /// Ends what [`Self::close`] began: what is empty is free, the rest is as before. Returns how many
    /// pages are free.
    pub(super) fn reopen(&mut self) -> usize {
        let Some(group) = self.group.take() else { return 0 };
        for page in self.firsts_of(group) {
            let slab = self.slab(page);
            slab.is_closed = false;
            let (class, used) = (slab.class as usize, slab.used);
            if used < CLASS[class].slots {
                self.bins[class].free += (CLASS[class].slots - used) as usize;
                self.link(page, class);
            }
        }
        self.pages.give(group.region, group.collected);
        self.publish();
        group.collected.count_ones() as usize
    }

    /// The pages, to give regions back.
    pub(super) fn pages(&mut self) -> &mut Pages {
        &mut self.pages
    }
}

/// Gives the memory of regions back to the system that are all free, but for some that are kept. At most
/// `max`; returns how many it were.
#[must_use]
pub fn give_back(kept: usize, max: usize) -> usize {
    for given in 0..max {
        let Some(free) = lock().pages().take_empty(kept) else { return given };
        // Others may take slots meanwhile.
        free.give_back();
        let mut slabs = lock();
        slabs.pages().note_given_back(free);
        slabs.publish();
    }
    max
}
