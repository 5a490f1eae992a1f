//! Ranges of sorted sets: by rank, by score, by member.
//!
//! Every command of these resolves what it is asked for into ranks ([`Span`]): then reading, storing,
//! counting and removing are the same for all.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::list::resolve_items;
use crate::table::{Command, Flags, KeyFlags, Keys};
use crate::zset::{BASE, READ, reply_head, reply_member};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::Ttl;
use hypercache_store::types::{Collection, Edge, Held, SortedSet, SortedSetOp};

const COUNTS: Flags = Flags::READONLY.or(Flags::FAST);
const REMOVED: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::DELETE));
pub(crate) const STORED: Keys = Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE));
pub(crate) const SOURCE: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) };

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "ZRANGE",
        since: "1.2.0",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form::ANY),
        summary: "Members from one rank, score or member to another, both included.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZRANGE z -2 -1\n1) \"b\"\n2) \"c\"\n> ZRANGE z (1 +inf BYSCORE LIMIT 0 1 WITHSCORES\n1) \"b\"\n2) \"2\"\n> ZRANGE z 0 0 REV\n1) \"c\"",
        ..BASE
    },
    Command {
        name: "ZRANGESTORE",
        since: "6.2.0",
        arity: -5,
        keys: Keys::Two(&STORED, &SOURCE),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: zrangestore,
        summary: "Stores a range as ZRANGE names it; answers how many members it has.",
        complexity: "O(log(N)+M*log(M)): M members are stored",
        syntax: "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZRANGESTORE y z 1 2\n(integer) 2\n> ZRANGE y 0 -1 WITHSCORES\n1) \"b\"\n2) \"2\"\n3) \"c\"\n4) \"3\"",
        ..BASE
    },
    Command {
        name: "ZREVRANGE",
        since: "1.2.0",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form { by: Some(By::Rank), is_reverse: Some(true) }),
        summary: "Members from one rank to another, counted from the greatest.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key start stop [WITHSCORES]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZREVRANGE z 0 1\n1) \"c\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "ZRANGEBYSCORE",
        since: "1.0.5",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form { by: Some(By::Score), is_reverse: Some(false) }),
        summary: "Members with scores within bounds.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key min max [WITHSCORES] [LIMIT offset count]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZRANGEBYSCORE z (1 3\n1) \"b\"\n2) \"c\"",
        ..BASE
    },
    Command {
        name: "ZREVRANGEBYSCORE",
        since: "2.2.0",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form { by: Some(By::Score), is_reverse: Some(true) }),
        summary: "Members with scores within bounds, from the greatest on.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key max min [WITHSCORES] [LIMIT offset count]",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZREVRANGEBYSCORE z +inf 2\n1) \"c\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "ZRANGEBYLEX",
        since: "2.8.9",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form { by: Some(By::Member), is_reverse: Some(false) }),
        summary: "Members within bounds, of a set whose scores are all the same.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key min max [LIMIT offset count]",
        examples: "> ZADD z 0 a 0 b 0 c\n(integer) 3\n> ZRANGEBYLEX z (a +\n1) \"b\"\n2) \"c\"",
        ..BASE
    },
    Command {
        name: "ZREVRANGEBYLEX",
        since: "2.8.9",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, Form { by: Some(By::Member), is_reverse: Some(true) }),
        summary: "Members within bounds from the last on, of a set whose scores are all the same.",
        complexity: "O(log(N)+M): M members are answered",
        syntax: "key max min [LIMIT offset count]",
        examples: "> ZADD z 0 a 0 b 0 c\n(integer) 3\n> ZREVRANGEBYLEX z [b -\n1) \"b\"\n2) \"a\"",
        ..BASE
    },
    Command {
        name: "ZCOUNT",
        since: "2.0.0",
        arity: 4,
        keys: READ,
        flags: COUNTS,
        run: |cx, args| count(cx, args, By::Score),
        summary: "How many members have scores within bounds.",
        complexity: "O(log(N))",
        syntax: "key min max",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZCOUNT z (1 3\n(integer) 2",
        ..BASE
    },
    Command {
        name: "ZLEXCOUNT",
        since: "2.8.9",
        arity: 4,
        keys: READ,
        flags: COUNTS,
        run: |cx, args| count(cx, args, By::Member),
        summary: "How many members are within bounds, of a set whose scores are all the same.",
        complexity: "O(log(N))",
        syntax: "key min max",
        examples: "> ZADD z 0 a 0 b 0 c\n(integer) 3\n> ZLEXCOUNT z - [b\n(integer) 2",
        ..BASE
    },
    Command {
        name: "ZREMRANGEBYRANK",
        since: "2.0.0",
        arity: 4,
        keys: REMOVED,
        flags: Flags::WRITE,
        run: |cx, args| remove(cx, args, By::Rank, Event::ZRemRangeByRank),
        summary: "Removes the members from one rank to another; answers how many.",
        complexity: "O(M*log(N)): M members are removed",
        syntax: "key start stop",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZREMRANGEBYRANK z 0 1\n(integer) 2",
        ..BASE
    },
    Command {
        name: "ZREMRANGEBYSCORE",
        since: "1.2.0",
        arity: 4,
        keys: REMOVED,
        flags: Flags::WRITE,
        run: |cx, args| remove(cx, args, By::Score, Event::ZRemRangeByScore),
        summary: "Removes the members with scores within bounds; answers how many.",
        complexity: "O(M*log(N)): M members are removed",
        syntax: "key min max",
        examples: "> ZADD z 1 a 2 b 3 c\n(integer) 3\n> ZREMRANGEBYSCORE z -inf (3\n(integer) 2",
        ..BASE
    },
    Command {
        name: "ZREMRANGEBYLEX",
        since: "2.8.9",
        arity: 4,
        keys: REMOVED,
        flags: Flags::WRITE,
        run: |cx, args| remove(cx, args, By::Member, Event::ZRemRangeByLex),
        summary: "Removes the members within bounds, of a set whose scores are all the same.",
        complexity: "O(M*log(N)): M members are removed",
        syntax: "key min max",
        examples: "> ZADD z 0 a 0 b 0 c\n(integer) 3\n> ZREMRANGEBYLEX z [a (c\n(integer) 2",
        ..BASE
    },
];

