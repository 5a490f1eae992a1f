//! Members that are taken from the ends of sorted sets, or waited for.

use crate::blocking::parse_timeout_s;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Command, Flags, KeyFlags, Keys};
use crate::zset::{BASE, reply_score};
use hypercache_journal::Event;
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_protocol::reply::Version;
use hypercache_stdx::number;
use hypercache_store::types::{SortedSet, SortedSetOp};

const WAITED: Keys = Keys::Range { first: 1, last: -2, step: 1, flags: TAKEN };
const WAITS: Flags = Flags::WRITE.or(Flags::BLOCKING);
const TAKEN: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "ZPOPMIN",
        since: "5.0.0",
        arity: -2,
        keys: Keys::first(TAKEN),
        flags: Flags::WRITE.or(Flags::FAST),
        run: |cx, args| zpop(cx, args, End::Min),
        summary: "Takes the member with the least score, or several.",
        complexity: "O(M*log(N)): M members are taken",
        syntax: "key [count]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZPOPMIN z\n1) \"a\"\n2) \"1\"\n> ZPOPMIN z 5\n1) \"b\"\n2) \"2\"\n3) \"c\"\n4) \"3\"",
        ..BASE
    },
    Command {
        name: "ZPOPMAX",
        since: "5.0.0",
        arity: -2,
        keys: Keys::first(TAKEN),
        flags: Flags::WRITE.or(Flags::FAST),
        run: |cx, args| zpop(cx, args, End::Max),
        summary: "Takes the member with the greatest score, or several.",
        complexity: "O(M*log(N)): M members are taken",
        syntax: "key [count]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZPOPMAX z 2\n1) \"c\"\n2) \"3\"\n3) \"b\"\n4) \"2\"",
        ..BASE
    },
    Command {
        name: "ZMPOP",
        since: "7.0.0",
        arity: -4,
        keys: Keys::Counted { count: 1, flags: TAKEN },
        flags: Flags::WRITE.or(Flags::MOVABLE_KEYS),
        run: zmpop,
        summary: "Takes members from an end of the first set that has any.",
        complexity: "O(K)+O(M*log(N)): K sets, M members are taken",
        syntax: "numkeys key [key ...] <MIN | MAX> [COUNT count]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZMPOP 2 y z MIN COUNT 5\n1) \"z\"\n2) 1) 1) \"a\"\n      2) \"1\"\n   2) 1) \"b\"\n      2) \"2\"\n> ZMPOP 2 y z MIN\n(nil)",
        ..BASE
    },
    Command {
        name: "BZPOPMIN",
        since: "5.0.0",
        arity: -3,
        keys: WAITED,
        flags: WAITS.or(Flags::NO_SCRIPT).or(Flags::FAST),
        run: |cx, args| bzpop(cx, args, End::Min),
        summary: "Takes the member with the least score of the first set that has any, or waits for one.",
        complexity: "O(log(N))",
        syntax: "key [key ...] timeout",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> BZPOPMIN y z 0\n1) \"z\"\n2) \"a\"\n3) \"1\"",
        ..BASE
    },
    Command {
        name: "BZPOPMAX",
        since: "5.0.0",
        arity: -3,
        keys: WAITED,
        flags: WAITS.or(Flags::NO_SCRIPT).or(Flags::FAST),
        run: |cx, args| bzpop(cx, args, End::Max),
        summary: "Takes the member with the greatest score of the first set that has any, or waits for one.",
        complexity: "O(log(N))",
        syntax: "key [key ...] timeout",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> BZPOPMAX y z 0\n1) \"z\"\n2) \"b\"\n3) \"2\"",
        ..BASE
    },
    Command {
        name: "BZMPOP",
        since: "7.0.0",
        arity: -5,
        keys: Keys::Counted { count: 2, flags: TAKEN },
        flags: WAITS.or(Flags::MOVABLE_KEYS),
        run: bzmpop,
        summary: "ZMPOP, which waits while no set has members.",
        complexity: "O(K)+O(M*log(N)): K sets, M members are taken",
        syntax: "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
        examples: "> ZADD z 1 a\n(integer) 1\n> BZMPOP 0 2 y z MAX\n1) \"z\"\n2) 1) 1) \"a\"\n      2) \"1\"",
        ..BASE
    },
];

/// An end of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn parse(text: &[u8]) -> Result<Self, ReplyError> {
        match &text.to_ascii_uppercase()[..] {
            b"MIN" => Ok(End::Min),
            b"MAX" => Ok(End::Max),
            _ => Err(ReplyError::Syntax),
        }
    }

    fn event(self) -> Event {
        match self {
            End::Min => Event::ZPopMin,
            End::Max => Event::ZPopMax,
        }
    }
}

