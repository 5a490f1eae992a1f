//! INCREX, a counter with bounds and a time to live, of Redis 8.8 and Valkey 9.2: what rate limits and
//! quotas are made of. `INCREX key UBOUND 100 EX 60 ENX` counts up to a hundred calls in the minute that
//! begins with the first one, and a second number of 0 in its reply says that a call is one too many.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::expire::{self, TimeUnit};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::float80::Float80;
use hypercache_stdx::number;
use hypercache_store::{Payload, Ttl};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "INCREX",
    group: Group::String,
    since: "8.8.0",
    arity: -2,
    keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
    flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST),
    acl: Acl::STRING,
    run: increx,
    summary: "Adds to a number within bounds and sets its expiry; answers the number and what was added.",
    syntax: "key [NX | XX] [BYINT increment | BYFLOAT increment] [LBOUND lowerbound] [UBOUND upperbound] [SATURATE] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] [ENX]",
    examples: "> INCREX calls UBOUND 2 EX 60 ENX\n1) (integer) 1\n2) (integer) 1\n\
               > INCREX calls UBOUND 2 EX 60 ENX\n1) (integer) 2\n2) (integer) 1\n\
               > INCREX calls UBOUND 2 EX 60 ENX\n1) (integer) 2\n2) (integer) 0\n\
               > TTL calls\n(integer) 60\n> INCREX calls BYFLOAT 0.5\n1) \"2.5\"\n2) \"0.5\"",
    ..Command::DEFAULT
}];

/// What is done with the key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Keep,
    Persist,
    /// Unit, and the number of the argument with the time.
    At(TimeUnit, usize),
}

/// The options as they are given; numbers are those of arguments.
#[derive(Debug)]
struct Options {
    /// Whether the key must be there, or must not.
    must_be_there: Option<bool>,
    by: Option<usize>,
    is_float: bool,
    lower: Option<usize>,
    upper: Option<usize>,
    saturates: bool,
    expiry: Expiry,
    /// The time to live is set only if there is none.
    only_first: bool,
}

/// Reads the options; unlike those of SET none may be given twice.
fn parse(args: Args<'_>) -> Result<Options, ReplyError> {
    let mut o = Options {
        must_be_there: None,
        by: None,
        is_float: false,
        lower: None,
        upper: None,
        saturates: false,
        expiry: Expiry::Keep,
        only_first: false,
    };
    let mut i = 2;
    while i < args.len() {
        let word = args.get(i).to_ascii_uppercase();
        let value = Some(i + 1).filter(|i| *i < args.len());
        let is_new = match (word.as_slice(), value) {
            (b"NX", _) => o.must_be_there.replace(false).is_none(),
            (b"XX", _) => o.must_be_there.replace(true).is_none(),
            (b"SATURATE", _) => !std::mem::replace(&mut o.saturates, true),
            (b"ENX", _) => !std::mem::replace(&mut o.only_first, true),
            (b"PERSIST", _) => std::mem::replace(&mut o.expiry, Expiry::Persist) == Expiry::Keep,
            (name @ (b"BYINT" | b"BYFLOAT"), Some(at)) => {
                o.is_float = name == b"BYFLOAT";
                o.by.replace(at).is_none()
            }
            (b"LBOUND", Some(at)) => o.lower.replace(at).is_none(),
            (b"UBOUND", Some(at)) => o.upper.replace(at).is_none(),
            (name, Some(at)) => match TimeUnit::of_option(name) {
                Some(unit) => {
                    std::mem::replace(&mut o.expiry, Expiry::At(unit, at)) == Expiry::Keep
                }
                None => false,
            },
            _ => false,
        };
        if !is_new || o.only_first && o.expiry == Expiry::Persist {
            return Err(ReplyError::Syntax);
        }
        let has_value =
            !matches!(word.as_slice(), b"NX" | b"XX" | b"SATURATE" | b"ENX" | b"PERSIST");
        i += 1 + usize::from(has_value);
    }
    if o.only_first && o.expiry == Expiry::Keep {
        return Err(ReplyError::Text("ERR ENX flag requires an expiration"));
    }
    Ok(o)
}

const BOUNDS_CROSS: ReplyError = ReplyError::Text("ERR LBOUND can't be greater than UBOUND");

