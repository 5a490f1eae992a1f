//! INFO: what the server tells about itself, in the sections and fields that exporters read.

use crate::client::ClientFlags;
use crate::cluster::face_of;
use crate::cluster::health::Health;
use crate::context::Cx;
use crate::error::Outcome;
use crate::keyspace::DATABASES;
use crate::resident::Memory;
use crate::sampler::Sampled;
use crate::shared::Shared;
use crate::stats::{CommandStats, LATENCY_BUCKETS, LATENCY_FIRST_BITS};
use crate::table::{Acl, Command, Entry, Flags, Group, Keys, table};
use crate::{REDIS_VERSION, system};
use hypercache_cluster::meta::NodeAddress;
use hypercache_protocol::parse::Args;
use hypercache_stdx::clock;
use hypercache_stdx::size::human_bytes;
use hypercache_store::growth;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "INFO",
    group: Group::Server,
    arity: -1,
    keys: Keys::Each,
    flags: Flags::LOADING.or(Flags::STALE),
    acl: Acl::DANGEROUS,
    run: info,
    summary: "What the server tells about itself, all or some sections of it.",
    complexity: "O(N) in the number of partitions",
    syntax: "[section [section ...]]",
    examples: "> INFO keyspace\n\"# Keyspace\\x0d\\n…\"",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    ..Command::DEFAULT
}];

/// Appends lines of `name:value`.
macro_rules! lines {
    ($out:expr, $($name:literal: $value:expr,)+) => {
        $(push($out, $name, &$value);)+
    };
}

fn push(out: &mut String, name: &str, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _infallible = write!(out, "{name}:{value}\r\n");
}

/// One section.
struct Section {
    title: &'static str,
    /// Whether INFO shows it when nothing is said.
    is_default: bool,
    write: fn(&mut Cx<'_>, &mut String),
}

const fn section(title: &'static str, write: fn(&mut Cx<'_>, &mut String)) -> Section {
    Section { title, is_default: true, write }
}

const fn extra(title: &'static str, write: fn(&mut Cx<'_>, &mut String)) -> Section {
    Section { title, is_default: false, write }
}

const SECTIONS: &[Section] = &[
    section("Server", server),
    section("Clients", clients),
    section("Memory", memory),
    section("Persistence", persistence),
    section("Stats", stats),
    section("Replication", replication),
    section("CPU", cpu),
    section("Modules", |_, _| {}),
    extra("Commandstats", commandstats),
    section("Errorstats", errorstats),
    extra("Latencystats", latencystats),
    section("Cluster", cluster),
    section("Keyspace", keyspace),
];

