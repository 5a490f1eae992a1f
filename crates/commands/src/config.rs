//! The settings: one table from which flags, `redis.conf`, environment, CONFIG and the reference
//! come, and the values in force.
//!
//! A value is kept as text, as CONFIG GET shows it. What the request path needs is also kept parsed
//! in [`Hot`], by the row's `apply`.

mod clustered;
mod hot;
mod limits;

pub use hot::Hot;
pub use limits::{OutputLimit, OutputLimits};

use crate::evict;
use crate::keyspace::PARTITIONS;
use crate::shared::Shared;
use hypercache_stdx::{number, size};
use hypercache_store::types::LIMITS;
use parking_lot::RwLock;
use std::sync::atomic::Ordering::Relaxed;

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A whole number within bounds.
    Int(i64, i64),
    /// Bytes, with units as `64mb`, within bounds.
    Bytes(u64, u64),
    /// One of several words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// Text that a function checks and brings into its usual form.
    Checked(fn(&str) -> Result<String, String>),
    /// Only the default is true; another value is refused with this reason.
    Fixed(&'static str),
}

/// One row.
#[derive(Debug)]
pub struct Setting {
    /// The name, as in `redis.conf`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value when nothing is said.
    pub default: &'static str,
    /// Whether CONFIG SET may change it; otherwise it is read at start.
    pub is_live: bool,
    /// Makes a new value count.
    pub apply: fn(&Shared, &str),
    /// One line for the reference.
    pub summary: &'static str,
}

fn at_start(_: &Shared, _: &str) {}

/// One log for the process, so its level is the process' too.
static LOG_LEVEL: RwLock<String> = RwLock::new(String::new());

/// The value of `loglevel` in force; empty before the server runs.
#[must_use]
pub fn log_level() -> String {
    LOG_LEVEL.read().clone()
}

const fn start(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    summary: &'static str,
) -> Setting {
    Setting { name, kind, default, is_live: false, apply: at_start, summary }
}

const fn live(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    apply: fn(&Shared, &str),
    summary: &'static str,
) -> Setting {
    Setting { name, kind, default, is_live: true, apply, summary }
}

const fn fixed(name: &'static str, value: &'static str, why: &'static str) -> Setting {
    let kind = Kind::Fixed(why);
    Setting { name, kind, default: value, is_live: true, apply: at_start, summary: why }
}

const SECONDS_MAX: i64 = i32::MAX as i64;

