//! Commands that work on whole databases.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{DATABASES, PARTITIONS};
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::glob::glob_match;
use hypercache_stdx::number;
use hypercache_store::types::Kind;

const BASE: Command = Command { group: Group::Server, acl: Acl::KEYSPACE, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "DBSIZE",
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        arity: 1,
        keys: Keys::Each,
        flags: READ_FAST,
        run: dbsize,
        summary: "Number of keys in the selected database.",
        syntax: "",
        examples: "> MSET a 1 b 2\nOK\n> DBSIZE\n(integer) 2",
        ..BASE
    },
    Command {
        name: "KEYS",
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        group: Group::Generic,
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        arity: 2,
        keys: Keys::Each,
        flags: Flags::READONLY,
        run: keys_command,
        summary: "All keys that match a pattern. Visits every key: for debugging.",
        complexity: "O(N) in the number of keys in the database",
        syntax: "pattern",
        examples: "> SET abc 1\nOK\n> KEYS a*\n1) \"abc\"\n> KEYS x*\n(empty array)",
        ..BASE
    },
    Command {
        name: "SCAN",
        tips: &["nondeterministic_output", "request_policy:special"],
        group: Group::Generic,
        since: "2.8.0",
        arity: -2,
        keys: Keys::Each,
        flags: Flags::READONLY,
        run: scan,
        summary: "Walks the keys, some at a time: until the cursor is 0 again.",
        complexity: "O(1) for each call, O(N) for a whole walk",
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        examples: "> SET a 1\nOK\n> SCAN 0\n1) \"0\"\n2) 1) \"a\"\n> SCAN x\n(error) ERR invalid cursor",
        ..BASE
    },
    Command {
        name: "FLUSHDB",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        arity: -1,
        keys: Keys::All,
        flags: Flags::WRITE,
        run: flushdb,
        summary: "Empties the selected database.",
        complexity: "O(1); freeing is O(N), in the background with ASYNC",
        syntax: "[ASYNC | SYNC]",
        examples: "> SET a 1\nOK\n> FLUSHDB\nOK\n> DBSIZE\n(integer) 0",
        ..BASE
    },
    Command {
        name: "FLUSHALL",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        arity: -1,
        keys: Keys::All,
        flags: Flags::WRITE,
        run: flushall,
        summary: "Empties all databases.",
        complexity: "O(1); freeing is O(N), in the background with ASYNC",
        syntax: "[ASYNC | SYNC]",
        examples: "> SET a 1\nOK\n> FLUSHALL SYNC\nOK\n> DBSIZE\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SWAPDB",
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        since: "4.0.0",
        arity: 3,
        keys: Keys::All,
        flags: CHANGE_FAST,
        run: swapdb,
        summary: "Exchanges two databases.",
        complexity: "O(1)",
        syntax: "index1 index2",
        examples: "> SET a 1\nOK\n> SWAPDB 0 1\nOK\n> EXISTS a\n(integer) 0",
        ..BASE
    },
];

fn dbsize(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (keys, _) = cx.keys.count(cx.keys.db);
    cx.reply.int(keys as i64);
    Ok(())
}

fn keys_command(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (db, now_ms, pattern) = (cx.keys.db, cx.keys.now_ms, args.get(1));
    let takes_all = pattern == b"*";
    let mut found = 0usize;
    let mut list = hypercache_protocol::reply::Output::default();
    let version = cx.reply.version();
    let mut reply = hypercache_protocol::reply::Reply::new(&mut list, version);
    cx.keys.each_shard(|_, shard| {
        if let Some(db) = shard.own_db(db) {
            db.for_each(|entry| {
                let matches = takes_all || glob_match(pattern, entry.key(), false);
                if matches && !entry.is_expired(now_ms) {
                    reply.bulk(entry.key());
                    found += 1;
                }
            });
        }
        true
    });
    cx.reply.array(found);
    cx.reply.output().append(&list);
    Ok(())
}

/// Where a walk stands: a partition and a cursor within it, in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    partition: u16,
    inner: u32,
}

impl Cursor {
    fn from_number(number: u64) -> Self {
        let partition = (number % PARTITIONS as u64) as u16;
        Cursor { partition, inner: (number / PARTITIONS as u64) as u32 }
    }

    fn to_number(self) -> u64 {
        u64::from(self.inner) * PARTITIONS as u64 + u64::from(self.partition)
    }

    /// The place after this one; `None` at the end.
    fn after(self, inner: u32) -> Option<Self> {
        if inner != 0 {
            return Some(Cursor { inner, ..self });
        }
        let partition = self.partition + 1;
        ((partition as usize) < PARTITIONS).then_some(Cursor { partition, inner: 0 })
    }
}

/// What a walk is asked for.
#[derive(Debug)]
pub(crate) struct ScanOptions<'a> {
    /// About how many.
    pub(crate) count: u64,
    /// Which ones.
    pub(crate) pattern: Option<&'a [u8]>,
    /// The type asked for; `Some(None)` is one that does not exist.
    kind: Option<Option<Kind>>,
    /// Whether values are told with the fields of a hash.
    pub(crate) has_values: bool,
}