/// What bounds are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// What a command's name says of its range; the rest is said by options.
#[derive(Clone, Copy, Debug)]
struct Form {
    by: Option<By>,
    is_reverse: Option<bool>,
}

impl Form {
    const ANY: Form = Form { by: None, is_reverse: None };
}

/// An end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LexBound<'a> {
    First,
    Last,
    At { member: &'a [u8], is_inside: bool },
}

/// Bounds, read.
#[derive(Clone, Copy, Debug)]
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores { min: (f64, bool), max: (f64, bool) },
    Members(LexBound<'a>, LexBound<'a>),
}

/// Members next to each other: the rank of the first one in the direction asked for, and how many.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    rank: usize,
    len: usize,
}

/// Reads a score as a bound: as C's `strtod` does, which is laxer than scores are elsewhere.
fn parse_limit(text: &[u8]) -> Option<(f64, bool)> {
    let (text, is_inside) = match text {
        [b'(', rest @ ..] => (rest, false),
        _ => (text, true),
    };
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    if text.is_empty() {
        return Some((0.0, is_inside));
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let text = std::str::from_utf8(&text[start..]).ok()?;
    let limit = text.parse().ok().or_else(|| number::parse_f64(text.as_bytes()))?;
    (!f64::is_nan(limit)).then_some((limit, is_inside))
}

impl<'a> LexBound<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            [b'-'] | [b'-', 0, ..] => Some(LexBound::First),
            [b'+'] | [b'+', 0, ..] => Some(LexBound::Last),
            [b'(', member @ ..] => Some(LexBound::At { member, is_inside: false }),
            [b'[', member @ ..] => Some(LexBound::At { member, is_inside: true }),
            _ => None,
        }
    }

    /// Whether a member is not before this lower bound.
    fn is_below(&self, other: &[u8]) -> bool {
        match *self {
            LexBound::First => true,
            LexBound::Last => false,
            LexBound::At { member, is_inside } => other > member || is_inside && other == member,
        }
    }

    /// Whether a member is not behind this upper bound.
    fn is_above(&self, other: &[u8]) -> bool {
        match *self {
            LexBound::First => false,
            LexBound::Last => true,
            LexBound::At { member, is_inside } => other < member || is_inside && other == member,
        }
    }

    /// How many members are before it, where `counts_equal` is for a bound that is a member.
    fn count_before(&self, set: &SortedSet, counts_equal: bool) -> usize {
        match *self {
            LexBound::First => 0,
            LexBound::Last => set.len(),
            LexBound::At { member, is_inside } => {
                let is_behind = is_inside == counts_equal;
                set.count_before(Edge::Member { limit: member, is_behind })
            }
        }
    }
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self, ReplyError> {
        let rank = |text| number::parse_i64(text).ok_or(ReplyError::NotAnInteger);
        let pair = match by {
            By::Rank => return Ok(Bounds::Ranks(rank(min)?, rank(max)?)),
            By::Score => {
                parse_limit(min).zip(parse_limit(max)).map(|(min, max)| Bounds::Scores { min, max })
            }
            By::Member => LexBound::parse(min)
                .zip(LexBound::parse(max))
                .map(|(min, max)| Bounds::Members(min, max)),
        };
        pair.ok_or(ReplyError::Text(match by {
            By::Member => "ERR min or max not valid string range item",
            By::Score | By::Rank => "ERR min or max is not a float",
        }))
    }

    /// Where in a set they are, without the first `offset` members; ranks know of no offset.
    fn span(&self, set: &SortedSet, is_reverse: bool, offset: i64) -> Span {
        let len = set.len();
        match *self {
            Bounds::Ranks(start, stop) => {
                let (first, count) = resolve_items(start, stop, len);
                let rank = if is_reverse && count > 0 { len - 1 - first } else { first };
                Span { rank, len: count }
            }
            Bounds::Scores { min, max } => {
                let start = set.count_before(Edge::Score { limit: min.0, is_behind: !min.1 });
                let end = set.count_before(Edge::Score { limit: max.0, is_behind: max.1 });
                Span::between(start, end, is_reverse).behind(offset, is_reverse)
            }
            Bounds::Members(min, max) if set.is_small() => {
                few(set, (min, max), is_reverse, usize::try_from(offset).unwrap_or(usize::MAX))
            }
            Bounds::Members(min, max) => {
                let start = min.count_before(set, false);
                let end = max.count_before(set, true);
                Span::between(start, end, is_reverse).behind(offset, is_reverse)
            }
        }
    }
}

