//! A large sorted set: a B+ tree by (score, member) whose inner nodes count what is below, with an
//! index from members to leaves. Hot path.
//!
//! Leaves are [`Segment`]s of at most [`LEAF_MAX`] records or [`LEAF_BYTES`] bytes, linked both ways.
//! A child's row in its node has the score and the first eight bytes of the member that its records
//! begin with; only if both are equal to what is looked for is the leaf asked. Nodes and leaves know
//! their parent, so the rank of a member that the index found is a sum on the way up.
//!
//! A leaf that is full is cut in half, or begun anew at either end, so that members that come in order
//! fill their leaves. A sparse one is joined with a neighbour under the same parent. Either is at most
//! a leaf's records moved, and told to the index.

use super::arena::{Arena, bytes_of, copy};
use super::index::Index;
use super::{Edge, hash_of, is_before, key_of, record, tag_of};
use crate::mem::class_size;
use crate::types::segment::Segment;
use std::cmp::Ordering;

/// Most records in a leaf.
pub(super) const LEAF_MAX: usize = 64;
/// A leaf whose records would take more is cut.
const LEAF_BYTES: usize = 8 * 1024;
/// Most children of a node.
const FANOUT: usize = 64;
/// No node or leaf.
pub(super) const NONE: u32 = u32::MAX;

/// Records next to each other in order.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) items: Segment,
    parent: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Default for Leaf {
    fn default() -> Self {
        Leaf { items: Segment::default(), parent: NONE, prev: NONE, next: NONE }
    }
}

/// What a node knows of a child.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Child {
    /// Of the first record below it.
    score: f64,
    /// The first bytes of that record's member.
    head: u64,
    id: u32,
    /// The first leaf below it.
    low: u32,
    /// Records below it.
    count: u32,
}

#[derive(Debug)]
struct Node {
    children: Vec<Child>,
    parent: u32,
    /// Whether the children are leaves.
    is_bottom: bool,
}

impl Default for Node {
    fn default() -> Self {
        Node { children: Vec::new(), parent: NONE, is_bottom: true }
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Node { children: copy(&self.children), ..*self }
    }
}

impl Node {
    fn place_of(&self, id: u32) -> usize {
        let found = self.children.iter().position(|child| child.id == id);
        found.expect("a parent has its child")
    }

    fn count(&self) -> u32 {
        self.children.iter().map(|child| child.count).sum()
    }
}

/// The first eight bytes of a member as a number that is in the same order.
fn head_of(member: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = member.len().min(8);
    head[..len].copy_from_slice(&member[..len]);
    u64::from_be_bytes(head)
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) leaves: Arena<Leaf>,
    nodes: Arena<Node>,
    index: Index,
    root: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) len: usize,
    /// Bytes that leaves and nodes own.
    owned: usize,
}

/// Where a record is: a leaf, and its number there.
pub(super) type Place = (u32, usize);

fn has_room(items: &Segment, arena_len: usize) -> bool {
    items.len() < LEAF_MAX && items.live_bytes() + arena_len <= LEAF_BYTES
}

/// Whether records of a member with such a score belong before a place that begins with the record.
fn is_after(score: f64, member: &[u8], items: &Segment, i: usize) -> bool {
    let (other_score, other) = key_of(items, i);
    !is_before(score, member, other_score, other)
}

impl Tree {
    /// A tree of one leaf.
    pub(super) fn of(items: Segment) -> Self {
        let (len, owned) = (items.len(), items.bytes());
        let mut tree = Tree {
            leaves: Arena::default(),
            nodes: Arena::default(),
            index: Index::default(),
            root: 0,
            first: 0,
            last: 0,
            len,
            owned,
        };
        for i in 0..len {
            tree.index.insert(hash_of(key_of(&items, i).1), 0);
        }
        tree.leaves.add(Leaf { items, parent: 0, ..Leaf::default() });
        let mut child = Child { score: 0.0, head: 0, id: 0, low: 0, count: len as u32 };
        tree.name_child(&mut child);
        tree.nodes.add(Node::default());
        tree.edit_node(0, |children| children.push(child));
        tree
    }

    /// The records, if there is one leaf only.
    pub(super) fn take_only_leaf(&mut self) -> Option<Segment> {
        (self.first == self.last).then(|| std::mem::take(&mut self.leaves[self.first].items))
    }

    pub(super) fn bytes(&self) -> usize {
        let arenas = self.leaves.bytes() + self.nodes.bytes() + self.index.bytes();
        class_size(size_of::<Tree>()) + arenas + self.owned
    }

