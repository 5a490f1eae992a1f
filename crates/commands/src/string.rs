//! Strings.

use crate::compare::Condition;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::expire::{self, TimeUnit};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::{EntryRef, Payload, Ttl};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command { group: Group::String, acl: Acl::STRING, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);
const WRITE: Flags = Flags::WRITE.or(Flags::DENY_OOM);
const WRITE_FAST: Flags = WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "GET",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: get,
        summary: "The value of a key.",
        syntax: "key",
        examples: "> GET a\n(nil)\n> SET a 1\nOK\n> GET a\n\"1\"",
        ..BASE
    },
    Command {
        name: "SET",
        arity: -3,
        keys: Keys::first(
            KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE).or(KeyFlags::VARIABLE_FLAGS),
        ),
        flags: WRITE,
        run: set,
        summary: "Sets a key to a value, whatever it held.",
        syntax: "key value [NX | XX | IFEQ match-value | IFNE match-value | IFDEQ match-digest | IFDNE match-digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
        examples: "> SET a 1 EX 100\nOK\n> SET a 2 NX\n(nil)\n> SET a 3 GET\n\"1\"\n> SET a 4 EX 0\n(error) ERR invalid expire time in 'set' command\n> SET a 5 IFEQ 4\n(nil)\n> SET a 5 IFEQ 3\nOK",
        ..BASE
    },
    Command {
        name: "SETNX",
        arity: 3,
        keys: Keys::first(KeyFlags::OW.or(KeyFlags::INSERT)),
        flags: WRITE_FAST,
        run: setnx,
        summary: "Sets a key only if it does not exist.",
        syntax: "key value",
        examples: "> SETNX a 1\n(integer) 1\n> SETNX a 2\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SETEX",
        since: "2.0.0",
        arity: 4,
        keys: Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE)),
        flags: WRITE,
        run: setex,
        summary: "Sets a key with an expiry in seconds.",
        syntax: "key seconds value",
        examples: "> SETEX a 100 1\nOK\n> TTL a\n(integer) 100",
        ..BASE
    },
    Command {
        name: "PSETEX",
        since: "2.6.0",
        arity: 4,
        keys: Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE)),
        flags: WRITE,
        run: psetex,
        summary: "Sets a key with an expiry in milliseconds.",
        syntax: "key milliseconds value",
        examples: "> PSETEX a 100000 1\nOK\n> TTL a\n(integer) 100",
        ..BASE
    },
    Command {
        name: "GETSET",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE_FAST,
        run: getset,
        summary: "Sets a key and answers what it held.",
        syntax: "key value",
        examples: "> GETSET a 1\n(nil)\n> GETSET a 2\n\"1\"",
        ..BASE
    },
    Command {
        name: "GETDEL",
        since: "6.2.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE)),
        flags: CHANGE_FAST,
        run: getdel,
        summary: "The value of a key, which is deleted.",
        syntax: "key",
        examples: "> SET a 1\nOK\n> GETDEL a\n\"1\"\n> GETDEL a\n(nil)",
        ..BASE
    },
    Command {
        name: "GETEX",
        since: "6.2.0",
        arity: -2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: getex,
        summary: "The value of a key, whose expiry is changed.",
        syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
        examples: "> SET a 1\nOK\n> GETEX a EX 50\n\"1\"\n> TTL a\n(integer) 50\n\
                   > GETEX a PERSIST\n\"1\"\n> TTL a\n(integer) -1",
        ..BASE
    },
    Command {
        name: "MGET",
        tips: &["request_policy:multi_shard"],
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) },
        flags: READ_FAST,
        run: mget,
        summary: "The values of several keys.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...]",
        examples: "> SET a 1\nOK\n> MGET a b\n1) \"1\"\n2) (nil)",
        ..BASE
    },
    Command {
        name: "MSET",
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        since: "1.0.1",
        arity: -3,
        keys: Keys::Range { first: 1, last: -1, step: 2, flags: KeyFlags::OW.or(KeyFlags::UPDATE) },
        flags: WRITE,
        run: mset,
        summary: "Sets several keys at once.",
        complexity: "O(N) in the number of keys",
        syntax: "key value [key value ...]",
        examples: "> MSET a 1 b 2\nOK\n> GET b\n\"2\"",
        ..BASE
    },
    Command {
        name: "MSETNX",
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        since: "1.0.1",
        arity: -3,
        keys: Keys::Range { first: 1, last: -1, step: 2, flags: KeyFlags::OW.or(KeyFlags::INSERT) },
        flags: WRITE,
        run: msetnx,
        summary: "Sets several keys, if none of them exists.",
        complexity: "O(N) in the number of keys",
        syntax: "key value [key value ...]",
        examples: "> MSETNX a 1 b 2\n(integer) 1\n> MSETNX b 3 c 4\n(integer) 0\n> EXISTS c\n(integer) 0",
        ..BASE
    },
    Command {
        name: "STRLEN",
        since: "2.2.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: strlen,
        summary: "Length of a value in bytes.",
        syntax: "key",
        examples: "> SET a hello\nOK\n> STRLEN a\n(integer) 5",
        ..BASE
    },
    Command {
        name: "APPEND",
        since: "2.0.0",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: WRITE_FAST,
        run: append,
        summary: "Adds to the end of a value; answers its new length.",
        syntax: "key value",
        examples: "> APPEND a foo\n(integer) 3\n> APPEND a bar\n(integer) 6\n> GET a\n\"foobar\"",
        ..BASE
    },
    Command {
        name: "GETRANGE",
        since: "2.4.0",
        arity: 4,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: getrange,
        summary: "A part of a value, both ends included; negative counts from the end.",
        complexity: "O(N) in the length of the reply",
        syntax: "key start end",
        examples: "> SET a foobar\nOK\n> GETRANGE a 1 -2\n\"ooba\"",
        ..BASE
    },
    Command {
        name: "SUBSTR",
        arity: 4,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: getrange,
        summary: "A part of a value; the old name of GETRANGE.",
        complexity: "O(N) in the length of the reply",
        syntax: "key start end",
        examples: "> SET a foobar\nOK\n> SUBSTR a 0 2\n\"foo\"",
        ..BASE
    },
    Command {
        name: "SETRANGE",
        since: "2.2.0",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: WRITE,
        run: setrange,
        summary: "Overwrites a part of a value; answers its new length.",
        complexity: "O(N) in the length of the value given",
        syntax: "key offset value",
        examples: "> SETRANGE a 2 foo\n(integer) 5\n> GET a\n\"\\x00\\x00foo\"",
        ..BASE
    },
];

