//! Processor time of commands on lists, sets, hashes, sorted sets, streams and of scripts, beside the
//! peers that are installed: the ratio to each, by `hypercache bench --against`.
//!
//! All servers run at the same time on one core and take turns in short windows, so what else the
//! machine does meets all of them. A figure is the median over the pairs of windows.

use crate::bench::{OURS, PEER, peers, start};
use crate::process::{cargo, output};
use anyhow::{Context, Result};

/// A load, and how it is prepared.
struct Workload {
    name: &'static str,
    keys: u64,
    members: u64,
    value_bytes: u64,
    /// Commands that fill the keys, this many in all.
    fill: (&'static [&'static str], u64),
    commands: &'static [&'static str],
}

const BASE: Workload =
    Workload { name: "", keys: 1, members: 20, value_bytes: 64, fill: (&[], 0), commands: &[] };
/// Ten thousand collections of up to twenty.
const SMALL: Workload = Workload { keys: 10_000, ..BASE };
/// One collection of about a million.
const LARGE: Workload = Workload { members: 1_000_000, ..BASE };
const SADD: &[&str] = &["SADD __key__ m:__member__"];
const HSET: &[&str] = &["HSET __key__ f:__member__ __value__"];
const ZADD: &[&str] = &["ZADD __key__ __member__ m:__member__"];
const FEW: u64 = 600_000;
const MANY: u64 = 3_000_000;

const LIMITER: &str = "EVAL \"local n = redis.call('INCR', KEYS[1]) if n == 1 then \
    redis.call('PEXPIRE', KEYS[1], ARGV[1]) end if n > tonumber(ARGV[2]) then return 0 end \
    return 1\" 1 __key__ 1000 100";

const WORKLOADS: &[Workload] = &[
    Workload { name: "INCR", keys: 100_000, commands: &["INCR __key__"], ..BASE },
    Workload {
        name: "LPUSH+LPOP",
        keys: 1000,
        fill: (&["LPUSH __key__ __value__"], 20_000),
        commands: &["LPUSH __key__ __value__", "LPOP __key__"],
        ..BASE
    },
    Workload {
        name: "RPUSH+LPOP",
        keys: 1000,
        fill: (&["RPUSH __key__ __value__"], 20_000),
        commands: &["RPUSH __key__ __value__", "LPOP __key__"],
        ..BASE
    },
    Workload { name: "SADD", fill: (SADD, FEW), commands: SADD, ..SMALL },
    Workload {
        name: "SADD+SREM",
        fill: (SADD, FEW),
        commands: &["SADD __key__ m:__member__", "SREM __key__ m:__member__"],
        ..SMALL
    },
    Workload {
        name: "SISMEMBER",
        fill: (SADD, FEW),
        commands: &["SISMEMBER __key__ m:__member__"],
        ..SMALL
    },
    Workload { name: "SADD 1M", fill: (SADD, MANY), commands: SADD, ..LARGE },
    Workload {
        name: "SISMEMBER 1M",
        fill: (SADD, MANY),
        commands: &["SISMEMBER __key__ m:__member__"],
        ..LARGE
    },
    Workload { name: "HSET", fill: (HSET, FEW), commands: HSET, ..SMALL },
    Workload { name: "HGET", fill: (HSET, FEW), commands: &["HGET __key__ f:__member__"], ..SMALL },
    Workload { name: "HSET 1M", fill: (HSET, MANY), commands: HSET, ..LARGE },
    Workload {
        name: "HGET 1M",
        fill: (HSET, MANY),
        commands: &["HGET __key__ f:__member__"],
        ..LARGE
    },
    Workload { name: "ZADD", fill: (ZADD, FEW), commands: ZADD, ..SMALL },
    Workload { name: "ZRANGE", fill: (ZADD, FEW), commands: &["ZRANGE __key__ 0 9"], ..SMALL },
    Workload { name: "ZADD 1M", fill: (ZADD, MANY), commands: ZADD, ..LARGE },
    Workload {
        name: "ZRANK 1M",
        fill: (ZADD, MANY),
        commands: &["ZRANK __key__ m:__member__"],
        ..LARGE
    },
    Workload { name: "XADD", keys: 1000, commands: &["XADD __key__ * f __value__"], ..BASE },
    Workload {
        name: "XADD MAXLEN",
        keys: 1000,
        fill: (&["XADD __key__ * f __value__"], FEW),
        commands: &["XADD __key__ MAXLEN ~ 500 * f __value__"],
        ..BASE
    },
    Workload { name: "EVAL return 1", commands: &["EVAL \"return 1\" 0"], ..BASE },
    Workload {
        name: "EVALSHA return 1",
        fill: (&["SCRIPT LOAD \"return 1\""], 1),
        commands: &["EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0"],
        ..BASE
    },
    Workload {
        name: "EVAL get",
        keys: 10_000,
        fill: (&["SET __key__ __value__"], 50_000),
        commands: &["EVAL \"return redis.call('GET', KEYS[1])\" 1 __key__"],
        ..BASE
    },
    Workload { name: "EVAL limiter", keys: 10_000, commands: &[LIMITER], ..BASE },
];

