//! One change of one partition, and its encoding.
//!
//! ```text
//! change u8 | event u8 | flags u8 | db u8 | key_len u32 | key | fields of the change
//! ```
//! Integers are little-endian. The framing (length, checksum) belongs to whoever stores records.

use crate::event::Event;
use hypercache_store::care::TAGS_MAX;
use hypercache_store::types::{Kind, Object};
use hypercache_store::{Care, Db, Key, Mark, Payload, Ttl};

/// What happened to a key or a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key holds this string, with this deadline (ms since the epoch) or none.
    Set {
        /// The new value.
        value: &'a [u8],
        /// When the key expires.
        deadline: Option<u64>,
    },
    /// The string was made `len` bytes long and `bytes` written at `offset`.
    Splice {
        /// Length of the value afterwards.
        len: u64,
        /// Where `bytes` begin.
        offset: u64,
        /// What was written.
        bytes: &'a [u8],
    },
    /// The key holds the collection that these operations build (see [`Object::encode`]), with this
    /// deadline or none.
    Object {
        /// Its type.
        kind: Kind,
        /// The operations, each with its length before it.
        ops: &'a [u8],
        /// When the key expires.
        deadline: Option<u64>,
    },
    /// This operation was applied to the key's collection; a missing key is made.
    Op {
        /// The collection's type.
        kind: Kind,
        /// The operation in the form of its type.
        op: &'a [u8],
    },
    /// Nothing: the record only tells the event of the changes before it.
    Nothing,
    /// Only the deadline changed.
    Deadline(Option<u64>),
    /// Only what the memcached protocol keeps of the key changed. The CAS unique is no part of it:
    /// whoever replays the log gives numbers of its own.
    Mark {
        /// The number that a client stored with the value.
        client_flags: u32,
        /// Bits of [`Mark::state`].
        state: u8,
    },
    /// Only how the value may be used changed: see [`Care`].
    Care {
        /// For how long it is stale before its deadline, in ms.
        stale_ms: u32,
        /// What it took to load it, in microseconds.
        cost_us: u32,
        /// Whether it stands for nothing.
        is_negative: bool,
        /// The numbers of its tags, eight bytes each.
        tags: &'a [u8],
    },
    /// All keys of the database with this tag are gone; each is told of as deleted when it is removed.
    /// The key is empty.
    Invalidate(u64),
    /// The key is gone.
    Del,
    /// All keys of the database are gone. The key is empty.
    Flush,
    /// The database changed places with another. The key is empty.
    Swap(u8),
}

/// A change with where it happened and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    /// Logical database.
    pub db: u8,
    /// The key, empty for changes of the whole database.
    pub key: &'a [u8],
    /// What happened.
    pub change: Change<'a>,
    /// What subscribers are told.
    pub event: Event,
    /// Whether the key was not there before.
    pub is_new: bool,
}

/// A record that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError;

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("damaged journal record: unknown kind or wrong length")
    }
}

impl std::error::Error for DecodeError {}

const FLAG_NEW: u8 = 1;
const FLAG_DEADLINE: u8 = 2;
const FLAG_NEGATIVE: u8 = 4;
/// Bytes of the number of a tag.
const TAG: usize = 8;

