//! Hashes. Times to live of fields are in [`crate::hash_expire`].

use crate::context::Cx;
use crate::database::{Walked, parse_cursor, parse_scan};
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Editor;
use crate::random::{self, Sample};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::{Reply, Version};
use hypercache_stdx::float80::Float80;
use hypercache_stdx::glob::glob_match;
use hypercache_stdx::number;
use hypercache_store::types::{Hash, HashDone, HashOp, Record};

pub(crate) const BASE: Command =
    Command { group: Group::Hash, acl: Acl::HASH, since: "2.0.0", ..Command::DEFAULT };
const ADDS: Flags = Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST);
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const UPDATE: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE));
const ADD_TO: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE));
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "HSET",
        arity: -4,
        keys: UPDATE,
        flags: ADDS,
        run: |cx, args| {
            let added = set_pairs(cx, args)?;
            cx.reply.int(added);
            Ok(())
        },
        summary: "Sets fields; answers how many are new. A field's own time to live ends.",
        complexity: "O(1) for each field",
        syntax: "key field value [field value ...]",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HSET h a 3 c 4\n(integer) 1\n> HGET h a\n\"3\"",
        ..BASE
    },
    Command {
        name: "HMSET",
        arity: -4,
        keys: UPDATE,
        flags: ADDS,
        run: |cx, args| {
            set_pairs(cx, args)?;
            cx.reply.ok();
            Ok(())
        },
        summary: "Sets fields, as HSET, which answers more.",
        complexity: "O(1) for each field",
        syntax: "key field value [field value ...]",
        examples: "> HMSET h a 1 b 2\nOK",
        ..BASE
    },
    Command {
        name: "HSETNX",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: ADDS,
        run: hsetnx,
        summary: "Sets a field, if it is not there.",
        syntax: "key field value",
        examples: "> HSETNX h a 1\n(integer) 1\n> HSETNX h a 2\n(integer) 0\n> HGET h a\n\"1\"",
        ..BASE
    },
    Command {
        name: "HGET",
        arity: 3,
        keys: READ,
        flags: READ_FAST,
        run: hget,
        summary: "The value of a field.",
        syntax: "key field",
        examples: "> HSET h a 1\n(integer) 1\n> HGET h a\n\"1\"\n> HGET h b\n(nil)",
        ..BASE
    },
    Command {
        name: "HMGET",
        arity: -3,
        keys: READ,
        flags: READ_FAST,
        run: hmget,
        summary: "The values of fields.",
        complexity: "O(N) in the number of fields asked for",
        syntax: "key field [field ...]",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HMGET h b x a\n1) \"2\"\n2) (nil)\n3) \"1\"",
        ..BASE
    },
    Command {
        name: "HGETALL",
        tips: ANY_ORDER,
        arity: 2,
        keys: READ,
        flags: Flags::READONLY,
        run: hgetall,
        summary: "All fields with their values.",
        complexity: "O(N) in the number of fields",
        syntax: "key",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HGETALL h\n1) \"a\"\n2) \"1\"\n3) \"b\"\n4) \"2\"",
        ..BASE
    },
    Command {
        name: "HKEYS",
        tips: ANY_ORDER,
        arity: 2,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| each_of(cx, args, |record| record.key),
        summary: "All fields.",
        complexity: "O(N) in the number of fields",
        syntax: "key",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HKEYS h\n1) \"a\"\n2) \"b\"",
        ..BASE
    },
    Command {
        name: "HVALS",
        tips: ANY_ORDER,
        arity: 2,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| each_of(cx, args, |record| record.value),
        summary: "All values.",
        complexity: "O(N) in the number of fields",
        syntax: "key",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HVALS h\n1) \"1\"\n2) \"2\"",
        ..BASE
    },
    Command {
        name: "HLEN",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: hlen,
        summary: "Number of fields.",
        syntax: "key",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HLEN h\n(integer) 2\n> HLEN x\n(integer) 0",
        ..BASE
    },
    Command {
        name: "HEXISTS",
        arity: 3,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: |cx, args| length_of(cx, args, |record| record.map_or(0, |_| 1)),
        summary: "Whether there is a field.",
        syntax: "key field",
        examples: "> HSET h a 1\n(integer) 1\n> HEXISTS h a\n(integer) 1\n> HEXISTS h b\n(integer) 0",
        ..BASE
    },
    Command {
        name: "HSTRLEN",
        since: "3.2.0",
        arity: 3,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: |cx, args| length_of(cx, args, |record| record.map_or(0, |r| r.value.len())),
        summary: "Length of a field's value in bytes.",
        syntax: "key field",
        examples: "> HSET h a hello\n(integer) 1\n> HSTRLEN h a\n(integer) 5\n> HSTRLEN h b\n(integer) 0",
        ..BASE
    },
    Command {
        name: "HDEL",
        arity: -3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: Flags::WRITE.or(Flags::FAST),
        run: hdel,
        summary: "Removes fields; answers how many there were.",
        complexity: "O(N) in the number of fields named",
        syntax: "key field [field ...]",
        examples: "> HSET h a 1 b 2\n(integer) 2\n> HDEL h a x\n(integer) 1\n> HDEL h b\n(integer) 1\n> EXISTS h\n(integer) 0",
        ..BASE
    },
    Command {
        name: "HINCRBY",
        arity: 4,
        keys: ADD_TO,
        flags: ADDS,
        run: hincrby,
        summary: "Adds to an integer in a field, which keeps its time to live.",
        syntax: "key field increment",
        examples: "> HINCRBY h a 5\n(integer) 5\n> HINCRBY h a -7\n(integer) -2\n> HSET h a x\n(integer) 0\n> HINCRBY h a 1\n(error) ERR hash value is not an integer",
        ..BASE
    },
    Command {
        name: "HINCRBYFLOAT",
        since: "2.6.0",
        arity: 4,
        keys: ADD_TO,
        flags: ADDS,
        run: hincrbyfloat,
        summary: "Adds to a decimal number in a field, which keeps its time to live.",
        syntax: "key field increment",
        examples: "> HINCRBYFLOAT h a 0.5\n\"0.5\"\n> HINCRBYFLOAT h a 1.5e1\n\"15.5\"",
        ..BASE
    },
    Command {
        name: "HRANDFIELD",
        tips: &["nondeterministic_output"],
        since: "6.2.0",
        arity: -2,
        keys: READ,
        flags: Flags::READONLY,
        run: hrandfield,
        summary: "Fields at random: one, several different ones, or with a negative count any.",
        complexity: "O(N) in the number of fields answered",
        syntax: "key [count [WITHVALUES]]",
        examples: "> HSET h a 1\n(integer) 1\n> HRANDFIELD h\n\"a\"\n> HRANDFIELD h -2 WITHVALUES\n1) \"a\"\n2) \"1\"\n3) \"a\"\n4) \"1\"",
        ..BASE
    },
    Command {
        name: "HSCAN",
        tips: &["nondeterministic_output"],
        since: "2.8.0",
        arity: -3,
        keys: READ,
        flags: Flags::READONLY,
        run: hscan,
        summary: "Walks the fields, some at a time: until the cursor is 0 again.",
        complexity: "O(1) for each call, O(N) for a whole walk",
        syntax: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
        examples: "> HSET h a 1\n(integer) 1\n> HSCAN h 0\n1) \"0\"\n2) 1) \"a\"\n   2) \"1\"\n\
                   > HSCAN h 0 NOVALUES\n1) \"0\"\n2) 1) \"a\"",
        ..BASE
    },
];

