//! Sorted sets: members one by one. Ranges are in [`crate::zset_range`], what is taken from the ends
//! in [`crate::zset_pop`], what is computed of several sets in [`crate::zset_algebra`].

use crate::context::Cx;
use crate::database::{Walked, parse_cursor, parse_scan};
use crate::error::{Outcome, ReplyError};
use crate::random::{self, Sample};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::{Reply, Version};
use hypercache_stdx::glob::glob_match;
use hypercache_stdx::number;
use hypercache_stdx::rng::Rng;
use hypercache_store::types::{SortedSet, SortedSetDone, SortedSetOp};
use smallvec::SmallVec;

pub(crate) const BASE: Command =
    Command { group: Group::SortedSet, acl: Acl::SORTED_SET, ..Command::DEFAULT };
pub(crate) const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);
const RANDOM: &[&str] = &["nondeterministic_output"];

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "ZADD",
        since: "1.2.0",
        arity: -4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST.or(Flags::DENY_OOM),
        run: zadd,
        summary: "Gives members scores; answers how many are new, with CH how many changed.",
        complexity: "O(log(N)) for each member",
        syntax: "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZADD z CH 3 a 2 b\n(integer) 1\n> ZADD z INCR 1.5 a\n\"4.5\"\n> ZADD z NX 9 a\n(integer) 0\n> ZSCORE z a\n\"4.5\"",
        ..BASE
    },
    Command {
        name: "ZINCRBY",
        since: "1.2.0",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST.or(Flags::DENY_OOM),
        run: zincrby,
        summary: "Adds to a member's score, which is 0 if it is new; answers the sum.",
        complexity: "O(log(N))",
        syntax: "key increment member",
        examples: "> ZINCRBY z 2 a\n\"2\"\n> ZINCRBY z -0.5 a\n\"1.5\"",
        ..BASE
    },
    Command {
        name: "ZREM",
        since: "1.2.0",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: CHANGE_FAST,
        run: zrem,
        summary: "Removes members; answers how many there were.",
        complexity: "O(log(N)) for each member",
        syntax: "key member [member ...]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZREM z a x\n(integer) 1\n> ZREM z b\n(integer) 1\n> EXISTS z\n(integer) 0",
        ..BASE
    },
    Command {
        name: "ZSCORE",
        since: "1.2.0",
        arity: 3,
        keys: READ,
        flags: READ_FAST,
        run: zscore,
        summary: "A member's score.",
        syntax: "key member",
        examples: "> ZADD z 1.5 a\n(integer) 1\n> ZSCORE z a\n\"1.5\"\n> ZSCORE z b\n(nil)",
        ..BASE
    },
    Command {
        name: "ZMSCORE",
        since: "6.2.0",
        arity: -3,
        keys: READ,
        flags: READ_FAST,
        run: zmscore,
        summary: "The scores of several members.",
        complexity: "O(N) in the number of members named",
        syntax: "key member [member ...]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZMSCORE z b x a\n1) \"2\"\n2) (nil)\n3) \"1\"",
        ..BASE
    },
    Command {
        name: "ZCARD",
        since: "1.2.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: zcard,
        summary: "Number of members.",
        syntax: "key",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZCARD z\n(integer) 2\n> ZCARD x\n(integer) 0",
        ..BASE
    },
    Command {
        name: "ZRANK",
        since: "2.0.0",
        arity: -3,
        keys: READ,
        flags: READ_FAST,
        run: |cx, args| rank(cx, args, false),
        summary: "How many members are before one, and its score if that is asked for.",
        complexity: "O(log(N))",
        syntax: "key member [WITHSCORE]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZRANK z b\n(integer) 1\n> ZRANK z b WITHSCORE\n1) (integer) 1\n2) \"2\"\n> ZRANK z x\n(nil)",
        ..BASE
    },
    Command {
        name: "ZREVRANK",
        since: "2.0.0",
        arity: -3,
        keys: READ,
        flags: READ_FAST,
        run: |cx, args| rank(cx, args, true),
        summary: "How many members are behind one, and its score if that is asked for.",
        complexity: "O(log(N))",
        syntax: "key member [WITHSCORE]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZREVRANK z b\n(integer) 0",
        ..BASE
    },
    Command {
        name: "ZRANDMEMBER",
        since: "6.2.0",
        arity: -2,
        keys: READ,
        flags: Flags::READONLY,
        tips: RANDOM,
        run: zrandmember,
        summary: "Members at random: different ones, or with a negative count perhaps the same again.",
        complexity: "O(N*log(M)): N members are answered",
        syntax: "key [count [WITHSCORES]]",
        examples: "> ZADD z 1 a\n(integer) 1\n> ZRANDMEMBER z\n\"a\"\n> ZRANDMEMBER z -2 WITHSCORES\n1) \"a\"\n2) \"1\"\n3) \"a\"\n4) \"1\"",
        ..BASE
    },
    Command {
        name: "ZSCAN",
        since: "2.8.0",
        arity: -3,
        keys: READ,
        flags: Flags::READONLY,
        tips: RANDOM,
        run: zscan,
        summary: "Walks over the members in steps, each from the cursor that the one before gave.",
        complexity: "O(1) for each step; the whole walk is O(N)",
        syntax: "key cursor [MATCH pattern] [COUNT count]",
        examples: "> ZADD z 1 a 2 b\n(integer) 2\n> ZSCAN z 0 MATCH b*\n1) \"0\"\n2) 1) \"b\"\n   2) \"2\"",
        ..BASE
    },
];

