//! Lists: a deque of packed chunks.
//!
//! A small list is one [`Packed`]. A larger one is several ([`chunks`]), each at most [`CHUNK_MAX`] bytes
//! (or a single larger item): 2 bytes per item beyond its text, the chunk's share of 40 bytes, and the
//! slack of its last allocation.
//!
//! Fast at: both ends (one chunk is touched), and walking. By index it skips whole chunks, a million
//! items are some two thousand of them. An insertion in the middle splits a chunk that is full, and
//! moves the chunks behind it in the deque: 24 bytes each. Neighbours that became small are joined.
//!
//! **Tried**: chunks of 8 KiB as Redis' quicklist has them cost twice the time of 2 KiB at the front, while
//! every push there moved the chunk's bytes, and save nothing that is visible per item.

mod chunks;

use super::packed::{HEAD_BYTES, Item, Packed, Pos};
use super::wire::{self, Reader};
use super::{Collection, Operation};
use crate::table::prefetch_value;
use chunks::Chunks;

/// Longest chunk in bytes, unless a single item is longer: with its head it fills a size class.
const CHUNK_MAX: usize = 2048 - HEAD_BYTES;

/// A change of a list. Indexes count from the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOp<'a> {
    /// Adds an item before the first.
    PushFront(&'a [u8]),
    /// Adds an item behind the last.
    PushBack(&'a [u8]),
    /// Adds an item before the one with this index, or behind the last.
    Insert(usize, &'a [u8]),
    /// Puts another item in the place of the one with this index.
    Set(usize, &'a [u8]),
    /// Removes items from this index on, that many.
    Remove(usize, usize),
}

impl<'a> Operation<'a> for ListOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, numbers, item): (u8, &[usize], &[u8]) = match self {
            ListOp::PushFront(item) => (0, &[], item),
            ListOp::PushBack(item) => (1, &[], item),
            ListOp::Insert(index, item) => (2, &[*index], item),
            ListOp::Set(index, item) => (3, &[*index], item),
            ListOp::Remove(index, count) => (4, &[*index, *count], b""),
        };
        out.push(code);
        numbers.iter().for_each(|n| wire::put_u64(out, *n as u64));
        out.extend_from_slice(item);
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let op = match reader.u8()? {
            0 => ListOp::PushFront(reader.rest()),
            1 => ListOp::PushBack(reader.rest()),
            2 => ListOp::Insert(reader.u64()? as usize, reader.rest()),
            3 => ListOp::Set(reader.u64()? as usize, reader.rest()),
            4 => ListOp::Remove(reader.u64()? as usize, reader.u64()? as usize),
            _ => return None,
        };
        reader.end(op)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct List {
    /// Never empty chunks, in order.
    chunks: Chunks,
    len: usize,
    /// Bytes of the chunks' allocations.
    chunk_bytes: usize,
}

impl Clone for List {
    /// Its chunks have no spare room, so the account is made anew.
    fn clone(&self) -> Self {
        let chunks = self.chunks.clone();
        let chunk_bytes = chunks.iter().map(Packed::bytes).sum();
        List { chunks, len: self.len, chunk_bytes }
    }
}

/// Where an item is: a chunk, and the place in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: usize,
    pos: Pos,
}

impl List {
    /// Items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item with an index from the front.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        let place = self.place(index)?;
        Some(self.chunks[place.chunk].get(place.pos))
    }

    /// All items in order, from both ends.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Item<'_>> {
        self.chunks.iter().flatten()
    }

    /// The items from an index on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = Item<'_>> {
        let place = self.place(index);
        let rest = place.map_or(usize::MAX, |place| place.chunk + 1);
        let first = place.map(|place| self.chunks[place.chunk].iter_from(place.pos));
        first.into_iter().flatten().chain(self.chunks.iter().skip(rest).flatten())
    }

    /// The chunk of the item with an index, and its number there; counted from the nearer end.
    fn chunk_of(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index <= self.len / 2 {
            let mut left = index;
            for (i, chunk) in self.chunks.iter().enumerate() {
                if left < chunk.len() {
                    return Some((i, left));
                }
                left -= chunk.len();
            }
        }
        let mut start = self.len;
        for i in (0..self.chunks.len()).rev() {
            start -= self.chunks[i].len();
            if index >= start {
                return Some((i, index - start));
            }
        }
        None
    }

    fn place(&self, index: usize) -> Option<Place> {
        let (chunk, number) = self.chunk_of(index)?;
        Some(Place { chunk, pos: self.chunks[chunk].at(number)? })
    }

    /// Changes a chunk and keeps the account.
    fn edit_chunk<R>(&mut self, i: usize, f: impl FnOnce(&mut Packed) -> R) -> R {
        let chunk = &mut self.chunks[i];
        let (bytes, len) = (chunk.bytes(), chunk.len());
        let result = f(chunk);
        self.chunk_bytes = self.chunk_bytes + chunk.bytes() - bytes;
        self.len = self.len + chunk.len() - len;
        result
    }

    fn insert_chunk(&mut self, i: usize, chunk: Packed) {
        self.chunk_bytes += chunk.bytes();
        self.len += chunk.len();
        self.chunks.insert(i, chunk);
    }

    fn remove_chunk(&mut self, i: usize) {
        let Some(chunk) = self.chunks.remove(i) else { return };
        self.chunk_bytes -= chunk.bytes();
        self.len -= chunk.len();
    }

    fn has_room(&self, i: usize, item: Item<'_>) -> bool {
        let chunk = self.chunks.get(i);
        chunk.is_some_and(|chunk| chunk.packed_len() + item.packed_len() <= CHUNK_MAX)
    }

    /// A chunk for an end of the list. One beside others will be full some day, so it has its room from
    /// the start.
    fn new_chunk(&self) -> Packed {
        if self.chunks.len() == 0 { Packed::default() } else { Packed::with_room(CHUNK_MAX) }
    }

    fn push_front(&mut self, item: Item<'_>) {
        if !self.has_room(0, item) {
            self.insert_chunk(0, self.new_chunk());
        }
        self.edit_chunk(0, |chunk| chunk.push_front(item));
    }

    fn push_back(&mut self, item: Item<'_>) {
        if !self.has_room(self.chunks.len().wrapping_sub(1), item) {
            self.insert_chunk(self.chunks.len(), self.new_chunk());
        }
        self.edit_chunk(self.chunks.len() - 1, |chunk| chunk.push_back(item));
    }

    fn insert(&mut self, index: usize, item: Item<'_>) {
        if index == 0 {
            return self.push_front(item);
        }
        let Some(Place { chunk, pos }) = self.place(index) else { return self.push_back(item) };
        if self.has_room(chunk, item) {
            return self.edit_chunk(chunk, |packed| packed.insert(pos, item));
        }
        let tail = self.edit_chunk(chunk, |packed| packed.split_off(pos));
        if !tail.is_empty() {
            self.insert_chunk(chunk + 1, tail);
        }
        let mut alone = Packed::default();
        alone.push_back(item);
        self.insert_chunk(chunk + 1, alone);
        if self.chunks[chunk].is_empty() {
            self.remove_chunk(chunk);
        }
        self.join(chunk + 1);
        self.join(chunk);
    }

    fn set(&mut self, index: usize, item: Item<'_>) {
        let Some(Place { chunk, pos }) = self.place(index) else { return };
        if self.has_room(chunk, item) {
            return self.edit_chunk(chunk, |packed| packed.replace(pos, item));
        }
        self.remove(index, 1);
        self.insert(index, item);
    }

    /// Removes the item at an end of a list that has one.
    fn pop(&mut self, i: usize, pos: Option<Pos>) {
        match pos {
            Some(pos) if self.chunks[i].len() > 1 => self.edit_chunk(i, |chunk| chunk.remove(pos)),
            _ => self.remove_chunk(i),
        }
    }

    fn remove(&mut self, index: usize, mut count: usize) {
        if count == 1 && index < self.len {
            let last = self.chunks.len() - 1;
            if index == 0 {
                return self.pop(0, self.chunks[0].first());
            } else if index == self.len - 1 {
                return self.pop(last, self.chunks[last].last());
            }
        }
        let Some(Place { chunk, pos }) = self.place(index) else { return };
        let (mut i, mut from) = (chunk, Some(pos));
        while count > 0 && i < self.chunks.len() {
            let len = self.chunks[i].len();
            let start = from.take();
            if start.is_none_or(|pos| Some(pos) == self.chunks[i].first()) && len <= count {
                self.remove_chunk(i);
                count -= len;
                continue;
            }
            let Some(pos) = start.or_else(|| self.chunks[i].first()) else { return };
            self.edit_chunk(i, |packed| packed.remove_range(pos, count));
            count -= len - self.chunks[i].len();
            i += 1;
        }
        self.join(chunk);
        self.join(chunk.wrapping_sub(1));
    }

    /// Joins a chunk with the one behind it, if both are small.
    fn join(&mut self, i: usize) {
        let (Some(a), Some(b)) = (self.chunks.get(i), self.chunks.get(i.wrapping_add(1))) else {
            return;
        };
        if a.packed_len() + b.packed_len() > CHUNK_MAX / 2 {
            return;
        }
        let second = b.clone();
        self.edit_chunk(i, |packed| packed.append(&second));
        self.remove_chunk(i + 1);
    }
}

