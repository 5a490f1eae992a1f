//! XINFO: what a stream, its groups and their consumers are like.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::stream::{BASE, int, reply_entries, reply_entry, reply_id};
use crate::stream_group::no_group;
use crate::stream_read::has_tombstones_after;
use crate::table::{Acl, Command, Flags, KeyFlags, Keys};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_store::types::stream::{Consumer, Group};
use hypercache_store::types::{Stream, StreamId};

const KEY: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) };

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "XINFO",
    arity: -2,
    acl: Acl::NONE,
    summary: "Tells about streams, groups and consumers.",
    complexity: "That of the subcommand",
    subcommands: XINFO,
    ..BASE
}];

const XINFO: &[Command] = &[
    Command {
        name: "CONSUMERS",
        tips: &["nondeterministic_output"],
        arity: 4,
        keys: KEY,
        flags: Flags::READONLY,
        run: consumers,
        summary: "The consumers of a group, with what they have not acknowledged and how long they idle.",
        syntax: "key group",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n> XINFO CONSUMERS x g\n(empty array)",
        ..BASE
    },
    Command {
        name: "GROUPS",
        arity: 3,
        keys: KEY,
        flags: Flags::READONLY,
        run: groups,
        summary: "The groups of a stream, with how far each has read.",
        syntax: "key",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XINFO GROUPS x\n(empty array)",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "The subcommands.",
        examples: "> XINFO HELP\n…XINFO <subcommand> …",
        ..BASE
    },
    Command {
        name: "STREAM",
        arity: -3,
        keys: KEY,
        flags: Flags::READONLY,
        run: stream,
        summary: "A stream in numbers, with its first and last entry; FULL with entries and groups.",
        syntax: "key [FULL [COUNT count]]",
        examples: "> XINFO STREAM x\n(error) ERR no such key",
        ..BASE
    },
];

fn lookup<'a>(cx: &'a mut Cx<'_>, args: Args<'_>) -> Result<&'a Stream, ReplyError> {
    cx.keys.read::<Stream>(args.get(2))?.ok_or(ReplyError::NoSuchKey)
}

fn name(reply: &mut Reply<'_>, name: &str) {
    reply.bulk(name.as_bytes());
}

fn number(reply: &mut Reply<'_>, text: &str, n: u64) {
    name(reply, text);
    reply.int(n as i64);
}

fn id(reply: &mut Reply<'_>, text: &str, id: StreamId) {
    name(reply, text);
    reply_id(reply, id);
}

fn optional(reply: &mut Reply<'_>, text: &str, n: Option<u64>) {
    name(reply, text);
    match n {
        Some(n) => reply.int(n as i64),
        None => reply.null(),
    }
}

fn consumers(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, group, now_ms) = (args.get(2), args.get(3), cx.keys.now_ms);
    let stream = cx.keys.read::<Stream>(key)?.ok_or(ReplyError::NoSuchKey)?;
    let Some(group) = stream.group(group) else {
        return Err(no_group(
            cx,
            &[b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"],
        ));
    };
    let reply = &mut cx.reply;
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(3);
        name(reply, "name");
        reply.bulk(consumer.name());
        number(reply, "pending", consumer.pending().len() as u64);
        number(reply, "idle", now_ms.saturating_sub(consumer.seen_ms));
    }
    Ok(())
}

/// How many entries a group has not read yet, as far as that can be known.
fn lag(stream: &Stream, group: &Group) -> Option<u64> {
    if stream.entries_added() == 0 {
        return Some(0);
    }
    let read = match group.entries_read {
        Some(read) if !has_tombstones_after(stream, group.last_id) => Some(read),
        _ => stream.distance_from_first(group.last_id),
    };
    Some(stream.entries_added().wrapping_sub(read?))
}

fn groups(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let stream = cx.keys.read::<Stream>(args.get(2))?.ok_or(ReplyError::NoSuchKey)?;
    let reply = &mut cx.reply;
    reply.array(stream.groups().len());
    for (group_name, group) in stream.groups() {
        reply.map(6);
        name(reply, "name");
        reply.bulk(group_name);
        number(reply, "consumers", group.consumers().len() as u64);
        number(reply, "pending", group.pending().len() as u64);
        id(reply, "last-delivered-id", group.last_id);
        optional(reply, "entries-read", group.entries_read);
        optional(reply, "lag", lag(stream, group));
    }
    Ok(())
}

