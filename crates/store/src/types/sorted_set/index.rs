//! Which leaf a member is in: hashes of 32 bits with numbers of leaves. Hot path.
//!
//! An extendible hash table as [`super::super::dict`] is one (see there), of buckets that are sorted by
//! the hash: hashes are evenly spread, so a place is guessed from the hash and is a few entries off.
//! There are no empty slots beyond the slack of the allocation: 8 bytes per member, an eighth of
//! slack, and 0.3 for the bucket. Members themselves are only in the leaves; their hash is exact
//! enough that the leaf it names is nearly always the right one.
//!
//! A walk goes in the order of the hashes, which is that of the buckets: its cursor is the least hash
//! not yet seen, and no split, merge or move changes what that means.
//!
//! **Tried**: open addressing with a tag and a leaf, 5 bytes a slot, saves 2 bytes per member, but a
//! split must read all members again to know their hashes: two hundred leaves out of memory.

use super::arena::{Arena, bytes_of, copy};
use crate::mem::class_size;

/// Most entries in a bucket.
const BUCKET_MAX: usize = 256;
/// Deepest buckets; only a hash that is broken would lead beyond, then they are longer.
const DEPTH_MAX: u8 = 28;

/// Entries with hashes that begin with the same bits.
#[derive(Debug, Default)]
struct Bucket {
    /// The hash in the upper half and the leaf in the lower, ascending by the hash.
    entries: Vec<u64>,
    /// The first `depth` bits of all hashes.
    prefix: u32,
    depth: u8,
}

impl Clone for Bucket {
    fn clone(&self) -> Self {
        Bucket { entries: copy(&self.entries), ..*self }
    }
}

#[inline]
fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

impl Bucket {
    /// The place of the first entry with this hash or a larger one.
    #[inline]
    fn place(&self, hash: u32) -> usize {
        let entries = &self.entries;
        let spread = u64::from(hash << self.depth);
        let mut i = ((spread * entries.len() as u64) >> 32) as usize;
        while i > 0 && hash_of(entries[i - 1]) >= hash {
            i -= 1;
        }
        while i < entries.len() && hash_of(entries[i]) < hash {
            i += 1;
        }
        i
    }

    /// The place of an entry.
    fn find(&self, hash: u32, leaf: u32) -> Option<usize> {
        let entry = u64::from(hash) << 32 | u64::from(leaf);
        let start = self.place(hash);
        let run = self.entries[start..].iter().take_while(|e| hash_of(**e) == hash);
        run.copied().position(|e| e == entry).map(|i| start + i)
    }

    fn insert(&mut self, hash: u32, leaf: u32) {
        let at = self.place(hash);
        let len = self.entries.len();
        if len == self.entries.capacity() {
            let bytes = class_size((len + len / 8 + 2) * size_of::<u64>());
            self.entries.reserve_exact(bytes / size_of::<u64>() - len);
        }
        self.entries.insert(at, u64::from(hash) << 32 | u64::from(leaf));
    }

    fn remove(&mut self, at: usize) {
        self.entries.remove(at);
        let needed = self.entries.len() + self.entries.len() / 8 + 2;
        if self.entries.capacity() > 2 * needed {
            self.entries.shrink_to(needed);
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Numbers of buckets, by the first `depth` bits of a hash.
    directory: Vec<u32>,
    buckets: Arena<Bucket>,
    /// Buckets that there are.
    len: usize,
    /// Bytes that the buckets own.
    bucket_bytes: usize,
    depth: u8,
}

impl Default for Index {
    fn default() -> Self {
        let mut buckets = Arena::default();
        let directory = vec![buckets.add(Bucket::default())];
        Index { directory, buckets, len: 1, bucket_bytes: 0, depth: 0 }
    }
}

impl Index {
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.directory) + self.buckets.bytes() + self.bucket_bytes
    }

    /// The bucket of a hash.
    #[inline]
    fn number(&self, hash: u32) -> u32 {
        self.directory[(u64::from(hash) >> (32 - self.depth)) as usize]
    }

    fn edit<R>(&mut self, number: u32, f: impl FnOnce(&mut Bucket) -> R) -> R {
        let bucket = &mut self.buckets[number];
        let bytes = bytes_of(&bucket.entries);
        let result = f(bucket);
        self.bucket_bytes = self.bucket_bytes + bytes_of(&bucket.entries) - bytes;
        result
    }

    /// The leaves that may hold a member of this hash.
    #[inline]
    pub(super) fn leaves(&self, hash: u32) -> impl Iterator<Item = u32> {
        let bucket = &self.buckets[self.number(hash)];
        let run = &bucket.entries[bucket.place(hash)..];
        run.iter().take_while(move |entry| hash_of(**entry) == hash).map(|entry| *entry as u32)
    }

    /// Adds a member that is in a leaf.
    pub(super) fn insert(&mut self, hash: u32, leaf: u32) {
        loop {
            let number = self.number(hash);
            let bucket = &self.buckets[number];
            if bucket.entries.len() < BUCKET_MAX || bucket.depth == DEPTH_MAX {
                return self.edit(number, |bucket| bucket.insert(hash, leaf));
            }
            self.split(number);
        }
    }