impl Collection for List {
    type Op<'a> = ListOp<'a>;
    type Done = ();

    fn apply(&mut self, op: ListOp<'_>) {
        match op {
            ListOp::PushFront(item) => self.push_front(Item::of(item)),
            ListOp::PushBack(item) => self.push_back(Item::of(item)),
            ListOp::Insert(index, item) => self.insert(index, Item::of(item)),
            ListOp::Set(index, item) => self.set(index, Item::of(item)),
            ListOp::Remove(index, count) => self.remove(index, count),
        }
    }

    fn wakes(op: &ListOp<'_>) -> bool {
        !matches!(op, ListOp::Set(..) | ListOp::Remove(..))
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> usize {
        self.chunks.frame_bytes() + self.chunk_bytes
    }

    /// Of the first chunk what it owns, of the last one among others its head.
    #[inline]
    fn prefetch_parts(&self) {
        self.chunks.get(0).into_iter().for_each(Packed::prefetch_parts);
        self.chunks.last().into_iter().for_each(prefetch_value);
    }

    fn encoding(&self) -> &'static str {
        // Redis 7.0 knows no other for lists.
        "quicklist"
    }

    fn each_op(&self, f: &mut dyn FnMut(ListOp<'_>)) {
        let mut digits = super::Digits::new();
        self.iter().for_each(|item| f(ListOp::PushBack(item.bytes(&mut digits))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Kind, Object};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn ops() -> impl Strategy<Value = (u8, usize, usize, Vec<u8>)> {
        let text = prop_oneof![
            8 => proptest::collection::vec(any::<u8>(), 0..120),
            1 => proptest::collection::vec(any::<u8>(), 1000..3000),
        ];
        (0u8..5, 0usize..300, 0usize..60, text)
    }

    fn run(list: &mut List, model: &mut VecDeque<Vec<u8>>, op: ListOp<'_>) {
        let mut encoded = Vec::new();
        op.encode(&mut encoded);
        list.apply(ListOp::decode(&encoded).expect("what was encoded"));
        let len = model.len();
        match op {
            ListOp::PushFront(item) => model.push_front(item.to_vec()),
            ListOp::PushBack(item) => model.push_back(item.to_vec()),
            ListOp::Insert(i, item) => model.insert(i.min(len), item.to_vec()),
            ListOp::Set(i, item) if i < len => model[i] = item.to_vec(),
            ListOp::Set(..) => {}
            ListOp::Remove(i, n) => drop(model.drain(i.min(len)..i.saturating_add(n).min(len))),
        }
    }

    fn check(list: &List, model: &VecDeque<Vec<u8>>) {
        assert_eq!(list.len(), model.len());
        assert!(list.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
        assert!(list.iter().rev().map(|item| item.to_vec()).eq(model.iter().rev().cloned()));
        for i in [0, 1, model.len() / 3, model.len() / 2, model.len()] {
            assert_eq!(list.get(i).map(|item| item.to_vec()).as_ref(), model.get(i));
            assert!(list.iter_from(i).map(|item| item.to_vec()).eq(model.iter().skip(i).cloned()));
        }
        assert!(list.chunks.iter().all(|chunk| !chunk.is_empty()));
        assert_eq!(list.chunk_bytes, list.chunks.iter().map(Packed::bytes).sum::<usize>());
    }

    proptest! {
        #[test]
        fn a_list_is_a_deque_of_strings(ops in proptest::collection::vec(ops(), 1..300)) {
            let (mut list, mut model) = (List::default(), VecDeque::new());
            for (code, a, b, text) in &ops {
                let op = match code {
                    0 => ListOp::PushFront(text),
                    1 => ListOp::PushBack(text),
                    2 => ListOp::Insert(*a, text),
                    3 => ListOp::Set(*a, text),
                    _ => ListOp::Remove(*a, b % 8),
                };
                run(&mut list, &mut model, op);
            }
            check(&list, &model);
            check(&list.clone(), &model);
            let mut copy = Vec::new();
            Object::List(list).encode(&mut copy);
            let Some(Object::List(copy)) = Object::decode(Kind::List, &copy) else { panic!() };
            check(&copy, &model);
        }
    }
}