/// All settings, in the order of the reference.
pub const SETTINGS: &[Setting] = &[
    start(
        "bind",
        Kind::Text,
        "127.0.0.1 -::1",
        "Addresses to listen on; `-` before one: skip it if it is not there.",
    ),
    start("port", Kind::Int(0, 65535), "6379", "TCP port; 0 listens on none."),
    start(
        "memcached-port",
        Kind::Int(0, 65535),
        "0",
        "TCP port for memcached clients, on the addresses of `bind`; 0 listens on none.",
    ),
    start(
        "memcached-unauthenticated",
        Kind::Bool,
        "no",
        "Whether memcached clients, who cannot give a password, are served though there is one.",
    ),
    live(
        "memcached-item-size-max",
        Kind::Bytes(1 << 10, 1 << 30),
        "1mb",
        |s, v| s.config.hot.memcached_item_bytes_max.store(bytes(v), Relaxed),
        "Longest value that a memcached client may store.",
    ),
    start(
        "memcached-shutdown",
        Kind::Bool,
        "no",
        "Whether the memcached command `shutdown` stops the server.",
    ),
    start("unixsocket", Kind::Text, "", "Path of a Unix socket to listen on."),
    start(
        "unixsocketperm",
        Kind::Checked(octal),
        "0",
        "Permissions of the Unix socket, octal; 0 leaves them to the umask.",
    ),
    start("tcp-backlog", Kind::Int(1, 65535), "511", "Connections that may wait to be accepted."),
    live(
        "protected-mode",
        Kind::Bool,
        "yes",
        at_start,
        "Refuse to listen on a public address without a password.",
    ),
    live(
        "requirepass",
        Kind::Text,
        "",
        |s, v| s.acl.set_default_password(v.as_bytes()),
        "Password of the default user; empty asks for none.",
    ),
    start("aclfile", Kind::Text, "", "File with the users, one `user` line each."),
    live(
        "acllog-max-len",
        Kind::Int(0, 1_000_000),
        "128",
        |s, v| s.acl.log.set_max(int(v) as usize),
        "Entries that ACL LOG keeps.",
    ),
    live(
        "acl-pubsub-default",
        Kind::Choice(&["allchannels", "resetchannels"]),
        "resetchannels",
        |s, v| s.acl.set_all_channels(v == "allchannels"),
        "Whether new users may use no channels, or all.",
    ),
    live(
        "maxclients",
        Kind::Int(1, 1_000_000),
        "10000",
        |s, v| s.config.hot.maxclients.store(int(v), Relaxed),
        "Connections served at once; more are refused.",
    ),
    live(
        "timeout",
        Kind::Int(0, SECONDS_MAX),
        "0",
        |s, v| s.config.hot.timeout_s.store(int(v), Relaxed),
        "Seconds after which an idle connection is closed; 0 never.",
    ),
    live(
        "tcp-keepalive",
        Kind::Int(0, SECONDS_MAX),
        "300",
        |s, v| s.config.hot.keepalive_s.store(int(v), Relaxed),
        "Seconds between TCP keepalive probes; 0 sends none.",
    ),
    start(
        "threads",
        Kind::Checked(threads),
        "auto",
        "Worker threads, one event loop each; `auto` is one per core.",
    ),
    start(
        "io",
        Kind::Choice(&["auto", "uring", "epoll"]),
        "auto",
        "What event loops run on; `auto` takes io_uring where the kernel allows it.",
    ),
    start("databases", Kind::Fixed("there are always 16 databases"), "16", "Logical databases."),
    live(
        "client-output-buffer-limit",
        Kind::Checked(output_limits),
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        |s, v| s.config.hot.set_output_limits(v),
        "Per class of client: close it above the hard limit, or above the soft limit for some seconds.",
    ),
    live(
        "client-query-buffer-limit",
        Kind::Bytes(1 << 20, u32::MAX as u64 - (64 << 20)),
        "1gb",
        |s, v| s.config.hot.query_bytes_max.store(bytes(v), Relaxed),
        "Bytes of one client's requests that may wait to be complete.",
    ),
    live(
        "proto-max-bulk-len",
        Kind::Bytes(1 << 20, u32::MAX as u64 - 1024),
        "512mb",
        |s, v| s.config.hot.bulk_bytes_max.store(bytes(v), Relaxed),
        "Longest value or argument.",
    ),
    live(
        "maxmemory",
        Kind::Bytes(0, u64::MAX / 2),
        "0",
        |s, v| s.config.hot.maxmemory.store(bytes(v), Relaxed),
        "Bytes that the process may take, from 32mb on all that is resident; 0 is no limit.",
    ),
    live(
        "maxmemory-policy",
        Kind::Choice(&evict::NAMES),
        "noeviction",
        evict::set_policy,
        "What happens at maxmemory: writes are refused, or which keys go.",
    ),
    live(
        "maxmemory-clients",
        Kind::Checked(limits::clients_budget),
        "0",
        |s, v| s.config.hot.set_clients_budget(v),
        "Bytes of maxmemory for client buffers, or per cent as `5%`, beyond which the client with most is \
         closed; 0: they have none of their own and count as data does.",
    ),
    live(
        "lfu-log-factor",
        Kind::Int(0, i32::MAX as i64),
        "10",
        |s, v| s.keyspace.uses.log_factor.store(int(v) as u32, Relaxed),
        "How much more rarely the counter of uses of the LFU policies rises the higher it is.",
    ),
    live(
        "lfu-decay-time",
        Kind::Int(0, i32::MAX as i64),
        "1",
        |s, v| s.keyspace.uses.decay_minutes.store(int(v) as u32, Relaxed),
        "Minutes in which the counter of uses of the LFU policies falls by one; 0 never.",
    ),
    live(
        "hll-sparse-max-bytes",
        Kind::Int(0, 1 << 20),
        "3000",
        |s, v| s.config.hot.hll_sparse_bytes_max.store(int(v), Relaxed),
        "Bytes up to which a HyperLogLog keeps runs of registers and not all of them.",
    ),
    live(
        "notify-keyspace-events",
        Kind::Checked(notify_flags),
        "",
        crate::pubsub::apply_notify,
        "Which keyspace events are published; empty for none.",
    ),
    live(
        "partition-log-size",
        Kind::Bytes(1 << 10, 1 << 30),
        "1kb",
        |s, v| s.config.hot.log_bytes_max.store(bytes(v), Relaxed),
        "Bytes of recent effects kept per partition while something reads them.",
    ),
    live(
        "tracking-table-max-keys",
        Kind::Int(0, i64::MAX),
        "1000000",
        |s, v| s.config.hot.tracked_keys_max.store(int(v), Relaxed),
        "Keys remembered for clients that keep copies of them; 0 for no limit.",
    ),
    live(
        "lease-max",
        Kind::Int(0, 10_000_000),
        "65536",
        |s, v| s.config.hot.leases_max.store(int(v), Relaxed),
        "Leases of HC.GET at once; beyond them a miss gives none.",
    ),
    live(
        "lease-waiters-max",
        Kind::Int(0, 1_000_000),
        "65536",
        |s, v| s.config.hot.lease_waiters_max.store(int(v), Relaxed),
        "Clients that may wait in HC.GET for one key; further ones are told at once that it is loaded.",
    ),
    live(
        "memory-price-per-gib-month",
        Kind::Checked(dollars),
        "0",
        |s, v| s.config.hot.memory_price.store(millionths(v), Relaxed),
        "What a GiB of memory costs for a month in USD, for HC.ADVICE; 0: it tells no costs.",
    ),
    live(
        "miss-cost-usd-per-million",
        Kind::Checked(dollars),
        "0",
        |s, v| s.config.hot.miss_price.store(millionths(v), Relaxed),
        "What a million misses cost in USD, for HC.ADVICE; 0: it tells no costs.",
    ),
    live(
        "refresh-ahead-percent",
        Kind::Int(0, 1000),
        "100",
        |s, v| s.config.hot.refresh_ahead_percent.store(int(v), Relaxed),
        "How early HC.GET has a value loaded anew before it is stale, in percent of XFetch's; 0 never.",
    ),
    live(
        "slowlog-log-slower-than",
        Kind::Int(-1, i64::MAX),
        "10000",
        |s, v| s.config.hot.slowlog_us.store(signed(v), Relaxed),
        "Microseconds above which a command is logged as slow; -1 for none.",
    ),
    live(
        "slowlog-max-len",
        Kind::Int(0, 1_000_000),
        "128",
        |s, v| s.slowlog.set_max(int(v) as usize),
        "Entries that SLOWLOG keeps.",
    ),
    live(
        "commandlog-request-larger-than",
        Kind::Int(-1, i64::MAX),
        "-1",
        |s, v| s.config.hot.large_request_bytes.store(signed(v), Relaxed),
        "Bytes from which on COMMANDLOG notes a request; -1 for none, which spares measuring each.",
    ),
    live(
        "commandlog-reply-larger-than",
        Kind::Int(-1, i64::MAX),
        "-1",
        |s, v| s.config.hot.large_reply_bytes.store(signed(v), Relaxed),
        "Bytes from which on COMMANDLOG notes a reply; -1 for none, which spares measuring each.",
    ),
    live(
        "commandlog-large-request-max-len",
        Kind::Int(0, 1_000_000),
        "128",
        |s, v| s.large_requests.set_max(int(v) as usize),
        "Large requests that COMMANDLOG keeps.",
    ),
    live(
        "commandlog-large-reply-max-len",
        Kind::Int(0, 1_000_000),
        "128",
        |s, v| s.large_replies.set_max(int(v) as usize),
        "Large replies that COMMANDLOG keeps.",
    ),
    live(
        "busy-reply-threshold",
        Kind::Int(0, SECONDS_MAX),
        "5000",
        |s, v| s.config.hot.busy_ms.store(int(v), Relaxed),
        "Milliseconds that a script may run before others that wait for it are told BUSY; 0 is no limit.",
    ),
    start(
        "lua-memory-limit",
        Kind::Bytes(1 << 20, 1 << 40),
        "256mb",
        "Bytes that scripts may take in the interpreter of a worker.",
    ),
    live(
        "latency-monitor-threshold",
        Kind::Int(0, SECONDS_MAX),
        "0",
        |s, v| {
            s.config.hot.latency_ms.store(int(v), Relaxed);
            hypercache_store::growth::set_traced(v != "0");
        },
        "Milliseconds above which LATENCY notes an event; 0 notes none.",
    ),
    live(
        "latency-tracking",
        Kind::Bool,
        "yes",
        |s, v| s.config.hot.latency_tracking.store(v == "yes", Relaxed),
        "Keep per-command latency histograms.",
    ),
    live(
        "latency-tracking-info-percentiles",
        Kind::Checked(percentiles),
        "50 99 99.9",
        at_start,
        "Percentiles that INFO latencystats shows.",
    ),
    live(
        "lazyfree-lazy-user-flush",
        Kind::Bool,
        "yes",
        at_start,
        "Whether FLUSHALL and FLUSHDB without ASYNC or SYNC free in the background.",
    ),
    live(
        "hash-max-listpack-entries",
        Kind::Int(0, i64::MAX),
        "512",
        |_, v| LIMITS.hash_entries.store(int(v) as usize, Relaxed),
        "Fields up to which OBJECT ENCODING calls a hash a listpack; memory and speed are the same.",
    ),
    live(
        "hash-max-listpack-value",
        Kind::Int(0, i64::MAX),
        "64",
        |_, v| LIMITS.hash_value.store(int(v) as usize, Relaxed),
        "Bytes of fields and values up to which OBJECT ENCODING calls a hash a listpack.",
    ),
    live(
        "set-max-intset-entries",
        Kind::Int(0, 1 << 16),
        "512",
        |_, v| LIMITS.set_ints.store(int(v) as usize, Relaxed),
        "Members up to which a set of integers is a sorted array, the smallest form.",
    ),
    live(
        "zset-max-listpack-entries",
        Kind::Int(0, i64::MAX),
        "128",
        |_, v| LIMITS.sorted_set_entries.store(int(v) as usize, Relaxed),
        "Members up to which OBJECT ENCODING calls a sorted set a listpack; its form is the same.",
    ),
    live(
        "zset-max-listpack-value",
        Kind::Int(0, i64::MAX),
        "64",
        |_, v| LIMITS.sorted_set_value.store(int(v) as usize, Relaxed),
        "Bytes of members up to which OBJECT ENCODING calls a sorted set a listpack.",
    ),
    live(
        "loglevel",
        Kind::Choice(&["debug", "verbose", "notice", "warning"]),
        "notice",
        |_, v| v.clone_into(&mut LOG_LEVEL.write()),
        "Least severity that is logged.",
    ),
    start("logfile", Kind::Text, "", "File to log to; empty for the standard error."),
    start(
        "enable-debug-command",
        Kind::Choice(&["no", "yes", "local"]),
        "no",
        "Who may use DEBUG: nobody, everybody, or connections from this machine.",
    ),
    start("dir", Kind::Text, ".", "Directory for files."),
    start(
        "cluster-enabled",
        Kind::Bool,
        "no",
        "Be a node of a cluster: one that others join, or with `cluster-join` one that joins them.",
    ),
    clustered::PORT,
    clustered::JOIN,
    clustered::SECRET,
    clustered::DIR,
    clustered::COPIES,
    clustered::MIN_SYNC,
    clustered::REPLICA_READS,
    clustered::ZONE,
    clustered::ANNOUNCE_IP,
    clustered::ANNOUNCE_PORT,
    clustered::ANNOUNCE_BUS_PORT,
    clustered::DURABILITY,
    clustered::MAX_LAG_MS,
    clustered::MAX_LAG_BYTES,
    clustered::RULES,
    start("pidfile", Kind::Text, "", "File to write the process id to."),
    fixed("save", "", "snapshots are not there yet"),
    fixed("appendonly", "no", "the append-only file is not there yet"),
    fixed("daemonize", "no", "run it under a service manager, or with `&`"),
];

