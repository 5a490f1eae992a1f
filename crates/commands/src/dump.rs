//! DUMP and RESTORE: values as payloads, in the format of Redis' snapshots ([`hypercache_rdb`]).

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_rdb::{Reader, Refused, Value, payload, put_object, put_string_value, read_value};
use hypercache_stdx::number;
use hypercache_store::{EntryRef, Payload, Ttl};
use std::sync::Arc;

const BASE: Command = Command { since: "2.6.0", acl: Acl::KEYSPACE, ..Command::DEFAULT };
const RESTORE: Command = Command {
    arity: -4,
    keys: Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE)),
    flags: Flags::WRITE.or(Flags::DENY_OOM),
    acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
    run: restore,
    complexity: "O(N) in the bytes of the payload; O(N*log(N)) for sorted sets",
    syntax: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    ..BASE
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "DUMP",
        tips: &["nondeterministic_output"],
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: dump,
        summary: "A key's value as a payload for RESTORE, here or in Redis.",
        complexity: "O(N) in the bytes of the value",
        syntax: "key",
        examples: "> DUMP k\n(nil)\n> SET k a\nOK\n> DUMP k\n\"\\x00\\x01a\\n\\x00\\xbf\\xfe\\xef\\x9b\\x8f6}\\xb4\"",
        ..BASE
    },
    Command {
        name: "RESTORE",
        summary: "Makes a key of what DUMP gave, here or in Redis.",
        examples: "> RESTORE k 0 \"\\x00\\xc0\\x07\\n\\x00t\\xcdH\\xa2\\x83\\xab\\xce\\x92\"\nOK\n> GET k\n\"7\"\n> RESTORE k 0 x\n(error) BUSYKEY Target key name already exists.\n> RESTORE k 0 x REPLACE\n(error) ERR DUMP payload version or checksum are wrong",
        ..RESTORE
    },
    Command {
        name: "RESTORE-ASKING",
        group: Group::Server,
        since: "3.0.0",
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::ASKING),
        summary: "RESTORE on behalf of another node of a cluster, which MIGRATE sends.",
        examples: "> RESTORE-ASKING k -1 x\n(error) ERR Invalid TTL value, must be >= 0",
        ..RESTORE
    },
];

/// The payload of an entry.
pub(crate) fn payload_of(entry: EntryRef<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    let version = match entry.object() {
        Some(object) => put_object(&mut payload, object),
        None => put_string_value(&mut payload, entry.value()),
    };
    payload::seal(&mut payload, version);
    payload
}

fn dump(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.get(args.get(1)) {
        Some(entry) => cx.reply.bulk(&payload_of(entry)),
        None => cx.reply.null(),
    }
    Ok(())
}

/// What RESTORE's arguments say beside the payload.
#[derive(Default)]
struct Options {
    replaces: bool,
    is_absolute: bool,
    idle_s: Option<i64>,
    /// Taken and of no effect: no policy here counts how often a key is used.
    frequency: Option<i64>,
}

impl Options {
    fn read(args: Args<'_>) -> Result<Options, ReplyError> {
        let mut options = Options::default();
        let mut i = 4;
        while i < args.len() {
            let has_value = i + 1 < args.len();
            match args.get(i).to_ascii_uppercase().as_slice() {
                b"REPLACE" => options.replaces = true,
                b"ABSTTL" => options.is_absolute = true,
                b"IDLETIME" if has_value && options.frequency.is_none() => {
                    i += 1;
                    options.idle_s = Some(idle_s(args.get(i))?);
                }
                b"FREQ" if has_value && options.idle_s.is_none() => {
                    i += 1;
                    options.frequency = Some(frequency(args.get(i))?);
                }
                _ => return Err(ReplyError::Syntax),
            }
            i += 1;
        }
        Ok(options)
    }
}

fn idle_s(text: &[u8]) -> Result<i64, ReplyError> {
    let idle_s = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
    let refused = ReplyError::Text("ERR Invalid IDLETIME value, must be >= 0");
    if idle_s >= 0 { Ok(idle_s) } else { Err(refused) }
}

fn frequency(text: &[u8]) -> Result<i64, ReplyError> {
    let frequency = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
    let refused = ReplyError::Text("ERR Invalid FREQ value, must be >= 0 and <= 255");
    if (0..=255).contains(&frequency) { Ok(frequency) } else { Err(refused) }
}

fn restore(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = Options::read(args)?;
    let key = args.get(1);
    if !options.replaces && cx.keys.get(key).is_some() {
        return Err(ReplyError::Text("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    if ttl_ms < 0 {
        return Err(ReplyError::Text("ERR Invalid TTL value, must be >= 0"));
    }
    let value = value_of(args.get(3)).map_err(ReplyError::Text)?;
    let now_ms = cx.keys.now_ms as i64;
    let deadline = match ttl_ms {
        0 => None,
        at if options.is_absolute => Some(at),
        // What is beyond all time is past, as in Redis.
        ttl => Some(ttl.wrapping_add(now_ms)),
    };
    if deadline.is_some_and(|at| at <= now_ms) {
        if options.replaces {
            cx.keys.delete(key, Event::Del);
        }
    } else {
        // So that one whose time is past counts as not there.
        cx.keys.exists(key);
        let ttl = deadline.map_or(Ttl::Clear, |at| Ttl::At(at as u64));
        store(&mut cx.keys, key, value, ttl, options.idle_s.unwrap_or(0));
    }
    cx.reply.ok();
    Ok(())
}

/// The value of a payload, or what to answer.
fn value_of(payload: &[u8]) -> Result<Value, &'static str> {
    let opened = payload::open(payload);
    let (content, version) = opened.ok_or("ERR DUMP payload version or checksum are wrong")?;
    let mut reader = Reader::new(content);
    let kind = reader.u8().ok_or("ERR Bad data format")?;
    read_value(kind, &mut reader, version).map_err(|refused| match refused {
        Refused::Damaged | Refused::UnknownType => "ERR Bad data format",
        Refused::Module => "ERR Bad data format: the value is of a module, and there is none",
    })
}

fn store(keys: &mut keyspace::Keys<'_>, key: &[u8], value: Value, ttl: Ttl, idle_s: i64) {
    let now_s = keys.now_s;
    keys.now_s = now_s.saturating_sub(u32::try_from(idle_s).unwrap_or(u32::MAX));
    match value {
        Value::Object(object) => keys.put_object(key, object, ttl, Event::Restore),
        Value::String(string) => {
            let string = Payload::Blob(Arc::new(string));
            keys.put_string(key, string, ttl, false, Event::Restore);
        }
    }
    keys.now_s = now_s;
}