/// Removes a field whose time is past, so that what follows finds none.
#[inline]
pub(crate) fn expire_field(hash: &mut Editor<'_, Hash>, field: &[u8], now_ms: u64) {
    let is_possible = hash.fields().next_deadline().is_some_and(|at| at < now_ms);
    if is_possible && hash.get(field).is_some_and(|record| record.is_expired(now_ms)) {
        hash.apply(HashOp::Remove(field));
        hash.event(Event::HExpired);
    }
}

/// Gives a field a value, and with it a deadline or none. Returns whether it is new.
#[inline]
pub(crate) fn put(
    hash: &mut Editor<'_, Hash>,
    (key, value): (&[u8], &[u8]),
    deadline: Option<u64>,
    now_ms: u64,
) -> bool {
    expire_field(hash, key, now_ms);
    hash.apply(HashOp::Put(Record { key, value, deadline })) == HashDone::Added
}

fn set_pairs(cx: &mut Cx<'_>, args: Args<'_>) -> Result<i64, ReplyError> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_arity(cx));
    }
    let now_ms = cx.keys.now_ms;
    cx.keys.edit::<Hash, _>(args.get(1), |hash| {
        let pairs = (2..args.len()).step_by(2).map(|i| (args.get(i), args.get(i + 1)));
        let added = pairs.map(|pair| i64::from(put(hash, pair, None, now_ms))).sum();
        hash.event(Event::HSet);
        added
    })
}

