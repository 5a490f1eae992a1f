//! HC.PREFIXES and HC.ADVICE: what the keys are like, and what could be changed. Each figure is one that was
//! measured: from the sample of keys ([`crate::key_sample`]), the miss-ratio curve and the counters.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::key_sample::{Of, price, reads_per_second};
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;

const BASE: Command = Command {
    group: Group::Server,
    acl: Acl::KEYSPACE,
    since: "0.1.0",
    keys: Keys::Each,
    flags: Flags::READONLY,
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "HC.PREFIXES",
        arity: -1,
        run: prefixes,
        summary: "The prefixes of the keys (up to the first colon) that take most memory, estimated from a sample that is renewed all the time.",
        complexity: "O(1): a sample of 4096 keys",
        syntax: "[COUNT count]",
        examples: "> HC.PREFIXES\n(empty array)",
        ..BASE
    },
    Command {
        name: "HC.ADVICE",
        arity: 1,
        run: advice,
        summary: "What could be changed, with the figures that say so: memory, prefixes that are cold, keys without a deadline, values that could be compressed.",
        complexity: "O(1)",
        examples: "> HC.ADVICE\n1) \"Nothing yet: no keys were sampled.\"\n\
                   2) \"More or less memory: the curve is kept under maxmemory-policy adaptive.\"",
        ..BASE
    },
];

fn prefixes(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    const COUNT: i64 = 10;
    let count = match args.len() {
        1 => COUNT,
        3 if args.get(1).eq_ignore_ascii_case(b"COUNT") => {
            number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?.max(0)
        }
        _ => return Err(ReplyError::Syntax),
    };
    let keys = cx.keys.size().0 as f64;
    let (_, mut prefixes) = cx.shared.key_sample.summary(cx.keys.db);
    prefixes.truncate(count as usize);
    cx.reply.array(prefixes.len());
    for (prefix, of) in prefixes {
        cx.reply.map(6);
        cx.reply.bulk(b"prefix");
        cx.reply.bulk(&prefix);
        let idle_s = of.idle_s.map_or(-1, |s| s as i64);
        let fields = [
            ("keys", (of.keys * keys) as i64),
            ("bytes", (of.bytes * keys) as i64),
            ("keys-without-ttl", (of.endless.0 * keys) as i64),
            ("mean-idle-seconds", idle_s),
            ("sampled", of.draws as i64),
        ];
        for (name, n) in fields {
            cx.reply.bulk(name.as_bytes());
            cx.reply.int(n);
        }
    }
    Ok(())
}

const GIB: f64 = (1_u64 << 30) as f64;
const SECONDS_PER_MONTH: f64 = 30.44 * 24.0 * 3600.0;

/// Bytes for people.
fn bytes_text(bytes: f64) -> String {
    match bytes {
        _ if bytes >= GIB => format!("{:.2} GiB", bytes / GIB),
        _ if bytes >= GIB / 1024.0 => format!("{:.1} MiB", bytes * 1024.0 / GIB),
        _ => format!("{:.1} KiB", bytes / 1024.0),
    }
}

/// Below as many draws no share is told.
const DRAWS_MIN: usize = 256;

fn advice(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (keys, bytes) = cx.keys.size();
    let (keys, bytes) = (keys as f64, bytes as f64);
    let (all, prefixes) = cx.shared.key_sample.summary(cx.keys.db);
    let mut lines = Vec::new();
    if all.draws == 0 {
        lines.push("Nothing yet: no keys were sampled.".to_owned());
    } else if all.draws < DRAWS_MIN {
        lines.push(format!("Not much yet: {} keys were sampled, of {keys}.", all.draws));
    } else {
        lines.extend(without_deadline(all, keys));
        lines.extend(cold(all, &prefixes, keys));
        lines.extend(compressible(all, &prefixes, keys));
    }
    lines.extend(memory(cx, keys, bytes));
    cx.reply.array(lines.len());
    lines.iter().for_each(|line| cx.reply.bulk(line.as_bytes()));
    Ok(())
}

fn name_of(prefix: &[u8]) -> String {
    match prefix {
        [] => "keys without a prefix".to_owned(),
        prefix => format!("keys of {}", String::from_utf8_lossy(prefix)),
    }
}

/// A line if a tenth or more of the memory is that of keys that never expire.
fn without_deadline(all: Of, keys: f64) -> Option<String> {
    let share = all.endless.1 / all.bytes.max(1.0);
    (share >= 0.1).then(|| {
        let (percent, of_keys) = (share * 100.0, all.endless.0 * 100.0);
        let bytes = bytes_text(all.endless.1 * keys);
        format!(
            "Without a deadline: {of_keys:.1} % of the keys, with {bytes} ({percent:.1} % of the memory of keys). \
             Where the source changes, a deadline bounds how long a missed invalidation lasts."
        )
    })
}

