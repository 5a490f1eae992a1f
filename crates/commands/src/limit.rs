//! `maxmemory` as a limit of what is resident: how much of it is left for data, and how memory for
//! entries is kept in good order near it.
//!
//! **What counts.** The keyspace knows to the byte what is in use ([`Shared::bytes_used`]), and the store
//! how much memory for entries it holds ([`items`]). What else is resident (the program, the allocator's
//! and the tables' slack, stacks, buffers of the back ends) is what the system says less these: it is
//! measured ten times a second, and fifty times near the limit, believed at once when it grows and slowly
//! when it shrinks. So the sum is the process' resident memory at any moment, but for what the last part
//! did since it was measured.
//!
//! **What data may be** is `maxmemory` less that last part and less some headroom: a share of the memory
//! for entries is always free slots, as sizes are never what fits. Writes evict down to it one for one,
//! as ever ([`crate::evict`]). Nobody waits for a measurement. Whether there is room is one comparison for a
//! write: each worker knows what its own bytes may grow to ([`bytes_until_full`]), anew each millisecond and
//! whenever that is reached.
//!
//! **Free slots of the wrong size** are the trouble when sizes shift: keys that go leave holes between
//! those that stay. Memory for entries is held up to what `maxmemory` allows and no more; when few pages
//! of it are free, who writes first moves some entries together, so that pages become free. Where much
//! must be moved to free one, the headroom grows: more is evicted ahead, there are more holes, and to free
//! a page takes fewer moves. It shrinks again by itself.
//!
//! **After deletes** the workers move entries together in small slices, and give whole regions back to
//! the system.
//!
//! Client buffers count as data does, unless `maxmemory-clients` gives them a part of `maxmemory` of their
//! own: then this part is left free for them, whatever they use of it.
//!
//! A `maxmemory` below [`RESIDENT_FROM`] limits what is in use only: the program alone would fill it.

use crate::context::Worker;
use crate::evict::evict_to;
use crate::shared::Shared;
use crate::system;
use hypercache_stdx::clock;
use hypercache_store::{Gain, Items, Sparse, give_back, give_back_kept, items, set_held_max};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// From here on `maxmemory` is a limit of what is resident.
const RESIDENT_FROM: u64 = 32 << 20;
/// Memory for entries comes in regions of so many bytes.
const REGION: u64 = 2 << 20;
/// Bytes of a page.
const PAGE: u64 = 32 << 10;
/// Where more bytes than these are moved for each that is gained, more is evicted ahead.
const COST_MAX: usize = 6;
/// With fewer free bytes in pages, or no run of pages for the largest slots, entries are moved together.
const FREE_MIN: u64 = 512 << 10;
/// Lots of 32 slots that one write looks at to free pages, at most: some 20 µs.
const MOVED_BY_WRITE: usize = 2;
/// The same where there are hardly any left: some 150 µs.
const MOVED_AT_ONCE: usize = 16;
/// Time of a slice of a worker's upkeep, which runs every millisecond at most.
const SLICE_NS: u64 = 250_000;
/// Keys that go in a slice.
const EVICTED_BY_SLICE: usize = 128;
/// Near the limit what is resident is measured so often.
const MEASURED_EVERY_MS: u64 = 20;
/// Where nothing was worth to be moved, the next look is so much later.
const PATIENCE_MS: u64 = 2;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Limit {
    /// What is resident and neither in use nor memory for entries; 0: not measured yet.
    others: AtomicU64,
    /// What is left free beyond.
    headroom: AtomicU64,
    resident_max: AtomicU64,
    /// When it was measured last, on the clock that never goes back.
    measured_ms: AtomicU64,
    /// What is being emptied.
    sparse: Mutex<Option<Sparse>>,
    /// Before this there is nothing to empty, on the clock that never goes back.
    idle_until_ms: AtomicU64,
}

/// How things stand.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// What is not for client buffers, if these have a budget of their own.
    maxmemory: u64,
    /// The same of what is in use.
    used: u64,
    /// Bytes of client buffers that have a budget of their own.
    clients: u64,
    items: Items,
    others: u64,
}

impl Standing {
    /// What is resident in the end if entries hold as much as they do.
    fn resident(self) -> u64 {
        self.others + self.held() + self.not_of_entries()
    }

    fn held(self) -> u64 {
        self.items.held as u64
    }

    /// What is in use and not memory for entries.
    fn not_of_entries(self) -> u64 {
        self.used.saturating_sub(self.items.used as u64)
    }

    /// A part of the limit for what happens between measurements.
    fn margin(self) -> u64 {
        self.maxmemory / 64 + (1 << 20)
    }

    /// Bytes of regions that may be held.
    fn held_max(self) -> u64 {
        let others = self.others + self.not_of_entries() + self.margin();
        self.maxmemory.saturating_sub(others) / REGION * REGION
    }

