//! The changes of a stream, and their form in the log.

use super::{Group, Stream, StreamId};
use crate::types::Operation;
use crate::types::wire::{self, Reader};
use smallvec::SmallVec;

/// A change of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOp<'a> {
    /// Adds an entry whose id is above all others; `items` are its fields and values in turn, each
    /// behind its length ([`StreamOp::items`]).
    Add(StreamId, &'a [u8]),
    /// Deletes an entry.
    Delete(StreamId),
    /// Removes the first entries, that many.
    RemoveFirst(u64),
    /// Sets the last id, the count of entries ever added, and the highest deleted id.
    SetId(StreamId, u64, StreamId),
    /// Makes a group that goes on after an id, with the number of entries read, if known.
    CreateGroup(&'a [u8], StreamId, Option<u64>),
    /// Removes a group.
    DestroyGroup(&'a [u8]),
    /// Has a group go on after an id, with the number of entries read, if known.
    SetGroup(&'a [u8], StreamId, Option<u64>),
    /// Makes a consumer (group, name), seen at a time.
    CreateConsumer(&'a [u8], &'a [u8], u64),
    /// Removes a consumer (group, name) and what it has.
    DeleteConsumer(&'a [u8], &'a [u8]),
    /// Notes when a consumer (group, name) was seen.
    SeeConsumer(&'a [u8], &'a [u8], u64),
    /// Gives an entry to a consumer (group, name): delivered at a time, for the n-th time.
    Assign(&'a [u8], &'a [u8], StreamId, u64, u64),
    /// Acknowledges an entry in a group.
    Acknowledge(&'a [u8], StreamId),
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    wire::put_u64(out, id.ms);
    wire::put_u64(out, id.seq);
}

fn id(reader: &mut Reader<'_>) -> Option<StreamId> {
    Some(StreamId { ms: reader.u64()?, seq: reader.u64()? })
}

fn put_count(out: &mut Vec<u8>, count: Option<u64>) {
    out.push(u8::from(count.is_some()));
    wire::put_u64(out, count.unwrap_or(0));
}

fn count(reader: &mut Reader<'_>) -> Option<Option<u64>> {
    let is_known = reader.u8()? == 1;
    let count = reader.u64()?;
    Some(is_known.then_some(count))
}

impl StreamOp<'_> {
    /// Fields and values in the form that [`StreamOp::Add`] takes.
    #[must_use]
    pub fn items<'b>(items: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
        // Enough for most: then it is one allocation.
        let mut out = Vec::with_capacity(128);
        items.for_each(|item| wire::put_bytes(&mut out, item));
        out
    }
}

impl<'a> Operation<'a> for StreamOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let code = match self {
            StreamOp::Add(..) => 0,
            StreamOp::Delete(_) => 1,
            StreamOp::RemoveFirst(_) => 2,
            StreamOp::SetId(..) => 3,
            StreamOp::CreateGroup(..) => 4,
            StreamOp::DestroyGroup(_) => 5,
            StreamOp::SetGroup(..) => 6,
            StreamOp::CreateConsumer(..) => 7,
            StreamOp::DeleteConsumer(..) => 8,
            StreamOp::SeeConsumer(..) => 9,
            StreamOp::Assign(..) => 10,
            StreamOp::Acknowledge(..) => 11,
        };
        out.push(code);
        match *self {
            StreamOp::Add(id, items) => {
                put_id(out, id);
                out.extend_from_slice(items);
            }
            StreamOp::Delete(id) => put_id(out, id),
            StreamOp::RemoveFirst(count) => wire::put_u64(out, count),
            StreamOp::SetId(last, added, deleted) => {
                put_id(out, last);
                wire::put_u64(out, added);
                put_id(out, deleted);
            }
            StreamOp::CreateGroup(group, id, read) | StreamOp::SetGroup(group, id, read) => {
                wire::put_bytes(out, group);
                put_id(out, id);
                put_count(out, read);
            }
            StreamOp::DestroyGroup(group) => wire::put_bytes(out, group),
            StreamOp::CreateConsumer(group, name, ms) | StreamOp::SeeConsumer(group, name, ms) => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, name);
                wire::put_u64(out, ms);
            }
            StreamOp::DeleteConsumer(group, name) => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, name);
            }
            StreamOp::Assign(group, name, id, ms, deliveries) => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, name);
                put_id(out, id);
                wire::put_u64(out, ms);
                wire::put_u64(out, deliveries);
            }
            StreamOp::Acknowledge(group, id) => {
                wire::put_bytes(out, group);
                put_id(out, id);
            }
        }
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let op = match r.u8()? {
            0 => StreamOp::Add(id(r)?, r.rest()),
            1 => StreamOp::Delete(id(r)?),
            2 => StreamOp::RemoveFirst(r.u64()?),
            3 => StreamOp::SetId(id(r)?, r.u64()?, id(r)?),
            4 => StreamOp::CreateGroup(r.bytes()?, id(r)?, count(r)?),
            5 => StreamOp::DestroyGroup(r.bytes()?),
            6 => StreamOp::SetGroup(r.bytes()?, id(r)?, count(r)?),
            7 => StreamOp::CreateConsumer(r.bytes()?, r.bytes()?, r.u64()?),
            8 => StreamOp::DeleteConsumer(r.bytes()?, r.bytes()?),
            9 => StreamOp::SeeConsumer(r.bytes()?, r.bytes()?, r.u64()?),
            10 => StreamOp::Assign(r.bytes()?, r.bytes()?, id(r)?, r.u64()?, r.u64()?),
            11 => StreamOp::Acknowledge(r.bytes()?, id(r)?),
            _ => return None,
        };
        reader.end(op)
    }
}