/// Lines for prefixes with a twentieth or more of the memory that nobody used for an hour in the mean, and
/// for no shorter than all keys.
fn cold<'p>(
    all: Of,
    prefixes: &'p [(Box<[u8]>, Of)],
    keys: f64,
) -> impl Iterator<Item = String> + 'p {
    const COLD_S: f64 = 3600.0;
    let mean = all.idle_s.unwrap_or_default();
    let is_cold = move |of: &Of| {
        of.draws >= 64
            && of.bytes >= all.bytes / 20.0
            && of.idle_s.is_some_and(|idle| idle >= COLD_S.max(mean))
    };
    prefixes.iter().filter(move |(_, of)| is_cold(of)).map(move |(prefix, of)| {
        format!(
            "Cold: {} take {} ({:.1} % of the memory of keys) and were last used {:.0} seconds ago in the mean; \
             a shorter deadline would give the memory to others.",
            name_of(prefix),
            bytes_text(of.bytes * keys),
            of.bytes / all.bytes * 100.0,
            of.idle_s.unwrap_or_default(),
        )
    })
}

/// Lines for prefixes with a twentieth or more of the memory whose values are long and of few different
/// bytes.
fn compressible<'p>(
    all: Of,
    prefixes: &'p [(Box<[u8]>, Of)],
    keys: f64,
) -> impl Iterator<Item = String> + 'p {
    const LONG: f64 = 256.0;
    const BITS: f64 = 5.5;
    let is_one = move |of: &Of| {
        of.draws >= 64 && of.bytes >= all.bytes / 20.0 && of.len >= LONG && of.entropy <= BITS
    };
    prefixes.iter().filter(move |(_, of)| is_one(of)).map(move |(prefix, of)| {
        let saved = of.len * of.keys * keys * (1.0 - of.entropy / 8.0);
        format!(
            "Compressible: the values of {} have {:.0} bytes in the mean and {:.2} bits of information per byte, \
             each byte taken by itself; an entropy code alone would save {}.",
            name_of(prefix),
            of.len,
            of.entropy,
            bytes_text(saved),
        )
    })
}

/// What twice and half the memory would do.
fn memory(cx: &Cx<'_>, keys: f64, bytes: f64) -> Vec<String> {
    const MULTIPLES: [f64; 3] = [1.0, 2.0, 0.5];
    let sizes = MULTIPLES.map(|multiple| multiple * keys);
    let Some((_, ratios)) = cx.shared.keyspace.uses.hit_ratios(cx.keys.db, &sizes) else {
        return vec![
            "More or less memory: the curve is kept under maxmemory-policy adaptive.".into(),
        ];
    };
    let hot = &cx.shared.config.hot;
    let reads = reads_per_second(cx.shared, cx.keys.now_ms) * SECONDS_PER_MONTH;
    let (gib_price, miss_price) = (price(&hot.memory_price), price(&hot.miss_price) / 1e6);
    let mut lines = Vec::new();
    for (multiple, ratio) in MULTIPLES.iter().zip(&ratios).skip(1) {
        let (more, fewer) = ((multiple - 1.0) * bytes, (ratio - ratios[0]) * reads);
        let mut line = format!(
            "{multiple} times the memory ({}): a hit ratio of {ratio:.4} instead of {:.4}, {:.0} misses a month {}.",
            bytes_text(multiple * bytes),
            ratios[0],
            fewer.abs(),
            if fewer >= 0.0 { "fewer" } else { "more" },
        );
        if gib_price > 0.0 && miss_price > 0.0 {
            let (memory, misses) = (more / GIB * gib_price, -fewer * miss_price);
            let verdict = if memory + misses < 0.0 { "worth it" } else { "not worth it" };
            line += &format!(
                " Memory {memory:+.2} USD and misses {misses:+.2} USD a month: {verdict}."
            );
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    fn advice(h: &mut Harness) -> String {
        String::from_utf8(h.run("HC.ADVICE")).unwrap()
    }

    #[test]
    fn figures_are_those_of_what_is_there() {
        let mut h = Harness::default();
        h.run("CONFIG SET maxmemory-policy adaptive");
        h.run("CONFIG SET memory-price-per-gib-month 2.50 miss-cost-usd-per-million 4");
        for n in 0..3000 {
            h.run(&format!("SET page:{n} {}", "<td></td>".repeat(100)));
            h.run(&format!("SET token:{n} {n} EX 7200"));
        }
        for _ in 0..10 {
            (0..3000).for_each(|n| drop(h.run(&format!("GET token:{n}"))));
        }
        h.worker.now_ms += 5_000_000;
        (0..3000).for_each(|n| drop(h.run(&format!("GET token:{n}"))));
        for _ in 0..130 {
            let Harness { shared, worker, .. } = &mut h;
            shared.key_sample.draw(shared, worker);
        }
        let text = advice(&mut h);
        assert!(text.contains("Without a deadline: ") && text.contains("Compressible: "), "{text}");
        assert!(text.contains("Cold: keys of page:") && !text.contains("keys of token:"), "{text}");
        assert!(text.contains("2 times the memory (") && text.contains(" USD a month: "), "{text}");
        let prefixes = String::from_utf8(h.run("HC.PREFIXES COUNT 1")).unwrap();
        assert!(prefixes.starts_with("*1\r\n*12\r\n") && prefixes.contains("page:"), "{prefixes}");
        assert!(h.run("HC.PREFIXES COUNT").starts_with(b"-ERR"));
    }
}