fn info(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let text = text_of(cx, |section| {
        let is_asked = |name: &[u8]| {
            let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
            is(section.title)
                || is("all")
                || is("everything")
                || is("default") && section.is_default
        };
        if args.len() == 1 { section.is_default } else { args.iter_from(1).any(is_asked) }
    });
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn text_of(cx: &mut Cx<'_>, is_asked: impl Fn(&Section) -> bool) -> String {
    let mut out = String::new();
    for section in SECTIONS.iter().filter(|section| is_asked(section)) {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        let _infallible = write!(out, "# {}\r\n", section.title);
        (section.write)(cx, &mut out);
    }
    out
}

fn server(cx: &mut Cx<'_>, out: &mut String) {
    let shared = cx.shared;
    let now_us = clock::now_us();
    let uptime_s = (now_us / 1000).saturating_sub(shared.started_ms) / 1000;
    let backend = shared.io_backend.get().copied().unwrap_or("none");
    let executable = std::env::current_exe().unwrap_or_default();
    let config_file = shared.config.file.clone().unwrap_or_default();
    lines!(out,
        "redis_version": REDIS_VERSION,
        "server_name": "hypercache",
        "hypercache_version": env!("CARGO_PKG_VERSION"),
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": env!("CARGO_PKG_VERSION"),
        "redis_mode": shared.cluster.mode(),
        "os": system::os(),
        "arch_bits": usize::BITS,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": backend,
        "io_backend": backend,
        "worker_threads": shared.workers(),
        "process_id": std::process::id(),
        "process_supervised": "no",
        "run_id": shared.run_id,
        "tcp_port": shared.config.get("port"),
        "memcached_port": shared.config.get("memcached-port"),
        "server_time_usec": now_us,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s / 86_400,
        "hz": 10,
        "configured_hz": 10,
        "lru_clock": (now_us / 1_000_000) & 0xff_ffff,
        "executable": executable.display(),
        "config_file": config_file.display(),
        "io_threads_active": 0,
    );
}

fn clients(cx: &mut Cx<'_>, out: &mut String) {
    let clients = cx.shared.clients.all();
    let input = clients.iter().map(|c| c.query_bytes.load(Relaxed)).max();
    let output = clients.iter().map(|c| c.output_bytes.load(Relaxed)).max();
    lines!(out,
        "connected_clients": clients.len(),
        "memcached_clients": clients.iter().filter(|c| c.has(ClientFlags::MEMCACHED)).count(),
        "cluster_connections": 0,
        "maxclients": cx.shared.config.get("maxclients"),
        "client_recent_max_input_buffer": input.unwrap_or(0),
        "client_recent_max_output_buffer": output.unwrap_or(0),
        "blocked_clients": cx.shared.blocked.len(),
        "tracking_clients": cx.shared.tracking.clients(),
        "clients_in_timeout_table": 0,
    );
}

/// A part of a whole in per cent; all of it when there is nothing.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// A ratio; zero when there is nothing to compare with.
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn memory(cx: &mut Cx<'_>, out: &mut String) {
    let m = Memory::read(cx);
    let total = system::total_memory_bytes();
    let maxmemory = cx.shared.config.hot.maxmemory.load(Relaxed);
    let has_budget = cx.shared.config.hot.clients_bytes_max() > 0;
    // A worker has one interpreter, for scripts and functions alike.
    let vms = cx.shared.sum(|s| s.vm_bytes());
    let (scripts, script_bytes) = cx.shared.scripts.cached();
    let (libraries, functions, library_bytes) = cx.shared.scripts.libraries.counts();
    lines!(out,
        "used_memory": m.used,
        "used_memory_human": human_bytes(m.used),
        "used_memory_rss": m.rss,
        "used_memory_rss_human": human_bytes(m.rss),
        "used_memory_peak": m.peak,
        "used_memory_peak_human": human_bytes(m.peak),
        "used_memory_peak_perc": format_args!("{:.2}%", percent(m.used, m.peak)),
        "used_memory_overhead": m.overhead(),
        "used_memory_startup": 0,
        "used_memory_dataset": m.dataset(),
        "used_memory_dataset_perc": format_args!("{:.2}%", percent(m.dataset(), m.used)),
        "allocator_allocated": m.used,
        "allocator_active": m.rss,
        "allocator_resident": m.rss,
        "total_system_memory": total,
        "total_system_memory_human": human_bytes(total),
        "used_memory_lua": vms,
        "used_memory_vm_eval": vms,
        "used_memory_lua_human": human_bytes(vms),
        "used_memory_scripts_eval": script_bytes,
        "number_of_cached_scripts": scripts,
        "number_of_functions": functions,
        "number_of_libraries": libraries,
        "used_memory_vm_functions": 0,
        "used_memory_vm_total": vms,
        "used_memory_vm_total_human": human_bytes(vms),
        "used_memory_functions": library_bytes,
        "used_memory_scripts": script_bytes + library_bytes,
        "used_memory_scripts_human": human_bytes((script_bytes + library_bytes) as u64),
        "maxmemory": maxmemory,
        "maxmemory_human": human_bytes(maxmemory),
        "maxmemory_policy": cx.shared.config.get("maxmemory-policy"),
        "mem_fragmentation_ratio": format_args!("{:.2}", ratio(m.rss, m.used)),
        "mem_fragmentation_bytes": m.rss as i64 - m.used as i64,
        "mem_not_counted_for_evict": if has_budget { m.clients } else { 0 },
        "mem_replication_backlog": 0,
        "mem_clients_slaves": 0,
        "mem_clients_normal": m.clients,
        "mem_cluster_links": 0,
        "mem_aof_buffer": 0,
        "mem_allocator": "mimalloc",
        "active_defrag_running": u8::from(cx.shared.limit.is_emptying()),
        "lazyfree_pending_objects": 0,
        "lazyfreed_objects": 0,
    );
    for (name, bytes) in m.parts() {
        push(out, &format!("resident_{}", name.replace(' ', "_")), &bytes);
    }
    push(out, "resident_peak", &cx.shared.limit.resident_max());
}

fn persistence(cx: &mut Cx<'_>, out: &mut String) {
    lines!(out,
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": cx.shared.started_ms / 1000,
        "rdb_last_bgsave_status": "ok",
        "rdb_last_bgsave_time_sec": -1,
        "rdb_current_bgsave_time_sec": -1,
        "rdb_saves": 0,
        "rdb_last_cow_size": 0,
        "aof_enabled": 0,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1,
        "aof_current_rewrite_time_sec": -1,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok",
        "aof_last_cow_size": 0,
    );
}

fn stats(cx: &mut Cx<'_>, out: &mut String) {
    let shared = cx.shared;
    let Sampled { commands, input_bytes, output_bytes } = shared.sampler.per_second();
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let (channels, patterns, shard_channels) = shared.pubsub.counts();
    // Traced while LATENCY notes events.
    let growth = growth::steps();
    lines!(out,
        "total_connections_received": shared.sum(|s| s.connections_received.get()),
        "total_commands_processed": shared.sum(|s| s.commands_processed.get()),
        "instantaneous_ops_per_sec": commands,
        "total_net_input_bytes": shared.sum(|s| s.net_input_bytes.get()),
        "total_net_output_bytes": shared.sum(|s| s.net_output_bytes.get()),
        "total_net_repl_input_bytes": 0,
        "total_net_repl_output_bytes": 0,
        "instantaneous_input_kbps": kilobytes(input_bytes),
        "instantaneous_output_kbps": kilobytes(output_bytes),
        "rejected_connections": shared.sum(|s| s.connections_rejected.get()),
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": shared.sum(|s| s.expired_keys.get()),
        "expire_cycle_cpu_milliseconds": shared.sum(|s| s.expire_nanos.get()) / 1_000_000,
        "evicted_keys": shared.sum(|s| s.evicted_keys.get()),
        "evicted_clients": shared.sum(|s| s.evicted_clients.get()),
        "keyspace_hits": shared.sum(|s| s.keyspace_hits.get()),
        "keyspace_misses": shared.sum(|s| s.keyspace_misses.get()),
        "pubsub_channels": channels,
        "pubsub_patterns": patterns,
        "pubsubshard_channels": shard_channels,
        "latest_fork_usec": 0,
        "total_forks": 0,
        "migrate_cached_sockets": 0,
        "slave_expires_tracked_keys": 0,
        "tracking_total_keys": shared.keyspace.tracked.keys.load(Relaxed),
        "tracking_total_items": shared.keyspace.tracked.items.load(Relaxed),
        "tracking_total_prefixes": shared.tracking.prefixes(),
        "unexpected_error_replies": 0,
        "total_error_replies": shared.sum(|s| s.error_replies.get()),
        "dump_payload_sanitizations": 0,
        "total_reads_processed": shared.sum(|s| s.reads.get()),
        "total_writes_processed": shared.sum(|s| s.writes.get()),
        "client_query_buffer_limit_disconnections": shared.sum(|s| s.query_limit_closed.get()),
        "client_output_buffer_limit_disconnections": shared.sum(|s| s.output_limit_closed.get()),
        "acl_access_denied_auth": shared.sum(|s| s.acl_denied_logins.get()),
        "acl_access_denied_cmd": shared.sum(|s| s.acl_denied_commands.get()),
        "acl_access_denied_key": shared.sum(|s| s.acl_denied_keys.get()),
        "acl_access_denied_channel": shared.sum(|s| s.acl_denied_channels.get()),
        "event_loop_turns": shared.sum(|s| s.loop_turns.get()),
        "table_growth_steps": growth.count(),
        "table_growth_max_usec": growth.max_ns.div_ceil(1000),
        "table_growth_percentiles_usec": growth_percentiles(&growth),
    );
}

fn growth_percentiles(growth: &growth::Steps) -> String {
    let shown = [50.0, 99.0, 99.9, 99.99, 99.999, 99.9999].map(|percent: f64| {
        format!("p{percent}={:.3}", growth.quantile_ns(percent / 100.0) as f64 / 1000.0)
    });
    shown.join(",")
}

fn replication(cx: &mut Cx<'_>, out: &mut String) {
    let view = cx.shared.cluster.view();
    let face = face_of(cx, &view);
    let replicas = face.replicas_of(face.me().node);
    lines!(out,
        "role": "master",
        "connected_slaves": replicas.len(),
    );
    for (i, node) in replicas.into_iter().enumerate() {
        let NodeAddress { host, port, .. } = face.address(node);
        let value = format!("ip={host},port={port},state=online,offset=0,lag=0");
        push(out, &format!("slave{i}"), &value);
    }
    lines!(out,
        "master_failover_state": "no-failover",
        "master_replid": cx.shared.run_id,
        "master_replid2": "0".repeat(40),
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    );
}

fn cluster(cx: &mut Cx<'_>, out: &mut String) {
    push(out, "cluster_enabled", &u8::from(cx.shared.cluster.is_enabled()));
    let view = cx.shared.cluster.view();
    if view.is_alone {
        return;
    }
    let face = face_of(cx, &view);
    let (health, me) = (Health::of(&face), face.me());
    let primary = face.partitions().filter(|(_, c)| c.primary == me).count();
    let in_sync = face.partitions().filter(|(_, c)| c.is_in_sync(me)).count();
    lines!(out,
        "cluster_health": health.state(),
        "cluster_nodes": health.nodes,
        "cluster_nodes_down": health.nodes_down,
        "cluster_partitions": health.partitions,
        "cluster_partitions_without_primary": health.without_primary,
        "cluster_partitions_below_copies": health.below_copies,
        "cluster_partitions_below_min_sync": health.below_min_sync,
        "cluster_copies_joining": health.copies_joining,
        "cluster_losses": health.losses,
        "cluster_my_primaries": primary,
        "cluster_my_replicas": in_sync - primary,
        "cluster_meta_index": view.meta.index,
    );
}

fn cpu(_: &mut Cx<'_>, out: &mut String) {
    let process = system::cpu_of_process();
    let thread = system::cpu_of_main_thread();
    let seconds = |seconds: f64| format!("{seconds:.6}");
    lines!(out,
        "used_cpu_sys": seconds(process.system),
        "used_cpu_user": seconds(process.user),
        "used_cpu_sys_children": seconds(process.children_system),
        "used_cpu_user_children": seconds(process.children_user),
        "used_cpu_sys_main_thread": seconds(thread.system),
        "used_cpu_user_main_thread": seconds(thread.user),
    );
}

/// The counters of one command over all workers.
#[derive(Default)]
pub(crate) struct CommandSum {
    /// Executions.
    pub(crate) calls: u64,
    nanos: u64,
    rejected: u64,
    failed: u64,
    /// Executions by time taken, as in [`CommandStats::latency`].
    pub(crate) latency: [u64; LATENCY_BUCKETS],
}

impl CommandSum {
    pub(crate) fn of(shared: &Shared, entry: &Entry) -> CommandSum {
        let mut sum = CommandSum::default();
        for worker in &shared.stats {
            let CommandStats { calls, nanos, rejected, failed, latency } =
                &worker.commands[entry.id];
            sum.calls += calls.get();
            sum.nanos += nanos.get();
            sum.rejected += rejected.get();
            sum.failed += failed.get();
            for (all, one) in sum.latency.iter_mut().zip(latency) {
                *all += one.get();
            }
        }
        sum
    }

    /// The time in microseconds that `percent` of the executions stayed below, taking those of a
    /// bucket for evenly spread.
    fn percentile_us(&self, percent: f64) -> f64 {
        let total: u64 = self.latency.iter().sum();
        let rank = (percent / 100.0 * total as f64).max(1.0);
        let mut below = 0.0;
        for (i, count) in self.latency.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let end_us = (1u64 << (LATENCY_FIRST_BITS as usize + i)) as f64 / 1000.0;
                let start_us = if i == 0 { 0.0 } else { end_us / 2.0 };
                return start_us + (end_us - start_us) * (rank - below) / count;
            }
            below += count;
        }
        0.0
    }
}

