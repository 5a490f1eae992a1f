//! Memory of the keyspace. One of the three rooms where `unsafe` lives.
//!
//! Three kinds of memory, with different lifetimes:
//! - **Entries** ([`entry`]): one slot per key, of sizes of our own ([`classes`]), from slabs ([`slab`])
//!   of which each thread keeps some free slots ([`slots`]). An entry may be moved to another slot, so
//!   that what is sparse becomes empty ([`sparse`]).
//! - **Buckets** ([`pool`]): the table's lines, from big regions ([`region`]) that are never unmapped.
//!   Because a bucket's address stays readable for the life of the process, a worker may look at
//!   buckets without the partition's lock to prefetch entries: the worst a stale look can do is
//!   prefetch a useless line.
//! - **The rest**, what collections own and values of more than 16 KiB, is the process allocator's.

mod ahead;
pub(crate) mod classes;
pub(crate) mod entry;
mod guard;
pub(crate) mod pages;
pub(crate) mod pool;
pub(crate) mod region;
pub(crate) mod slab;
pub(crate) mod slots;
mod space;
pub(crate) mod sparse;

/// Bytes that an allocation of `n` bytes really takes: 16-byte steps to 128, then four classes per
/// doubling. The default global allocator (mimalloc) has these same classes.
#[inline(always)]
#[must_use]
pub fn class_size(n: usize) -> usize {
    if n <= 128 {
        return (n + 15) & !15;
    }
    let step = 1usize << (usize::BITS - 1 - (n - 1).leading_zeros() - 2);
    (n + step - 1) & !(step - 1)
}

#[cfg(test)]
mod tests {
    use super::class_size;

    #[test]
    fn classes_are_sixteenths_then_quarters() {
        let cases = [(1, 16), (16, 16), (17, 32), (128, 128), (129, 160), (160, 160), (161, 192)];
        for (n, class) in cases {
            assert_eq!(class_size(n), class, "size {n}");
        }
        assert_eq!(class_size(257), 320);
        assert_eq!(class_size(1025), 1280);
        for n in 1..100_000 {
            let class = class_size(n);
            assert!(class >= n && class_size(class) == class, "size {n} class {class}");
        }
    }
}