/// What a walk goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// The keys of a database.
    Keys,
    /// The fields of a hash.
    Fields,
    /// The members of a set or sorted set.
    Members,
}

/// Reads the options of a walk. Only one over keys goes by type, and only one over fields may leave out
/// what goes with them.
pub(crate) fn parse_scan(args: Args<'_>, walked: Walked) -> Result<ScanOptions<'_>, ReplyError> {
    let mut o = ScanOptions { count: 10, pattern: None, kind: None, has_values: true };
    let mut i = if walked == Walked::Keys { 2 } else { 3 };
    while i < args.len() {
        let word = args.get(i).to_ascii_uppercase();
        if word == b"NOVALUES" {
            if walked != Walked::Fields {
                return Err(ReplyError::Text("ERR NOVALUES option can only be used in HSCAN"));
            }
            o.has_values = false;
            i += 1;
            continue;
        }
        if i + 1 >= args.len() {
            return Err(ReplyError::Syntax);
        }
        let value = args.get(i + 1);
        match word.as_slice() {
            b"COUNT" => {
                let count = number::parse_i64(value).ok_or(ReplyError::NotAnInteger)?;
                o.count = u64::try_from(count).ok().filter(|n| *n > 0).ok_or(ReplyError::Syntax)?;
            }
            b"MATCH" => o.pattern = (value != b"*").then_some(value),
            b"TYPE" if walked == Walked::Keys => o.kind = Some(Kind::from_name(value)),
            _ => return Err(ReplyError::Syntax),
        }
        i += 2;
    }
    Ok(o)
}

/// Reads a cursor as C's `strtoul` does, save for leading space: nothing is 0, and a minus negates
/// modulo 2^64. Any number is a place to go on from.
pub(crate) fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative { value.wrapping_neg() } else { value })
}

/// A call looks at this many times as many buckets as keys are asked for, at most.
const LOOKS_PER_KEY: u64 = 10;

fn scan(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let start = parse_cursor(args.get(1)).ok_or(ReplyError::Text("ERR invalid cursor"))?;
    let options = parse_scan(args, Walked::Keys)?;
    let (db, now_ms) = (cx.keys.db, cx.keys.now_ms);
    let mut found: Vec<Vec<u8>> = Vec::new();
    let (mut seen, mut looks) = (0, options.count.saturating_mul(LOOKS_PER_KEY));
    let mut at = Some(Cursor::from_number(start));
    while let Some(cursor) = at
        && seen < options.count
        && looks > 0
    {
        let mut take = |entry: hypercache_store::EntryRef<'_>| {
            seen += 1;
            let key = entry.key();
            let matches = options.pattern.is_none_or(|p| glob_match(p, key, false));
            let is_of_type = options.kind.is_none_or(|kind| kind == Some(entry.kind()));
            if matches && is_of_type && !entry.is_expired(now_ms) {
                found.push(key.to_vec());
            }
        };
        let (inner, looked) =
            cx.keys.with_shard(cursor.partition, |shard| match shard.own_db(db) {
                Some(db) if !db.is_empty() => (db.scan(cursor.inner, &mut take), 1),
                _ => (0, 0),
            });
        looks -= looked;
        at = cursor.after(inner);
    }
    cx.reply.array(2);
    let next = at.map_or(0, Cursor::to_number);
    cx.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    cx.reply.array(found.len());
    found.iter().for_each(|key| cx.reply.bulk(key));
    Ok(())
}

fn flushdb(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    flush(cx, args, Some(cx.keys.db))
}

fn flushall(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    flush(cx, args, None)
}

fn flush(cx: &mut Cx<'_>, args: Args<'_>, only: Option<u8>) -> Outcome {
    let in_background = match args.len() {
        1 => cx.shared.config.is_on("lazyfree-lazy-user-flush"),
        2 if args.get(1).eq_ignore_ascii_case(b"ASYNC") => true,
        2 if args.get(1).eq_ignore_ascii_case(b"SYNC") => false,
        _ => return Err(ReplyError::Syntax),
    };
    let flushed = cx.keys.flush(only);
    if in_background {
        crate::shared::free_in_background(Box::new(flushed));
    } else {
        drop(flushed);
    }
    cx.reply.ok();
    Ok(())
}

fn swapdb(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if cx.shared.cluster.is_enabled() {
        return Err(ReplyError::Text("ERR SWAPDB is not allowed in cluster mode"));
    }
    let index = |i: usize| number::parse_i64(args.get(i)).filter(|n| i32::try_from(*n).is_ok());
    let a = index(1).ok_or(ReplyError::Text("ERR invalid first DB index"))?;
    let b = index(2).ok_or(ReplyError::Text("ERR invalid second DB index"))?;
    let is_valid = |n: i64| (0..DATABASES as i64).contains(&n);
    if !is_valid(a) || !is_valid(b) {
        return Err(ReplyError::DbIndex);
    }
    if a != b {
        cx.keys.swap_dbs(a as u8, b as u8);
    }
    cx.reply.ok();
    Ok(())
}
