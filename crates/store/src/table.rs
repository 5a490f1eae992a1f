//! The hash table: 64-byte buckets of eight tagged pointers, grown one bucket at a time.
//! One of the three rooms where `unsafe` lives. Hot path.
//!
//! **Shape.** A bucket is one cache line of eight words: 15 bits of the key's hash as a tag, 48
//! bits of entry address. A lookup reads the bucket's line and, one time in 4000 aside, only the
//! right entry. When a bucket is full, its last word becomes a link to an overflow bucket.
//!
//! **Growth.** Linear hashing with partial expansions (Larson, "Linear hashing with partial
//! expansions", VLDB 1980). Buckets form `2^level` groups; the keys of a group spread over
//! `spread` buckets, and one step adds one bucket to one group. When all groups went from
//! [`SPREAD_MIN`] to `2 * SPREAD_MIN` buckets, the level rises and every group counts as two, by a
//! bijection that moves nothing. So the longest step rehashes one group (about 25 keys), no step
//! depends on the size of the table, and load is even to a factor of 1.5 at worst. Shrinking is
//! the same walk backwards.
//!
//! Where a key is: of the low 32 hash bits, the `level` lowest name the group; the top bits,
//! the bit above the group's and the rest, in this order, are a fraction that picks the bucket among
//! `spread`. The order makes `spread = 2 * SPREAD_MIN` agree with the next level.
//!
//! **Memory.** Buckets are numbered in the order they were added and kept in blocks that grow with
//! the table, eight blocks per doubling, so at most an eighth of the table is not yet used.
//! At the mean load of six keys a bucket the table costs about 12 bytes per key, overflow included.
//!
//! **Tried**: one table that doubles (a 2.7 s stall at 50 M keys), rehash by 1.25 per partition
//! (650 ms at 20 M keys in one partition). See `docs/design/`.
//!
//! **Prefetch.** [`Core`] is made of atomics and lives for ever, and buckets are type-stable
//! ([`crate::mem::pool`]), so the steps of a [`Hint`] may run without the lock that guards everything
//! else. They may see a table in the middle of a change; then they prefetch useless lines, and the
//! epoch tells so once the table is locked. Measured at 1 M keys and deep pipelines: of the time of a
//! GET a fifth was spent waiting for shape, block address and bucket in turn when one step did all.

mod hint;

pub(crate) use hint::prefetch_value;
pub use hint::{Hint, prefetch_to_write};

use crate::db::Key;
use crate::growth;
use crate::mem::entry::{EntryPtr, OwnedEntry};
use crate::mem::pool::{self, Bucket, WORDS};
use hint::{Stage, prefetch};
use hypercache_stdx::hash::{KeyHasher, load_short};
use smallvec::SmallVec;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

/// Buckets of a group just after its level rose; a group grows to twice as many.
const SPREAD_MIN: u32 = 2;
const SPREAD_MIN_LOG2: u32 = SPREAD_MIN.trailing_zeros();
/// Mean keys per bucket above which the table grows, and below which it shrinks.
const LOAD_MAX: usize = 6;
const LOAD_MIN: usize = 3;
/// log2 of the buckets in the first block.
const FIRST_ORDER: u32 = 4;
/// Blocks per doubling after the first.
const BLOCKS_PER_DOUBLING: u32 = 8;
const LEVEL_MAX: u32 = 24;
const BLOCKS: usize =
    ((LEVEL_MAX + SPREAD_MIN_LOG2 + 1 - FIRST_ORDER) * BLOCKS_PER_DOUBLING + 1) as usize;

/// Words of a group on their way: about 25, and not once in many millions more than fit here. Not in the
/// heap: its first touch of new memory may take milliseconds.
type Words = SmallVec<[u64; 12 * WORDS]>;

/// A word's tag is above its address.
const TAG_SHIFT: u32 = 48;
const ADDRESS: u64 = (1 << TAG_SHIFT) - 1;
/// Set in the last word of a bucket that links to an overflow bucket.
const LINK: u64 = 1;

