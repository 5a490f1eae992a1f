//! The `stats` command. What belongs to memcached's way of keeping items (slabs, their classes, the
//! crawler) is not made up: those parts are empty.

use super::{Call, MEMCACHED_VERSION};
use crate::stats::WorkerStats;
use crate::system;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn stats(call: &mut Call<'_, '_>) {
    let part = if call.words > 1 { call.word(1) } else { b"" };
    match part {
        b"" => general(call),
        b"settings" => settings(call),
        b"items" | b"slabs" => call.answer("END"),
        b"sizes" => {
            stat(call, "sizes_status", "disabled");
            call.answer("END");
        }
        b"reset" => {
            call.cx.shared.reset_stats(call.cx.worker.id);
            call.answer("RESET");
        }
        _ => call.error("ERROR"),
    }
}

fn stat(call: &mut Call<'_, '_>, name: &str, value: impl std::fmt::Display) {
    call.answer(&format!("STAT {name} {value}"));
}

/// The counters, by the name that memcached gives each.
type Named = (&'static str, fn(&WorkerStats) -> u64);

const COUNTERS: &[Named] = &[
    ("total_connections", |s| s.connections_received.get()),
    ("rejected_connections", |s| s.connections_rejected.get()),
    ("cmd_get", |s| s.memcached_get_hits.get() + s.memcached_get_misses.get()),
    ("cmd_set", |s| s.memcached_sets.get()),
    ("cmd_touch", |s| s.memcached_touch_hits.get() + s.memcached_touch_misses.get()),
    ("cmd_meta", |s| s.memcached_meta.get()),
    ("get_hits", |s| s.memcached_get_hits.get()),
    ("get_misses", |s| s.memcached_get_misses.get()),
    ("delete_hits", |s| s.memcached_delete_hits.get()),
    ("delete_misses", |s| s.memcached_delete_misses.get()),
    ("incr_hits", |s| s.memcached_incr_hits.get()),
    ("incr_misses", |s| s.memcached_incr_misses.get()),
    ("decr_hits", |s| s.memcached_decr_hits.get()),
    ("decr_misses", |s| s.memcached_decr_misses.get()),
    ("cas_hits", |s| s.memcached_cas_hits.get()),
    ("cas_badval", |s| s.memcached_cas_badval.get()),
    ("cas_misses", |s| s.memcached_cas_misses.get()),
    ("touch_hits", |s| s.memcached_touch_hits.get()),
    ("touch_misses", |s| s.memcached_touch_misses.get()),
    ("bytes_read", |s| s.net_input_bytes.get()),
    ("bytes_written", |s| s.net_output_bytes.get()),
    ("evictions", |s| s.evicted_keys.get()),
    ("reclaimed", |s| s.expired_keys.get()),
];

fn general(call: &mut Call<'_, '_>) {
    let shared = call.cx.shared;
    let now_ms = call.cx.worker.now_ms;
    let cpu = system::cpu_of_process();
    stat(call, "pid", std::process::id());
    stat(call, "uptime", now_ms.saturating_sub(shared.started_ms) / 1000);
    stat(call, "time", now_ms / 1000);
    stat(call, "version", MEMCACHED_VERSION);
    stat(call, "pointer_size", usize::BITS);
    stat(call, "rusage_user", format_args!("{:.6}", cpu.user));
    stat(call, "rusage_system", format_args!("{:.6}", cpu.system));
    stat(call, "max_connections", shared.config.hot.maxclients.load(Relaxed));
    stat(call, "curr_connections", shared.clients.len());
    for (name, counter) in COUNTERS {
        stat(call, name, shared.sum(counter));
    }
    let flushes = super::index_of(b"flush_all").expect("it has a row");
    stat(call, "cmd_flush", shared.sum(|s| s.memcached_calls[flushes].get()));
    let (items, _) = call.cx.keys.count(0);
    stat(call, "threads", shared.workers());
    stat(call, "bytes", shared.bytes_used());
    stat(call, "curr_items", items);
    stat(call, "limit_maxbytes", shared.config.hot.maxmemory.load(Relaxed));
    call.answer("END");
}

fn settings(call: &mut Call<'_, '_>) {
    let config = &call.cx.shared.config;
    let evicts = config.get("maxmemory-policy") != "noeviction";
    let on_off = |on: bool| if on { "on" } else { "off" };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    stat(call, "maxbytes", config.hot.maxmemory.load(Relaxed));
    stat(call, "maxconns", config.hot.maxclients.load(Relaxed));
    stat(call, "tcpport", config.get("memcached-port"));
    stat(call, "udpport", 0);
    stat(call, "inter", config.get("bind"));
    stat(call, "evictions", on_off(evicts));
    stat(call, "shutdown_command", yes_no(config.is_on("memcached-shutdown")));
    stat(call, "num_threads", call.cx.shared.workers());
    stat(call, "cas_enabled", "yes");
    stat(call, "flush_enabled", "yes");
    stat(call, "auth_enabled_ascii", "no");
    stat(call, "item_size_max", config.hot.memcached_item_bytes_max.load(Relaxed));
    stat(call, "tcp_backlog", config.get("tcp-backlog"));
    stat(call, "binding_protocol", "ascii");
    stat(call, "idle_timeout", config.hot.timeout_s.load(Relaxed));
    call.answer("END");
}
