//! One logical database of one partition: table, expiry index, accounting. The safe face of the
//! store.
//!
//! Deadlines are milliseconds since the Unix epoch; a key is expired when the time is *past* its
//! deadline, as in Redis. Nothing here looks at a clock or removes an expired key by itself: the
//! caller decides, because a removal is an effect that must be reported.

mod care;
mod evict;
mod walk;

pub use evict::{BATCH_MAX, Choice, expect};

use crate::care::CareBytes;
use crate::evict::{Mode, Tally, Uses};
use crate::found::{Due, Edited, EntryRef, Live, Removed, Use, Was};
use crate::mark::Mark;
use crate::mem::entry::{Blob, EntryPtr, INLINE_MAX, OwnedEntry};
use crate::table::{Core, Hint, Place, Table, prefetch_value};
use crate::tags::Tags;
use crate::types::{Collection, Kind, Object};
use crate::wheel::Wheel;
use hypercache_stdx::hash::KeyHasher;
use std::mem::offset_of;
use std::sync::Arc;

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The key itself.
    pub bytes: &'a [u8],
    /// Its hash under the keyspace's [`KeyHasher`].
    pub hash: u64,
    /// Where it was when it was prefetched, if it was. A hint that does not hold is ignored.
    pub hint: Option<&'a Hint>,
}

impl<'a> Key<'a> {
    /// A key whose bucket was not prefetched.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8], hash: u64) -> Self {
        Key { bytes, hash, hint: None }
    }
}

/// A value on its way into the store.
#[derive(Debug, Clone)]
pub enum Payload<'a> {
    /// Bytes to copy.
    Slice(&'a [u8]),
    /// A buffer to adopt.
    Blob(Arc<Blob>),
}

impl Payload<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Slice(bytes) => bytes,
            Payload::Blob(blob) => blob,
        }
    }
}

/// What a write does to the key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Leaves it.
    Keep,
    /// Removes it.
    Clear,
    /// Sets it, in milliseconds since the epoch.
    At(u64),
}

/// See the module's text. The table comes first, so that it is on the same cache line as the start.
#[repr(C)]
pub struct Db {
    table: Table,
    /// What is kept of uses.
    mode: Mode,
    tally: Tally,
    wheel: Wheel,
    /// Keys that have a deadline.
    expires: usize,
    /// Keys that hold something with a deadline of its own, as a field of a hash.
    timed: usize,
    /// Of entries and of `tags`.
    entry_bytes: usize,
    /// Whether a key whose time is past stays until it is removed: this is a copy of another's, which
    /// decides.
    keeps_expired: bool,
    /// Which keys depend on what, if any ever did.
    tags: Option<Box<Tags>>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db({} keys, {} expires, {} bytes)", self.len(), self.expires, self.bytes())
    }
}

impl Db {
    /// What a use under a policy that learns changes beside the entry: where in a database, and its bytes.
    pub const TALLY: (usize, usize) = (offset_of!(Db, tally), size_of::<Tally>());

    /// An empty database at the time `now_ms`.
    #[must_use]
    pub fn new(hasher: KeyHasher, now_ms: u64) -> Self {
        Db::with_uses(hasher, now_ms, Arc::default(), 0)
    }

    /// An empty database that notes uses as others do; `place` is a number that says which it is.
    #[must_use]
    pub fn with_uses(hasher: KeyHasher, now_ms: u64, uses: Arc<Uses>, place: u16) -> Self {
        Db {
            table: Table::new(hasher),
            mode: uses.mode(),
            wheel: Wheel::new(now_ms),
            expires: 0,
            timed: 0,
            entry_bytes: 0,
            tally: Tally::new(uses, place),
            keeps_expired: false,
            tags: None,
        }
    }

