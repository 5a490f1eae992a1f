//! Lists: moves between lists, pops of the first of several lists, and the commands that wait for items.

use crate::blocking::parse_timeout_s;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::list::{self, BASE, End};
use crate::table::{Command, Flags, KeyFlags, Keys, counted};
use hypercache_journal::Event;
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_stdx::number;
use hypercache_store::types::{List, ListOp};

const TAKEN: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);
const MOVE_KEYS: Keys = Keys::Two(
    &Keys::first(TAKEN),
    &Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RW.or(KeyFlags::INSERT) },
);
const WAITS: Flags = Flags::WRITE.or(Flags::NO_SCRIPT).or(Flags::BLOCKING);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "LMOVE",
        since: "6.2.0",
        arity: 5,
        keys: MOVE_KEYS,
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: lmove,
        summary: "Moves an item from an end of one list to an end of another, and answers it.",
        syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
        examples: "> RPUSH a 1 2\n(integer) 2\n> LMOVE a b LEFT RIGHT\n\"1\"\n> LRANGE b 0 -1\n1) \"1\"",
        ..BASE
    },
    Command {
        name: "RPOPLPUSH",
        since: "1.2.0",
        arity: 3,
        keys: MOVE_KEYS,
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: rpoplpush,
        summary: "Moves the last item of one list to the front of another, and answers it.",
        syntax: "source destination",
        examples: "> RPUSH a 1 2\n(integer) 2\n> RPOPLPUSH a b\n\"2\"",
        ..BASE
    },
    Command {
        name: "LMPOP",
        since: "7.0.0",
        arity: -4,
        keys: Keys::Counted { count: 1, flags: TAKEN },
        flags: Flags::WRITE.or(Flags::MOVABLE_KEYS),
        run: |cx, args| mpop(cx, args, 1),
        summary: "Takes items from the first list that has some; answers its key and the items.",
        complexity: "O(N+M): N keys, M items",
        syntax: "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
        examples: "> RPUSH b 1 2\n(integer) 2\n> LMPOP 2 a b LEFT\n1) \"b\"\n2) 1) \"1\"",
        ..BASE
    },
    Command {
        name: "BLPOP",
        since: "2.0.0",
        arity: -3,
        keys: Keys::Range { first: 1, last: -2, step: 1, flags: TAKEN },
        flags: WAITS,
        run: |cx, args| blocking_pop(cx, args, End::Front),
        summary: "Takes the first item of the first list that has one; waits for one.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...] timeout",
        examples: "> RPUSH b 1 2\n(integer) 2\n> BLPOP a b 0\n1) \"b\"\n2) \"1\"",
        ..BASE
    },
    Command {
        name: "BRPOP",
        since: "2.0.0",
        arity: -3,
        keys: Keys::Range { first: 1, last: -2, step: 1, flags: TAKEN },
        flags: WAITS,
        run: |cx, args| blocking_pop(cx, args, End::Back),
        summary: "Takes the last item of the first list that has one; waits for one.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...] timeout",
        examples: "> RPUSH b 1 2\n(integer) 2\n> BRPOP a b 0\n1) \"b\"\n2) \"2\"",
        ..BASE
    },
    Command {
        name: "BLMOVE",
        since: "6.2.0",
        arity: 6,
        keys: MOVE_KEYS,
        flags: WAITS.or(Flags::DENY_OOM),
        run: blmove,
        summary: "LMOVE that waits for an item.",
        syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
        examples: "> RPUSH a 1 2\n(integer) 2\n> BLMOVE a b LEFT RIGHT 0\n\"1\"",
        ..BASE
    },
    Command {
        name: "BRPOPLPUSH",
        since: "2.2.0",
        arity: 4,
        keys: MOVE_KEYS,
        flags: WAITS.or(Flags::DENY_OOM),
        run: brpoplpush,
        summary: "RPOPLPUSH that waits for an item.",
        syntax: "source destination timeout",
        examples: "> RPUSH a 1 2\n(integer) 2\n> BRPOPLPUSH a b 0\n\"2\"",
        ..BASE
    },
    Command {
        name: "BLMPOP",
        since: "7.0.0",
        arity: -5,
        keys: Keys::Counted { count: 2, flags: TAKEN },
        flags: Flags::WRITE.or(Flags::BLOCKING).or(Flags::MOVABLE_KEYS),
        run: |cx, args| mpop(cx, args, 2),
        summary: "LMPOP that waits for an item.",
        complexity: "O(N+M): N keys, M items",
        syntax: "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
        examples: "> RPUSH b 1 2\n(integer) 2\n> BLMPOP 0 2 a b LEFT COUNT 5\n1) \"b\"\n2) 1) \"1\"\n   2) \"2\"",
        ..BASE
    },
];