    fn is_limited(self) -> bool {
        self.maxmemory >= RESIDENT_FROM && self.others > 0
    }

    /// What entries are to be moved for, if they are: at once.
    fn needs(self) -> Option<Gain> {
        if !self.is_limited() || self.held() < self.held_max() {
            return None;
        }
        if self.held() > self.held_max() {
            return Some(Gain::Region);
        }
        match (self.items.free as u64) < FREE_MIN {
            true => Some(Gain::Pages),
            false => (!self.items.has_run).then_some(Gain::Run),
        }
    }

    /// Whether each write is to ask: the next ones may use up the free pages, a slab of some each.
    fn is_short_soon(self) -> bool {
        let has_few = (self.items.free as u64) < 4 * FREE_MIN || !self.items.has_run;
        self.is_limited() && self.held() >= self.held_max() && has_few
    }

    /// The same, when there is time.
    fn wants(self) -> Option<Gain> {
        let unused = (self.items.holes() + self.items.free) as u64;
        self.needs().or_else(|| (unused > 2 * REGION + self.held() / 8).then_some(Gain::Region))
    }

    /// Free regions that are not given back to the system.
    fn regions_kept(self) -> usize {
        match self.maxmemory {
            0 => 1,
            _ if self.held() > self.held_max() => 0,
            _ => 1 + (self.held() / REGION / 32) as usize,
        }
    }
}

impl Limit {
    fn standing(&self, shared: &Shared, maxmemory: u64) -> Standing {
        let (used, others) = (shared.bytes_used(), self.others.load(Relaxed));
        let budget = shared.config.hot.clients_bytes_max();
        let clients = if budget == 0 { 0 } else { shared.sum(|stats| stats.client_bytes()) };
        Standing {
            maxmemory: maxmemory.saturating_sub(budget),
            used: used.saturating_sub(clients),
            clients,
            items: items(),
            others,
        }
    }

    /// The most bytes of the process that were resident when they were measured.
    pub(crate) fn resident_max(&self) -> u64 {
        self.resident_max.load(Relaxed)
    }

    /// Whether entries are being moved together.
    pub(crate) fn is_emptying(&self) -> bool {
        self.sparse.try_lock().is_none_or(|sparse| sparse.is_some())
    }

    /// Bytes that may be in use under a limit.
    fn used_max(&self, standing: Standing) -> u64 {
        if !standing.is_limited() {
            return standing.maxmemory;
        }
        let beyond = standing.others + standing.margin() + self.headroom.load(Relaxed);
        standing.maxmemory.saturating_sub(beyond)
    }

    /// Measures what is resident, and lets the headroom shrink. To be called ten times a second.
    pub fn measure(&self, shared: &Shared) {
        self.note_resident(shared);
        let least = least_headroom(items());
        let headroom = self.headroom.load(Relaxed);
        self.headroom.store(least.max(headroom - headroom.saturating_sub(least) / 32), Relaxed);
    }

    /// Measures what is resident, if that was not done for a while.
    fn note_resident_if_old(&self, shared: &Shared) {
        let (now_ms, before_ms) = (clock::mono_ms(), self.measured_ms.load(Relaxed));
        let is_old = now_ms >= before_ms + MEASURED_EVERY_MS;
        let is_mine = || self.measured_ms.compare_exchange(before_ms, now_ms, Relaxed, Relaxed);
        if is_old && is_mine().is_ok() {
            self.note_resident(shared);
        }
    }

    fn note_resident(&self, shared: &Shared) {
        let resident = system::rss_bytes();
        self.resident_max.fetch_max(resident, Relaxed);
        let now = self.standing(shared, shared.config.hot.maxmemory.load(Relaxed));
        let known = now.held() + now.not_of_entries() + now.clients;
        let others = resident.saturating_sub(known).max(1);
        let before = self.others.load(Relaxed);
        self.others.store(others.max(before - before.saturating_sub(others) / 32), Relaxed);
        self.measured_ms.store(clock::mono_ms(), Relaxed);
    }

    /// Has more evicted ahead, up to a share of the memory for entries.
    fn widen(&self, bytes: u64) {
        let headroom = self.headroom.load(Relaxed);
        let most = (items().held as u64 / 4).max(headroom);
        self.headroom.store((headroom + bytes).min(most), Relaxed);
    }

    /// Sees to it that there are free pages.
    fn keep_pages(&self, shared: &Shared, standing: Standing) {
        let Some(gain) = standing.needs() else { return };
        let before_ms = self.idle_until_ms.load(Relaxed);
        let is_urgent = gain == Gain::Region || (standing.items.free as u64) < FREE_MIN / 2;
        self.empty_some(shared, gain, if is_urgent { MOVED_AT_ONCE } else { MOVED_BY_WRITE });
        let is_in_vain = self.idle_until_ms.load(Relaxed) != before_ms;
        if is_urgent || is_in_vain {
            self.widen(PAGE);
        }
        if gain == Gain::Region {
            let _as_it_is = give_back(0, 1);
        }
    }