/// The part of a table that may be read without the partition's lock.
#[repr(C, align(64))]
pub struct Core {
    /// `level` (8 bits), `spread` (8 bits), `split` (32 bits): see [`Shape`].
    shape: AtomicU64,
    /// Changes after every change of shape or blocks, and never comes back to an earlier value:
    /// numbers of different cores differ in their upper bits. What was computed while it had one
    /// value holds as long as it has that value.
    epoch: AtomicU64,
    blocks: [AtomicPtr<Bucket>; BLOCKS],
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Core({:?})", self.shape())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// log2 of the number of groups.
    level: u32,
    /// Buckets of the groups that were not yet widened in this expansion.
    spread: u32,
    /// Groups below this one have `spread + 1` buckets.
    split: u32,
}

impl Shape {
    const EMPTY: Shape = Shape { level: 0, spread: SPREAD_MIN, split: 0 };

    fn pack(self) -> u64 {
        u64::from(self.level) | u64::from(self.spread) << 8 | u64::from(self.split) << 32
    }

    #[inline]
    fn unpack(word: u64) -> Shape {
        Shape {
            level: (word & 0xff) as u32,
            spread: (word >> 8 & 0xff) as u32,
            split: (word >> 32) as u32,
        }
    }

    fn groups(self) -> u32 {
        1 << self.level
    }

    fn buckets(self) -> usize {
        ((self.spread as usize) << self.level) + self.split as usize
    }

    #[inline]
    fn group_of(self, hash: u64) -> u32 {
        hash as u32 & ((1 << self.level) - 1)
    }

    #[inline]
    fn spread_of(self, group: u32) -> u32 {
        self.spread + u32::from(group < self.split)
    }

    /// Which of the group's `spread` buckets the key is in.
    #[inline]
    fn position(self, hash: u64, spread: u32) -> u32 {
        let low = hash as u32;
        let top = low >> (32 - SPREAD_MIN_LOG2) << (32 - SPREAD_MIN_LOG2);
        let above = (low ^ top) >> self.level;
        let next_group_bit = (above & 1) << (31 - SPREAD_MIN_LOG2);
        let fraction = top | next_group_bit | (above >> 1) << self.level;
        ((u64::from(fraction) * u64::from(spread)) >> 32) as u32
    }

    #[inline]
    fn bucket_of(self, hash: u64) -> usize {
        let group = self.group_of(hash);
        let position = self.position(hash, self.spread_of(group));
        ((position as usize) << self.level) + group as usize
    }

    fn grown(self) -> Shape {
        let split = self.split + 1;
        if split < self.groups() {
            return Shape { split, ..self };
        }
        let spread = self.spread + 1;
        if spread < 2 * SPREAD_MIN {
            return Shape { spread, split: 0, ..self };
        }
        Shape { level: self.level + 1, spread: SPREAD_MIN, split: 0 }
    }

    fn shrunk(self) -> Shape {
        if self.split > 0 {
            return Shape { split: self.split - 1, ..self };
        }
        if self.spread > SPREAD_MIN {
            return Shape { spread: self.spread - 1, split: self.groups() - 1, ..self };
        }
        let level = self.level - 1;
        Shape { level, spread: 2 * SPREAD_MIN - 1, split: (1 << level) - 1 }
    }
}

/// Which block holds bucket `n`, at which offset, and log2 of the block's buckets.
#[inline]
fn block_of(n: usize) -> (usize, usize, u32) {
    if n < 1 << FIRST_ORDER {
        return (0, n, FIRST_ORDER);
    }
    let exponent = n.ilog2();
    let order = exponent - BLOCKS_PER_DOUBLING.trailing_zeros();
    let eighth = (n >> order) & (BLOCKS_PER_DOUBLING as usize - 1);
    let block = ((exponent - FIRST_ORDER) * BLOCKS_PER_DOUBLING) as usize + eighth + 1;
    (block, n & ((1 << order) - 1), order)
}