/// The error of a command whose arguments do not pair up.
#[cold]
pub(crate) fn wrong_arity(cx: &mut Cx<'_>) -> ReplyError {
    let name = &cx.entry.full_name;
    cx.reply.error(format!("ERR wrong number of arguments for '{name}' command").as_bytes());
    ReplyError::Written
}

fn hsetnx(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let (key, field) = (args.get(1), args.get(2));
    let hash = cx.keys.read_uncounted::<Hash>(key)?;
    let is_free = hash.is_none_or(|hash| hash.get_live(field, now_ms).is_none());
    if is_free {
        cx.keys.edit::<Hash, _>(key, |hash| {
            put(hash, (field, args.get(3)), None, now_ms);
            hash.event(Event::HSet);
        })?;
    }
    cx.reply.int(i64::from(is_free));
    Ok(())
}

#[inline]
pub(crate) fn reply_value(reply: &mut Reply<'_>, record: Option<Record<'_>>) {
    match record {
        Some(record) => reply.bulk(record.value),
        None => reply.null(),
    }
}

fn hget(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    let record = hash.and_then(|hash| hash.get_live(args.get(2), now_ms));
    reply_value(&mut cx.reply, record);
    Ok(())
}

fn hmget(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    cx.reply.array(args.len() - 2);
    for field in args.iter_from(2) {
        let record = hash.and_then(|hash| hash.get_live(field, now_ms));
        reply_value(&mut cx.reply, record);
    }
    Ok(())
}

fn hgetall(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let Some(hash) = cx.keys.read::<Hash>(args.get(1))? else {
        cx.reply.map(0);
        return Ok(());
    };
    cx.reply.map(hash.len_live(now_ms));
    for record in hash.iter_live(now_ms) {
        cx.reply.bulk(record.key);
        cx.reply.bulk(record.value);
    }
    Ok(())
}

fn each_of(cx: &mut Cx<'_>, args: Args<'_>, part: for<'r> fn(&Record<'r>) -> &'r [u8]) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let Some(hash) = cx.keys.read::<Hash>(args.get(1))? else {
        cx.reply.array(0);
        return Ok(());
    };
    cx.reply.array(hash.len_live(now_ms));
    hash.iter_live(now_ms).for_each(|record| cx.reply.bulk(part(&record)));
    Ok(())
}

fn hlen(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let len = cx.keys.read::<Hash>(args.get(1))?.map_or(0, |hash| hash.len_live(now_ms));
    cx.reply.int(len as i64);
    Ok(())
}

