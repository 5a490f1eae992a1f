//! A few dozen records in one allocation: a small hash or set, and the piece that a large one is made
//! of. Hot path.
//!
//! ```text
//! tags cap x u8 | slots cap x u16 | records …      record = head | [value_len] | [deadline 8] | key | value
//! ```
//! `tags` and `slots` are dense and in the order of insertion. A lookup compares eight tags at a time
//! and looks at records whose tag fits: one of 256 that are not meant. A slot is the record's offset,
//! or, with the top bit set, the number of a record that is kept in a box of its own because it is
//! longer than [`BOXED_MIN`]; so a long value neither moves when its neighbours change nor fills the
//! segment.
//!
//! `head` is the key's length, and whether there are a value and a deadline: 1 byte for keys up to 31
//! bytes. So a record costs 4 bytes beyond its text, 5 with a value, and the allocation's slack: it
//! grows by size classes, an eighth on average. A record of the same length is overwritten; another is
//! appended, and the garbage that this leaves is taken out when it is a quarter.
//!
//! **Tried**: open addressing within the segment saves some 20 instructions of a lookup among 128
//! records, and takes tombstones, an order that is not that of insertion, and a fifth more index.

use crate::mem::class_size;
use crate::table::prefetch_value;
use hypercache_stdx::hash;

/// Records longer than this have a box of their own.
pub(super) const BOXED_MIN: usize = 1024;
/// Offsets have 15 bits.
const ARENA_MAX: usize = 1 << 15;
const BOXED: u16 = 1 << 15;

/// Bytes of a line of the cache.
const LINE: usize = 64;

const VALUED: usize = 1;
const TIMED: usize = 2;

/// A key with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record<'a> {
    /// The key: a field of a hash, a member of a set.
    pub key: &'a [u8],
    /// The value; empty in a set.
    pub value: &'a [u8],
    /// When it expires, in milliseconds since the epoch.
    pub deadline: Option<u64>,
}

fn size_len(n: usize) -> usize {
    if n < 0x80 { 1 } else { (usize::BITS - n.leading_zeros()).div_ceil(7) as usize }
}

fn put_size(out: &mut [u8], mut n: usize) -> usize {
    let mut len = 0;
    while n >= 0x80 {
        out[len] = n as u8 | 0x80;
        n >>= 7;
        len += 1;
    }
    out[len] = n as u8;
    len + 1
}

#[inline]
fn take_size<'a>(bytes: &mut &'a [u8]) -> usize {
    let rest: &'a [u8] = bytes;
    if rest[0] < 0x80 {
        *bytes = &rest[1..];
        return rest[0] as usize;
    }
    let (mut n, mut len) = (0, 0);
    loop {
        n |= ((rest[len] & 0x7f) as usize) << (7 * len);
        len += 1;
        if rest[len - 1] < 0x80 {
            *bytes = &rest[len..];
            return n;
        }
    }
}

impl<'a> Record<'a> {
    /// Whether its time is past.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline.is_some_and(|at| now_ms > at)
    }

    fn head(&self) -> usize {
        let valued = if self.value.is_empty() { 0 } else { VALUED };
        let timed = if self.deadline.is_some() { TIMED } else { 0 };
        self.key.len() << 2 | timed | valued
    }

    /// Bytes in a segment.
    pub(super) fn encoded_len(&self) -> usize {
        let value_len = if self.value.is_empty() { 0 } else { size_len(self.value.len()) };
        let deadline_len = if self.deadline.is_some() { 8 } else { 0 };
        size_len(self.head()) + value_len + deadline_len + self.key.len() + self.value.len()
    }

    /// Bytes in the arena of a segment: none, if it gets a box of its own.
    pub(super) fn arena_len(&self) -> usize {
        let len = self.encoded_len();
        if len > BOXED_MIN { 0 } else { len }
    }

    /// Writes to `out`, which is exactly long enough.
    fn write(&self, out: &mut [u8]) {
        let mut at = put_size(out, self.head());
        if !self.value.is_empty() {
            at += put_size(&mut out[at..], self.value.len());
        }
        if let Some(deadline) = self.deadline {
            out[at..at + 8].copy_from_slice(&deadline.to_le_bytes());
            at += 8;
        }
        let (key, value) = out[at..].split_at_mut(self.key.len());
        key.copy_from_slice(self.key);
        value.copy_from_slice(self.value);
    }

    #[inline]
    fn read(mut bytes: &'a [u8]) -> Self {
        let head = take_size(&mut bytes);
        let value_len = if head & VALUED != 0 { take_size(&mut bytes) } else { 0 };
        let mut deadline = None;
        if head & TIMED != 0
            && let Some((first, rest)) = bytes.split_first_chunk()
        {
            deadline = Some(u64::from_le_bytes(*first));
            bytes = rest;
        }
        let (key, rest) = bytes.split_at(head >> 2);
        Record { key, value: &rest[..value_len], deadline }
    }
}