fn commandstats(cx: &mut Cx<'_>, out: &mut String) {
    for entry in table().entries() {
        let sum = CommandSum::of(cx.shared, entry);
        if sum.calls + sum.rejected + sum.failed == 0 {
            continue;
        }
        let micros = sum.nanos / 1000;
        let _infallible = write!(
            out,
            "cmdstat_{}:calls={},usec={micros},usec_per_call={:.2},rejected_calls={},failed_calls={}\r\n",
            entry.full_name,
            sum.calls,
            ratio(sum.nanos, sum.calls) / 1000.0,
            sum.rejected,
            sum.failed,
        );
    }
}

fn errorstats(cx: &mut Cx<'_>, out: &mut String) {
    let mut sums = BTreeMap::<Box<str>, u64>::new();
    for worker in &cx.shared.stats {
        for (code, count) in worker.error_codes() {
            *sums.entry(code).or_default() += count;
        }
    }
    for (code, count) in sums {
        let _infallible = write!(out, "errorstat_{code}:count={count}\r\n");
    }
}

fn latencystats(cx: &mut Cx<'_>, out: &mut String) {
    if !cx.shared.config.hot.latency_tracking.load(Relaxed) {
        return;
    }
    let percentiles = cx.shared.config.get("latency-tracking-info-percentiles");
    let percentiles: Vec<f64> =
        percentiles.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    for entry in table().entries() {
        let sum = CommandSum::of(cx.shared, entry);
        if sum.calls == 0 {
            continue;
        }
        let shown = percentiles.iter().map(|p| format!("p{p}={:.3}", sum.percentile_us(*p)));
        let shown = shown.collect::<Vec<_>>().join(",");
        let _infallible = write!(out, "latency_percentiles_usec_{}:{shown}\r\n", entry.full_name);
    }
}

