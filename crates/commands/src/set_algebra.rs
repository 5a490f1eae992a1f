//! Intersection, union and difference of sets.
//!
//! An intersection walks the smallest set and asks the others, those first that are smaller. One
//! command is one step, as in Redis: cutting the work of huge sets into slices is not done yet.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::set::{BASE, reply_set};
use crate::table::{Command, Flags, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::Ttl;
use hypercache_store::types::{Collection, Held, Set, SetOp};
use std::ops::Range;

const READ: KeyFlags = KeyFlags::RO.or(KeyFlags::ACCESS);
const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1, flags: READ };
const SOURCES: Keys = Keys::Range { first: 2, last: -1, step: 1, flags: READ };
const UPDATED: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE));
const OVERWRITTEN: Keys = Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE));
const STORES: Flags = Flags::WRITE.or(Flags::DENY_OOM);
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SINTER",
        tips: ANY_ORDER,
        arity: -2,
        keys: ALL,
        flags: Flags::READONLY,
        run: |cx, args| answer(cx, args, intersection),
        summary: "The members that all sets have.",
        complexity: "O(N*M): N members in the smallest of M sets",
        syntax: "key [key ...]",
        examples: "> SADD a 1 2 3\n(integer) 3\n> SADD b 2 3 4\n(integer) 3\n> SINTER a b\n1) \"2\"\n2) \"3\"",
        ..BASE
    },
    Command {
        name: "SINTERSTORE",
        arity: -3,
        keys: Keys::Two(&UPDATED, &SOURCES),
        flags: STORES,
        run: |cx, args| store(cx, args, intersection, Event::SInterStore),
        summary: "Stores the members that all sets have; answers how many.",
        complexity: "O(N*M): N members in the smallest of M sets",
        syntax: "destination key [key ...]",
        examples: "> SADD a 1 2 3\n(integer) 3\n> SADD b 2 3 4\n(integer) 3\n> SINTERSTORE c a b\n(integer) 2\n> SCARD c\n(integer) 2",
        ..BASE
    },
    Command {
        name: "SINTERCARD",
        since: "7.0.0",
        arity: -3,
        keys: Keys::Counted { count: 1, flags: READ },
        flags: Flags::READONLY.or(Flags::MOVABLE_KEYS),
        run: sintercard,
        summary: "How many members all sets have, counted up to a limit if there is one.",
        complexity: "O(N*M): N members in the smallest of M sets",
        syntax: "numkeys key [key ...] [LIMIT limit]",
        examples: "> SADD a 1 2 3\n(integer) 3\n> SADD b 2 3 4\n(integer) 3\n> SINTERCARD 2 a b\n(integer) 2\n> SINTERCARD 2 a b LIMIT 1\n(integer) 1",
        ..BASE
    },
    Command {
        name: "SUNION",
        tips: ANY_ORDER,
        arity: -2,
        keys: ALL,
        flags: Flags::READONLY,
        run: |cx, args| answer(cx, args, union),
        summary: "The members that any of the sets has.",
        complexity: "O(N) in the number of members of all sets",
        syntax: "key [key ...]",
        examples: "> SADD a 1 2\n(integer) 2\n> SADD b 2 3\n(integer) 2\n> SUNION a b\n1) \"1\"\n2) \"2\"\n3) \"3\"",
        ..BASE
    },
    Command {
        name: "SUNIONSTORE",
        arity: -3,
        keys: Keys::Two(&OVERWRITTEN, &SOURCES),
        flags: STORES,
        run: |cx, args| store(cx, args, union, Event::SUnionStore),
        summary: "Stores the members that any of the sets has; answers how many.",
        complexity: "O(N) in the number of members of all sets",
        syntax: "destination key [key ...]",
        examples: "> SADD a 1 2\n(integer) 2\n> SADD b 2 3\n(integer) 2\n> SUNIONSTORE c a b\n(integer) 3",
        ..BASE
    },
    Command {
        name: "SDIFF",
        tips: ANY_ORDER,
        arity: -2,
        keys: ALL,
        flags: Flags::READONLY,
        run: |cx, args| answer(cx, args, difference),
        summary: "The members of the first set that no other has.",
        complexity: "O(N) in the number of members of all sets, or less",
        syntax: "key [key ...]",
        examples: "> SADD a 1 2 3\n(integer) 3\n> SADD b 2\n(integer) 1\n> SDIFF a b\n1) \"1\"\n2) \"3\"",
        ..BASE
    },
    Command {
        name: "SDIFFSTORE",
        arity: -3,
        keys: Keys::Two(&OVERWRITTEN, &SOURCES),
        flags: STORES,
        run: |cx, args| store(cx, args, difference, Event::SDiffStore),
        summary: "Stores the members of the first set that no other has; answers how many.",
        complexity: "O(N) in the number of members of all sets, or less",
        syntax: "destination key [key ...]",
        examples: "> SADD a 1 2 3\n(integer) 3\n> SADD b 2\n(integer) 1\n> SDIFFSTORE c a b\n(integer) 2",
        ..BASE
    },
];