/// Further names of settings, as Valkey calls them, and short ones.
pub const ALIASES: &[(&str, &str)] = &[
    ("commandlog-execution-slower-than", "slowlog-log-slower-than"),
    ("commandlog-slow-execution-max-len", "slowlog-max-len"),
    ("join", "cluster-join"),
];

/// The values in force.
#[derive(Debug)]
pub struct Config {
    values: RwLock<Vec<String>>,
    /// What the request path needs, parsed.
    pub hot: Hot,
    /// The users of `user` lines, each with its rules.
    pub users: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// The file that was read at start, for CONFIG REWRITE.
    pub file: Option<std::path::PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let defaults = SETTINGS.iter().map(|s| {
            check(s, s.default).unwrap_or_else(|e| panic!("bad default of {}: {e}", s.name))
        });
        let (hot, users) = (Hot::default(), Vec::new());
        Config { values: RwLock::new(defaults.collect()), hot, users, file: None }
    }
}

impl Config {
    /// The value of a setting.
    ///
    /// # Panics
    /// When there is no such setting: the name is written in our own code.
    #[must_use]
    pub fn get(&self, name: &str) -> String {
        let i = index_of(name).unwrap_or_else(|| panic!("no setting {name}"));
        self.values.read()[i].clone()
    }

    /// The value of a whole-number setting.
    #[must_use]
    pub fn get_int(&self, name: &str) -> u64 {
        int(&self.get(name))
    }

