//! Memory of what clients have registered: waits, watched keys, keys that they keep copies of. It counts
//! in `maxmemory` and as overhead in INFO, while it is there.
//!
//! Whoever holds such memory has a [`Charge`], sets it to what it holds after each change, and by its end
//! the charge is gone. All charges add up to one [`Sum`] of the keyspace, so the sum is read in O(1), and
//! a change costs one addition to a shared counter: registering is no hot path.

use hypercache_store::class_size;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What all charges add up to.
#[derive(Debug, Default)]
pub struct Sum(AtomicUsize);

impl Sum {
    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Bytes that count while this value lives.
#[derive(Debug, Default)]
pub struct Charge {
    sum: Arc<Sum>,
    bytes: usize,
}

impl Charge {
    /// A charge of nothing yet.
    #[must_use]
    pub fn new(sum: &Arc<Sum>) -> Self {
        Charge { sum: Arc::clone(sum), bytes: 0 }
    }

    /// A charge of nothing yet in the same sum.
    #[must_use]
    pub fn another(&self) -> Self {
        Charge::new(&self.sum)
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        // The sum wraps around on its way and comes out right.
        self.sum.0.fetch_add(bytes.wrapping_sub(self.bytes), Relaxed);
        self.bytes = bytes;
    }

    /// Counts more, or with `before` above `after` fewer.
    pub fn change(&mut self, before: usize, after: usize) {
        self.set(self.bytes + after - before);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes that the heap gives for so many.
pub(crate) fn heap(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { class_size(bytes) }
}

/// Bytes of a value that is shared, with its two counts.
pub(crate) fn shared<T>() -> usize {
    heap(size_of::<T>() + 2 * size_of::<usize>())
}

/// Bytes of the table of a map: a power of two of places, of which it fills seven eighths, and a byte
/// for each place.
pub(crate) fn table<K, V, S>(map: &HashMap<K, V, S>) -> usize {
    let places = match map.capacity() {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        more => (more * 8 / 7).next_power_of_two(),
    };
    /// Bytes beyond the places that are looked at in one step.
    const STEP: usize = 16;
    heap(places * (size_of::<(K, V)>() + 1) + STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_and_end() {
        let sum = Arc::default();
        let (mut a, mut b) = (Charge::new(&sum), Charge::new(&sum));
        a.set(100);
        b.change(0, 30);
        b.change(20, 5);
        assert_eq!((sum.bytes(), a.bytes(), b.bytes()), (115, 100, 15));
        a.set(10);
        drop(b);
        assert_eq!(sum.bytes(), 10);
        drop(a);
        assert_eq!(sum.bytes(), 0);
    }

    #[test]
    fn a_table_has_room_for_what_its_map_takes() {
        let mut map = HashMap::new();
        assert_eq!(table(&map), 0);
        for i in 0..10_000_u64 {
            map.insert(i, i);
            let least = map.len() * 17;
            assert!((least..least * 5 + 100).contains(&table(&map)), "{} of {i}", table(&map));
        }
    }
}