    fn edit_leaf<R>(&mut self, leaf: u32, f: impl FnOnce(&mut Segment) -> R) -> R {
        let items = &mut self.leaves[leaf].items;
        let bytes = items.bytes();
        let result = f(items);
        self.owned = self.owned + items.bytes() - bytes;
        result
    }

    fn edit_node<R>(&mut self, node: u32, f: impl FnOnce(&mut Vec<Child>) -> R) -> R {
        let children = &mut self.nodes[node].children;
        let bytes = bytes_of(children);
        if children.len() == children.capacity() {
            children.reserve_exact(children.len() / 4 + 2);
        }
        let result = f(children);
        self.owned = self.owned + bytes_of(children) - bytes;
        result
    }

    /// Where a member is.
    #[inline]
    pub(super) fn find(&self, hash: u32, member: &[u8]) -> Option<Place> {
        let mut places = self.index.leaves(hash).filter_map(|leaf| {
            let found = self.leaves[leaf].items.find(tag_of(hash), member);
            found.map(|(at, _)| (leaf, at))
        });
        places.next()
    }

    /// Whether what is below a child begins behind a key.
    #[inline]
    fn begins_after(&self, child: &Child, (score, head, member): (f64, u64, &[u8])) -> bool {
        if child.score != score {
            return child.score > score;
        }
        match child.head.cmp(&head) {
            Ordering::Equal => key_of(&self.leaves[child.low].items, 0).1 > member,
            order => order == Ordering::Greater,
        }
    }

    /// The leaf that a record belongs to.
    fn locate(&self, score: f64, member: &[u8]) -> u32 {
        let key = (score, head_of(member), member);
        let mut node = &self.nodes[self.root];
        loop {
            let after = node.children.partition_point(|child| !self.begins_after(child, key));
            let id = node.children[after.saturating_sub(1)].id;
            if node.is_bottom {
                return id;
            }
            node = &self.nodes[id];
        }
    }

    /// Adds a member that is not there.
    pub(super) fn insert(&mut self, hash: u32, score: f64, member: &[u8]) {
        let score_bytes = score.to_le_bytes();
        let record = record(member, &score_bytes);
        let mut leaf = self.locate(score, member);
        let mut at = place_in(&self.leaves[leaf].items, score, member);
        while !has_room(&self.leaves[leaf].items, record.arena_len()) {
            let Leaf { items, prev, next, .. } = &self.leaves[leaf];
            let len = items.len();
            let cut = match at {
                _ if at == len && *next == NONE => len,
                0 if *prev == NONE => 0,
                _ => len / 2,
            };
            let right = self.split(leaf, cut, (score, member));
            if at > cut || cut == len {
                (leaf, at) = (right, at - cut);
            }
        }
        self.edit_leaf(leaf, |items| items.insert(at, tag_of(hash), record));
        self.len += 1;
        self.tell(leaf, 1, at == 0);
        self.index.insert(hash, leaf);
    }

    /// Gives a record another score.
    pub(super) fn set_score(&mut self, (leaf, at): Place, hash: u32, score: f64, member: &[u8]) {
        if self.locate(score, member) != leaf {
            self.remove((leaf, at), hash);
            return self.insert(hash, score, member);
        }
        let to = self.edit_leaf(leaf, |items| set_score(items, at, score, member));
        self.tell(leaf, 0, at == 0 || to == 0);
    }

    /// Removes a record.
    pub(super) fn remove(&mut self, (leaf, at): Place, hash: u32) {
        self.index.remove(hash, leaf);
        self.edit_leaf(leaf, |items| items.remove(at));
        self.len -= 1;
        let left = self.leaves[leaf].items.len();
        self.tell(leaf, -1, at == 0 && left > 0);
        if left == 0 && self.first != self.last {
            self.remove_leaf(leaf);
        } else if left < LEAF_MAX / 4 {
            self.merge_leaf(leaf);
        }
    }

    /// Tells the nodes above a leaf of a change in it.
    fn tell(&mut self, leaf: u32, more: i32, mut has_new_first: bool) {
        let (score, member) = match self.leaves[leaf].items.len() {
            0 => (0.0, &b""[..]),
            _ => key_of(&self.leaves[leaf].items, 0),
        };
        let head = head_of(member);
        let (mut id, mut up) = (leaf, self.leaves[leaf].parent);
        while up != NONE {
            let node = &mut self.nodes[up];
            let i = node.place_of(id);
            let child = &mut node.children[i];
            child.count = child.count.wrapping_add_signed(more);
            if has_new_first {
                (child.score, child.head, child.low) = (score, head, leaf);
                has_new_first = i == 0;
            }
            (id, up) = (up, node.parent);
        }
    }

