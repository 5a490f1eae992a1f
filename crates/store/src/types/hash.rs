//! Hashes: fields with values, each with a deadline of its own if it has one.
//!
//! A [`Dict`] of the fields: see there for cost and speed. What OBJECT ENCODING tells is what Redis
//! would do: `listpack` until there are more fields, or longer ones, than the settings
//! `hash-max-listpack-entries` and `hash-max-listpack-value` allow, and `hashtable` from then on.

use super::dict::Dict;
use super::segment::Record;
use super::wire::{self, Reader};
use super::{Collection, LIMITS, Operation};
use std::sync::atomic::Ordering::Relaxed;

/// A change of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashOp<'a> {
    /// The field has this value, and this deadline or none.
    Put(Record<'a>),
    /// The field is gone.
    Remove(&'a [u8]),
    /// The field, if it is there, has this deadline or none.
    Deadline(&'a [u8], Option<u64>),
}

impl<'a> Operation<'a> for HashOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            HashOp::Put(Record { key, value, deadline }) => {
                out.push(if deadline.is_some() { 1 } else { 0 });
                wire::put_bytes(out, key);
                deadline.iter().for_each(|at| wire::put_u64(out, *at));
                out.extend_from_slice(value);
            }
            HashOp::Remove(field) => {
                out.push(2);
                out.extend_from_slice(field);
            }
            HashOp::Deadline(field, deadline) => {
                out.push(if deadline.is_some() { 4 } else { 3 });
                deadline.iter().for_each(|at| wire::put_u64(out, *at));
                out.extend_from_slice(field);
            }
        }
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(match reader.u8()? {
            code @ 0..=1 => {
                let key = reader.bytes()?;
                let deadline = if code == 1 { Some(reader.u64()?) } else { None };
                HashOp::Put(Record { key, value: reader.rest(), deadline })
            }
            2 => HashOp::Remove(reader.rest()),
            3 => HashOp::Deadline(reader.rest(), None),
            4 => {
                let deadline = Some(reader.u64()?);
                HashOp::Deadline(reader.rest(), deadline)
            }
            _ => return None,
        })
    }
}

/// What became of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashDone {
    /// It was added.
    Added,
    /// It was there and has the new value or deadline.
    Replaced,
    /// It was removed.
    Removed,
    /// It was not there.
    Missing,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: Dict,
    /// Whether it was ever too large for what Redis calls a listpack.
    is_large: bool,
}

impl Hash {
    /// Fields, expired ones that were not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Fields that are not expired.
    #[must_use]
    pub fn len_live(&self, now_ms: u64) -> usize {
        let mut expired = 0;
        self.fields.each_expired(now_ms, |_| {
            expired += 1;
            true
        });
        self.fields.len() - expired
    }

    /// A field, expired or not.
    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<Record<'_>> {
        self.fields.get(field)
    }

    /// A field, if it is not expired.
    #[inline]
    #[must_use]
    pub fn get_live(&self, field: &[u8], now_ms: u64) -> Option<Record<'_>> {
        self.fields.get(field).filter(|record| !record.is_expired(now_ms))
    }

    /// All fields that are not expired.
    pub fn iter_live(&self, now_ms: u64) -> impl Iterator<Item = Record<'_>> {
        self.fields.iter().filter(move |record| !record.is_expired(now_ms))
    }

    /// The fields as a map: to walk it, or to draw from it.
    #[must_use]
    pub fn fields(&self) -> &Dict {
        &self.fields
    }

    /// See [`Dict::settle`]. No change of the hash: what it holds is the same.
    pub fn settle(&mut self) {
        self.fields.settle();
    }
}

impl Collection for Hash {
    type Op<'a> = HashOp<'a>;
    type Done = HashDone;

    #[inline]
    fn apply(&mut self, op: HashOp<'_>) -> HashDone {
        match op {
            HashOp::Put(record) => {
                let was_there = self.fields.put(record);
                if !self.is_large {
                    let longest = record.key.len().max(record.value.len());
                    self.is_large = longest > LIMITS.hash_value.load(Relaxed)
                        || self.fields.len() > LIMITS.hash_entries.load(Relaxed);
                }
                if was_there { HashDone::Replaced } else { HashDone::Added }
            }
            HashOp::Remove(field) => match self.fields.remove(field) {
                true => HashDone::Removed,
                false => HashDone::Missing,
            },
            HashOp::Deadline(key, deadline) => {
                let Some(old) = self.fields.get(key) else { return HashDone::Missing };
                let value = old.value.to_vec();
                self.fields.put(Record { key, value: &value, deadline });
                HashDone::Replaced
            }
        }
    }

    fn has_changed(done: &HashDone) -> bool {
        *done != HashDone::Missing
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.fields.bytes()
    }

    #[inline]
    fn prefetch_parts(&self) {
        self.fields.prefetch_parts();
    }

    fn encoding(&self) -> &'static str {
        if self.is_large { "hashtable" } else { "listpack" }
    }

    fn each_op(&self, f: &mut dyn FnMut(HashOp<'_>)) {
        self.fields.iter().for_each(|record| f(HashOp::Put(record)));
    }

    #[inline]
    fn next_deadline(&self) -> Option<u64> {
        self.fields.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Kind, Object};

    fn put<'a>(key: &'a [u8], value: &'a [u8], deadline: Option<u64>) -> HashOp<'a> {
        HashOp::Put(Record { key, value, deadline })
    }

    #[test]
    fn operations_come_back() {
        let ops = [put(b"f", b"v", None), put(b"", b"", Some(u64::MAX)), HashOp::Remove(b"f")];
        let deadlines = [HashOp::Deadline(b"f", None), HashOp::Deadline(b"", Some(300))];
        for op in ops.into_iter().chain(deadlines) {
            let mut bytes = Vec::new();
            op.encode(&mut bytes);
            assert_eq!(HashOp::decode(&bytes), Some(op));
        }
        assert_eq!(HashOp::decode(&[5]), None);
        assert_eq!(HashOp::decode(&[0, 9, b'a']), None);
    }

    #[test]
    fn a_copy_by_operations_is_the_same() {
        let mut hash = Hash::default();
        for n in 0..500u64 {
            let field = n.to_string();
            hash.apply(put(field.as_bytes(), b"value", n.is_multiple_of(2).then_some(n)));
        }
        assert_eq!(hash.apply(HashOp::Remove(b"7")), HashDone::Removed);
        assert_eq!(hash.apply(HashOp::Remove(b"7")), HashDone::Missing);
        assert_eq!(hash.apply(put(b"8", b"", None)), HashDone::Replaced);
        assert_eq!((hash.len(), hash.len_live(100)), (499, 450));
        let object = Object::Hash(hash);
        let mut encoded = Vec::new();
        object.encode(&mut encoded);
        let copy = Object::decode(Kind::Hash, &encoded).expect("whole");
        assert_eq!(copy.canonical(), object.canonical());
    }
}
