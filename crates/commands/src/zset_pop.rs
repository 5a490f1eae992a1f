//! Members that are taken from the ends of sorted sets.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Command, Flags, KeyFlags, Keys};
use crate::zset::{BASE, reply_score};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Version;
use hypercache_stdx::number;
use hypercache_store::types::{SortedSet, SortedSetOp};

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
];

/// An end of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
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
pub(crate) fn take(
    cx: &mut Cx<'_>,
    key: &[u8],
    (end, count): (End, usize),
    in_pairs: bool,
) -> Outcome {
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

/// What ZMPOP is asked for; `first` is the number of the argument that counts the keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pop {
    pub(crate) keys: usize,
    pub(crate) end: End,
    pub(crate) count: usize,
}

impl Pop {
    pub(crate) fn parse(args: Args<'_>, first: usize) -> Result<Pop, ReplyError> {
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
    pub(crate) fn run(&self, cx: &mut Cx<'_>, args: Args<'_>, first: usize) -> Result<bool, ReplyError> {
        for i in first + 1..=first + self.keys {
            let key = args.get(i);
            let Some(len) = cx.keys.read_uncounted::<SortedSet>(key)?.map(SortedSet::len) else {
                continue;
            };
            cx.reply.array(2);
            cx.reply.bulk(key);
            cx.reply.array(self.count.min(len));
            take(cx, key, (self.end, self.count), true)?;
            return Ok(true);
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
