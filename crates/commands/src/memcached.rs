//! The memcached protocol over the same keyspace: one row per command, and what all of them share.
//! Hot path.
//!
//! An item is a string key of database 0. Replies and the order of checks are those of memcached
//! 1.6.18; `docs/memcached.md` says how items map onto keys and where something differs.

mod classic;
mod meta;
mod stats;
mod store;

#[cfg(test)]
pub(crate) mod tests;

use crate::client::ClientFlags;
use crate::context::Cx;
use crate::dispatch::{Executor, release};
use crate::keyspace::{Keys, Keyspace, Located, Stale};
use crate::limit::make_room;
use crate::session::Session;
use crate::shared::Shared;
use crate::stats::WorkerStats;
use hypercache_protocol::memcached::{KEY_MAX, Refusal, has_block, reply};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Output;
use hypercache_store::{Payload, Ttl};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The version of memcached whose protocol this is, told to clients that choose by it.
pub const MEMCACHED_VERSION: &str = "1.6.18";

/// All there is to know of a command.
#[derive(Debug)]
pub struct Row {
    /// Its name, which is lower case only.
    pub name: &'static str,
    /// Least and most words of its line, the name included.
    words: (usize, usize),
    /// Whether it may change data.
    pub is_write: bool,
    run: fn(&mut Call<'_, '_>),
    /// What follows the name.
    pub syntax: &'static str,
    /// One line for the reference.
    pub summary: &'static str,
}

/// All commands, those that are used most first.
pub const ROWS: &[Row] = &[
    Row {
        name: "get",
        words: (2, usize::MAX),
        is_write: false,
        run: classic::get,
        syntax: "key [key ...]",
        summary: "The values of keys that are there.",
    },
    Row {
        name: "set",
        words: (5, 6),
        is_write: true,
        run: classic::set,
        syntax: "key flags exptime bytes [noreply]",
        summary: "Stores a value.",
    },
    Row {
        name: "mg",
        words: (2, usize::MAX),
        is_write: true,
        run: meta::get,
        syntax: "key [flag ...]",
        summary: "Meta get: the value of a key, what is known of it, and whether to make it anew.",
    },
    Row {
        name: "ms",
        words: (2, usize::MAX),
        is_write: true,
        run: meta::set,
        syntax: "key bytes [flag ...]",
        summary: "Meta set: stores, adds, replaces, appends or prepends a value.",
    },
    Row {
        name: "gets",
        words: (2, usize::MAX),
        is_write: false,
        run: classic::gets,
        syntax: "key [key ...]",
        summary: "As `get`, with the CAS unique of each.",
    },
    Row {
        name: "delete",
        words: (2, 4),
        is_write: true,
        run: classic::delete,
        syntax: "key [0] [noreply]",
        summary: "Deletes a key.",
    },
    Row {
        name: "add",
        words: (5, 6),
        is_write: true,
        run: classic::add,
        syntax: "key flags exptime bytes [noreply]",
        summary: "Stores a value under a key that is not there.",
    },
    Row {
        name: "incr",
        words: (3, 4),
        is_write: true,
        run: classic::incr,
        syntax: "key value [noreply]",
        summary: "Adds to a number of 64 bits, which wraps around.",
    },
    Row {
        name: "decr",
        words: (3, 4),
        is_write: true,
        run: classic::decr,
        syntax: "key value [noreply]",
        summary: "Subtracts from a number, down to zero.",
    },
    Row {
        name: "cas",
        words: (6, 7),
        is_write: true,
        run: classic::cas,
        syntax: "key flags exptime bytes cas-unique [noreply]",
        summary: "Stores a value if nobody changed the key since `gets` told the CAS unique.",
    },
    Row {
        name: "touch",
        words: (3, 4),
        is_write: true,
        run: classic::touch,
        syntax: "key exptime [noreply]",
        summary: "Changes when a key expires.",
    },
    Row {
        name: "gat",
        words: (2, usize::MAX),
        is_write: true,
        run: classic::gat,
        syntax: "exptime key [key ...]",
        summary: "As `get`, and changes when the keys expire.",
    },
    Row {
        name: "gats",
        words: (2, usize::MAX),
        is_write: true,
        run: classic::gats,
        syntax: "exptime key [key ...]",
        summary: "As `gets`, and changes when the keys expire.",
    },
    Row {
        name: "replace",
        words: (5, 6),
        is_write: true,
        run: classic::replace,
        syntax: "key flags exptime bytes [noreply]",
        summary: "Stores a value under a key that is there.",
    },
    Row {
        name: "append",
        words: (5, 6),
        is_write: true,
        run: classic::append,
        syntax: "key flags exptime bytes [noreply]",
        summary: "Adds to the end of a value; flags and exptime stay what they were.",
    },
    Row {
        name: "prepend",
        words: (5, 6),
        is_write: true,
        run: classic::prepend,
        syntax: "key flags exptime bytes [noreply]",
        summary: "Adds before a value; flags and exptime stay what they were.",
    },
    Row {
        name: "md",
        words: (2, usize::MAX),
        is_write: true,
        run: meta::delete,
        syntax: "key [flag ...]",
        summary: "Meta delete: deletes a key, or marks its value as stale.",
    },
    Row {
        name: "ma",
        words: (2, usize::MAX),
        is_write: true,
        run: meta::arithmetic,
        syntax: "key [flag ...]",
        summary: "Meta arithmetic: adds to or subtracts from a number.",
    },
    Row {
        name: "mn",
        words: (1, usize::MAX),
        is_write: false,
        run: meta::no_op,
        syntax: "",
        summary: "Answers `MN`: all before it is answered.",
    },
    Row {
        name: "me",
        words: (1, usize::MAX),
        is_write: false,
        run: meta::debug,
        syntax: "key [b]",
        summary: "What is known of a key, for people.",
    },
    Row {
        name: "flush_all",
        words: (1, 3),
        is_write: true,
        run: classic::flush_all,
        syntax: "[delay] [noreply]",
        summary: "Empties database 0, now or in some seconds.",
    },
    Row {
        name: "version",
        words: (1, usize::MAX),
        is_write: false,
        run: classic::version,
        syntax: "",
        summary: "The version of memcached whose protocol this is.",
    },
    Row {
        name: "verbosity",
        words: (2, 3),
        is_write: false,
        run: classic::verbosity,
        syntax: "level [noreply]",
        summary: "Sets `loglevel`: 0 notice, 1 verbose, more debug.",
    },
    Row {
        name: "stats",
        words: (1, usize::MAX),
        is_write: false,
        run: stats::stats,
        syntax: "[reset | settings | items | slabs | sizes]",
        summary: "Counters and settings.",
    },
    Row {
        name: "shutdown",
        words: (1, usize::MAX),
        is_write: false,
        run: classic::shutdown,
        syntax: "",
        summary: "Stops the server, if `memcached-shutdown` allows it.",
    },
    Row {
        name: "quit",
        words: (1, usize::MAX),
        is_write: false,
        run: classic::quit,
        syntax: "",
        summary: "Closes the connection.",
    },
];

