//! Regions of 2 MiB for the buckets of tables, huge pages if they can be made ready in time.
//!
//! **No fault of a huge page in a growth step.** The first touch of a huge page takes as long as the
//! system needs to find and clear 2 MiB: 4 to 13 ms as measured on a virtual machine. So a thread
//! ([`touch_regions`]) touches the next region while the last quarter of the current one is used. It
//! runs only while a core has nothing else to do: else to prepare would itself make requests wait. A
//! region that is needed before it is ready, as the first one is, is of small pages.
//!
//! The thread does nothing but touch: what changes the map of the process waits for faults that are
//! under way, so it is done rarely, for an area of many regions, and by whoever needs the region.
//!
//! Measured while 20 M keys were inserted: of 6.3 M growth steps the longest took 12.8 ms before and
//! 0.15 ms after; see `docs/design/002-growth-steps.md`. What it costs is up to 2 MiB that are resident
//! before they are used. It does not help a table of more than 1.5 M keys in one partition, whose blocks
//! are mappings of their own ([`map`]). The same thread looks after memory for entries ([`ahead`]).

use super::ahead;
use super::pool::Bucket;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};

/// Bytes of a region: a huge page.
pub(crate) const REGION_BYTES: usize = 2 << 20;
/// Regions whose address space is mapped at a time.
pub(crate) const AREA_REGIONS: usize = 32;
const AREA_BYTES: usize = AREA_REGIONS * REGION_BYTES;
const PAGE_BYTES: usize = 4096;

/// Address of the region that is to be touched next; 0: there is none.
static TO_TOUCH: AtomicUsize = AtomicUsize::new(0);
/// Address of the region that was touched ahead of its use; 0: there is none.
static READY: AtomicUsize = AtomicUsize::new(0);

/// What pages memory is made of, if the system has a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Slow to touch for the first time, fast to use.
    Huge,
    /// The other way round.
    Small,
}

/// Address space that regions are taken from.
struct Area {
    pages: Pages,
    next: usize,
    end: usize,
}

impl Area {
    const fn new(pages: Pages) -> Self {
        Area { pages, next: 0, end: 0 }
    }

    fn take(&mut self) -> usize {
        if self.next == self.end {
            self.next = map(AREA_BYTES, self.pages);
            self.end = self.next + AREA_BYTES;
        }
        let region = self.next;
        self.next += REGION_BYTES;
        region
    }
}

/// Where regions come from. There is one, in the pool.
pub(crate) struct Regions {
    huge: Area,
    small: Area,
    /// Whether a region was given to the thread and did not come back yet.
    is_preparing: bool,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Regions {
            huge: Area::new(Pages::Huge),
            small: Area::new(Pages::Small),
            is_preparing: false,
        }
    }

    /// A fresh region of zeroes.
    pub(crate) fn take(&mut self) -> usize {
        match READY.swap(0, Ordering::Acquire) {
            0 => self.small.take(),
            region => {
                self.is_preparing = false;
                region
            }
        }
    }

    /// Has the next region touched, unless one is or is being.
    pub(crate) fn prepare(&mut self) {
        if std::mem::replace(&mut self.is_preparing, true) {
            return;
        }
        TO_TOUCH.store(self.huge.take(), Ordering::Release);
        // Without the thread all regions are of small pages, as if none was ever ready.
        if let Some(toucher) = toucher() {
            toucher.unpark();
        }
    }
}

/// The thread that touches regions, started if it was not there.
pub(crate) fn toucher() -> Option<&'static Thread> {
    static TOUCHER: OnceLock<Option<Thread>> = OnceLock::new();
    let toucher = TOUCHER.get_or_init(|| {
        let spawned = thread::Builder::new().name("hc-pages".into()).spawn(touch_regions);
        spawned.ok().map(|handle| handle.thread().clone())
    });
    toucher.as_ref()
}

/// Whether a region was touched ahead of its use, and not taken yet.
#[cfg(test)]
pub(crate) fn is_ready() -> bool {
    READY.load(Ordering::Acquire) != 0
}

/// What the thread does.
fn touch_regions() {
    // SAFETY: a structure of integers, for which zero is valid, and is what this policy wants.
    let priority: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: number 0 is the calling thread; the structure lives until the call returns.
    let _preference_is_optional =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
    loop {
        let region = TO_TOUCH.swap(0, Ordering::Acquire);
        if region != 0 {
            touch(region);
            READY.store(region, Ordering::Release);
        }
        ahead::populate_asked();
        thread::park();
    }
}

/// Makes all pages of a region resident.
fn touch(region: usize) {
    for page in (region..region + REGION_BYTES).step_by(PAGE_BYTES) {
        // SAFETY: the page lies in a mapping of zeroes, is aligned, and nobody else has it yet.
        let word = unsafe { AtomicU64::from_ptr(page as *mut u64) };
        word.store(0, Ordering::Relaxed);
    }
}

/// Maps fresh zeroed memory, aligned to a huge page. Fails only when the machine has none left,
/// where a cache that must grow its table cannot go on.
pub(crate) fn map(bytes: usize, pages: Pages) -> usize {
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
    debug_assert_eq!(start % align_of::<Bucket>(), 0);
    let advice = if pages == Pages::Huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: the range lies inside the mapping made above; the advice changes no contents.
    let _advice_is_optional = unsafe { libc::madvise(start as *mut libc::c_void, bytes, advice) };
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_give_each_region_once() {
        let mut area = Area::new(Pages::Small);
        let mut regions: Vec<usize> = (0..70).map(|_| area.take()).collect();
        regions.sort_unstable();
        assert!(regions.iter().all(|region| region % REGION_BYTES == 0));
        assert!(regions.windows(2).all(|pair| pair[1] - pair[0] >= REGION_BYTES));
    }
}
