//! A short sequence of byte strings in one allocation: the form of every small collection, and the
//! piece that a large list is made of.
//!
//! ```text
//! count u16 | start u16 | room | item | item | …        item = head | payload | size
//! ```
//! `head` says how long the payload is or is the number itself, `size` is the length of head and
//! payload, written so that it can be read backwards: a walk goes both ways. Integers in decimal
//! notation are kept as numbers. An item costs 2 bytes beyond its payload (1 for the numbers 0 to
//! 127), the sequence 4, and the allocation up to a quarter.
//!
//! Fast at: walking, both ends, and memory. What the allocation has beyond the items is before the first
//! or behind the last, whichever end was added to: so a sequence that grows or shrinks at one end moves its
//! items once per allocation and not with each change. Everything else is linear in bytes: whoever uses it
//! bounds its length. **Tried**: a vector of boxed strings takes 24 bytes and an allocation per item; with
//! room behind the last only, each change of the front moves a kilobyte of a full chunk.
//!
//! | head | payload |
//! |---|---|
//! | `0xxxxxxx` | none: the number 0 to 127 |
//! | `10xxxxxx` | a string of that many bytes (up to 63) |
//! | `110000xx` | a signed integer of 2, 4 or 8 bytes (xx = 0, 1, 2), little-endian |
//! | `11100000` | length u32, then the string |

use crate::mem::class_size;
use crate::table::prefetch_value;
use hypercache_stdx::number;

/// Bytes of a sequence before its items and the room before those.
pub(super) const HEAD_BYTES: usize = 4;
/// Where the first item begins is told in 16 bits: what is larger has its room behind the last.
const START_MAX: usize = u16::MAX as usize;
const SHORT: u8 = 0x80;
const SHORT_MAX: usize = 63;
const INT_16: u8 = 0xc0;
const INT_32: u8 = 0xc1;
const INT_64: u8 = 0xc2;
const LONG: u8 = 0xe0;

/// One item: a number, or bytes that are no number in canonical decimal notation. So two items are
/// the same string exactly if they are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Bytes that are no integer.
    Bytes(&'a [u8]),
    /// A decimal integer.
    Int(i64),
}

/// Room for the digits of an [`Item::Int`].
pub type Digits = itoa::Buffer;

impl<'a> Item<'a> {
    /// The item that stands for a string.
    #[inline]
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let may_be_number = matches!(bytes, [b'-' | b'0'..=b'9', ..]) && bytes.len() <= 20;
        match may_be_number.then(|| number::parse_i64(bytes)).flatten() {
            Some(number) => Item::Int(number),
            None => Item::Bytes(bytes),
        }
    }

    /// The string.
    #[inline]
    pub fn bytes<'b>(&self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Item::Bytes(bytes) => bytes,
            Item::Int(number) => digits.format(number).as_bytes(),
        }
    }

    /// The string, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes(&mut Digits::new()).to_vec()
    }

    /// Length of the string in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes(&mut Digits::new()).len()
    }

    /// Whether the string is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Item::Bytes([]))
    }

    /// Length of head and payload.
    fn body_len(&self) -> usize {
        match *self {
            Item::Int(0..=127) => 1,
            Item::Int(n) if i16::try_from(n).is_ok() => 3,
            Item::Int(n) if i32::try_from(n).is_ok() => 5,
            Item::Int(_) => 9,
            Item::Bytes(bytes) if bytes.len() <= SHORT_MAX => 1 + bytes.len(),
            Item::Bytes(bytes) => 5 + bytes.len(),
        }
    }

    /// Bytes that the item takes in a [`Packed`].
    #[must_use]
    pub fn packed_len(&self) -> usize {
        let body = self.body_len();
        body + size_len(body)
    }

    fn write(&self, out: &mut [u8]) {
        let body = self.body_len();
        let (head, payload) = out[..body].split_at_mut(1);
        match *self {
            Item::Int(n @ 0..=127) => head[0] = n as u8,
            Item::Int(n) => {
                head[0] = [INT_16, INT_32, INT_64][(body - 1).ilog2() as usize - 1];
                payload.copy_from_slice(&n.to_le_bytes()[..body - 1]);
            }
            Item::Bytes(bytes) if bytes.len() <= SHORT_MAX => {
                head[0] = SHORT | bytes.len() as u8;
                payload.copy_from_slice(bytes);
            }
            Item::Bytes(bytes) => {
                head[0] = LONG;
                payload[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
                payload[4..].copy_from_slice(bytes);
            }
        }
        write_size(body, &mut out[body..]);
    }
}

