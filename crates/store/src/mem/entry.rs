//! One key with its value in one allocation.
//!
//! ```text
//! offset  0        4          6        7      8
//!         access   value_len  key_len  flags  [deadline 8] [key_len 4] key… value… [mark…]
//!         u32      u16        u8       u8     if EXPIRY    if 255               if MARKED
//! ```
//! The header is 8 bytes, so a 16-byte key with an 8-byte value takes one 32-byte class, and a
//! deadline costs 8 bytes only for keys that have one. A key of 255 bytes or more keeps its length
//! in four further bytes. A value above [`INLINE_MAX`] lives in a [`Blob`] of its own and the value
//! part is the pointer to it: a reply can then hold the blob instead of copying it, and a value
//! that arrived in one piece becomes the blob without a copy.
//!
//! The low three bits of the flags are the [`Kind`]. An entry that is no string has a pointer to its
//! [`Object`] as value part, whatever the object's size.
//!
//! The highest bit of `value_len` says whether a memcached client read the value; what else that
//! protocol keeps, and what is kept of a value that was loaded from elsewhere, is the tail, which few
//! entries have: see [`tail`].
//!
//! The highest bit of the deadline says that more than the deadline decides whether the key is there.
//! As a signed number such a deadline lies before all others, so whoever compares it with the time
//! finds out without a further look at entries that have no such bit.
//!
//! `access` belongs to the eviction policy and OBJECT IDLETIME (seconds of the server's clock).
//!
//! # Safety of the module
//! An [`EntryPtr`] points to an entry that is alive: owned either by an [`OwnedEntry`] or by the
//! table that links to it. The table and [`crate::Db`] hand out references bound to their own
//! borrow only, and an entry is destroyed only by the drop of an `OwnedEntry`.

mod tail;

use super::classes::{SLOT_MAX, slot_size};
use super::{class_size, slots};
use crate::mark::Mark;
use crate::types::{Kind, Object};
use std::ptr::NonNull;
use std::sync::Arc;

/// Longest value that is kept inside the entry, in bytes.
pub const INLINE_MAX: usize = 16 * 1024;

/// A large value, shared between the store and replies on their way out.
pub type Blob = Vec<u8>;

/// "No deadline" in an entry that has room for one.
const NO_DEADLINE: u64 = i64::MAX as u64;
/// In the deadline: whether the key is there depends on its tail, too.
const DEPENDS: u64 = 1 << 63;

const HEADER: usize = 8;
const KIND: u8 = 0x07;
const MARKED: u8 = 0x08;
const EXPIRY: u8 = 0x10;
const EXTERNAL: u8 = 0x20;
const RAW: u8 = 0x40;
const INDEXED: u8 = 0x80;
const LONG_KEY: u8 = 255;
/// In `value_len`.
const FETCHED: u16 = 0x8000;

/// What is needed to lay out an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    key_len: usize,
    value_len: usize,
    expiry: bool,
    mark_len: usize,
}

impl Shape {
    /// `value_len` is that of the inline part: 8 for an external value.
    pub(crate) fn new(key_len: usize, value_len: usize, expiry: bool, mark_len: usize) -> Self {
        Shape { key_len, value_len, expiry, mark_len }
    }

    #[inline(always)]
    fn key_offset(self) -> usize {
        let long = if self.key_len >= LONG_KEY as usize { 4 } else { 0 };
        HEADER + if self.expiry { 8 } else { 0 } + long
    }

    #[inline(always)]
    fn bytes(self) -> usize {
        self.key_offset() + self.key_len + self.value_len + self.mark_len
    }

    /// Bytes of its slot.
    #[inline(always)]
    fn class(self) -> usize {
        slot_size(self.bytes())
    }
}

/// A handle to a live entry. See the module's safety paragraph for who keeps it valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryPtr(NonNull<u8>);

// SAFETY: an entry is plain bytes plus an `Arc<Blob>` or a `Box<Object>`, all of which may move
// between threads; the partition's lock orders all access.
unsafe impl Send for EntryPtr {}

