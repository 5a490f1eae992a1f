//! Times to live of the fields of hashes, as Redis 7.4 and 8.0 have them.
//!
//! A field past its deadline is not seen by any command from then on; it is removed by the next write
//! that names it, and by the workers' expiry within a second.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::expire::{Condition, TimeUnit, invalid};
use crate::hash::{BASE, expire_field, put, reply_value, wrong_arity};
use crate::keyspace::Editor;
use crate::table::{Command, Flags, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::types::{Hash, HashDone, HashOp};
use std::ops::Range;

const EXPIRE: Command = Command {
    since: "7.4.0",
    arity: -6,
    keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
    flags: Flags::WRITE.or(Flags::FAST),
    complexity: "O(N) in the number of fields named",
    ..BASE
};
const SHOW: Command = Command {
    since: "7.4.0",
    arity: -5,
    keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
    flags: Flags::READONLY.or(Flags::FAST),
    complexity: "O(N) in the number of fields named",
    syntax: "key FIELDS numfields field [field ...]",
    ..BASE
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "HEXPIRE",
        run: |cx, args| expire_fields(cx, args, TimeUnit::Seconds),
        summary: "Sets the time to live of fields in seconds. For each: 1 set, 2 removed because it \
            is past, 0 not allowed by the condition, -2 there is no such field.",
        syntax: "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        examples: "> HSET h a 1\n(integer) 1\n> HEXPIRE h 10 FIELDS 2 a b\n1) (integer) 1\n2) (integer) -2\n> HTTL h FIELDS 1 a\n1) (integer) 10",
        ..EXPIRE
    },
    Command {
        name: "HPEXPIRE",
        run: |cx, args| expire_fields(cx, args, TimeUnit::Millis),
        summary: "Sets the time to live of fields in milliseconds; answers as HEXPIRE.",
        syntax: "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        examples: "> HSET h a 1\n(integer) 1\n> HPEXPIRE h 10000 NX FIELDS 1 a\n1) (integer) 1\n> HPEXPIRE h 10000 NX FIELDS 1 a\n1) (integer) 0",
        ..EXPIRE
    },
    Command {
        name: "HEXPIREAT",
        run: |cx, args| expire_fields(cx, args, TimeUnit::UnixSeconds),
        summary: "Sets when fields expire, in seconds since the epoch; answers as HEXPIRE.",
        syntax: "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HEXPIREAT h 33177117420 FIELDS 1 a\n1) (integer) 1\n> HEXPIREAT h 1 FIELDS 1 b\n1) (integer) 2\n> HLEN h\n(integer) 1",
        ..EXPIRE
    },
    Command {
        name: "HPEXPIREAT",
        run: |cx, args| expire_fields(cx, args, TimeUnit::UnixMillis),
        summary: "Sets when fields expire, in milliseconds since the epoch; answers as HEXPIRE.",
        syntax: "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        examples: "> HSET h a 1\n(integer) 1\n> HPEXPIREAT h 33177117420000 FIELDS 1 a\n1) (integer) 1",
        ..EXPIRE
    },
    Command {
        name: "HTTL",
        tips: &["nondeterministic_output"],
        run: |cx, args| show(cx, args, |at, now| (at + 999 - now) / 1000),
        summary: "Seconds that fields have to live; -1: forever, -2: there is none.",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HEXPIRE h 10 FIELDS 1 a\n1) (integer) 1\n> HTTL h FIELDS 3 a b c\n1) (integer) 10\n2) (integer) -1\n3) (integer) -2",
        ..SHOW
    },
    Command {
        name: "HPTTL",
        tips: &["nondeterministic_output"],
        run: |cx, args| show(cx, args, |at, now| at - now),
        summary: "Milliseconds that fields have to live; -1: forever, -2: there is none.",
        examples: "> HSET h a 1\n(integer) 1\n> HPTTL h FIELDS 1 a\n1) (integer) -1",
        ..SHOW
    },
    Command {
        name: "HEXPIRETIME",
        run: |cx, args| show(cx, args, |at, _| (at + 999) / 1000),
        summary: "When fields expire, in seconds since the epoch; -1: never, -2: there is none.",
        examples: "> HSET h a 1\n(integer) 1\n> HEXPIREAT h 33177117420 FIELDS 1 a\n1) (integer) 1\n> HEXPIRETIME h FIELDS 1 a\n1) (integer) 33177117420",
        ..SHOW
    },
    Command {
        name: "HPEXPIRETIME",
        run: |cx, args| show(cx, args, |at, _| at),
        summary: "When fields expire, in milliseconds since the epoch; -1: never, -2: there is none.",
        examples: "> HSET h a 1\n(integer) 1\n> HEXPIREAT h 33177117420 FIELDS 1 a\n1) (integer) 1\n> HPEXPIRETIME h FIELDS 1 a\n1) (integer) 33177117420000",
        ..SHOW
    },
    Command {
        name: "HPERSIST",
        arity: -5,
        run: hpersist,
        summary: "Lets fields live as long as their hash. For each: 1 done, -1 it did, -2 there is none.",
        syntax: "key FIELDS numfields field [field ...]",
        examples: "> HSET h a 1\n(integer) 1\n> HEXPIRE h 10 FIELDS 1 a\n1) (integer) 1\n> HPERSIST h FIELDS 2 a b\n1) (integer) 1\n2) (integer) -2\n> HTTL h FIELDS 1 a\n1) (integer) -1",
        ..EXPIRE
    },
    Command {
        name: "HGETEX",
        since: "8.0.0",
        arity: -5,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        run: hgetex,
        summary: "The values of fields, whose time to live it sets or ends.",
        syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] FIELDS numfields field [field ...]",
        examples: "> HSET h a 1\n(integer) 1\n> HGETEX h EX 10 FIELDS 2 a b\n1) \"1\"\n2) (nil)\n> HTTL h FIELDS 1 a\n1) (integer) 10",
        ..EXPIRE
    },
    Command {
        name: "HSETEX",
        since: "8.0.0",
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST),
        run: hsetex,
        summary: "Sets fields with a time to live, if all are there (FXX) or none is (FNX).",
        syntax: "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
        examples: "> HSETEX h EX 10 FIELDS 2 a 1 b 2\n(integer) 1\n> HTTL h FIELDS 1 b\n1) (integer) 10\n> HSETEX h FNX FIELDS 1 a 3\n(integer) 0\n> HGET h a\n\"1\"",
        ..EXPIRE
    },
    Command {
        name: "HGETDEL",
        since: "8.0.0",
        arity: -5,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE)),
        run: hgetdel,
        summary: "The values of fields, which it removes.",
        syntax: "key FIELDS numfields field [field ...]",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HGETDEL h FIELDS 2 a x\n1) \"1\"\n2) (nil)\n> HKEYS h\n1) \"b\"",
        ..EXPIRE
    },
];

