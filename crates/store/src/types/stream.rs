//! Streams: entries with ascending ids in packed blocks, and the consumer groups that read them.
//!
//! Entries are only added at the end, so the blocks are a deque in order of id and a block is found by
//! binary search. A block holds up to [`BLOCK_ENTRIES`] entries or about [`BLOCK_BYTES`] bytes. Within a
//! block ids are differences, and an entry whose field names are those of the block's first entry keeps
//! only its values: an entry of one small field takes some 6 bytes beyond its text, and a block 64.
//!
//! ```text
//! entry = flags u8 | ms after the block's first | seq | [field count | (field | value)…] or (value)…
//! ```
//! Numbers are of seven bits per byte, strings are behind their length (see [`super::wire`]).
//!
//! Fast at: adding, reading in order from any id, and trimming, which drops whole blocks. A single
//! deletion marks its entry; a block whose entries are half gone is written anew.
//!
//! **Groups** keep what was delivered and not acknowledged in ordered maps. Their memory is counted at
//! a fixed amount per entry (the maps do not tell theirs).

mod group;
mod op;

pub use group::{Consumer, Group, Pending};
pub use op::StreamOp;

use super::Collection;
use super::wire::{self, Reader};
use crate::mem::class_size;
use crate::table::prefetch_value;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// Most entries of a block.
pub const BLOCK_ENTRIES: usize = 100;
/// A block of more bytes than this takes no further entry.
const BLOCK_BYTES: usize = 4096;

/// When and as which of that millisecond an entry was added. Ids ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds, of the clock if the server chose it.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The first of all, which no entry has.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// The last of all.
    pub const MAX: StreamId = StreamId { ms: u64::MAX, seq: u64::MAX };

    /// The id after this one, unless it is the last.
    #[must_use]
    pub fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id before this one, unless it is the first.
    #[must_use]
    pub fn prev(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Most bytes of a number of fields.
const COUNT_MAX: usize = 5;
const DELETED: u8 = 1;
const SAME_FIELDS: u8 = 2;

/// Entries that follow each other.
#[derive(Clone, Debug)]
struct Block {
    /// The id that the entries' ids are counted from: that of the entry it began with.
    first: StreamId,
    bytes: Vec<u8>,
    /// Entries that are there.
    live: u32,
    /// Entries that are marked as deleted.
    deleted: u32,
}

/// An entry as it stands in its block.
#[derive(Clone, Copy, Debug)]
struct Raw<'a> {
    /// Where it begins.
    at: usize,
    flags: u8,
    id: StreamId,
    /// Field count, fields and values; or values.
    body: Reader<'a>,
}

/// An entry of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamEntry<'a> {
    /// Its id.
    pub id: StreamId,
    /// Fields and values in turn.
    pub fields: Fields<'a>,
}