/// Sets of which there may be none under a key.
type Sets<'s> = [Option<&'s Set>];

/// Makes a set of several.
type Combine = fn(&Sets<'_>) -> Set;

/// Calls `f` with the sets of the keys that are these arguments.
fn with_sets<R>(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    keys: Range<usize>,
    f: impl FnOnce(&Sets<'_>) -> R,
) -> Result<R, ReplyError> {
    // Every key is looked at first: its type, whether it is expired, and that it is used.
    for i in keys.clone() {
        cx.keys.read::<Set>(args.get(i))?;
    }
    let sets: Vec<Option<&Set>> = keys.map(|i| cx.keys.seen(args.get(i))).collect();
    Ok(f(&sets))
}

/// Calls `f` with the members that all sets have, until it returns false.
fn each_common(sets: &Sets<'_>, f: &mut dyn FnMut(&[u8]) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else { return };
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    smallest.each_while(|member| !others.iter().all(|set| set.contains(member)) || f(member));
}

fn intersection(sets: &Sets<'_>) -> Set {
    let mut result = Set::default();
    each_common(sets, &mut |member| {
        result.apply(SetOp::Add(member));
        true
    });
    result
}

fn union(sets: &Sets<'_>) -> Set {
    let mut result = Set::default();
    for set in sets.iter().flatten() {
        set.each(|member| {
            result.apply(SetOp::Add(member));
        });
    }
    result
}

fn difference(sets: &Sets<'_>) -> Set {
    let Some((Some(first), others)) = sets.split_first() else { return Set::default() };
    let others: Vec<&Set> = others.iter().copied().flatten().collect();
    let others_len: usize = others.iter().map(|set| set.len()).sum();
    // Each member of the first is asked for in the others, or the others' members are taken out of a
    // copy: whichever is less.
    if first.len() * others.len() <= first.len() + others_len {
        let mut result = Set::default();
        first.each(|member| {
            if !others.iter().any(|set| set.contains(member)) {
                result.apply(SetOp::Add(member));
            }
        });
        return result;
    }
    let mut result = (*first).clone();
    for set in others {
        set.each(|member| {
            result.apply(SetOp::Remove(member));
        });
    }
    result
}

fn answer(cx: &mut Cx<'_>, args: Args<'_>, combine: Combine) -> Outcome {
    let result = with_sets(cx, args, 1..args.len(), combine)?;
    reply_set(&mut cx.reply, &result);
    Ok(())
}

fn store(cx: &mut Cx<'_>, args: Args<'_>, combine: Combine, event: Event) -> Outcome {
    let result = with_sets(cx, args, 2..args.len(), combine)?;
    let len = result.len();
    // The target may be past its time; then its end comes first.
    cx.keys.exists(args.get(1));
    cx.keys.put_object(args.get(1), result.into_object(), Ttl::Clear, event);
    cx.reply.int(len as i64);
    Ok(())
}

fn sintercard(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (keys, limit) = parse_sintercard(args)?;
    let count = with_sets(cx, args, 2..2 + keys, |sets| {
        let mut count = 0;
        each_common(sets, &mut |_| {
            count += 1;
            count != limit
        });
        count
    })?;
    cx.reply.int(count);
    Ok(())
}

/// How many keys there are, and the limit; 0 is none.
fn parse_sintercard(args: Args<'_>) -> Result<(usize, i64), ReplyError> {
    let keys = number::parse_i64(args.get(1)).and_then(|n| usize::try_from(n).ok());
    let keys = keys.filter(|n| *n > 0);
    let keys = keys.ok_or(ReplyError::Text("ERR numkeys should be greater than 0"))?;
    if keys > args.len() - 2 {
        return Err(ReplyError::Text("ERR Number of keys can't be greater than number of args"));
    }
    let mut limit = 0;
    for i in (2 + keys..args.len()).step_by(2) {
        if !args.get(i).eq_ignore_ascii_case(b"LIMIT") || i + 1 == args.len() {
            return Err(ReplyError::Syntax);
        }
        limit = number::parse_i64(args.get(i + 1))
            .filter(|n| *n >= 0)
            .ok_or(ReplyError::Text("ERR LIMIT can't be negative"))?;
    }
    Ok((keys, limit))
}
