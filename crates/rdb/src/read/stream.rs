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

/// How many bytes of pairs may be copied for each byte of a node, and beside. Names that entries share
/// are copied for each, which is work that memory does not show. Nodes as Redis makes them unless told
/// otherwise (4096 bytes, a hundred entries) need 300 kB at most, whatever their names.
const COPIES_MAX: usize = 32;
const COPIES_FREE: usize = 256 * 1024;

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

    /// Takes fields and values of an entry, at least one pair. Returns how many elements that were.
    ///
    /// What is deleted is stepped over. Otherwise names are copied for an entry that only refers to
    /// them, so `items`, where the pairs are put, may be longer than what was taken.
    fn pairs(&mut self, flags: i64, items: &mut Vec<u8>) -> Option<u64> {
        items.clear();
        let is_same = flags & SAME_FIELDS != 0;
        let pairs = if is_same { self.names_count } else { self.count()? };
        let elements = pairs.checked_mul(if is_same { 1 } else { 2 }).filter(|n| *n > 0)?;
        if flags & DELETED != 0 {
            for _ in 0..elements {
                self.node.next()??;
            }
        } else {
            let mut names = self.names;
            for _ in 0..pairs {
                let fields = if is_same { &mut names } else { &mut self.node };
                Self::item(fields, &mut self.digits, items)?;
                Self::item(&mut self.node, &mut self.digits, items)?;
            }
        }
        Some(elements + u64::from(!is_same))
    }
}

fn read_node(node: &[u8], first: StreamId, bytes_max: usize, stream: &mut Stream) -> Option<()> {
    let (node, bytes) = (Listpack::new(node)?, node.len());
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
    let mut copies_left = COPIES_FREE + COPIES_MAX * bytes;
    while let Some(flags) = entries.node.next() {
        let flags = flags?.int()?;
        let (ms, seq) = (entries.int()? as u64, entries.int()? as u64);
        let id = StreamId { ms: first.ms.wrapping_add(ms), seq: first.seq.wrapping_add(seq) };
        let taken = entries.pairs(flags, &mut items)?;
        // How many elements one goes back from here to the entry's first.
        if entries.count()? != taken + 3 {
            return None;
        }
        if flags & DELETED != 0 {
            found.1 += 1;
            continue;
        }
        found.0 += 1;
        copies_left = copies_left.checked_sub(items.len())?;
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
