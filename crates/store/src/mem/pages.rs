//! Pages of 32 KiB for slabs of entries, in regions of a huge page each.
//!
//! **Address space** for all regions there may ever be is set aside at once, so that the page of an
//! address is a subtraction, and opened an area at a time. A region that is all free gives its memory
//! back as a whole: what is cut out of a huge page the system may fill in again, and a process whose
//! memory is counted must know how much it has. So [`Pages::held_regions`] is exact.
//!
//! **Where a run of pages comes from**: the lowest region that has one. So the higher regions become
//! empty, as when keys are moved together ([`super::sparse`]). A run begins at a multiple of its length;
//! finding one is arithmetic on the word of a region's free pages.
//!
//! **Ahead of its use** a region is touched by a thread of its own when few free pages are left, as is
//! described at [`super::region`].

use super::ahead::populate_soon;
use super::classes::{ORDER_MAX, PAGE_BYTES};
use super::region::{AREA_REGIONS, REGION_BYTES};
use super::space::{Space, give_back};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Pages of a region.
pub(crate) const REGION_PAGES: usize = REGION_BYTES / PAGE_BYTES;
const _: () = assert!(REGION_PAGES == u64::BITS as usize, "free pages are one word");
/// With fewer free pages the next region is touched ahead.
const SPARE_PAGES: usize = REGION_PAGES / 4;

/// Bytes of regions beyond which none is touched ahead of its use.
static HELD_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Says how much memory for entries there should be at most: from there on no region is touched ahead.
pub fn set_held_max(bytes: usize) {
    HELD_MAX.store(bytes, Relaxed);
}

/// The start of each run of `1 << order` pages that are all in `free`.
#[inline]
fn runs_in(free: u64, order: usize) -> u64 {
    /// Multiples of 1, 2, 4 and 8.
    const STARTS: [u64; ORDER_MAX + 1] =
        [u64::MAX, 0x5555_5555_5555_5555, 0x1111_1111_1111_1111, 0x0101_0101_0101_0101];
    let mut runs = free;
    for i in 0..order {
        runs &= runs >> (1 << i);
    }
    runs & STARTS[order]
}

/// The pages of a run within its region.
#[inline]
pub(crate) fn run_mask(page: u32, order: usize) -> u64 {
    let ones = if order < 6 { (1 << (1 << order)) - 1 } else { u64::MAX };
    ones << (page as usize % REGION_PAGES)
}

/// What is known of a region.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    /// Its pages that are free, by bit.
    free: u64,
    is_held: bool,
}

/// See the module's text. Numbers of pages count from the start of the address space.
pub(crate) struct Pages {
    space: Option<Space>,
    regions: Vec<Region>,
    /// Regions with a free run of each order.
    with_run: [BTreeSet<u32>; ORDER_MAX + 1],
    /// Regions that gave their memory back.
    given_back: BTreeSet<u32>,
    /// A region that is being touched ahead. It is held.
    prepared: Option<u32>,
    held: usize,
    free: usize,
}

impl Pages {
    pub(crate) const fn new() -> Self {
        Pages {
            space: None,
            regions: Vec::new(),
            with_run: [const { BTreeSet::new() }; ORDER_MAX + 1],
            given_back: BTreeSet::new(),
            prepared: None,
            held: 0,
            free: 0,
        }
    }

    /// Regions that may be resident.
    pub(crate) fn held_regions(&self) -> usize {
        self.held
    }

    /// Free pages of these.
    pub(crate) fn free_pages(&self) -> usize {
        self.free
    }

    /// Regions that were ever held, the last one's number plus one.
    pub(crate) fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The first address of a page.
    #[inline]
    pub(crate) fn address_of(&self, page: u32) -> usize {
        self.space.as_ref().map_or(0, |space| space.start()) + page as usize * PAGE_BYTES
    }

    /// The page of an address that came from here.
    #[inline]
    pub(crate) fn page_of(&self, address: usize) -> u32 {
        let start = self.space.as_ref().map_or(0, |space| space.start());
        ((address - start) / PAGE_BYTES) as u32
    }

    /// The free pages of a region.
    pub(crate) fn free_of(&self, region: usize) -> u64 {
        self.regions[region].free
    }

    /// Takes a run of `1 << order` pages.
    pub(crate) fn take(&mut self, order: usize) -> u32 {
        let region = match self.with_run[order].first() {
            Some(&region) => region,
            None => self.hold_next(),
        };
        let start = runs_in(self.regions[region as usize].free, order).trailing_zeros();
        let page = region * REGION_PAGES as u32 + start;
        self.withhold(region as usize, run_mask(page, order));
        let may_hold_more = self.held * REGION_BYTES < HELD_MAX.load(Relaxed);
        if self.free < SPARE_PAGES && self.prepared.is_none() && may_hold_more {
            self.prepare();
        }
        page
    }

    /// Whether a run of `1 << order` pages can be taken without a further region.
    pub(crate) fn has_run(&self, order: usize) -> bool {
        !self.with_run[order].is_empty()
    }

