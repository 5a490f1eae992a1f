//! Times to live.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;

const BASE: Command = Command { group: Group::Generic, acl: Acl::KEYSPACE, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "EXPIRE",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: expire,
        summary: "Sets the time to live of a key in seconds.",
        syntax: "key seconds [NX | XX | GT | LT]",
        examples: "> SET a 1\nOK\n> EXPIRE a 100\n(integer) 1\n> EXPIRE a 50 GT\n(integer) 0\n> TTL a\n(integer) 100\n> EXPIRE a -1\n(integer) 1\n> EXISTS a\n(integer) 0",
        ..BASE
    },
    Command {
        name: "PEXPIRE",
        since: "2.6.0",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: pexpire,
        summary: "Sets the time to live of a key in milliseconds.",
        syntax: "key milliseconds [NX | XX | GT | LT]",
        examples: "> SET a 1\nOK\n> PEXPIRE a 100000\n(integer) 1\n> TTL a\n(integer) 100",
        ..BASE
    },
    Command {
        name: "EXPIREAT",
        since: "1.2.0",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: expireat,
        summary: "Sets when a key expires, in seconds since the epoch.",
        syntax: "key unix-time-seconds [NX | XX | GT | LT]",
        examples: "> SET a 1\nOK\n> EXPIREAT a 33177117420\n(integer) 1\n> EXPIRETIME a\n(integer) 33177117420",
        ..BASE
    },
    Command {
        name: "PEXPIREAT",
        since: "2.6.0",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: pexpireat,
        summary: "Sets when a key expires, in milliseconds since the epoch.",
        syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
        examples: "> SET a 1\nOK\n> PEXPIREAT a 33177117420000\n(integer) 1\n> PEXPIRETIME a\n(integer) 33177117420000",
        ..BASE
    },
    Command {
        name: "TTL",
        tips: &["nondeterministic_output"],
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: ttl,
        summary: "Seconds that a key has to live; -1: forever, -2: there is none.",
        syntax: "key",
        examples: "> TTL a\n(integer) -2\n> SET a 1\nOK\n> TTL a\n(integer) -1\n> SET a 1 EX 9\nOK\n> TTL a\n(integer) 9",
        ..BASE
    },
    Command {
        name: "PTTL",
        tips: &["nondeterministic_output"],
        since: "2.6.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: pttl,
        summary: "Milliseconds that a key has to live; -1: forever, -2: there is none.",
        syntax: "key",
        examples: "> PTTL a\n(integer) -2\n> SET a 1\nOK\n> PTTL a\n(integer) -1",
        ..BASE
    },
    Command {
        name: "EXPIRETIME",
        since: "7.0.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: expiretime,
        summary: "When a key expires, in seconds since the epoch.",
        syntax: "key",
        examples: "> SET a 1 EXAT 33177117420\nOK\n> EXPIRETIME a\n(integer) 33177117420",
        ..BASE
    },
    Command {
        name: "PEXPIRETIME",
        since: "7.0.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: pexpiretime,
        summary: "When a key expires, in milliseconds since the epoch.",
        syntax: "key",
        examples: "> SET a 1 PXAT 33177117420000\nOK\n> PEXPIRETIME a\n(integer) 33177117420000",
        ..BASE
    },
    Command {
        name: "PERSIST",
        since: "2.2.0",
        arity: 2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: persist,
        summary: "Lets a key live forever.",
        syntax: "key",
        examples: "> SET a 1 EX 9\nOK\n> PERSIST a\n(integer) 1\n> PERSIST a\n(integer) 0\n> TTL a\n(integer) -1",
        ..BASE
    },
];

/// How a time is given: its unit, and whether it counts from now or from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Seconds since the epoch.
    UnixSeconds,
    /// Milliseconds since the epoch.
    UnixMillis,
}

impl TimeUnit {
    /// The unit that `EX`, `PX`, `EXAT` or `PXAT` stands for.
    pub(crate) fn of_option(word: &[u8]) -> Option<TimeUnit> {
        let units = [
            ("EX", TimeUnit::Seconds),
            ("PX", TimeUnit::Millis),
            ("EXAT", TimeUnit::UnixSeconds),
            ("PXAT", TimeUnit::UnixMillis),
        ];
        let same = |(name, _): &&(&str, _)| word.eq_ignore_ascii_case(name.as_bytes());
        units.iter().find(same).map(|(_, unit)| *unit)
    }

    pub(crate) fn is_absolute(self) -> bool {
        matches!(self, TimeUnit::UnixSeconds | TimeUnit::UnixMillis)
    }

    /// A time of this unit in milliseconds since the epoch; `None` when it overflows.
    pub(crate) fn to_millis(self, time: i64, now_ms: u64) -> Option<i64> {
        let is_seconds = matches!(self, TimeUnit::Seconds | TimeUnit::UnixSeconds);
        let millis = time.checked_mul(if is_seconds { 1000 } else { 1 })?;
        millis.checked_add(if self.is_absolute() { 0 } else { now_ms as i64 })
    }
}