/// The number in an argument, if it is given.
fn given<T>(
    args: Args<'_>,
    at: Option<usize>,
    parse: fn(&[u8]) -> Option<T>,
    error: &'static str,
) -> Result<Option<T>, ReplyError> {
    at.map(|at| parse(args.get(at)).ok_or(ReplyError::Text(error))).transpose()
}

/// What is to be added, and the bounds of the sum.
#[derive(Clone, Copy, Debug)]
enum Step {
    Int { by: i64, lower: i64, upper: i64 },
    Float { by: Float80, lower: Float80, upper: Float80 },
}

impl Step {
    fn parse(args: Args<'_>, o: &Options) -> Result<Step, ReplyError> {
        if o.is_float {
            let number = |at, error| given(args, at, Float80::parse, error);
            let by = number(o.by, "ERR Increment is not a valid float")?;
            let lower = number(o.lower, "ERR LBOUND is not a valid float")?;
            let upper = number(o.upper, "ERR UBOUND is not a valid float")?;
            let by = by.unwrap_or(Float80::from_i64(1));
            let lower = lower.unwrap_or(-Float80::MAX);
            let upper = upper.unwrap_or(Float80::MAX);
            return if lower > upper {
                Err(BOUNDS_CROSS)
            } else {
                Ok(Step::Float { by, lower, upper })
            };
        }
        let number = |at, error| given(args, at, number::parse_i64, error);
        let by = number(o.by, "ERR Increment is not an integer or out of range")?.unwrap_or(1);
        let lower = number(o.lower, "ERR LBOUND is not an integer or out of range")?;
        let upper = number(o.upper, "ERR UBOUND is not an integer or out of range")?;
        let (lower, upper) = (lower.unwrap_or(i64::MIN), upper.unwrap_or(i64::MAX));
        if lower > upper { Err(BOUNDS_CROSS) } else { Ok(Step::Int { by, lower, upper }) }
    }
}

/// What becomes of the number: its text, what was added to it, and whether it is stored.
#[derive(Debug)]
struct Sum {
    text: Vec<u8>,
    added: Vec<u8>,
    is_stored: bool,
}

/// Adds to the value that is there, if there is one and the sum is one that may be.
fn add(value: Option<&[u8]>, step: Step, may: bool, saturates: bool) -> Result<Sum, ReplyError> {
    match step {
        Step::Int { by, lower, upper } => {
            let old = value.map_or(Some(0), number::parse_i64).ok_or(ReplyError::NotAnInteger)?;
            let (sum, bounds) =
                (i128::from(old) + i128::from(by), i128::from(lower)..=upper.into());
            let is_stored = may && (saturates || bounds.contains(&sum));
            let new = if is_stored { sum.clamp(lower.into(), upper.into()) } else { old.into() };
            let added = i64::try_from(new - i128::from(old))
                .map_err(|_| ReplyError::Text("ERR applied increment would overflow"))?;
            let (text, added) = (new.to_string().into(), added.to_string().into());
            Ok(Sum { text, added, is_stored })
        }
        Step::Float { by, lower, upper } => {
            let old = value.map_or(Some(Float80::ZERO), Float80::parse);
            let old = old.ok_or(ReplyError::NotAFloat)?;
            if old.is_infinite() || by.is_infinite() {
                return Err(ReplyError::NanOrInfinity);
            }
            add_float(old, (by, lower, upper), may, saturates)
        }
    }
}

fn add_float(
    old: Float80,
    (by, lower, upper): (Float80, Float80, Float80),
    may: bool,
    saturates: bool,
) -> Result<Sum, ReplyError> {
    let sum = old + by;
    let is_within = !sum.is_infinite() && sum >= lower && sum <= upper;
    let (new, added) = match (may, is_within, saturates) {
        (true, true, _) => (sum, by),
        (true, false, true) => {
            let new = if sum > upper { upper } else { lower };
            (new, new + -old)
        }
        _ => (old, Float80::ZERO),
    };
    if added.is_infinite() {
        return Err(ReplyError::Text("ERR applied increment would be Infinity"));
    }
    let text_of = |number: Float80| {
        let mut text = Vec::new();
        number.format_human(&mut text);
        text
    };
    let is_stored = may && (is_within || saturates);
    Ok(Sum { text: text_of(new), added: text_of(added), is_stored })
}