impl Core {
    #[inline]
    fn shape(&self) -> Shape {
        Shape::unpack(self.shape.load(Relaxed))
    }

    #[inline]
    fn bucket(&self, n: usize) -> Option<&'static Bucket> {
        let (block, offset, _) = block_of(n);
        bucket_at(&self.blocks[block], offset)
    }

    /// Notes that shape or blocks changed. Only whoever holds the table's lock may.
    fn begin_epoch(&self) {
        self.epoch.store(self.epoch.load(Relaxed) + 1, Release);
    }
}

/// A bucket of the block whose address is in `block`; `block_of` gave both.
#[inline]
fn bucket_at(block: &AtomicPtr<Bucket>, offset: usize) -> Option<&'static Bucket> {
    let base = block.load(Relaxed);
    if base.is_null() {
        return None;
    }
    // SAFETY: `offset` is below the block's length by `block_of`.
    let bucket = unsafe { base.add(offset) };
    // SAFETY: blocks come from the pool, whose memory is never unmapped and is always atomics.
    Some(unsafe { &*bucket })
}

/// A slot for the core of a table that may be replaced, readable without any lock.
#[derive(Debug, Default)]
pub struct CoreCell(AtomicPtr<Core>);

impl CoreCell {
    /// A slot for none.
    #[must_use]
    pub const fn new() -> Self {
        CoreCell(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Stores the core of another table, or none.
    pub fn set(&self, core: Option<&'static Core>) {
        let pointer = core.map_or(std::ptr::null_mut(), |c| std::ptr::from_ref(c).cast_mut());
        self.0.store(pointer, std::sync::atomic::Ordering::Release);
    }

    /// A hint for a key of the table whose core was stored last.
    #[inline]
    #[must_use]
    pub fn hint(&self) -> Hint {
        self.get().map_or_else(Hint::default, Hint::new)
    }

    #[inline]
    fn get(&self) -> Option<&'static Core> {
        let pointer = self.0.load(std::sync::atomic::Ordering::Acquire);
        // SAFETY: only `set` stores here, and it stores null or a reference that lives for ever.
        unsafe { pointer.as_ref() }
    }
}

/// The tag of a hash: 15 of its bits and one that is set, so that neither an empty word nor a link
/// looks like a match.
#[inline]
fn tag_of(hash: u64) -> u64 {
    (hash & !ADDRESS) | 1 << TAG_SHIFT
}

/// Whether a word of a bucket has the tag of a hash.
#[inline]
fn is_tagged(word: u64, hash: u64) -> bool {
    word >> TAG_SHIFT == tag_of(hash) >> TAG_SHIFT
}

/// Cores are never freed: a table that is dropped leaves its core for the next one.
static SPARE_CORES: Mutex<Vec<&'static Core>> = Mutex::new(Vec::new());

/// Cores made so far.
static CORES: AtomicU64 = AtomicU64::new(0);
/// A core may change shape 2^40 times before its epochs meet those of the next core.
const EPOCH_BITS: u32 = 40;

fn new_core() -> &'static Core {
    let mut spare = SPARE_CORES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    spare.pop().unwrap_or_else(|| {
        let number = CORES.fetch_add(1, Relaxed);
        Box::leak(Box::new(Core {
            shape: AtomicU64::new(Shape::EMPTY.pack()),
            epoch: AtomicU64::new(number << EPOCH_BITS),
            blocks: [const { AtomicPtr::new(std::ptr::null_mut()) }; BLOCKS],
        }))
    })
}

/// A table of entries. Owns them: dropping the table frees them all.
#[repr(C)]
pub(crate) struct Table {
    core: &'static Core,
    hasher: KeyHasher,
    len: usize,
    bytes: usize,
}