/// Measures the workloads whose names contain one of the words, or all of them.
pub(crate) fn bench(words: &[&str]) -> Result<()> {
    cargo(&["build", "--release", "--package", "hypercache"])?;
    let ours = "target/release/hypercache";
    let port = OURS.to_string();
    let _ours = start(0, ours, &["--port", &port, "--threads", "1"], OURS)?;
    for peer in peers()? {
        println!("\n== against {peer}: server CPU in µs per command, and the ratio (quartiles)");
        let port = PEER.to_string();
        let _peer = start(0, &peer, &["--port", &port, "--save", ""], PEER)?;
        let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
        for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
            compare(ours, workload)?;
        }
    }
    Ok(())
}

fn compare(ours: &str, workload: &Workload) -> Result<()> {
    let (ours_port, peer_port) = (OURS.to_string(), PEER.to_string());
    for port in [&ours_port, &peer_port] {
        output(ours, &["cli", "-p", port, "FLUSHALL"])?;
        if workload.fill.1 > 0 {
            let count = workload.fill.1.to_string();
            let limit = ["--pipeline", "50", "--requests", &count, "--clients", "1"];
            load(ours, workload, workload.fill.0, &[&["--port", port][..], &limit].concat())?;
        }
    }
    let against = format!("127.0.0.1:{peer_port}");
    let shape = ["--pipeline", "16", "--window-ms", "250", "--rounds", "12"];
    let servers = ["--port", &ours_port, "--against", &against];
    let report = load(ours, workload, workload.commands, &[&servers[..], &shape].concat())?;
    let figure = |name: &str| {
        let section = report.split_once("\"cpu_us_per_op\"").context("no time was measured")?.1;
        let value = section.split_once(&format!("\"{name}\": ")).context("no such figure")?.1;
        let end = value.find([',', '\n']).unwrap_or(value.len());
        Ok::<f64, anyhow::Error>(value[..end].trim().parse()?)
    };
    println!(
        "{:18} {:7.3} {:7.3}   {:.2} ({:.2} .. {:.2})",
        workload.name,
        figure("first")?,
        figure("second")?,
        figure("median")?,
        figure("p25")?,
        figure("p75")?
    );
    Ok(())
}

/// Runs `hypercache bench`; what it reports.
fn load(ours: &str, workload: &Workload, commands: &[&str], options: &[&str]) -> Result<String> {
    let numbers = [workload.keys, workload.members, workload.value_bytes].map(|n| n.to_string());
    let [keys, members, value] = &numbers;
    let fixed = ["-c", "1", ours, "bench", "--json", "--quiet", "--no-load"];
    let sizes = ["--keys", keys, "--members", members, "--value-size", value];
    let workload = [&["--workload", "custom"], commands].concat();
    output("taskset", &[&fixed[..], &sizes, options, &workload].concat())
}