/// Takes up to `count` members from an end of a set that has any, and writes each, in pairs or not.
fn take(cx: &mut Cx<'_>, key: &[u8], (end, count): (End, usize), in_pairs: bool) -> Outcome {
    let reply = &mut cx.reply;
    cx.keys.edit::<SortedSet, _>(key, |set| {
        for _ in 0..count.min(set.len()) {
            let rank = if end == End::Min { 0 } else { set.len() - 1 };
            let Some((member, score)) = set.get(rank).map(|(m, score)| (m.to_vec(), score)) else {
                break;
            };
            if in_pairs {
                reply.array(2);
            }
            reply.bulk(&member);
            reply_score(reply, score);
            set.apply(SortedSetOp::Remove(&member));
        }
        set.event(end.event());
    })
}

fn zpop(cx: &mut Cx<'_>, args: Args<'_>, end: End) -> Outcome {
    let count = match args.len() {
        2 => 1,
        3 => number::parse_i64(args.get(2))
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(ReplyError::Text("ERR value is out of range, must be positive"))?,
        _ => return Err(ReplyError::Syntax),
    };
    let key = args.get(1);
    let len = cx.keys.read_uncounted::<SortedSet>(key)?.map_or(0, SortedSet::len);
    let taken = count.min(len);
    if taken == 0 {
        cx.reply.array(0);
        return Ok(());
    }
    let in_pairs = args.len() == 3 && cx.reply.version() == Version::V3;
    cx.reply.array(if in_pairs { taken } else { 2 * taken });
    take(cx, key, (end, taken), in_pairs)
}

/// What ZMPOP is asked for. `first` is the number of the argument that counts the keys.
#[derive(Clone, Copy, Debug)]
struct Pop {
    keys: usize,
    end: End,
    count: usize,
}

impl Pop {
    fn parse(args: Args<'_>, first: usize) -> Result<Pop, ReplyError> {
        let positive = |i, otherwise| {
            let number = number::parse_i64(args.get(i)).and_then(|n| usize::try_from(n).ok());
            number.filter(|n| *n > 0).ok_or(ReplyError::Text(otherwise))
        };
        let keys = positive(first, "ERR numkeys should be greater than 0")?;
        let end_at = keys.saturating_add(first + 1);
        if end_at >= args.len() {
            return Err(ReplyError::Syntax);
        }
        let end = End::parse(args.get(end_at))?;
        let count = match args.len() - end_at {
            1 => 1,
            n if n >= 3 && args.get(end_at + 1).eq_ignore_ascii_case(b"COUNT") => {
                positive(end_at + 2, "ERR count should be greater than 0")?
            }
            _ => return Err(ReplyError::Syntax),
        };
        if args.len() - end_at > 3 {
            return Err(ReplyError::Syntax);
        }
        Ok(Pop { keys, end, count })
    }

    /// Takes from the first set that has members, and answers; returns whether there was one.
    fn run(&self, cx: &mut Cx<'_>, args: Args<'_>, first: usize) -> Result<bool, ReplyError> {
        for key in (first + 1..=first + self.keys).map(|i| args.get(i)) {
            let len = available(cx, key)?;
            if len > 0 {
                cx.reply.array(2);
                cx.reply.bulk(key);
                cx.reply.array(self.count.min(len));
                take(cx, key, (self.end, self.count), true)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn zmpop(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let pop = Pop::parse(args, 1)?;
    if !pop.run(cx, args, 1)? {
        cx.reply.null_array();
    }
    Ok(())
}

/// Number of members of a set that a command may take from now: 0 if it is to look elsewhere.
fn available(cx: &mut Cx<'_>, key: &[u8]) -> Result<usize, ReplyError> {
    if !cx.may_serve(key) {
        return Ok(0);
    }
    let is_serving = cx.is_serving();
    match cx.keys.read_uncounted::<SortedSet>(key) {
        Ok(set) => Ok(set.map_or(0, SortedSet::len)),
        // A client that waits for a sorted set waits on while its key holds something else.
        Err(_) if is_serving => Ok(0),
        Err(error) => Err(error),
    }
}

fn bzmpop(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let pop = Pop::parse(args, 2)?;
    let timeout_ms = parse_timeout_s(args.get(1))?;
    if pop.run(cx, args, 2)? {
        return Ok(());
    }
    let keys = (3..3 + pop.keys).map(|i| args.get(i));
    cx.wait(keys, timeout_ms, OwnedArgs::copy_of(args), |reply| reply.null_array())
}

fn bzpop(cx: &mut Cx<'_>, args: Args<'_>, end: End) -> Outcome {
    let last = args.len() - 1;
    let timeout_ms = parse_timeout_s(args.get(last))?;
    let keys = || (1..last).map(|i| args.get(i));
    for key in keys() {
        if available(cx, key)? > 0 {
            cx.reply.array(3);
            cx.reply.bulk(key);
            return take(cx, key, (end, 1), false);
        }
    }
    cx.wait(keys(), timeout_ms, OwnedArgs::copy_of(args), |reply| reply.null_array())
}
