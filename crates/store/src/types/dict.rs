//! A map of byte strings: what hashes and sets of more than a few integers are. Hot path.
//!
//! A small map is one [`Segment`], whose tags are made without the hash. A larger one is an extendible
//! hash table of them (Fagin et al., "Extendible hashing", TODS 1979): a directory that the first bits of
//! a key's hash index, and segments of at most [`ITEMS_MAX`] records or [`ARENA_TARGET`] bytes. A full
//! segment is split in two by the next bit of the hash, two that became sparse are merged. So no change
//! moves more than one segment's records; what is longest is the doubling of the directory, 4 bytes for
//! each segment or two, and the growth of the list of segments by an eighth: 0.2 ms at five million keys.
//! Freeing it is freeing one block for each segment.
//!
//! Cost per key beyond its record: 0.7 bytes of directory and list. Keys are hashed under a secret of
//! the process; what a walk shows of the order is useless elsewhere.
//!
//! A walk goes by the hash: its cursor is the hash prefix that comes next, which splits and merges do
//! not change.
//!
//! **Tried**: 256 records in a segment save 0.3 bytes per key, and a lookup among them takes 60
//! instructions more.

use super::segment::{Record, Segment, quick_tag};
use crate::mem::class_size;
use crate::table::prefetch_value;
use hypercache_stdx::hash::KeyHasher;
use hypercache_stdx::rng;
use std::sync::OnceLock;

/// Most records in a segment of a table.
const ITEMS_MAX: usize = 128;
/// A segment whose records take more is split: a change may copy them.
const ARENA_TARGET: usize = 16 * 1024;
/// Deepest segments. Only a hash that is broken would lead beyond; then segments are longer.
const DEPTH_MAX: u8 = 28;

/// The hash of a key under the secret of the process.
#[inline]
pub(super) fn hash_of(key: &[u8]) -> u64 {
    static HASHER: OnceLock<KeyHasher> = OnceLock::new();
    HASHER.get_or_init(|| KeyHasher::new((rng::entropy(), rng::entropy()))).hash(key)
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    hash as u8
}

/// The first `depth` bits of a hash.
#[inline]
fn prefix_of(hash: u64, depth: u8) -> u32 {
    (hash >> 32 >> (32 - u32::from(depth))) as u32
}