fn increx(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, options) = (args.get(1), parse(args)?);
    let step = Step::parse(args, &options)?;
    let deadline = match options.expiry {
        Expiry::At(unit, at) => Some(expire::deadline(cx, args.get(at), unit)?),
        Expiry::Keep | Expiry::Persist => None,
    };
    let entry = cx.keys.string_uncounted(key)?;
    let is_due = entry.is_some_and(|entry| entry.deadline().is_some());
    let may = options.must_be_there.is_none_or(|wanted| wanted == entry.is_some());
    let sum = add(entry.map(|entry| entry.value()), step, may, options.saturates)?;
    if sum.is_stored {
        let deadline = deadline.filter(|_| !(options.only_first && is_due));
        let persists = options.expiry == Expiry::Persist && is_due;
        store(cx, key, &sum.text, (deadline, persists), options.is_float);
    }
    cx.reply.array(2);
    for text in [&sum.text, &sum.added] {
        if options.is_float {
            cx.reply.double_text(text);
        } else {
            cx.reply.int(number::parse_i64(text).unwrap_or(0));
        }
    }
    Ok(())
}

/// Stores the sum with a new deadline, without one, or with that which it had.
fn store(
    cx: &mut Cx<'_>,
    key: &[u8],
    text: &[u8],
    (deadline, persists): (Option<u64>, bool),
    is_float: bool,
) {
    if deadline.is_some_and(|at| at <= cx.keys.now_ms) {
        cx.keys.delete(key, Event::Del);
        return;
    }
    let (ttl, also) = match deadline {
        Some(at) => (Ttl::At(at), Some(Event::Expire)),
        None if persists => (Ttl::Clear, Some(Event::Persist)),
        None => (Ttl::Keep, None),
    };
    let event = if is_float { Event::IncrByFloat } else { Event::IncrBy };
    cx.keys.set(key, Payload::Slice(text), ttl, event);
    if let Some(event) = also {
        cx.keys.also(key, event);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    /// Runs lines whose replies are written with blanks for line ends.
    fn check(h: &mut Harness, steps: &[(&str, &str)]) {
        for (line, expected) in steps {
            let reply = String::from_utf8(h.run(line)).expect("text");
            assert_eq!(reply.trim_end().replace("\r\n", " "), *expected, "{line}");
        }
    }

    #[test]
    fn numbers_stay_within_bounds() {
        check(
            &mut Harness::default(),
            &[
                ("SET k 10", "+OK"),
                ("INCREX k BYINT 10 UBOUND 15", "*2 :10 :0"),
                ("INCREX k BYINT 10 UBOUND 15 SATURATE", "*2 :15 :5"),
                ("INCREX k BYINT -25 lbound 0", "*2 :15 :0"),
                ("INCREX k BYINT -25 LBOUND 0 saturate", "*2 :0 :-15"),
                ("SET k 50", "+OK"),
                ("INCREX k BYINT 5 UBOUND 30", "*2 :50 :0"),
                ("INCREX k BYINT -5 UBOUND 45", "*2 :45 :-5"),
                ("INCREX k BYINT 5 UBOUND 30 SATURATE", "*2 :30 :-15"),
                ("INCREX none UBOUND 0", "*2 :0 :0"),
                ("EXISTS none", ":0"),
                ("INCREX none LBOUND 5 SATURATE", "*2 :5 :5"),
                ("SET k 9223372036854775800", "+OK"),
                ("INCREX k BYINT 8", "*2 :9223372036854775800 :0"),
                ("INCREX k BYINT 8 SATURATE", "*2 :9223372036854775807 :7"),
                (
                    "INCREX k BYINT -5 UBOUND -9223372036854775808 SATURATE",
                    "-ERR applied increment would overflow",
                ),
                ("INCREX k XX BYINT -7", "*2 :9223372036854775800 :-7"),
                ("INCREX k NX", "*2 :9223372036854775800 :0"),
                ("INCREX no XX", "*2 :0 :0"),
                ("EXISTS no", ":0"),
            ],
        );
    }

    #[test]
    fn decimal_numbers_do_too() {
        check(
            &mut Harness::default(),
            &[
                ("SET k 10", "+OK"),
                ("INCREX k BYFLOAT 5.5 UBOUND 15.4", "*2 $2 10 $1 0"),
                ("INCREX k BYFLOAT 5.5 UBOUND 15.5", "*2 $4 15.5 $3 5.5"),
                ("INCREX k BYFLOAT 1 UBOUND 12.25 SATURATE", "*2 $5 12.25 $5 -3.25"),
                ("INCREX k BYFLOAT 1e4932 UBOUND 100 SATURATE", "*2 $3 100 $5 87.75"),
                ("INCREX k BYFLOAT 1 UBOUND -inf", "-ERR LBOUND can't be greater than UBOUND"),
                ("INCREX k BYFLOAT 1 LBOUND -inf UBOUND inf", "*2 $3 101 $1 1"),
                (
                    "INCREX k BYFLOAT 1 LBOUND inf UBOUND inf SATURATE",
                    "-ERR applied increment would be Infinity",
                ),
                ("INCREX k BYFLOAT inf", "-ERR increment would produce NaN or Infinity"),
                ("SET k 1e4932", "+OK"),
                (
                    "INCREX k BYFLOAT 1e4932 UBOUND inf SATURATE",
                    "-ERR applied increment would be Infinity",
                ),
            ],
        );
        let mut h = Harness::default();
        h.run("HELLO 3");
        check(&mut h, &[("INCREX k BYFLOAT 0.5", "*2 ,0.5 ,0.5"), ("INCREX n", "*2 :1 :1")]);
    }

    #[test]
    fn the_window_begins_with_the_first_step() {
        let mut h = Harness::default();
        check(&mut h, &[("INCREX k UBOUND 2 EX 10 ENX", "*2 :1 :1"), ("PTTL k", ":10000")]);
        h.worker.now_ms += 4000;
        check(
            &mut h,
            &[
                ("INCREX k UBOUND 2 EX 10 ENX", "*2 :2 :1"),
                ("INCREX k UBOUND 2 EX 10 ENX", "*2 :2 :0"),
                ("INCREX k UBOUND 2 EX 10", "*2 :2 :0"),
                ("PTTL k", ":6000"),
                ("INCREX k", "*2 :3 :1"),
                ("PTTL k", ":6000"),
                ("INCREX k PX 1", "*2 :4 :1"),
                ("PTTL k", ":1"),
            ],
        );
        h.worker.now_ms += 10;
        check(
            &mut h,
            &[
                ("INCREX k UBOUND 2 EX 10 ENX", "*2 :1 :1"),
                ("INCREX k PERSIST", "*2 :2 :1"),
                ("TTL k", ":-1"),
                ("INCREX k EXAT 1", "*2 :3 :1"),
                ("EXISTS k", ":0"),
            ],
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut h = Harness::default();
        for options in [
            "FOO",
            "BYINT",
            "BYINT 1 BYFLOAT 1",
            "BYINT 1 BYINT 1",
            "LBOUND 1 LBOUND 1",
            "UBOUND 1 UBOUND 1",
            "SATURATE SATURATE",
            "NX XX",
            "EX 1 PX 1",
            "EX 1 PERSIST",
            "PERSIST EX 1",
            "PERSIST ENX",
            "ENX PERSIST",
            "ENX ENX EX 1",
            "EX",
        ] {
            let line = format!("INCREX k {options}");
            assert_eq!(h.run(&line), b"-ERR syntax error\r\n", "{line}");
        }
        check(
            &mut h,
            &[
                ("INCREX k ENX", "-ERR ENX flag requires an expiration"),
                ("INCREX k BYINT 1.5", "-ERR Increment is not an integer or out of range"),
                ("INCREX k BYFLOAT x", "-ERR Increment is not a valid float"),
                ("INCREX k UBOUND inf", "-ERR UBOUND is not an integer or out of range"),
                ("INCREX k BYFLOAT 1 LBOUND x", "-ERR LBOUND is not a valid float"),
                ("INCREX k LBOUND 2 UBOUND 1", "-ERR LBOUND can't be greater than UBOUND"),
                ("INCREX k EX 0", "-ERR invalid expire time in 'increx' command"),
                ("SET k x", "+OK"),
                ("INCREX k", "-ERR value is not an integer or out of range"),
                ("INCREX k BYFLOAT 1", "-ERR value is not a valid float"),
                ("RPUSH l x", ":1"),
                ("INCREX l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ],
        );
    }
}