/// No deadline is later: Redis keeps them in 46 bits.
const DEADLINE_MAX: i64 = (1 << 46) - 1;

const NO_FIELDS: ReplyError =
    ReplyError::Text("ERR Mandatory argument FIELDS is missing or not at the right position");
const NO_NUMBER: ReplyError = ReplyError::Text("ERR Number of fields must be a positive integer");
const NO_MATCH: ReplyError =
    ReplyError::Text("ERR The `numfields` parameter must match the number of arguments");

/// The arguments that are fields: `FIELDS` stands at `at`, then their number. All others follow.
fn fields(args: Args<'_>, at: usize, no_number: ReplyError) -> Result<Range<usize>, ReplyError> {
    if at + 1 >= args.len() || !args.get(at).eq_ignore_ascii_case(b"FIELDS") {
        return Err(NO_FIELDS);
    }
    let count = number::parse_i64(args.get(at + 1)).filter(|n| *n > 0).ok_or(no_number)?;
    let is_all = usize::try_from(count).is_ok_and(|count| count == args.len() - at - 2);
    if is_all { Ok(at + 2..args.len()) } else { Err(NO_MATCH) }
}

/// A time as a deadline in ms since the epoch.
fn deadline(cx: &mut Cx<'_>, text: &[u8], unit: TimeUnit) -> Result<u64, ReplyError> {
    let time = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
    if time < 0 {
        return Err(ReplyError::Text("ERR invalid expire time, must be >= 0"));
    }
    match unit.to_millis(time, cx.keys.now_ms) {
        Some(at @ 0..=DEADLINE_MAX) => Ok(at as u64),
        _ => Err(invalid(cx)),
    }
}

/// Changes a field's deadline; one that is past removes the field. `None` lets it live.
fn set_deadline(hash: &mut Editor<'_, Hash>, field: &[u8], at: Option<u64>, now_ms: u64) -> Event {
    match at {
        Some(at) if at <= now_ms => {
            hash.apply(HashOp::Remove(field));
            Event::HDel
        }
        Some(_) => {
            hash.apply(HashOp::Deadline(field, at));
            Event::HExpire
        }
        None => {
            hash.apply(HashOp::Deadline(field, None));
            Event::HPersist
        }
    }
}