/// Appends the record of an effect to `out`.
pub fn encode(effect: &Effect<'_>, out: &mut Vec<u8>) {
    let (kind, deadline) = match effect.change {
        Change::Set { deadline, .. } => (0, deadline),
        Change::Splice { .. } => (1, None),
        Change::Deadline(deadline) => (2, deadline),
        Change::Del => (3, None),
        Change::Flush => (4, None),
        Change::Swap(_) => (5, None),
        Change::Object { deadline, .. } => (6, deadline),
        Change::Op { .. } => (7, None),
        Change::Nothing => (8, None),
        Change::Mark { .. } => (9, None),
        Change::Care { .. } => (10, None),
        Change::Invalidate(_) => (11, None),
    };
    let new = if effect.is_new { FLAG_NEW } else { 0 };
    let timed = if deadline.is_some() { FLAG_DEADLINE } else { 0 };
    let negative = match effect.change {
        Change::Care { is_negative: true, .. } => FLAG_NEGATIVE,
        _ => 0,
    };
    out.extend_from_slice(&[kind, effect.event as u8, new | timed | negative, effect.db]);
    out.extend_from_slice(&(effect.key.len() as u32).to_le_bytes());
    out.extend_from_slice(effect.key);
    if let Some(at) = deadline {
        out.extend_from_slice(&at.to_le_bytes());
    }
    match effect.change {
        Change::Set { value, .. } => out.extend_from_slice(value),
        Change::Splice { len, offset, bytes } => {
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Change::Swap(other) => out.push(other),
        Change::Mark { client_flags, state } => {
            out.extend_from_slice(&client_flags.to_le_bytes());
            out.push(state);
        }
        Change::Care { stale_ms, cost_us, tags, .. } => {
            out.extend_from_slice(&stale_ms.to_le_bytes());
            out.extend_from_slice(&cost_us.to_le_bytes());
            out.extend_from_slice(tags);
        }
        Change::Invalidate(tag) => out.extend_from_slice(&tag.to_le_bytes()),
        Change::Object { kind, ops: bytes, .. } | Change::Op { kind, op: bytes } => {
            out.push(kind as u8);
            out.extend_from_slice(bytes);
        }
        Change::Deadline(_) | Change::Del | Change::Flush | Change::Nothing => {}
    }
}

/// Reads the record that [`encode`] wrote.
///
/// # Errors
/// When the bytes are not a whole record.
pub fn decode(record: &[u8]) -> Result<Effect<'_>, DecodeError> {
    let mut reader = Reader(record);
    let [kind, event, flags, db] = reader.array()?;
    let key_len = u32::from_le_bytes(reader.array()?) as usize;
    let key = reader.take(key_len)?;
    let deadline = match flags & FLAG_DEADLINE {
        0 => None,
        _ => Some(u64::from_le_bytes(reader.array()?)),
    };
    let change = match kind {
        0 => Change::Set { value: reader.rest(), deadline },
        1 => {
            let len = u64::from_le_bytes(reader.array()?);
            let offset = u64::from_le_bytes(reader.array()?);
            let bytes = reader.rest();
            let is_inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= len);
            if !is_inside {
                return Err(DecodeError);
            }
            Change::Splice { len, offset, bytes }
        }
        2 => Change::Deadline(deadline),
        3 => Change::Del,
        4 => Change::Flush,
        5 => Change::Swap(reader.array::<1>()?[0]),
        6 => Change::Object { kind: reader.kind()?, ops: reader.rest(), deadline },
        7 => Change::Op { kind: reader.kind()?, op: reader.rest() },
        8 => Change::Nothing,
        9 => {
            let client_flags = u32::from_le_bytes(reader.array()?);
            Change::Mark { client_flags, state: reader.array::<1>()?[0] }
        }
        10 => {
            let stale_ms = u32::from_le_bytes(reader.array()?);
            let cost_us = u32::from_le_bytes(reader.array()?);
            let (is_negative, tags) = (flags & FLAG_NEGATIVE != 0, reader.rest());
            if !tags.len().is_multiple_of(TAG) || tags.len() > TAG * TAGS_MAX {
                return Err(DecodeError);
            }
            Change::Care { stale_ms, cost_us, is_negative, tags }
        }
        11 => Change::Invalidate(u64::from_le_bytes(reader.array()?)),
        _ => return Err(DecodeError),
    };
    if !reader.0.is_empty() || db >= 16 || matches!(change, Change::Swap(16..)) {
        return Err(DecodeError);
    }
    let event = Event::from_number(event).ok_or(DecodeError)?;
    Ok(Effect { db, key, change, event, is_new: flags & FLAG_NEW != 0 })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError)?;
        self.0 = tail;
        Ok(*head)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn kind(&mut self) -> Result<Kind, DecodeError> {
        let [number] = self.array()?;
        Kind::try_from_number(number).filter(|kind| *kind != Kind::String).ok_or(DecodeError)
    }
}