/// Number of the row of a name.
fn index_of(name: &[u8]) -> Option<usize> {
    ROWS.iter().position(|row| row.name.as_bytes() == name)
}

/// Whether a request may change data, so that it waits while CLIENT PAUSE stops writes.
#[must_use]
pub fn may_write(args: Args<'_>) -> bool {
    if args.len() == 0 {
        return false;
    }
    // `mg` mostly reads.
    let changes = |flag: &[u8]| matches!(flag.first(), Some(b'N' | b'R' | b'T'));
    let is_read = args.get(0) == b"mg" && !args.iter_from(2).any(changes);
    !is_read && index_of(args.get(0)).is_some_and(|row| ROWS[row].is_write)
}

/// Where the key of a request belongs, if its first word after the name is one; if it is none,
/// nothing comes of it.
#[inline]
#[must_use]
pub fn locate(keyspace: &Keyspace, args: Args<'_>) -> Option<Located> {
    (args.len() > 1 && args.get(1).len() <= KEY_MAX).then(|| {
        let mut at = keyspace.locate(args.get(1), 0);
        keyspace.approach(&mut at, !matches!(args.get(0), b"get" | b"gets" | b"mg"));
        at
    })
}

/// A request of a memcached client.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The words of its line, and its block if it has one.
    pub args: Args<'a>,
    /// Why it must be answered with an error; then it has no block.
    pub refusal: Option<Refusal>,
    /// Where its first key belongs.
    pub first_key: Option<&'a Located>,
}