/// Writes a score: a double, or in version 2 a string.
pub(crate) fn reply_score(reply: &mut Reply<'_>, score: f64) {
    let whole = score as i64;
    let is_whole = whole as f64 == score && whole.unsigned_abs() < 1 << 53;
    if is_whole && (whole != 0 || score.is_sign_positive()) {
        return reply.double_text(itoa::Buffer::new().format(whole).as_bytes());
    }
    let mut text = Vec::with_capacity(32);
    number::write_f64_resp3(score, &mut text);
    reply.double_text(&text);
}

/// The head of a list of members: pairs in version 3 if scores are wanted, one after the other in 2.
pub(crate) fn reply_head(reply: &mut Reply<'_>, len: usize, with_scores: bool) {
    let is_flat = reply.version() == Version::V2;
    reply.array(if with_scores && is_flat { 2 * len } else { len });
}

/// One of the members that [`reply_head`] announced.
pub(crate) fn reply_member(reply: &mut Reply<'_>, member: &[u8], score: Option<f64>) {
    let Some(score) = score else { return reply.bulk(member) };
    if reply.version() == Version::V3 {
        reply.array(2);
    }
    reply.bulk(member);
    reply_score(reply, score);
}

/// What ZADD and GEOADD are asked for beside scores and members.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddOptions {
    pub(crate) only_new: bool,
    pub(crate) only_there: bool,
    pub(crate) tells_changes: bool,
    pub(crate) only_greater: bool,
    pub(crate) only_less: bool,
    pub(crate) increments: bool,
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Added {
    /// Nothing, for a condition did not hold.
    Refused,
    /// It has this score, as it had before or not.
    Done(f64, SortedSetDone),
}

const NAN: ReplyError = ReplyError::Text("ERR resulting score is not a number (NaN)");

impl AddOptions {
    /// Reads the options from argument 2 on; returns the number of the first that is none.
    fn parse(args: Args<'_>) -> (AddOptions, usize) {
        let mut o = AddOptions::default();
        for i in 2..args.len() {
            let option = match args.get(i) {
                word if word.eq_ignore_ascii_case(b"NX") => &mut o.only_new,
                word if word.eq_ignore_ascii_case(b"XX") => &mut o.only_there,
                word if word.eq_ignore_ascii_case(b"CH") => &mut o.tells_changes,
                word if word.eq_ignore_ascii_case(b"INCR") => &mut o.increments,
                word if word.eq_ignore_ascii_case(b"GT") => &mut o.only_greater,
                word if word.eq_ignore_ascii_case(b"LT") => &mut o.only_less,
                _ => return (o, i),
            };
            *option = true;
        }
        (o, args.len())
    }