fn keyspace(cx: &mut Cx<'_>, out: &mut String) {
    let mut counts = [(0, 0); DATABASES];
    cx.keys.each_shard(|_, shard| {
        for (i, count) in counts.iter_mut().enumerate() {
            if let Some(db) = shard.db(i as u8) {
                *count = (count.0 + db.len(), count.1 + db.expires());
            }
        }
        true
    });
    for (i, (keys, expires)) in counts.into_iter().enumerate().filter(|(_, count)| count.0 > 0) {
        let _infallible = write!(out, "db{i}:keys={keys},expires={expires},avg_ttl=0\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    fn text(h: &mut Harness, line: &str) -> String {
        let reply = String::from_utf8(h.run(line)).expect("text");
        let (head, text) = reply.split_once("\r\n").expect("a head");
        assert_eq!(head, format!("${}", text.len() - 2));
        text[..text.len() - 2].to_owned()
    }

    fn titles(h: &mut Harness, line: &str) -> Vec<String> {
        let text = text(h, line);
        text.lines().filter_map(|l| l.strip_prefix("# ")).map(str::to_lowercase).collect()
    }

    #[test]
    fn sections_are_chosen_by_name() {
        let mut h = Harness::default();
        let all: Vec<String> = SECTIONS.iter().map(|s| s.title.to_lowercase()).collect();
        assert_eq!(titles(&mut h, "INFO all"), all);
        assert_eq!(titles(&mut h, "INFO nosuch EVERYTHING"), all);
        let default = titles(&mut h, "INFO");
        assert_eq!(default, titles(&mut h, "INFO default"));
        assert_eq!(default.len(), all.len() - 2);
        assert_eq!(titles(&mut h, "INFO commandstats default").len(), all.len() - 1);
        assert_eq!(titles(&mut h, "info Keyspace server SERVER"), ["server", "keyspace"]);
        assert_eq!(h.run("INFO nosuch"), b"$0\r\n\r\n");
        assert_eq!(h.run("INFO modules"), b"$11\r\n# Modules\r\n\r\n");
    }

    #[test]
    fn every_line_is_a_field() {
        let mut h = Harness::default();
        h.run("SET a 1");
        for line in text(&mut h, "INFO everything").split("\r\n") {
            let is_field = line.split_once(':').is_some_and(|(name, _)| !name.is_empty());
            assert!(is_field || line.is_empty() || line.starts_with("# "), "{line:?}");
        }
    }

    #[test]
    fn counts_are_true() {
        let mut h = Harness::default();
        h.run("SET a 1");
        h.run("GET a");
        h.run("GET b");
        h.run("GET");
        h.run("nonsense");
        let stats = text(&mut h, "INFO stats");
        for line in ["keyspace_hits:1", "keyspace_misses:1", "total_error_replies:2"] {
            assert!(stats.contains(&format!("\r\n{line}\r\n")), "{stats}");
        }
        let commands = text(&mut h, "INFO commandstats");
        let get = commands.lines().find(|l| l.starts_with("cmdstat_get:")).expect("ran");
        assert!(get.starts_with("cmdstat_get:calls=2,usec="), "{get}");
        assert!(get.ends_with(",rejected_calls=1,failed_calls=0"), "{get}");
        assert_eq!(text(&mut h, "INFO errorstats"), "# Errorstats\r\nerrorstat_ERR:count=2\r\n");
        let keyspace = text(&mut h, "INFO keyspace");
        assert_eq!(keyspace, "# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n");
        let latency = text(&mut h, "INFO latencystats");
        assert!(latency.contains("latency_percentiles_usec_get:p50="), "{latency}");
        assert!(text(&mut h, "INFO replication").contains("role:master\r\n"));
    }

    #[test]
    fn info_runs_inside_a_transaction() {
        let mut h = Harness::default();
        h.run("MULTI");
        h.run("SET a 1");
        h.run("INFO keyspace");
        let reply = String::from_utf8(h.run("EXEC")).expect("text");
        assert!(reply.contains("db0:keys=1"), "{reply}");
    }

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let mut sum = CommandSum::default();
        assert_eq!(sum.percentile_us(50.0), 0.0);
        sum.latency[3] = 100;
        sum.latency[10] = 1;
        assert_eq!(sum.percentile_us(100.0), 1048.576);
        assert!((4.096..=8.192).contains(&sum.percentile_us(50.0)));
        assert!((4.096..=8.192).contains(&sum.percentile_us(0.0)));
    }
}