fn parse_end(text: &[u8]) -> Result<End, ReplyError> {
    match text.to_ascii_uppercase().as_slice() {
        b"LEFT" => Ok(End::Front),
        b"RIGHT" => Ok(End::Back),
        _ => Err(ReplyError::Syntax),
    }
}

/// Number of items of a list that a command may take from now: 0 if it is to look elsewhere.
fn available(cx: &mut Cx<'_>, key: &[u8]) -> Result<usize, ReplyError> {
    if !cx.may_serve(key) {
        return Ok(0);
    }
    let is_serving = cx.is_serving();
    match cx.keys.read_uncounted::<List>(key) {
        Ok(list) => Ok(list.map_or(0, List::len)),
        // A client that waits for a list waits on while its key holds something else.
        Err(_) if is_serving => Ok(0),
        Err(error) => Err(error),
    }
}

/// Takes `count` items from an end of a list that has as many, and writes them.
fn take(cx: &mut Cx<'_>, key: &[u8], end: End, count: usize) -> Outcome {
    let reply = &mut cx.reply;
    cx.keys.edit::<List, _>(key, |list| list::take(list, reply, end, count))
}

/// Moves an item of a list that has one, and answers it.
fn move_item(cx: &mut Cx<'_>, (from, to): (&[u8], &[u8]), (end, target): (End, End)) -> Outcome {
    cx.keys.read_uncounted::<List>(to)?;
    let list = cx.keys.read_uncounted::<List>(from)?;
    let item = list.and_then(|list| match end {
        End::Front => list.get(0),
        End::Back => list.get(list.len() - 1),
    });
    let Some(item) = item.map(|item| item.to_vec()) else { return Ok(()) };
    let push = |cx: &mut Cx<'_>| {
        cx.keys.edit::<List, _>(to, |list| match target {
            End::Front => {
                list.apply(ListOp::PushFront(&item));
                list.event(Event::LPush);
            }
            End::Back => {
                list.apply(ListOp::PushBack(&item));
                list.event(Event::RPush);
            }
        })
    };
    let pop = |cx: &mut Cx<'_>| {
        cx.keys.edit::<List, _>(from, |list| match end {
            End::Front => {
                list.apply(ListOp::Remove(0, 1));
                list.event(Event::LPop);
            }
            End::Back => {
                list.apply(ListOp::Remove(list.len() - 1, 1));
                list.event(Event::RPop);
            }
        })
    };
    if from == to {
        return rotate(cx, from, &item, (end, target));
    }
    push(cx)?;
    pop(cx)?;
    cx.reply.bulk(&item);
    Ok(())
}

/// Moves an item within its list.
fn rotate(cx: &mut Cx<'_>, key: &[u8], item: &[u8], (end, target): (End, End)) -> Outcome {
    cx.keys.edit::<List, _>(key, |list| {
        list.apply(ListOp::Remove(if end == End::Front { 0 } else { list.len() - 1 }, 1));
        match target {
            End::Front => list.apply(ListOp::PushFront(item)),
            End::Back => list.apply(ListOp::PushBack(item)),
        }
        list.event(if target == End::Front { Event::LPush } else { Event::RPush });
        list.event(if end == End::Front { Event::LPop } else { Event::RPop });
    })?;
    cx.reply.bulk(item);
    Ok(())
}