    /// Notes in a child's row what its records begin with.
    fn name_child(&self, child: &mut Child) {
        let (score, member) = key_of(&self.leaves[child.low].items, 0);
        (child.score, child.head) = (score, head_of(member));
    }

    /// Cuts a leaf; what is from `cut` on, or else the record that is to come, begins a new one.
    fn split(&mut self, leaf: u32, cut: usize, coming: (f64, &[u8])) -> u32 {
        let Leaf { items, parent, next, .. } = &self.leaves[leaf];
        let (parent, next) = (*parent, *next);
        let part = |range: std::ops::Range<usize>| {
            let bytes = range.clone().map(|i| items.get(i).arena_len()).sum();
            let mut part = Segment::with_room(range.len(), bytes);
            range.for_each(|i| part.push(items.tag(i), items.get(i)));
            part
        };
        let (lower, upper) = (part(0..cut), part(cut..items.len()));
        let moved: Vec<u32> = (0..upper.len()).map(|i| hash_of(key_of(&upper, i).1)).collect();
        let (score, member) = if moved.is_empty() { coming } else { key_of(&upper, 0) };
        let (head, count) = (head_of(member), moved.len() as u32);
        let (old, new) = (items.bytes(), lower.bytes() + upper.bytes());
        self.owned = self.owned + new - old;
        self.leaves[leaf].items = lower;
        let right = self.leaves.add(Leaf { items: upper, parent, prev: leaf, next });
        self.link(leaf, right);
        self.link(right, next);
        moved.into_iter().for_each(|hash| self.index.set(hash, leaf, right));
        let i = self.nodes[parent].place_of(leaf);
        self.nodes[parent].children[i].count -= count;
        self.insert_child(parent, i + 1, Child { score, head, id: right, low: right, count });
        right
    }

    /// Makes two leaves neighbours.
    fn link(&mut self, left: u32, right: u32) {
        match left {
            NONE => self.first = right,
            _ => self.leaves[left].next = right,
        }
        match right {
            NONE => self.last = left,
            _ => self.leaves[right].prev = left,
        }
    }

    fn set_parent(&mut self, is_leaf: bool, id: u32, parent: u32) {
        if is_leaf {
            self.leaves[id].parent = parent;
        } else {
            self.nodes[id].parent = parent;
        }
    }

    /// Adds a child to a node, whose records were the node's already.
    fn insert_child(&mut self, node: u32, i: usize, child: Child) {
        let is_bottom = self.nodes[node].is_bottom;
        self.set_parent(is_bottom, child.id, node);
        self.edit_node(node, |children| children.insert(i, child));
        if self.nodes[node].children.len() > FANOUT {
            self.split_node(node);
        }
    }

    fn row_of(&self, node: u32) -> Child {
        let first = self.nodes[node].children[0];
        Child { id: node, count: self.nodes[node].count(), ..first }
    }

    fn split_node(&mut self, node: u32) {
        let (is_bottom, parent) = (self.nodes[node].is_bottom, self.nodes[node].parent);
        let children = self.edit_node(node, |children| {
            let upper = children.split_off(FANOUT / 2);
            children.shrink_to_fit();
            upper
        });
        self.owned += bytes_of(&children);
        let right = self.nodes.add(Node { children, parent, is_bottom });
        for i in 0..self.nodes[right].children.len() {
            let id = self.nodes[right].children[i].id;
            self.set_parent(is_bottom, id, right);
        }
        let row = self.row_of(right);
        if parent == NONE {
            self.root = self.nodes.add(Node { is_bottom: false, ..Node::default() });
            let (root, left) = (self.root, self.row_of(node));
            self.nodes[node].parent = root;
            self.insert_child(root, 0, left);
            return self.insert_child(root, 1, row);
        }
        let i = self.nodes[parent].place_of(node);
        self.nodes[parent].children[i].count -= row.count;
        self.insert_child(parent, i + 1, row);
    }

    fn remove_leaf(&mut self, leaf: u32) {
        let Leaf { items, parent, prev, next } = self.leaves.remove(leaf);
        self.owned -= items.bytes();
        match (prev, next) {
            (NONE, next) => {
                self.first = next;
                self.leaves[next].prev = NONE;
            }
            (prev, next) => self.link(prev, next),
        }
        self.remove_child(parent, leaf);
    }

