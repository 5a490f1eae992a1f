//! A list in pieces of fixed size, for what grows to millions: it never moves what it holds, so that
//! growing costs the same each time and leaves no large freed blocks behind, and at most one piece
//! is not yet used. An access costs one more load than that of a `Vec`.

use std::ops::{Index, IndexMut};

/// Items of a piece.
const PIECE: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub struct Chunks<T> {
    pieces: Vec<Box<[T]>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { pieces: Vec::new(), len: 0 }
    }
}

impl<T: Default> Chunks<T> {
    /// Adds an item; returns its number.
    pub fn push(&mut self, item: T) -> usize {
        let number = self.len;
        if number == self.pieces.len() * PIECE {
            self.pieces.push((0..PIECE).map(|_| T::default()).collect());
        }
        self.len += 1;
        self[number] = item;
        number
    }

    /// Makes it at least `len` items long.
    pub fn extend_to(&mut self, len: usize) {
        while self.len < len {
            self.push(T::default());
        }
    }
}

impl<T> Chunks<T> {
    /// Items so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item with a number.
    #[inline]
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&T> {
        self.pieces.get(number / PIECE).map(|piece| &piece[number % PIECE])
    }

    /// The item with a number.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.pieces.get_mut(number / PIECE).map(|piece| &mut piece[number % PIECE])
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten().take(self.len)
    }

    /// All items in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pieces.iter_mut().flatten().take(self.len)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: usize) -> &T {
        &self.pieces[number / PIECE][number % PIECE]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    #[inline]
    fn index_mut(&mut self, number: usize) -> &mut T {
        &mut self.pieces[number / PIECE][number % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    #[test]
    fn items_keep_their_numbers() {
        let mut list = Chunks::default();
        for n in 0..1000 {
            assert_eq!(list.push(n), n);
        }
        list[700] = 7;
        assert_eq!((list.len(), list[0], list[999], list[700]), (1000, 0, 999, 7));
        assert_eq!(list.get(5000), None);
        list.extend_to(1100);
        assert_eq!(list.iter().filter(|n| **n == 0).count(), 101);
    }
}
