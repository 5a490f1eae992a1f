//! Streams as Redis 7.0 keeps them: nodes of entries that share the fields of their first, counters,
//! and groups.

use super::{put_bytes, put_len, put_string};
use crate::kind;
use crate::listpack::Builder;
use hypercache_store::types::Item;
use hypercache_store::types::stream::{Group, Stream, StreamId};

/// Entries of a node, and their bytes before there are no more.
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;

const OTHER_FIELDS: i64 = 0;
const SAME_FIELDS: i64 = 2;

/// An entry: its id, fields and values in turn.
type Entry<'a> = (StreamId, Vec<&'a [u8]>);

pub(super) fn put(out: &mut Vec<u8>, stream: &Stream) {
    let (mut nodes, mut count) = (Vec::new(), 0);
    let (mut node, mut bytes): (Vec<Entry<'_>>, usize) = (Vec::new(), 0);
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        if node.len() == NODE_ENTRIES || bytes > NODE_BYTES {
            put_node(&mut nodes, &node);
            count += 1;
            (node, bytes) = (Vec::new(), 0);
        }
        let items: Vec<&[u8]> = entry.fields.collect();
        bytes += items.iter().map(|item| item.len()).sum::<usize>();
        node.push((entry.id, items));
    }
    if !node.is_empty() {
        put_node(&mut nodes, &node);
        count += 1;
    }
    out.push(kind::STREAM_LISTPACKS_2);
    put_len(out, count);
    out.extend_from_slice(&nodes);
    put_len(out, stream.len());
    put_id(out, stream.last_id());
    put_id(out, stream.first_id());
    put_id(out, stream.max_deleted_id());
    put_len(out, stream.entries_added());
    put_len(out, stream.groups().len() as u64);
    for (name, group) in stream.groups() {
        put_string(out, name);
        put_group(out, group);
    }
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_len(out, id.ms);
    put_len(out, id.seq);
}

fn put_raw_id(out: &mut Vec<u8>, id: StreamId) {
    out.extend_from_slice(&id.ms.to_be_bytes());
    out.extend_from_slice(&id.seq.to_be_bytes());
}

fn fields<'a>(items: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    items.iter().copied().step_by(2)
}

/// Entries, of which there is one at least.
fn put_node(out: &mut Vec<u8>, entries: &[Entry<'_>]) {
    let (first, shared) = &entries[0];
    let mut node = Builder::new();
    let count = |items: &[&[u8]]| Item::Int(items.len() as i64 / 2);
    // Entries that are there, and those that are marked as deleted.
    node.push(Item::Int(entries.len() as i64));
    node.push(Item::Int(0));
    node.push(count(shared));
    fields(shared).for_each(|field| node.push(Item::of(field)));
    node.push(Item::Int(0));
    for (id, items) in entries {
        let is_same = fields(items).eq(fields(shared));
        node.push(Item::Int(if is_same { SAME_FIELDS } else { OTHER_FIELDS }));
        node.push(Item::Int(id.ms.wrapping_sub(first.ms) as i64));
        node.push(Item::Int(id.seq.wrapping_sub(first.seq) as i64));
        let elements = if is_same {
            items.iter().skip(1).step_by(2).for_each(|value| node.push(Item::of(value)));
            items.len() / 2
        } else {
            node.push(count(items));
            items.iter().for_each(|text| node.push(Item::of(text)));
            items.len() + 1
        };
        node.push(Item::Int(elements as i64 + 3));
    }
    let mut key = Vec::new();
    put_raw_id(&mut key, *first);
    put_bytes(out, &key);
    put_bytes(out, &node.finish());
}

fn put_group(out: &mut Vec<u8>, group: &Group) {
    put_id(out, group.last_id);
    // Redis has a signed number here, -1 when it is not known.
    put_len(out, group.entries_read.unwrap_or(u64::MAX));
    put_len(out, group.pending().len() as u64);
    for (id, pending) in group.pending() {
        put_raw_id(out, *id);
        out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
        put_len(out, pending.deliveries);
    }
    put_len(out, group.consumers().len() as u64);
    for consumer in group.consumers() {
        put_string(out, consumer.name());
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        put_len(out, consumer.pending().len() as u64);
        consumer.pending().iter().for_each(|id| put_raw_id(out, *id));
    }
}