/// Bytes of the size of a body: seven bits each.
fn size_len(body: usize) -> usize {
    (usize::BITS - (body | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes a size so that it is read from its end: the last byte has the low bits, and all but the
/// first have their top bit set.
fn write_size(mut body: usize, out: &mut [u8]) {
    let len = size_len(body);
    for (i, byte) in out[..len].iter_mut().rev().enumerate() {
        let more = if i + 1 < len { 0x80 } else { 0 };
        *byte = (body & 0x7f) as u8 | more;
        body >>= 7;
    }
}

/// Reads the size that ends before `end`: the length of the body, and of the size itself.
fn read_size(bytes: &[u8], end: usize) -> (usize, usize) {
    let (mut body, mut len) = (0, 0);
    loop {
        let byte = bytes[end - 1 - len];
        body |= ((byte & 0x7f) as usize) << (7 * len);
        len += 1;
        if byte & 0x80 == 0 {
            return (body, len);
        }
    }
}

/// Where an item begins. Valid until the sequence changes at or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(u32);

/// See the module's text.
#[derive(Clone, Default)]
pub struct Packed {
    /// Empty, or the head, room, and the items.
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Packed {
    /// Items.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.first_chunk().map_or(0, |count| u16::from_le_bytes(*count) as usize)
    }

    /// Where the first item begins, or would.
    #[inline]
    fn start(&self) -> usize {
        match self.bytes.first_chunk() {
            Some([_, _, low, high]) => u16::from_le_bytes([*low, *high]) as usize,
            None => HEAD_BYTES,
        }
    }

    /// Whether there is no item.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length in bytes of all items together.
    #[inline]
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start())
    }

    /// Bytes of memory taken.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.bytes.capacity() {
            0 => 0,
            capacity => class_size(capacity),
        }
    }

    /// An empty sequence with room for items that take `bytes` together.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(class_size(HEAD_BYTES + bytes));
        room.resize(HEAD_BYTES, 0);
        let mut packed = Packed { bytes: room };
        packed.set_start(HEAD_BYTES);
        packed
    }

    /// Brings the first items towards the cache.
    #[inline]
    pub(super) fn prefetch_parts(&self) {
        self.bytes.first().into_iter().for_each(prefetch_value);
    }

    fn set_len(&mut self, len: usize) {
        debug_assert!(len <= u16::MAX as usize, "whoever uses it bounds its length");
        self.bytes[..2].copy_from_slice(&(len as u16).to_le_bytes());
    }

    fn set_start(&mut self, start: usize) {
        self.bytes[2..HEAD_BYTES].copy_from_slice(&(start as u16).to_le_bytes());
    }

    /// Moves all items to where the first one then begins.
    fn slide(&mut self, to: usize) {
        let (from, end) = (self.start(), self.bytes.len());
        if from == to {
            return;
        }
        let new_end = to + (end - from);
        self.bytes.resize(end.max(new_end), 0);
        self.bytes.copy_within(from..end, to);
        self.bytes.truncate(new_end);
        self.set_start(to);
    }

    /// Sees to it that `n` more bytes have room in the allocation.
    fn reserve(&mut self, n: usize) {
        if self.bytes.is_empty() {
            *self = Packed::with_room(n);
        }
        let len = HEAD_BYTES + self.packed_len();
        if len + n > self.bytes.capacity() {
            self.slide(HEAD_BYTES);
            // An eighth more: whoever adds one item often adds another.
            self.bytes.reserve_exact(class_size(len + n + len / 8) - len);
        }
    }

    /// Makes a gap of `n` bytes at `at`. Returns where it is then.
    fn open_gap(&mut self, at: usize, n: usize) -> usize {
        let offset = at - self.start();
        self.reserve(n);
        let (start, end, capacity) = (self.start(), self.bytes.len(), self.bytes.capacity());
        if offset == 0 && end > start && capacity <= START_MAX {
            if start - HEAD_BYTES < n {
                // All the room goes to the end that is added to.
                self.slide(capacity - (end - start));
            }
            let start = self.start() - n;
            self.set_start(start);
            return start;
        }
        if end + n > capacity {
            self.slide(HEAD_BYTES);
        }
        let (at, end) = (self.start() + offset, self.bytes.len());
        self.bytes.resize(end + n, 0);
        self.bytes.copy_within(at..end, at + n);
        at
    }

    /// Takes `n` bytes out at `at`.
    fn close_gap(&mut self, at: usize, n: usize) {
        if at == self.start() && at + n <= START_MAX {
            self.set_start(at + n);
        } else {
            self.bytes.drain(at..at + n);
        }
        let wanted = class_size(HEAD_BYTES + self.packed_len());
        if wanted * 2 <= self.bytes.capacity() {
            self.slide(HEAD_BYTES);
            self.bytes.shrink_to(wanted);
        }
    }

    fn put(&mut self, at: usize, item: Item<'_>) {
        let at = self.open_gap(at, item.packed_len());
        item.write(&mut self.bytes[at..]);
        self.set_len(self.len() + 1);
    }

    /// Adds an item behind the last.
    pub fn push_back(&mut self, item: Item<'_>) {
        self.put(self.bytes.len().max(HEAD_BYTES), item);
    }

    /// Adds an item before the first.
    pub fn push_front(&mut self, item: Item<'_>) {
        self.put(self.start(), item);
    }

    /// Adds an item before the one at `pos`.
    pub fn insert(&mut self, pos: Pos, item: Item<'_>) {
        self.put(pos.0 as usize, item);
    }

    /// Puts another item in the place of the one at `pos`.
    pub fn replace(&mut self, pos: Pos, item: Item<'_>) {
        let mut at = pos.0 as usize;
        let (old, new) = (self.item_len(at), item.packed_len());
        if new > old {
            at = self.open_gap(at, new - old);
        }
        item.write(&mut self.bytes[at..]);
        if new < old {
            self.close_gap(at + new, old - new);
        }
    }

    /// Removes the item at `pos`; what follows it is then at `pos`.
    pub fn remove(&mut self, pos: Pos) {
        self.remove_range(pos, 1);
    }

    /// Removes `count` items from `pos` on, or as many as there are.
    pub fn remove_range(&mut self, pos: Pos, count: usize) {
        let (start, mut end, mut removed) = (pos.0 as usize, pos.0 as usize, 0);
        while removed < count && end < self.bytes.len() {
            end += self.item_len(end);
            removed += 1;
        }
        if removed == 0 {
            return;
        }
        let left = self.len() - removed;
        if left == 0 {
            self.bytes = Vec::new();
            return;
        }
        self.set_len(left);
        self.close_gap(start, end - start);
    }

    /// Takes the items from `pos` on out.
    #[must_use]
    pub fn split_off(&mut self, pos: Pos) -> Packed {
        let mut tail = Packed::default();
        self.iter_from(pos).for_each(|item| tail.push_back(item));
        self.remove_range(pos, usize::MAX);
        tail
    }

    /// Adds the items of another sequence behind the last.
    pub fn append(&mut self, other: &Packed) {
        other.iter().for_each(|item| self.push_back(item));
    }

    /// Length of the item at `at`, its size included.
    fn item_len(&self, at: usize) -> usize {
        let body = match self.bytes[at] {
            0..SHORT => 1,
            head @ SHORT..INT_16 => 1 + (head & !SHORT) as usize,
            head @ INT_16..=INT_64 => 1 + (2 << (head - INT_16)),
            _ => 5 + self.long_len(at),
        };
        body + size_len(body)
    }

    fn long_len(&self, at: usize) -> usize {
        let len = self.bytes[at + 1..].first_chunk().expect("a long item has its length");
        u32::from_le_bytes(*len) as usize
    }

    /// The item at `pos`.
    #[inline]
    #[must_use]
    pub fn get(&self, pos: Pos) -> Item<'_> {
        let at = pos.0 as usize;
        let payload = &self.bytes[at + 1..];
        let int = |n: usize| {
            let mut bytes = if payload[n - 1] & 0x80 == 0 { [0; 8] } else { [0xff; 8] };
            bytes[..n].copy_from_slice(&payload[..n]);
            Item::Int(i64::from_le_bytes(bytes))
        };
        match self.bytes[at] {
            number @ 0..SHORT => Item::Int(i64::from(number)),
            head @ SHORT..INT_16 => Item::Bytes(&payload[..(head & !SHORT) as usize]),
            head @ INT_16..=INT_64 => int(2 << (head - INT_16)),
            _ => Item::Bytes(&payload[4..4 + self.long_len(at)]),
        }
    }

    /// Where the first item is.
    #[must_use]
    pub fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then_some(Pos(self.start() as u32))
    }

    /// Where the last item is.
    #[must_use]
    pub fn last(&self) -> Option<Pos> {
        self.before(self.bytes.len())
    }

    /// Where the item after the one at `pos` is.
    #[must_use]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let next = pos.0 as usize + self.item_len(pos.0 as usize);
        (next < self.bytes.len()).then_some(Pos(next as u32))
    }

    /// Where the item before the one at `pos` is.
    #[must_use]
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        self.before(pos.0 as usize)
    }

    fn before(&self, end: usize) -> Option<Pos> {
        if end <= self.start() {
            return None;
        }
        let (body, size) = read_size(&self.bytes, end);
        Some(Pos((end - size - body) as u32))
    }

    /// Where item number `index` is, walked to from the nearer end.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<Pos> {
        let len = self.len();
        if index >= len {
            return None;
        }
        if index < len / 2 {
            return (0..index).try_fold(self.first()?, |pos, _| self.next(pos));
        }
        (index + 1..len).try_fold(self.last()?, |pos, _| self.prev(pos))
    }

    /// Where the first item equal to `item` is, of those whose number is a multiple of `step`.
    #[must_use]
    pub fn find(&self, item: Item<'_>, step: usize) -> Option<Pos> {
        let mut at = self.first();
        while let Some(pos) = at {
            if self.get(pos) == item {
                return Some(pos);
            }
            at = (0..step).try_fold(pos, |pos, _| self.next(pos));
        }
        None
    }

    /// All items in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { packed: self, front: self.start(), back: self.bytes.len() }
    }

    /// The items from `pos` on.
    #[must_use]
    pub fn iter_from(&self, pos: Pos) -> Iter<'_> {
        Iter { packed: self, front: pos.0 as usize, back: self.bytes.len() }
    }
}