fn length_of(cx: &mut Cx<'_>, args: Args<'_>, of: fn(Option<Record<'_>>) -> usize) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    let record = hash.and_then(|hash| hash.get_live(args.get(2), now_ms));
    cx.reply.int(of(record) as i64);
    Ok(())
}

fn hdel(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let removed = cx.keys.edit_if_there::<Hash, _>(args.get(1), |hash| {
        let mut removed = 0;
        for field in args.iter_from(2) {
            expire_field(hash, field, now_ms);
            removed += i64::from(hash.apply(HashOp::Remove(field)) == HashDone::Removed);
        }
        if removed > 0 {
            hash.event(Event::HDel);
        }
        removed
    })?;
    cx.reply.int(removed.unwrap_or(0));
    Ok(())
}

fn hincrby(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let by = number::parse_i64(args.get(3)).ok_or(ReplyError::NotAnInteger)?;
    let (field, now_ms) = (args.get(2), cx.keys.now_ms);
    const NO_INTEGER: ReplyError = ReplyError::Text("ERR hash value is not an integer");
    let new = cx.keys.edit::<Hash, _>(args.get(1), |hash| {
        let (old, deadline) = match hash.get_live(field, now_ms) {
            Some(record) => (number::parse_i64(record.value).ok_or(NO_INTEGER)?, record.deadline),
            None => (0, None),
        };
        let new = old.checked_add(by).ok_or(ReplyError::Overflow)?;
        let mut digits = itoa::Buffer::new();
        put(hash, (field, digits.format(new).as_bytes()), deadline, now_ms);
        hash.event(Event::HIncrBy);
        Ok::<i64, ReplyError>(new)
    })??;
    cx.reply.int(new);
    Ok(())
}

fn hincrbyfloat(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let by = Float80::parse(args.get(3)).ok_or(ReplyError::NotAFloat)?;
    if by.is_nan() || by.is_infinite() {
        return Err(ReplyError::Text("ERR value is NaN or Infinity"));
    }
    let (key, field, now_ms) = (args.get(1), args.get(2), cx.keys.now_ms);
    let hash = cx.keys.read_uncounted::<Hash>(key)?;
    let record = hash.and_then(|hash| hash.get_live(field, now_ms));
    const NO_FLOAT: ReplyError = ReplyError::Text("ERR hash value is not a float");
    let (old, deadline) = match record {
        Some(record) => (Float80::parse(record.value).ok_or(NO_FLOAT)?, record.deadline),
        None => (Float80::from_i64(0), None),
    };
    let new = old + by;
    if new.is_nan() || new.is_infinite() {
        return Err(ReplyError::NanOrInfinity);
    }
    let mut text = Vec::new();
    new.format_human(&mut text);
    cx.keys.edit::<Hash, _>(key, |hash| {
        put(hash, (field, &text), deadline, now_ms);
        hash.event(Event::HIncrByFloat);
    })?;
    cx.reply.bulk(&text);
    Ok(())
}

fn hrandfield(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() == 2 {
        return one_random_field(cx, args);
    }
    let count = random::parse_count(args.get(2))?;
    let with_values = args.len() == 4 && args.get(3).eq_ignore_ascii_case(b"WITHVALUES");
    if args.len() > 3 && !with_values {
        return Err(ReplyError::Syntax);
    }
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(ReplyError::Text("ERR value is out of range"));
    }
    let now_ms = cx.keys.now_ms;
    let Some(hash) = cx.keys.read::<Hash>(args.get(1))? else {
        cx.reply.array(0);
        return Ok(());
    };
    let live = hash.len_live(now_ms);
    let is_nested = with_values && cx.reply.version() == Version::V3;
    let heads = if with_values && !is_nested { 2 } else { 1 };
    let write = |reply: &mut Reply<'_>, record: Record<'_>| {
        if is_nested {
            reply.array(2);
        }
        reply.bulk(record.key);
        if with_values {
            reply.bulk(record.value);
        }
    };
    let (reply, rng) = (&mut cx.reply, &mut cx.worker.rng);
    let sample = Sample::new(count, live);
    if let Sample::Any(n) = sample {
        return random::repeat(reply, (n, heads), |reply| {
            random::field(hash, rng, live, now_ms).into_iter().for_each(|r| write(reply, r));
        });
    }
    reply.array(sample.len() * heads);
    match sample {
        Sample::Most(wanted, len) => {
            let chosen = hash.iter_live(now_ms).filter(random::chooser(wanted, len, rng));
            chosen.for_each(|record| write(reply, record));
        }
        Sample::Few(n) => {
            let drawn = random::different(n, || random::field(hash, rng, live, now_ms));
            drawn.into_iter().for_each(|record| write(reply, record));
        }
        Sample::All(_) | Sample::Any(_) => {
            hash.iter_live(now_ms).for_each(|record| write(reply, record));
        }
    }
    Ok(())
}

fn one_random_field(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    let live = hash.map_or(0, |hash| hash.len_live(now_ms));
    let rng = &mut cx.worker.rng;
    match hash.and_then(|hash| random::field(hash, rng, live, now_ms)) {
        Some(record) => cx.reply.bulk(record.key),
        None => cx.reply.null(),
    }
    Ok(())
}

fn hscan(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut cursor = parse_cursor(args.get(2)).ok_or(ReplyError::Text("ERR invalid cursor"))?;
    let now_ms = cx.keys.now_ms;
    let hash = cx.keys.read::<Hash>(args.get(1))?;
    let options = if hash.is_some() { Some(parse_scan(args, Walked::Fields)?) } else { None };
    let mut found = Vec::new();
    let has_values = options.as_ref().is_none_or(|options| options.has_values);
    if let (Some(hash), Some(options)) = (hash, options) {
        let mut seen = 0;
        loop {
            cursor = hash.fields().scan(cursor, |record| {
                seen += 1;
                let matches = options.pattern.is_none_or(|p| glob_match(p, record.key, false));
                if matches && !record.is_expired(now_ms) {
                    found.push(record);
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
    cx.reply.array(found.len() * if has_values { 2 } else { 1 });
    for record in found {
        cx.reply.bulk(record.key);
        if has_values {
            cx.reply.bulk(record.value);
        }
    }
    Ok(())
}