/// Answers that a time is out of range, with the command's name as Redis does.
pub(crate) fn invalid(cx: &mut Cx<'_>) -> ReplyError {
    let name = &cx.entry.full_name;
    cx.reply.error(format!("ERR invalid expire time in '{name}' command").as_bytes());
    ReplyError::Written
}

/// The deadline that an option of SET, GETEX or SETEX gives, in ms since the epoch. It must be
/// positive.
pub(crate) fn deadline(cx: &mut Cx<'_>, text: &[u8], unit: TimeUnit) -> Result<u64, ReplyError> {
    let time = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
    let now_ms = cx.keys.now_ms;
    match unit.to_millis(time, now_ms) {
        Some(at) if time > 0 => Ok(at as u64),
        _ => Err(invalid(cx)),
    }
}

fn expire(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    expire_by(cx, args, TimeUnit::Seconds)
}

fn pexpire(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    expire_by(cx, args, TimeUnit::Millis)
}

fn expireat(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    expire_by(cx, args, TimeUnit::UnixSeconds)
}

fn pexpireat(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    expire_by(cx, args, TimeUnit::UnixMillis)
}

/// When a new deadline may replace the old one.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    fn parse(cx: &mut Cx<'_>, args: Args<'_>) -> Result<Self, ReplyError> {
        let mut c = Condition::default();
        for word in args.iter_from(3) {
            if !c.add(word) {
                // Redis prints it as a C string.
                let shown = word.split(|&b| b == 0).next().unwrap_or_default();
                cx.reply.error(&[b"ERR Unsupported option ", shown].concat());
                return Err(ReplyError::Written);
            }
        }
        if c.nx && (c.xx || c.gt || c.lt) {
            return Err(ReplyError::Text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if c.gt && c.lt {
            return Err(ReplyError::Text(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(c)
    }

    /// Adds what a word demands; returns whether it is such a word.
    pub(crate) fn add(&mut self, word: &[u8]) -> bool {
        match word.to_ascii_uppercase().as_slice() {
            b"NX" => self.nx = true,
            b"XX" => self.xx = true,
            b"GT" => self.gt = true,
            b"LT" => self.lt = true,
            _ => return false,
        }
        true
    }

    /// A key without deadline counts as one that lives longest.
    pub(crate) fn holds(&self, old: Option<u64>, new: i64) -> bool {
        let is_later = old.is_some_and(|old| new > old as i64);
        let is_earlier = old.is_none_or(|old| new < old as i64);
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && !is_later
            || self.lt && !is_earlier)
    }
}

fn expire_by(cx: &mut Cx<'_>, args: Args<'_>, unit: TimeUnit) -> Outcome {
    let condition = Condition::parse(cx, args)?;
    let time = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let now_ms = cx.keys.now_ms;
    let Some(at) = unit.to_millis(time, now_ms) else { return Err(invalid(cx)) };
    let key = args.get(1);
    let Some(old) = cx.keys.peek(key).map(|entry| entry.deadline()) else {
        cx.reply.int(0);
        return Ok(());
    };
    if !condition.holds(old, at) {
        cx.reply.int(0);
        return Ok(());
    }
    match u64::try_from(at) {
        Ok(at) if at > now_ms => cx.keys.set_ttl(key, Some(at), Event::Expire),
        _ => {
            cx.keys.delete(key, Event::Del);
        }
    }
    cx.reply.int(1);
    Ok(())
}

fn persist(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let has_deadline = cx.keys.peek(key).is_some_and(|entry| entry.deadline().is_some());
    if has_deadline {
        cx.keys.set_ttl(key, None, Event::Persist);
    }
    cx.reply.int(i64::from(has_deadline));
    Ok(())
}

/// Answers with the deadline of the key as `show` presents it; -1 without one, -2 without a key.
fn reply_deadline(cx: &mut Cx<'_>, args: Args<'_>, show: fn(i64, i64) -> i64) -> Outcome {
    let now_ms = cx.keys.now_ms as i64;
    let shown = match cx.keys.look(args.get(1)).map(|entry| entry.deadline()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => show(at as i64, now_ms),
    };
    cx.reply.int(shown);
    Ok(())
}

fn rounded_seconds(millis: i64) -> i64 {
    millis.saturating_add(500) / 1000
}

fn ttl(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    reply_deadline(cx, args, |at, now| rounded_seconds((at - now).max(0)))
}

fn pttl(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    reply_deadline(cx, args, |at, now| (at - now).max(0))
}

fn expiretime(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    reply_deadline(cx, args, |at, _| rounded_seconds(at))
}

fn pexpiretime(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    reply_deadline(cx, args, |at, _| at)
}