    /// Takes a child out whose records are gone or are another child's.
    fn remove_child(&mut self, node: u32, id: u32) {
        let i = self.nodes[node].place_of(id);
        self.edit_node(node, |children| {
            children.remove(i);
            if children.capacity() > 2 * children.len() + 8 {
                children.shrink_to(children.len() + 2);
            }
        });
        let parent = self.nodes[node].parent;
        if self.nodes[node].children.is_empty() {
            self.drop_node(node);
            if parent != NONE {
                self.remove_child(parent, node);
            }
            return;
        }
        if i == 0 {
            self.rename(node);
        }
        if parent == NONE {
            self.lower_root();
        } else if self.nodes[node].children.len() < FANOUT / 4 {
            self.merge_node(node, parent);
        }
    }

    fn drop_node(&mut self, node: u32) {
        let gone = self.nodes.remove(node);
        self.owned -= bytes_of(&gone.children);
    }

    /// Has the nodes above one know with what it begins.
    fn rename(&mut self, node: u32) {
        let first = self.nodes[node].children[0];
        let (mut id, mut up) = (node, self.nodes[node].parent);
        while up != NONE {
            let node = &mut self.nodes[up];
            let i = node.place_of(id);
            let child = &mut node.children[i];
            (child.score, child.head, child.low) = (first.score, first.head, first.low);
            if i > 0 {
                return;
            }
            (id, up) = (up, node.parent);
        }
    }

    fn lower_root(&mut self) {
        while let Node { is_bottom: false, children, .. } = &self.nodes[self.root]
            && let [only] = children[..]
        {
            self.drop_node(self.root);
            self.root = only.id;
            self.nodes[only.id].parent = NONE;
        }
    }

    /// A child and one of its neighbours under the same parent, if `fits` says so of the two.
    fn pair(&self, parent: u32, id: u32, fits: impl Fn(u32, u32) -> bool) -> Option<(u32, u32)> {
        let children = &self.nodes[parent].children;
        let i = self.nodes[parent].place_of(id);
        let neighbours = [i.checked_sub(1), Some(i)].into_iter().flatten();
        let pairs = neighbours.filter_map(|i| Some((children[i].id, children.get(i + 1)?.id)));
        let mut fitting = pairs.filter(|(left, right)| fits(*left, *right));
        fitting.next()
    }

    fn merge_leaf(&mut self, leaf: u32) {
        let parent = self.leaves[leaf].parent;
        let pair = self.pair(parent, leaf, |left, right| {
            let (left, right) = (&self.leaves[left].items, &self.leaves[right].items);
            left.len() + right.len() <= LEAF_MAX / 2
                && left.live_bytes() + right.live_bytes() <= LEAF_BYTES / 2
        });
        let Some((left, right)) = pair else { return };
        let taken = std::mem::take(&mut self.leaves[right].items);
        self.owned -= taken.bytes();
        for i in 0..taken.len() {
            let record = taken.get(i);
            self.index.set(hash_of(record.key), right, left);
            self.edit_leaf(left, |items| items.push(taken.tag(i), record));
        }
        let node = &mut self.nodes[parent];
        let i = node.place_of(left);
        node.children[i].count += taken.len() as u32;
        self.remove_leaf(right);
    }

    fn merge_node(&mut self, node: u32, parent: u32) {
        let pair = self.pair(parent, node, |left, right| {
            self.nodes[left].children.len() + self.nodes[right].children.len() <= FANOUT / 2
        });
        let Some((left, right)) = pair else { return };
        let is_bottom = self.nodes[left].is_bottom;
        let taken = std::mem::take(&mut self.nodes[right].children);
        self.owned -= bytes_of(&taken);
        taken.iter().for_each(|child| self.set_parent(is_bottom, child.id, left));
        let count = taken.iter().map(|child| child.count).sum::<u32>();
        self.edit_node(left, |children| {
            children.reserve_exact(taken.len());
            children.extend_from_slice(&taken);
        });
        let i = self.nodes[parent].place_of(left);
        self.nodes[parent].children[i].count += count;
        self.drop_node(right);
        self.remove_child(parent, right);
    }