/// A walk over a [`Packed`], from both ends.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    packed: &'a Packed,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        let pos = Pos(self.front as u32);
        self.front += self.packed.item_len(self.front);
        Some(self.packed.get(pos))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let pos = self.packed.before(self.back)?;
        self.back = pos.0 as usize;
        Some(self.packed.get(pos))
    }
}

impl<'a> IntoIterator for &'a Packed {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings() -> impl Strategy<Value = Vec<u8>> {
        let number = any::<i64>().prop_map(|n| n.to_string().into_bytes());
        let near = (-40_000i64..40_000).prop_map(|n| n.to_string().into_bytes());
        let odd = prop_oneof![Just("-0"), Just("01"), Just("+1"), Just(""), Just("-")];
        let odd = odd.prop_map(|s| s.as_bytes().to_vec());
        let text = proptest::collection::vec(any::<u8>(), 0..200);
        prop_oneof![number, near, odd, text]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Back(Vec<u8>),
        Front(Vec<u8>),
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
        Split(usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        let at = 0usize..40;
        prop_oneof![
            3 => strings().prop_map(Step::Back),
            2 => strings().prop_map(Step::Front),
            2 => (at.clone(), strings()).prop_map(|(i, s)| Step::Insert(i, s)),
            2 => (at.clone(), strings()).prop_map(|(i, s)| Step::Replace(i, s)),
            2 => (at.clone(), 0usize..4).prop_map(|(i, n)| Step::Remove(i, n)),
            1 => at.prop_map(Step::Split),
        ]
    }