/// The table of a large map.
#[derive(Debug)]
struct Table {
    /// Numbers of segments, by the first `depth` bits of a hash.
    directory: Vec<u32>,
    segments: Vec<Segment>,
    len: usize,
    /// Bytes that the segments own.
    segment_bytes: usize,
    /// Bytes of the table itself, the directory and the list of segments.
    frame_bytes: usize,
    /// No deadline is earlier; see [`Dict::settle`].
    soonest: u64,
    depth: u8,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Dict(Repr);

#[derive(Clone, Debug)]
enum Repr {
    One(Segment),
    Many(Box<Table>),
}

impl Default for Dict {
    fn default() -> Self {
        Dict(Repr::One(Segment::default()))
    }
}

fn has_room(segment: &Segment, arena_len: usize) -> bool {
    segment.len() < ITEMS_MAX && segment.live_bytes() + arena_len <= ARENA_TARGET
}

impl Dict {
    /// Records, expired ones included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::One(segment) => segment.len(),
            Repr::Many(table) => table.len,
        }
    }

    /// Whether there is no record.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap, exactly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Repr::One(segment) => segment.bytes(),
            Repr::Many(table) => table.frame_bytes + table.segment_bytes,
        }
    }

    /// See [`super::Collection::prefetch_parts`].
    #[inline]
    pub fn prefetch_parts(&self) {
        match &self.0 {
            Repr::One(segment) => segment.prefetch_parts(),
            Repr::Many(table) => prefetch_value(&**table),
        }
    }

    /// The record of a key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Record<'_>> {
        let found = match &self.0 {
            Repr::One(segment) => segment.find(quick_tag(key), key),
            Repr::Many(table) => {
                let hash = hash_of(key);
                table.segments[table.number(hash)].find(tag_of(hash), key)
            }
        };
        found.map(|(_, record)| record)
    }

    /// Puts a record, in the place of the one of its key if there is one. Returns whether there was.
    #[inline]
    pub fn put(&mut self, record: Record<'_>) -> bool {
        self.insert::<true>(record)
    }

    /// Puts a record, unless there is one of its key. Returns whether there was.
    #[inline]
    pub fn put_new(&mut self, record: Record<'_>) -> bool {
        self.insert::<false>(record)
    }

    #[inline]
    fn insert<const REPLACES: bool>(&mut self, record: Record<'_>) -> bool {
        let arena_len = record.arena_len();
        let segment = match &mut self.0 {
            Repr::One(segment) => segment,
            Repr::Many(table) => return table.put::<REPLACES>(arena_len, record),
        };
        let tag = quick_tag(record.key);
        let old = segment.find(tag, record.key).map(|(i, _)| i);
        match old {
            Some(_) if !REPLACES => return true,
            Some(i) if segment.live_bytes() + arena_len <= ARENA_TARGET => {
                segment.replace(i, record);
            }
            None if has_room(segment, arena_len) => segment.push(tag, record),
            _ => return self.grow().put::<REPLACES>(arena_len, record),
        }
        old.is_some()
    }

    /// Makes a table of the one segment.
    fn grow(&mut self) -> &mut Table {
        if let Repr::One(segment) = &mut self.0 {
            let mut segment = std::mem::take(segment);
            segment.retag(|key| tag_of(hash_of(key)));
            self.0 = Repr::Many(Box::new(Table::of(segment)));
        }
        match &mut self.0 {
            Repr::Many(table) => table,
            Repr::One(_) => unreachable!("it was made a table"),
        }
    }

    /// Removes the record of a key. Returns whether there was one.
    #[inline]
    pub fn remove(&mut self, key: &[u8]) -> bool {
        match &mut self.0 {
            Repr::One(segment) => {
                let found = segment.find(quick_tag(key), key);
                let found = found.map(|(i, _)| i);
                if let Some(i) = found {
                    segment.remove(i);
                }
                found.is_some()
            }
            Repr::Many(table) => {
                let was_there = table.remove(hash_of(key), key);
                if table.segments.len() == 1
                    && let Some(mut segment) = table.segments.pop()
                {
                    segment.retag(quick_tag);
                    self.0 = Repr::One(segment);
                }
                was_there
            }
        }
    }

    fn segments(&self) -> &[Segment] {
        match &self.0 {
            Repr::One(segment) => std::slice::from_ref(segment),
            Repr::Many(table) => &table.segments,
        }
    }

    /// All records; of a map of one segment in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.segments().iter().flat_map(Segment::iter)
    }

    /// Calls `f` with the records at `cursor` and returns the next cursor, 0 after the last. A key
    /// that is there throughout a walk is seen at least once, whatever else changes.
    pub fn scan<'d>(&'d self, cursor: u64, mut f: impl FnMut(Record<'d>)) -> u64 {
        let segment = match &self.0 {
            Repr::One(segment) => segment,
            Repr::Many(table) => &table.segments[table.number(cursor << 32)],
        };
        segment.iter().for_each(&mut f);
        let end = (u64::from(segment.prefix) + 1) << (32 - segment.depth);
        if end >> 32 == 0 { end } else { 0 }
    }

    /// A record at random, each as likely as any other; `random(n)` must give a number below `n`.
    #[must_use]
    pub fn random(&self, random: &mut dyn FnMut(u64) -> u64) -> Option<Record<'_>> {
        if self.is_empty() {
            return None;
        }
        let segments = self.segments();
        // A segment is taken as often as it has records: one with fewer is passed over more often.
        const TRIES: usize = 1000;
        let most = if let [one] = segments { one.len() } else { ITEMS_MAX };
        for _ in 0..TRIES {
            let segment = &segments[random(segments.len() as u64) as usize];
            let i = random(most as u64) as usize;
            if i < segment.len() {
                return Some(segment.get(i));
            }
        }
        self.iter().nth(random(self.len() as u64) as usize)
    }

    /// No record has an earlier deadline; `None` when none has one.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let soonest = match &self.0 {
            Repr::One(segment) => segment.soonest(),
            Repr::Many(table) => table.soonest,
        };
        (soonest != u64::MAX).then_some(soonest)
    }

    /// Calls `f` with the records whose time is past, until it returns false.
    pub fn each_expired(&self, now_ms: u64, mut f: impl FnMut(Record<'_>) -> bool) {
        if self.next_deadline().is_none_or(|at| at >= now_ms) {
            return;
        }
        let due = self.segments().iter().filter(|segment| segment.soonest() < now_ms);
        let mut expired = due.flat_map(Segment::iter).filter(|record| record.is_expired(now_ms));
        while expired.next().is_some_and(&mut f) {}
    }

    /// Makes [`Self::next_deadline`] exact again after records with deadlines went. Looks at every
    /// segment's head.
    pub fn settle(&mut self) {
        if let Repr::Many(table) = &mut self.0 {
            let all = table.segments.iter().map(Segment::soonest);
            table.soonest = all.min().unwrap_or(u64::MAX);
        }
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        let (directory, segments) = (self.directory.clone(), self.segments.clone());
        let mut table = Table { directory, segments, ..*self };
        table.measure_frame();
        table
    }
}