impl EntryPtr {
    /// Allocates an entry with `key`, an uninitialised-but-zeroed value part, and no flags.
    fn allocate(shape: Shape, key: &[u8]) -> Self {
        debug_assert_eq!(shape.key_len, key.len());
        let this = EntryPtr(slots::allocate(shape.bytes()));
        let mut header = [0u8; HEADER];
        header[4..6].copy_from_slice(&(shape.value_len as u16).to_ne_bytes());
        header[6] = key.len().min(LONG_KEY as usize) as u8;
        header[7] = if shape.expiry { EXPIRY } else { 0 };
        this.write(0, &header);
        if shape.expiry {
            this.write(HEADER, &NO_DEADLINE.to_ne_bytes());
        }
        if key.len() >= LONG_KEY as usize {
            this.write(shape.key_offset() - 4, &(key.len() as u32).to_ne_bytes());
        }
        this.write(shape.key_offset(), key);
        this
    }

    /// Frees the entry with its object or its share of the blob.
    ///
    /// # Safety
    /// No reference into the entry may be alive and the handle (and its copies) is dead after.
    unsafe fn destroy(self) {
        drop(self.take_blob());
        drop(self.take_object());
        let bytes = self.shape().bytes();
        // SAFETY: allocated in `allocate` or `copied` for this size of slot, and the caller gave up all
        // use.
        unsafe { slots::free(self.0, bytes) };
    }

    /// Copies the entry with its share of what it leads to, byte by byte, if it lies in a slot. One of
    /// the two is then to be freed by [`Self::free_copied`].
    pub(crate) fn copied(self) -> Option<EntryPtr> {
        let bytes = self.shape().bytes();
        if bytes > SLOT_MAX {
            return None;
        }
        let copy = slots::allocate_to_stay(bytes);
        // SAFETY: both are as long, and the copy is fresh memory.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), copy.as_ptr(), bytes) };
        Some(EntryPtr(copy))
    }

    /// Frees the memory of an entry that lives on in its copy.
    ///
    /// # Safety
    /// As of `destroy`.
    pub(crate) unsafe fn free_copied(self) {
        let bytes = self.shape().bytes();
        // SAFETY: as in `destroy`.
        unsafe { slots::free_for_good(self.0, bytes) };
    }

