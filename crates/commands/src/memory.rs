//! MEMORY: where the bytes are.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::info::{percent, ratio};
use crate::keyspace::{DATABASES, partition_of};
use crate::limit;
use crate::resident::Memory;
use crate::table::{Command, Flags, Group, KeyFlags, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_stdx::size::human_bytes;
use std::fmt::Write;

const BASE: Command = Command { group: Group::Server, since: "4.0.0", ..Command::DEFAULT };

const TOLD_BY_EACH: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "MEMORY",
    arity: -2,
    summary: "Tells where the memory is.",
    complexity: "That of the subcommand",
    subcommands: MEMORY,
    ..BASE
}];

const MEMORY: &[Command] = &[
    Command {
        name: "DOCTOR",
        arity: 2,
        keys: Keys::Each,
        run: doctor,
        summary: "What is unusual about the memory in use, and what helps.",
        complexity: "O(N) in the number of partitions",
        tips: TOLD_BY_EACH,
        examples: "> MEMORY DOCTOR\n\"…\"",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> MEMORY HELP\n…MEMORY <subcommand> …",
        ..BASE
    },
    Command {
        name: "MALLOC-STATS",
        arity: 2,
        keys: Keys::Each,
        run: malloc_stats,
        summary: "Statistics of the allocator.",
        complexity: "O(N) in the number of partitions",
        tips: TOLD_BY_EACH,
        examples: "> MEMORY MALLOC-STATS\n\"…\"",
        ..BASE
    },
    Command {
        name: "PURGE",
        arity: 2,
        run: purge,
        summary: "Has free memory of entries returned to the system; most of it is anyway, as it becomes free.",
        examples: "> MEMORY PURGE\nOK",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..BASE
    },
    Command {
        name: "STATS",
        arity: 2,
        keys: Keys::Each,
        run: stats,
        summary: "How much memory is used for what.",
        complexity: "O(N) in the number of partitions",
        tips: TOLD_BY_EACH,
        examples: "> MEMORY STATS\n…\"peak.allocated\"…",
        ..BASE
    },
    Command {
        name: "USAGE",
        arity: -3,
        keys: Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RO },
        flags: Flags::READONLY,
        run: usage,
        summary: "Bytes that a key takes: its entry, and its share of the table.",
        syntax: "key [SAMPLES count]",
        examples: "> MEMORY USAGE a\n(nil)",
        ..BASE
    },
];

fn usage(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut next = 3;
    while next < args.len() {
        if !args.get(next).eq_ignore_ascii_case(b"SAMPLES") || next + 1 == args.len() {
            return Err(ReplyError::Syntax);
        }
        // Accepted for its sake: what is counted here is counted exactly.
        let samples = number::parse_i64(args.get(next + 1)).ok_or(ReplyError::NotAnInteger)?;
        if samples < 0 {
            return Err(ReplyError::Syntax);
        }
        next += 2;
    }
    let key = args.get(2);
    let Some(entry_bytes) = cx.keys.peek(key).map(|entry| entry.bytes_used()) else {
        cx.reply.null();
        return Ok(());
    };
    let db = cx.keys.db;
    let share = cx.keys.with_shard(partition_of(key), |shard| {
        shard.db(db).map_or(0, |db| db.overhead_bytes() / db.len().max(1))
    });
    cx.reply.int((entry_bytes + share) as i64);
    Ok(())
}

/// Keys and overhead of one database.
#[derive(Clone, Copy, Default)]
struct DbMemory {
    keys: usize,
    overhead: usize,
}

fn databases(cx: &mut Cx<'_>) -> [DbMemory; DATABASES] {
    let mut sums = [DbMemory::default(); DATABASES];
    cx.keys.each_shard(|_, shard| {
        for (i, sum) in sums.iter_mut().enumerate() {
            if let Some(db) = shard.db(i as u8) {
                sum.keys += db.len();
                sum.overhead += db.overhead_bytes();
            }
        }
        true
    });
    sums
}