impl Table {
    /// A table of one segment.
    fn of(segment: Segment) -> Self {
        let (len, segment_bytes, soonest) = (segment.len(), segment.bytes(), segment.soonest());
        let (directory, segments) = (vec![0], vec![segment]);
        let (frame_bytes, depth) = (0, 0);
        let mut table =
            Table { directory, segments, len, segment_bytes, frame_bytes, soonest, depth };
        table.measure_frame();
        table
    }

    /// The segment that keys of a hash belong to.
    #[inline]
    fn number(&self, hash: u64) -> usize {
        self.directory[prefix_of(hash, self.depth) as usize] as usize
    }

    /// Keeps the account of what changes with the number of segments only.
    fn measure_frame(&mut self) {
        let directory = class_size(self.directory.capacity() * size_of::<u32>());
        let segments = class_size(self.segments.capacity() * size_of::<Segment>());
        self.frame_bytes = class_size(size_of::<Table>()) + directory + segments;
    }

    /// Changes a segment and keeps the account.
    #[inline]
    fn edit<R>(&mut self, number: usize, f: impl FnOnce(&mut Segment) -> R) -> R {
        let segment = &mut self.segments[number];
        let (bytes, len) = (segment.bytes(), segment.len());
        let result = f(segment);
        self.segment_bytes = self.segment_bytes + segment.bytes() - bytes;
        self.len = self.len + segment.len() - len;
        result
    }

    fn put<const REPLACES: bool>(&mut self, arena_len: usize, record: Record<'_>) -> bool {
        let hash = hash_of(record.key);
        self.soonest = self.soonest.min(record.deadline.unwrap_or(u64::MAX));
        let mut was_there = false;
        loop {
            let number = self.number(hash);
            let segment = &self.segments[number];
            if let Some((i, _)) = segment.find(tag_of(hash), record.key) {
                if !REPLACES {
                    return true;
                }
                if segment.live_bytes() + arena_len <= ARENA_TARGET {
                    self.edit(number, |segment| segment.replace(i, record));
                    return true;
                }
                self.edit(number, |segment| segment.remove(i));
                was_there = true;
            }
            let segment = &self.segments[number];
            if has_room(segment, arena_len) || segment.depth == DEPTH_MAX {
                self.edit(number, |segment| segment.push(tag_of(hash), record));
                return was_there;
            }
            self.split(number);
        }
    }

    fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let number = self.number(hash);
        let Some((i, _)) = self.segments[number].find(tag_of(hash), key) else { return false };
        self.edit(number, |segment| segment.remove(i));
        if self.segments[number].len() < ITEMS_MAX / 4 {
            self.merge(number);
        }
        true
    }

    /// The directory's entries for a segment.
    fn entries_of(&self, segment: &Segment) -> std::ops::Range<usize> {
        let spread = self.depth - segment.depth;
        let start = (segment.prefix as usize) << spread;
        start..start + (1 << spread)
    }

    /// Cuts a segment in two by the next bit of the hash.
    fn split(&mut self, number: usize) {
        if self.segments[number].depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&number| [number, number]);
            self.directory = doubled.collect();
            self.depth += 1;
        }
        let old = std::mem::take(&mut self.segments[number]);
        let depth = old.depth + 1;
        let is_upper: Vec<bool> =
            old.iter().map(|record| prefix_of(hash_of(record.key), depth) & 1 != 0).collect();
        let half = |bit: u32| {
            let mine = || (0..old.len()).filter(|&i| u32::from(is_upper[i]) == bit);
            let bytes = mine().map(|i| old.get(i).arena_len()).sum();
            let mut half = Segment::with_room(mine().count(), bytes);
            mine().for_each(|i| half.push(old.tag(i), old.get(i)));
            half.prefix = old.prefix << 1 | bit;
            half.depth = depth;
            half
        };
        let (lower, upper) = (half(0), half(1));
        self.segment_bytes = self.segment_bytes + lower.bytes() + upper.bytes() - old.bytes();
        let entries = self.entries_of(&upper);
        let new_number = self.segments.len();
        self.directory[entries].fill(new_number as u32);
        if new_number == self.segments.capacity() {
            self.segments.reserve_exact(new_number / 8 + 1);
        }
        self.segments[number] = lower;
        self.segments.push(upper);
        self.measure_frame();
    }

    /// Joins a segment with its other half, if both are sparse.
    fn merge(&mut self, number: usize) {
        let segment = &self.segments[number];
        if segment.depth == 0 {
            return;
        }
        let (prefix, depth) = (segment.prefix ^ 1, segment.depth);
        let buddy = self.directory[(prefix as usize) << (self.depth - depth)] as usize;
        let other = &self.segments[buddy];
        let is_sparse = segment.len() + other.len() <= ITEMS_MAX / 2
            && segment.live_bytes() + other.live_bytes() <= ARENA_TARGET / 2;
        if other.depth != depth || !is_sparse {
            return;
        }
        let taken = std::mem::take(&mut self.segments[buddy]);
        self.segment_bytes -= taken.bytes();
        self.len -= taken.len();
        self.edit(number, |segment| {
            (0..taken.len()).for_each(|i| segment.push(taken.tag(i), taken.get(i)));
            segment.prefix >>= 1;
            segment.depth -= 1;
        });
        let entries = self.entries_of(&self.segments[number]);
        self.directory[entries].fill(number as u32);
        self.remove_segment(buddy);
    }

    /// Takes an emptied segment off the list; the last one gets its number.
    fn remove_segment(&mut self, number: usize) {
        self.segments.swap_remove(number);
        if let Some(moved) = self.segments.get(number) {
            let entries = self.entries_of(moved);
            self.directory[entries].fill(number as u32);
        }
        let len = self.segments.len();
        if self.segments.capacity() > 2 * len + 8 {
            self.segments.shrink_to(len + len / 8);
        }
        // Looked at now and then only, for it is a look at all segments.
        if self.directory.len() > 8 * len && len.is_multiple_of(len / 8 + 1) {
            self.shrink_directory();
        }
        self.measure_frame();
    }

    fn shrink_directory(&mut self) {
        let depth = self.segments.iter().map(|segment| segment.depth).max().unwrap_or(0);
        let step = 1 << (self.depth - depth);
        self.directory = self.directory.iter().copied().step_by(step).collect();
        self.directory.shrink_to_fit();
        self.depth = depth;
    }
}

#[cfg(test)]
#[path = "dict/tests.rs"]
mod tests;
