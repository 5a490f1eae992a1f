//! DEBUG: what tests of servers and clients use. Refused unless `enable-debug-command` allows it.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::generic::encoding_of;
use crate::keyspace::DATABASES;
use crate::table::{Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Version;
use hypercache_stdx::{glob::glob_match, hash::KeyHasher, number};
use hypercache_store::{EntryRef, Payload, Ttl};
use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const BASE: Command = Command {
    group: Group::Server,
    flags: Flags::ADMIN.or(Flags::NO_SCRIPT).or(Flags::LOADING).or(Flags::STALE),
    ..Command::DEFAULT
};
const KEY: Keys = Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RO };
const KEYS: Keys = Keys::Range { first: 2, last: -1, step: 1, flags: KeyFlags::RO };

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "DEBUG",
    arity: -2,
    summary: "Helps to test servers and clients.",
    complexity: "That of the subcommand",
    examples: "> DEBUG SLEEP 0\n(error) ERR DEBUG command not allowed. …",
    subcommands: DEBUG,
    ..BASE
}];

const fn sub(
    name: &'static str,
    arity: i32,
    keys: Keys,
    run: fn(&mut Cx<'_>, Args<'_>) -> Outcome,
    syntax: &'static str,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys, run, syntax, summary, ..BASE }
}

const DEBUG: &[Command] = &[
    sub("SLEEP", 3, Keys::None, sleep, "seconds", "Stops this event loop for a while."),
    sub("OBJECT", -3, KEY, object, "key [fast]", "Shows how a value is kept."),
    sub("SDSLEN", 3, KEY, sdslen, "key", "Shows the lengths of a key and its value."),
    sub(
        "SET-ACTIVE-EXPIRE",
        3,
        Keys::None,
        set_active_expire,
        "<0 | 1>",
        "Stops or starts expiry in the background.",
    ),
    sub("POPULATE", -3, Keys::All, populate, "count [prefix] [size]", "Makes many keys."),
    sub("DIGEST", 2, Keys::Each, digest, "", "A number that depends on all keys and values."),
    sub("DIGEST-VALUE", -2, KEYS, digest_value, "[key [key ...]]", "A number for each value."),
    sub(
        "HTSTATS",
        -3,
        Keys::Each,
        htstats,
        "dbid [full]",
        "Shows the size of the tables of a database.",
    ),
    sub(
        "STRINGMATCH-LEN",
        4,
        Keys::None,
        stringmatch_len,
        "len pattern",
        "Matches a pattern against a long text.",
    ),
    sub("PROTOCOL", 3, Keys::None, protocol, "type", "Replies with a value of a protocol type."),
    sub("ERROR", 3, Keys::None, error, "text", "Replies with an error."),
    sub("LOG", 3, Keys::None, log, "text", "Writes a line to the log."),
    sub("HELP", 2, Keys::None, crate::help::help, "", "The subcommands."),
];

/// Whether the client may use DEBUG at all.
///
/// # Errors
/// The refusal, with what to do about it.
pub(crate) fn check_allowed(cx: &Cx<'_>) -> Outcome {
    let allowed = match cx.shared.config.get("enable-debug-command").as_str() {
        "yes" => true,
        "local" => cx.session.client.is_local(),
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    Err(ReplyError::Text(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
         you can run it from a local connection, otherwise you need to set this option in the \
         configuration file, and then restart the server.",
    ))
}

/// Longest sleep: a client must not stop an event loop for good.
const SLEEP_SECONDS_MAX: f64 = 3600.0;

fn sleep(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let seconds = number::parse_f64(args.get(2)).ok_or(ReplyError::NotAFloat)?;
    std::thread::sleep(Duration::from_secs_f64(seconds.clamp(0.0, SLEEP_SECONDS_MAX)));
    cx.reply.ok();
    Ok(())
}

fn object(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let (uses, now_s) = (&cx.shared.keyspace.uses, cx.keys.now_s);
    let entry = cx.keys.peek(args.get(2)).ok_or(ReplyError::NoSuchKey)?;
    let line = format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{} \
         bytes:{}",
        encoding_of(entry),
        value_of(&entry).len(),
        entry.use_bits(),
        uses.idle_s(entry.use_bits(), now_s),
        entry.bytes_used(),
    );
    cx.reply.simple(&line);
    Ok(())
}

fn sdslen(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let entry = cx.keys.peek(args.get(2)).ok_or(ReplyError::NoSuchKey)?;
    if entry.object().is_some() {
        return Err(ReplyError::Text("ERR Not an sds encoded string."));
    }
    let (key, value, bytes) = (entry.key().len(), entry.value().len(), entry.bytes_used());
    let line = format!(
        "key_sds_len:{key}, key_sds_avail:0, key_zmalloc: {bytes}, val_sds_len:{value}, \
         val_sds_avail:0, val_zmalloc: 0"
    );
    cx.reply.simple(&line);
    Ok(())
}

fn set_active_expire(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    cx.shared.is_active_expire.store(args.get(2) != b"0", Relaxed);
    cx.reply.ok();
    Ok(())
}

/// Keys made by one command at most.
const POPULATE_MAX: i64 = 100_000_000;