/// Fields and values of an entry in turn.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// Where the names come from, if not from `body`.
    names: Option<Reader<'a>>,
    body: Reader<'a>,
    /// Strings left.
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let is_name = self.left % 2 == 1;
        match &mut self.names {
            Some(names) if is_name => {
                let name = names.bytes();
                // The first entry's value.
                names.bytes();
                name
            }
            _ => self.body.bytes(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

impl Block {
    fn new(first: StreamId) -> Self {
        Block { first, bytes: Vec::new(), live: 0, deleted: 0 }
    }

    fn has_room(&self) -> bool {
        (self.live + self.deleted) < BLOCK_ENTRIES as u32 && self.bytes.len() < BLOCK_BYTES
    }

    fn heap_bytes(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { class_size(self.bytes.capacity()) }
    }

    /// The fields and values of the entry that the block began with, deleted or not.
    fn master(&self) -> Option<(usize, Reader<'_>)> {
        let mut body = self.raw().next()?.body;
        Some((body.u64()? as usize, body))
    }

    fn has_same_fields(&self, items: &[&[u8]]) -> bool {
        let Some((count, mut master)) = self.master() else { return false };
        count * 2 == items.len()
            && items.chunks(2).all(|pair| {
                let name = master.bytes();
                master.bytes();
                name == Some(pair[0])
            })
    }

    /// Adds an entry. Its id is above all others.
    fn push(&mut self, id: StreamId, items: &[&[u8]]) {
        let same = self.has_same_fields(items);
        let ms = id.ms.wrapping_sub(self.first.ms);
        let numbers = wire::u64_len(ms) + wire::u64_len(id.seq) + COUNT_MAX;
        let strings = items.iter().map(|item| item.len() + wire::u64_len(item.len() as u64));
        self.make_room(1 + numbers + strings.sum::<usize>());
        let bytes = &mut self.bytes;
        bytes.push(if same { SAME_FIELDS } else { 0 });
        wire::put_u64(bytes, ms);
        wire::put_u64(bytes, id.seq);
        if same {
            items.chunks(2).for_each(|pair| wire::put_bytes(bytes, pair[1]));
        } else {
            wire::put_u64(bytes, items.len() as u64 / 2);
            items.iter().for_each(|item| wire::put_bytes(bytes, item));
        }
        self.live += 1;
    }

    /// Makes room for an entry: as much again as there is, for the last block is added to often.
    fn make_room(&mut self, entry_max: usize) {
        let len = self.bytes.len();
        let needed = len + entry_max;
        if needed > self.bytes.capacity() {
            let more = (2 * len).min(BLOCK_BYTES);
            self.bytes.reserve_exact(class_size(needed.max(more)) - len);
        }
    }

    /// Gives the room back that is not needed when nothing is added any more.
    fn seal(&mut self) {
        self.bytes.shrink_to(class_size(self.bytes.len()));
    }

    /// All entries, deleted ones included.
    fn raw(&self) -> impl Iterator<Item = Raw<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let mut reader = Reader::new(self.bytes.get(at..)?);
            let flags = reader.u8()?;
            let ms = self.first.ms.wrapping_add(reader.u64()?);
            let id = StreamId { ms, seq: reader.u64()? };
            let body = reader;
            let count = if flags & SAME_FIELDS == 0 {
                2 * reader.u64()? as usize
            } else {
                self.first_count()?
            };
            for _ in 0..count {
                reader.bytes()?;
            }
            let raw = Raw { at, flags, id, body };
            at = self.bytes.len() - reader.len();
            Some(raw)
        })
    }

    /// Number of fields of the first entry, read without a walk.
    fn first_count(&self) -> Option<usize> {
        let mut reader = Reader::new(&self.bytes);
        reader.u8()?;
        reader.u64()?;
        reader.u64()?;
        Some(reader.u64()? as usize)
    }

    fn entry<'a>(&'a self, raw: Raw<'a>) -> StreamEntry<'a> {
        let mut body = raw.body;
        let fields = if raw.flags & SAME_FIELDS == 0 {
            let count = body.u64().unwrap_or(0) as usize;
            Fields { names: None, body, left: 2 * count }
        } else {
            let (count, names) = self.master().unwrap_or((0, Reader::new(&[])));
            Fields { names: Some(names), body, left: 2 * count }
        };
        StreamEntry { id: raw.id, fields }
    }

    /// The entries that are there.
    fn entries(&self) -> impl Iterator<Item = StreamEntry<'_>> {
        let live = self.raw().filter(|raw| raw.flags & DELETED == 0);
        live.map(|raw| self.entry(raw))
    }

    /// Marks an entry as deleted. Returns whether it was there.
    fn delete(&mut self, id: StreamId) -> bool {
        let found = self.raw().find(|raw| raw.id == id && raw.flags & DELETED == 0);
        let Some(at) = found.map(|raw| raw.at) else { return false };
        self.bytes[at] |= DELETED;
        self.live -= 1;
        self.deleted += 1;
        if self.deleted > self.live && self.live > 0 {
            self.rewrite();
        }
        true
    }

    /// Drops deleted entries.
    fn rewrite(&mut self) {
        let mut new = Block::new(self.first);
        for entry in self.entries() {
            let items: Vec<&[u8]> = entry.fields.collect();
            new.push(entry.id, &items);
        }
        new.seal();
        *self = new;
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Stream(Box<Inner>);

#[derive(Debug, Default)]
struct Inner {
    blocks: VecDeque<Block>,
    len: u64,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// Bytes of the blocks' allocations.
    block_bytes: usize,
    /// Bytes counted for the groups.
    group_bytes: usize,
}

impl Clone for Inner {
    /// Its blocks have no spare room, so their account is made anew.
    fn clone(&self) -> Self {
        let blocks = self.blocks.clone();
        let block_bytes = blocks.iter().map(Block::heap_bytes).sum();
        Inner { blocks, block_bytes, groups: self.groups.clone(), ..*self }
    }
}

impl Stream {
    /// Entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there is no entry. (The key stays: a stream remembers its last id.)
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Blocks, for XINFO.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.0.blocks.len()
    }

    /// The id that the next one must be above.
    #[must_use]
    pub fn last_id(&self) -> StreamId {
        self.0.last_id
    }

    /// The highest id that was deleted.
    #[must_use]
    pub fn max_deleted_id(&self) -> StreamId {
        self.0.max_deleted_id
    }

    /// Entries ever added.
    #[must_use]
    pub fn entries_added(&self) -> u64 {
        self.0.entries_added
    }

    /// Id of the first entry; of none, zero.
    #[must_use]
    pub fn first_id(&self) -> StreamId {
        self.range(StreamId::MIN, StreamId::MAX).next().map_or(StreamId::MIN, |entry| entry.id)
    }

    /// How many entries were ever added up to `id`, as far as it can be known.
    #[must_use]
    pub fn distance_from_first(&self, id: StreamId) -> Option<u64> {
        let added = self.entries_added();
        if added == 0 {
            return Some(0);
        }
        if self.is_empty() && id <= self.last_id() || id == self.last_id() {
            return Some(added);
        }
        if id > self.last_id() {
            return None;
        }
        let (first, deleted) = (self.first_id(), self.max_deleted_id());
        if deleted != StreamId::MIN && deleted >= first {
            return None;
        }
        match id.cmp(&first) {
            Ordering::Less => Some(added - self.len()),
            Ordering::Equal => Some(added - self.len() + 1),
            Ordering::Greater => None,
        }
    }

    /// The block that holds `id` or the first one after it.
    fn block_of(&self, id: StreamId) -> usize {
        self.0.blocks.partition_point(|block| block.first <= id).saturating_sub(1)
    }

    /// The entries from `start` to `end`, both included.
    pub fn range(&self, start: StreamId, end: StreamId) -> impl Iterator<Item = StreamEntry<'_>> {
        let blocks = self.0.blocks.range(self.block_of(start)..);
        blocks
            .flat_map(Block::entries)
            .skip_while(move |entry| entry.id < start)
            .take_while(move |entry| entry.id <= end)
    }

    /// The entries from `end` down to `start`, both included.
    pub fn range_rev(
        &self,
        start: StreamId,
        end: StreamId,
    ) -> impl Iterator<Item = StreamEntry<'_>> {
        let after = self.0.blocks.partition_point(|block| block.first <= end);
        let blocks = self.0.blocks.range(..after).rev();
        let entries = blocks.flat_map(|block| {
            let mut entries: Vec<_> = block.entries().collect();
            entries.reverse();
            entries
        });
        entries.skip_while(move |entry| entry.id > end).take_while(move |entry| entry.id >= start)
    }

    /// The entry with an id.
    #[must_use]
    pub fn get(&self, id: StreamId) -> Option<StreamEntry<'_>> {
        self.range(id, id).next()
    }

    /// How many entries are in each block from the first on: what trimming by whole blocks can drop.
    /// The id of a block's last entry is found by a walk, if it is asked for.
    pub fn block_lens(&self) -> impl Iterator<Item = (u64, impl FnOnce() -> Option<StreamId>)> {
        let last = |block: &Block| block.raw().last().map(|raw| raw.id);
        self.0.blocks.iter().map(move |block| (u64::from(block.live), move || last(block)))
    }

    /// The consumer groups by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.0.groups.iter().map(|(name, group)| (&name[..], group))
    }

    /// A consumer group.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.0.groups.get(name)
    }

    fn add(&mut self, id: StreamId, items: &[&[u8]]) {
        let inner = &mut *self.0;
        if id <= inner.last_id {
            return;
        }
        if !inner.blocks.back().is_some_and(Block::has_room) {
            if let Some(full) = inner.blocks.back_mut() {
                inner.block_bytes -= full.heap_bytes();
                full.seal();
                inner.block_bytes += full.heap_bytes();
            }
            inner.blocks.push_back(Block::new(id));
        }
        let Some(block) = inner.blocks.back_mut() else { return };
        let before = block.heap_bytes();
        block.push(id, items);
        inner.block_bytes = inner.block_bytes + block.heap_bytes() - before;
        inner.len += 1;
        inner.entries_added += 1;
        inner.last_id = id;
    }

    fn delete(&mut self, id: StreamId) -> bool {
        let at = self.block_of(id);
        let inner = &mut *self.0;
        let Some(block) = inner.blocks.get_mut(at) else { return false };
        let before = block.heap_bytes();
        if !block.delete(id) {
            return false;
        }
        inner.block_bytes = inner.block_bytes + block.heap_bytes() - before;
        inner.len -= 1;
        inner.max_deleted_id = inner.max_deleted_id.max(id);
        if block.live == 0 {
            self.drop_block(at);
        }
        true
    }

    fn drop_block(&mut self, at: usize) {
        let inner = &mut *self.0;
        let Some(block) = inner.blocks.remove(at) else { return };
        inner.block_bytes -= block.heap_bytes();
        if inner.blocks.capacity() > 4 * inner.blocks.len() + 16 {
            inner.blocks.shrink_to(2 * inner.blocks.len());
        }
    }

    /// Removes the first entries, as XTRIM does: not noted as deleted ones.
    fn remove_first(&mut self, mut count: u64) {
        while count > 0 {
            let Some(block) = self.0.blocks.front() else { return };
            let live = u64::from(block.live);
            if live <= count {
                self.0.len -= live;
                count -= live;
                self.drop_block(0);
                continue;
            }
            let ids: Vec<_> = block.entries().take(count as usize).map(|entry| entry.id).collect();
            let max_deleted_id = self.0.max_deleted_id;
            for id in ids {
                self.delete(id);
            }
            self.0.max_deleted_id = max_deleted_id;
            return;
        }
    }

    /// Changes a group and keeps the account.
    fn edit_group<R>(&mut self, name: &[u8], f: impl FnOnce(&mut Group) -> R) -> Option<R> {
        let inner = &mut *self.0;
        let group = inner.groups.get_mut(name)?;
        let before = group.bytes();
        let result = f(group);
        inner.group_bytes = inner.group_bytes + group.bytes() - before;
        Some(result)
    }

    fn create_group(&mut self, name: &[u8], group: Group) -> bool {
        let inner = &mut *self.0;
        if inner.groups.contains_key(name) {
            return false;
        }
        inner.group_bytes += group.bytes() + group::name_bytes(name);
        inner.groups.insert(Box::from(name), group);
        true
    }

    fn destroy_group(&mut self, name: &[u8]) -> bool {
        let Some(group) = self.0.groups.remove(name) else { return false };
        self.0.group_bytes -= group.bytes() + group::name_bytes(name);
        true
    }
}

impl Collection for Stream {
    type Op<'a> = StreamOp<'a>;
    /// Whether it was a change.
    type Done = bool;

    fn apply(&mut self, op: StreamOp<'_>) -> bool {
        op::apply(self, op)
    }

    fn has_changed(done: &bool) -> bool {
        *done
    }

    fn wakes(op: &StreamOp<'_>) -> bool {
        matches!(op, StreamOp::Add(..) | StreamOp::DestroyGroup(_))
    }

    /// Never: a stream remembers its last id and its groups.
    fn is_empty(&self) -> bool {
        false
    }

    #[inline]
    fn prefetch_parts(&self) {
        prefetch_value(&*self.0);
    }

    fn bytes(&self) -> usize {
        let inner = &self.0;
        let deque = match inner.blocks.capacity() {
            0 => 0,
            capacity => class_size(capacity * size_of::<Block>()),
        };
        class_size(size_of::<Inner>()) + deque + inner.block_bytes + inner.group_bytes
    }

    fn encoding(&self) -> &'static str {
        "stream"
    }

    fn each_op(&self, f: &mut dyn FnMut(StreamOp<'_>)) {
        op::each(self, f);
    }
}

#[cfg(test)]
mod tests;