    /// How many records are before one.
    pub(super) fn rank(&self, (leaf, at): Place) -> usize {
        let mut rank = at;
        let (mut id, mut up) = (leaf, self.leaves[leaf].parent);
        while up != NONE {
            let node = &self.nodes[up];
            let before = node.children.iter().take_while(|child| child.id != id);
            rank += before.map(|child| child.count as usize).sum::<usize>();
            (id, up) = (up, node.parent);
        }
        rank
    }

    /// The record with a rank, which must be below the length.
    pub(super) fn by_rank(&self, rank: usize) -> Place {
        let (mut node, mut left) = (&self.nodes[self.root], rank);
        loop {
            let mut id = NONE;
            for child in &node.children {
                id = child.id;
                match left.checked_sub(child.count as usize) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
            if node.is_bottom {
                return (id, left);
            }
            node = &self.nodes[id];
        }
    }

    /// How many records are before an edge.
    pub(super) fn count_before(&self, edge: Edge<'_>) -> usize {
        let (mut node, mut rank) = (&self.nodes[self.root], 0);
        loop {
            let is_before = |child: &Child| match edge {
                Edge::Score { .. } => edge.is_behind(child.score, b""),
                Edge::Member { .. } => {
                    edge.is_behind(child.score, key_of(&self.leaves[child.low].items, 0).1)
                }
            };
            let i = node.children.partition_point(is_before).saturating_sub(1);
            rank += node.children[..i].iter().map(|child| child.count as usize).sum::<usize>();
            let id = node.children[i].id;
            if node.is_bottom {
                return rank + super::count_before(&self.leaves[id].items, edge);
            }
            node = &self.nodes[id];
        }
    }

    /// See [`Index::scan`].
    pub(super) fn scan(&self, cursor: u64, count: u64, mut f: impl FnMut(&[u8], f64)) -> u64 {
        let mut last = (0, NONE);
        self.index.scan(cursor, count, |hash, leaf| {
            if (hash, leaf) == std::mem::replace(&mut last, (hash, leaf)) {
                return;
            }
            let items = &self.leaves[leaf].items;
            for i in (0..items.len()).filter(|&i| items.tag(i) == tag_of(hash)) {
                let (score, member) = key_of(items, i);
                if hash_of(member) == hash {
                    f(member, score);
                }
            }
        })
    }
}

/// The place in a leaf where a record belongs.
pub(super) fn place_in(items: &Segment, score: f64, member: &[u8]) -> usize {
    let (mut low, mut high) = (0, items.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_after(score, member, items, middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Gives record number `at` another score; returns its new number.
pub(super) fn set_score(items: &mut Segment, at: usize, score: f64, member: &[u8]) -> usize {
    let place = place_in(items, score, member);
    let to = if place > at { place - 1 } else { place };
    items.replace(at, record(member, &score.to_le_bytes()));
    items.shift(at, to);
    to
}

#[cfg(test)]
impl Tree {
    /// Checks what always holds.
    pub(super) fn check(&self) {
        let (mut owned, mut entries) = (0, Vec::new());
        let (mut leaf, mut before) = (self.first, NONE);
        while leaf != NONE {
            let Leaf { items, parent, prev, next } = &self.leaves[leaf];
            assert_eq!(*prev, before);
            assert!(items.len() > 0 && items.len() <= LEAF_MAX.max(super::SMALL_MAX));
            owned += items.bytes();
            entries.extend((0..items.len()).map(|i| (hash_of(key_of(items, i).1), leaf)));
            self.nodes[*parent].place_of(leaf);
            (before, leaf) = (leaf, *next);
        }
        assert_eq!(self.last, before);
        assert_eq!(self.len, entries.len());
        entries.sort_unstable();
        let mut indexed = self.index.check();
        indexed.sort_unstable();
        assert_eq!(indexed, entries);
        owned += self.check_node(self.root, NONE);
        assert_eq!(self.owned, owned);
        assert_eq!(self.nodes[self.root].count() as usize, self.len);
    }

    fn check_node(&self, node: u32, parent: u32) -> usize {
        let Node { children, parent: up, is_bottom } = &self.nodes[node];
        assert_eq!(*up, parent);
        let mut owned = bytes_of(children);
        for child in children {
            let mut named = *child;
            if *is_bottom {
                assert_eq!(child.low, child.id);
                assert_eq!(child.count as usize, self.leaves[child.id].items.len());
            } else {
                assert_eq!(*child, self.row_of(child.id));
                owned += self.check_node(child.id, node);
            }
            self.name_child(&mut named);
            assert_eq!(*child, named);
        }
        owned
    }
}
