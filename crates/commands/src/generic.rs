//! Commands that work on keys whatever they hold.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{DATABASES, PARTITIONS};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::evict::Mode;
use hypercache_store::types::Object;
use hypercache_store::{EntryRef, Payload, Ttl};
use std::sync::Arc;

const BASE: Command = Command { group: Group::Generic, acl: Acl::KEYSPACE, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);
const OBJECT_KEY: Keys = Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RO };

const TAKEN: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE));
const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const OVERWRITTEN: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::OW.or(KeyFlags::UPDATE) };
const INSERTED: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::OW.or(KeyFlags::INSERT) };
const RENAME_KEYS: Keys = Keys::Two(&TAKEN, &OVERWRITTEN);
const RENAMENX_KEYS: Keys = Keys::Two(&TAKEN, &INSERTED);
const COPY_KEYS: Keys = Keys::Two(&READ, &OVERWRITTEN);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "DEL",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RM.or(KeyFlags::DELETE) },
        flags: Flags::WRITE,
        run: del,
        summary: "Deletes keys; answers how many there were.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...]",
        examples: "> MSET a 1 b 2\nOK\n> DEL a b c\n(integer) 2",
        ..BASE
    },
    Command {
        name: "UNLINK",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        since: "4.0.0",
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RM.or(KeyFlags::DELETE) },
        flags: CHANGE_FAST,
        run: del,
        summary: "Deletes keys; large values are always freed in the background.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...]",
        examples: "> MSET a 1 b 2\nOK\n> UNLINK a b c\n(integer) 2",
        ..BASE
    },
    Command {
        name: "EXISTS",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RO },
        flags: READ_FAST,
        run: exists,
        summary: "How many of the keys exist.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...]",
        examples: "> SET a 1\nOK\n> EXISTS a a b\n(integer) 2",
        ..BASE
    },
    Command {
        name: "TOUCH",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        since: "3.2.1",
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RO },
        flags: READ_FAST,
        run: touch,
        summary: "Notes a use of the keys; answers how many exist.",
        complexity: "O(N) in the number of keys",
        syntax: "key [key ...]",
        examples: "> SET a 1\nOK\n> TOUCH a b\n(integer) 1",
        ..BASE
    },
    Command {
        name: "TYPE",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: READ_FAST,
        run: type_of,
        summary: "The type of a key's value.",
        syntax: "key",
        examples: "> TYPE a\nnone\n> SET a 1\nOK\n> TYPE a\nstring",
        ..BASE
    },
    Command {
        name: "RENAME",
        arity: 3,
        keys: RENAME_KEYS,
        flags: Flags::WRITE,
        run: rename,
        summary: "Gives a key another name, whatever that held.",
        syntax: "key newkey",
        examples: "> SET a 1\nOK\n> RENAME a b\nOK\n> RENAME a b\n(error) ERR no such key",
        ..BASE
    },
    Command {
        name: "RENAMENX",
        arity: 3,
        keys: RENAMENX_KEYS,
        flags: CHANGE_FAST,
        run: renamenx,
        summary: "Gives a key another name, if that is free.",
        syntax: "key newkey",
        examples: "> MSET a 1 b 2\nOK\n> RENAMENX a b\n(integer) 0\n> RENAMENX a c\n(integer) 1",
        ..BASE
    },
    Command {
        name: "COPY",
        since: "6.2.0",
        arity: -3,
        keys: COPY_KEYS,
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: copy,
        summary: "Copies a value and its expiry to another key.",
        syntax: "source destination [DB destination-db] [REPLACE]",
        examples: "> SET a 1\nOK\n> COPY a b\n(integer) 1\n> COPY a b\n(integer) 0\n> COPY a b REPLACE\n(integer) 1",
        ..BASE
    },
    Command {
        name: "MOVE",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: move_key,
        summary: "Moves a key to another database, if it is free there.",
        syntax: "key db",
        examples: "> SET a 1\nOK\n> MOVE a 1\n(integer) 1\n> EXISTS a\n(integer) 0",
        ..BASE
    },
    Command {
        name: "RANDOMKEY",
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        arity: 1,
        keys: Keys::Each,
        flags: Flags::READONLY,
        run: randomkey,
        summary: "A key at random.",
        syntax: "",
        examples: "> RANDOMKEY\n(nil)\n> SET a 1\nOK\n> RANDOMKEY\n\"a\"",
        ..BASE
    },
    Command {
        name: "OBJECT",
        since: "2.2.3",
        arity: -2,
        acl: Acl::NONE,
        summary: "Tells how a value is kept.",
        complexity: "That of the subcommand",
        subcommands: OBJECT,
        ..BASE
    },
    Command {
        name: "WAIT",
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        since: "3.0.0",
        arity: 3,
        acl: Acl::CONNECTION,
        flags: Flags::NO_SCRIPT,
        run: crate::cluster::wait::wait,
        summary: "Waits until so many replicas have the client's writes, and tells how many do.",
        complexity: "O(1)",
        syntax: "numreplicas timeout",
        examples: "> WAIT 0 10\n(integer) 0\n> WAIT 0 -1\n(error) ERR timeout is negative",
        ..BASE
    },
];

