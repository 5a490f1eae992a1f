//! Sorted sets: members with scores, in the order of (score, member).
//!
//! A small one is one [`Segment`], whose records are kept in order: the member is the key, the score
//! the value. A larger one is a B+ tree of them ([`tree`]) with an [`index`] from members to leaves; no
//! member is stored twice. Measured with a million members of 16 bytes and random scores: 43 bytes for
//! each, of which 24 are member and score, 5 the segment's head and slots, 9 the index, the rest slack.
//!
//! Fast at: a member's score (one place in the index, one leaf), its rank (and the way up), ranges in
//! both directions from any rank, score or member. No change moves more than one leaf's records or
//! one bucket of the index; what is longest is the doubling of the index' directory, 4 bytes for some
//! 180 members.
//!
//! **Tried**: a skip list beside a table of the members, as it is usual, takes a pointer-sized word for
//! each of about ten things and one allocation per member. A tree without the index finds members by
//! score only, so every ZSCORE would need a second tree.

mod arena;
mod index;
mod tree;

use super::dict;
use super::segment::{Record, Segment, quick_tag};
use super::wire::{self, Reader};
use super::{Collection, LIMITS, Operation};
use crate::table::prefetch_value;
use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use tree::{NONE, Place, Tree};

/// Most members of a sorted set that is one segment.
const SMALL_MAX: usize = 128;
/// Most bytes of its records.
const SMALL_BYTES: usize = 16 * 1024;

/// A change of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SortedSetOp<'a> {
    /// Gives a member a score; it is added if it is not there.
    Put(f64, &'a [u8]),
    /// Removes a member.
    Remove(&'a [u8]),
}

/// What a change was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortedSetDone {
    /// None.
    Nothing,
    /// A member came.
    Added,
    /// A member has another score.
    Moved,
    /// A member went.
    Removed,
}

impl<'a> Operation<'a> for SortedSetOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let member = match self {
            SortedSetOp::Put(score, member) => {
                out.push(0);
                wire::put_f64(out, *score);
                member
            }
            SortedSetOp::Remove(member) => {
                out.push(1);
                member
            }
        };
        out.extend_from_slice(member);
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            0 => Some(SortedSetOp::Put(reader.f64()?, reader.rest())),
            1 => Some(SortedSetOp::Remove(reader.rest())),
            _ => None,
        }
    }
}

/// A place between members: before or behind those that are equal to its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edge<'a> {
    /// By score.
    Score {
        /// The score.
        limit: f64,
        /// Whether members of this score are before the edge.
        is_behind: bool,
    },
    /// By member, for sets whose scores are all the same.
    Member {
        /// The member.
        limit: &'a [u8],
        /// Whether this member is before the edge.
        is_behind: bool,
    },
}

impl Edge<'_> {
    /// Whether the edge is behind a member.
    #[inline]
    #[must_use]
    pub fn is_behind(&self, score: f64, member: &[u8]) -> bool {
        match *self {
            Edge::Score { limit, is_behind } => score < limit || is_behind && score <= limit,
            Edge::Member { limit, is_behind } => match member.cmp(limit) {
                Ordering::Less => true,
                Ordering::Equal => is_behind,
                Ordering::Greater => false,
            },
        }
    }
}

/// 32 bits of a member's hash; those of the dictionary's hash that it looks at first.
#[inline]
fn hash_of(member: &[u8]) -> u32 {
    (dict::hash_of(member) >> 32) as u32
}

#[inline]
fn tag_of(hash: u32) -> u8 {
    hash as u8
}

fn record<'a>(member: &'a [u8], score: &'a [u8; 8]) -> Record<'a> {
    Record { key: member, value: score, deadline: None }
}

fn score_of(record: &Record<'_>) -> f64 {
    record.value.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes))
}

/// Score and member of record number `i`.
#[inline]
fn key_of(items: &Segment, i: usize) -> (f64, &[u8]) {
    let record = items.get(i);
    (score_of(&record), record.key)
}

#[inline]
fn is_before(score: f64, member: &[u8], other_score: f64, other: &[u8]) -> bool {
    score < other_score || score == other_score && member < other
}

/// How many records of a segment are before an edge.
fn count_before(items: &Segment, edge: Edge<'_>) -> usize {
    let (mut low, mut high) = (0, items.len());
    while low < high {
        let middle = low.midpoint(high);
        let (score, member) = key_of(items, middle);
        if edge.is_behind(score, member) { low = middle + 1 } else { high = middle }
    }
    low
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    repr: Repr,
    /// Whether Redis would have given up its small form for it, for which there is no way back. The
    /// small form knows no negative zero, so there is none in a set until then.
    is_skiplist: bool,
}

#[derive(Clone, Debug)]
enum Repr {
    One(Segment),
    Many(Box<Tree>),
}