    /// Takes single pages out of those that are free.
    pub(crate) fn withhold(&mut self, region: usize, mask: u64) {
        let free = self.regions[region].free;
        self.set_free(region, free & !mask);
    }

    /// Gives pages of a region back.
    pub(crate) fn give(&mut self, region: usize, mask: u64) {
        let free = self.regions[region].free;
        debug_assert_eq!(free & mask, 0, "a page is given back once");
        self.set_free(region, free | mask);
    }

    fn set_free(&mut self, region: usize, free: u64) {
        let before = std::mem::replace(&mut self.regions[region].free, free);
        self.free = self.free + free.count_ones() as usize - before.count_ones() as usize;
        for (order, with_run) in self.with_run.iter_mut().enumerate() {
            match (runs_in(before, order) != 0, runs_in(free, order) != 0) {
                (false, true) => _ = with_run.insert(region as u32),
                (true, false) => _ = with_run.remove(&(region as u32)),
                _ => {}
            }
        }
    }

    /// Holds a further region, whose pages are free then. Returns its number.
    fn hold_next(&mut self) -> u32 {
        let region = self.prepared.take().unwrap_or_else(|| self.next_region());
        self.set_free(region as usize, u64::MAX);
        region
    }

    /// The lowest region that is not held. It is from now on, and has no free pages.
    fn next_region(&mut self) -> u32 {
        let region = self.given_back.pop_first().unwrap_or_else(|| self.open_region());
        self.regions[region as usize] = Region { free: 0, is_held: true };
        self.held += 1;
        region
    }

    fn open_region(&mut self) -> u32 {
        let region = self.regions.len();
        let space = self.space.get_or_insert_with(Space::reserve);
        if region.is_multiple_of(AREA_REGIONS) {
            space.open(region);
        }
        self.regions.push(Region::default());
        region as u32
    }

    fn prepare(&mut self) {
        let region = self.next_region();
        self.prepared = Some(region);
        populate_soon(self.address_of(region * REGION_PAGES as u32));
    }

    /// Takes a region out that is all free, the highest one, if there are more than `kept` of these: its
    /// memory is to be given back by [`Free::give_back`].
    pub(crate) fn take_empty(&mut self, kept: usize) -> Option<Free> {
        if self.free < (kept + 1) * REGION_PAGES {
            return None;
        }
        let with_run = &self.with_run[ORDER_MAX];
        let empty = |region: &&u32| self.regions[**region as usize].free == u64::MAX;
        let region = *with_run.iter().rev().find(empty)?;
        self.set_free(region as usize, 0);
        Some(Free { region, start: self.address_of(region * REGION_PAGES as u32) })
    }

    /// Notes that a region's memory was given back.
    pub(crate) fn note_given_back(&mut self, free: Free) {
        self.regions[free.region as usize].is_held = false;
        self.given_back.insert(free.region);
        self.held -= 1;
    }
}

/// A region that nobody uses.
#[must_use]
pub(crate) struct Free {
    region: u32,
    start: usize,
}

impl Free {
    /// Gives the memory back to the system, which takes some time: not under a lock.
    pub(crate) fn give_back(&self) {
        give_back(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give_back(pages: &mut Pages, kept: usize) -> usize {
        let mut given = 0;
        while let Some(free) = pages.take_empty(kept) {
            free.give_back();
            pages.note_given_back(free);
            given += 1;
        }
        given
    }

    #[test]
    fn runs_begin_at_multiples_of_their_length() {
        assert_eq!(runs_in(0b1111_0110, 0), 0b1111_0110);
        assert_eq!(runs_in(0b1111_0110, 1), 0b0101_0000);
        assert_eq!(runs_in(0b1111_0110, 2), 0b0001_0000);
        assert_eq!(runs_in(u64::MAX, 3).count_ones(), 8);
        assert_eq!((run_mask(66, 1), run_mask(0, 6)), (0b1100, u64::MAX));
    }

    #[test]
    fn pages_come_back_and_are_taken_again() {
        let mut pages = Pages::new();
        let taken: Vec<(u32, usize)> = (0..600).map(|i| (pages.take(i % 4), i % 4)).collect();
        let mut seen = BTreeSet::new();
        for &(page, order) in &taken {
            assert_eq!(page as usize % (1 << order), 0);
            assert!((page..page + (1 << order)).all(|page| seen.insert(page)));
            assert_eq!(pages.page_of(pages.address_of(page) + PAGE_BYTES - 1), page);
        }
        let held = pages.held_regions();
        assert!(held * REGION_PAGES >= seen.len() && held * REGION_PAGES < seen.len() + 192);
        for (page, order) in taken {
            pages.give(page as usize / REGION_PAGES, run_mask(page, order));
        }
        // One that was prepared is no free one yet.
        let prepared = usize::from(pages.prepared.is_some());
        assert_eq!(pages.free_pages(), (held - prepared) * REGION_PAGES);
        assert_eq!(give_back(&mut pages, 2), held - prepared - 2);
        assert_eq!(pages.held_regions(), prepared + 2);
        assert_eq!(pages.take(3), 0, "the lowest one is taken");
    }
}