    /// Notes that a member went from one leaf to another.
    pub(super) fn set(&mut self, hash: u32, from: u32, to: u32) {
        let number = self.number(hash);
        let bucket = &mut self.buckets[number];
        if let Some(at) = bucket.find(hash, from) {
            bucket.entries[at] = u64::from(hash) << 32 | u64::from(to);
        }
    }

    /// Removes a member that was in a leaf.
    pub(super) fn remove(&mut self, hash: u32, leaf: u32) {
        let number = self.number(hash);
        let Some(at) = self.buckets[number].find(hash, leaf) else { return };
        self.edit(number, |bucket| bucket.remove(at));
        if self.buckets[number].entries.len() < BUCKET_MAX / 4 {
            self.merge(number);
        }
    }

    /// Calls `f` with the hashes from `cursor` on and their leaves: `count` of them, and as many more
    /// as share a hash with the last. Returns the next cursor, 0 at the end.
    pub(super) fn scan(&self, cursor: u64, count: u64, mut f: impl FnMut(u32, u32)) -> u64 {
        let (mut seen, mut last) = (0, None);
        let mut from = cursor & u64::from(u32::MAX);
        loop {
            let bucket = &self.buckets[self.number(from as u32)];
            for &entry in &bucket.entries[bucket.place(from as u32)..] {
                let hash = hash_of(entry);
                if seen >= count && last != Some(hash) {
                    return u64::from(hash);
                }
                if last != Some(hash) {
                    seen += 1;
                }
                last = Some(hash);
                f(hash, entry as u32);
            }
            from = (u64::from(bucket.prefix) + 1) << (32 - bucket.depth);
            if from > u64::from(u32::MAX) {
                return 0;
            }
        }
    }

    /// The directory's entries for a bucket.
    fn entries_of(&self, bucket: &Bucket) -> std::ops::Range<usize> {
        let spread = self.depth - bucket.depth;
        let start = (bucket.prefix as usize) << spread;
        start..start + (1 << spread)
    }

    /// Cuts a bucket in two by the next bit of the hash.
    fn split(&mut self, number: u32) {
        if self.buckets[number].depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&number| [number, number]);
            self.directory = doubled.collect();
            self.depth += 1;
        }
        let upper = self.edit(number, |bucket| {
            bucket.depth += 1;
            bucket.prefix <<= 1;
            let bit = 1 << (32 - bucket.depth);
            let cut = bucket.entries.partition_point(|entry| hash_of(*entry) & bit == 0);
            let entries = bucket.entries.split_off(cut);
            bucket.entries.shrink_to_fit();
            Bucket { entries, prefix: bucket.prefix | 1, depth: bucket.depth }
        });
        let entries = self.entries_of(&upper);
        self.add_bytes(&upper);
        let new_number = self.buckets.add(upper);
        self.directory[entries].fill(new_number);
        self.len += 1;
    }

    fn add_bytes(&mut self, bucket: &Bucket) {
        self.bucket_bytes += bytes_of(&bucket.entries);
    }

    /// Joins a bucket with its other half, if both are sparse.
    fn merge(&mut self, number: u32) {
        let bucket = &self.buckets[number];
        if bucket.depth == 0 {
            return;
        }
        let (prefix, depth) = (bucket.prefix, bucket.depth);
        let buddy = self.directory[((prefix ^ 1) as usize) << (self.depth - depth)];
        let other = &self.buckets[buddy];
        if other.depth != depth || bucket.entries.len() + other.entries.len() > BUCKET_MAX / 2 {
            return;
        }
        let (lower, upper) = if prefix & 1 == 0 { (number, buddy) } else { (buddy, number) };
        let taken = self.buckets.remove(upper);
        self.bucket_bytes -= bytes_of(&taken.entries);
        self.edit(lower, |bucket| {
            bucket.entries.reserve_exact(taken.entries.len());
            bucket.entries.extend_from_slice(&taken.entries);
            bucket.prefix >>= 1;
            bucket.depth -= 1;
        });
        let entries = self.entries_of(&self.buckets[lower]);
        self.directory[entries].fill(lower);
        self.len -= 1;
        // Looked at now and then only, for it is a look at all of the directory.
        if self.directory.len() > 8 * self.len && self.len.is_multiple_of(self.len / 8 + 1) {
            self.shrink_directory();
        }
    }

    fn shrink_directory(&mut self) {
        let depths = self.directory.iter().map(|number| self.buckets[*number].depth);
        let depth = depths.max().unwrap_or(0);
        let step = 1 << (self.depth - depth);
        self.directory = self.directory.iter().copied().step_by(step).collect();
        self.directory.shrink_to_fit();
        self.depth = depth;
    }

    /// Checks what always holds, and returns all entries.
    #[cfg(test)]
    pub(super) fn check(&self) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        self.scan(0, u64::MAX, |hash, leaf| all.push((hash, leaf)));
        assert!(all.is_sorted_by_key(|(hash, _)| *hash));
        let bytes: usize = self.buckets.iter().map(|bucket| bytes_of(&bucket.entries)).sum();
        assert_eq!(self.bucket_bytes, bytes);
        all
    }
}
