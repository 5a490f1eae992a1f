//! Union, intersection and difference of sorted sets and sets.
//!
//! Scores are combined in the order in which Redis does it, by the sets' sizes, since sums of doubles
//! depend on it. One command is one step, as in Redis.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Command, Flags, KeyFlags, Keys};
use crate::zset::{BASE, reply_head, reply_member};
use crate::zset_range::{STORED, store};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::types::{Collection, Kind, Set, SortedSet, SortedSetOp};
use std::collections::HashMap;

const INPUT: KeyFlags = KeyFlags::RO.or(KeyFlags::ACCESS);
const INPUTS: Keys = Keys::Counted { count: 1, flags: INPUT };
const STORED_INPUTS: Keys = Keys::Counted { count: 2, flags: INPUT };
const STORES: Keys = Keys::Two(&STORED, &STORED_INPUTS);
const READS: Flags = Flags::READONLY.or(Flags::MOVABLE_KEYS);
const WRITES: Flags = Flags::WRITE.or(Flags::DENY_OOM).or(Flags::MOVABLE_KEYS);
const UNION_COST: &str = "O(N)+O(M*log(M)): N members in all sets, M in the result";
const INTER_COST: &str = "O(N*K)+O(M*log(M)): N members in the smallest of K sets, M in the result";

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "ZUNION",
        since: "6.2.0",
        arity: -3,
        keys: INPUTS,
        flags: READS,
        run: |cx, args| answer(cx, args, Operation::Union),
        summary: "The members of all sets, with their scores combined.",
        complexity: UNION_COST,
        syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZUNION 2 a b WITHSCORES\n1) \"x\"\n2) \"1\"\n3) \"y\"\n4) \"5\"",
        ..BASE
    },
    Command {
        name: "ZUNIONSTORE",
        since: "2.0.0",
        arity: -4,
        keys: STORES,
        flags: WRITES,
        run: |cx, args| combine_and_store(cx, args, Operation::Union),
        summary: "Stores the members of all sets, with their scores combined; answers how many.",
        complexity: UNION_COST,
        syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZUNIONSTORE c 2 a b WEIGHTS 1 10 AGGREGATE MAX\n(integer) 2\n> ZSCORE c y\n\"30\"",
        ..BASE
    },
    Command {
        name: "ZINTER",
        since: "6.2.0",
        arity: -3,
        keys: INPUTS,
        flags: READS,
        run: |cx, args| answer(cx, args, Operation::Intersection),
        summary: "The members that all sets have, with their scores combined.",
        complexity: INTER_COST,
        syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZINTER 2 a b WITHSCORES\n1) \"y\"\n2) \"5\"",
        ..BASE
    },
    Command {
        name: "ZINTERSTORE",
        since: "2.0.0",
        arity: -4,
        keys: STORES,
        flags: WRITES,
        run: |cx, args| combine_and_store(cx, args, Operation::Intersection),
        summary: "Stores the members that all sets have, with their scores combined; answers how many.",
        complexity: INTER_COST,
        syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> SADD b y\n(integer) 1\n> ZINTERSTORE c 2 a b\n(integer) 1\n> ZSCORE c y\n\"3\"",
        ..BASE
    },
    Command {
        name: "ZINTERCARD",
        since: "7.0.0",
        arity: -3,
        keys: INPUTS,
        flags: READS,
        run: zintercard,
        summary: "How many members all sets have, counted up to a limit if there is one.",
        complexity: "O(N*K): N members in the smallest of K sets",
        syntax: "numkeys key [key ...] [LIMIT limit]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZINTERCARD 2 a b\n(integer) 1",
        ..BASE
    },
    Command {
        name: "ZDIFF",
        since: "6.2.0",
        arity: -3,
        keys: INPUTS,
        flags: READS,
        run: |cx, args| answer(cx, args, Operation::Difference),
        summary: "The members of the first set that no other has.",
        complexity: "O(N*K): N members in the first of K sets",
        syntax: "numkeys key [key ...] [WITHSCORES]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZDIFF 2 a b\n1) \"x\"",
        ..BASE
    },
    Command {
        name: "ZDIFFSTORE",
        since: "6.2.0",
        arity: -4,
        keys: STORES,
        flags: WRITES,
        run: |cx, args| combine_and_store(cx, args, Operation::Difference),
        summary: "Stores the members of the first set that no other has; answers how many.",
        complexity: "O(N*K): N members in the first of K sets",
        syntax: "destination numkeys key [key ...]",
        examples: "> ZADD a 1 x 2 y\n(integer) 2\n> ZADD b 3 y\n(integer) 1\n> ZDIFFSTORE c 2 a b\n(integer) 1",
        ..BASE
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

impl Operation {
    fn event(self) -> Event {
        match self {
            Operation::Union => Event::ZUnionStore,
            Operation::Intersection => Event::ZInterStore,
            Operation::Difference => Event::ZDiffStore,
        }
    }
}

/// How the scores of a member are made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // That of infinities with different signs is 0.
            Aggregate::Sum => number_or_zero(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What is combined: a sorted set, a set whose members have the score 1, or nothing.
#[derive(Clone, Copy, Debug)]
enum Source<'s> {
    Nothing,
    Set(&'s Set),
    Sorted(&'s SortedSet),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Nothing => 0,
            Source::Set(set) => set.len(),
            Source::Sorted(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Nothing => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::Sorted(set) => set.score(member),
        }
    }

    /// Calls `f` with every member and its score until it returns false.
    fn each_while(&self, mut f: impl FnMut(&[u8], f64) -> bool) {
        match self {
            Source::Nothing => {}
            Source::Set(set) => set.each_while(|member| f(member, 1.0)),
            Source::Sorted(set) => {
                set.iter().all(|(member, score)| f(member, score));
            }
        }
    }
}

/// Sets with their weights.
type Inputs<'s> = [(Source<'s>, f64)];