/// Carries a change out. Returns whether it was one.
pub(super) fn apply(stream: &mut Stream, op: StreamOp<'_>) -> bool {
    match op {
        StreamOp::Add(id, items) => {
            let mut reader = Reader::new(items);
            let items: SmallVec<[&[u8]; 8]> = std::iter::from_fn(|| reader.bytes()).collect();
            if !reader.is_empty() || !items.len().is_multiple_of(2) || id <= stream.last_id() {
                return false;
            }
            stream.add(id, &items);
            true
        }
        StreamOp::Delete(id) => stream.delete(id),
        StreamOp::RemoveFirst(count) => {
            stream.remove_first(count);
            count > 0
        }
        StreamOp::SetId(last, added, deleted) => {
            let inner = &mut *stream.0;
            (inner.last_id, inner.entries_added, inner.max_deleted_id) = (last, added, deleted);
            true
        }
        StreamOp::CreateGroup(group, id, read) => stream.create_group(group, Group::new(id, read)),
        StreamOp::DestroyGroup(group) => stream.destroy_group(group),
        StreamOp::SetGroup(group, id, read) => {
            let set = |group: &mut Group| (group.last_id, group.entries_read) = (id, read);
            stream.edit_group(group, set).is_some()
        }
        StreamOp::CreateConsumer(group, name, ms) => {
            stream.edit_group(group, |group| group.create_consumer(name, ms)).unwrap_or(false)
        }
        StreamOp::DeleteConsumer(group, name) => {
            stream.edit_group(group, |group| group.delete_consumer(name)).unwrap_or(false)
        }
        StreamOp::SeeConsumer(group, name, ms) => {
            stream.edit_group(group, |group| group.see_consumer(name, ms)).unwrap_or(false)
        }
        StreamOp::Assign(group, name, id, ms, deliveries) => {
            let assign = |group: &mut Group| group.assign(id, name, ms, deliveries);
            stream.edit_group(group, assign).unwrap_or(false)
        }
        StreamOp::Acknowledge(group, id) => {
            stream.edit_group(group, |group| group.acknowledge(id)).unwrap_or(false)
        }
    }
}

/// Calls `f` with the operations that build the stream.
pub(super) fn each(stream: &Stream, f: &mut dyn FnMut(StreamOp<'_>)) {
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        f(StreamOp::Add(entry.id, &StreamOp::items(entry.fields)));
    }
    f(StreamOp::SetId(stream.last_id(), stream.entries_added(), stream.max_deleted_id()));
    for (name, group) in stream.groups() {
        f(StreamOp::CreateGroup(name, group.last_id, group.entries_read));
        for consumer in group.consumers() {
            f(StreamOp::CreateConsumer(name, consumer.name(), consumer.seen_ms));
        }
        for (id, pending) in group.pending() {
            let (ms, deliveries) = (pending.delivered_ms, pending.deliveries);
            f(StreamOp::Assign(name, &pending.consumer, *id, ms, deliveries));
        }
    }
}
