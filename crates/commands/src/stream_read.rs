//! XREAD and XREADGROUP: new entries of several streams.

use crate::blocking::parse_timeout_ms;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::stream::{BASE, int, last_entry_id, parse_id, reply_entries, reply_entry, reply_id};
use crate::stream_group::{ensure_consumer, no_group};
use crate::table::{Command, Flags, KeyFlags, Keys, streams};
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_protocol::reply::{Reply, Version};
use hypercache_store::types::stream::Group;
use hypercache_store::types::{Stream, StreamId, StreamOp};

const MOVABLE: Flags = Flags::BLOCKING.or(Flags::MOVABLE_KEYS);
const READ: KeyFlags = KeyFlags::RO.or(KeyFlags::ACCESS);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "XREAD",
        arity: -4,
        keys: Keys::Streams { from: 1, flags: READ },
        flags: Flags::READONLY.or(MOVABLE),
        run: xread,
        summary: "Entries of several streams after given ids; `$` is the last id there is.",
        complexity: "O(N) in the number of entries answered",
        syntax: "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XREAD COUNT 2 STREAMS x y 0 0\n\
                   1) 1) \"x\"\n   2) 1) 1) \"1-1\"\n         2) 1) \"a\"\n            2) \"1\"",
        ..BASE
    },
    Command {
        name: "XREADGROUP",
        arity: -7,
        keys: Keys::Streams { from: 4, flags: READ },
        flags: Flags::WRITE.or(MOVABLE),
        run: xread,
        summary: "Entries for a consumer of a group: new ones with `>`, else those it did not acknowledge.",
        complexity: "O(N) in the number of entries answered",
        syntax: "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n\
                   > XREADGROUP GROUP g me STREAMS x >\n\
                   1) 1) \"x\"\n   2) 1) 1) \"1-1\"\n         2) 1) \"a\"\n            2) \"1\"\n\
                   > XACK x g 1-1\n(integer) 1",
        ..BASE
    },
];

/// From where a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Entries after this id.
    Id(StreamId),
    /// Of a group: what was delivered to nobody.
    New,
}

/// What is read.
#[derive(Debug)]
struct Read<'a> {
    /// Group and consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    count: usize,
    /// How long to wait, in ms (0: for ever), if at all.
    block_ms: Option<u64>,
    needs_no_ack: bool,
    /// Number of the first key.
    first: usize,
    streams: usize,
}

fn parse<'a>(args: Args<'a>, is_group: bool) -> Result<Read<'a>, ReplyError> {
    let (mut count, mut block_ms, mut group, mut needs_no_ack) = (0, None, None, false);
    let mut i = 1;
    let end = streams(args).map_or(args.len(), |first| first - 1);
    while i < end {
        let more = args.len() - i - 1;
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"BLOCK" if more > 0 => block_ms = Some(parse_timeout_ms(args.get(i + 1))?),
            b"COUNT" if more > 0 => count = int(args.get(i + 1))?.max(0) as usize,
            b"GROUP" if more >= 2 && is_group => group = Some((args.get(i + 1), args.get(i + 2))),
            b"GROUP" if more >= 2 => {
                return Err(ReplyError::Text(
                    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                ));
            }
            b"NOACK" if is_group => needs_no_ack = true,
            b"NOACK" => {
                return Err(ReplyError::Text(
                    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                ));
            }
            _ => return Err(ReplyError::Syntax),
        }
        i += match args.get(i).to_ascii_uppercase().as_slice() {
            b"NOACK" => 1,
            b"GROUP" => 3,
            _ => 2,
        };
    }
    let first = streams(args).ok_or(ReplyError::Syntax)?;
    let rest = args.len() - first;
    if !rest.is_multiple_of(2) {
        return Err(ReplyError::Text(
            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        ));
    }
    if is_group && group.is_none() {
        return Err(ReplyError::Text("ERR Missing GROUP option for XREADGROUP"));
    }
    let count = if count == 0 { usize::MAX } else { count };
    Ok(Read { group, count, block_ms, needs_no_ack, first, streams: rest / 2 })
}

/// Whether the stream number `i` is looked at now. One that is named twice is waited for once, after
/// the first of the ids.
fn is_looked_at(cx: &Cx<'_>, args: Args<'_>, read: &Read<'_>, i: usize) -> bool {
    let key = args.get(read.first + i);
    let is_again = || (0..i).any(|before| args.get(read.first + before) == key);
    cx.may_serve(key) && !(cx.is_serving() && is_again())
}