    /// Whether a `yes`/`no` setting is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == "yes"
    }

    /// Changes a setting before the server runs.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the name or value.
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<(), String> {
        let i = index_of(name).ok_or_else(|| unknown(name))?;
        let merged = merge(&SETTINGS[i], &self.values.get_mut()[i], value);
        let value = check(&SETTINGS[i], &merged).map_err(|e| format!("'{name}': {e}"))?;
        self.values.get_mut()[i] = value;
        Ok(())
    }
}

impl Config {
    /// Adds the user of a `user` line.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the name or a rule.
    pub fn add_user(&mut self, name: &str, rules: &[String]) -> Result<(), String> {
        let fail = |why: &str| Err(format!("Error in user declaration '{name}': {why}"));
        if crate::acl::has_space(name.as_bytes()) {
            return fail("Usernames can't contain spaces or null characters");
        }
        if self.users.iter().any(|(known, _)| known == name.as_bytes()) {
            return fail("Duplicate user found. A user can only be defined once in config files");
        }
        let Ok(rules) = crate::acl::merge_selectors(rules) else {
            return fail("Unmatched parenthesis in selector definition");
        };
        let all_channels = self.get("acl-pubsub-default") == "allchannels";
        let mut user = crate::acl::User::new(all_channels);
        for rule in &rules {
            user.apply(rule, all_channels).or_else(|error| fail(error.text()))?;
        }
        self.users.push((name.as_bytes().to_vec(), rules));
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    let close = SETTINGS.iter().map(|s| s.name).min_by_key(|known| distance(known, name));
    let hint = close.filter(|known| distance(known, name) <= 3);
    match hint {
        Some(known) => format!("unknown setting '{name}'; did you mean '{known}'?"),
        None => format!("unknown setting '{name}'; docs/config.md lists all settings"),
    }
}

/// Edit distance, to suggest the name that was meant.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The place of a setting in [`SETTINGS`], by one of its names in any case.
#[must_use]
pub fn index_of(name: &str) -> Option<usize> {
    let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
    let name = alias.map_or(name, |(_, name)| name);
    SETTINGS.iter().position(|s| s.name.eq_ignore_ascii_case(name))
}

/// Whether a setting decides how large the partitions' logs are.
#[must_use]
pub fn is_of_logs(name: &str) -> bool {
    let names = ["notify-keyspace-events", "partition-log-size"];
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Changes settings of a running server, all or none, as CONFIG SET. The partitions' logs are left
/// to the caller (see [`is_of_logs`]), who knows which partitions are locked.
///
/// # Errors
/// The name of the setting at fault and a sentence that says why.
pub fn set_live(shared: &Shared, pairs: &[(String, String)]) -> Result<(), (String, String)> {
    let mut checked = Vec::new();
    for (name, value) in pairs {
        let fail = |why: String| (name.clone(), why);
        let i = index_of(name).ok_or_else(|| fail(unknown(name)))?;
        if !SETTINGS[i].is_live {
            return Err(fail("can't set immutable config".into()));
        }
        if checked.iter().any(|(other, _)| *other == i) {
            return Err(fail("duplicate parameter".into()));
        }
        let merged = merge(&SETTINGS[i], &shared.config.values.read()[i], value);
        checked.push((i, check(&SETTINGS[i], &merged).map_err(fail)?));
    }
    for (i, value) in checked {
        shared.config.values.write()[i].clone_from(&value);
        (SETTINGS[i].apply)(shared, &value);
    }
    Ok(())
}

/// Makes all values count, once at start.
pub fn apply_all(shared: &Shared) {
    let values = shared.config.values.read().clone();
    for (setting, value) in SETTINGS.iter().zip(values) {
        (setting.apply)(shared, &value);
    }
    let log_bytes = shared.config.hot.log_bytes();
    for partition in 0..PARTITIONS as u16 {
        shared.keyspace.lock(partition).start_log(log_bytes);
    }
}

/// Output limits may be given for one class only: the others stay.
fn merge(setting: &Setting, old: &str, new: &str) -> String {
    if setting.name == "client-output-buffer-limit" { format!("{old} {new}") } else { new.into() }
}

/// Checks a value and brings it into the form that is kept.
fn check(setting: &Setting, value: &str) -> Result<String, String> {
    match setting.kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Checked(f) => f(value),
        Kind::Bool => match value.to_ascii_lowercase().as_str() {
            word @ ("yes" | "no") => Ok(word.to_owned()),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Kind::Choice(words) => {
            let lower = value.to_ascii_lowercase();
            let known = words.iter().find(|w| **w == lower);
            let list = words.join(", ");
            known
                .map(|w| (*w).to_owned())
                .ok_or(format!("argument(s) must be one of the following: {list}"))
        }
        Kind::Int(min, max) => {
            let n = number::parse_i64(value.as_bytes())
                .ok_or("argument couldn't be parsed into an integer")?;
            let within = (min..=max).contains(&n);
            let bounds = || format!("argument must be between {min} and {max} inclusive");
            within.then(|| n.to_string()).ok_or_else(bounds)
        }
        Kind::Bytes(min, max) => {
            let n = size::parse_bytes(value.as_bytes()).ok_or("argument must be a memory value")?;
            let within = (min..=max).contains(&n);
            let bounds = || format!("argument must be between {min} and {max} inclusive");
            within.then(|| n.to_string()).ok_or_else(bounds)
        }
        Kind::Fixed(_) if value == setting.default => Ok(value.to_owned()),
        Kind::Fixed(why) => Err(format!("it can only be '{}': {why}", setting.default)),
    }
}

fn int(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn signed(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}

fn bytes(text: &str) -> u64 {
    size::parse_bytes(text.as_bytes()).unwrap_or(0)
}

fn dollars(text: &str) -> Result<String, String> {
    let valid = text.parse().is_ok_and(|n: f64| (0.0..=1e9).contains(&n));
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "argument must be a number from 0 to 1e9".to_owned())
}

/// A number that [`dollars`] let pass, times a million.
fn millionths(text: &str) -> u64 {
    (text.parse::<f64>().unwrap_or_default() * 1e6) as u64
}

fn octal(text: &str) -> Result<String, String> {
    let valid = u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o777);
    let error = || "argument must be an octal number up to 777".to_owned();
    valid.then(|| text.to_owned()).ok_or_else(error)
}

fn threads(text: &str) -> Result<String, String> {
    let valid = text == "auto" || text.parse().is_ok_and(|n: u16| (1..=1024).contains(&n));
    let error = || "argument must be 'auto' or a number from 1 to 1024".to_owned();
    valid.then(|| text.to_owned()).ok_or_else(error)
}

fn percentiles(text: &str) -> Result<String, String> {
    let valid = |w: &str| w.parse::<f64>().is_ok_and(|p| (0.0..=100.0).contains(&p));
    let words: Vec<&str> = text.split_whitespace().collect();
    let error = || "argument must be numbers from 0 to 100".to_owned();
    words.iter().all(|w| valid(w)).then(|| words.join(" ")).ok_or_else(error)
}

fn notify_flags(text: &str) -> Result<String, String> {
    let flags = crate::pubsub::parse_notify_flags(text);
    let error = || "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned();
    flags.map(crate::pubsub::format_notify_flags).ok_or_else(error)
}

/// Later classes override earlier ones; the result names each class once.
fn output_limits(text: &str) -> Result<String, String> {
    let error = || {
        "Wrong number of arguments in buffer limit configuration. Use: normal|replica|pubsub \
         <hard bytes> <soft bytes> <soft seconds>"
            .to_owned()
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err(error());
    }
    let mut classes =
        [("normal", String::new()), ("slave", String::new()), ("pubsub", String::new())];
    for class in words.chunks_exact(4) {
        let name = if class[0].eq_ignore_ascii_case("replica") { "slave" } else { class[0] };
        let known = classes.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((_, value)) = known else {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        };
        let (Some(hard), Some(soft)) =
            (size::parse_bytes(class[1].as_bytes()), size::parse_bytes(class[2].as_bytes()))
        else {
            return Err(error());
        };
        let seconds: u32 = class[3].parse().map_err(|_| error())?;
        *value = format!("{hard} {soft} {seconds}");
    }
    let set = classes.iter().filter(|(_, value)| !value.is_empty());
    Ok(set.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" "))
}