fn stats(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let memory = Memory::read(cx);
    let databases = databases(cx);
    let keys: usize = databases.iter().map(|db| db.keys).sum();
    let shown = || databases.iter().enumerate().filter(|(_, db)| db.keys > 0);
    cx.reply.map(27 + shown().count());
    let mut whole = Whole { cx };
    whole.int("peak.allocated", memory.peak);
    whole.int("total.allocated", memory.used);
    for name in ["startup.allocated", "replication.backlog", "clients.slaves"] {
        whole.int(name, 0);
    }
    whole.int("clients.normal", memory.clients);
    for name in ["cluster.links", "aof.buffer", "lua.caches", "functions.caches"] {
        whole.int(name, 0);
    }
    for (i, db) in shown() {
        whole.cx.reply.bulk(format!("db.{i}").as_bytes());
        whole.cx.reply.map(3);
        whole.int("overhead.hashtable.main", db.overhead as u64);
        whole.int("overhead.hashtable.expires", 0);
        whole.int("overhead.hashtable.slot-to-keys", 0);
    }
    whole.int("overhead.total", memory.overhead());
    whole.int("keys.count", keys as u64);
    whole.int("keys.bytes-per-key", memory.used.checked_div(keys as u64).unwrap_or(0));
    whole.int("dataset.bytes", memory.dataset());
    whole.double("dataset.percentage", percent(memory.dataset(), memory.used));
    whole.double("peak.percentage", percent(memory.used, memory.peak));
    whole.int("allocator.allocated", memory.used);
    whole.int("allocator.active", memory.rss);
    whole.int("allocator.resident", memory.rss);
    whole.double("allocator-fragmentation.ratio", ratio(memory.rss, memory.used));
    whole.int("allocator-fragmentation.bytes", memory.rss.saturating_sub(memory.used));
    whole.double("allocator-rss.ratio", 1.0);
    whole.int("allocator-rss.bytes", 0);
    whole.double("rss-overhead.ratio", 1.0);
    whole.int("rss-overhead.bytes", 0);
    whole.double("fragmentation", ratio(memory.rss, memory.used));
    whole.int("fragmentation.bytes", memory.rss.saturating_sub(memory.used));
    Ok(())
}

/// Writes pairs of a map.
struct Whole<'c, 'a> {
    cx: &'c mut Cx<'a>,
}

impl Whole<'_, '_> {
    fn int(&mut self, name: &str, value: u64) {
        self.cx.reply.bulk(name.as_bytes());
        self.cx.reply.int(value as i64);
    }

    fn double(&mut self, name: &str, value: f64) {
        self.cx.reply.bulk(name.as_bytes());
        self.cx.reply.double_text(value.to_string().as_bytes());
    }
}

/// Below this there is nothing to diagnose.
const DIAGNOSED_FROM: u64 = 5 << 20;