const OBJECT_BASE: Command = Command {
    since: "2.2.3",
    arity: 3,
    keys: OBJECT_KEY,
    flags: Flags::READONLY,
    syntax: "key",
    ..BASE
};

const OBJECT: &[Command] = &[
    Command {
        name: "ENCODING",
        tips: &["nondeterministic_output"],
        run: object_encoding,
        summary: "How the value is kept: int, embstr or raw.",
        examples: "> SET a 1\nOK\n> OBJECT ENCODING a\n\"int\"\n> OBJECT ENCODING b\n(nil)",
        ..OBJECT_BASE
    },
    Command {
        name: "FREQ",
        tips: &["nondeterministic_output"],
        since: "4.0.0",
        run: object_freq,
        summary: "How often the key is used, as a logarithm; only under an LFU policy.",
        examples: "> OBJECT FREQ a\n(nil)",
        ..OBJECT_BASE
    },
    Command {
        name: "IDLETIME",
        tips: &["nondeterministic_output"],
        run: object_idletime,
        summary: "Seconds since the key was last used.",
        examples: "> SET a 1\nOK\n> OBJECT IDLETIME a\n(integer) 0",
        ..OBJECT_BASE
    },
    Command {
        name: "REFCOUNT",
        tips: &["nondeterministic_output"],
        run: object_refcount,
        summary: "References to the value: always one.",
        examples: "> SET a 1\nOK\n> OBJECT REFCOUNT a\n(integer) 1",
        ..OBJECT_BASE
    },
    Command {
        name: "HELP",
        since: "6.2.0",
        arity: 2,
        keys: Keys::None,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "The subcommands.",
        syntax: "",
        examples: "> OBJECT HELP\n…OBJECT <subcommand> …",
        ..OBJECT_BASE
    },
];

fn del(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut deleted = 0;
    for key in args.iter_from(1) {
        deleted += i64::from(cx.keys.delete(key, Event::Del));
    }
    cx.reply.int(deleted);
    Ok(())
}

fn exists(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut found = 0;
    for key in args.iter_from(1) {
        found += i64::from(cx.keys.look(key).is_some());
    }
    cx.reply.int(found);
    Ok(())
}

fn touch(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut found = 0;
    for key in args.iter_from(1) {
        found += i64::from(cx.keys.get(key).is_some());
    }
    cx.reply.int(found);
    Ok(())
}

fn type_of(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let kind = cx.keys.look(args.get(1)).map(|entry| entry.kind());
    cx.reply.simple(kind.map_or("none", |kind| kind.name()));
    Ok(())
}

fn ttl_of(deadline: Option<u64>) -> Ttl {
    deadline.map_or(Ttl::Clear, Ttl::At)
}

/// Moves a value to another name. The target must be free or of no further use.
fn take_over(cx: &mut Cx<'_>, from: &[u8], to: &[u8]) {
    let care = cx.keys.care(from);
    if let Some(taken) = cx.keys.remove(from, Event::RenameFrom) {
        cx.keys.put(to, taken, Event::RenameTo);
        care.iter().for_each(|care| cx.keys.set_care(to, care));
    }
}

fn rename(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (args.get(1), args.get(2));
    if !cx.keys.exists(from) {
        return Err(ReplyError::NoSuchKey);
    }
    if from != to {
        cx.keys.exists(to);
        take_over(cx, from, to);
    }
    cx.reply.ok();
    Ok(())
}

fn renamenx(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (args.get(1), args.get(2));
    if !cx.keys.exists(from) {
        return Err(ReplyError::NoSuchKey);
    }
    let is_free = !cx.keys.exists(to);
    if is_free {
        take_over(cx, from, to);
    }
    cx.reply.int(i64::from(is_free));
    Ok(())
}

/// The number of a database.
pub(crate) fn parse_db(text: &[u8]) -> Result<u8, ReplyError> {
    let db = number::parse_i64(text).filter(|db| i32::try_from(*db).is_ok());
    let db = db.ok_or(ReplyError::NotAnInteger)?;
    if (0..DATABASES as i64).contains(&db) { Ok(db as u8) } else { Err(ReplyError::DbIndex) }
}

/// The value that COPY stores again.
struct Source {
    value: SourceValue,
    ttl: Ttl,
}

enum SourceValue {
    String(Payload<'static>, bool),
    Object(Object),
}

impl Source {
    fn of(entry: EntryRef<'_>) -> Source {
        let value = match (entry.object(), entry.blob()) {
            (Some(object), _) => SourceValue::Object(object.clone()),
            (None, Some(blob)) => SourceValue::String(Payload::Blob(blob), entry.is_raw()),
            (None, None) => {
                let copy = Payload::Blob(Arc::new(entry.value().to_vec()));
                SourceValue::String(copy, entry.is_raw())
            }
        };
        Source { value, ttl: ttl_of(entry.deadline()) }
    }

