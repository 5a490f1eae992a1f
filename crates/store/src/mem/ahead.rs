//! Memory for entries, made resident ahead of its use.
//!
//! Entries come from the process allocator, whose memory is huge pages where the system lends them. The
//! first touch of one takes as long as the system needs to find and clear 2 MiB, 4 to 8 ms as measured
//! on a virtual machine, and the request that touches it first would wait for that.
//!
//! An allocator with segments (mimalloc's have 32 MiB) hands out fresh memory of a segment from its
//! start to its end. So when a thread gets an entry that lies in the second half of a huge page, higher
//! than all before, the next huge page is what it will touch next: the thread that touches regions
//! ([`super::region`]) makes it resident meanwhile. Where that was a wrong guess, a page that was not
//! needed is resident: up to 2 MiB for each thread that inserts, and one each time that the guess leads
//! out of the allocator's memory. Where there is no such order, or the thread does not get to run in
//! time, it is as without it.
//!
//! Cost: a comparison for each new entry.

use super::region::{REGION_BYTES as HUGE_PAGE_BYTES, toucher};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So far into a huge page the next one is asked for.
const ASK_AT: usize = HUGE_PAGE_BYTES / 2;
/// Pages asked for at a time; further ones are not made resident.
const ASKED_MAX: usize = 8;

/// Addresses of pages that were asked for; 0: none.
static ASKED: [AtomicUsize; ASKED_MAX] = [const { AtomicUsize::new(0) }; ASKED_MAX];

thread_local! {
    /// The address of an entry from which on the next page is asked for.
    static ASK_FROM: Cell<usize> = const { Cell::new(0) };
}

/// Notes where a new entry of this thread lies.
#[inline]
pub(crate) fn note(address: usize) {
    ASK_FROM.with(|from| {
        if address >= from.get() {
            from.set(ask_from_after(address, ask));
        }
    });
}

/// From which address on to ask the next time, after an entry at `address` was the highest. Asks now
/// if it lies in the second half of its page.
#[cold]
fn ask_from_after(address: usize, ask: impl FnOnce(usize)) -> usize {
    let page = address & !(HUGE_PAGE_BYTES - 1);
    if address - page < ASK_AT {
        return page + ASK_AT;
    }
    ask(page + HUGE_PAGE_BYTES);
    page + HUGE_PAGE_BYTES + ASK_AT
}

fn ask(page: usize) {
    let is_free = |slot: &&AtomicUsize| {
        slot.compare_exchange(0, page, Ordering::Release, Ordering::Relaxed).is_ok()
    };
    if ASKED.iter().find(is_free).is_some()
        && let Some(toucher) = toucher()
    {
        toucher.unpark();
    }
}

/// Makes the pages resident that were asked for.
pub(super) fn populate_asked() {
    for slot in &ASKED {
        let page = slot.swap(0, Ordering::Acquire);
        if page != 0 {
            populate(page);
        }
    }
}

fn populate(page: usize) {
    let start = page as *mut libc::c_void;
    // SAFETY: this advice changes no contents, whoever uses the memory, and fails where there is none.
    let _is_a_guess = unsafe { libc::madvise(start, HUGE_PAGE_BYTES, libc::MADV_POPULATE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(addresses: &[usize]) -> Vec<usize> {
        let mut asked = Vec::new();
        let mut from = 0;
        for &address in addresses {
            if address >= from {
                from = ask_from_after(address, |page| asked.push(page / HUGE_PAGE_BYTES));
            }
        }
        asked
    }

    #[test]
    fn each_page_is_asked_for_once_from_half_of_the_one_before() {
        let step = HUGE_PAGE_BYTES / 8;
        let addresses: Vec<usize> = (8..40).map(|i| i * step).collect();
        assert_eq!(asked_by(&addresses), [2, 3, 4, 5]);
        // What lies lower was touched before.
        let twice = [&addresses[..], &addresses].concat();
        assert_eq!(asked_by(&twice), [2, 3, 4, 5]);
        // A new segment: only what follows where entries are is asked for.
        assert_eq!(asked_by(&[11 * step, 800 * step, 805 * step]), [101]);
    }

    #[test]
    fn a_page_that_was_asked_for_is_resident_and_keeps_its_contents() {
        let page = super::super::region::map(HUGE_PAGE_BYTES, super::super::region::Pages::Huge);
        // SAFETY: the page was just mapped, is aligned, and nobody else has it.
        let first = unsafe { AtomicUsize::from_ptr(page as *mut usize) };
        first.store(7, Ordering::Relaxed);
        populate(page);
        let mut pages = [0u8; HUGE_PAGE_BYTES / 4096];
        // SAFETY: there is a byte for each small page of the range, which is mapped.
        let rc = unsafe {
            libc::mincore(page as *mut libc::c_void, HUGE_PAGE_BYTES, pages.as_mut_ptr())
        };
        assert_eq!(rc, 0);
        assert!(pages.iter().all(|resident| resident & 1 == 1));
        assert_eq!(first.load(Ordering::Relaxed), 7);
    }
}