/// What is said behind the keys.
#[derive(Clone, Debug)]
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// How many keys follow argument `at`.
fn key_count(cx: &mut Cx<'_>, args: Args<'_>, at: usize) -> Result<usize, ReplyError> {
    let count = number::parse_i64(args.get(at)).ok_or(ReplyError::NotAnInteger)?;
    if count < 1 {
        let name = &cx.entry.full_name;
        let text = format!("ERR at least 1 input key is needed for '{name}' command");
        cx.reply.error(text.as_bytes());
        return Err(ReplyError::Written);
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > args.len() - at - 1 { Err(ReplyError::Syntax) } else { Ok(count) }
}

/// Looks at the keys behind argument `at`: that they are sets of either type, expired or used.
fn look_up(cx: &mut Cx<'_>, args: Args<'_>, at: usize, count: usize) -> Outcome {
    for i in at + 1..=at + count {
        let kind = cx.keys.get(args.get(i)).map(|entry| entry.kind());
        if !matches!(kind, None | Some(Kind::Set | Kind::SortedSet)) {
            return Err(ReplyError::WrongType);
        }
    }
    Ok(())
}

/// The sets of keys that were looked at.
fn sources<'s>(cx: &'s Cx<'_>, args: Args<'_>, at: usize, count: usize) -> Vec<Source<'s>> {
    let source = |i| {
        let key = args.get(i);
        let sorted = cx.keys.seen::<SortedSet>(key).map(Source::Sorted);
        sorted.or_else(|| cx.keys.seen::<Set>(key).map(Source::Set)).unwrap_or(Source::Nothing)
    };
    (at + 1..=at + count).map(source).collect()
}

impl Options {
    fn parse(
        args: Args<'_>,
        mut at: usize,
        keys: usize,
        (is_difference, is_stored): (bool, bool),
    ) -> Result<Options, ReplyError> {
        let weights = vec![1.0; keys];
        let mut o = Options { weights, aggregate: Aggregate::Sum, with_scores: false };
        while at < args.len() {
            let left = args.len() - at - 1;
            match &args.get(at).to_ascii_uppercase()[..] {
                b"WEIGHTS" if !is_difference && left >= keys => {
                    for weight in &mut o.weights {
                        at += 1;
                        *weight = number::parse_f64(args.get(at))
                            .ok_or(ReplyError::Text("ERR weight value is not a float"))?;
                    }
                }
                b"AGGREGATE" if !is_difference && left >= 1 => {
                    at += 1;
                    o.aggregate = match &args.get(at).to_ascii_uppercase()[..] {
                        b"SUM" => Aggregate::Sum,
                        b"MIN" => Aggregate::Min,
                        b"MAX" => Aggregate::Max,
                        _ => return Err(ReplyError::Syntax),
                    };
                }
                b"WITHSCORES" if !is_stored => o.with_scores = true,
                _ => return Err(ReplyError::Syntax),
            }
            at += 1;
        }
        Ok(o)
    }
}