/// A request while it runs.
pub(crate) struct Call<'c, 'a> {
    cx: &'c mut Cx<'a>,
    args: Args<'c>,
    refusal: Option<Refusal>,
    first_key: Option<&'c Located>,
    /// How many of the arguments are words of the line.
    words: usize,
    /// Whether the reply is not wanted.
    is_quiet: bool,
}

impl Executor<'_> {
    /// Runs one request of a memcached client and appends the reply.
    #[inline]
    pub fn execute_memcached(&mut self, request: &Request<'_>) {
        let cx = &mut self.cx;
        let Request { args, refusal, first_key } = *request;
        let row = if args.len() == 0 { None } else { index_of(args.get(0)) };
        cx.worker.stats.commands_processed.add(1);
        let Some(row) = row else { return unknown(cx, args) };
        cx.worker.stats.memcached_calls[row].add(1);
        cx.session.client.last_command.store(crate::table::memcached_command(row), Relaxed);
        let words = words_of(args, refusal);
        let mut call = Call { cx, args, refusal, first_key, words, is_quiet: false };
        let (least, most) = ROWS[row].words;
        if refusal == Some(Refusal::Unknown) || !(least..=most).contains(&words) {
            return call.error(Refusal::Unknown.text());
        }
        (ROWS[row].run)(&mut call);
        if self.cx.keys.has_stale() {
            crate::tracking::tell_stale(&mut self.cx);
        }
        if self.cx.shared.monitor_count.load(Relaxed) > 0 {
            crate::monitor::feed_memcached(self.cx.shared, self.cx.session, args);
        }
    }
}

/// How many of the arguments are words of the line. A block that does not end well is there if it
/// was received into a buffer of its own.
#[inline]
fn words_of(args: Args<'_>, refusal: Option<Refusal>) -> usize {
    let last = args.len() - 1;
    let is_block_there = match refusal {
        None => has_block(args.get(0)),
        Some(Refusal::Block) => args.shared(last).is_some(),
        Some(_) => false,
    };
    if is_block_there { last } else { last + 1 }
}

/// A browser that was made to send a request here is hung up on, as memcached does.
#[cold]
fn unknown(cx: &mut Cx<'_>, args: Args<'_>) {
    let is_http = args.len() > 1 && args.get(args.len() - 1).starts_with(b"HTTP/");
    if is_http {
        cx.session.is_closing = true;
        return;
    }
    reply::line(cx.reply.output(), b"ERROR");
    cx.worker.stats.count_error(b"ERROR");
}

impl<'c> Call<'c, '_> {
    fn out(&mut self) -> &mut Output {
        self.cx.reply.output()
    }

    fn word(&self, i: usize) -> &'c [u8] {
        self.args.get(i)
    }

    /// Notes whether the line ends with `noreply`.
    #[inline]
    fn read_noreply(&mut self) {
        self.is_quiet = self.args.get(self.words - 1) == b"noreply";
    }

    /// A line, unless none is wanted.
    #[inline]
    fn answer(&mut self, text: &str) {
        if !self.is_quiet {
            reply::line(self.cx.reply.output(), text.as_bytes());
        }
    }

    /// An error, unless no reply is wanted.
    #[cold]
    fn error(&mut self, text: &str) {
        self.answer(text);
        self.cx.worker.stats.count_error(text.as_bytes());
    }

    /// An error that also those are told who want no reply.
    #[cold]
    fn loud_error(&mut self, text: &str) {
        self.is_quiet = false;
        self.error(text);
    }

    /// Where a key belongs; `own` is a place for that if nobody looked before.
    #[inline]
    fn place<'l>(&self, key: &[u8], own: &'l mut Option<Located>) -> &'l Located
    where
        'c: 'l,
    {
        match self.first_key {
            Some(at) => at,
            None => own.insert(self.cx.shared.keyspace.locate(key, 0)),
        }
    }

    /// Locks the partition of a key.
    #[inline]
    fn hold<'h>(&'h mut self, at: &'h Located) -> Held<'h> {
        let shared = self.cx.shared;
        let stats = &*self.cx.worker.stats;
        let mut keys = Keys::new(&shared.keyspace, stats, 0, self.cx.worker.now_ms);
        // There is no word for a script that takes long: it is waited for.
        while !keys.hold_one(at) {}
        let stale = &mut self.cx.keys.stale;
        Held { keys, out: self.cx.reply.output(), stats, shared, stale }
    }

    /// Whether there is memory for a write, or could be made. Nothing may be held.
    #[inline]
    fn has_room(&mut self) -> bool {
        make_room(self.cx.shared, self.cx.worker)
    }

    /// The block as something to store: a buffer of its own is adopted.
    #[inline]
    fn block(&self) -> Payload<'c> {
        match self.args.shared(self.words) {
            Some(shared) => Payload::Blob(Arc::clone(shared)),
            None => Payload::Slice(self.args.get(self.words)),
        }
    }

    /// Longest value, in bytes.
    fn value_max(&self) -> usize {
        self.cx.shared.config.hot.memcached_item_bytes_max.load(Relaxed) as usize
    }

    fn ttl_of(&self, exptime: i64) -> Ttl {
        ttl_of(exptime, self.cx.worker.now_ms)
    }
}

