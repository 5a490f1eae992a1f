//! Values from bytes. One function for each type; a type's encodings end in the same few operations.

mod stream;

use crate::element::Element;
use crate::kind;
use crate::listpack::Listpack;
use crate::reader::Reader;
use crate::ziplist::Ziplist;
use crate::zipmap::Zipmap;
use crate::{VERSION_VALKEY, intset};
use hypercache_stdx::number;
use hypercache_store::types::{
    Collection, Digits, Hash, HashDone, HashOp, Held, List, ListOp, Object, Record, Set, SetOp,
    SortedSet, SortedSetDone, SortedSetOp,
};

/// A value that was read.
#[derive(Debug)]
pub enum Value {
    /// A string.
    String(Vec<u8>),
    /// A collection, which is not empty.
    Object(Object),
}

/// Why a value was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is cut off, contradicts itself, or is empty.
    Damaged,
    /// It is of a type that a module brought.
    Module,
    /// No version that is known has a type of this number.
    UnknownType,
}

/// Last time that a field can expire, as in Redis.
const DEADLINE_MAX: u64 = (1 << 46) - 1;

/// Reads a value whose type was read before, in the encoding of a version.
///
/// # Errors
/// If it is not sound; see [`Refused`].
pub fn read_value(kind: u8, from: &mut Reader<'_>, version: u16) -> Result<Value, Refused> {
    let object = match kind {
        kind::STRING => {
            let string = from.string().ok_or(Refused::Damaged)?;
            return Ok(Value::String(string.into_owned()));
        }
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            list(kind, from).map(Held::into_object)
        }
        kind::SET | kind::SET_INTSET | kind::SET_LISTPACK => set(kind, from).map(Held::into_object),
        kind::ZSET | kind::ZSET_2 | kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK => {
            sorted_set(kind, from).map(Held::into_object)
        }
        kind::HASH | kind::HASH_ZIPMAP | kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
            hash(kind, from).map(Held::into_object)
        }
        kind::HASH_2 if version >= VERSION_VALKEY => hash_2(from).map(Held::into_object),
        kind::HASH_METADATA => hash_metadata(from).map(Held::into_object),
        kind::HASH_LISTPACK_EX => hash_listpack_ex(from).map(Held::into_object),
        kind::STREAM_LISTPACKS => stream::read(from, 1).map(Held::into_object),
        kind::STREAM_LISTPACKS_2 => stream::read(from, 2).map(Held::into_object),
        kind::STREAM_LISTPACKS_3 => stream::read(from, 3).map(Held::into_object),
        kind::MODULE | kind::MODULE_2 => return Err(Refused::Module),
        _ => return Err(Refused::UnknownType),
    };
    let object = object.filter(|object| !object.is_empty());
    object.map(Value::Object).ok_or(Refused::Damaged)
}

/// Calls `f` with elements two at a time; an odd one is damage.
fn each_pair<'a>(
    mut elements: impl Iterator<Item = Option<Element<'a>>>,
    mut f: impl FnMut(Element<'a>, Element<'a>) -> Option<()>,
) -> Option<()> {
    while let Some(first) = elements.next() {
        f(first?, elements.next()??)?;
    }
    Some(())
}

fn list(kind: u8, from: &mut Reader<'_>) -> Option<List> {
    let mut list = List::default();
    if kind == kind::LIST_ZIPLIST {
        push_all(&mut list, Ziplist::new(&from.string()?)?)?;
        return Some(list);
    }
    for _ in 0..from.count()? {
        match kind {
            kind::LIST => list.apply(ListOp::PushBack(&from.string()?)),
            kind::LIST_QUICKLIST => push_all(&mut list, Ziplist::new(&from.string()?)?)?,
            _ => push_node(&mut list, from)?,
        }
    }
    Some(list)
}

fn push_all<'a>(
    list: &mut List,
    elements: impl Iterator<Item = Option<Element<'a>>>,
) -> Option<()> {
    let mut digits = Digits::new();
    for element in elements {
        list.apply(ListOp::PushBack(element?.bytes(&mut digits)));
    }
    Some(())
}

/// A node of a quicklist: one item as it is, or a listpack of several.
fn push_node(list: &mut List, from: &mut Reader<'_>) -> Option<()> {
    const PLAIN: u64 = 1;
    const PACKED: u64 = 2;
    let container = from.len()?;
    let node = from.string()?;
    match container {
        PLAIN if !node.is_empty() => list.apply(ListOp::PushBack(&node)),
        PACKED => push_all(list, Listpack::new(&node)?)?,
        _ => return None,
    }
    Some(())
}

fn add_member(set: &mut Set, member: &[u8]) -> Option<()> {
    set.apply(SetOp::Add(member)).then_some(())
}

