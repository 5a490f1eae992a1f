//! Sets. What is computed of several of them is in [`crate::set_algebra`].

use crate::context::Cx;
use crate::database::{Walked, parse_cursor, parse_scan};
use crate::error::{Outcome, ReplyError};
use crate::random::{self, Sample};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::glob::glob_match;
use hypercache_stdx::number;
use hypercache_stdx::rng::Rng;
use hypercache_store::types::{Set, SetOp};

pub(crate) const BASE: Command = Command { group: Group::Set, acl: Acl::SET, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);
const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const TAKE: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE));
const INSERT: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RW.or(KeyFlags::INSERT) };
const MOVE: Keys = Keys::Two(&TAKE, &INSERT);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SADD",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: CHANGE_FAST.or(Flags::DENY_OOM),
        run: sadd,
        summary: "Adds members; answers how many are new.",
        complexity: "O(1) for each member",
        syntax: "key member [member ...]",
        examples: "> SADD s a b a\n(integer) 2\n> SADD s b c\n(integer) 1",
        ..BASE
    },
    Command {
        name: "SREM",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: CHANGE_FAST,
        run: srem,
        summary: "Removes members; answers how many there were.",
        complexity: "O(N) in the number of members named",
        syntax: "key member [member ...]",
        examples: "> SADD s a b\n(integer) 2\n> SREM s b x\n(integer) 1\n> SREM s a\n(integer) 1\n> EXISTS s\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SISMEMBER",
        arity: 3,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: sismember,
        summary: "Whether a member is in the set.",
        syntax: "key member",
        examples: "> SADD s a\n(integer) 1\n> SISMEMBER s a\n(integer) 1\n> SISMEMBER s b\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SMISMEMBER",
        since: "6.2.0",
        arity: -3,
        keys: READ,
        flags: READ_FAST,
        run: smismember,
        summary: "Whether each of several members is in the set.",
        complexity: "O(N) in the number of members named",
        syntax: "key member [member ...]",
        examples: "> SADD s a\n(integer) 1\n> SMISMEMBER s b a\n1) (integer) 0\n2) (integer) 1",
        ..BASE
    },
    Command {
        name: "SMEMBERS",
        tips: &["nondeterministic_output_order"],
        arity: 2,
        keys: READ,
        flags: Flags::READONLY,
        run: smembers,
        summary: "All members; of a set of integers in ascending order.",
        complexity: "O(N) in the number of members",
        syntax: "key",
        examples: "> SADD s 10 9 8\n(integer) 3\n> SMEMBERS s\n1) \"8\"\n2) \"9\"\n3) \"10\"",
        ..BASE
    },
    Command {
        name: "SCARD",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: scard,
        summary: "Number of members.",
        syntax: "key",
        examples: "> SADD s a b\n(integer) 2\n> SCARD s\n(integer) 2\n> SCARD x\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SPOP",
        tips: &["nondeterministic_output"],
        arity: -2,
        keys: TAKE,
        flags: CHANGE_FAST,
        run: spop,
        summary: "Takes a member at random, or several.",
        complexity: "O(N) in the number of members taken",
        syntax: "key [count]",
        examples: "> SADD s a\n(integer) 1\n> SPOP s\n\"a\"\n> SPOP s\n(nil)\n> SPOP s 2\n(empty array)",
        ..BASE
    },
    Command {
        name: "SRANDMEMBER",
        tips: &["nondeterministic_output"],
        arity: -2,
        keys: READ,
        flags: Flags::READONLY,
        run: srandmember,
        summary: "Members at random: one, several different ones, or with a negative count any.",
        complexity: "O(N) in the number of members answered",
        syntax: "key [count]",
        examples: "> SADD s a\n(integer) 1\n> SRANDMEMBER s\n\"a\"\n> SRANDMEMBER s -2\n1) \"a\"\n2) \"a\"",
        ..BASE
    },
    Command {
        name: "SMOVE",
        arity: 4,
        keys: MOVE,
        flags: CHANGE_FAST,
        run: smove,
        summary: "Moves a member to another set.",
        syntax: "source destination member",
        examples: "> SADD a x y\n(integer) 2\n> SMOVE a b x\n(integer) 1\n> SMOVE a b x\n(integer) 0\n> SMEMBERS b\n1) \"x\"",
        ..BASE
    },
    Command {
        name: "SSCAN",
        tips: &["nondeterministic_output"],
        since: "2.8.0",
        arity: -3,
        keys: READ,
        flags: Flags::READONLY,
        run: sscan,
        summary: "Walks the members, some at a time: until the cursor is 0 again.",
        complexity: "O(1) for each call, O(N) for a whole walk",
        syntax: "key cursor [MATCH pattern] [COUNT count]",
        examples: "> SADD s a\n(integer) 1\n> SSCAN s 0\n1) \"0\"\n2) 1) \"a\"",
        ..BASE
    },
];

fn sadd(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let added = cx.keys.edit::<Set, _>(args.get(1), |set| {
        let add = |member| i64::from(set.apply(SetOp::Add(member)));
        let added: i64 = args.iter_from(2).map(add).sum();
        if added > 0 {
            set.event(Event::SAdd);
        }
        added
    })?;
    cx.reply.int(added);
    Ok(())
}

fn srem(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let removed = cx.keys.edit_if_there::<Set, _>(args.get(1), |set| {
        let remove = |member| i64::from(set.apply(SetOp::Remove(member)));
        let removed: i64 = args.iter_from(2).map(remove).sum();
        if removed > 0 {
            set.event(Event::SRem);
        }
        removed
    })?;
    cx.reply.int(removed.unwrap_or(0));
    Ok(())
}

