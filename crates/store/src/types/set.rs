//! Sets of byte strings.
//!
//! A set of integers only, up to `set-max-intset-entries` of them, is a sorted array of 2, 4 or 8 bytes
//! for each, as wide as the widest needs: no member costs more than its number, and a walk is in
//! ascending order, as in Redis. Every other set is a [`Dict`] of the members: see there.

use super::dict::Dict;
use super::segment::Record;
use super::wire::{self, Reader};
use super::{Collection, Digits, Item, LIMITS, Operation};
use crate::mem::class_size;
use crate::table::prefetch_value;
use std::sync::atomic::Ordering::Relaxed;

/// A change of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOp<'a> {
    /// Adds a member.
    Add(&'a [u8]),
    /// Removes a member.
    Remove(&'a [u8]),
}

impl<'a> Operation<'a> for SetOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, member) = match self {
            SetOp::Add(member) => (0, member),
            SetOp::Remove(member) => (1, member),
        };
        wire::put_u64(out, code);
        out.extend_from_slice(member);
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            0 => Some(SetOp::Add(reader.rest())),
            1 => Some(SetOp::Remove(reader.rest())),
            _ => None,
        }
    }
}

/// Distinct integers in ascending order.
#[derive(Debug, Default)]
struct IntSet {
    bytes: Vec<u8>,
    /// Bytes of each: 2, 4 or 8; 0 before the first.
    width: usize,
}

impl Clone for IntSet {
    fn clone(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.capacity());
        bytes.extend_from_slice(&self.bytes);
        IntSet { bytes, width: self.width }
    }
}

fn width_of(n: i64) -> usize {
    match n {
        _ if i16::try_from(n).is_ok() => 2,
        _ if i32::try_from(n).is_ok() => 4,
        _ => 8,
    }
}

impl IntSet {
    fn len(&self) -> usize {
        self.bytes.len().checked_div(self.width).unwrap_or(0)
    }

    #[inline]
    fn get(&self, i: usize) -> i64 {
        let bytes = &self.bytes[i * self.width..(i + 1) * self.width];
        let mut number = if bytes[self.width - 1] & 0x80 == 0 { [0; 8] } else { [0xff; 8] };
        number[..self.width].copy_from_slice(bytes);
        i64::from_le_bytes(number)
    }

    /// Where a number is, or where it belongs.
    fn find(&self, n: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).cmp(&n) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn reserve(&mut self, len: usize) {
        if len > self.bytes.capacity() {
            self.bytes.reserve_exact(class_size(len) - self.bytes.len());
        }
    }

    fn insert(&mut self, n: i64) -> bool {
        let Err(i) = self.find(n) else { return false };
        self.widen(width_of(n));
        let (at, width) = (i * self.width, self.width);
        let len = self.bytes.len();
        self.reserve(len + width);
        self.bytes.resize(len + width, 0);
        self.bytes.copy_within(at..len, at + width);
        self.bytes[at..at + width].copy_from_slice(&n.to_le_bytes()[..width]);
        true
    }

    fn widen(&mut self, width: usize) {
        if width <= self.width {
            return;
        }
        let numbers: Vec<i64> = (0..self.len()).map(|i| self.get(i)).collect();
        *self = IntSet { bytes: Vec::new(), width };
        self.reserve(numbers.len() * width);
        numbers.iter().for_each(|n| self.bytes.extend_from_slice(&n.to_le_bytes()[..width]));
    }

    fn remove(&mut self, n: i64) -> bool {
        let Ok(i) = self.find(n) else { return false };
        self.bytes.drain(i * self.width..(i + 1) * self.width);
        let needed = class_size(self.bytes.len());
        if needed * 2 <= self.bytes.capacity() {
            self.bytes.shrink_to(needed);
        }
        true
    }