    fn run(packed: &mut Packed, model: &mut Vec<Vec<u8>>, step: &Step) {
        let at = |i: usize| packed.at(i);
        match step {
            Step::Back(s) => {
                packed.push_back(Item::of(s));
                model.push(s.clone());
            }
            Step::Front(s) => {
                packed.push_front(Item::of(s));
                model.insert(0, s.clone());
            }
            Step::Insert(i, s) => {
                let Some(pos) = at(*i) else { return };
                packed.insert(pos, Item::of(s));
                model.insert(*i, s.clone());
            }
            Step::Replace(i, s) => {
                let Some(pos) = at(*i) else { return };
                packed.replace(pos, Item::of(s));
                model[*i] = s.clone();
            }
            Step::Remove(i, n) => {
                let Some(pos) = at(*i) else { return };
                packed.remove_range(pos, *n);
                model.drain(*i..(i + n).min(model.len()));
            }
            Step::Split(i) => {
                let Some(pos) = at(*i) else { return };
                let tail = packed.split_off(pos);
                assert_eq!(tail.len(), model.len() - i);
                packed.append(&tail);
            }
        }
    }

    proptest! {
        #[test]
        fn a_sequence_is_a_vector_of_strings(steps in proptest::collection::vec(steps(), 1..80)) {
            let (mut packed, mut model) = (Packed::default(), Vec::new());
            for step in &steps {
                run(&mut packed, &mut model, step);
                prop_assert_eq!(packed.len(), model.len());
                let forward: Vec<_> = packed.iter().map(|item| item.to_vec()).collect();
                prop_assert_eq!(&forward, &model);
                let mut back: Vec<_> = packed.iter().rev().map(|item| item.to_vec()).collect();
                back.reverse();
                prop_assert_eq!(&back, &model);
                for (i, s) in model.iter().enumerate() {
                    let pos = packed.at(i).expect("it is there");
                    prop_assert_eq!(packed.get(pos), Item::of(s));
                    let first = model.iter().position(|other| other == s);
                    prop_assert_eq!(packed.find(Item::of(s), 1), packed.at(first.expect("itself")));
                }
                prop_assert!(packed.bytes() <= 2 * class_size(packed.packed_len() + HEAD_BYTES));
            }
        }
    }

    #[test]
    fn small_items_take_two_bytes_more_than_their_text_and_numbers_less() {
        let len = |text: &str| Item::of(text.as_bytes()).packed_len();
        assert_eq!((len("hello"), len("7"), len("1000"), len("100000")), (7, 2, 4, 6));
        assert_eq!(len("1234567890123"), 10);
    }
}