/// Writes a value that was found, or null.
pub(crate) fn reply_value(reply: &mut Reply<'_>, entry: Option<EntryRef<'_>>) {
    match entry {
        None => reply.null(),
        Some(entry) => match entry.blob() {
            None => reply.bulk(entry.value()),
            Some(blob) => reply.shared(blob),
        },
    }
}

/// The payload of an argument: adopted when it arrived in a buffer of its own, else copied.
#[inline]
pub(crate) fn payload_of<'a>(args: Args<'a>, i: usize) -> Payload<'a> {
    match args.shared(i) {
        Some(shared) => Payload::Blob(Arc::clone(shared)),
        None => Payload::Slice(args.get(i)),
    }
}

/// Refuses a value that would become longer than `proto-max-bulk-len`.
pub(crate) fn check_length(cx: &Cx<'_>, len: usize) -> Outcome {
    let max = cx.shared.config.hot.bulk_bytes_max.load(Relaxed);
    if len as u64 > max { Err(ReplyError::TooLarge) } else { Ok(()) }
}

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.string_here(args.get(1))? {
        Some(entry) if !entry.is_blob() => cx.reply.bulk_here(entry.value()),
        other => reply_value(&mut cx.reply, other),
    }
    Ok(())
}

fn set(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 3 {
        return set_with_options(cx, args);
    }
    cx.keys.set_here(args.get(1), payload_of(args, 2), Ttl::Clear, Event::Set);
    cx.reply.ok();
    Ok(())
}

/// What SET and GETEX are told about expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpiryOption {
    None,
    Keep,
    Persist,
    /// Unit, and the number of the argument with the time.
    At(TimeUnit, usize),
}

#[derive(Debug)]
struct SetOptions<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    condition: Option<Condition<'a>>,
    expiry: ExpiryOption,
}

