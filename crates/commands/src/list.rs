//! Lists: what works on one list and does not wait. The rest is in `list_pop.rs`.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Editor;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::types::{Digits, Item, List, ListOp};

pub(crate) const BASE: Command = Command { group: Group::List, acl: Acl::LIST, ..Command::DEFAULT };
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
    Command {
        name: "LINDEX",
        arity: 3,
        keys: READ,
        flags: Flags::READONLY,
        run: lindex,
        summary: "The item with an index; a negative one counts from the end.",
        complexity: "O(N) in the number of chunks to pass",
        syntax: "key index",
        examples: "> RPUSH l a b c\n(integer) 3\n> LINDEX l -1\n\"c\"\n> LINDEX l 3\n(nil)",
        ..BASE
    },
    Command {
        name: "LSET",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: lset,
        summary: "Puts another item in the place of the one with an index.",
        complexity: "O(N) in the number of chunks to pass",
        syntax: "key index element",
        examples: "> RPUSH l a b\n(integer) 2\n> LSET l 1 c\nOK\n> LSET l 2 d\n(error) ERR index out of range",
        ..BASE
    },
    Command {
        name: "LINSERT",
        since: "2.2.0",
        arity: 5,
        keys: INSERT,
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: linsert,
        summary: "Adds an item before or after the first that equals another; answers the new length.",
        complexity: "O(N) in the number of items to pass",
        syntax: "key <BEFORE | AFTER> pivot element",
        examples: "> RPUSH l a c\n(integer) 2\n> LINSERT l BEFORE c b\n(integer) 3\n> LINSERT l AFTER x y\n(integer) -1",
        ..BASE
    },
    Command {
        name: "LREM",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: Flags::WRITE,
        run: lrem,
        summary: "Removes the first items that equal another; the last ones if the count is negative, all if it is 0.",
        complexity: "O(N) in the length of the list",
        syntax: "key count element",
        examples: "> RPUSH l a b a a\n(integer) 4\n> LREM l -2 a\n(integer) 2\n> LRANGE l 0 -1\n1) \"a\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "LTRIM",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: Flags::WRITE,
        run: ltrim,
        summary: "Removes all items but those of a range.",
        complexity: "O(N) in the number of items removed",
        syntax: "key start stop",
        examples: "> RPUSH l a b c\n(integer) 3\n> LTRIM l 1 -1\nOK\n> LLEN l\n(integer) 2",
        ..BASE
    },
    Command {
        name: "LPOS",
        since: "6.0.6",
        arity: -3,
        keys: READ,
        flags: Flags::READONLY,
        run: lpos,
        summary: "Index of the first item that equals another, or of several.",
        complexity: "O(N) in the number of items to pass",
        syntax: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
        examples: "> RPUSH l a b a\n(integer) 3\n> LPOS l a RANK -1\n(integer) 2\n\
                   > LPOS l a COUNT 0\n1) (integer) 0\n2) (integer) 2",
        ..BASE
    },
];

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// Writes an item.
pub(crate) fn reply_item(reply: &mut Reply<'_>, item: Item<'_>) {
    reply.bulk(item.bytes(&mut Digits::new()));
}

fn push(cx: &mut Cx<'_>, args: Args<'_>, end: End, makes: bool) -> Outcome {
    let key = args.get(1);
    let add = |list: &mut Editor<'_, List>| {
        for item in args.iter_from(2) {
            list.apply(match end {
                End::Front => ListOp::PushFront(item),
                End::Back => ListOp::PushBack(item),
            });
        }
        list.event(if end == End::Front { Event::LPush } else { Event::RPush });
        list.len()
    };
    let len = match makes {
        true => cx.keys.edit::<List, _>(key, add)?,
        false => cx.keys.edit_if_there::<List, _>(key, add)?.unwrap_or(0),
    };
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
    let reply = &mut cx.reply;
    let popped = cx.keys.edit_if_there::<List, _>(args.get(1), |list| {
        let taken = count.unwrap_or(1).min(list.len());
        if count.is_some() {
            reply.array(taken);
        }
        if taken > 0 {
            take(list, reply, end, taken);
        }
    })?;
    match (popped, count) {
        (Some(()), _) => {}
        (None, None) => cx.reply.null(),
        (None, Some(_)) => cx.reply.null_array(),
    }
    Ok(())
}