    fn store(self, keys: &mut crate::keyspace::Keys<'_>, key: &[u8]) {
        match self.value {
            SourceValue::Object(object) => keys.put_object(key, object, self.ttl, Event::CopyTo),
            SourceValue::String(value, raw) => {
                keys.put_string(key, value, self.ttl, raw, Event::CopyTo);
            }
        }
    }
}

fn copy(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (mut target_db, mut replace) = (cx.keys.db, false);
    let mut i = 3;
    while i < args.len() {
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"REPLACE" => replace = true,
            b"DB" if i + 1 < args.len() => {
                i += 1;
                target_db = parse_db(args.get(i))?;
            }
            _ => return Err(ReplyError::Syntax),
        }
        i += 1;
    }
    let (from, to, db) = (args.get(1), args.get(2), cx.keys.db);
    if from == to && db == target_db {
        return Err(ReplyError::SameObject);
    }
    let Some(entry) = cx.keys.get(from) else {
        cx.reply.int(0);
        return Ok(());
    };
    let source = Source::of(entry);
    let care = cx.keys.care(from);
    cx.keys.db = target_db;
    let copied = !cx.keys.exists(to) || replace;
    if copied {
        source.store(&mut cx.keys, to);
        care.iter().for_each(|care| cx.keys.set_care(to, care));
    }
    cx.keys.db = db;
    cx.reply.int(i64::from(copied));
    Ok(())
}

fn move_key(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, db) = (args.get(1), cx.keys.db);
    let target_db = parse_db(args.get(2))?;
    if target_db == db {
        return Err(ReplyError::SameObject);
    }
    if !cx.keys.exists(key) {
        cx.reply.int(0);
        return Ok(());
    }
    cx.keys.db = target_db;
    let is_free = !cx.keys.exists(key);
    cx.keys.db = db;
    let care = cx.keys.care(key);
    if is_free && let Some(taken) = cx.keys.remove(key, Event::MoveFrom) {
        cx.keys.db = target_db;
        cx.keys.put(key, taken, Event::MoveTo);
        care.iter().for_each(|care| cx.keys.set_care(key, care));
        cx.keys.db = db;
    }
    cx.reply.int(i64::from(is_free));
    Ok(())
}

fn randomkey(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (db, now_ms) = (cx.keys.db, cx.keys.now_ms);
    let rng = &mut cx.worker.rng;
    let start = rng.below(PARTITIONS as u64) as u16;
    for n in 0..PARTITIONS as u16 {
        let partition = (start + n) % PARTITIONS as u16;
        let found = cx.keys.with_shard(partition, |shard| {
            // An expired key may be met; a few more tries find a live one where most are.
            let pick = |rng: &mut hypercache_stdx::rng::Rng| {
                let entry = shard.own_db(db)?.random(|n| rng.below(n))?;
                (!entry.is_expired(now_ms)).then(|| entry.key().to_vec())
            };
            (0..16).find_map(|_| pick(rng))
        });
        if let Some(key) = found {
            cx.reply.bulk(&key);
            return Ok(());
        }
    }
    cx.reply.null();
    Ok(())
}

/// Longest value that Redis shows as `embstr`.
const EMBEDDED_MAX: usize = 44;

/// How Redis would keep a value.
pub(crate) fn encoding_of(entry: EntryRef<'_>) -> &'static str {
    match entry.object() {
        Some(object) => object.encoding(),
        None => string_encoding(entry.value(), entry.is_raw()),
    }
}

fn string_encoding(value: &[u8], is_raw: bool) -> &'static str {
    match number::parse_i64(value) {
        _ if is_raw => "raw",
        Some(_) => "int",
        None if value.len() <= EMBEDDED_MAX => "embstr",
        None => "raw",
    }
}

fn object_encoding(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.peek(args.get(2)) {
        None => cx.reply.null(),
        Some(entry) => cx.reply.bulk(encoding_of(entry).as_bytes()),
    }
    Ok(())
}

fn object_freq(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (uses, now_s) = (&cx.shared.keyspace.uses, cx.keys.now_s);
    let Some(bits) = cx.keys.peek(args.get(2)).map(|entry| entry.use_bits()) else {
        cx.reply.null();
        return Ok(());
    };
    if uses.mode() != Mode::Frequency {
        return Err(ReplyError::Text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        ));
    }
    cx.reply.int(i64::from(uses.frequency(bits, now_s)));
    Ok(())
}

fn object_idletime(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (uses, now_s) = (&cx.shared.keyspace.uses, cx.keys.now_s);
    let Some(bits) = cx.keys.peek(args.get(2)).map(|entry| entry.use_bits()) else {
        cx.reply.null();
        return Ok(());
    };
    if uses.mode() == Mode::Frequency {
        return Err(ReplyError::Text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    cx.reply.int(i64::from(uses.idle_s(bits, now_s)));
    Ok(())
}

fn object_refcount(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if cx.keys.exists(args.get(2)) {
        cx.reply.int(1)
    } else {
        cx.reply.null()
    }
    Ok(())
}