    /// Moves entries together, `steps` times some. Returns whether there was anything to do.
    fn empty_some(&self, shared: &Shared, gain: Gain, steps: usize) -> bool {
        // Somebody else does it if it is locked.
        let Some(mut sparse) = self.sparse.try_lock() else { return false };
        for _ in 0..steps {
            if sparse.is_none() && self.idle_until_ms.load(Relaxed) > clock::mono_ms() {
                return false;
            }
            if sparse.is_none() {
                *sparse = Sparse::close(gain);
                if sparse.as_ref().is_some_and(|sparse| sparse.cost > COST_MAX) {
                    self.widen(4 * PAGE);
                }
            }
            let Some(there) = &mut *sparse else {
                self.idle_until_ms.store(clock::mono_ms() + PATIENCE_MS, Relaxed);
                return false;
            };
            if !shared.keyspace.move_some(there) {
                *sparse = None;
            }
        }
        true
    }
}

/// What is left free of memory for entries: what is not a region, free pages, and a share for holes.
fn least_headroom(items: Items) -> u64 {
    REGION / 2 + FREE_MIN + items.used as u64 / 64
}

/// What a worker's own bytes may grow to before memory may be above the limit, whatever the others do
/// meanwhile: each has its share of the room that there is now.
pub(crate) fn bytes_until_full(shared: &Shared, own: isize) -> isize {
    let maxmemory = shared.config.hot.maxmemory.load(Relaxed);
    if maxmemory == 0 {
        set_held_max(usize::MAX);
        return isize::MAX;
    }
    let mut standing = shared.limit.standing(shared, maxmemory);
    if standing.is_limited() && standing.resident() > standing.maxmemory / 8 * 7 {
        shared.limit.note_resident_if_old(shared);
        standing = shared.limit.standing(shared, maxmemory);
    }
    let held_max = if standing.is_limited() { standing.held_max() as usize } else { usize::MAX };
    set_held_max(held_max);
    let room = shared.limit.used_max(standing) as isize - standing.used as isize;
    match room > 0 {
        true if standing.is_short_soon() => own - 1,
        true => own + room / shared.workers() as isize,
        false => own + room,
    }
}

/// Whether a write may go on: memory is below the limit, or could be brought there.
#[inline]
pub(crate) fn make_room(shared: &Shared, worker: &mut Worker) -> bool {
    worker.has_room() || make_room_now(shared, worker)
}

#[cold]
fn make_room_now(shared: &Shared, worker: &mut Worker) -> bool {
    let maxmemory = shared.config.hot.maxmemory.load(Relaxed);
    let has_room = maxmemory == 0 || make_room_below(shared, worker, maxmemory);
    worker.note_room(shared);
    has_room
}

fn make_room_below(shared: &Shared, worker: &mut Worker, maxmemory: u64) -> bool {
    /// Keys evicted at most for one command, so that a limit lowered far does not stall it; the second
    /// number where the process would be above the limit itself.
    const EVICTED: (usize, usize) = (256, 2048);
    let standing = shared.limit.standing(shared, maxmemory);
    shared.limit.keep_pages(shared, standing);
    let used_max = shared.limit.used_max(standing);
    if standing.used <= used_max {
        return true;
    }
    let is_above = standing.is_limited() && standing.resident() > standing.maxmemory;
    let max = if is_above { EVICTED.1 } else { EVICTED.0 };
    evict_to(shared, worker, used_max + standing.clients, max)
}

/// Gives all free regions back to the system, for MEMORY PURGE.
pub(crate) fn give_back_all() {
    give_back_kept();
    let _how_many = give_back(0, usize::MAX);
}

/// Does a slice of what keeps memory in good order. Returns whether there is more to do soon.
pub fn keep(shared: &Shared, worker: &mut Worker) -> bool {
    let started_ns = clock::mono_ns();
    let maxmemory = shared.config.hot.maxmemory.load(Relaxed);
    let limit = &shared.limit;
    let standing = limit.standing(shared, maxmemory);
    let used_max = limit.used_max(standing);
    let mut has_more = maxmemory > 0
        && standing.used > used_max
        && evict_to(shared, worker, used_max + standing.clients, EVICTED_BY_SLICE)
        && shared.bytes_used() > used_max + standing.clients;
    while clock::mono_ns() - started_ns < SLICE_NS
        && let Some(gain) = limit.standing(shared, maxmemory).wants()
        && limit.empty_some(shared, gain, 1)
    {
        has_more = true;
    }
    const GIVEN_BACK: usize = 2;
    has_more | (give_back(standing.regions_kept(), GIVEN_BACK) == GIVEN_BACK)
}