fn set(kind: u8, from: &mut Reader<'_>) -> Option<Set> {
    let (mut set, mut digits) = (Set::default(), Digits::new());
    match kind {
        kind::SET => {
            for _ in 0..from.count()? {
                add_member(&mut set, &from.string()?)?;
            }
        }
        kind::SET_INTSET => {
            for number in intset::numbers(&from.string()?)? {
                add_member(&mut set, digits.format(number).as_bytes())?;
            }
        }
        _ => {
            for element in Listpack::new(&from.string()?)? {
                add_member(&mut set, element?.bytes(&mut digits))?;
            }
        }
    }
    Some(set)
}

fn add_scored(set: &mut SortedSet, score: f64, member: &[u8]) -> Option<()> {
    // What is no number is no change.
    let done = set.apply(SortedSetOp::Put(score, member));
    (done == SortedSetDone::Added).then_some(())
}

fn sorted_set(kind: u8, from: &mut Reader<'_>) -> Option<SortedSet> {
    let mut set = SortedSet::wide();
    let mut digits = Digits::new();
    let mut add_pair = |set: &mut SortedSet, member: Element<'_>, score: Element<'_>| {
        add_scored(set, score_of(score)?, member.bytes(&mut digits))
    };
    match kind {
        kind::ZSET_ZIPLIST => {
            each_pair(Ziplist::new(&from.string()?)?, |m, s| add_pair(&mut set, m, s))?;
        }
        kind::ZSET_LISTPACK => {
            each_pair(Listpack::new(&from.string()?)?, |m, s| add_pair(&mut set, m, s))?;
        }
        _ => {
            for _ in 0..from.count()? {
                let member = from.string()?;
                let score = if kind == kind::ZSET { text_score(from)? } else { from.f64()? };
                add_scored(&mut set, score, &member)?;
            }
        }
    }
    Some(set.settled())
}

fn score_of(score: Element<'_>) -> Option<f64> {
    match score {
        Element::Int(number) => Some(number as f64),
        Element::Bytes(text) => number::parse_f64(text),
    }
}

/// A score as Redis before 4 wrote it: its text behind a length, or one of three special lengths.
fn text_score(from: &mut Reader<'_>) -> Option<f64> {
    match from.u8()? {
        253 => None,
        254 => Some(f64::INFINITY),
        255 => Some(f64::NEG_INFINITY),
        len => number::parse_f64(from.take(usize::from(len))?),
    }
}

fn add_field(hash: &mut Hash, key: &[u8], value: &[u8], deadline: Option<u64>) -> Option<()> {
    if deadline.is_some_and(|at| at > DEADLINE_MAX) {
        return None;
    }
    let done = hash.apply(HashOp::Put(Record { key, value, deadline }));
    (done == HashDone::Added).then_some(())
}

fn hash(kind: u8, from: &mut Reader<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    if kind == kind::HASH {
        for _ in 0..from.count()? {
            add_field(&mut hash, &from.string()?, &from.string()?, None)?;
        }
        return Some(hash);
    }
    let (mut a, mut b) = (Digits::new(), Digits::new());
    let add = |field: Element<'_>, value: Element<'_>| {
        add_field(&mut hash, field.bytes(&mut a), value.bytes(&mut b), None)
    };
    let packed = from.string()?;
    match kind {
        kind::HASH_ZIPMAP => each_pair(Zipmap::new(&packed)?, add)?,
        kind::HASH_ZIPLIST => each_pair(Ziplist::new(&packed)?, add)?,
        _ => each_pair(Listpack::new(&packed)?, add)?,
    }
    Some(hash)
}

/// Valkey's hash with deadlines: each behind its field and value.
fn hash_2(from: &mut Reader<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    for _ in 0..from.count()? {
        let (field, value) = (from.string()?, from.string()?);
        let deadline = match from.time_ms()? {
            -1 => None,
            at => Some(u64::try_from(at).ok()?),
        };
        add_field(&mut hash, &field, &value, deadline)?;
    }
    Some(hash)
}

/// Redis' hash with deadlines: counted from the first of them, so that they are short; zero is none.
fn hash_metadata(from: &mut Reader<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    let first = u64::try_from(from.time_ms()?).ok()?;
    for _ in 0..from.count()? {
        let deadline = match from.len()? {
            0 => None,
            after => Some(first.checked_add(after - 1)?),
        };
        add_field(&mut hash, &from.string()?, &from.string()?, deadline)?;
    }
    Some(hash)
}

/// Redis' small hash with deadlines: field, value and deadline in turn; zero is none.
fn hash_listpack_ex(from: &mut Reader<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    let (mut a, mut b) = (Digits::new(), Digits::new());
    // The first deadline, which its field has as well.
    from.time_ms()?;
    let packed = from.string()?;
    let mut elements = Listpack::new(&packed)?;
    while let Some(field) = elements.next() {
        let (field, value) = (field?, elements.next()??);
        let deadline = match u64::try_from(elements.next()??.int()?).ok()? {
            0 => None,
            at => Some(at),
        };
        add_field(&mut hash, field.bytes(&mut a), value.bytes(&mut b), deadline)?;
    }
    Some(hash)
}
