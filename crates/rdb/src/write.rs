//! Values to bytes, in encodings that Redis 7.0 reads.

mod stream;

use crate::listpack::Builder;
use crate::{VERSION, VERSION_DEADLINES, kind};
use hypercache_stdx::number;
use hypercache_store::types::{Hash, List, Object, Set, SortedSet};

/// Bytes of the node of a list, unless a single item takes more.
const NODE_BYTES: usize = 8 * 1024;
/// No longer text is a number of 32 bits.
const NUMBER_MAX: usize = 11;

/// Appends a length or another number that is written like one.
fn put_len(out: &mut Vec<u8>, len: u64) {
    match len {
        0..64 => out.push(len as u8),
        64..16384 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        _ => match u32::try_from(len) {
            Ok(len) => {
                out.push(0x80);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(0x81);
                out.extend_from_slice(&len.to_be_bytes());
            }
        },
    }
}

/// Appends a string; a small integer as a number.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let number = if bytes.len() <= NUMBER_MAX { number::parse_i64(bytes) } else { None };
    match number.and_then(|n| i32::try_from(n).ok()) {
        Some(n) => put_int(out, n),
        None => put_bytes(out, bytes),
    }
}

fn put_int(out: &mut Vec<u8>, number: i32) {
    let (head, len) = match number {
        -0x80..=0x7f => (0xc0, 1),
        -0x8000..=0x7fff => (0xc1, 2),
        _ => (0xc2, 4),
    };
    out.push(head);
    out.extend_from_slice(&number.to_le_bytes()[..len]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends the type and value of a string. Returns the version that can read it.
pub fn put_string_value(out: &mut Vec<u8>, value: &[u8]) -> u16 {
    out.push(kind::STRING);
    put_string(out, value);
    VERSION
}

/// Appends the type and value of a collection. Returns the version that can read it.
pub fn put_object(out: &mut Vec<u8>, object: &Object) -> u16 {
    match object {
        Object::List(list) => put_list(out, list),
        Object::Set(set) => put_set(out, set),
        Object::SortedSet(set) => put_sorted_set(out, set),
        Object::Hash(hash) => return put_hash(out, hash),
        Object::Stream(stream) => stream::put(out, stream),
    }
    VERSION
}

fn put_list(out: &mut Vec<u8>, list: &List) {
    const PACKED: u64 = 2;
    let (mut nodes, mut count) = (Vec::new(), 0);
    let mut node = Builder::new();
    let mut end_node = |node: &mut Builder| {
        put_len(&mut nodes, PACKED);
        put_bytes(&mut nodes, &std::mem::replace(node, Builder::new()).finish());
        count += 1;
    };
    for item in list.iter() {
        if !node.is_empty() && node.len() + item.packed_len() > NODE_BYTES {
            end_node(&mut node);
        }
        node.push(item);
    }
    if !node.is_empty() {
        end_node(&mut node);
    }
    out.push(kind::LIST_QUICKLIST_2);
    put_len(out, count);
    out.extend_from_slice(&nodes);
}

fn put_set(out: &mut Vec<u8>, set: &Set) {
    out.push(kind::SET);
    put_len(out, set.len() as u64);
    set.each(|member| put_string(out, member));
}

fn put_sorted_set(out: &mut Vec<u8>, set: &SortedSet) {
    out.push(kind::ZSET_2);
    put_len(out, set.len() as u64);
    for (member, score) in set.iter() {
        put_string(out, member);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

/// Fields that are past their deadline are written as well: whoever reads them sees what they are.
fn put_hash(out: &mut Vec<u8>, hash: &Hash) -> u16 {
    let records = || hash.fields().iter();
    let first = records().filter_map(|record| record.deadline).min();
    out.push(if first.is_some() { kind::HASH_METADATA } else { kind::HASH });
    first.iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes()));
    put_len(out, hash.len() as u64);
    for record in records() {
        if let Some(first) = first {
            put_len(out, record.deadline.map_or(0, |at| at - first + 1));
        }
        put_string(out, record.key);
        put_string(out, record.value);
    }
    if first.is_some() { VERSION_DEADLINES } else { VERSION }
}