/// From where each stream is read. Checks that keys are streams and have the group.
fn parse_ids(cx: &mut Cx<'_>, args: Args<'_>, read: &Read<'_>) -> Result<Vec<After>, ReplyError> {
    let mut ids = Vec::with_capacity(read.streams);
    for i in 0..read.streams {
        let (key, id) = (args.get(read.first + i), args.get(read.first + read.streams + i));
        if !is_looked_at(cx, args, read, i) {
            ids.push(After::Id(StreamId::MAX));
            continue;
        }
        let is_serving = cx.is_serving();
        let stream = match cx.keys.read::<Stream>(key) {
            Ok(None) | Err(_) if is_serving && read.group.is_some() => {
                return Err(ReplyError::Text("UNBLOCKED the stream key no longer exists"));
            }
            Ok(None) | Err(_) if is_serving => return Err(ReplyError::WouldBlock),
            other => other?,
        };
        if let Some((group, _)) = read.group
            && is_serving
            && stream.and_then(|stream| stream.group(group)).is_none()
        {
            return Err(ReplyError::Text(
                "NOGROUP the consumer group this client was blocked on no longer exists",
            ));
        }
        if let Some((group, _)) = read.group
            && stream.and_then(|stream| stream.group(group)).is_none()
        {
            return Err(no_group(
                cx,
                &[
                    b"NOGROUP No such key '",
                    key,
                    b"' or consumer group '",
                    group,
                    b"' in XREADGROUP with GROUP option",
                ],
            ));
        }
        ids.push(match id {
            b"$" if read.group.is_some() => {
                return Err(ReplyError::Text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
                ));
            }
            b"$" => After::Id(stream.map_or(StreamId::MIN, Stream::last_id)),
            b">" if read.group.is_none() => {
                return Err(ReplyError::Text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            b">" => After::New,
            id => After::Id(parse_id(id, 0)?),
        });
    }
    Ok(ids)
}

/// Whether a stream has something to answer.
fn has_some(stream: &Stream, group: Option<&Group>, after: After) -> bool {
    match (group, after) {
        (Some(_), After::Id(_)) => true,
        (Some(group), After::New) => last_entry_id(stream).is_some_and(|id| id > group.last_id),
        (None, After::Id(after)) => last_entry_id(stream).is_some_and(|id| id > after),
        (None, After::New) => false,
    }
}

fn xread(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let is_group = cx.entry.row.name == "XREADGROUP";
    let read = parse(args, is_group)?;
    let ids = parse_ids(cx, args, &read)?;
    let mut ready = Vec::new();
    for (i, after) in ids.iter().enumerate() {
        let key = args.get(read.first + i);
        if !is_looked_at(cx, args, &read, i) {
            continue;
        }
        let Some(stream) = cx.keys.read_uncounted::<Stream>(key)? else { continue };
        let group = read.group.and_then(|(group, _)| stream.group(group));
        if has_some(stream, group, *after) {
            ready.push((key, *after));
        }
    }
    if ready.is_empty() {
        return wait_or_null(cx, args, &read, &ids);
    }
    // Of a stream that is named twice, a group may have nothing left the second time.
    let may_be_fewer = is_group && ready.len() > 1;
    if !may_be_fewer {
        reply_count(&mut cx.reply, ready.len());
        return reply_streams(cx, ready, &read).map(drop);
    }
    let before = std::mem::take(cx.reply.output());
    let outcome = reply_streams(cx, ready, &read);
    let streams = std::mem::replace(cx.reply.output(), before);
    reply_count(&mut cx.reply, outcome?);
    cx.reply.output().append(&streams);
    Ok(())
}

fn reply_count(reply: &mut Reply<'_>, streams: usize) {
    if reply.version() == Version::V3 {
        reply.map(streams);
    } else {
        reply.array(streams);
    }
}

/// Answers what is read of each stream. Returns of how many.
fn reply_streams(
    cx: &mut Cx<'_>,
    ready: Vec<(&[u8], After)>,
    read: &Read<'_>,
) -> Result<usize, ReplyError> {
    let is_map = cx.reply.version() == Version::V3;
    let mut count = 0;
    for (key, after) in ready {
        let Some(stream) = cx.keys.read_uncounted::<Stream>(key)? else { continue };
        let group = read.group.and_then(|(group, _)| stream.group(group));
        if !has_some(stream, group, after) {
            continue;
        }
        count += 1;
        if !is_map {
            cx.reply.array(2);
        }
        cx.reply.bulk(key);
        match (read.group, after) {
            (None, After::Id(id)) => {
                let Some(stream) = cx.keys.read_uncounted::<Stream>(key)? else { continue };
                let start = id.next().unwrap_or(StreamId::MAX);
                reply_entries(&mut cx.reply, stream.range(start, StreamId::MAX), read.count);
            }
            (Some((group, consumer)), after) => read_group(cx, key, group, consumer, after, read)?,
            (None, After::New) => {}
        }
    }
    Ok(count)
}

/// Waits for entries, if the client wants to.
fn wait_or_null(cx: &mut Cx<'_>, args: Args<'_>, read: &Read<'_>, ids: &[After]) -> Outcome {
    let Some(timeout_ms) = read.block_ms else {
        cx.reply.null_array();
        return Ok(());
    };
    // What `$` stood for is what it stands for later on.
    let first_id = read.first + read.streams;
    let mut again = OwnedArgs::default();
    for i in 0..args.len() {
        match i.checked_sub(first_id).map(|i| ids[i]) {
            Some(After::Id(id)) => again.push(id.to_string().as_bytes()),
            Some(After::New) | None => again.push(args.get(i)),
        }
    }
    let keys = (read.first..first_id).map(|i| args.get(i));
    cx.wait(keys, timeout_ms, again, |reply| reply.null_array())
}

/// Answers what a consumer reads of one stream.
fn read_group(
    cx: &mut Cx<'_>,
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
    after: After,
    read: &Read<'_>,
) -> Outcome {
    let (now_ms, reply) = (cx.keys.now_ms, &mut cx.reply);
    cx.keys.edit::<Stream, _>(key, |stream| {
        ensure_consumer(stream, group, consumer, now_ms);
        match after {
            After::New => deliver(stream, reply, group, consumer, now_ms, read),
            After::Id(id) => repeat(stream, reply, (group, consumer), id, now_ms, read.count),
        }
    })
}

type Editor<'e> = crate::keyspace::Editor<'e, Stream>;

/// Answers new entries and notes that the consumer has them.
fn deliver(
    stream: &mut Editor<'_>,
    reply: &mut Reply<'_>,
    group: &[u8],
    consumer: &[u8],
    now_ms: u64,
    read: &Read<'_>,
) {
    let Some((last, mut entries_read)) = stream.group(group).map(|g| (g.last_id, g.entries_read))
    else {
        return reply.array(0);
    };
    let start = last.next().unwrap_or(StreamId::MAX);
    let mut ids = Vec::new();
    for entry in stream.range(start, StreamId::MAX).take(read.count) {
        entries_read = read_after(stream, entries_read, entry.id);
        ids.push(entry.id);
    }
    reply_entries(reply, stream.range(start, StreamId::MAX), ids.len());
    if let Some(last) = ids.last() {
        stream.apply(StreamOp::SetGroup(group, *last, entries_read));
    }
    if !read.needs_no_ack {
        for id in ids {
            stream.apply(StreamOp::Assign(group, consumer, id, now_ms, 1));
        }
    }
}

/// The group's count of entries read after the entry with `id` was.
fn read_after(stream: &Stream, entries_read: Option<u64>, id: StreamId) -> Option<u64> {
    match entries_read {
        Some(n) if !has_tombstones_after(stream, id) => Some(n + 1),
        _ if stream.entries_added() > 0 => stream.distance_from_first(id),
        other => other,
    }
}

/// Whether entries after `id` may have been deleted.
pub(crate) fn has_tombstones_after(stream: &Stream, id: StreamId) -> bool {
    let deleted = stream.max_deleted_id();
    !stream.is_empty() && id <= deleted && stream.first_id() <= deleted
}

/// Answers what a consumer was given before and did not acknowledge; that counts as a delivery.
fn repeat(
    stream: &mut Editor<'_>,
    reply: &mut Reply<'_>,
    (group, consumer): (&[u8], &[u8]),
    after: StreamId,
    now_ms: u64,
    count: usize,
) {
    let member = stream.group(group).and_then(|g| g.consumer(consumer));
    let start = after.next().unwrap_or(StreamId::MAX);
    let ids: Vec<StreamId> = member
        .map(|m| m.pending().range(start..).take(count).copied().collect())
        .unwrap_or_default();
    reply.array(ids.len());
    for id in ids {
        let Some(entry) = stream.get(id) else {
            reply.array(2);
            reply_id(reply, id);
            reply.null_array();
            continue;
        };
        reply_entry(reply, entry);
        let deliveries = stream.group(group).and_then(|g| g.pending().get(&id));
        let deliveries = deliveries.map_or(0, |pending| pending.deliveries) + 1;
        stream.apply(StreamOp::Assign(group, consumer, id, now_ms, deliveries));
    }
}