fn sismember(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let set = cx.keys.read::<Set>(args.get(1))?;
    let is_member = set.is_some_and(|set| set.contains(args.get(2)));
    cx.reply.int(i64::from(is_member));
    Ok(())
}

fn smismember(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let set = cx.keys.read::<Set>(args.get(1))?;
    cx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        cx.reply.int(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.read::<Set>(args.get(1))? {
        None => cx.reply.set(0),
        Some(set) => reply_set(&mut cx.reply, set),
    }
    Ok(())
}

/// Writes all members.
pub(crate) fn reply_set(reply: &mut Reply<'_>, set: &Set) {
    reply.set(set.len());
    set.each(|member| reply.bulk(member));
}

fn scard(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = cx.keys.read::<Set>(args.get(1))?.map_or(0, Set::len);
    cx.reply.int(len as i64);
    Ok(())
}

/// A copy of a member at random.
fn draw(set: &Set, rng: &mut Rng) -> Option<Vec<u8>> {
    set.random(&mut |n| rng.below(n), <[u8]>::to_vec)
}

fn spop(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let count = match args.len() {
        2 => None,
        3 => Some(pop_count(args.get(2))?),
        _ => return Err(ReplyError::Syntax),
    };
    let key = args.get(1);
    let Some(len) = cx.keys.read::<Set>(key)?.map(Set::len) else {
        match count {
            None => cx.reply.null(),
            Some(_) => cx.reply.set(0),
        }
        return Ok(());
    };
    let taken = count.unwrap_or(1).min(len);
    if count.is_some() {
        cx.reply.set(taken);
    }
    if taken == 0 {
        return Ok(());
    }
    let (reply, rng) = (&mut cx.reply, &mut cx.worker.rng);
    if taken == len {
        cx.keys.edit::<Set, _>(key, |set| {
            set.each(|member| reply.bulk(member));
            set.event(Event::SPop);
        })?;
        cx.keys.delete(key, Event::Del);
        return Ok(());
    }
    cx.keys.edit::<Set, _>(key, |set| {
        for _ in 0..taken {
            let Some(member) = draw(set, rng) else { break };
            reply.bulk(&member);
            set.apply(SetOp::Remove(&member));
        }
        set.event(Event::SPop);
    })
}

fn pop_count(text: &[u8]) -> Result<usize, ReplyError> {
    let count = number::parse_i64(text).and_then(|n| usize::try_from(n).ok());
    count.ok_or(ReplyError::Text("ERR value is out of range, must be positive"))
}

fn srandmember(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let count = match args.len() {
        2 => None,
        3 => Some(random::parse_count(args.get(2))?),
        _ => return Err(ReplyError::Syntax),
    };
    let set = cx.keys.read::<Set>(args.get(1))?;
    let (reply, rng) = (&mut cx.reply, &mut cx.worker.rng);
    let Some(count) = count else {
        match set.and_then(|set| draw(set, rng)) {
            Some(member) => reply.bulk(&member),
            None => reply.null(),
        }
        return Ok(());
    };
    let Some(set) = set else {
        reply.array(0);
        return Ok(());
    };
    let sample = Sample::new(count, set.len());
    if let Sample::Any(n) = sample {
        return random::repeat(reply, (n, 1), |reply| {
            set.random(&mut |n| rng.below(n), |member| reply.bulk(member));
        });
    }
    reply.array(sample.len());
    match sample {
        Sample::Most(wanted, len) => {
            let mut is_chosen = random::chooser(wanted, len, rng);
            set.each(|member| {
                if is_chosen(&()) {
                    reply.bulk(member);
                }
            });
        }
        Sample::Few(n) => {
            let drawn = random::different(n, || draw(set, rng));
            drawn.iter().for_each(|member| reply.bulk(member));
        }
        Sample::All(_) | Sample::Any(_) => set.each(|member| reply.bulk(member)),
    }
    Ok(())
}

fn smove(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (from, to, member) = (args.get(1), args.get(2), args.get(3));
    let Some(source) = cx.keys.read_uncounted::<Set>(from)? else {
        cx.reply.int(0);
        return Ok(());
    };
    let is_member = source.contains(member);
    cx.keys.read_uncounted::<Set>(to)?;
    if is_member && from != to {
        cx.keys.edit::<Set, _>(from, |set| {
            set.apply(SetOp::Remove(member));
            set.event(Event::SRem);
        })?;
        cx.keys.edit::<Set, _>(to, |set| {
            if set.apply(SetOp::Add(member)) {
                set.event(Event::SAdd);
            }
        })?;
    }
    cx.reply.int(i64::from(is_member));
    Ok(())
}

fn sscan(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut cursor = parse_cursor(args.get(2)).ok_or(ReplyError::Text("ERR invalid cursor"))?;
    let mut found: Vec<Vec<u8>> = Vec::new();
    if let Some(set) = cx.keys.read::<Set>(args.get(1))? {
        let options = parse_scan(args, Walked::Members)?;
        let mut seen = 0;
        loop {
            cursor = set.scan(cursor, |member| {
                seen += 1;
                if options.pattern.is_none_or(|p| glob_match(p, member, false)) {
                    found.push(member.to_vec());
                }
            });
            if cursor == 0 || seen >= options.count {
                break;
            }
        }
    } else {
        cursor = 0;
    }
    cx.reply.array(2);
    cx.reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    cx.reply.array(found.len());
    found.iter().for_each(|member| cx.reply.bulk(member));
    Ok(())
}
