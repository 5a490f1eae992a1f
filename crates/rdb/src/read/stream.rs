//! Streams: nodes of packed entries, counters, and consumer groups with what they have not
//! acknowledged. Version 2 has counters and ids that version 1 leaves to be found out, version 3 one
//! more time of each consumer.

use crate::listpack::Listpack;
use crate::reader::Reader;
use hypercache_store::types::stream::{Stream, StreamId, StreamOp};
use hypercache_store::types::{Collection, Digits, wire};
use std::collections::BTreeMap;

const DELETED: i64 = 1;
/// The entry has the fields that its node begins with, so that it only has values.
const SAME_FIELDS: i64 = 2;

/// How much more memory than its nodes a stream may take. Only long field names that many entries of a
/// node share can take more, because here no more than a hundred entries share them.
const GROWTH_MAX: usize = 8;
/// And this much beside, for blocks that are not full.
const GROWTH_FREE: usize = 64 * 1024;

pub(super) fn read(from: &mut Reader<'_>, version: u8) -> Option<Stream> {
    let mut stream = Stream::default();
    let mut bytes_max = GROWTH_FREE;
    for _ in 0..from.count()? {
        let first = from.string()?;
        let mut first = Reader::new(&first);
        let id = raw_id(&mut first).filter(|_| first.is_empty())?;
        let node = from.string()?;
        bytes_max += GROWTH_MAX * node.len();
        read_node(&node, id, bytes_max, &mut stream)?;
    }
    if from.len()? != stream.len() {
        return None;
    }
    read_counters(from, version, &mut stream)?;
    for _ in 0..from.count()? {
        read_group(from, version, &mut stream)?;
    }
    Some(stream)
}

/// An id of fixed length, whose order is that of its bytes.
fn raw_id(from: &mut Reader<'_>) -> Option<StreamId> {
    let (ms, seq) = (from.array()?, from.array()?);
    Some(StreamId { ms: u64::from_be_bytes(ms), seq: u64::from_be_bytes(seq) })
}

/// An id of two lengths.
fn id(from: &mut Reader<'_>) -> Option<StreamId> {
    Some(StreamId { ms: from.len()?, seq: from.len()? })
}

/// A time in milliseconds since the epoch.
fn time_ms(from: &mut Reader<'_>) -> Option<u64> {
    // Of what was never seen it is -1.
    Some(from.time_ms()?.max(0) as u64)
}

fn read_counters(from: &mut Reader<'_>, version: u8, stream: &mut Stream) -> Option<()> {
    let last = id(from)?;
    let (mut deleted, mut added) = (StreamId::MIN, stream.len());
    if version >= 2 {
        // The id of the first entry, which is there to see.
        id(from)?;
        (deleted, added) = (id(from)?, from.len()?);
    }
    let is_consistent = last >= stream.last_id() && last >= deleted && added >= stream.len();
    if !is_consistent || i64::try_from(added).is_err() {
        return None;
    }
    stream.apply(StreamOp::SetId(last, added, deleted));
    Some(())
}

/// The entries of a listpack.
struct Entries<'a> {
    node: Listpack<'a>,
    /// Behind the names of the fields that entries share.
    names: Listpack<'a>,
    names_count: u64,
    digits: Digits,
}

impl<'a> Entries<'a> {
    fn int(&mut self) -> Option<i64> {
        self.node.next()??.int()
    }

    fn count(&mut self) -> Option<u64> {
        self.int()?.try_into().ok()
    }

    /// Takes the next string; it is appended to `items`.
    fn item(elements: &mut Listpack<'a>, digits: &mut Digits, items: &mut Vec<u8>) -> Option<()> {
        wire::put_bytes(items, elements.next()??.bytes(digits));
        Some(())
    }

    /// Takes fields and values of an entry. Returns how many elements that were.
    fn items(&mut self, is_same: bool, items: &mut Vec<u8>) -> Option<u64> {
        items.clear();
        if is_same {
            let mut names = self.names;
            for _ in 0..self.names_count {
                Self::item(&mut names, &mut self.digits, items)?;
                Self::item(&mut self.node, &mut self.digits, items)?;
            }
            return Some(self.names_count);
        }
        let count = self.count()?;
        for _ in 0..count.checked_mul(2)? {
            Self::item(&mut self.node, &mut self.digits, items)?;
        }
        Some(2 * count + 1)
    }
}

fn read_node(node: &[u8], first: StreamId, bytes_max: usize, stream: &mut Stream) -> Option<()> {
    let node = Listpack::new(node)?;
    let mut entries = Entries { node, names: node, names_count: 0, digits: Digits::new() };
    let (live, deleted) = (entries.count()?, entries.count()?);
    entries.names_count = entries.count()?;
    entries.names = entries.node;
    for _ in 0..entries.names_count {
        entries.node.next()??;
    }
    if entries.int()? != 0 {
        return None;
    }
    let (mut found, mut items) = ((0, 0), Vec::new());
    while let Some(flags) = entries.node.next() {
        let flags = flags?.int()?;
        let (ms, seq) = (entries.int()? as u64, entries.int()? as u64);
        let id = StreamId { ms: first.ms.wrapping_add(ms), seq: first.seq.wrapping_add(seq) };
        let taken = entries.items(flags & SAME_FIELDS != 0, &mut items)?;
        // How many elements one goes back from here to the entry's first.
        if entries.count()? != taken + 3 || items.is_empty() {
            return None;
        }
        if flags & DELETED != 0 {
            found.1 += 1;
            continue;
        }
        found.0 += 1;
        let is_added = stream.apply(StreamOp::Add(id, &items));
        if !is_added || stream.bytes() > bytes_max {
            return None;
        }
    }
    (found == (live, deleted)).then_some(())
}

fn read_group(from: &mut Reader<'_>, version: u8, stream: &mut Stream) -> Option<()> {
    let name = from.string()?;
    let last = id(from)?;
    let entries_read = match version {
        1 => stream.distance_from_first(last),
        // -1 when it is not known.
        _ => Some(from.len()?).filter(|n| i64::try_from(*n).is_ok()),
    };
    if !stream.apply(StreamOp::CreateGroup(&name, last, entries_read)) {
        return None;
    }
    let mut pending = BTreeMap::new();
    for _ in 0..from.count()? {
        let id = raw_id(from)?;
        let delivered_ms = time_ms(from)?;
        let deliveries = from.len().filter(|n| i64::try_from(*n).is_ok())?;
        if pending.insert(id, (delivered_ms, deliveries)).is_some() {
            return None;
        }
    }
    for _ in 0..from.count()? {
        read_consumer(from, version, (&name, &mut pending), stream)?;
    }
    // What nobody has cannot be acknowledged.
    pending.is_empty().then_some(())
}

/// What a group was delivered: when, and how often.
type Pending = BTreeMap<StreamId, (u64, u64)>;

fn read_consumer(
    from: &mut Reader<'_>,
    version: u8,
    (group, pending): (&[u8], &mut Pending),
    stream: &mut Stream,
) -> Option<()> {
    let name = from.string()?;
    let seen_ms = time_ms(from)?;
    if version >= 3 {
        // When it last got something, which is not kept here.
        from.time_ms()?;
    }
    if !stream.apply(StreamOp::CreateConsumer(group, &name, seen_ms)) {
        return None;
    }
    for _ in 0..from.count()? {
        let id = raw_id(from)?;
        let (ms, deliveries) = pending.remove(&id)?;
        if !stream.apply(StreamOp::Assign(group, &name, id, ms, deliveries)) {
            return None;
        }
    }
    Some(())
}
