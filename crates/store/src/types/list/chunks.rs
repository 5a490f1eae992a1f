//! The chunks of a list in order: the first in place, any others in a deque of their own. Hot path.
//!
//! Most lists are one chunk: it is one step away from the list, and no deque of it takes 100 bytes.

use crate::mem::class_size;
use crate::types::Packed;
use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    /// The first one, if there is one.
    first: Packed,
    #[allow(
        clippy::box_collection,
        reason = "few lists have one, and each has room for a pointer only"
    )]
    others: Option<Box<VecDeque<Packed>>>,
    has_first: bool,
}

impl Chunks {
    fn others(&self) -> impl DoubleEndedIterator<Item = &Packed> {
        self.others.as_deref().into_iter().flatten()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.has_first) + self.others.as_ref().map_or(0, |others| others.len())
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Packed> {
        self.has_first.then_some(&self.first).into_iter().chain(self.others())
    }

    #[inline]
    pub(super) fn get(&self, i: usize) -> Option<&Packed> {
        match i.checked_sub(1) {
            None => self.has_first.then_some(&self.first),
            Some(i) => self.others.as_ref()?.get(i),
        }
    }

    /// The last one.
    #[inline]
    pub(super) fn last(&self) -> Option<&Packed> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Puts a chunk before number `i`.
    pub(super) fn insert(&mut self, i: usize, chunk: Packed) {
        if !self.has_first {
            (self.first, self.has_first) = (chunk, true);
            return;
        }
        let others = self.others.get_or_insert_default();
        match i.checked_sub(1) {
            None => others.push_front(std::mem::replace(&mut self.first, chunk)),
            Some(i) => others.insert(i, chunk),
        }
    }

    /// Takes chunk number `i` out.
    pub(super) fn remove(&mut self, i: usize) -> Option<Packed> {
        let removed = match (i.checked_sub(1), &mut self.others) {
            (None, None) => {
                self.has_first = false;
                std::mem::take(&mut self.first)
            }
            (None, Some(others)) => std::mem::replace(&mut self.first, others.pop_front()?),
            (Some(i), others) => others.as_mut()?.remove(i)?,
        };
        self.shrink();
        Some(removed)
    }

    fn shrink(&mut self) {
        let Some(others) = &mut self.others else { return };
        if others.is_empty() {
            self.others = None;
        } else if others.capacity() > 4 * others.len() + 16 {
            others.shrink_to(2 * others.len());
        }
    }

    /// Bytes of what is around the chunks.
    pub(super) fn frame_bytes(&self) -> usize {
        self.others.as_ref().map_or(0, |others| {
            let places = class_size(others.capacity() * size_of::<Packed>());
            class_size(size_of::<VecDeque<Packed>>()) + places
        })
    }
}

impl Index<usize> for Chunks {
    type Output = Packed;

    #[inline]
    fn index(&self, i: usize) -> &Packed {
        self.get(i).expect("the number of a chunk")
    }
}

impl IndexMut<usize> for Chunks {
    #[inline]
    fn index_mut(&mut self, i: usize) -> &mut Packed {
        match i.checked_sub(1) {
            None => &mut self.first,
            Some(i) => &mut self.others.as_mut().expect("the number of a chunk")[i],
        }
    }
}
