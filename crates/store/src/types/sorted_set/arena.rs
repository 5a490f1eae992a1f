//! Numbered items in pieces: the leaves, nodes and buckets of a large sorted set. Growing moves at
//! most one piece that is not full yet, so it costs the same at any size; the numbers of items that
//! went are given again.

use crate::mem::class_size;
use std::ops::{Index, IndexMut};

/// Items of a full piece.
const PIECE: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Arena<T> {
    pieces: Vec<Vec<T>>,
    /// Numbers without an item.
    free: Vec<u32>,
    /// Bytes of the pieces.
    piece_bytes: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { pieces: Vec::new(), free: Vec::new(), piece_bytes: 0 }
    }
}

/// A copy with the same capacity, so that it takes as many bytes.
pub(super) fn copy<T: Clone>(from: &Vec<T>) -> Vec<T> {
    let mut to = Vec::with_capacity(from.capacity());
    to.extend(from.iter().cloned());
    to
}

/// Bytes of a vector's allocation.
pub(super) fn bytes_of<T>(vector: &Vec<T>) -> usize {
    match vector.capacity() * size_of::<T>() {
        0 => 0,
        bytes => class_size(bytes),
    }
}

impl<T: Clone> Clone for Arena<T> {
    fn clone(&self) -> Self {
        let mut pieces = Vec::with_capacity(self.pieces.capacity());
        pieces.extend(self.pieces.iter().map(copy));
        Arena { pieces, free: copy(&self.free), piece_bytes: self.piece_bytes }
    }
}

impl<T: Default> Arena<T> {
    /// Adds an item; returns its number.
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self[number] = item;
            return number;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::new());
        }
        let before = self.pieces.len() - 1;
        let piece = &mut self.pieces[before];
        let number = before * PIECE + piece.len();
        if piece.len() == piece.capacity() {
            let bytes = bytes_of(piece);
            let more = if before > 0 { PIECE } else { (piece.len() / 4 + 2).min(PIECE) };
            piece.reserve_exact(more.min(PIECE - piece.len()));
            self.piece_bytes = self.piece_bytes + bytes_of(piece) - bytes;
        }
        piece.push(item);
        number as u32
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, number: u32) -> T {
        self.free.push(number);
        std::mem::take(&mut self[number])
    }

    /// Bytes on the heap, without what the items own.
    pub(super) fn bytes(&self) -> usize {
        self.piece_bytes + bytes_of(&self.pieces) + bytes_of(&self.free)
    }

    /// All items, with defaults in the place of those that went.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        &self.pieces[number as usize / PIECE][number as usize % PIECE]
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.pieces[number as usize / PIECE][number as usize % PIECE]
    }
}