/// Reads a command whose keys are counted by argument `at`, and combines their sets.
fn combine(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    at: usize,
    operation: Operation,
) -> Result<(SortedSet, bool), ReplyError> {
    let keys = key_count(cx, args, at)?;
    look_up(cx, args, at, keys)?;
    let form = (operation == Operation::Difference, at > 1);
    let options = Options::parse(args, at + 1 + keys, keys, form)?;
    let sources = sources(cx, args, at, keys);
    let mut inputs: Vec<_> = sources.into_iter().zip(options.weights).collect();
    let result = match operation {
        Operation::Difference => difference(&inputs),
        _ => {
            inputs.sort_by_key(|(source, _)| source.len());
            match operation {
                Operation::Union => union(&inputs, options.aggregate),
                _ => intersection(&inputs, options.aggregate),
            }
        }
    };
    Ok((result, options.with_scores))
}

fn union(inputs: &Inputs<'_>, aggregate: Aggregate) -> SortedSet {
    let mut scores: HashMap<Vec<u8>, f64> = HashMap::new();
    for (source, weight) in inputs {
        source.each_while(|member, score| {
            let score = number_or_zero(weight * score);
            match scores.get_mut(member) {
                Some(sum) => *sum = aggregate.of(*sum, score),
                None => drop(scores.insert(member.to_vec(), score)),
            }
            true
        });
    }
    let mut result = SortedSet::wide();
    for (member, score) in &scores {
        result.apply(SortedSetOp::Put(*score, member));
    }
    result
}

fn intersection(inputs: &Inputs<'_>, aggregate: Aggregate) -> SortedSet {
    let mut result = SortedSet::wide();
    let Some(((smallest, weight), others)) = inputs.split_first() else { return result };
    smallest.each_while(|member, score| {
        let first = number_or_zero(weight * score);
        let combined = others.iter().try_fold(first, |sum, (source, weight)| {
            Some(aggregate.of(sum, weight * source.score(member)?))
        });
        if let Some(score) = combined {
            result.apply(SortedSetOp::Put(score, member));
        }
        true
    });
    result
}

fn difference(inputs: &Inputs<'_>) -> SortedSet {
    let mut result = SortedSet::wide();
    let Some(((first, _), others)) = inputs.split_first() else { return result };
    first.each_while(|member, score| {
        if others.iter().all(|(source, _)| source.score(member).is_none()) {
            result.apply(SortedSetOp::Put(score, member));
        }
        true
    });
    result
}

fn answer(cx: &mut Cx<'_>, args: Args<'_>, operation: Operation) -> Outcome {
    let (result, with_scores) = combine(cx, args, 1, operation)?;
    reply_head(&mut cx.reply, result.len(), with_scores);
    for (member, score) in result.iter() {
        reply_member(&mut cx.reply, member, with_scores.then_some(score));
    }
    Ok(())
}

fn combine_and_store(cx: &mut Cx<'_>, args: Args<'_>, operation: Operation) -> Outcome {
    let (result, _) = combine(cx, args, 2, operation)?;
    store(cx, args.get(1), result.settled(), operation.event());
    Ok(())
}

fn zintercard(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let keys = key_count(cx, args, 1)?;
    look_up(cx, args, 1, keys)?;
    let mut limit = 0;
    for i in (2 + keys..args.len()).step_by(2) {
        if !args.get(i).eq_ignore_ascii_case(b"LIMIT") || i + 1 == args.len() {
            return Err(ReplyError::Syntax);
        }
        limit = number::parse_i64(args.get(i + 1))
            .filter(|n| *n >= 0)
            .ok_or(ReplyError::Text("ERR LIMIT can't be negative"))?;
    }
    let mut sources = sources(cx, args, 1, keys);
    sources.sort_by_key(Source::len);
    let mut count = 0;
    if let Some((smallest, others)) = sources.split_first() {
        smallest.each_while(|member, _| {
            count += i64::from(others.iter().all(|other| other.score(member).is_some()));
            count == 0 || count != limit
        });
    }
    cx.reply.int(count);
    Ok(())
}
