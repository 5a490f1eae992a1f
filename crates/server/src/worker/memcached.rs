//! Connections that speak the memcached protocol: which they are, and how their requests are read
//! and run. The twin of what `worker` does for RESP, whose loops shall not be burdened with it.

use super::{Feed, NONE, Parsed, Reader, Source, TURN_OUTPUT_MAX, WINDOW, Window, Worker};
use crate::io::Driver;
use hypercache_commands::acl::{Accounts, Strangers};
use hypercache_commands::client::Address;
use hypercache_commands::clients::is_memcached_paused;
use hypercache_commands::config::Config;
use hypercache_commands::dispatch::Executor;
use hypercache_commands::memcached::{Request, locate};
use hypercache_protocol::memcached::{self, Refusal, Step};
use hypercache_protocol::parse::{Args, ProtocolError, Range};
use std::sync::atomic::Ordering::Relaxed;

/// The settings that are read at start.
pub(super) struct Settings {
    port: u16,
    serves_unauthenticated: bool,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        let port = config.get_int("memcached-port") as u16;
        Settings { port, serves_unauthenticated: config.is_on("memcached-unauthenticated") }
    }

    /// Whether a connection with our end at `local` speaks the memcached protocol.
    pub(super) fn is_spoken_at(&self, local: &Address) -> bool {
        self.port != 0 && local.port() == Some(self.port)
    }

    /// Whether clients are served. They are not when a password was set, or the default user
    /// limited, since the server started.
    fn is_served(&self, users: &Accounts) -> bool {
        self.serves_unauthenticated || users.strangers() == Strangers::Free
    }
}

impl Reader {
    /// Reads the next request of a memcached client.
    fn next_memcached(&mut self, bytes: &[u8], ranges: &mut Vec<Range>, value_max: usize) -> Step {
        let first = ranges.len();
        ranges.append(&mut self.args);
        if let Some(mut value) = self.supplied.take() {
            let ends_well = value.ends_with(b"\r\n");
            value.truncate(value.len() - 2);
            self.parser.supply_bulk(value, ranges);
            return if ends_well { Step::Command } else { Step::Refused(Refusal::Block) };
        }
        let step = memcached::next(&mut self.parser, bytes, ranges, first, value_max);
        if step == Step::Incomplete {
            self.args.extend(ranges.drain(first..));
        }
        step
    }
}

/// A request whose block is in a buffer of its own, written out again to be read later, and the
/// bytes that follow it.
#[cold]
fn in_one_piece(args: Args<'_>, following: &[u8]) -> Vec<u8> {
    let all: Vec<&[u8]> = args.iter().collect();
    let (words, block) = match all.split_last() {
        Some((block, words)) if memcached::has_block(all[0]) => (words, Some(*block)),
        _ => (&all[..], None),
    };
    let mut bytes = memcached::in_one_piece(words, block);
    bytes.extend_from_slice(following);
    bytes
}

impl<D: Driver> Worker<D> {
    /// What a new client is told if it is not served.
    pub(super) fn refusal(&self, is_memcached: bool) -> Option<&'static [u8]> {
        let hot = &self.shared.config.hot;
        let is_full = self.shared.clients.len() as u64 >= hot.maxclients.load(Relaxed);
        match (is_full, is_memcached) {
            (true, false) => Some(b"-ERR max number of clients reached\r\n"),
            (true, true) => Some(b"ERROR Too many open connections\r\n"),
            (false, true) if !self.memcached.is_served(&self.shared.acl) => {
                Some(b"CLIENT_ERROR unauthenticated\r\n")
            }
            (false, _) => None,
        }
    }

    /// Parses requests of a feed. Returns whether it has no further one for this turn.
    #[inline(never)]
    pub(super) fn read_memcached_feed(&mut self, feed: &mut Feed, window: &mut Window) -> bool {
        let value_max = self.shared.config.hot.memcached_item_bytes_max.load(Relaxed) as usize;
        let bytes = match &feed.source {
            Source::Chunk(chunk) => self.driver.bytes(*chunk),
            Source::Owned(bytes) => &bytes[..],
        };
        while !feed.is_stopped {
            if window.parsed.len() == WINDOW {
                return false;
            }
            let first_range = window.ranges.len();
            let step = feed.reader.next_memcached(bytes, &mut window.ranges, value_max);
            let ranges = first_range..window.ranges.len();
            let mut parsed = Parsed::new(ranges, feed.reader.parser.position);
            match step {
                Step::Incomplete => return true,
                Step::Command => {}
                Step::Refused(refusal) => parsed.refusal = Some(refusal),
                Step::TooLong => parsed.error = Some(ProtocolError::InlineTooLong),
            }
            if !feed.reader.parser.owned.is_empty() {
                parsed.owned = window.owned.len() as u32;
                window.owned.push(std::mem::take(&mut feed.reader.parser.owned));
            }
            if let Some(at) = locate(&self.shared.keyspace, window.args(&parsed, bytes)) {
                parsed.key = window.keys.len() as u32;
                window.keys.push(at);
            }
            window.parsed.push(parsed);
            if step == Step::TooLong {
                return true;
            }
        }
        true
    }

    /// Executes requests of one connection.
    #[inline(never)]
    pub(super) fn execute_memcached_run(
        &mut self,
        feed: &mut Feed,
        run: &[Parsed],
        window: &Window,
    ) {
        let Some(connection) = self.connections.get(feed.token).filter(|_| !feed.is_stopped) else {
            return;
        };
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(feed.token);
        }
        let mut out = match connection.out.take() {
            Some(out) => out,
            None => self.pool.pop().unwrap_or_default(),
        };
        let bytes = match &feed.source {
            Source::Chunk(chunk) => self.driver.bytes(*chunk),
            Source::Owned(bytes) => &bytes[..],
        };
        let (shared, now_ms) = (&*self.shared, self.commands.now_ms);
        let session = &mut connection.session;
        let mut executor =
            Executor::new(shared, &mut self.commands, session, &mut self.timer, &mut out);
        let mut waiting = None;
        for parsed in run {
            let args = window.args(parsed, bytes);
            // What is refused is answered at once: of what was skipped the bytes are gone.
            let may_wait = executor.may_be_paused() && parsed.refusal.is_none();
            if may_wait && is_memcached_paused(shared, now_ms, args) {
                connection.is_paused = true;
                feed.is_stopped = true;
                if parsed.owned != NONE {
                    waiting = Some(in_one_piece(args, &bytes[parsed.end as usize..]));
                }
                break;
            }
            if parsed.error.is_some() {
                // As memcached, which closes the connection without a word.
                executor.session().is_closing = true;
            } else {
                let first_key = window.keys.get(parsed.key as usize);
                executor.execute_memcached(&Request { args, refusal: parsed.refusal, first_key });
            }
            feed.done = parsed.end as usize;
            if executor.session().is_closing {
                feed.is_stopped = true;
                break;
            }
            if executor.output_bytes() > TURN_OUTPUT_MAX {
                feed.is_stopped = true;
                connection.has_more = true;
                break;
            }
        }
        drop(executor);
        connection.out = Some(out);
        if let Some(bytes) = waiting {
            feed.source = Source::Owned(bytes);
            feed.done = 0;
        }
    }
}