/// Entries of each list that FULL shows, if it is not told.
const COUNT_DEFAULT: i64 = 10;

fn stream(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    lookup(cx, args)?;
    let is_full = args.len() > 3;
    let is = |i: usize, word: &[u8]| args.get(i).eq_ignore_ascii_case(word);
    let mut count = COUNT_DEFAULT;
    if is_full {
        let has_count = args.len() == 6;
        if !(args.len() == 4 || has_count) || !is(3, b"FULL") || has_count && !is(4, b"COUNT") {
            return Err(cx.subcommand_syntax(args));
        }
        if has_count {
            count = int(args.get(5))?;
        }
    }
    let count = match count {
        0 => usize::MAX,
        ..0 => COUNT_DEFAULT as usize,
        n => n as usize,
    };
    let stream = cx.keys.read_uncounted::<Stream>(args.get(2))?.ok_or(ReplyError::NoSuchKey)?;
    let reply = &mut cx.reply;
    reply.map(if is_full { 9 } else { 10 });
    number(reply, "length", stream.len());
    number(reply, "radix-tree-keys", stream.blocks() as u64);
    number(reply, "radix-tree-nodes", stream.blocks() as u64 + 1);
    id(reply, "last-generated-id", stream.last_id());
    id(reply, "max-deleted-entry-id", stream.max_deleted_id());
    number(reply, "entries-added", stream.entries_added());
    id(reply, "recorded-first-entry-id", stream.first_id());
    if is_full {
        reply_full(reply, stream, count)
    } else {
        reply_ends(reply, stream)
    }
    Ok(())
}

fn reply_ends(reply: &mut Reply<'_>, stream: &Stream) {
    number(reply, "groups", stream.groups().len() as u64);
    let first = stream.range(StreamId::MIN, StreamId::MAX).next();
    let last = stream.range_rev(StreamId::MIN, StreamId::MAX).next();
    for (text, entry) in [("first-entry", first), ("last-entry", last)] {
        name(reply, text);
        match entry {
            Some(entry) => reply_entry(reply, entry),
            None => reply.null(),
        }
    }
}

fn reply_full(reply: &mut Reply<'_>, stream: &Stream, count: usize) {
    name(reply, "entries");
    reply_entries(reply, stream.range(StreamId::MIN, StreamId::MAX), count);
    name(reply, "groups");
    reply.array(stream.groups().len());
    for (group_name, group) in stream.groups() {
        reply.map(7);
        name(reply, "name");
        reply.bulk(group_name);
        id(reply, "last-delivered-id", group.last_id);
        optional(reply, "entries-read", group.entries_read);
        optional(reply, "lag", lag(stream, group));
        number(reply, "pel-count", group.pending().len() as u64);
        name(reply, "pending");
        reply.array(group.pending().len().min(count));
        for (pending_id, pending) in group.pending().iter().take(count) {
            reply.array(4);
            reply_id(reply, *pending_id);
            reply.bulk(&pending.consumer);
            reply.int(pending.delivered_ms as i64);
            reply.int(pending.deliveries as i64);
        }
        name(reply, "consumers");
        reply.array(group.consumers().len());
        group.consumers().for_each(|consumer| reply_consumer(reply, group, consumer, count));
    }
}

fn reply_consumer(reply: &mut Reply<'_>, group: &Group, consumer: &Consumer, count: usize) {
    reply.map(4);
    name(reply, "name");
    reply.bulk(consumer.name());
    number(reply, "seen-time", consumer.seen_ms);
    number(reply, "pel-count", consumer.pending().len() as u64);
    name(reply, "pending");
    reply.array(consumer.pending().len().min(count));
    for pending_id in consumer.pending().iter().take(count) {
        let pending = group.pending().get(pending_id);
        reply.array(3);
        reply_id(reply, *pending_id);
        reply.int(pending.map_or(0, |p| p.delivered_ms) as i64);
        reply.int(pending.map_or(0, |p| p.deliveries) as i64);
    }
}