/// Applies an effect to the databases of a partition. `db(i)` gives database `i`; [`Change::Flush`]
/// and [`Change::Swap`] concern whole databases and are left to the caller: then this returns false.
/// An operation that does not fit what the key holds changes nothing.
pub fn apply(effect: &Effect<'_>, hash: u64, db: &mut Db) -> bool {
    let key = Key::new(effect.key, hash);
    match effect.change {
        Change::Set { value, deadline } => {
            db.set(key, Payload::Slice(value), deadline.map_or(Ttl::Clear, Ttl::At), 0);
        }
        Change::Splice { len, offset, bytes } => {
            db.edit(key, len as usize, 0, |value| {
                value[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            });
        }
        Change::Object { kind, ops, deadline } => {
            if let Some(object) = Object::decode(kind, ops) {
                db.set_object(key, Box::new(object), deadline.map_or(Ttl::Clear, Ttl::At), 0);
            }
        }
        Change::Op { kind, op } => apply_op(key, kind, op, db),
        Change::Nothing => {}
        Change::Deadline(deadline) => {
            db.set_ttl(key, deadline.map_or(Ttl::Clear, Ttl::At));
        }
        Change::Mark { client_flags, state } => {
            db.set_mark(key, Mark { client_flags, state, cas: 0 });
        }
        Change::Care { stale_ms, cost_us, is_negative, tags } => {
            let mut care = Care { stale_ms, cost_us, is_negative, ..Care::default() };
            for tag in tags.as_chunks::<TAG>().0 {
                care.add_tag(u64::from_le_bytes(*tag));
            }
            db.set_care(key, &care);
        }
        Change::Invalidate(tag) => {
            db.invalidate_tag(tag);
        }
        Change::Del => drop(db.remove(key)),
        Change::Flush | Change::Swap(_) => return false,
    }
    true
}

fn apply_op(key: Key<'_>, kind: Kind, op: &[u8], db: &mut Db) {
    let edited = db.edit_object(key, Some(0), |object| {
        if object.kind() == kind {
            object.apply_encoded(op);
        }
    });
    if edited.is_none()
        && db.get(key).is_none()
        && let Some(mut object) = Object::new(kind)
        && object.apply_encoded(op)
    {
        db.set_object(key, Box::new(object), Ttl::Clear, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Effect<'static>> {
        let changes = [
            Change::Set { value: b"v", deadline: None },
            Change::Set { value: b"", deadline: Some(u64::MAX - 1) },
            Change::Splice { len: 9, offset: 4, bytes: b"hello" },
            Change::Deadline(Some(5)),
            Change::Deadline(None),
            Change::Del,
            Change::Object { kind: Kind::List, ops: b"ops", deadline: Some(9) },
            Change::Op { kind: Kind::List, op: b"" },
            Change::Nothing,
            Change::Mark { client_flags: u32::MAX, state: Mark::STALE },
            Change::Care { stale_ms: 1, cost_us: 2, is_negative: true, tags: b"number1.number2." },
            Change::Invalidate(u64::MAX - 7),
            Change::Flush,
            Change::Swap(3),
        ];
        let make = |(i, change)| Effect {
            db: i as u8,
            key: if i < 11 { b"key" } else { b"" },
            change,
            event: Event::ALL[i],
            is_new: i % 2 == 0,
        };
        changes.into_iter().enumerate().map(make).collect()
    }

    #[test]
    fn records_come_back_and_every_truncation_is_noticed_or_whole() {
        for effect in examples() {
            let mut record = Vec::new();
            encode(&effect, &mut record);
            assert_eq!(decode(&record).as_ref(), Ok(&effect));
            for cut in 0..8 {
                assert_eq!(decode(&record[..cut]), Err(DecodeError));
            }
        }
    }

    #[test]
    fn a_splice_outside_its_length_is_refused() {
        let change = Change::Splice { len: 3, offset: u64::MAX, bytes: b"x" };
        let effect = Effect { db: 0, key: b"k", change, event: Event::SetRange, is_new: false };
        let mut record = Vec::new();
        encode(&effect, &mut record);
        assert_eq!(decode(&record), Err(DecodeError));
    }
}