impl SetOptions<'_> {
    /// Whether nothing was said yet of when the key is set.
    fn is_unconditional(&self) -> bool {
        !self.nx && !self.xx && self.condition.is_none()
    }
}

/// The options of SET from argument 3 on, or (`is_getex`) those of GETEX from 2 on.
fn parse_options(args: Args<'_>, is_getex: bool) -> Result<SetOptions<'_>, ReplyError> {
    let (expiry, condition) = (ExpiryOption::None, None);
    let mut o = SetOptions { nx: false, xx: false, get: false, condition, expiry };
    let mut i = if is_getex { 2 } else { 3 };
    while i < args.len() {
        let word = args.get(i);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let unit = TimeUnit::of_option(word).filter(|_| i + 1 < args.len());
        let (may_time, is_open) = match o.expiry {
            ExpiryOption::None => (true, true),
            ExpiryOption::At(old, _) => (unit == Some(old), false),
            ExpiryOption::Keep | ExpiryOption::Persist => (false, false),
        };
        let keeps = o.expiry == ExpiryOption::Keep;
        let persists = o.expiry == ExpiryOption::Persist;
        match unit {
            _ if is("NX") && !is_getex && !o.xx && o.condition.is_none() => o.nx = true,
            _ if is("XX") && !is_getex && !o.nx && o.condition.is_none() => o.xx = true,
            _ if is("GET") && !is_getex => o.get = true,
            _ if is("KEEPTTL") && !is_getex && (is_open || keeps) => o.expiry = ExpiryOption::Keep,
            _ if is("PERSIST") && is_getex && (is_open || persists) => {
                o.expiry = ExpiryOption::Persist;
            }
            Some(unit) if may_time => {
                i += 1;
                o.expiry = ExpiryOption::At(unit, i);
            }
            _ if !is_getex && o.is_unconditional() && i + 1 < args.len() => {
                i += 1;
                o.condition = Some(Condition::parse(word, args.get(i)).ok_or(ReplyError::Syntax)?);
            }
            _ => return Err(ReplyError::Syntax),
        }
        i += 1;
    }
    Ok(o)
}

#[inline(never)]
fn set_with_options(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_options(args, false)?;
    let ttl = match options.expiry {
        ExpiryOption::Keep => Ttl::Keep,
        ExpiryOption::At(unit, i) => Ttl::At(expire::deadline(cx, args.get(i), unit)?),
        ExpiryOption::None | ExpiryOption::Persist => Ttl::Clear,
    };
    let key = args.get(1);
    let holds = match options.condition {
        None => true,
        Some(condition) => condition.holds(cx.keys.string_uncounted(key)?)?,
    };
    let found = if options.get {
        let entry = cx.keys.string(key)?;
        reply_value(&mut cx.reply, entry);
        entry.is_some()
    } else {
        cx.keys.exists(key)
    };
    if options.nx && found || options.xx && !found || !holds {
        if !options.get {
            cx.reply.null();
        }
        return Ok(());
    }
    store(cx, key, payload_of(args, 2), ttl);
    if !options.get {
        cx.reply.ok();
    }
    Ok(())
}

/// Stores a value; a new deadline is a further event.
pub(crate) fn store(cx: &mut Cx<'_>, key: &[u8], value: Payload<'_>, ttl: Ttl) {
    cx.keys.set(key, value, ttl, Event::Set);
    if matches!(ttl, Ttl::At(_)) {
        cx.keys.also(key, Event::Expire);
    }
}

fn setnx(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let is_free = !cx.keys.exists(key);
    if is_free {
        cx.keys.set(key, payload_of(args, 2), Ttl::Clear, Event::Set);
    }
    cx.reply.int(i64::from(is_free));
    Ok(())
}

fn setex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    set_with_time(cx, args, TimeUnit::Seconds)
}

fn psetex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    set_with_time(cx, args, TimeUnit::Millis)
}

fn set_with_time(cx: &mut Cx<'_>, args: Args<'_>, unit: TimeUnit) -> Outcome {
    let deadline = expire::deadline(cx, args.get(2), unit)?;
    cx.keys.exists(args.get(1));
    store(cx, args.get(1), payload_of(args, 3), Ttl::At(deadline));
    cx.reply.ok();
    Ok(())
}