/// Where an entry's pointer is kept. Valid until the table changes.
#[derive(Clone, Copy)]
pub(crate) struct Place(&'static AtomicU64);

impl Place {
    #[inline]
    pub(crate) fn entry(self) -> EntryPtr {
        // SAFETY: a place is made only for a word that holds a live entry, and is not used after
        // the table changed.
        unsafe { EntryPtr::from_address(self.0.load(Relaxed) & ADDRESS) }
    }

    /// Puts another entry of the same key in place of this one, which the caller now owns.
    pub(crate) fn replace(self, entry: OwnedEntry) -> OwnedEntry {
        let old = self.entry();
        let tag = self.0.load(Relaxed) & !ADDRESS;
        self.0.store(tag | entry.into_entry().address(), Relaxed);
        // SAFETY: the word that linked to it now links to the new entry.
        unsafe { OwnedEntry::from_unlinked(old) }
    }
}

impl Place {
    /// Moves the entry to another slot, if it lies in one. Returns whether it did.
    pub(crate) fn relocate(self) -> bool {
        let old = self.entry();
        let Some(new) = old.copied() else { return false };
        let tag = self.0.load(Relaxed) & !ADDRESS;
        self.0.store(tag | new.address(), Relaxed);
        // SAFETY: the word that linked to it now links to its copy.
        unsafe { old.free_copied() };
        true
    }
}

impl Table {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Table { core: new_core(), hasher, len: 0, bytes: 0 }
    }

    pub(crate) fn core(&self) -> &'static Core {
        self.core
    }

    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of buckets.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn buckets(&self) -> usize {
        if self.bytes == 0 { 0 } else { self.core.shape().buckets() }
    }

    /// The place of `key`, if the table has it.
    #[inline(always)]
    pub(crate) fn find(&self, key: Key<'_>) -> Option<Place> {
        let Some(&Hint { epoch, stage: Stage::Bucket { bucket, slot } }) = key.hint else {
            return self.find_unhinted(key.hash, key.bytes);
        };
        if epoch != self.core.epoch.load(Relaxed) {
            return self.find_unhinted(key.hash, key.bytes);
        }
        let word = &bucket.words[slot as usize % WORDS];
        if is_tagged(word.load(Relaxed), key.hash) {
            let place = Place(word);
            if is_same(place.entry().key(), key.bytes) {
                return Some(place);
            }
        }
        Self::search(bucket, key.hash, key.bytes)
    }

    /// The entry that a hint leads to, if the hint still holds. It may be another key's.
    #[inline]
    pub(crate) fn hinted(&self, hash: u64, hint: &Hint) -> Option<EntryPtr> {
        let Stage::Bucket { bucket, slot } = hint.stage else { return None };
        let word = &bucket.words[slot as usize % WORDS];
        let holds = hint.epoch == self.core.epoch.load(Relaxed);
        (holds && is_tagged(word.load(Relaxed), hash)).then(|| Place(word).entry())
    }

    #[inline(never)]
    fn find_unhinted(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let bucket = self.core.bucket(self.core.shape().bucket_of(hash))?;
        Self::search(bucket, hash, key)
    }

    #[inline(never)]
    fn search(mut bucket: &'static Bucket, hash: u64, key: &[u8]) -> Option<Place> {
        loop {
            for word in &bucket.words {
                if !is_tagged(word.load(Relaxed), hash) {
                    continue;
                }
                let place = Place(word);
                if is_same(place.entry().key(), key) {
                    return Some(place);
                }
            }
            bucket = next_bucket(bucket)?;
        }
    }

    /// Adds an entry whose key is not in the table.
    pub(crate) fn insert(&mut self, hash: u64, entry: OwnedEntry) {
        if self.len >= self.buckets() * LOAD_MAX {
            growth::step(|| self.grow());
        }
        self.len += 1;
        self.place(hash, entry.into_entry());
    }

    fn place(&mut self, hash: u64, entry: EntryPtr) {
        let n = self.core.shape().bucket_of(hash);
        let bucket = self.core.bucket(n).expect("the bucket of a hash within the shape exists");
        self.push(bucket, tag_of(hash) | entry.address());
    }

    /// Puts a word into the first free place of a bucket or its overflow.
    fn push(&mut self, mut bucket: &'static Bucket, word: u64) {
        loop {
            if let Some(free) = bucket.words.iter().find(|w| w.load(Relaxed) == 0) {
                free.store(word, Relaxed);
                return;
            }
            bucket = match next_bucket(bucket) {
                Some(next) => next,
                None => growth::step(|| self.add_overflow(bucket)),
            };
        }
    }

    fn add_overflow(&mut self, bucket: &'static Bucket) -> &'static Bucket {
        let block = pool::alloc(0);
        self.bytes += size_of::<Bucket>();
        let last = &bucket.words[WORDS - 1];
        block[0].words[0].store(last.load(Relaxed), Relaxed);
        last.store(std::ptr::from_ref(&block[0]) as u64 | LINK, Relaxed);
        &block[0]
    }

    /// Takes the entry out; the caller now owns it.
    pub(crate) fn remove(&mut self, hash: u64, place: Place) -> OwnedEntry {
        let entry = place.entry();
        place.0.store(0, Relaxed);
        self.len -= 1;
        self.trim_overflow(hash);
        if self.len < self.buckets() * LOAD_MIN && self.buckets() > SPREAD_MIN as usize {
            growth::step(|| self.shrink());
        }
        // SAFETY: the word that linked to it was cleared.
        unsafe { OwnedEntry::from_unlinked(entry) }
    }

    /// Frees the last overflow bucket of a chain once its entries fit before it.
    fn trim_overflow(&mut self, hash: u64) {
        let Some(first) = self.core.bucket(self.core.shape().bucket_of(hash)) else { return };
        if next_bucket(first).is_none() {
            return;
        }
        let mut words = Words::new();
        self.take_chain(first, &mut words);
        for word in words {
            self.push(first, word);
        }
    }

    /// Empties a bucket and its overflow; appends the words that were there.
    fn take_chain(&mut self, first: &'static Bucket, words: &mut Words) {
        let mut bucket = Some(first);
        while let Some(here) = bucket {
            let next = next_bucket(here);
            for word in &here.words {
                let value = word.load(Relaxed);
                if value != 0 && value & LINK == 0 {
                    words.push(value);
                }
                word.store(0, Relaxed);
            }
            if !std::ptr::eq(here, first) {
                self.bytes -= size_of::<Bucket>();
                pool::free(std::slice::from_ref(here));
            }
            bucket = next;
        }
    }

    fn grow(&mut self) {
        if self.bytes == 0 {
            self.core.shape.store(Shape::EMPTY.pack(), Relaxed);
            self.ensure_block(SPREAD_MIN as usize - 1);
            self.core.begin_epoch();
            return;
        }
        let shape = self.core.shape();
        if shape.level == LEVEL_MAX {
            return;
        }
        self.ensure_block(shape.buckets());
        self.rehash_group(shape, shape.grown(), shape.split);
    }

    fn shrink(&mut self) {
        let shape = self.core.shape();
        let new = shape.shrunk();
        self.rehash_group(shape, new, new.split);
        self.drop_block_from(new.buckets());
    }

    /// Moves the keys of one group from where `old` has them to where `new` has them.
    fn rehash_group(&mut self, old: Shape, new: Shape, group: u32) {
        // Seen from the lower level, where the group is one, whatever the other shape says.
        let level = old.level.min(new.level);
        let mut words = Words::new();
        let mut n = group as usize;
        while n < old.buckets() {
            let bucket = self.core.bucket(n).expect("buckets below the count exist");
            self.take_chain(bucket, &mut words);
            n += 1 << level;
        }
        self.core.shape.store(new.pack(), Relaxed);
        self.core.begin_epoch();
        for word in &words {
            prefetch((word & ADDRESS) as *const u8);
        }
        for word in words {
            // SAFETY: the word was in the table a moment ago, so its entry is alive.
            let entry = unsafe { EntryPtr::from_address(word & ADDRESS) };
            self.place(self.hasher.hash(entry.key()), entry);
        }
    }

    fn ensure_block(&mut self, n: usize) {
        let (block, _, order) = block_of(n);
        if self.core.blocks[block].load(Relaxed).is_null() {
            let buckets = pool::alloc(order);
            self.bytes += size_of_val(buckets);
            self.core.blocks[block].store(buckets.as_ptr().cast_mut(), Relaxed);
        }
    }

    /// Frees the block that starts with bucket `n`, if one does.
    fn drop_block_from(&mut self, n: usize) {
        let (block, offset, order) = block_of(n);
        if offset != 0 || n == 0 {
            return;
        }
        self.free_block(block, order);
    }

    fn free_block(&mut self, block: usize, order: u32) {
        let base = self.core.blocks[block].swap(std::ptr::null_mut(), Relaxed);
        if base.is_null() {
            return;
        }
        self.core.begin_epoch();
        // SAFETY: the block was stored by `ensure_block` with exactly this order.
        let buckets = unsafe { std::slice::from_raw_parts(base.cast_const(), 1 << order) };
        self.bytes -= size_of_val(buckets);
        pool::free(buckets);
    }

    /// Calls `f` with every entry of the group that `cursor` names and returns the next cursor, 0
    /// after the last. Cursors count group numbers with their bits reversed, so that a walk over a
    /// table that grows or shrinks meanwhile misses no key that is there throughout (the idea is
    /// Pieter Noordhuis', from Redis' dict).
    pub(crate) fn scan(&self, cursor: u32, mut f: impl FnMut(EntryPtr)) -> u32 {
        if self.bytes == 0 {
            return 0;
        }
        let shape = self.core.shape();
        let group = shape.group_of(u64::from(cursor));
        for position in 0..shape.spread_of(group) as usize {
            let n = (position << shape.level) + group as usize;
            for_each_in_chain(self.core.bucket(n), &mut f);
        }
        let mask = shape.groups() - 1;
        let next = (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits();
        next & mask
    }

    /// Where the stretch of hashes ends that the group of `from` holds, both with their bits reversed;
    /// `None` if it is the last. And whether there are any buckets.
    pub(crate) fn next_in_walk(&self, from: u32) -> (Option<u32>, bool) {
        if self.bytes == 0 {
            return (None, false);
        }
        let shape = self.core.shape();
        let last = from | u32::MAX.checked_shr(shape.level).unwrap_or(0);
        (last.checked_add(1), true)
    }

    /// Calls `f` with every entry.
    pub(crate) fn for_each(&self, mut f: impl FnMut(EntryPtr)) {
        for n in 0..self.buckets() {
            for_each_in_chain(self.core.bucket(n), &mut f);
        }
    }

    /// The places whose keys have a hash with the bucket and tag of this one (it is enough that
    /// the low 32 and the high 16 bits are right). Almost always one or none.
    pub(crate) fn find_tagged(&self, hash: u64) -> SmallVec<[Place; 2]> {
        let mut found = SmallVec::new();
        let mut bucket = self.core.bucket(self.core.shape().bucket_of(hash));
        while let Some(here) = bucket {
            for word in &here.words {
                let value = word.load(Relaxed);
                if is_tagged(value, hash) {
                    found.push(Place(word));
                }
            }
            bucket = next_bucket(here);
        }
        found
    }

    /// Asks for the lines of some buckets.
    pub(crate) fn prefetch_buckets(&self, numbers: impl Iterator<Item = usize>) {
        numbers.filter_map(|n| self.core.bucket(n)).for_each(prefetch_value);
    }

    /// Hands the entries of some buckets to `f`, and asks for their lines.
    pub(crate) fn take_buckets(
        &self,
        numbers: impl Iterator<Item = usize>,
        mut f: impl FnMut(EntryPtr),
    ) {
        for n in numbers {
            for_each_in_chain(self.core.bucket(n), &mut |entry| {
                prefetch(entry.address() as *const u8);
                f(entry);
            });
        }
    }

    /// An entry picked at random: uniform over buckets, then over the bucket's entries.
    pub(crate) fn random(&self, mut random: impl FnMut(u64) -> u64) -> Option<EntryPtr> {
        if self.len == 0 {
            return None;
        }
        // In a table that just lost most of its keys many buckets are empty: after some tries take
        // the next one that is not.
        const TRIES: usize = 128;
        let buckets = self.buckets();
        let mut n = 0;
        for tries in 0..TRIES + buckets {
            n = if tries < TRIES { random(buckets as u64) as usize } else { (n + 1) % buckets };
            let mut found = Vec::with_capacity(WORDS);
            for_each_in_chain(self.core.bucket(n), &mut |e| found.push(e));
            if !found.is_empty() {
                return Some(found[random(found.len() as u64) as usize]);
            }
        }
        None
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for n in 0..self.buckets() {
            let bucket = self.core.bucket(n).expect("buckets below the count exist");
            let mut words = Words::new();
            self.take_chain(bucket, &mut words);
            for word in words {
                // SAFETY: the word held a live entry, and the table owned it.
                let entry = unsafe { EntryPtr::from_address(word & ADDRESS) };
                // SAFETY: its word was cleared, and nothing borrows from a table being dropped.
                drop(unsafe { OwnedEntry::from_unlinked(entry) });
            }
        }
        self.free_block(0, FIRST_ORDER);
        for block in 1..BLOCKS {
            let exponent = FIRST_ORDER + (block as u32 - 1) / BLOCKS_PER_DOUBLING;
            self.free_block(block, exponent - BLOCKS_PER_DOUBLING.trailing_zeros());
        }
        debug_assert_eq!(self.bytes, 0);
        self.core.shape.store(Shape::EMPTY.pack(), Relaxed);
        self.core.begin_epoch();
        SPARE_CORES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(self.core);
    }
}

/// Whether two keys are equal, in words: most are too short for a library call to pay.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() > 16 {
        return is_same_long(a, b);
    }
    let is_end_same = a.last_chunk::<8>() == b.last_chunk::<8>();
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(start_a), Some(start_b)) => start_a == start_b && is_end_same,
        _ => load_short(a) == load_short(b),
    }
}

#[inline(never)]
fn is_same_long(a: &[u8], b: &[u8]) -> bool {
    if a.len() > 64 {
        return a == b;
    }
    let (words_a, words_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let is_start_same = words_a.iter().zip(words_b).all(|(x, y)| x == y);
    is_start_same && a.last_chunk::<8>() == b.last_chunk::<8>()
}

#[inline]
fn next_bucket(bucket: &Bucket) -> Option<&'static Bucket> {
    let last = bucket.words[WORDS - 1].load(Relaxed);
    if last & LINK == 0 {
        return None;
    }
    let address = (last & ADDRESS & !LINK) as *const Bucket;
    // SAFETY: a link holds the address of a pool bucket, and pool memory is never unmapped.
    Some(unsafe { &*address })
}

fn for_each_in_chain(first: Option<&'static Bucket>, f: &mut impl FnMut(EntryPtr)) {
    let mut bucket = first;
    while let Some(here) = bucket {
        for word in &here.words {
            let value = word.load(Relaxed);
            if value != 0 && value & LINK == 0 {
                // SAFETY: a word that is no link and not empty holds a live entry.
                f(unsafe { EntryPtr::from_address(value & ADDRESS) });
            }
        }
        bucket = next_bucket(here);
    }
}