/// Tells of each kind of change once.
fn tell(hash: &mut Editor<'_, Hash>, mut events: Vec<Event>) {
    events.sort_unstable_by_key(|event| *event as u8);
    events.dedup();
    events.into_iter().for_each(|event| hash.event(event));
}

/// Answers -2 for each field of a hash that is not there.
fn no_hash(cx: &mut Cx<'_>, fields: usize) -> Outcome {
    cx.reply.array(fields);
    (0..fields).for_each(|_| cx.reply.int(-2));
    Ok(())
}

fn expire_fields(cx: &mut Cx<'_>, args: Args<'_>, unit: TimeUnit) -> Outcome {
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let is_there = cx.keys.read_uncounted::<Hash>(key)?.is_some();
    let at = deadline(cx, args.get(2), unit)?;
    let mut condition = Condition::default();
    let first = if condition.add(args.get(3)) { 4 } else { 3 };
    const TOO_FEW: ReplyError =
        ReplyError::Text("ERR Parameter `numFields` should be greater than 0");
    let fields = fields(args, first, TOO_FEW)?;
    if !is_there {
        return no_hash(cx, fields.len());
    }
    let reply = &mut cx.reply;
    reply.array(fields.len());
    cx.keys.edit::<Hash, _>(key, |hash| {
        let mut events = Vec::new();
        for field in fields.map(|i| args.get(i)) {
            expire_field(hash, field, now_ms);
            let old = hash.get(field).map(|record| record.deadline);
            let done = match old {
                None => -2,
                Some(old) if !condition.holds(old, at as i64) => 0,
                Some(_) => {
                    let event = set_deadline(hash, field, Some(at), now_ms);
                    events.push(event);
                    if event == Event::HDel { 2 } else { 1 }
                }
            };
            reply.int(done);
        }
        tell(hash, events);
    })
}

fn show(cx: &mut Cx<'_>, args: Args<'_>, as_shown: fn(i64, i64) -> i64) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    let fields = fields(args, 2, NO_NUMBER)?;
    cx.reply.array(fields.len());
    for i in fields {
        let record = hash.and_then(|hash| hash.get_live(args.get(i), now_ms));
        cx.reply.int(match record.map(|record| record.deadline) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => as_shown(at as i64, now_ms as i64),
        });
    }
    Ok(())
}

fn hpersist(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let is_there = cx.keys.read_uncounted::<Hash>(key)?.is_some();
    let fields = fields(args, 2, NO_NUMBER)?;
    if !is_there {
        return no_hash(cx, fields.len());
    }
    let reply = &mut cx.reply;
    reply.array(fields.len());
    cx.keys.edit::<Hash, _>(key, |hash| {
        let mut events = Vec::new();
        for field in fields.map(|i| args.get(i)) {
            expire_field(hash, field, now_ms);
            let old = hash.get(field).map(|record| record.deadline);
            if let Some(Some(_)) = old {
                events.push(set_deadline(hash, field, None, now_ms));
            }
            reply.int(old.map_or(-2, |deadline| if deadline.is_some() { 1 } else { -1 }));
        }
        tell(hash, events);
    })
}

/// What becomes of the deadlines of fields that are read or set.
#[derive(Clone, Copy, Debug)]
enum Then {
    Leave,
    Persist,
    At(u64),
}

fn hgetex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let is_there = cx.keys.read::<Hash>(key)?.is_some();
    let (then, first) = match TimeUnit::of_option(args.get(2)) {
        Some(unit) => (Then::At(deadline(cx, args.get(3), unit)?), 4),
        None if args.get(2).eq_ignore_ascii_case(b"PERSIST") => (Then::Persist, 3),
        None => (Then::Leave, 2),
    };
    let fields = fields(args, first, NO_NUMBER)?;
    let reply = &mut cx.reply;
    reply.array(fields.len());
    if !is_there {
        fields.for_each(|_| reply.null());
        return Ok(());
    }
    cx.keys.edit::<Hash, _>(key, |hash| {
        let mut events = Vec::new();
        for field in fields.map(|i| args.get(i)) {
            expire_field(hash, field, now_ms);
            let record = hash.get(field);
            reply_value(reply, record);
            let Some(old) = record.map(|record| record.deadline) else { continue };
            match then {
                Then::At(at) => events.push(set_deadline(hash, field, Some(at), now_ms)),
                Then::Persist if old.is_some() => {
                    events.push(set_deadline(hash, field, None, now_ms));
                }
                Then::Persist | Then::Leave => {}
            }
        }
        tell(hash, events);
    })
}