fn getset(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    reply_value(&mut cx.reply, cx.keys.string(key)?);
    cx.keys.set(key, payload_of(args, 2), Ttl::Clear, Event::Set);
    Ok(())
}

fn getdel(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let entry = cx.keys.string(args.get(1))?;
    reply_value(&mut cx.reply, entry);
    if entry.is_some() {
        cx.keys.delete(args.get(1), Event::Del);
    }
    Ok(())
}

fn getex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_options(args, true)?;
    let key = args.get(1);
    if cx.keys.string(key)?.is_none() {
        cx.reply.null();
        return Ok(());
    }
    let deadline = match options.expiry {
        ExpiryOption::At(unit, i) => Some((unit, expire::deadline(cx, args.get(i), unit)?)),
        _ => None,
    };
    reply_value(&mut cx.reply, cx.keys.peek(key));
    match deadline {
        Some((unit, at)) if unit.is_absolute() && at <= cx.keys.now_ms => {
            cx.keys.delete(key, Event::Del);
        }
        Some((_, at)) => cx.keys.set_ttl(key, Some(at), Event::Expire),
        None => {
            let persists = options.expiry == ExpiryOption::Persist;
            if persists && cx.keys.peek(key).is_some_and(|e| e.deadline().is_some()) {
                cx.keys.set_ttl(key, None, Event::Persist);
            }
        }
    }
    Ok(())
}

fn mget(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    cx.reply.array(args.len() - 1);
    for key in args.iter_from(1) {
        reply_value(&mut cx.reply, cx.keys.string(key).unwrap_or_default());
    }
    Ok(())
}

fn set_pairs(cx: &mut Cx<'_>, args: Args<'_>) {
    for i in (1..args.len()).step_by(2) {
        cx.keys.set(args.get(i), payload_of(args, i + 1), Ttl::Clear, Event::Set);
    }
}

fn mset(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(ReplyError::Text("ERR wrong number of arguments for 'mset' command"));
    }
    set_pairs(cx, args);
    cx.reply.ok();
    Ok(())
}

fn msetnx(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(ReplyError::Text("ERR wrong number of arguments for 'msetnx' command"));
    }
    let all_free = !(1..args.len()).step_by(2).any(|i| cx.keys.exists(args.get(i)));
    if all_free {
        set_pairs(cx, args);
    }
    cx.reply.int(i64::from(all_free));
    Ok(())
}

fn strlen(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = cx.keys.string(args.get(1))?.map_or(0, |entry| entry.value().len());
    cx.reply.int(len as i64);
    Ok(())
}

fn append(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, tail) = (args.get(1), args.get(2));
    let Some(len) = cx.keys.string_uncounted(key)?.map(|entry| entry.value().len()) else {
        cx.keys.set(key, payload_of(args, 2), Ttl::Clear, Event::Append);
        cx.reply.int(tail.len() as i64);
        return Ok(());
    };
    let total = len + tail.len();
    check_length(cx, total)?;
    cx.keys.splice(key, total, len, tail, Event::Append);
    cx.reply.int(total as i64);
    Ok(())
}

fn setrange(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, bytes) = (args.get(1), args.get(3));
    let offset = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(ReplyError::Text("ERR offset is out of range"));
    };
    let len = cx.keys.string_uncounted(key)?.map_or(0, |entry| entry.value().len());
    if bytes.is_empty() {
        cx.reply.int(len as i64);
        return Ok(());
    }
    check_length(cx, offset.saturating_add(bytes.len()))?;
    let len = len.max(offset + bytes.len());
    cx.keys.splice(key, len, offset, bytes, Event::SetRange);
    cx.reply.int(len as i64);
    Ok(())
}

/// The bytes from `start` to `end`, both included, negative ones counted from the end of `len`.
pub(crate) fn resolve_range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(len).max(0) } else { i };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end).then_some((start as usize, end as usize))
}

fn getrange(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let start = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let end = number::parse_i64(args.get(3)).ok_or(ReplyError::NotAnInteger)?;
    let value = cx.keys.string(args.get(1))?.map_or(&b""[..], |entry| entry.value());
    let part = resolve_range(start, end, value.len()).map_or(&b""[..], |(a, b)| &value[a..=b]);
    cx.reply.bulk(part);
    Ok(())
}