/// Takes `count` items from an end of a list that has as many, and writes them.
pub(crate) fn take(list: &mut Editor<'_, List>, reply: &mut Reply<'_>, end: End, count: usize) {
    match end {
        End::Front => {
            list.iter().take(count).for_each(|item| reply_item(reply, item));
            list.apply(ListOp::Remove(0, count));
            list.event(Event::LPop);
        }
        End::Back => {
            list.iter().rev().take(count).for_each(|item| reply_item(reply, item));
            list.apply(ListOp::Remove(list.len() - count, count));
            list.event(Event::RPop);
        }
    }
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

/// The item's number from the front, of an index that may count from the end.
fn resolve_index(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

fn lindex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let Some(list) = cx.keys.read::<List>(args.get(1))? else {
        cx.reply.null();
        return Ok(());
    };
    let index = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    match resolve_index(index, list.len()).and_then(|index| list.get(index)) {
        Some(item) => reply_item(&mut cx.reply, item),
        None => cx.reply.null(),
    }
    Ok(())
}

fn lset(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let len = cx.keys.read_uncounted::<List>(key)?.ok_or(ReplyError::NoSuchKey)?.len();
    let index = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let index = resolve_index(index, len).ok_or(ReplyError::OutOfRange)?;
    cx.keys.edit::<List, _>(key, |list| {
        list.apply(ListOp::Set(index, args.get(3)));
        list.event(Event::LSet);
    })?;
    cx.reply.ok();
    Ok(())
}

fn linsert(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, place) = (args.get(1), args.get(2));
    let is_after = place.eq_ignore_ascii_case(b"AFTER");
    if !is_after && !place.eq_ignore_ascii_case(b"BEFORE") {
        return Err(ReplyError::Syntax);
    }
    let Some(list) = cx.keys.read_uncounted::<List>(key)? else {
        cx.reply.int(0);
        return Ok(());
    };
    let pivot = Item::of(args.get(3));
    let Some(at) = list.iter().position(|item| item == pivot) else {
        cx.reply.int(-1);
        return Ok(());
    };
    let len = cx.keys.edit::<List, _>(key, |list| {
        list.apply(ListOp::Insert(at + usize::from(is_after), args.get(4)));
        list.event(Event::LInsert);
        list.len()
    })?;
    cx.reply.int(len as i64);
    Ok(())
}

fn lrem(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, count) =
        (args.get(1), number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?);
    let Some(list) = cx.keys.read_uncounted::<List>(key)? else {
        cx.reply.int(0);
        return Ok(());
    };
    let item = Item::of(args.get(3));
    let max = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let same = |(i, other): (usize, Item<'_>)| (other == item).then_some(i);
    // From the last to the first, so that each index still holds when its turn comes.
    let found: Vec<usize> = if count < 0 {
        let last = list.len().saturating_sub(1);
        list.iter().rev().enumerate().filter_map(same).take(max).map(|i| last - i).collect()
    } else {
        let mut found: Vec<_> = list.iter().enumerate().filter_map(same).take(max).collect();
        found.reverse();
        found
    };
    if !found.is_empty() {
        cx.keys.edit::<List, _>(key, |list| {
            found.iter().for_each(|i| list.apply(ListOp::Remove(*i, 1)));
            list.event(Event::LRem);
        })?;
    }
    cx.reply.int(found.len() as i64);
    Ok(())
}

fn ltrim(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let start = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let stop = number::parse_i64(args.get(3)).ok_or(ReplyError::NotAnInteger)?;
    let key = args.get(1);
    if let Some(list) = cx.keys.read_uncounted::<List>(key)? {
        let (first, count) = resolve_items(start, stop, list.len());
        cx.keys.edit::<List, _>(key, |list| {
            let behind = list.len() - first - count;
            for (at, count) in [(first + count, behind), (0, first)] {
                if count > 0 {
                    list.apply(ListOp::Remove(at, count));
                }
            }
            list.event(Event::LTrim);
        })?;
    }
    cx.reply.ok();
    Ok(())
}

/// What LPOS looks for.
struct Search {
    rank: i64,
    /// Matches to answer, 0 for all; `None`: the first, without a list around it.
    count: Option<usize>,
    /// Items to compare with, 0 for all.
    len_max: usize,
}

fn parse_search(args: Args<'_>) -> Result<Search, ReplyError> {
    let mut search = Search { rank: 1, count: None, len_max: 0 };
    let not_negative = |text: &[u8], error: &'static str| {
        let n = number::parse_i64(text).and_then(|n| usize::try_from(n).ok());
        n.ok_or(ReplyError::Text(error))
    };
    for i in (3..args.len()).step_by(2) {
        if i + 1 >= args.len() {
            return Err(ReplyError::Syntax);
        }
        let value = args.get(i + 1);
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"RANK" => search.rank = number::parse_i64(value).ok_or(ReplyError::NotAnInteger)?,
            b"COUNT" => search.count = Some(not_negative(value, "ERR COUNT can't be negative")?),
            b"MAXLEN" => search.len_max = not_negative(value, "ERR MAXLEN can't be negative")?,
            _ => return Err(ReplyError::Syntax),
        }
        if search.rank == 0 {
            return Err(ReplyError::Text(
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
            ));
        }
    }
    Ok(search)
}

fn lpos(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let search = parse_search(args)?;
    let item = Item::of(args.get(2));
    let mut found = Vec::new();
    if let Some(list) = cx.keys.read::<List>(args.get(1))? {
        let looks = if search.len_max == 0 { usize::MAX } else { search.len_max };
        let max = match search.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        // The lowest rank has no positive counterpart: Redis 7.0 takes it for -1.
        let skip = search.rank.checked_abs().unwrap_or(1) as usize - 1;
        let same = |(i, other): (usize, Item<'_>)| (other == item).then_some(i);
        if search.rank > 0 {
            let matches = list.iter().take(looks).enumerate().filter_map(same);
            found.extend(matches.skip(skip).take(max));
        } else {
            let last = list.len().saturating_sub(1);
            let matches = list.iter().rev().take(looks).enumerate().filter_map(same);
            found.extend(matches.skip(skip).take(max).map(|i| last - i));
        }
    }
    if search.count.is_some() {
        cx.reply.array(found.len());
        found.iter().for_each(|i| cx.reply.int(*i as i64));
        return Ok(());
    }
    match found.first() {
        Some(i) => cx.reply.int(*i as i64),
        None => cx.reply.null(),
    }
    Ok(())
}
