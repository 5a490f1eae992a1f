//! Memory for entries, made resident ahead of its use.
//!
//! The first touch of a huge page takes as long as the system needs to find and clear 2 MiB, 4 to 8 ms as
//! measured on a virtual machine, and the request that touches it first would wait for that. So when few
//! pages for entries are left ([`super::pages`]), the thread that touches regions ([`super::region`])
//! makes the next one resident meanwhile. Where it does not get to run in time, it is as without it.

use super::region::{REGION_BYTES, toucher};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Address of the region that is to be made resident; 0: there is none. One that was asked for before
/// and not reached is in use by then.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Has a region made resident.
pub(super) fn populate_soon(region: usize) {
    ASKED.store(region, Ordering::Release);
    if let Some(toucher) = toucher() {
        toucher.unpark();
    }
}

/// Makes the region resident that was asked for.
pub(super) fn populate_asked() {
    let region = ASKED.swap(0, Ordering::Acquire);
    if region != 0 {
        populate(region);
    }
}

fn populate(region: usize) {
    let start = region as *mut libc::c_void;
    // SAFETY: this advice changes no contents, whoever uses the memory, and fails where there is none.
    let _only_spares_waits =
        unsafe { libc::madvise(start, REGION_BYTES, libc::MADV_POPULATE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_was_asked_for_is_resident_and_keeps_its_contents() {
        let region = super::super::region::map(REGION_BYTES, super::super::region::Pages::Huge);
        // SAFETY: the region was just mapped, is aligned, and nobody else has it.
        let first = unsafe { AtomicUsize::from_ptr(region as *mut usize) };
        first.store(7, Ordering::Relaxed);
        populate(region);
        let mut pages = [0u8; REGION_BYTES / 4096];
        // SAFETY: there is a byte for each small page of the range, which is mapped.
        let rc =
            unsafe { libc::mincore(region as *mut libc::c_void, REGION_BYTES, pages.as_mut_ptr()) };
        assert_eq!(rc, 0);
        assert!(pages.iter().all(|resident| resident & 1 == 1));
        assert_eq!(first.load(Ordering::Relaxed), 7);
    }
}