    /// The part that may be prefetched from without the lock.
    #[must_use]
    pub fn core(&self) -> &'static Core {
        self.table.core()
    }

    /// Keys, expired ones that were not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys with a deadline.
    #[must_use]
    pub fn expires(&self) -> usize {
        self.expires
    }

    /// Buckets of the table.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Bytes of entries, table and expiry index.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entry_bytes + self.overhead_bytes()
    }

    /// Bytes of table, expiry index and what is remembered of evicted keys alone.
    #[must_use]
    pub fn overhead_bytes(&self) -> usize {
        self.table.bytes() + self.wheel.bytes() + self.tally.bytes()
    }

    /// The entry of `key`, expired or not.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let entry = self.table.find(key)?.entry();
        (!self.is_hidden(entry)).then(|| EntryRef::new(entry))
    }

    /// The entry of `key` if its time is not past at `now_ms`, noting the use when `touch` gives
    /// the seconds of the server's clock. An expired entry is taken out.
    #[inline(always)]
    pub fn get_live(&mut self, key: Key<'_>, now_ms: u64, touch: Option<u32>) -> Live<'_> {
        let Some(place) = self.table.find(key) else { return Live::Missing };
        let entry = place.entry();
        if entry.may_be_over(now_ms) && self.is_over(entry, now_ms) {
            if self.keeps_expired {
                return Live::Missing;
            }
            return Live::Expired(self.remove_place(key.hash, place));
        }
        if let Some(seconds) = touch {
            self.note_use(key.hash, entry, seconds);
        }
        Live::Is(EntryRef::new(entry))
    }

    /// Brings the object that a hint leads to towards the cache, or what it owns, if it is there
    /// already. To be called after the last step of the hint, and under the lock, as a hint alone may
    /// lead to what is gone.
    #[inline]
    pub fn prefetch_object(&self, hash: u64, hint: &Hint, is_there: bool) {
        let Some(object) = self.table.hinted(hash, hint).and_then(EntryPtr::object) else { return };
        if is_there {
            object.prefetch_parts();
        } else {
            prefetch_value(object);
        }
    }

    /// As [`Self::get_live`] on behalf of a memcached client, which is noted.
    #[inline(always)]
    pub fn read_item(&mut self, key: Key<'_>, now_ms: u64, seconds: u32) -> Live<'_> {
        let live = self.get_live(key, now_ms, Some(seconds));
        if let Live::Is(EntryRef { entry, .. }) = live
            && !entry.is_fetched()
        {
            entry.set_fetched(true);
        }
        live
    }

    /// How the entry of `key` was used so far; notes a read by a memcached client at `touch`.
    pub fn fetch(&mut self, key: Key<'_>, touch: Option<u32>) -> Option<Use> {
        let entry = self.table.find(key)?.entry();
        let before = Use { bits: entry.access(), is_fetched: entry.is_fetched() };
        if let Some(seconds) = touch {
            self.note_use(key.hash, entry, seconds);
            if !before.is_fetched {
                entry.set_fetched(true);
            }
        }
        Some(before)
    }

    /// Notes a use of an entry that is there.
    #[inline(always)]
    fn note_use(&mut self, hash: u64, entry: EntryPtr, seconds: u32) {
        if self.mode == Mode::Time {
            entry.set_access(seconds);
        } else {
            self.tally.note(self.mode, hash, entry, self.table.len(), seconds);
        }
    }

    /// Gives a new entry the use of the one in whose place it comes.
    fn go_on(&mut self, hash: u64, place: Place, new: EntryPtr, touch: Option<u32>) {
        new.set_access(place.entry().access());
        if let Some(seconds) = touch {
            self.note_use(hash, new, seconds);
        }
    }

    /// Stores a string under `key`, whatever it held.
    #[inline(always)]
    pub fn set(&mut self, key: Key<'_>, value: Payload<'_>, ttl: Ttl, seconds: u32) -> Was {
        self.set_marked(key, value, ttl, seconds, Mark::NONE)
    }

    /// Stores a string under `key`, whatever it held, with a mark.
    #[inline]
    pub fn set_marked(
        &mut self,
        key: Key<'_>,
        value: Payload<'_>,
        ttl: Ttl,
        seconds: u32,
        mark: Mark,
    ) -> Was {
        let Some(place) = self.table.find(key) else {
            self.insert(key, value, ttl, seconds, mark);
            return Was::Missing;
        };
        let entry = place.entry();
        let has_room = !matches!(ttl, Ttl::At(_)) || entry.has_deadline_slot();
        if let Payload::Slice(bytes) = value
            && has_room
            && entry.overwrite(bytes, mark)
        {
            entry.set_raw(false);
            self.note_use(key.hash, entry, seconds);
            if entry.has_deadline_slot() {
                self.set_ttl_in_place(key.hash, entry, ttl);
            }
            return Was::Overwritten;
        }
        Was::Replaced(self.replace(key, place, value, ttl, Some(seconds), mark))
    }

    /// Stores an object under `key`, whatever it held.
    pub fn set_object(&mut self, key: Key<'_>, object: Box<Object>, ttl: Ttl, seconds: u32) -> Was {
        let Some(place) = self.table.find(key) else {
            let owned = OwnedEntry::object(key.bytes, object, matches!(ttl, Ttl::At(_)));
            self.insert_entry(key, owned, ttl, seconds);
            return Was::Missing;
        };
        let deadline = deadline_after(place.entry().deadline(), ttl);
        let owned = OwnedEntry::object(key.bytes, object, deadline.is_some());
        self.go_on(key.hash, place, owned.entry(), Some(seconds));
        Was::Replaced(self.swap_entry(key.hash, place, owned, deadline))
    }

    /// Changes the object that `key` holds, and keeps the account; a use if `touch` gives the seconds of
    /// the server's clock. `None` if it holds none.
    #[inline]
    pub fn edit_object<R>(
        &mut self,
        key: Key<'_>,
        touch: Option<u32>,
        f: impl FnOnce(&mut Object) -> R,
    ) -> Option<R> {
        let entry = self.table.find(key)?.entry();
        let object = entry.object_mut()?;
        let (before, soonest) = (object.bytes(), object.next_deadline());
        let result = f(object);
        self.entry_bytes = self.entry_bytes + object.bytes() - before;
        if let Some(seconds) = touch {
            self.note_use(key.hash, entry, seconds);
        }
        self.index_object(key.hash, entry, soonest);
        Some(result)
    }

    /// Changes the collection that `key` holds at the time of `at` (in ms, and in seconds of the
    /// server's clock), and keeps the account: one look at the table for all that a write does. `f`
    /// gets what it is to do as `given`, and says whether it changed anything; a collection that it
    /// left empty goes with its key.
    #[inline]
    pub fn edit_live<T: Collection, R, F>(
        &mut self,
        key: Key<'_>,
        at: (u64, u32),
        given: F,
        f: impl FnOnce(&mut T, F) -> (R, bool),
    ) -> Edited<R, F> {
        let Some(place) = self.table.find(key) else { return Edited::Missing(given) };
        let entry = place.entry();
        if entry.may_be_over(at.0) && self.is_over(entry, at.0) {
            return Edited::Expired(self.remove_place(key.hash, place), given);
        }
        let Some(value) = entry.object_mut().and_then(T::of_mut) else { return Edited::OtherType };
        let (bytes, soonest) = (value.bytes(), value.next_deadline());
        let (result, is_changed) = f(value, given);
        if !is_changed {
            self.note_use(key.hash, entry, at.1);
            return Edited::Done { result, removed: None, has_other_size: false };
        }
        let bytes_now = value.bytes();
        self.entry_bytes = self.entry_bytes + bytes_now - bytes;
        let is_empty = value.is_empty();
        if value.next_deadline() != soonest {
            self.index_object(key.hash, entry, soonest);
        }
        self.note_use(key.hash, entry, at.1);
        let removed = if is_empty { Some(self.remove_place(key.hash, place)) } else { None };
        Edited::Done { result, removed, has_other_size: bytes_now != bytes }
    }

    /// Sees to it that an entry is looked at when something that its object holds is due; `before` is
    /// when that was before a change.
    #[inline]
    fn index_object(&mut self, hash: u64, entry: EntryPtr, before: Option<u64>) {
        let soonest = next_deadline(entry);
        if soonest == before {
            return;
        }
        self.timed += usize::from(soonest.is_some());
        self.timed -= usize::from(before.is_some());
        let Some(at) = soonest else { return };
        let hint_comes_in_time = entry.is_indexed() && before.is_some_and(|before| before <= at);
        if !hint_comes_in_time {
            entry.set_indexed(true);
            self.wheel.add(hash, at);
            self.bound_wheel();
        }
    }

    fn insert(&mut self, key: Key<'_>, value: Payload<'_>, ttl: Ttl, seconds: u32, mark: Mark) {
        let owned = create(key.bytes, value, matches!(ttl, Ttl::At(_)), mark);
        self.insert_entry(key, owned, ttl, seconds);
    }

    fn insert_entry(&mut self, key: Key<'_>, owned: OwnedEntry, ttl: Ttl, seconds: u32) {
        let deadline = deadline_after(None, ttl);
        let entry = owned.entry();
        if self.mode == Mode::Time {
            entry.set_access(seconds);
        } else {
            self.tally.begin(self.mode, key.hash, entry, self.table.len(), seconds);
        }
        self.entry_bytes += entry.bytes_used();
        self.table.insert(key.hash, owned);
        if let Some(at) = deadline {
            self.set_ttl_in_place(key.hash, entry, Ttl::At(at));
        }
        self.index_object(key.hash, entry, None);
    }

    fn replace(
        &mut self,
        key: Key<'_>,
        place: Place,
        value: Payload<'_>,
        ttl: Ttl,
        touch: Option<u32>,
        mark: Mark,
    ) -> Removed {
        let deadline = deadline_after(place.entry().deadline(), ttl);
        let entry = create(key.bytes, value, deadline.is_some(), mark);
        self.go_on(key.hash, place, entry.entry(), touch);
        self.swap_entry(key.hash, place, entry, deadline)
    }

    /// Puts `entry` in the place of the key's old one, which is returned, and sets its deadline.
    fn swap_entry(
        &mut self,
        hash: u64,
        place: Place,
        new: OwnedEntry,
        deadline: Option<u64>,
    ) -> Removed {
        let entry = new.entry();
        let owned_old = place.replace(new);
        let old = owned_old.entry();
        self.entry_bytes += entry.bytes_used();
        self.entry_bytes -= old.bytes_used();
        // A hint in the wheel is found by hash, so it now stands for the new entry.
        entry.set_indexed(old.is_indexed());
        if entry.has_deadline_slot() {
            entry.set_deadline(old.deadline());
            self.set_ttl_in_place(hash, entry, deadline.map_or(Ttl::Clear, Ttl::At));
        } else if old.deadline().is_some() {
            self.expires -= 1;
        }
        self.timed -= usize::from(next_deadline(old).is_some());
        self.index_object(hash, entry, None);
        self.count_tags(entry, true);
        self.count_tags(old, false);
        Removed(owned_old)
    }

    /// Sets the deadline of an entry that has room for it, and keeps count and index.
    fn set_ttl_in_place(&mut self, hash: u64, entry: EntryPtr, ttl: Ttl) {
        let new = match ttl {
            Ttl::Keep => return,
            Ttl::Clear => None,
            Ttl::At(at) => Some(at),
        };
        if !entry.has_deadline_slot() {
            debug_assert!(new.is_none(), "an entry without room was given a deadline");
            return;
        }
        let old = entry.deadline();
        entry.set_deadline(new);
        self.expires += usize::from(new.is_some());
        self.expires -= usize::from(old.is_some());
        let Some(at) = new else { return };
        let hint_comes_in_time = entry.is_indexed() && old.is_some_and(|old| old <= at);
        if hint_comes_in_time {
            return;
        }
        entry.set_indexed(true);
        self.wheel.add(hash, at);
        self.bound_wheel();
    }

    /// Stale hints may outnumber live ones only up to a bound; beyond it the wheel is made anew.
    fn bound_wheel(&mut self) {
        let bound = 2 * (self.expires + self.timed) + self.len() / 2 + 64;
        if self.wheel.len() <= bound {
            return;
        }
        let mut wheel = self.wheel.emptied();
        let hashes = self.table.hasher();
        self.table.for_each(|entry| {
            let wake = wake_at(entry);
            entry.set_indexed(wake.is_some());
            if let Some(at) = wake {
                wheel.add(hashes.hash(entry.key()), at);
            }
        });
        self.wheel = wheel;
    }

    /// Changes the deadline of a key. Returns whether the key is there.
    pub fn set_ttl(&mut self, key: Key<'_>, ttl: Ttl) -> bool {
        let Some(place) = self.table.find(key) else { return false };
        let entry = place.entry();
        if let Ttl::At(at) = ttl
            && !entry.has_deadline_slot()
        {
            let copy = self.take_apart(key, entry, true, entry.mark());
            self.swap_entry(key.hash, place, copy, Some(at));
            return true;
        }
        self.set_ttl_in_place(key.hash, entry, ttl);
        true
    }

    /// A new entry with the value and the use of `entry`, which is left without its blob or object.
    fn take_apart(
        &mut self,
        key: Key<'_>,
        entry: EntryPtr,
        expiry: bool,
        mark: Mark,
    ) -> OwnedEntry {
        if !entry.care().is_empty() {
            let care = CareBytes::from_slice(entry.care());
            let copy = self.take_apart_with(key, entry, &care);
            copy.entry().set_mark(mark);
            return copy;
        }
        let before = entry.bytes_used();
        let copy = match (entry.take_object(), entry.take_blob()) {
            (Some(object), _) => OwnedEntry::object(key.bytes, object, expiry),
            (None, Some(blob)) => OwnedEntry::external(key.bytes, blob, expiry, mark),
            (None, None) => OwnedEntry::inline(key.bytes, entry.value(), expiry, mark),
        };
        self.entry_bytes -= before - entry.bytes_used();
        self.timed -= usize::from(next_deadline(copy.entry()).is_some());
        copy.entry().set_raw(entry.is_raw());
        copy.entry().set_access(entry.access());
        copy.entry().set_fetched(entry.is_fetched());
        copy
    }

    /// Changes the mark of a string. Returns whether the key holds one.
    pub fn set_mark(&mut self, key: Key<'_>, mark: Mark) -> bool {
        let Some(place) = self.table.find(key) else { return false };
        let entry = place.entry();
        if entry.kind() != Kind::String {
            return false;
        }
        if !entry.set_mark(mark) {
            let deadline = entry.deadline();
            let copy = self.take_apart(key, entry, deadline.is_some(), mark);
            self.swap_entry(key.hash, place, copy, deadline);
        }
        true
    }

    /// Makes the string of `key` exactly `len` bytes long (new bytes are zero, a missing key is
    /// made) and hands it out for writing. Keeps deadline, client flags and care. Where the length stays
    /// the same it also keeps that the value is stale, as memcached does when it counts.
    pub fn edit(&mut self, key: Key<'_>, len: usize, seconds: u32, f: impl FnOnce(&mut [u8])) {
        let there = self.table.find(key);
        let place = there.unwrap_or_else(|| {
            self.insert(key, Payload::Slice(b""), Ttl::Clear, seconds, Mark::NONE);
            self.table.find(key).expect("it was just inserted")
        });
        let entry = place.entry();
        let care = self.care_of(EntryRef::new(entry));
        let fits_inline = len <= INLINE_MAX;
        if !entry.is_external() && fits_inline {
            self.edit_inline(key, place, len, f);
        } else {
            self.edit_blob(key, place, len, f);
        }
        let entry = self.table.find(key).expect("editing keeps the key").entry();
        entry.set_raw(true);
        if there.is_some() {
            self.note_use(key.hash, entry, seconds);
        }
        let mark = entry.mark();
        if mark.cas != 0 {
            self.set_mark(key, Mark { cas: 0, ..mark });
        }
        if let Some(care) = care {
            self.set_care(key, &care);
        }
    }

    fn edit_inline(&mut self, key: Key<'_>, place: Place, len: usize, f: impl FnOnce(&mut [u8])) {
        let entry = place.entry();
        if entry.value().len() == len {
            f(entry.value_mut());
            return;
        }
        let mut bytes = entry.value().to_vec();
        bytes.resize(len, 0);
        f(&mut bytes);
        let mark = entry.mark().of_next_value();
        if !entry.overwrite(&bytes, mark) {
            self.replace(key, place, Payload::Slice(&bytes), Ttl::Keep, None, mark);
        }
    }

    fn edit_blob(&mut self, key: Key<'_>, place: Place, len: usize, f: impl FnOnce(&mut [u8])) {
        let entry = place.entry();
        let before = entry.bytes_used();
        if let Some(mut blob) = entry.take_blob() {
            // A reply may still hold the old bytes; then this copies.
            let bytes = Arc::make_mut(&mut blob);
            let is_same_len = bytes.len() == len;
            bytes.resize(len, 0);
            f(bytes);
            entry.put_blob(blob);
            self.entry_bytes += entry.bytes_used();
            self.entry_bytes -= before;
            if !is_same_len {
                entry.set_fetched(false);
                self.set_mark(key, entry.mark().of_next_value());
            }
            return;
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(entry.value());
        bytes.resize(len, 0);
        f(&mut bytes);
        let mark = entry.mark().of_next_value();
        self.replace(key, place, Payload::Blob(Arc::new(bytes)), Ttl::Keep, None, mark);
    }

    /// Marks the value as edited in place or not (see [`EntryRef::is_raw`]).
    pub fn set_raw(&mut self, key: Key<'_>, raw: bool) {
        if let Some(place) = self.table.find(key) {
            place.entry().set_raw(raw);
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: Key<'_>) -> Option<Removed> {
        let place = self.table.find(key)?;
        Some(self.remove_place(key.hash, place))
    }

    #[inline(never)]
    fn remove_place(&mut self, hash: u64, place: Place) -> Removed {
        let owned = self.table.remove(hash, place);
        let entry = owned.entry();
        self.entry_bytes -= entry.bytes_used();
        self.expires -= usize::from(entry.deadline().is_some());
        self.timed -= usize::from(next_deadline(entry).is_some());
        self.count_tags(entry, false);
        Removed(owned)
    }

    /// Removes up to `max` keys whose time is past at `now_ms`, handing each to `f`; hands `f` the keys
    /// of objects that hold something whose time is past, for the caller to remove.
    /// Returns how many hints were looked at: fewer than `max` means that nothing more is due.
    pub fn expire_due(&mut self, now_ms: u64, max: usize, f: &mut dyn FnMut(Due<'_>)) -> usize {
        let mut due = Vec::new();
        // The wheel's tick lies after the deadline, so what it gives is past, not merely reached.
        self.wheel.take_due(now_ms, max, &mut due);
        const AHEAD: usize = 16;
        for batch in due.chunks(AHEAD) {
            let mut hints: Vec<_> =
                batch.iter().map(|&hash| (hash, Hint::new(self.core()))).collect();
            hints.iter_mut().for_each(|(hash, hint)| hint.find_block(*hash));
            hints.iter_mut().for_each(|(_, hint)| hint.find_bucket());
            for (hash, hint) in &mut hints {
                hint.find_entry(*hash);
            }
            for &hash in batch {
                self.look_at_hint(hash, now_ms, f);
            }
        }
        due.len()
    }

    fn look_at_hint(&mut self, hash: u64, now_ms: u64, f: &mut dyn FnMut(Due<'_>)) {
        // Two keys may share bucket and tag. Removing one may move the other, so look again.
        loop {
            let places = self.table.find_tagged(hash);
            let expired = places.iter().find(|p| EntryRef::new(p.entry()).is_expired(now_ms));
            let Some(&place) = expired else {
                for entry in places.iter().map(|p| p.entry()).filter(|entry| entry.is_indexed()) {
                    if next_deadline(entry).is_some_and(|at| now_ms > at) {
                        f(Due::Within(entry.key()));
                    }
                    // After something within was due, the next look finds out when more will be.
                    match wake_at(entry) {
                        Some(at) => self.wheel.add_again(hash, at),
                        None => entry.set_indexed(false),
                    }
                }
                return;
            };
            f(Due::Key(self.remove_place(hash, place)));
        }
    }

    /// Calls `f` with the entries at `cursor` and returns the next cursor, 0 after the last. A key
    /// that is there throughout a walk is seen at least once, whatever else changes.
    pub fn scan(&self, cursor: u32, mut f: impl FnMut(EntryRef<'_>)) -> u32 {
        self.table.scan(cursor, |entry| {
            if !self.is_hidden(entry) {
                f(EntryRef::new(entry));
            }
        })
    }

    /// Calls `f` with every entry.
    pub fn for_each(&self, mut f: impl FnMut(EntryRef<'_>)) {
        self.table.for_each(|entry| {
            if !self.is_hidden(entry) {
                f(EntryRef::new(entry));
            }
        });
    }

    /// An entry at random; `random(n)` must give a number below `n`. None when chance met one that is
    /// gone with its tags.
    pub fn random(&self, random: impl FnMut(u64) -> u64) -> Option<EntryRef<'_>> {
        let entry = self.table.random(random).filter(|entry| !self.is_hidden(*entry))?;
        Some(EntryRef::new(entry))
    }
}

/// When something that an entry's object holds is due at the earliest.
#[inline]
fn next_deadline(entry: EntryPtr) -> Option<u64> {
    entry.object()?.next_deadline()
}

/// When an entry must be looked at.
fn wake_at(entry: EntryPtr) -> Option<u64> {
    [entry.deadline(), next_deadline(entry)].into_iter().flatten().min()
}

/// The deadline of a key after a write, where it was `old`.
fn deadline_after(old: Option<u64>, ttl: Ttl) -> Option<u64> {
    match ttl {
        Ttl::Keep => old,
        Ttl::Clear => None,
        Ttl::At(at) => Some(at),
    }
}

fn create(key: &[u8], value: Payload<'_>, expiry: bool, mark: Mark) -> OwnedEntry {
    match value {
        Payload::Blob(blob) if blob.len() > INLINE_MAX => {
            OwnedEntry::external(key, blob, expiry, mark)
        }
        Payload::Slice(bytes) if bytes.len() > INLINE_MAX => {
            OwnedEntry::external(key, Arc::new(bytes.to_vec()), expiry, mark)
        }
        _ => OwnedEntry::inline(key, value.bytes(), expiry, mark),
    }
}
