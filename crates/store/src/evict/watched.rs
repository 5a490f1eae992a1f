//! A bounded set of keys in the order of their last use, found by hash: what the learner and the
//! miss-ratio curve watch.
//!
//! Nodes in one array, linked both ways by number, and an open-addressed index of numbers at a load of
//! at most a half: 28 bytes per key. A use is one look into the index and a change of four links; it
//! takes no memory.

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node<T> {
    hash: u64,
    value: T,
    older: u32,
    newer: u32,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    nodes: Vec<Node<T>>,
    /// Numbers of nodes, by hash; [`NONE`] where there is none.
    index: Box<[u32]>,
    oldest: u32,
    newest: u32,
    len_max: usize,
}

impl<T: Copy> Watched<T> {
    /// An empty set of at most `len_max` keys, which is not 0.
    pub(crate) fn new(len_max: usize) -> Self {
        let slots = (2 * len_max).next_power_of_two();
        Watched {
            nodes: Vec::with_capacity(len_max),
            index: vec![NONE; slots].into_boxed_slice(),
            oldest: NONE,
            newest: NONE,
            len_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<T>>() + self.index.len() * 4
    }

    /// Every key's hash and value, the oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (u64, T)> {
        let mut number = self.oldest;
        std::iter::from_fn(move || {
            let node = self.nodes.get(number as usize)?;
            number = node.newer;
            Some((node.hash, node.value))
        })
    }

    /// Makes a key the newest, with a new value. Returns its old value, if it was there, and what fell
    /// out for it, if it was not and the set was full.
    pub(crate) fn put(&mut self, hash: u64, value: T) -> (Option<T>, Option<T>) {
        let slot = self.slot_of(hash);
        let there = self.index[slot];
        if there != NONE {
            let old = std::mem::replace(&mut self.nodes[there as usize].value, value);
            self.unlink(there);
            self.link_newest(there);
            return (Some(old), None);
        }
        let node = Node { hash, value, older: NONE, newer: NONE };
        if self.nodes.len() < self.len_max {
            self.nodes.push(node);
            let number = self.nodes.len() as u32 - 1;
            self.index[slot] = number;
            self.link_newest(number);
            return (None, None);
        }
        let number = self.oldest;
        let dropped = self.nodes[number as usize];
        self.unlink(number);
        self.remove_from_index(dropped.hash);
        self.nodes[number as usize] = node;
        let slot = self.slot_of(hash);
        self.index[slot] = number;
        self.link_newest(number);
        (None, Some(dropped.value))
    }

    /// Takes a key out; returns its value.
    pub(crate) fn remove(&mut self, hash: u64) -> Option<T> {
        let number = self.index[self.slot_of(hash)];
        let removed = *self.nodes.get(number as usize)?;
        self.unlink(number);
        self.remove_from_index(hash);
        let last = self.nodes.len() as u32 - 1;
        if number != last {
            // The last node moves to where this one was.
            let moved = self.nodes[last as usize];
            let slot = self.slot_of(moved.hash);
            self.index[slot] = number;
            self.nodes[number as usize] = moved;
            match self.nodes.get_mut(moved.older as usize) {
                Some(older) => older.newer = number,
                None => self.oldest = number,
            }
            match self.nodes.get_mut(moved.newer as usize) {
                Some(newer) => newer.older = number,
                None => self.newest = number,
            }
        }
        self.nodes.pop();
        Some(removed.value)
    }

    fn home_of(&self, hash: u64) -> usize {
        // The high bits decide what is watched at all, so the low ones are all that differ.
        hash as usize & (self.index.len() - 1)
    }

    /// Where the number of a key is, or where it would be.
    fn slot_of(&self, hash: u64) -> usize {
        let mut slot = self.home_of(hash);
        loop {
            let number = self.index[slot];
            if number == NONE || self.nodes[number as usize].hash == hash {
                return slot;
            }
            slot = (slot + 1) & (self.index.len() - 1);
        }
    }

    /// Takes a key out of the index and moves those that had to step aside nearer to their homes.
    fn remove_from_index(&mut self, hash: u64) {
        let mask = self.index.len() - 1;
        let mut hole = self.slot_of(hash);
        let mut slot = hole;
        loop {
            slot = (slot + 1) & mask;
            let number = self.index[slot];
            if number == NONE {
                break;
            }
            let home = self.home_of(self.nodes[number as usize].hash);
            let is_beyond_hole =
                (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(hole) & mask);
            if is_beyond_hole {
                self.index[hole] = number;
                hole = slot;
            }
        }
        self.index[hole] = NONE;
    }

    fn unlink(&mut self, number: u32) {
        let Node { older, newer, .. } = self.nodes[number as usize];
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, number: u32) {
        let older = self.newest;
        let node = &mut self.nodes[number as usize];
        (node.older, node.newer) = (older, NONE);
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = number,
            None => self.oldest = number,
        }
        self.newest = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;

    #[test]
    fn behaves_as_a_list_that_is_searched() {
        let (mut watched, mut model) = (Watched::new(50), Vec::<(u64, u32)>::new());
        let mut rng = Rng::new(1);
        for n in 0..20_000 {
            // Few distinct lower halves, so that many keys meet in the index.
            let hash = rng.below(12) << 33 | rng.below(8);
            let old = model.iter().position(|(h, _)| *h == hash).map(|i| model.remove(i).1);
            model.push((hash, n));
            let dropped = (model.len() > 50).then(|| model.remove(0).1);
            assert_eq!(watched.put(hash, n), (old, dropped), "step {n}");
            if n % 5 == 0 {
                let (hash, value) = model.remove(rng.below(model.len() as u64) as usize);
                assert_eq!((watched.remove(hash), watched.remove(hash)), (Some(value), None));
                assert!(watched.oldest_first().eq(model.iter().copied()), "step {n}");
            }
            assert_eq!(watched.len(), model.len());
        }
    }
}