    pub(crate) fn address(self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// # Safety
    /// `address` must come from [`Self::address`] of an entry that is still alive.
    #[inline]
    pub(crate) unsafe fn from_address(address: u64) -> Self {
        debug_assert!(address != 0);
        // SAFETY: the address of a live entry is not null.
        EntryPtr(unsafe { NonNull::new_unchecked(address as *mut u8) })
    }

    #[inline]
    fn flags(self) -> u8 {
        let [flags] = self.read::<1>(7);
        flags
    }

    fn set_flag(self, flag: u8, on: bool) {
        let flags = if on { self.flags() | flag } else { self.flags() & !flag };
        self.write(7, &[flags]);
    }

    #[inline]
    fn read<const N: usize>(self, offset: usize) -> [u8; N] {
        // SAFETY: callers pass offsets inside the allocation (see the module's essay).
        let from = unsafe { self.0.as_ptr().add(offset).cast::<[u8; N]>() };
        // SAFETY: the fields there were initialised by `allocate`; the read is unaligned.
        unsafe { from.read_unaligned() }
    }

    #[inline]
    fn write(self, offset: usize, bytes: &[u8]) {
        let from = bytes.as_ptr();
        // SAFETY: the offset is inside the allocation.
        let to = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: callers stay inside the allocation, and `bytes` never points into an entry that
        // is being written (the store copies out first).
        unsafe { std::ptr::copy_nonoverlapping(from, to, bytes.len()) };
    }

    #[inline]
    pub(crate) fn has_deadline_slot(self) -> bool {
        self.flags() & EXPIRY != 0
    }

    /// Bytes of the room for a deadline: the flag shifted to be that number.
    #[inline]
    fn deadline_bytes(self) -> usize {
        const { assert!(EXPIRY >> 1 == 8) };
        (self.flags() & EXPIRY) as usize >> 1
    }

    #[inline]
    fn key_offset_and_len(self) -> (usize, usize) {
        let after_deadline = HEADER + self.deadline_bytes();
        let [short] = self.read::<1>(6);
        if short != LONG_KEY {
            return (after_deadline, short as usize);
        }
        (after_deadline + 4, u32::from_ne_bytes(self.read(after_deadline)) as usize)
    }

    fn shape(self) -> Shape {
        let (_, key_len) = self.key_offset_and_len();
        Shape::new(key_len, self.inline_len(), self.has_deadline_slot(), self.mark_len())
    }

    #[inline]
    fn inline_len(self) -> usize {
        (u16::from_ne_bytes(self.read(4)) & !FETCHED) as usize
    }

    /// Whether a memcached client read the value.
    pub(crate) fn is_fetched(self) -> bool {
        u16::from_ne_bytes(self.read(4)) & FETCHED != 0
    }

    pub(crate) fn set_fetched(self, on: bool) {
        let len = self.inline_len() as u16;
        self.write(4, &(if on { len | FETCHED } else { len }).to_ne_bytes());
    }

    #[inline]
    fn value_offset(self) -> usize {
        let (offset, len) = self.key_offset_and_len();
        offset + len
    }

    #[inline]
    fn bytes<'a>(self, offset: usize, len: usize) -> &'a [u8] {
        // SAFETY: the offset is inside the allocation.
        let start = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: key and value parts are initialised when the entry is made. The lifetime is
        // bound by the callers of this module to a borrow of the table.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    #[inline]
    pub(crate) fn key<'a>(self) -> &'a [u8] {
        let (offset, len) = self.key_offset_and_len();
        self.bytes(offset, len)
    }

    #[inline]
    pub(crate) fn is_external(self) -> bool {
        self.flags() & EXTERNAL != 0
    }

    fn blob_address(self) -> *const Blob {
        usize::from_ne_bytes(self.read(self.value_offset())) as *const Blob
    }

    /// The blob, shared.
    #[inline]
    pub(crate) fn blob(self) -> Option<Arc<Blob>> {
        if !self.is_external() {
            return None;
        }
        let raw = self.blob_address();
        // SAFETY: `raw` came from `Arc::into_raw` and the entry holds one count of it.
        unsafe { Arc::increment_strong_count(raw) };
        // SAFETY: the count taken above belongs to the value returned.
        Some(unsafe { Arc::from_raw(raw) })
    }

    /// Takes the blob out; the entry is left with an empty inline value.
    pub(crate) fn take_blob(self) -> Option<Arc<Blob>> {
        if !self.is_external() {
            return None;
        }
        let raw = self.blob_address();
        // The size class must not change: the eight bytes of the pointer become the value.
        self.write(self.value_offset(), &[0; 8]);
        self.set_flag(EXTERNAL, false);
        // SAFETY: `raw` came from `Arc::into_raw`; the entry's count moves to the value returned.
        Some(unsafe { Arc::from_raw(raw) })
    }

    /// Stores a blob in an entry whose value part is 8 bytes, as `take_blob` leaves it.
    pub(crate) fn put_blob(self, blob: Arc<Blob>) {
        assert!(!self.is_external() && self.inline_len() == 8);
        self.write(self.value_offset(), &(Arc::into_raw(blob) as usize).to_ne_bytes());
        self.set_flag(EXTERNAL, true);
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        Kind::from_number(self.flags() & KIND)
    }

    #[inline]
    fn is_string(self) -> bool {
        self.flags() & KIND == 0
    }

    fn object_address(self) -> *mut Object {
        usize::from_ne_bytes(self.read(self.value_offset())) as *mut Object
    }

    /// The object, of an entry that is no string.
    #[inline]
    pub(crate) fn object<'a>(self) -> Option<&'a Object> {
        if self.is_string() {
            return None;
        }
        // SAFETY: the pointer came from `Box::into_raw` and the entry owns the object. The lifetime
        // is bound by the callers of this module to a borrow of the table.
        Some(unsafe { &*self.object_address() })
    }

    /// The object for writing. The caller holds the table mutably.
    #[inline]
    pub(crate) fn object_mut<'a>(self) -> Option<&'a mut Object> {
        if self.is_string() {
            return None;
        }
        // SAFETY: as in `object`, and the caller's exclusive borrow of the table makes this the only
        // reference.
        Some(unsafe { &mut *self.object_address() })
    }

    /// Takes the object out; the entry is left as a string of eight bytes.
    pub(crate) fn take_object(self) -> Option<Box<Object>> {
        if self.is_string() {
            return None;
        }
        let raw = self.object_address();
        self.write(self.value_offset(), &[0; 8]);
        self.set_flag(KIND, false);
        // SAFETY: `raw` came from `Box::into_raw` in `OwnedEntry::object`, and the entry no longer
        // has it.
        Some(unsafe { Box::from_raw(raw) })
    }

    #[inline]
    pub(crate) fn value<'a>(self) -> &'a [u8] {
        debug_assert!(self.is_string(), "only a string's bytes are its value");
        if !self.is_external() {
            return self.bytes(self.value_offset(), self.inline_len());
        }
        // SAFETY: the pointer came from `Arc::into_raw` and the entry keeps the blob alive.
        unsafe { &*self.blob_address() }
    }

    /// The inline value for writing. The caller holds the table mutably.
    pub(crate) fn value_mut<'a>(self) -> &'a mut [u8] {
        debug_assert!(!self.is_external() && self.is_string());
        let (offset, len) = (self.value_offset(), self.inline_len());
        // SAFETY: the offset is inside the allocation.
        let start = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: the value part is initialised, and the caller's exclusive borrow of the table
        // makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Overwrites value and mark in place when the new ones need the same size class.
    #[inline(always)]
    pub(crate) fn overwrite(self, value: &[u8], mark: Mark) -> bool {
        if self.flags() & (EXTERNAL | KIND) != 0 || value.len() > INLINE_MAX {
            return false;
        }
        let shape = self.shape();
        let new = Shape { value_len: value.len(), mark_len: mark.len(), ..shape };
        let same_len = shape.value_len == new.value_len && shape.mark_len == new.mark_len;
        // Values of one key mostly have one length.
        if !same_len && shape.class() != new.class() {
            return false;
        }
        if shape.mark_len + new.mark_len > 0 {
            return self.overwrite_marked(value, mark);
        }
        self.write(4, &(value.len() as u16).to_ne_bytes());
        self.write(new.key_offset() + new.key_len, value);
        true
    }

    /// The deadline as it is kept, of an entry that has room for one.
    #[inline]
    fn kept_deadline(self) -> u64 {
        u64::from_ne_bytes(self.read(HEADER))
    }

    #[inline]
    pub(crate) fn deadline(self) -> Option<u64> {
        if !self.has_deadline_slot() {
            return None;
        }
        let at = self.kept_deadline() & !DEPENDS;
        (at != NO_DEADLINE).then_some(at)
    }

    /// Whether the time of the entry may be past, or something else may say that the key is not there.
    #[inline(always)]
    pub(crate) fn may_be_over(self, now_ms: u64) -> bool {
        self.has_deadline_slot() && now_ms as i64 > self.kept_deadline() as i64
    }

    /// Whether more than its deadline decides whether the key is there.
    #[inline]
    pub(crate) fn depends(self) -> bool {
        self.has_deadline_slot() && self.kept_deadline() & DEPENDS != 0
    }

    /// Sets the deadline of an entry that has room for one.
    pub(crate) fn set_deadline(self, deadline: Option<u64>) {
        assert!(self.has_deadline_slot());
        let at = deadline.map_or(NO_DEADLINE, |at| at.min(NO_DEADLINE - 1));
        let depends = self.kept_deadline() & DEPENDS;
        self.write(HEADER, &(at | depends).to_ne_bytes());
    }

    pub(crate) fn is_raw(self) -> bool {
        self.flags() & RAW != 0
    }

    pub(crate) fn set_raw(self, on: bool) {
        self.set_flag(RAW, on);
    }

    pub(crate) fn is_indexed(self) -> bool {
        self.flags() & INDEXED != 0
    }

    pub(crate) fn set_indexed(self, on: bool) {
        self.set_flag(INDEXED, on);
    }

    #[inline]
    pub(crate) fn access(self) -> u32 {
        u32::from_ne_bytes(self.read(0))
    }

    /// Notes the access; writes only when it changes, to leave the line clean.
    #[inline]
    pub(crate) fn set_access(self, seconds: u32) {
        if self.access() != seconds {
            self.write(0, &seconds.to_ne_bytes());
        }
    }

    /// Bytes that the entry and its blob or object take.
    #[inline]
    pub(crate) fn bytes_used(self) -> usize {
        self.shape().class() + self.external_bytes()
    }

    fn external_bytes(self) -> usize {
        if let Some(object) = self.object() {
            return class_size(size_of::<Object>()) + object.bytes();
        }
        if !self.is_external() {
            return 0;
        }
        // SAFETY: the pointer came from `Arc::into_raw` and the entry keeps the blob alive.
        let blob: &Blob = unsafe { &*self.blob_address() };
        blob_bytes(blob)
    }
}

/// An entry that no table holds: freed on drop, unless given to a table.
pub(crate) struct OwnedEntry(EntryPtr);

impl OwnedEntry {
    /// An entry holding `value` inline. `value` must be at most [`INLINE_MAX`] long.
    #[inline]
    pub(crate) fn inline(key: &[u8], value: &[u8], expiry: bool, mark: Mark) -> Self {
        assert!(value.len() <= INLINE_MAX);
        let shape = Shape::new(key.len(), value.len(), expiry, mark.len());
        let entry = EntryPtr::allocate(shape, key);
        entry.write(entry.value_offset(), value);
        entry.write_new_mark(mark);
        OwnedEntry(entry)
    }

    /// An entry whose value is a blob.
    pub(crate) fn external(key: &[u8], blob: Arc<Blob>, expiry: bool, mark: Mark) -> Self {
        let entry = EntryPtr::allocate(Shape::new(key.len(), 8, expiry, mark.len()), key);
        entry.set_flag(EXTERNAL, true);
        entry.write(entry.value_offset(), &(Arc::into_raw(blob) as usize).to_ne_bytes());
        entry.write_new_mark(mark);
        OwnedEntry(entry)
    }

    /// An entry that holds an object.
    pub(crate) fn object(key: &[u8], object: Box<Object>, expiry: bool) -> Self {
        let kind = object.kind();
        let entry = EntryPtr::allocate(Shape::new(key.len(), 8, expiry, 0), key);
        entry.set_flag(kind as u8, true);
        entry.write(entry.value_offset(), &(Box::into_raw(object) as usize).to_ne_bytes());
        OwnedEntry(entry)
    }

    /// Takes charge of an entry.
    ///
    /// # Safety
    /// The entry must be unlinked from its table, and nothing may borrow from it.
    pub(crate) unsafe fn from_unlinked(entry: EntryPtr) -> Self {
        OwnedEntry(entry)
    }

    /// The entry, for use while this lives.
    #[inline]
    pub(crate) fn entry(&self) -> EntryPtr {
        self.0
    }

    /// Gives up charge: the caller links the entry into a table.
    #[inline]
    pub(crate) fn into_entry(self) -> EntryPtr {
        let entry = self.0;
        std::mem::forget(self);
        entry
    }
}

impl Drop for OwnedEntry {
    fn drop(&mut self) {
        // SAFETY: no table links to the entry, and whoever borrows from it borrows from `self`.
        unsafe { self.0.destroy() };
    }
}

/// Bytes that a blob takes: its buffer and the shared header around it.
pub(crate) fn blob_bytes(blob: &Blob) -> usize {
    class_size(blob.capacity().max(1)) + class_size(size_of::<Blob>() + 16)
}

/// Where the key of an entry lies that begins with these words, which may be anything: offset and length.
pub(super) fn key_place(words: [u64; 3]) -> (usize, usize) {
    let [first, second, third] = words.map(u64::to_ne_bytes);
    let [.., short, flags] = first;
    let (at, lengths) = if flags & EXPIRY == 0 { (HEADER, second) } else { (HEADER + 8, third) };
    if short != LONG_KEY {
        return (at, short as usize);
    }
    let [a, b, c, d, ..] = lengths;
    (at + 4, u32::from_ne_bytes([a, b, c, d]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &[u8], value: &[u8], expiry: bool, mark: Mark) {
        let owned = OwnedEntry::inline(key, value, expiry, mark);
        let e = owned.entry();
        e.set_fetched(true);
        assert_eq!((e.mark(), e.is_fetched()), (mark, true));
        assert_eq!((e.key(), e.value()), (key, value));
        assert_eq!((e.deadline(), e.has_deadline_slot()), (None, expiry));
        if expiry {
            e.set_deadline(Some(77));
            assert_eq!(e.deadline(), Some(77));
        }
        e.set_access(5);
        e.set_indexed(true);
        e.set_raw(true);
        assert!(e.is_indexed() && e.is_raw() && e.access() == 5);
        assert_eq!((e.key(), e.value()), (key, value));
    }

    #[test]
    fn keys_and_values_of_all_lengths_come_back() {
        for key_len in [0, 1, 16, 254, 255, 256, 70_000] {
            for value_len in [0, 1, 64, 1000, INLINE_MAX] {
                let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                let full = Mark { cas: 5, state: 1, client_flags: 0 };
                for mark in [Mark::NONE, Mark::of_flags(3), full] {
                    check(&key, &value, false, mark);
                    check(&key, &value, true, mark);
                }
            }
        }
    }

    #[test]
    fn overwrite_stays_in_its_class() {
        let owned = OwnedEntry::inline(b"0123456789abcdef", b"12345678", false, Mark::NONE);
        let e = owned.entry();
        assert_eq!(e.bytes_used(), 32);
        assert!(e.overwrite(b"1234", Mark::NONE));
        assert_eq!(e.value(), b"1234");
        assert!(!e.overwrite(b"", Mark::NONE) && e.overwrite(b"1", Mark::NONE));
        assert!(!e.overwrite(b"123456789", Mark::NONE));
        assert!(e.overwrite(b"12345678", Mark::NONE));
        assert_eq!((e.key(), e.value()), (&b"0123456789abcdef"[..], &b"12345678"[..]));
    }

    #[test]
    fn a_mark_changes_within_its_class() {
        let owned = OwnedEntry::inline(b"01234567", b"its value", false, Mark::NONE);
        let e = owned.entry();
        let (flags, all) = (Mark::of_flags(1), Mark { client_flags: 1, state: 0, cas: 2 });
        assert!(e.set_mark(flags) && !e.set_mark(all));
        assert_eq!((e.value(), e.mark(), e.bytes_used()), (&b"its value"[..], flags, 32));
        assert!(e.set_mark(Mark::NONE) && e.value() == b"its value" && e.bytes_used() == 32);
        assert!(e.overwrite(b"other val", Mark::NONE) && e.mark() == Mark::NONE);
        assert!(e.overwrite(b"new", all) && e.mark() == all && e.value() == b"new");
        assert!(!e.set_mark(Mark::NONE) && e.value() == b"new" && e.bytes_used() == 32);
    }

    #[test]
    fn blobs_are_shared_and_returned() {
        let blob = Arc::new(vec![7u8; 100_000]);
        let owned = OwnedEntry::external(b"k", Arc::clone(&blob), true, Mark::of_flags(9));
        let e = owned.entry();
        assert_eq!(e.value(), &blob[..]);
        assert!(e.bytes_used() >= 100_000 && !e.overwrite(b"x", Mark::NONE));
        assert_eq!(Arc::strong_count(&blob), 2);
        let taken = e.take_blob().expect("external");
        assert_eq!(Arc::strong_count(&blob), 2);
        e.put_blob(taken);
        assert_eq!(e.mark(), Mark::of_flags(9));
        drop(e.blob());
        drop(owned);
        assert_eq!(Arc::strong_count(&blob), 1);
    }
}
