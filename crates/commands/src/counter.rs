//! Strings that are numbers.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::float80::Float80;
use hypercache_stdx::number;
use hypercache_store::{Payload, Ttl};

const BASE: Command = Command { group: Group::String, acl: Acl::STRING, ..Command::DEFAULT };
const WRITE_FAST: Flags = Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "INCR",
        arity: 2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: incr,
        summary: "Adds one to an integer.",
        syntax: "key",
        examples: "> INCR a\n(integer) 1\n> SET a x\nOK\n> INCR a\n(error) ERR value is not an integer or out of range",
        ..BASE
    },
    Command {
        name: "DECR",
        arity: 2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: decr,
        summary: "Takes one from an integer.",
        syntax: "key",
        examples: "> DECR a\n(integer) -1",
        ..BASE
    },
    Command {
        name: "INCRBY",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: incrby,
        summary: "Adds to an integer.",
        syntax: "key increment",
        examples: "> INCRBY a 5\n(integer) 5\n> INCRBY a 9223372036854775807\n(error) ERR increment or decrement would overflow",
        ..BASE
    },
    Command {
        name: "DECRBY",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: decrby,
        summary: "Takes from an integer.",
        syntax: "key decrement",
        examples: "> DECRBY a 5\n(integer) -5\n> DECRBY a -9223372036854775808\n(error) ERR decrement would overflow",
        ..BASE
    },
    Command {
        name: "INCRBYFLOAT",
        since: "2.6.0",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: incrbyfloat,
        summary: "Adds to a decimal number.",
        syntax: "key increment",
        examples: "> INCRBYFLOAT a 0.5\n\"0.5\"\n> INCRBYFLOAT a 1.5e1\n\"15.5\"",
        ..BASE
    },
];

fn incr(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    add(cx, args.get(1), 1)
}

fn decr(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    add(cx, args.get(1), -1)
}

fn incrby(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let by = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    add(cx, args.get(1), by)
}

fn decrby(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let by = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let by = by.checked_neg().ok_or(ReplyError::Text("ERR decrement would overflow"))?;
    add(cx, args.get(1), by)
}

fn add(cx: &mut Cx<'_>, key: &[u8], by: i64) -> Outcome {
    let old = match cx.keys.string_uncounted(key)? {
        Some(entry) => number::parse_i64(entry.value()).ok_or(ReplyError::NotAnInteger)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(ReplyError::Overflow)?;
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(new);
    cx.keys.set(key, Payload::Slice(digits.as_bytes()), Ttl::Keep, Event::IncrBy);
    cx.reply.int(new);
    Ok(())
}

fn incrbyfloat(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let old = match cx.keys.string_uncounted(key)? {
        Some(entry) => Float80::parse(entry.value()).ok_or(ReplyError::NotAFloat)?,
        None => Float80::from_i64(0),
    };
    let by = Float80::parse(args.get(2)).ok_or(ReplyError::NotAFloat)?;
    let new = old + by;
    if new.is_nan() || new.is_infinite() {
        return Err(ReplyError::NanOrInfinity);
    }
    let mut text = Vec::new();
    new.format_human(&mut text);
    cx.keys.set(key, Payload::Slice(&text), Ttl::Keep, Event::IncrByFloat);
    cx.reply.bulk(&text);
    Ok(())
}