impl Default for Repr {
    fn default() -> Self {
        Repr::One(Segment::default())
    }
}

impl SortedSet {
    /// An empty set that has given up its small form, for results that may have a negative zero.
    #[must_use]
    pub fn wide() -> Self {
        SortedSet { is_skiplist: true, ..SortedSet::default() }
    }

    /// A set that was made [`Self::wide`], in the small form if Redis would store it so.
    #[must_use]
    pub fn settled(self) -> Self {
        let longest = LIMITS.sorted_set_value.load(Relaxed);
        let is_small = self.len() <= LIMITS.sorted_set_entries.load(Relaxed)
            && self.iter().all(|(member, _)| member.len() <= longest);
        if !is_small {
            return self;
        }
        let mut settled = SortedSet::default();
        self.each_op(&mut |op| {
            settled.apply(op);
        });
        settled
    }

    /// A score as the form of the set keeps it.
    fn kept(&self, score: f64) -> f64 {
        if self.is_skiplist { score } else { score + 0.0 }
    }

    /// Members.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::One(items) => items.len(),
            Repr::Many(tree) => tree.len,
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is one of few members, of which a command may look at all.
    #[must_use]
    pub fn is_small(&self) -> bool {
        matches!(self.repr, Repr::One(_))
    }

    /// A member's hash, if the set is so large that there is a use for it.
    #[inline]
    fn hash(&self, member: &[u8]) -> u32 {
        if self.is_small() { 0 } else { hash_of(member) }
    }

    /// Where a member is, whose [`Self::hash`] is given; the leaf is of no meaning in a small set.
    #[inline]
    fn place(&self, hash: u32, member: &[u8]) -> Option<Place> {
        match &self.repr {
            Repr::One(items) => items.find(quick_tag(member), member).map(|(at, _)| (NONE, at)),
            Repr::Many(tree) => tree.find(hash, member),
        }
    }

    fn items(&self, leaf: u32) -> &Segment {
        match &self.repr {
            Repr::One(items) => items,
            Repr::Many(tree) => &tree.leaves[leaf].items,
        }
    }

    /// A member's score.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let (leaf, at) = self.place(self.hash(member), member)?;
        Some(key_of(self.items(leaf), at).0)
    }

    /// A member's score, and how many members are before it.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let place = self.place(self.hash(member), member)?;
        let rank = match &self.repr {
            Repr::One(_) => place.1,
            Repr::Many(tree) => tree.rank(place),
        };
        Some((rank, key_of(self.items(place.0), place.1).0))
    }

    /// How many members are before an edge. By member it is only defined if all scores are the same.
    #[must_use]
    pub fn count_before(&self, edge: Edge<'_>) -> usize {
        match &self.repr {
            Repr::One(items) => count_before(items, edge),
            Repr::Many(tree) => tree.count_before(edge),
        }
    }

    /// The member with a rank.
    #[must_use]
    pub fn get(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.range(rank, 1, false).next()
    }

    /// All members in order.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0, usize::MAX, false)
    }

    /// Members from a rank on, upwards or downwards, at most so many.
    pub fn range(&self, rank: usize, count: usize, is_reverse: bool) -> Iter<'_> {
        let len = self.len();
        let there = match is_reverse {
            _ if rank >= len => 0,
            true => rank + 1,
            false => len - rank,
        };
        let left = count.min(there);
        let (tree, (leaf, at)) = match &self.repr {
            Repr::Many(tree) if left > 0 => (Some(&**tree), tree.by_rank(rank)),
            Repr::Many(tree) => (None, (tree.first, 0)),
            Repr::One(_) => (None, (NONE, rank)),
        };
        Iter { items: self.items(leaf), at, left, tree, leaf, is_reverse }
    }

    /// Calls `f` with the members at `cursor`, about `count` of them, in no order; returns the next
    /// cursor, 0 after the last. A member that is there throughout a walk is seen at least once,
    /// whatever else changes.
    pub fn scan(&self, cursor: u64, count: u64, mut f: impl FnMut(&[u8], f64)) -> u64 {
        match &self.repr {
            Repr::Many(tree) => tree.scan(cursor, count, f),
            Repr::One(_) => {
                self.iter().for_each(|(member, score)| f(member, score));
                0
            }
        }
    }

    fn put(&mut self, score: f64, member: &[u8]) -> SortedSetDone {
        if score.is_nan() {
            return SortedSetDone::Nothing;
        }
        let hash = self.hash(member);
        let Some(place) = self.place(hash, member) else {
            self.add(hash, score, member);
            return SortedSetDone::Added;
        };
        if key_of(self.items(place.0), place.1).0 == score {
            return SortedSetDone::Nothing;
        }
        let score = self.kept(score);
        match &mut self.repr {
            Repr::One(items) => {
                tree::set_score(items, place.1, score, member);
            }
            Repr::Many(tree) => tree.set_score(place, hash, score, member),
        }
        SortedSetDone::Moved
    }

    fn add(&mut self, hash: u32, score: f64, member: &[u8]) {
        self.is_skiplist |= self.len() >= LIMITS.sorted_set_entries.load(Relaxed)
            || member.len() > LIMITS.sorted_set_value.load(Relaxed);
        let score = self.kept(score);
        let score_bytes = score.to_le_bytes();
        let record = record(member, &score_bytes);
        match &mut self.repr {
            Repr::One(items) => {
                let bytes = items.live_bytes() + record.arena_len();
                if items.len() < SMALL_MAX && bytes <= SMALL_BYTES {
                    let at = tree::place_in(items, score, member);
                    return items.insert(at, quick_tag(member), record);
                }
                items.retag(|member| tag_of(hash_of(member)));
                let mut tree = Box::new(Tree::of(std::mem::take(items)));
                tree.insert(hash_of(member), score, member);
                self.repr = Repr::Many(tree);
            }
            Repr::Many(tree) => tree.insert(hash, score, member),
        }
    }

    fn remove(&mut self, member: &[u8]) -> SortedSetDone {
        let hash = self.hash(member);
        let Some(place) = self.place(hash, member) else { return SortedSetDone::Nothing };
        match &mut self.repr {
            Repr::One(items) => items.remove(place.1),
            Repr::Many(tree) => {
                tree.remove(place, hash);
                if let Some(mut items) = tree.take_only_leaf() {
                    items.retag(quick_tag);
                    self.repr = Repr::One(items);
                }
            }
        }
        SortedSetDone::Removed
    }
}

