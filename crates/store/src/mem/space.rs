//! Address space for the regions of entries ([`super::pages`]): set aside at once, opened by the area.

use super::region::{AREA_REGIONS, REGION_BYTES};

/// As much address space as the machine has memory, times this: that costs nothing.
const TIMES_MEMORY: usize = 4;
const REGIONS_MIN: usize = 512;

/// Consecutive addresses of regions.
pub(super) struct Space {
    start: usize,
    regions: usize,
}

impl Space {
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Sets address space aside: as much as may be needed, or what the system allows.
    pub(super) fn reserve() -> Space {
        let mut regions = regions_of_machine().max(REGIONS_MIN).next_multiple_of(AREA_REGIONS);
        loop {
            if let Some(start) = reserve(regions) {
                return Space { start, regions };
            }
            regions /= 2;
            assert!(regions >= AREA_REGIONS, "out of memory: no address space for entries");
        }
    }

    /// Makes the area usable whose first region is `first`.
    pub(super) fn open(&self, first: usize) {
        assert!(first + AREA_REGIONS <= self.regions, "out of memory: no address space is left");
        let start = (self.start + first * REGION_BYTES) as *mut libc::c_void;
        let (bytes, access) = (AREA_REGIONS * REGION_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the range lies in the address space set aside, which nobody uses yet.
        let rc = unsafe { libc::mprotect(start, bytes, access) };
        assert!(rc == 0, "out of memory: cannot open {bytes} bytes for entries");
        // SAFETY: as above; the advice changes no contents.
        let _advice_is_optional = unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
    }
}

fn regions_of_machine() -> usize {
    // SAFETY: a call that only asks.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: as above.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let bytes = usize::try_from(pages).unwrap_or(0) * usize::try_from(page_bytes).unwrap_or(0);
    bytes / REGION_BYTES * TIMES_MEMORY
}

fn reserve(regions: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let bytes = (regions + 1) * REGION_BYTES;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    (start != libc::MAP_FAILED).then(|| (start as usize).next_multiple_of(REGION_BYTES))
}

/// Gives the memory of a region back that nobody uses; it is zeroes when it is touched again.
pub(super) fn give_back(region: usize) {
    let start = region as *mut libc::c_void;
    // SAFETY: the region is mapped, and nobody uses it.
    let rc = unsafe { libc::madvise(start, REGION_BYTES, libc::MADV_DONTNEED) };
    assert!(rc == 0, "madvise(MADV_DONTNEED) failed on memory of entries");
}