    fn check(&self, members: usize) -> Result<(), ReplyError> {
        if self.only_new && self.only_there {
            return Err(ReplyError::Text(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if [self.only_new, self.only_greater, self.only_less].iter().filter(|o| **o).count() > 1 {
            return Err(ReplyError::Text(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increments && members > 1 {
            return Err(ReplyError::Text(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }

    /// Whether a score is put whatever was there.
    fn is_plain(&self) -> bool {
        !(self.only_new
            || self.only_there
            || self.only_greater
            || self.only_less
            || self.increments)
    }

    /// The score that a member gets which has `old`; `None` if a condition does not hold.
    fn resolve(&self, old: Option<f64>, mut score: f64) -> Result<Option<f64>, ReplyError> {
        let Some(old) = old else { return Ok((!self.only_there).then_some(score)) };
        if self.only_new {
            return Ok(None);
        }
        if self.increments {
            score += old;
            if score.is_nan() {
                return Err(NAN);
            }
        }
        let is_refused = self.only_less && score >= old || self.only_greater && score <= old;
        Ok((!is_refused).then_some(score))
    }
}

/// Gives members scores; reports them as one event.
pub(crate) fn add(
    cx: &mut Cx<'_>,
    key: &[u8],
    options: AddOptions,
    members: &[(f64, &[u8])],
) -> Outcome {
    let (mut added, mut moved, mut last) = (0, 0, Added::Refused);
    cx.keys.edit::<SortedSet, _>(key, |set| {
        for &(score, member) in members {
            let score = match options.is_plain() {
                true => Some(score),
                false => options.resolve(set.score(member), score)?,
            };
            let Some(score) = score else { continue };
            let done = set.apply(SortedSetOp::Put(score, member));
            added += i64::from(done == SortedSetDone::Added);
            moved += i64::from(done == SortedSetDone::Moved);
            last = Added::Done(score, done);
        }
        if set.is_changed() {
            set.event(if options.increments { Event::ZIncr } else { Event::ZAdd });
        }
        Ok::<(), ReplyError>(())
    })??;
    match last {
        Added::Done(score, _) if options.increments => reply_score(&mut cx.reply, score),
        Added::Refused if options.increments => cx.reply.null(),
        _ => cx.reply.int(if options.tells_changes { added + moved } else { added }),
    }
    Ok(())
}

fn zadd(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (options, first) = AddOptions::parse(args);
    let values = args.len() - first;
    if values == 0 || !values.is_multiple_of(2) {
        return Err(ReplyError::Syntax);
    }
    options.check(values / 2)?;
    let mut members = SmallVec::<[(f64, &[u8]); 4]>::new();
    for i in (first..args.len()).step_by(2) {
        let score = number::parse_f64(args.get(i)).ok_or(ReplyError::NotAFloat)?;
        members.push((score, args.get(i + 1)));
    }
    add(cx, args.get(1), options, &members)
}

fn zincrby(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let increment = number::parse_f64(args.get(2)).ok_or(ReplyError::NotAFloat)?;
    let options = AddOptions { increments: true, ..AddOptions::default() };
    add(cx, args.get(1), options, &[(increment, args.get(3))])
}

fn zrem(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let removed = cx.keys.edit_if_there::<SortedSet, _>(args.get(1), |set| {
        let mut removed = 0;
        for member in args.iter_from(2) {
            removed += i64::from(set.apply(SortedSetOp::Remove(member)) != SortedSetDone::Nothing);
        }
        if removed > 0 {
            set.event(Event::ZRem);
        }
        removed
    })?;
    cx.reply.int(removed.unwrap_or(0));
    Ok(())
}

fn zscore(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    match set.and_then(|set| set.score(args.get(2))) {
        Some(score) => reply_score(&mut cx.reply, score),
        None => cx.reply.null(),
    }
    Ok(())
}

fn zmscore(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    cx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply_score(&mut cx.reply, score),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

fn zcard(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = cx.keys.read::<SortedSet>(args.get(1))?.map_or(0, SortedSet::len);
    cx.reply.int(len as i64);
    Ok(())
}

fn rank(cx: &mut Cx<'_>, args: Args<'_>, is_reverse: bool) -> Outcome {
    let with_score = match args.len() {
        3 => false,
        4 if args.get(3).eq_ignore_ascii_case(b"WITHSCORE") => true,
        // Redis 7.0 has no options here, later ones have this one only.
        _ => {
            return Err(ReplyError::Text(match is_reverse {
                false => "ERR wrong number of arguments for 'zrank' command",
                true => "ERR wrong number of arguments for 'zrevrank' command",
            }));
        }
    };
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    let found = set.and_then(|set| Some((set.rank(args.get(2))?, set.len())));
    let Some(((rank, score), len)) = found else {
        if with_score {
            cx.reply.null_array()
        } else {
            cx.reply.null()
        }
        return Ok(());
    };
    let rank = if is_reverse { len - 1 - rank } else { rank };
    if with_score {
        cx.reply.array(2);
    }
    cx.reply.int(rank as i64);
    if with_score {
        reply_score(&mut cx.reply, score);
    }
    Ok(())
}

/// The rank of a member at random.
fn draw(set: &SortedSet, rng: &mut Rng) -> usize {
    rng.below(set.len() as u64) as usize
}

fn zrandmember(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (count, with_scores) = parse_zrandmember(args)?;
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    let (reply, rng) = (&mut cx.reply, &mut cx.worker.rng);
    let Some(count) = count else {
        match set.and_then(|set| set.get(draw(set, rng))) {
            Some((member, _)) => reply.bulk(member),
            None => reply.null(),
        }
        return Ok(());
    };
    let Some(set) = set else {
        reply.array(0);
        return Ok(());
    };
    let write = |reply: &mut Reply<'_>, (member, score): (&[u8], f64)| {
        reply_member(reply, member, with_scores.then_some(score));
    };
    let sample = Sample::new(count, set.len());
    let is_flat = with_scores && reply.version() == Version::V2;
    if let Sample::Any(n) = sample {
        return random::repeat(reply, (n, if is_flat { 2 } else { 1 }), |reply| {
            set.get(draw(set, rng)).into_iter().for_each(|found| write(reply, found));
        });
    }
    reply_head(reply, sample.len(), with_scores);
    match sample {
        Sample::Most(wanted, len) => {
            let mut is_chosen = random::chooser(wanted, len, rng);
            set.iter().filter(|_| is_chosen(&())).for_each(|found| write(reply, found));
        }
        Sample::Few(n) => {
            let drawn = random::different(n, || Some(draw(set, rng)));
            let members = drawn.iter().filter_map(|rank| set.get(*rank));
            members.for_each(|found| write(reply, found));
        }
        Sample::All(_) | Sample::Any(_) => set.iter().for_each(|found| write(reply, found)),
    }
    Ok(())
}

/// How many are wanted, if that is said, and whether with their scores.
fn parse_zrandmember(args: Args<'_>) -> Result<(Option<i64>, bool), ReplyError> {
    if args.len() == 2 {
        return Ok((None, false));
    }
    let count = random::parse_count(args.get(2))?;
    let with_scores = match args.len() {
        3 => false,
        4 if args.get(3).eq_ignore_ascii_case(b"WITHSCORES") => true,
        _ => return Err(ReplyError::Syntax),
    };
    if with_scores && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(ReplyError::Text("ERR value is out of range"));
    }
    Ok((Some(count), with_scores))
}

fn zscan(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut cursor = parse_cursor(args.get(2)).ok_or(ReplyError::Text("ERR invalid cursor"))?;
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    if let Some(set) = cx.keys.read::<SortedSet>(args.get(1))? {
        let options = parse_scan(args, Walked::Members)?;
        cursor = set.scan(cursor, options.count, |member, score| {
            if options.pattern.is_none_or(|p| glob_match(p, member, false)) {
                found.push((member.to_vec(), score));
            }
        });
    } else {
        cursor = 0;
    }
    cx.reply.array(2);
    cx.reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    cx.reply.array(2 * found.len());
    let mut text = Vec::new();
    for (member, score) in &found {
        cx.reply.bulk(member);
        text.clear();
        number::write_f64_resp3(*score, &mut text);
        cx.reply.bulk(&text);
    }
    Ok(())
}