/// A tag that most keys of a small map differ in. It takes a tenth of what a keyed hash does, and
/// whoever chooses keys that have the same one makes a lookup look at all records: they are few, where
/// a map is one segment, and a list of them would be looked at so always.
#[inline]
pub(super) fn quick_tag(key: &[u8]) -> u8 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => hash::load_short(key),
    };
    ((word ^ key.len() as u64).wrapping_mul(ODD) >> 56) as u8
}

/// What few segments have.
#[derive(Clone, Debug)]
struct Extra {
    /// The earliest deadline, exactly; `u64::MAX` when there is none.
    soonest: u64,
    boxed: Vec<Box<[u8]>>,
    /// Bytes of the boxes.
    boxed_bytes: usize,
}

impl Default for Extra {
    fn default() -> Self {
        Extra { soonest: u64::MAX, boxed: Vec::new(), boxed_bytes: 0 }
    }
}

/// See the module's text. `prefix` and `depth` are the owner's: see [`super::dict`].
#[derive(Default)]
pub(super) struct Segment {
    data: Vec<u8>,
    extra: Option<Box<Extra>>,
    /// The first `depth` bits of the hash of every key in it.
    pub(super) prefix: u32,
    len: u16,
    /// Records that the index has room for.
    cap: u16,
    /// Bytes of records that are no longer.
    garbage: u16,
    pub(super) depth: u8,
}

impl Clone for Segment {
    fn clone(&self) -> Self {
        // With the same slack, so that the clone takes as many bytes.
        let mut data = Vec::with_capacity(self.data.capacity());
        data.extend_from_slice(&self.data);
        let mut extra = self.extra.clone();
        if let (Some(copy), Some(extra)) = (&mut extra, &self.extra) {
            copy.boxed.reserve_exact(extra.boxed.capacity() - copy.boxed.len());
        }
        Segment { data, extra, ..*self }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Segment {
    /// An empty segment with room for records that take `bytes` bytes.
    pub(super) fn with_room(len: usize, bytes: usize) -> Self {
        let mut segment = Segment::default();
        segment.rebuild(len.next_multiple_of(4), bytes);
        segment
    }

    /// Brings its index towards the cache, and the records that follow on the next line.
    #[inline]
    pub(super) fn prefetch_parts(&self) {
        self.data.iter().step_by(LINE).take(2).for_each(prefetch_value);
    }

    /// Records.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn arena_start(&self) -> usize {
        3 * self.cap as usize
    }

    fn arena_len(&self) -> usize {
        self.data.len() - self.arena_start()
    }

    /// Bytes of records that are not in boxes.
    pub(super) fn live_bytes(&self) -> usize {
        self.arena_len() - self.garbage as usize
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let of = |capacity: usize| if capacity == 0 { 0 } else { class_size(capacity) };
        let extra = self.extra.as_ref().map_or(0, |extra| {
            let list = of(extra.boxed.capacity() * size_of::<Box<[u8]>>());
            class_size(size_of::<Extra>()) + list + extra.boxed_bytes
        });
        of(self.data.capacity()) + extra
    }

    /// The earliest deadline; `u64::MAX` when there is none.
    pub(super) fn soonest(&self) -> u64 {
        self.extra.as_ref().map_or(u64::MAX, |extra| extra.soonest)
    }

    #[inline]
    pub(super) fn tag(&self, i: usize) -> u8 {
        self.data[i]
    }

    /// Gives every record the tag that `tag_of` its key is.
    pub(super) fn retag(&mut self, tag_of: impl Fn(&[u8]) -> u8) {
        for i in 0..self.len() {
            self.data[i] = tag_of(self.get(i).key);
        }
    }

    #[inline]
    fn slot(&self, i: usize) -> u16 {
        let at = self.cap as usize + 2 * i;
        u16::from_le_bytes([self.data[at], self.data[at + 1]])
    }

    fn set_slot(&mut self, i: usize, slot: u16) {
        let at = self.cap as usize + 2 * i;
        self.data[at..at + 2].copy_from_slice(&slot.to_le_bytes());
    }

    /// Record number `i`.
    #[inline]
    pub(super) fn get(&self, i: usize) -> Record<'_> {
        self.at_slot(self.slot(i))
    }