/// The keyspace while the partition of one key is locked, and where the reply goes.
pub(crate) struct Held<'h> {
    keys: Keys<'h>,
    out: &'h mut Output,
    stats: &'h WorkerStats,
    shared: &'h Shared,
    /// Where it goes what others are to be told.
    stale: &'h mut Vec<(u64, Stale)>,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        release(self.shared, &mut self.keys);
        if self.keys.has_stale() {
            self.stale.append(&mut self.keys.stale);
        }
    }
}

/// Longest time that counts from now, in seconds; a longer one is a date.
const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;
/// The latest date there is, in seconds since the epoch: some ten thousand years on.
const DATE_MAX_S: i64 = 1 << 38;

/// When an item with this `exptime` expires.
fn ttl_of(exptime: i64, now_ms: u64) -> Ttl {
    match exptime {
        0 => Ttl::Clear,
        ..0 => Ttl::At(now_ms.saturating_sub(1)),
        1..=RELATIVE_MAX_S => Ttl::At(now_ms + exptime as u64 * 1000),
        _ => Ttl::At(exptime.min(DATE_MAX_S) as u64 * 1000),
    }
}

/// Keys looked for together.
const KEYS_TOGETHER: usize = 16;

/// Where the keys of a request belong, with their entries on the way to the cache.
fn locate_all(shared: &Shared, keys: &[&[u8]]) -> SmallVec<[Located; KEYS_TOGETHER]> {
    let keyspace = &shared.keyspace;
    let mut all: SmallVec<_> = keys.iter().map(|key| keyspace.locate(key, 0)).collect();
    all.iter_mut().for_each(|at| keyspace.approach(at, false));
    all.iter_mut().for_each(|at| at.hint.find_block(at.hash));
    all.iter_mut().for_each(|at| at.hint.find_bucket());
    let found = all.iter_mut().map(|at| usize::from(at.hint.find_entry(at.hash))).sum::<usize>();
    if found < all.len() {
        all.iter().for_each(|at| at.hint.find_overflow(at.hash));
    }
    all
}

/// Makes a session that of a memcached client: of database 0, which needs no password.
pub fn adopt(session: &mut Session) {
    session.is_authenticated = true;
    session.client.set_flag(ClientFlags::AUTHENTICATED, true);
    session.client.set_flag(ClientFlags::MEMCACHED, true);
}

/// Runs a `flush_all` whose delay is over. No lock may be held.
pub fn flush_if_due(shared: &Shared, worker: &mut crate::Worker, now_ms: u64) {
    let at = shared.memcached_flush_ms.load(Relaxed);
    // While a script runs, who knows when it ends.
    let is_due = at != 0 && now_ms >= at && shared.keyspace.turn.running().is_none();
    if is_due && shared.memcached_flush_ms.compare_exchange(at, 0, Relaxed, Relaxed).is_ok() {
        let stats = &shared.stats[worker.id];
        let mut keys = Keys::new(&shared.keyspace, stats, 0, now_ms);
        flush(shared, &mut keys);
        let stale = std::mem::take(&mut keys.stale);
        crate::tracking::tell_without_client(shared, worker, stale);
    }
}

/// Empties database 0.
fn flush(shared: &Shared, keys: &mut Keys<'_>) {
    while !keys.hold_all() {}
    let flushed = keys.flush(Some(0));
    release(shared, keys);
    crate::shared::free_in_background(Box::new(flushed));
}
