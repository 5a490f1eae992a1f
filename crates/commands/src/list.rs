//! Lists.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::types::{Digits, Item, List, ListOp};

const BASE: Command = Command { group: Group::List, acl: Acl::LIST, ..Command::DEFAULT };
const ADDS: Flags = Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST);
const TAKES: Flags = Flags::WRITE.or(Flags::FAST);
const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const INSERT: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::INSERT));
const POP: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE));

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "LPUSH",
        arity: -3,
        keys: INSERT,
        flags: ADDS,
        run: |cx, args| push(cx, args, End::Front, true),
        summary: "Adds items before the first, one after the other; answers the list's new length.",
        complexity: "O(1) for each item",
        syntax: "key element [element ...]",
        examples: "> LPUSH l b a\n(integer) 2\n> LRANGE l 0 -1\n1) \"a\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "RPUSH",
        arity: -3,
        keys: INSERT,
        flags: ADDS,
        run: |cx, args| push(cx, args, End::Back, true),
        summary: "Adds items behind the last, one after the other; answers the list's new length.",
        complexity: "O(1) for each item",
        syntax: "key element [element ...]",
        examples: "> RPUSH l a b\n(integer) 2\n> LRANGE l 0 -1\n1) \"a\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "LPUSHX",
        since: "2.2.0",
        arity: -3,
        keys: INSERT,
        flags: ADDS,
        run: |cx, args| push(cx, args, End::Front, false),
        summary: "LPUSH, if the list exists.",
        complexity: "O(1) for each item",
        syntax: "key element [element ...]",
        examples: "> LPUSHX l a\n(integer) 0\n> RPUSH l b\n(integer) 1\n> LPUSHX l a\n(integer) 2",
        ..BASE
    },
    Command {
        name: "RPUSHX",
        since: "2.2.0",
        arity: -3,
        keys: INSERT,
        flags: ADDS,
        run: |cx, args| push(cx, args, End::Back, false),
        summary: "RPUSH, if the list exists.",
        complexity: "O(1) for each item",
        syntax: "key element [element ...]",
        examples: "> RPUSHX l a\n(integer) 0\n> RPUSH l b\n(integer) 1\n> RPUSHX l c\n(integer) 2",
        ..BASE
    },
    Command {
        name: "LPOP",
        arity: -2,
        keys: POP,
        flags: TAKES,
        run: |cx, args| pop(cx, args, End::Front),
        summary: "Takes the first item, or several.",
        complexity: "O(N) in the number of items taken",
        syntax: "key [count]",
        examples: "> RPUSH l a b c\n(integer) 3\n> LPOP l\n\"a\"\n> LPOP l 5\n1) \"b\"\n2) \"c\"\n> LPOP l\n(nil)",
        ..BASE
    },
    Command {
        name: "RPOP",
        arity: -2,
        keys: POP,
        flags: TAKES,
        run: |cx, args| pop(cx, args, End::Back),
        summary: "Takes the last item, or several.",
        complexity: "O(N) in the number of items taken",
        syntax: "key [count]",
        examples: "> RPUSH l a b c\n(integer) 3\n> RPOP l\n\"c\"\n> RPOP l 5\n1) \"b\"\n2) \"a\"\n> RPOP l\n(nil)",
        ..BASE
    },
    Command {
        name: "LLEN",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: Flags::READONLY.or(Flags::FAST),
        run: llen,
        summary: "Number of items.",
        syntax: "key",
        examples: "> RPUSH l a b\n(integer) 2\n> LLEN l\n(integer) 2\n> LLEN m\n(integer) 0",
        ..BASE
    },
    Command {
        name: "LRANGE",
        arity: 4,
        keys: READ,
        flags: Flags::READONLY,
        run: lrange,
        summary: "Items from one index to another, both included; negative ones count from the end.",
        complexity: "O(S+N): S for the way to the start, N in the number of items",
        syntax: "key start stop",
        examples: "> RPUSH l a b c\n(integer) 3\n> LRANGE l -2 -1\n1) \"b\"\n2) \"c\"\n> LRANGE l 5 9\n(empty array)",
        ..BASE
    },
];

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

/// Writes an item.
pub(crate) fn reply_item(reply: &mut Reply<'_>, item: Item<'_>) {
    reply.bulk(item.bytes(&mut Digits::new()));
}

fn push(cx: &mut Cx<'_>, args: Args<'_>, end: End, makes: bool) -> Outcome {
    let key = args.get(1);
    if !makes && cx.keys.read_uncounted::<List>(key)?.is_none() {
        cx.reply.int(0);
        return Ok(());
    }
    let len = cx.keys.edit::<List, _>(key, |list| {
        for item in args.iter_from(2) {
            list.apply(match end {
                End::Front => ListOp::PushFront(item),
                End::Back => ListOp::PushBack(item),
            });
        }
        list.event(if end == End::Front { Event::LPush } else { Event::RPush });
        list.len()
    })?;
    cx.reply.int(len as i64);
    Ok(())
}

fn pop(cx: &mut Cx<'_>, args: Args<'_>, end: End) -> Outcome {
    if args.len() > 3 {
        return Err(ReplyError::Text(match end {
            End::Front => "ERR wrong number of arguments for 'lpop' command",
            End::Back => "ERR wrong number of arguments for 'rpop' command",
        }));
    }
    let count = match args.len() {
        3 => Some(parse_count(args.get(2))?),
        _ => None,
    };
    let key = args.get(1);
    let Some(len) = cx.keys.read::<List>(key)?.map(List::len) else {
        match count {
            None => cx.reply.null(),
            Some(_) => cx.reply.null_array(),
        }
        return Ok(());
    };
    let taken = count.unwrap_or(1).min(len);
    if count.is_some() {
        cx.reply.array(taken);
    }
    if taken == 0 {
        return Ok(());
    }
    cx.keys.edit::<List, _>(key, |list| match end {
        End::Front => {
            list.iter().take(taken).for_each(|item| reply_item(&mut cx.reply, item));
            list.apply(ListOp::Remove(0, taken));
            list.event(Event::LPop);
        }
        End::Back => {
            list.iter().rev().take(taken).for_each(|item| reply_item(&mut cx.reply, item));
            list.apply(ListOp::Remove(len - taken, taken));
            list.event(Event::RPop);
        }
    })
}

fn parse_count(text: &[u8]) -> Result<usize, ReplyError> {
    let count = number::parse_i64(text).and_then(|n| usize::try_from(n).ok());
    count.ok_or(ReplyError::Text("ERR value is out of range, must be positive"))
}

fn llen(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = cx.keys.read::<List>(args.get(1))?.map_or(0, List::len);
    cx.reply.int(len as i64);
    Ok(())
}

/// The items that a range names: the number of the first, and how many.
pub(crate) fn resolve_items(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let start = if start < 0 { (start.saturating_add(len)).max(0) } else { start };
    let stop = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
    if start > stop || start >= len {
        (0, 0)
    } else {
        (start as usize, (stop - start + 1) as usize)
    }
}

fn lrange(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let start = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let stop = number::parse_i64(args.get(3)).ok_or(ReplyError::NotAnInteger)?;
    let Some(list) = cx.keys.read::<List>(args.get(1))? else {
        cx.reply.array(0);
        return Ok(());
    };
    let (first, count) = resolve_items(start, stop, list.len());
    cx.reply.array(count);
    list.iter_from(first).take(count).for_each(|item| reply_item(&mut cx.reply, item));
    Ok(())
}