/// Members with their scores, in one direction.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    items: &'a Segment,
    at: usize,
    left: usize,
    tree: Option<&'a Tree>,
    leaf: u32,
    is_reverse: bool,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (score, member) = key_of(self.items, self.at);
        if self.left > 0 {
            self.step();
        }
        Some((member, score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }

    /// Goes leaf by leaf, and so takes half the time of a step after the other.
    #[inline]
    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut f: F) -> B {
        let mut f = |done, record: Record<'a>| f(done, (record.key, score_of(&record)));
        let mut done = init;
        while self.left > 0 {
            let there = if self.is_reverse { self.at + 1 } else { self.items.len() - self.at };
            let len = self.left.min(there);
            self.left -= len;
            if self.is_reverse {
                self.at = self.at + 1 - len;
                done = self.items.range(self.at..self.at + len).rev().fold(done, &mut f);
            } else {
                done = self.items.range(self.at..self.at + len).fold(done, &mut f);
                self.at += len - 1;
            }
            if self.left > 0 {
                self.step();
            }
        }
        done
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl Iter<'_> {
    /// Goes to the next record, which is there.
    fn step(&mut self) {
        if self.is_reverse && self.at > 0 {
            self.at -= 1;
            return;
        }
        if !self.is_reverse && self.at + 1 < self.items.len() {
            self.at += 1;
            return;
        }
        let Some(tree) = self.tree else { return };
        let leaf = &tree.leaves[self.leaf];
        self.leaf = if self.is_reverse { leaf.prev } else { leaf.next };
        self.items = &tree.leaves[self.leaf].items;
        self.at = if self.is_reverse { self.items.len() - 1 } else { 0 };
    }
}

impl Collection for SortedSet {
    type Op<'a> = SortedSetOp<'a>;
    type Done = SortedSetDone;

    #[inline]
    fn apply(&mut self, op: SortedSetOp<'_>) -> SortedSetDone {
        match op {
            SortedSetOp::Put(score, member) => self.put(score, member),
            SortedSetOp::Remove(member) => self.remove(member),
        }
    }

    fn has_changed(done: &SortedSetDone) -> bool {
        *done != SortedSetDone::Nothing
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn bytes(&self) -> usize {
        match &self.repr {
            Repr::One(items) => items.bytes(),
            Repr::Many(tree) => tree.bytes(),
        }
    }

    #[inline]
    fn prefetch_parts(&self) {
        match &self.repr {
            Repr::One(items) => items.prefetch_parts(),
            Repr::Many(tree) => prefetch_value(&**tree),
        }
    }

    fn encoding(&self) -> &'static str {
        if self.is_skiplist { "skiplist" } else { "listpack" }
    }

    fn each_op(&self, f: &mut dyn FnMut(SortedSetOp<'_>)) {
        self.iter().for_each(|(member, score)| f(SortedSetOp::Put(score, member)));
    }
}

#[cfg(test)]
#[path = "sorted_set/tests.rs"]
mod tests;