    /// Records of some numbers, all of which are there.
    #[inline]
    pub(super) fn range(
        &self,
        numbers: std::ops::Range<usize>,
    ) -> impl DoubleEndedIterator<Item = Record<'_>> {
        let slots = &self.data[self.cap as usize..][2 * numbers.start..2 * numbers.end];
        slots.as_chunks().0.iter().map(|slot| self.at_slot(u16::from_le_bytes(*slot)))
    }

    #[inline]
    fn at_slot(&self, slot: u16) -> Record<'_> {
        if slot & BOXED == 0 {
            return Record::read(&self.data[self.arena_start() + slot as usize..]);
        }
        self.boxed(slot)
    }

    #[cold]
    fn boxed(&self, slot: u16) -> Record<'_> {
        let extra = self.extra.as_ref().expect("a slot of a box has its box");
        Record::read(&extra.boxed[(slot & !BOXED) as usize])
    }

    /// All records in the order of insertion.
    pub(super) fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The record with a key, and its number.
    #[inline]
    pub(super) fn find(&self, tag: u8, key: &[u8]) -> Option<(usize, Record<'_>)> {
        const LOW: u64 = 0x0101_0101_0101_0101;
        let pattern = u64::from(tag) * LOW;
        // The slots that follow the tags make the last eight whole.
        let (words, _) = self.data[..self.len().next_multiple_of(8)].as_chunks::<8>();
        for (n, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word) ^ pattern;
            let mut hits = word.wrapping_sub(LOW) & !word & (LOW << 7);
            while hits != 0 {
                let i = 8 * n + hits.trailing_zeros() as usize / 8;
                if i < self.len() {
                    let record = self.get(i);
                    if record.key == key {
                        return Some((i, record));
                    }
                }
                hits &= hits - 1;
            }
        }
        None
    }

    /// Adds a record whose key is not there.
    pub(super) fn push(&mut self, tag: u8, record: Record<'_>) {
        if self.len == self.cap {
            let cap = self.cap as usize;
            let more = (cap / 8).next_multiple_of(4).max(4);
            self.rebuild(cap + more, self.live_bytes() + record.arena_len());
        }
        let i = self.len();
        self.len += 1;
        self.data[i] = tag;
        self.write(i, record);
    }

    /// Adds a record whose key is not there as number `i`; those from there on move down.
    pub(super) fn insert(&mut self, i: usize, tag: u8, record: Record<'_>) {
        self.push(tag, record);
        self.shift(self.len() - 1, i);
    }

    /// Makes record number `from` number `to`; those between move by one.
    pub(super) fn shift(&mut self, from: usize, to: usize) {
        let (low, high, cap) = (from.min(to), from.max(to), self.cap as usize);
        let tags = &mut self.data[low..=high];
        if from < to {
            tags.rotate_left(1)
        } else {
            tags.rotate_right(1)
        }
        let slots = &mut self.data[cap + 2 * low..cap + 2 * high + 2];
        if from < to { slots.rotate_left(2) } else { slots.rotate_right(2) }
    }

    /// Puts another record of the same key in the place of number `i`.
    pub(super) fn replace(&mut self, i: usize, record: Record<'_>) {
        let (old, slot) = (self.get(i), self.slot(i));
        let (old_len, old_deadline) = (old.encoded_len(), old.deadline);
        if slot & BOXED == 0 && record.encoded_len() == old_len {
            let at = self.arena_start() + slot as usize;
            record.write(&mut self.data[at..at + old_len]);
            self.note_deadline(record.deadline);
        } else {
            self.discard(slot, old_len);
            self.set_slot(i, 0);
            self.write(i, record);
            self.compact();
        }
        self.forget_deadline(old_deadline);
    }

    /// Removes record number `i`; those behind it move up.
    pub(super) fn remove(&mut self, i: usize) {
        let (slot, old) = (self.slot(i), self.get(i));
        let (old_len, old_deadline) = (old.encoded_len(), old.deadline);
        self.discard(slot, old_len);
        let (len, cap) = (self.len(), self.cap as usize);
        self.data.copy_within(i + 1..len, i);
        self.data.copy_within(cap + 2 * (i + 1)..cap + 2 * len, cap + 2 * i);
        self.len -= 1;
        if self.len == 0 {
            let Segment { prefix, depth, .. } = *self;
            *self = Segment { prefix, depth, ..Segment::default() };
            return;
        }
        self.forget_deadline(old_deadline);
        self.compact();
    }

    /// Gives up where a record is.
    fn discard(&mut self, slot: u16, record_len: usize) {
        if slot & BOXED == 0 {
            self.garbage += record_len as u16;
            return;
        }
        let Some(extra) = &mut self.extra else { return };
        extra.boxed_bytes -= class_size(extra.boxed.swap_remove((slot & !BOXED) as usize).len());
        let moved = BOXED | extra.boxed.len() as u16;
        if extra.boxed.capacity() > 2 * extra.boxed.len() + 4 {
            extra.boxed.shrink_to_fit();
        }
        if let Some(last) = (0..self.len()).find(|&i| self.slot(i) == moved) {
            self.set_slot(last, slot);
        }
        self.drop_extra();
    }

    fn drop_extra(&mut self) {
        if self.extra.as_ref().is_some_and(|e| e.boxed.is_empty() && e.soonest == u64::MAX) {
            self.extra = None;
        }
    }

    /// Writes record number `i`, wherever there is room.
    fn write(&mut self, i: usize, record: Record<'_>) {
        let len = record.encoded_len();
        self.note_deadline(record.deadline);
        if len > BOXED_MIN || self.live_bytes() + len > ARENA_MAX {
            return self.write_boxed(i, record, len);
        }
        let is_full = self.arena_len() + len > ARENA_MAX;
        if is_full || self.data.len() + len > self.data.capacity() {
            // The record has no bytes yet: it must not be copied.
            self.set_slot(i, BOXED);
            self.rebuild(self.cap as usize, self.live_bytes() + len);
        }
        let at = self.data.len();
        self.set_slot(i, (at - self.arena_start()) as u16);
        self.data.resize(at + len, 0);
        record.write(&mut self.data[at..]);
    }

    fn write_boxed(&mut self, i: usize, record: Record<'_>, len: usize) {
        let mut bytes = vec![0; len].into_boxed_slice();
        record.write(&mut bytes);
        let extra = self.extra.get_or_insert_default();
        let slot = BOXED | extra.boxed.len() as u16;
        extra.boxed_bytes += class_size(len);
        if extra.boxed.len() == extra.boxed.capacity() {
            extra.boxed.reserve_exact(extra.boxed.len() / 4 + 1);
        }
        extra.boxed.push(bytes);
        self.set_slot(i, slot);
    }

    fn note_deadline(&mut self, deadline: Option<u64>) {
        if let Some(at) = deadline {
            let extra = self.extra.get_or_insert_default();
            extra.soonest = extra.soonest.min(at);
        }
    }

    /// A record with this deadline is gone, or has another.
    fn forget_deadline(&mut self, deadline: Option<u64>) {
        let Some(at) = deadline else { return };
        if at != self.soonest() {
            return;
        }
        let soonest = self.iter().filter_map(|record| record.deadline).min();
        if let Some(extra) = &mut self.extra {
            extra.soonest = soonest.unwrap_or(u64::MAX);
        }
        self.drop_extra();
    }

    /// Takes garbage out when it is a quarter, and gives memory back when half of it is unused.
    fn compact(&mut self) {
        let needed = class_size(self.arena_start() + self.live_bytes());
        let is_wasteful = self.garbage as usize * 4 > self.arena_len();
        if is_wasteful || needed * 2 <= self.data.capacity() {
            let fitting = (self.len() + self.len() / 8).next_multiple_of(4);
            let cap = if self.len() * 2 <= self.cap as usize { fitting } else { self.cap as usize };
            self.rebuild(cap, self.live_bytes());
        }
    }

    /// Makes the allocation anew, for `cap` records of `bytes` bytes; garbage is left out.
    fn rebuild(&mut self, cap: usize, bytes: usize) {
        let old = std::mem::take(&mut self.data);
        let (len, old_cap) = (self.len(), self.cap as usize);
        let mut data = Vec::with_capacity(class_size(3 * cap + bytes));
        data.extend_from_slice(&old[..len]);
        data.resize(cap, 0);
        data.extend_from_slice(&old[old_cap..old_cap + 2 * len]);
        data.resize(3 * cap, 0);
        let arena = &old[3 * old_cap..];
        if self.garbage == 0 {
            data.extend_from_slice(arena);
        } else {
            for i in 0..len {
                let at = cap + 2 * i;
                let slot = u16::from_le_bytes([data[at], data[at + 1]]);
                if slot & BOXED == 0 {
                    let record = &arena[slot as usize..];
                    let moved = (data.len() - 3 * cap) as u16;
                    data[at..at + 2].copy_from_slice(&moved.to_le_bytes());
                    data.extend_from_slice(&record[..Record::read(record).encoded_len()]);
                }
            }
        }
        (self.data, self.cap, self.garbage) = (data, cap as u16, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(segment: &Segment, model: &[(Vec<u8>, Vec<u8>, Option<u64>)]) {
        assert_eq!(segment.len(), model.len());
        for (i, (key, value, deadline)) in model.iter().enumerate() {
            let record = Record { key, value, deadline: *deadline };
            assert_eq!(segment.get(i), record);
            assert_eq!(segment.find(key.len() as u8, key), Some((i, record)));
        }
        let soonest = model.iter().filter_map(|(_, _, deadline)| *deadline).min();
        assert_eq!(segment.soonest(), soonest.unwrap_or(u64::MAX));
        let live: usize = segment.iter().map(|r| r.arena_len()).sum();
        assert_eq!(segment.live_bytes(), live);
        let boxes = segment.extra.iter().flat_map(|extra| &extra.boxed);
        let boxed_bytes: usize = boxes.map(|b| class_size(b.len())).sum();
        assert_eq!(segment.extra.as_ref().map_or(0, |extra| extra.boxed_bytes), boxed_bytes);
        assert!(segment.data.capacity() <= 3 * class_size(segment.arena_start() + live).max(16));
        assert_eq!(segment.clone().bytes(), segment.bytes());
    }

    proptest! {
        #[test]
        fn a_segment_is_an_ordered_map(
            steps in proptest::collection::vec(
                (0u8..40, prop_oneof![9 => 0usize..90, 1 => 900usize..1500], 0u8..9),
                1..200,
            ),
        ) {
            let (mut segment, mut model) = (Segment::default(), Vec::new());
            for (n, (key, len, kind)) in steps.into_iter().enumerate() {
                let key = vec![b'k'; key as usize];
                let value = vec![n as u8; len];
                let deadline = (kind % 2 == 0).then_some(1000 - n as u64);
                let record = Record { key: &key, value: &value, deadline };
                let tag = key.len() as u8;
                match (segment.find(tag, &key).map(|(i, _)| i), kind) {
                    (Some(i), 0..4) => {
                        segment.remove(i);
                        model.remove(i);
                    }
                    (Some(i), _) => {
                        segment.replace(i, record);
                        model[i] = (key, value, deadline);
                    }
                    (None, _) => {
                        segment.push(tag, record);
                        model.push((key, value, deadline));
                    }
                }
                check(&segment, &model);
            }
        }
    }

    #[test]
    fn quick_tags_of_keys_that_differ_little_differ() {
        for digits in 1..16 {
            let keys = (0..100).map(|n| format!("{n:0digits$}"));
            let tags: std::collections::HashSet<u8> =
                keys.map(|key| quick_tag(key.as_bytes())).collect();
            assert!(tags.len() > 50, "{} tags of a hundred keys of {digits} digits", tags.len());
        }
    }

    #[test]
    fn a_record_costs_four_bytes_beyond_its_key() {
        let record = Record { key: b"0123456789abcdef", value: b"", deadline: None };
        assert_eq!(record.encoded_len(), 17);
        assert_eq!(Record { value: b"0123456789abcdef", ..record }.encoded_len(), 34);
    }
}