/// Members within bounds of a small set by looking at each, which has a meaning, that of Redis, also
/// when scores differ: from the first that is not too small on, as long as none is too large. Those
/// that `offset` passes over may be.
fn few(
    set: &SortedSet,
    (min, max): (LexBound<'_>, LexBound<'_>),
    is_reverse: bool,
    offset: usize,
) -> Span {
    let Some(last_rank) = set.len().checked_sub(1) else { return Span::default() };
    let is_first_below = set.get(0).is_some_and(|(member, _)| max.is_above(member));
    let is_last_above = set.get(last_rank).is_some_and(|(member, _)| min.is_below(member));
    if !is_first_below || !is_last_above {
        return Span::default();
    }
    let starts = |m: &[u8]| if is_reverse { max.is_above(m) } else { min.is_below(m) };
    let goes_on = |m: &[u8]| if is_reverse { min.is_below(m) } else { max.is_above(m) };
    let all = || set.range(if is_reverse { last_rank } else { 0 }, usize::MAX, is_reverse);
    let before = all().take_while(|(member, _)| !starts(member)).count();
    if !all().nth(before).is_some_and(|(member, _)| goes_on(member)) {
        return Span::default();
    }
    let skipped = before.saturating_add(offset);
    let len = all().skip(skipped).take_while(|(member, _)| goes_on(member)).count();
    if len == 0 {
        return Span::default();
    }
    Span { rank: if is_reverse { last_rank - skipped } else { skipped }, len }
}

impl Span {
    fn between(start: usize, end: usize, is_reverse: bool) -> Self {
        match end.checked_sub(start).filter(|len| *len > 0) {
            None => Span::default(),
            Some(len) => Span { rank: if is_reverse { end - 1 } else { start }, len },
        }
    }

    /// What is left behind the first `offset`; nothing if that is negative.
    fn behind(self, offset: i64, is_reverse: bool) -> Self {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.len.checked_sub(skipped).filter(|len| *len > 0) {
            None => Span::default(),
            Some(len) if is_reverse => Span { rank: self.rank - skipped, len },
            Some(len) => Span { rank: self.rank + skipped, len },
        }
    }
}

