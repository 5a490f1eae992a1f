//! Sizes of slots for entries.
//!
//! Steps are 8 bytes up to 512, then 16 up to 1 KiB. Above, a size is what so many slots of a slab share,
//! 16 to 31 of them, so that nothing is left at a slab's end; a slab is then as many pages as that takes.
//! A value whose length is a power of two comes with its key to a little more, which is the largest of
//! these numbers: 31 slots, and 3 % lost at most.
//!
//! On average 4 bytes are lost up to 512 bytes, 8 up to 1 KiB, and 2 % above. Of mimalloc's and
//! jemalloc's classes, four per doubling, it is 10 %.

use super::class_size;

/// Bytes of a page, of which slabs are made.
pub(crate) const PAGE_BYTES: usize = 32 << 10;
/// Sizes of slots.
pub(crate) const CLASSES: usize = 160;
/// log2 of the pages of the longest slab.
pub(crate) const ORDER_MAX: usize = 3;
/// The longest slot.
pub(crate) const SLOT_MAX: usize = 17_472;

/// Up to here classes are found by 8 bytes, above by 32.
const FINE_MAX: usize = 1024;
const FINE: usize = 8;
const COARSE: usize = 32;

/// One size of slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    pub(crate) bytes: u32,
    /// Slots of a slab.
    pub(crate) slots: u16,
    /// log2 of the pages of a slab.
    pub(crate) order: u8,
}

impl Class {
    const fn new(bytes: usize, order: usize) -> Self {
        let slots = (PAGE_BYTES << order) / bytes;
        Class { bytes: bytes as u32, slots: slots as u16, order: order as u8 }
    }
}

/// All sizes, the smallest first.
pub(crate) const ALL: [Class; CLASSES] = classes();
pub(crate) static CLASS: [Class; CLASSES] = ALL;
static BY_FINE: [u8; FINE_MAX / FINE + 1] = numbers_by(FINE);
static BY_COARSE: [u8; SLOT_MAX / COARSE + 1] = numbers_by(COARSE);

const fn classes() -> [Class; CLASSES] {
    let mut all = [Class::new(16, 0); CLASSES];
    let (mut n, mut bytes) = (0, 16);
    while bytes <= FINE_MAX {
        all[n] = Class::new(bytes, 0);
        n += 1;
        bytes += if bytes < 512 { 8 } else { 16 };
    }
    let (mut order, mut slots) = (0, 31);
    while n < CLASSES {
        all[n] = Class::new(((PAGE_BYTES << order) / slots) & !(COARSE - 1), order);
        n += 1;
        slots -= 1;
        if slots < 16 && order < ORDER_MAX {
            (order, slots) = (order + 1, 31);
        }
    }
    assert!(all[CLASSES - 1].bytes as usize == SLOT_MAX);
    all
}

/// For each multiple of `step` the first class that is as long.
const fn numbers_by<const N: usize>(step: usize) -> [u8; N] {
    let all = ALL;
    let mut numbers = [0; N];
    let (mut i, mut class) = (0, 0);
    while i < N {
        while (all[class].bytes as usize) < i * step {
            class += 1;
        }
        numbers[i] = class as u8;
        i += 1;
    }
    numbers
}

/// The number of the class for `bytes`, at most [`SLOT_MAX`].
#[inline(always)]
pub(crate) fn class_of(bytes: usize) -> usize {
    let number = if bytes <= FINE_MAX {
        BY_FINE[bytes.div_ceil(FINE)]
    } else {
        BY_COARSE[bytes.div_ceil(COARSE)]
    };
    number as usize
}

/// Bytes that an entry of `bytes` takes.
#[inline(always)]
pub(crate) fn slot_size(bytes: usize) -> usize {
    if bytes > SLOT_MAX { class_size(bytes) } else { CLASS[class_of(bytes)].bytes as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_smallest_class_that_is_as_long() {
        for bytes in 1..=SLOT_MAX {
            let found = class_of(bytes);
            let rounded = if bytes > FINE_MAX { bytes.next_multiple_of(COARSE) } else { bytes };
            let first = CLASS.iter().position(|class| class.bytes as usize >= rounded);
            assert_eq!(Some(found), first, "{bytes} bytes");
            assert!(slot_size(bytes) >= bytes && slot_size(slot_size(bytes)) == slot_size(bytes));
        }
        assert_eq!([1, 16, 17, 88, 280].map(slot_size), [16, 16, 24, 88, 280]);
        assert_eq!([1048, 4120, SLOT_MAX].map(slot_size), [1056, 4224, SLOT_MAX]);
        assert_eq!(slot_size(SLOT_MAX + 1), class_size(SLOT_MAX + 1));
    }

    #[test]
    fn little_of_a_slab_is_lost() {
        for class in &CLASS {
            let (bytes, slab) = (class.bytes as usize, PAGE_BYTES << class.order);
            assert!(bytes % 8 == 0 && class.slots >= 15, "{class:?}");
            assert!((slab - bytes * class.slots as usize) * 32 < slab, "{class:?}");
        }
    }

    #[test]
    fn steps_are_small() {
        for pair in CLASS.windows(2) {
            let (below, above) = (pair[0].bytes, pair[1].bytes);
            assert!(above > below && (above - below <= 8 || (above - below) * 15 <= above));
        }
    }
}