fn doctor(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let text = diagnosis(&Memory::read(cx), cx.shared.clients.len() as u64);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn diagnosis(memory: &Memory, clients: u64) -> String {
    if memory.used < DIAGNOSED_FROM {
        return "The server holds too little data for a diagnosis. Fill it and ask again.\n".into();
    }
    let mut findings = Vec::new();
    if memory.peak > memory.used + memory.used / 2 {
        let peak = human_bytes(memory.peak);
        findings.push(format!(
            "Peak: at its peak the server used {peak}, more than one and a half times of what it \
             uses now. The process may keep more memory than it needs; a restart returns it."
        ));
    }
    if memory.rss > memory.used + memory.used / 2 {
        let ratio = ratio(memory.rss, memory.used);
        findings.push(format!(
            "Fragmentation: the process takes {ratio:.2} times of what is in use. It becomes less \
             when keys of similar sizes are written again."
        ));
    }
    if clients > 0 && memory.clients / clients > 200 << 10 {
        let each = human_bytes(memory.clients / clients);
        findings.push(format!(
            "Clients: each connection buffers {each} on average. Look for large replies and for \
             clients that read slowly (CLIENT LIST, fields qbuf and omem)."
        ));
    }
    let mut text: String = findings.iter().map(|finding| format!("* {finding}\n")).collect();
    if findings.is_empty() {
        text.push_str("There is nothing unusual about the memory in use.\n");
    }
    let parts = memory.parts().map(|(name, bytes)| format!("{} {name}", human_bytes(bytes)));
    let _infallible =
        writeln!(text, "Resident: {} = {}.", human_bytes(memory.rss), parts.join(" + "));
    text
}

fn malloc_stats(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let memory = Memory::read(cx);
    let mut text = format!("used: {}\npeak: {}\n", memory.used, memory.peak);
    let _infallible = writeln!(text, "resident: {}, of which", memory.rss);
    for (name, bytes) in memory.parts() {
        let _infallible = writeln!(text, "  {name}: {bytes}");
    }
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn purge(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    limit::give_back_all();
    cx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;
    use hypercache_store::Items;

    fn int(reply: &[u8]) -> usize {
        let digits = reply.strip_prefix(b":").and_then(|r| r.strip_suffix(b"\r\n")).expect("int");
        String::from_utf8_lossy(digits).parse().expect("int")
    }

    #[test]
    fn usage_is_the_entry_and_its_share() {
        let mut h = Harness::default();
        assert_eq!(h.run("MEMORY USAGE a"), b"$-1\r\n");
        h.run("SET a 1");
        let small = int(&h.run("MEMORY USAGE a"));
        assert_eq!(small as u64, h.shared.bytes_used());
        h.run_args([&b"SET"[..], b"a", &[b'x'; 5000]]);
        let large = int(&h.run("MEMORY USAGE a SAMPLES 0 samples 5"));
        assert!(large >= small + 4900, "{small} {large}");
        assert_eq!(large as u64, h.shared.bytes_used());
    }

    #[test]
    fn usage_checks_its_options() {
        let mut h = Harness::default();
        for (line, reply) in [
            ("MEMORY USAGE a b", "-ERR syntax error\r\n"),
            ("MEMORY USAGE a SAMPLES", "-ERR syntax error\r\n"),
            ("MEMORY USAGE a SAMPLES -1", "-ERR syntax error\r\n"),
            ("MEMORY USAGE a SAMPLES x", "-ERR value is not an integer or out of range\r\n"),
            ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command\r\n"),
        ] {
            assert_eq!(h.run(line), reply.as_bytes(), "{line}");
        }
    }

    #[test]
    fn usage_works_inside_a_transaction() {
        let mut h = Harness::default();
        h.run("MULTI");
        h.run("SET a 1");
        h.run("MEMORY USAGE a");
        h.run("MEMORY STATS");
        let reply = String::from_utf8(h.run("EXEC")).expect("text");
        assert!(reply.starts_with("*3\r\n+OK\r\n:"), "{reply}");
    }

    #[test]
    fn stats_has_as_many_pairs_as_it_says() {
        let mut h = Harness::default();
        h.session.set_version(hypercache_protocol::reply::Version::V3);
        h.run("SET a 1");
        let reply = String::from_utf8(h.run("MEMORY STATS")).expect("text");
        let lines: Vec<&str> = reply.lines().collect();
        assert_eq!(lines[0], "%28");
        let names = lines.iter().filter(|l| l.starts_with('$')).count();
        assert_eq!(names, 28 + 3, "{reply}");
        assert!(reply.contains("\r\nkeys.count\r\n:1\r\n"), "{reply}");
    }

    #[test]
    fn the_doctor_names_what_is_unusual() {
        let memory = |used: u64, peak, rss, clients| {
            let (tables, learned, registered, program) = (0, 0, 0, 0);
            let (items, used) = (Items::default(), used << 20);
            let memory =
                Memory { used, peak, rss, program, items, clients, tables, learned, registered };
            diagnosis(&memory, 2)
        };
        assert!(memory(1, 0, 0, 0).contains("too little"));
        let usual = memory(10, 10 << 20, 12 << 20, 0);
        assert!(usual.contains("nothing unusual") && usual.contains("2.00M rest."), "{usual}");
        let all = memory(10, 100 << 20, 100 << 20, 1 << 20);
        assert!(["Peak", "Fragmentation", "Clients"].iter().all(|word| all.contains(word)));
    }
}