/// A range as ZRANGE and its like are asked for it.
#[derive(Debug)]
struct Query<'a> {
    bounds: Bounds<'a>,
    is_reverse: bool,
    offset: i64,
    count: i64,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// Reads the bounds, which are at `at`, and the options behind them.
    fn parse(args: Args<'a>, at: usize, form: Form, may_score: bool) -> Result<Self, ReplyError> {
        let (mut by, mut is_reverse) = (form.by, form.is_reverse);
        let (mut offset, mut count, mut with_scores) = (0, -1, false);
        let is_free = form.by.is_none();
        let mut i = at + 2;
        while i < args.len() {
            match &args.get(i).to_ascii_uppercase()[..] {
                b"WITHSCORES" if may_score => with_scores = true,
                b"LIMIT" if i + 2 < args.len() => {
                    let number = |i| number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger);
                    (offset, count) = (number(i + 1)?, number(i + 2)?);
                    i += 2;
                }
                b"REV" if is_free && is_reverse.is_none() => is_reverse = Some(true),
                b"BYLEX" if by.is_none() => by = Some(By::Member),
                b"BYSCORE" if by.is_none() => by = Some(By::Score),
                _ => return Err(ReplyError::Syntax),
            }
            i += 1;
        }
        let (by, is_reverse) = (by.unwrap_or(By::Rank), is_reverse.unwrap_or(false));
        if by == By::Rank && count != -1 {
            return Err(ReplyError::Text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if by == By::Member && with_scores {
            return Err(ReplyError::Text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let swaps = is_reverse && by != By::Rank;
        let (min, max) = if swaps { (at + 1, at) } else { (at, at + 1) };
        let bounds = Bounds::parse(by, args.get(min), args.get(max))?;
        Ok(Query { bounds, is_reverse, offset, count, with_scores })
    }

    fn members<'s>(&self, set: &'s SortedSet) -> impl ExactSizeIterator<Item = (&'s [u8], f64)> {
        let span = self.bounds.span(set, self.is_reverse, self.offset);
        let len = usize::try_from(self.count).map_or(span.len, |count| span.len.min(count));
        set.range(span.rank, len, self.is_reverse)
    }
}

fn range(cx: &mut Cx<'_>, args: Args<'_>, form: Form) -> Outcome {
    let query = Query::parse(args, 2, form, true)?;
    let Some(set) = cx.keys.read::<SortedSet>(args.get(1))? else {
        cx.reply.array(0);
        return Ok(());
    };
    let members = query.members(set);
    reply_head(&mut cx.reply, members.len(), query.with_scores);
    members.for_each(|(member, score)| {
        reply_member(&mut cx.reply, member, query.with_scores.then_some(score));
    });
    Ok(())
}

fn zrangestore(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let query = Query::parse(args, 3, Form::ANY, false)?;
    let mut result = SortedSet::default();
    if let Some(set) = cx.keys.read::<SortedSet>(args.get(2))? {
        for (member, score) in query.members(set) {
            result.apply(SortedSetOp::Put(score, member));
        }
    }
    store(cx, args.get(1), result, Event::ZRangeStore);
    Ok(())
}

/// Stores a result, and answers how many members it has.
pub(crate) fn store(cx: &mut Cx<'_>, key: &[u8], result: SortedSet, event: Event) {
    let len = result.len();
    // The target may be past its time; then its end comes first.
    cx.keys.exists(key);
    cx.keys.put_object(key, result.into_object(), Ttl::Clear, event);
    cx.reply.int(len as i64);
}

fn count(cx: &mut Cx<'_>, args: Args<'_>, by: By) -> Outcome {
    let bounds = Bounds::parse(by, args.get(2), args.get(3))?;
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    let count = set.map_or(0, |set| bounds.span(set, false, 0).len);
    cx.reply.int(count as i64);
    Ok(())
}

fn remove(cx: &mut Cx<'_>, args: Args<'_>, by: By, event: Event) -> Outcome {
    let (key, bounds) = (args.get(1), Bounds::parse(by, args.get(2), args.get(3))?);
    let set = cx.keys.read_uncounted::<SortedSet>(key)?;
    let span = set.map_or_else(Span::default, |set| bounds.span(set, false, 0));
    if span.len > 0 {
        cx.keys.edit::<SortedSet, _>(key, |set| {
            for _ in 0..span.len {
                let member = set.get(span.rank).map(|(member, _)| member.to_vec());
                member.into_iter().for_each(|member| {
                    set.apply(SortedSetOp::Remove(&member));
                });
            }
            set.event(event);
        })?;
    }
    cx.reply.int(span.len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_c_reads_them() {
        assert_eq!(parse_limit(b"(1.5"), Some((1.5, false)));
        assert_eq!(parse_limit(b""), Some((0.0, true)));
        assert_eq!(parse_limit(b"("), Some((0.0, false)));
        assert_eq!(parse_limit(b" 1"), Some((1.0, true)));
        assert_eq!(parse_limit(b"-INF"), Some((f64::NEG_INFINITY, true)));
        assert_eq!(parse_limit(b"1e400"), Some((f64::INFINITY, true)));
        assert_eq!(parse_limit(b"0x10"), Some((16.0, true)));
        for text in [&b"nan"[..], b" ", b"1 ", b"((1", b"abc", b"1x"] {
            assert_eq!(parse_limit(text), None, "{}", text.escape_ascii());
        }
    }
}