fn hgetdel(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let is_there = cx.keys.read::<Hash>(key)?.is_some();
    let fields = fields(args, 2, NO_NUMBER)?;
    let reply = &mut cx.reply;
    reply.array(fields.len());
    if !is_there {
        fields.for_each(|_| reply.null());
        return Ok(());
    }
    cx.keys.edit::<Hash, _>(key, |hash| {
        let mut is_changed = false;
        for field in fields.map(|i| args.get(i)) {
            expire_field(hash, field, now_ms);
            reply_value(reply, hash.get(field));
            is_changed |= hash.apply(HashOp::Remove(field)) == HashDone::Removed;
        }
        if is_changed {
            hash.event(Event::HDel);
        }
    })
}

/// The options of HSETEX before the fields.
#[derive(Debug)]
struct SetOptions {
    /// Whether all fields must be there, or none may.
    must_exist: Option<bool>,
    then: Option<Then>,
    /// The arguments that are fields and values.
    pairs: Range<usize>,
}

fn parse_hsetex(cx: &mut Cx<'_>, args: Args<'_>) -> Result<SetOptions, ReplyError> {
    let (mut must_exist, mut then, mut i) = (None, None, 2);
    while i < args.len() {
        let word = args.get(i);
        let unit = TimeUnit::of_option(word);
        let is_keep = word.eq_ignore_ascii_case(b"KEEPTTL");
        let (is_fnx, is_fxx) =
            (word.eq_ignore_ascii_case(b"FNX"), word.eq_ignore_ascii_case(b"FXX"));
        if word.eq_ignore_ascii_case(b"FIELDS") {
            break;
        } else if is_fnx || is_fxx {
            if must_exist.replace(is_fxx).is_some() {
                return Err(ReplyError::Text(
                    "ERR Only one of FXX or FNX arguments can be specified",
                ));
            }
        } else if unit.is_some() || is_keep {
            if then.is_some() {
                return Err(ReplyError::Text(
                    "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                ));
            }
            then = Some(Then::Leave);
            if let Some(unit) = unit {
                i += 1;
                let text = if i < args.len() { args.get(i) } else { b"" };
                then = Some(Then::At(deadline(cx, text, unit)?));
            }
        } else {
            cx.reply.error(&[b"ERR unknown argument: ", word].concat());
            return Err(ReplyError::Written);
        }
        i += 1;
    }
    let pairs = pairs(cx, args, i)?;
    Ok(SetOptions { must_exist, then, pairs })
}

/// The arguments that are fields and values: `FIELDS` stands at `at`, then how many pairs follow.
fn pairs(cx: &mut Cx<'_>, args: Args<'_>, at: usize) -> Result<Range<usize>, ReplyError> {
    const PAIRS_MAX: i64 = i32::MAX as i64;
    let rest = args.len() - at.min(args.len());
    if rest < 4 {
        return Err(wrong_arity(cx));
    }
    let count = number::parse_i64(args.get(at + 1)).filter(|n| (1..=PAIRS_MAX).contains(n));
    let count = count.ok_or(ReplyError::Text("ERR invalid number of fields"))?;
    if 2 * count as usize != rest - 2 {
        return Err(wrong_arity(cx));
    }
    Ok(at + 2..args.len())
}

fn hsetex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let SetOptions { must_exist, then, pairs } = parse_hsetex(cx, args)?;
    let hash = cx.keys.read_uncounted::<Hash>(key)?;
    let is_there = |field| hash.is_some_and(|hash| hash.get_live(field, now_ms).is_some());
    let mut names = pairs.clone().step_by(2).map(|i| args.get(i));
    if must_exist.is_some_and(|must| !names.all(|field| is_there(field) == must)) {
        cx.reply.int(0);
        return Ok(());
    }
    cx.keys.edit::<Hash, _>(key, |hash| {
        let mut events = vec![Event::HSet];
        for i in pairs.step_by(2) {
            let (field, value) = (args.get(i), args.get(i + 1));
            let old = hash.get(field).filter(|record| !record.is_expired(now_ms));
            let kept = old.and_then(|record| record.deadline);
            let kept = if let Some(Then::Leave) = then { kept } else { None };
            put(hash, (field, value), kept, now_ms);
            if let Some(Then::At(at)) = then {
                events.push(set_deadline(hash, field, Some(at), now_ms));
            }
        }
        tell(hash, events);
    })?;
    cx.reply.int(1);
    Ok(())
}