fn populate(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let number = |i: usize| number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger);
    let count = number(2)?;
    let prefix = if args.len() > 3 { args.get(3) } else { b"key" };
    let size = if args.len() > 4 { Some(number(4)?) } else { None };
    let len_max = cx.shared.config.hot.bulk_bytes_max.load(Relaxed) as i64;
    if !(0..=POPULATE_MAX).contains(&count) || size.is_some_and(|n| !(0..=len_max).contains(&n)) {
        return Err(ReplyError::Text("ERR value is out of range, must be positive"));
    }
    for n in 0..count {
        let key = [prefix, b":", n.to_string().as_bytes()].concat();
        if cx.keys.exists(&key) {
            continue;
        }
        let mut value = format!("value:{n}").into_bytes();
        value.resize(size.map_or(value.len(), |size| size as usize), 0);
        cx.keys.set(&key, Payload::Slice(&value), Ttl::Clear, Event::Silent);
    }
    cx.reply.ok();
    Ok(())
}

/// A digest's key is fixed, so that servers can be compared.
fn digest_of(parts: &[&[u8]]) -> u64 {
    parts.iter().fold(0, |sum, part| KeyHasher::new((sum, 1)).hash(part))
}

fn digest_of_entry(db: u8, entry: &EntryRef<'_>) -> u64 {
    let deadline = entry.deadline().unwrap_or(0).to_le_bytes();
    digest_of(&[&[db], entry.key(), &value_of(entry), &deadline])
}

/// Bytes that stand for the value of a key, whatever its type.
fn value_of<'a>(entry: &EntryRef<'a>) -> Cow<'a, [u8]> {
    match entry.object() {
        Some(object) => Cow::Owned(object.canonical()),
        None => Cow::Borrowed(entry.value()),
    }
}

fn digest(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let now_ms = cx.keys.now_ms;
    let mut sum = 0u64;
    cx.keys.each_shard(|_, shard| {
        for i in 0..DATABASES as u8 {
            let Some(db) = shard.db(i) else { continue };
            db.for_each(|entry| {
                if !entry.is_expired(now_ms) {
                    sum ^= digest_of_entry(i, &entry);
                }
            });
        }
        true
    });
    cx.reply.simple(&format!("{sum:040x}"));
    Ok(())
}

fn digest_value(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    cx.reply.array(args.len() - 2);
    for key in args.iter_from(2) {
        let digest = cx.keys.peek(key).map_or(0, |entry| digest_of(&[&value_of(&entry)]));
        cx.reply.simple(&format!("{digest:040x}"));
    }
    Ok(())
}

fn htstats(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let db = crate::generic::parse_db(args.get(2))?;
    let (mut keys, mut buckets, mut bytes) = (0, 0, 0);
    cx.keys.each_shard(|_, shard| {
        if let Some(db) = shard.db(db) {
            keys += db.len();
            buckets += db.buckets();
            bytes += db.overhead_bytes();
        }
        true
    });
    let text = format!(
        "[Dictionary HT]\nHash table 0 stats (main hash table):\n table size: {buckets}\n number \
         of elements: {keys}\n bytes of tables and expiry index: {bytes}\n"
    );
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn stringmatch_len(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let len = number::parse_i64(args.get(2)).filter(|len| (0..=1 << 24).contains(len));
    let text = vec![b'a'; len.ok_or(ReplyError::NotAnInteger)? as usize];
    cx.reply.int(i64::from(glob_match(args.get(3), &text, false)));
    Ok(())
}

const BIG_NUMBER: &[u8] = b"1234567999999999999999999999999999999";

fn protocol(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    let reply = &mut cx.reply;
    let three = 0..3;
    match args.get(2).to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double_text(b"3.141"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            three.for_each(|n| reply.int(n));
        }
        b"set" => {
            reply.set(3);
            three.for_each(|n| reply.int(n));
        }
        b"map" => {
            reply.map(3);
            for n in three {
                reply.int(n);
                reply.bool(n == 1);
            }
        }
        b"push" => {
            if reply.version() == Version::V2 {
                return Err(ReplyError::Text("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
            // A push message answers nothing.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"attrib" => {
            if reply.version() == Version::V3 {
                let attribute = b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n";
                reply.output().bytes.extend_from_slice(attribute);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"bignum" => match reply.version() {
            Version::V2 => reply.bulk(BIG_NUMBER),
            Version::V3 => {
                reply.output().bytes.extend([b"(", BIG_NUMBER, b"\r\n"].concat());
            }
        },
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        _ => {
            return Err(ReplyError::Text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn error(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    cx.reply.error(args.get(2));
    Err(ReplyError::Written)
}

fn log(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_allowed(cx)?;
    tracing::info!("DEBUG LOG: {}", args.get(2).escape_ascii());
    cx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::testing::Harness;

    #[test]
    fn what_only_resp3_has_comes_with_a_reply() {
        let mut config = Config::default();
        config.set_at_start("enable-debug-command", "yes").expect("a choice");
        let mut harness = Harness::new(config);
        let refusal = b"-ERR RESP2 is not supported by this command\r\n";
        assert_eq!(harness.run("DEBUG PROTOCOL push"), refusal);
        let number = b"$37\r\n1234567999999999999999999999999999999\r\n";
        assert_eq!(harness.run("DEBUG PROTOCOL bignum"), number);
        harness.run("HELLO 3");
        assert!(harness.run("DEBUG PROTOCOL push").ends_with(b"following the push reply\r\n"));
        assert!(harness.run("DEBUG PROTOCOL attrib").starts_with(b"|1\r\n$14\r\n"));
        assert!(harness.run("DEBUG PROTOCOL bignum").starts_with(b"(1234567999"));
    }
}