    fn bytes(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { class_size(self.bytes.capacity()) }
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Set(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Ints(IntSet),
    Members(Dict),
}

impl Default for Set {
    fn default() -> Self {
        Set(Repr::Ints(IntSet::default()))
    }
}

fn integer(member: &[u8]) -> Option<i64> {
    match Item::of(member) {
        Item::Int(n) => Some(n),
        Item::Bytes(_) => None,
    }
}

fn record(member: &[u8]) -> Record<'_> {
    Record { key: member, value: b"", deadline: None }
}

impl Set {
    /// Members.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Ints(ints) => ints.len(),
            Repr::Members(dict) => dict.len(),
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it holds a member.
    #[inline]
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Repr::Ints(ints) => integer(member).is_some_and(|n| ints.find(n).is_ok()),
            Repr::Members(dict) => dict.get(member).is_some(),
        }
    }

    /// Calls `f` with every member until it returns false.
    pub fn each_while(&self, mut f: impl FnMut(&[u8]) -> bool) {
        match &self.0 {
            Repr::Ints(ints) => {
                let mut digits = Digits::new();
                let mut numbers = (0..ints.len()).map(|i| ints.get(i));
                while numbers.next().is_some_and(|n| f(digits.format(n).as_bytes())) {}
            }
            Repr::Members(dict) => {
                let mut records = dict.iter();
                while records.next().is_some_and(|record| f(record.key)) {}
            }
        }
    }

    /// Calls `f` with every member.
    pub fn each(&self, mut f: impl FnMut(&[u8])) {
        self.each_while(|member| {
            f(member);
            true
        });
    }

    /// Calls `f` with a member at random, each as likely as any other; `random(n)` must give a number
    /// below `n`.
    pub fn random<R>(
        &self,
        random: &mut dyn FnMut(u64) -> u64,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        match &self.0 {
            Repr::Ints(ints) if ints.len() == 0 => None,
            Repr::Ints(ints) => {
                let n = ints.get(random(ints.len() as u64) as usize);
                Some(f(Digits::new().format(n).as_bytes()))
            }
            Repr::Members(dict) => dict.random(random).map(|record| f(record.key)),
        }
    }

    /// See [`Dict::scan`].
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(&[u8])) -> u64 {
        match &self.0 {
            Repr::Ints(_) => {
                self.each(f);
                0
            }
            Repr::Members(dict) => dict.scan(cursor, |record| f(record.key)),
        }
    }

    fn add(&mut self, member: &[u8]) -> bool {
        if let Repr::Ints(ints) = &mut self.0 {
            let number = integer(member);
            if let Some(n) = number
                && ints.len() < LIMITS.set_ints.load(Relaxed)
            {
                return ints.insert(n);
            }
            if number.is_some_and(|n| ints.find(n).is_ok()) {
                return false;
            }
            let mut dict = Dict::default();
            self.each(|member| {
                dict.put_new(record(member));
            });
            self.0 = Repr::Members(dict);
        }
        match &mut self.0 {
            Repr::Members(dict) => !dict.put_new(record(member)),
            Repr::Ints(_) => false,
        }
    }
}

impl Collection for Set {
    type Op<'a> = SetOp<'a>;
    /// Whether it was a change.
    type Done = bool;

    #[inline]
    fn apply(&mut self, op: SetOp<'_>) -> bool {
        match (op, &mut self.0) {
            (SetOp::Add(member), _) => self.add(member),
            (SetOp::Remove(member), Repr::Members(dict)) => dict.remove(member),
            (SetOp::Remove(member), Repr::Ints(ints)) => {
                integer(member).is_some_and(|n| ints.remove(n))
            }
        }
    }

    fn has_changed(done: &bool) -> bool {
        *done
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn bytes(&self) -> usize {
        match &self.0 {
            Repr::Ints(ints) => ints.bytes(),
            Repr::Members(dict) => dict.bytes(),
        }
    }

    #[inline]
    fn prefetch_parts(&self) {
        match &self.0 {
            Repr::Ints(ints) => ints.bytes.first().into_iter().for_each(prefetch_value),
            Repr::Members(dict) => dict.prefetch_parts(),
        }
    }

    fn encoding(&self) -> &'static str {
        match &self.0 {
            Repr::Ints(_) => "intset",
            Repr::Members(_) => "hashtable",
        }
    }

    fn each_op(&self, f: &mut dyn FnMut(SetOp<'_>)) {
        self.each(|member| f(SetOp::Add(member)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members() -> impl Strategy<Value = Vec<u8>> {
        let near = (-300i64..300).prop_map(|n| n.to_string().into_bytes());
        let far = any::<i64>().prop_map(|n| n.to_string().into_bytes());
        prop_oneof![20 => near, 2 => far]
    }

    fn check(set: &Set, model: &BTreeSet<Vec<u8>>) {
        let mut seen = BTreeSet::new();
        set.each(|member| {
            seen.insert(member.to_vec());
        });
        assert_eq!((set.len(), &seen), (model.len(), model));
        assert!(model.iter().all(|member| set.contains(member)));
        assert_eq!(set.clone().bytes(), set.bytes());
        if let Repr::Ints(ints) = &set.0 {
            assert!((1..ints.len()).all(|i| ints.get(i - 1) < ints.get(i)));
        }
    }

    proptest! {
        #[test]
        fn a_set_is_a_set(
            steps in proptest::collection::vec((members(), any::<bool>()), 1..1500),
            text in proptest::option::of((0usize..1000, ".{0,30}")),
        ) {
            let (mut set, mut model) = (Set::default(), BTreeSet::new());
            for (i, (member, adds)) in steps.iter().enumerate() {
                let op = if *adds { SetOp::Add(member) } else { SetOp::Remove(member) };
                let mut encoded = Vec::new();
                op.encode(&mut encoded);
                let done = set.apply(SetOp::decode(&encoded).expect("what was encoded"));
                let expected =
                    if *adds { model.insert(member.clone()) } else { model.remove(member) };
                prop_assert_eq!(done, expected);
                if let Some((at, text)) = &text && i == *at {
                    set.apply(SetOp::Add(text.as_bytes()));
                    model.insert(text.clone().into_bytes());
                }
            }
            check(&set, &model);
        }
    }

    #[test]
    fn only_numbers_as_they_are_written_are_integers() {
        let mut set = Set::default();
        set.apply(SetOp::Add(b"-5"));
        assert_eq!(set.encoding(), "intset");
        assert!(!set.contains(b"-05") && !set.contains(b"+5"));
        set.apply(SetOp::Add(b"05"));
        assert_eq!((set.encoding(), set.len()), ("hashtable", 2));
    }
}