fn lmove(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let ends = (parse_end(args.get(3))?, parse_end(args.get(4))?);
    move_or_null(cx, args, ends)
}

fn rpoplpush(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    move_or_null(cx, args, (End::Back, End::Front))
}

fn move_or_null(cx: &mut Cx<'_>, args: Args<'_>, ends: (End, End)) -> Outcome {
    if cx.keys.read::<List>(args.get(1))?.is_none() {
        cx.reply.null();
        return Ok(());
    }
    move_item(cx, (args.get(1), args.get(2)), ends)
}

fn blmove(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let ends = (parse_end(args.get(3))?, parse_end(args.get(4))?);
    move_or_wait(cx, args, ends, args.get(5))
}

fn brpoplpush(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    move_or_wait(cx, args, (End::Back, End::Front), args.get(3))
}

fn move_or_wait(cx: &mut Cx<'_>, args: Args<'_>, ends: (End, End), timeout: &[u8]) -> Outcome {
    let timeout_ms = parse_timeout_s(timeout)?;
    let (from, to) = (args.get(1), args.get(2));
    if available(cx, from)? > 0 {
        return move_item(cx, (from, to), ends);
    }
    cx.wait([from].into_iter(), timeout_ms, OwnedArgs::copy_of(args), |reply| reply.null())
}

fn blocking_pop(cx: &mut Cx<'_>, args: Args<'_>, end: End) -> Outcome {
    let last = args.len() - 1;
    let timeout_ms = parse_timeout_s(args.get(last))?;
    let keys = || (1..last).map(|i| args.get(i));
    for key in keys() {
        if available(cx, key)? > 0 {
            cx.reply.array(2);
            cx.reply.bulk(key);
            return take(cx, key, end, 1);
        }
    }
    cx.wait(keys(), timeout_ms, OwnedArgs::copy_of(args), |reply| reply.null_array())
}

/// LMPOP and BLMPOP; argument `at` is the number of keys.
fn mpop(cx: &mut Cx<'_>, args: Args<'_>, at: usize) -> Outcome {
    let positive = |i: usize, error: &'static str| {
        let n = number::parse_i64(args.get(i)).filter(|n| *n > 0);
        n.map(|n| n as usize).ok_or(ReplyError::Text(error))
    };
    let numkeys = positive(at, "ERR numkeys should be greater than 0")?;
    if counted(args, at).is_none_or(|keys| at + keys + 1 >= args.len()) {
        return Err(ReplyError::Syntax);
    }
    let after = at + numkeys + 1;
    let end = parse_end(args.get(after))?;
    let count = match args.len() - after - 1 {
        0 => 1,
        options @ 2.. if args.get(after + 1).eq_ignore_ascii_case(b"COUNT") => {
            // It is looked at before what follows it, which no form takes.
            let count = positive(after + 2, "ERR count should be greater than 0")?;
            if options > 2 {
                return Err(ReplyError::Syntax);
            }
            count
        }
        _ => return Err(ReplyError::Syntax),
    };
    let timeout_ms = if at == 2 { Some(parse_timeout_s(args.get(1))?) } else { None };
    let keys = || (at + 1..after).map(|i| args.get(i));
    for key in keys() {
        let len = available(cx, key)?;
        if len > 0 {
            cx.reply.array(2);
            cx.reply.bulk(key);
            cx.reply.array(count.min(len));
            return take(cx, key, end, count.min(len));
        }
    }
    match timeout_ms {
        Some(ms) => cx.wait(keys(), ms, OwnedArgs::copy_of(args), |reply| reply.null_array()),
        None => {
            cx.reply.null_array();
            Ok(())
        }
    }
}
