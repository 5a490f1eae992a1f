//! The event loop of one worker. Hot path.
//!
//! A turn reads from all ready connections, executes, and writes: the complete requests of *all*
//! ready connections are parsed into windows of up to [`WINDOW`] commands. While a window fills, each
//! key's bucket is prefetched; when it is full, each key's entry; then the commands run in order.
//! So the cache misses of a window overlap, also when each connection sends one command at a time.

mod accept;
mod gate;
mod memcached;
mod output;
mod sample;
mod upkeep;

pub(crate) use accept::Inbox;

use crate::connection::{Connections, Partial};
use crate::io::{Chunk, Driver, Event, Token, trim};
use hypercache_commands::Shared;
use hypercache_commands::client::ClientFlags;
use hypercache_commands::client_memory::close_largest;
use hypercache_commands::clients::is_paused;
use hypercache_commands::context::Worker as CommandWorker;
use hypercache_commands::dispatch::{Executor, Request, Timer, look_up};
use hypercache_commands::keyspace::Located;
use hypercache_commands::table::{Entry, Recent};
use hypercache_protocol::memcached::Refusal;
use hypercache_protocol::parse::{Args, Limits, Parser, ProtocolError, Range, Step};
use hypercache_protocol::reply::{Output, Reply, Version};
use hypercache_stdx::clock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Commands that are prefetched for together. Measured: 16 leaves misses uncovered at many
/// connections, 128 pushes lines out of the first-level cache.
const WINDOW: usize = 64;
/// Fewer commands than this have no misses worth overlapping.
const PREFETCH_MIN: usize = 2;
/// A bulk string of at least this many bytes is received into a buffer of its own.
const LARGE_BULK: usize = 64 * 1024;
/// A connection with more unsent output than this is not read from.
const UNSENT_MAX: usize = 64 * 1024;
/// Empty outputs kept for the next replies.
const POOL_MAX: usize = 256;
/// A connection with more output than this from one turn has its further requests wait until that
/// is sent: one client neither takes memory without bound nor keeps the others waiting.
const TURN_OUTPUT_MAX: usize = 1024 * 1024;
/// How long a stopping worker waits for clients to take their last replies, in ms.
const LINGER_MS: u64 = 1000;

/// Where the bytes of a connection's requests are during a turn.
enum Source {
    /// In a buffer of the back end.
    Chunk(Chunk),
    /// Continued from earlier turns.
    Owned(Vec<u8>),
}

/// A connection with requests to read in this turn.
struct Feed {
    token: Token,
    source: Source,
    reader: Reader,
    /// Where the first request begins that was not executed.
    done: usize,
    /// No further request of it runs in this turn.
    is_stopped: bool,
    is_memcached: bool,
}

/// Reads the requests of a feed.
#[derive(Default)]
struct Reader {
    parser: Parser,
    /// Complete arguments of a request that is not complete.
    args: Vec<Range>,
    /// A large argument that just became complete.
    supplied: Option<Vec<u8>>,
}

impl Reader {
    /// Reads the next request and appends its arguments to `ranges`.
    #[inline(always)]
    fn next(&mut self, bytes: &[u8], ranges: &mut Vec<Range>, limits: &Limits) -> Step {
        let first = ranges.len();
        if self.parser.is_inside_command() && self.take_up(ranges) {
            return Step::Command;
        }
        let step = self.parser.next(bytes, ranges, limits);
        if step == Step::Incomplete {
            self.args.extend(ranges.drain(first..));
        }
        step
    }

    /// Takes up a request of which a part came in an earlier turn. Returns whether it is complete.
    #[cold]
    fn take_up(&mut self, ranges: &mut Vec<Range>) -> bool {
        ranges.append(&mut self.args);
        let Some(mut value) = self.supplied.take() else { return false };
        // Without its line end.
        value.truncate(value.len() - 2);
        self.parser.supply_bulk(value, ranges)
    }
}

/// A parsed request in the window.
struct Parsed {
    first_range: u32,
    ranges: u32,
    /// Where the next request begins.
    end: u32,
    /// Place of its key in the list of the window, or [`NONE`].
    key: u32,
    /// Place of its arguments outside the buffers in the list of the window, or [`NONE`].
    owned: u32,
    error: Option<ProtocolError>,
    /// Of a memcached client's request.
    refusal: Option<Refusal>,
    /// Whether it is measured what it takes; see [`sample`].
    is_sampled: bool,
    entry: Option<&'static Entry>,
    /// The same, if it runs as a plain command in ordinary state.
    plain: Option<&'static Entry>,
}

const NONE: u32 = u32::MAX;

impl Parsed {
    /// A request whose arguments are these ranges of the window, and that ends at `end`.
    #[inline(always)]
    fn new(ranges: std::ops::Range<usize>, end: usize) -> Self {
        Parsed {
            first_range: ranges.start as u32,
            ranges: ranges.len() as u32,
            end: end as u32,
            key: NONE,
            owned: NONE,
            error: None,
            refusal: None,
            is_sampled: false,
            entry: None,
            plain: None,
        }
    }
}

/// A request that has arguments in buffers of their own, written out again to be read later, and
/// the bytes that follow it.
#[cold]
fn in_one_piece(args: Args<'_>, following: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    let mut request = Reply::new(&mut out, Version::V2);
    request.array(args.len());
    args.iter().for_each(|arg| request.bulk(arg));
    out.bytes.extend_from_slice(following);
    out.bytes
}

/// A window of parsed requests and what they refer to. Kept from turn to turn for its memory.
#[derive(Default)]
struct Window {
    parsed: Vec<Parsed>,
    /// Number of a feed, and where in the list its requests end.
    runs: Vec<(usize, usize)>,
    keys: Vec<Located>,
    ranges: Vec<Range>,
    owned: Vec<Vec<Arc<Vec<u8>>>>,
}

impl Window {
    /// The arguments of a request that was parsed from `bytes`.
    #[inline(always)]
    fn args<'a>(&'a self, parsed: &Parsed, bytes: &'a [u8]) -> Args<'a> {
        let owned = self.owned.get(parsed.owned as usize).map_or(&[][..], Vec::as_slice);
        let first = parsed.first_range as usize;
        Args::new(bytes, &self.ranges[first..first + parsed.ranges as usize], owned)
    }

    /// A request that was parsed from `bytes`.
    #[inline(never)]
    fn request<'a>(&'a self, parsed: &Parsed, bytes: &'a [u8]) -> Request<'a> {
        let first_key = self.keys.get(parsed.key as usize);
        Request { args: self.args(parsed, bytes), entry: parsed.entry, first_key }
    }

    fn clear(&mut self) {
        self.parsed.clear();
        self.runs.clear();
        self.keys.clear();
        self.ranges.clear();
        self.owned.clear();
    }
}

/// See the module's text.
pub(crate) struct Worker<D: Driver> {
    shared: Arc<Shared>,
    driver: D,
    inboxes: Arc<Vec<Inbox>>,
    next_inbox: usize,
    commands: CommandWorker,
    timer: Timer,
    connections: Connections,
    feeds: Vec<Feed>,
    /// Not there while its requests are executed.
    window: Option<Box<Window>>,
    recent: Recent,
    dirty: Vec<Token>,
    /// Connections with requests that were left for the next turn.
    again: Vec<Token>,
    /// Paused clients go on with the next turn's requests.
    is_resuming: bool,
    /// Whether catching up is to go on at once.
    is_behind: bool,
    #[allow(clippy::vec_box, reason = "outputs travel between here and the back end boxed")]
    pool: Vec<Box<Output>>,
    /// When the last turn ended, on the clock of `next_tick_ms`.
    turn_ended_ms: u64,
    /// When clients that wait are to wait no longer: time, number of the wait, connection.
    timeouts: BTreeSet<(u64, u64, Token)>,
    next_tick_ms: u64,
    /// When memory is looked after next, and whether that goes on soon.
    next_keep_ms: u64,
    is_keeping: bool,
    ticks: u64,
    sampling: sample::Sampling,
    /// Partition whose expiry goes on, while a round of it is not finished.
    expiring: Option<usize>,
    /// In a cluster: replies that wait.
    gates: gate::Gates,
    /// Which connections speak the memcached protocol, and whether they are served.
    memcached: memcached::Settings,
}

impl<D: Driver> Worker<D> {
    pub(crate) fn new(shared: Arc<Shared>, driver: D, inboxes: Arc<Vec<Inbox>>, id: usize) -> Self {
        let commands = CommandWorker::new(&shared, id);
        let memcached = memcached::Settings::new(&shared.config);
        let gates = gate::Gates::new(&shared);
        Worker {
            shared,
            driver,
            inboxes,
            next_inbox: 0,
            commands,
            timer: Timer::new(),
            connections: Connections::default(),
            feeds: Vec::new(),
            window: None,
            recent: Recent::default(),
            dirty: Vec::new(),
            again: Vec::new(),
            is_resuming: false,
            is_behind: false,
            pool: Vec::new(),
            turn_ended_ms: 0,
            timeouts: BTreeSet::new(),
            next_tick_ms: 0,
            next_keep_ms: 0,
            is_keeping: false,
            ticks: 0,
            sampling: sample::Sampling::default(),
            expiring: None,
            gates,
            memcached,
        }
    }

    /// Runs until the server stops.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let mut events = Vec::new();
        while !self.shared.is_stopping.load(Relaxed) {
            self.turn(&mut events)?;
        }
        self.driver.stop_listening();
        let deadline = clock::mono_ms() + LINGER_MS;
        while self.is_sending() && clock::mono_ms() < deadline {
            self.turn(&mut events)?;
        }
        for token in self.connections.tokens() {
            self.close(token);
        }
        Ok(())
    }

    fn is_sending(&mut self) -> bool {
        if !self.gates.is_empty() {
            return true;
        }
        let mut tokens = self.connections.tokens();
        tokens.any(|token| self.connections.get(token).is_some_and(|c| c.is_sending))
    }

    fn turn(&mut self, events: &mut Vec<Event>) -> std::io::Result<()> {
        self.driver.wait(self.wait_time(), events)?;
        self.commands.begin_turn(&self.shared);
        self.commands.stats.loop_turns.add(1);
        for event in events.drain(..) {
            self.handle(event);
        }
        trim(events);
        self.take_inbox();
        self.take_messages();
        self.time_out();
        self.go_on();
        let has_requests = !self.feeds.is_empty();
        if has_requests {
            self.process();
        }
        self.catch_up();
        self.take_messages();
        debug_assert!(self.feeds.is_empty(), "what a feed names may be gone in the next turn");
        if self.gates.is_used() {
            self.end_turn_in_cluster();
        }
        self.flush();
        close_largest(&self.shared, &self.commands);
        self.driver.end_turn();
        self.connections.end_turn();
        // The clock was read when the requests had run.
        self.turn_ended_ms = if has_requests { self.timer.last_ms() } else { clock::mono_ms() };
        self.run_timers();
        Ok(())
    }

    fn wait_time(&self) -> Duration {
        let is_busy = self.expiring.is_some() || self.is_resuming || self.is_behind;
        if is_busy || !self.again.is_empty() {
            return Duration::ZERO;
        }
        // What there is to catch up with was held: whoever holds it wakes nobody when it is free.
        if !self.shared.leftovers.is_empty() || self.shared.keyspace.has_unserved() {
            return Duration::from_millis(1);
        }
        if let Some(wait) = self.gates.wait_time() {
            return wait;
        }
        let timeout = self.timeouts.first().map_or(u64::MAX, |(at, ..)| *at);
        let timeout = timeout.min(self.shared.keyspace.leases.next_ms());
        let keep = if self.is_keeping { self.next_keep_ms } else { u64::MAX };
        let left_ms = self.next_tick_ms.min(timeout).min(keep).saturating_sub(self.turn_ended_ms);
        Duration::from_millis(left_ms.clamp(1, upkeep::TICK_MS))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { fd, is_unix } => self.deal(fd, is_unix),
            Event::Received { token, chunk } => {
                self.commands.stats.net_input_bytes.add(u64::from(chunk.len));
                self.commands.stats.reads.add(1);
                self.feed(token, Some(chunk), None);
            }
            Event::Filled { token, buffer } => {
                self.commands.stats.net_input_bytes.add(buffer.len() as u64);
                self.feed(token, None, Some(buffer));
            }
            Event::Sent { token, output } => {
                self.give_to_pool(output);
                self.after_sent(token);
            }
            Event::Closed { token } => self.end(token),
        }
    }

    /// Notes that a connection has something to read: new bytes, a large argument, or requests
    /// that waited.
    fn feed(&mut self, token: Token, chunk: Option<Chunk>, supplied: Option<Vec<u8>>) {
        let now_s = (self.commands.now_ms / 1000) as u32;
        let Some(connection) = self.connections.get(token) else { return };
        if connection.is_dead || connection.session.is_closing {
            return;
        }
        connection.session.client.active_s.store(now_s, Relaxed);
        let is_memcached = connection.session.client.has(ClientFlags::MEMCACHED);
        let Some(mut partial) = connection.partial.take() else {
            let Some(chunk) = chunk else { return };
            if connection.session.blocked().is_some() {
                let bytes = self.driver.bytes(chunk).to_vec();
                let partial = Partial { bytes, ..Partial::default() };
                connection.partial = Some(Box::new(partial));
                return self.mark_dirty(token);
            }
            return self.feeds.push(Feed {
                token,
                source: Source::Chunk(chunk),
                reader: Reader::default(),
                done: 0,
                is_stopped: false,
                is_memcached,
            });
        };
        if let Some(chunk) = chunk {
            partial.bytes.extend_from_slice(self.driver.bytes(chunk));
        }
        let limit = self.shared.config.hot.query_bytes_max.load(Relaxed);
        if partial.query_bytes() as u64 > limit {
            self.commands.stats.query_limit_closed.add(1);
            return self.end(token);
        }
        let is_blocked = connection.session.blocked().is_some();
        if connection.is_paused || connection.has_more || is_blocked {
            connection.partial = Some(partial);
            return self.mark_dirty(token);
        }
        let Partial { bytes, args, parser, .. } = *partial;
        self.feeds.push(Feed {
            token,
            source: Source::Owned(bytes),
            reader: Reader { parser, args, supplied },
            done: 0,
            is_stopped: false,
            is_memcached,
        });
    }

    /// Executes all requests that are complete.
    fn process(&mut self) {
        let mut feeds = std::mem::take(&mut self.feeds);
        let mut window = self.window.take().unwrap_or_default();
        let mut next = 0;
        self.timer.begin(&self.shared);
        while next < feeds.len() {
            self.fill_window(&mut feeds, &mut next, &mut window);
            self.sample(&mut window);
            self.prefetch(&mut window);
            let mut start = 0;
            for &(feed, end) in &window.runs {
                let run = &window.parsed[start..end];
                if feeds[feed].is_memcached {
                    self.execute_memcached_run(&mut feeds[feed], run, &window);
                } else {
                    self.execute_run(&mut feeds[feed], run, &window);
                }
                start = end;
            }
            window.clear();
        }
        self.window = Some(window);
        self.timer.end(&self.commands);
        for feed in feeds.drain(..) {
            self.keep_rest(feed);
        }
        trim(&mut feeds);
        self.feeds = feeds;
    }

    /// Parses requests until the window is full or no feed has a complete one left.
    fn fill_window(&mut self, feeds: &mut [Feed], next: &mut usize, window: &mut Window) {
        while let Some(feed) = feeds.get_mut(*next) {
            let first = window.parsed.len();
            let is_read = if feed.is_memcached {
                self.read_memcached_feed(feed, window)
            } else {
                self.read_feed(feed, window)
            };
            if window.parsed.len() > first {
                window.runs.push((*next, window.parsed.len()));
            }
            if !is_read {
                return;
            }
            *next += 1;
        }
    }

    /// Parses requests of a feed. Returns whether it has no further one for this turn. A function of
    /// its own, so that its loop has the registers to itself.
    #[inline(never)]
    fn read_feed(&mut self, feed: &mut Feed, window: &mut Window) -> bool {
        let Some(connection) = self.connections.get(feed.token) else {
            feed.is_stopped = true;
            return true;
        };
        let limits = Limits {
            bulk_bytes_max: self.shared.config.hot.bulk_bytes_max.load(Relaxed) as usize,
            args_max: i32::MAX as usize,
            authenticated: connection.session.is_authenticated,
        };
        let db = connection.session.db;
        let bytes = match &feed.source {
            Source::Chunk(chunk) => self.driver.bytes(*chunk),
            Source::Owned(bytes) => &bytes[..],
        };
        while !feed.is_stopped {
            if window.parsed.len() == WINDOW {
                return false;
            }
            let first_range = window.ranges.len();
            let step = feed.reader.next(bytes, &mut window.ranges, &limits);
            if step == Step::Incomplete {
                return true;
            }
            let ranges = first_range..window.ranges.len();
            let mut parsed = Parsed::new(ranges, feed.reader.parser.position);
            let mut owned = &[][..];
            if !feed.reader.parser.owned.is_empty() {
                parsed.owned = window.owned.len() as u32;
                window.owned.push(std::mem::take(&mut feed.reader.parser.owned));
                owned = window.owned.last().map_or(&[], Vec::as_slice);
            }
            if let Step::Error(error) = step {
                parsed.error = Some(error);
                window.parsed.push(parsed);
                return true;
            }
            let args = Args::new(bytes, &window.ranges[first_range..], owned);
            let (entry, located) = look_up(&self.shared, &mut self.recent, args, db);
            parsed.entry = entry;
            if let Some(at) = located {
                parsed.key = window.keys.len() as u32;
                parsed.plain = entry.filter(|entry| entry.is_plain_with(args.len()));
                window.keys.push(at);
            }
            window.parsed.push(parsed);
            if !limits.authenticated {
                // What follows AUTH is read under other limits, so it waits for AUTH to run.
                return false;
            }
        }
        true
    }

    /// Takes all keys of a window towards the cache together, step by step.
    fn prefetch(&self, window: &mut Window) {
        if window.parsed.len() < PREFETCH_MIN {
            return;
        }
        let keys = &mut window.keys;
        keys.iter_mut().for_each(|at| at.hint.find_block(at.hash));
        keys.iter_mut().for_each(|at| at.hint.find_bucket());
        let found =
            keys.iter_mut().map(|at| usize::from(at.hint.find_entry(at.hash))).sum::<usize>();
        if found < keys.len() {
            keys.iter().for_each(|at| at.hint.find_overflow(at.hash));
        }
        if keys.iter().any(|at| at.holds_object) {
            self.shared.keyspace.prefetch_objects(keys);
        }
    }

    /// Executes requests of one connection. A function of its own, as [`Self::read_feed`].
    #[inline(never)]
    fn execute_run(&mut self, feed: &mut Feed, run: &[Parsed], window: &Window) {
        if feed.is_stopped {
            return;
        }
        let Some(connection) = self.connections.get(feed.token) else { return };
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
        let now_ms = self.commands.now_ms;
        let session = &mut connection.session;
        let mut executor =
            Executor::new(&self.shared, &mut self.commands, session, &mut self.timer, &mut out);
        let mut waiting = None;
        for parsed in run {
            if let Some(entry) = parsed.plain
                && executor.is_ordinary()
                && executor.allows(entry, || window.args(parsed, bytes))
            {
                let at = &window.keys[parsed.key as usize];
                executor.execute_plain(window.args(parsed, bytes), entry, at);
            } else if let Some(error) = parsed.error {
                executor.fail(&format!("ERR Protocol error: {}", error.text()));
                feed.is_stopped = true;
            } else {
                if executor.may_be_paused()
                    && is_paused(&self.shared, now_ms, parsed.entry, executor.session())
                {
                    connection.is_paused = true;
                    feed.is_stopped = true;
                    if parsed.owned != NONE {
                        let args = window.args(parsed, bytes);
                        waiting = Some(in_one_piece(args, &bytes[parsed.end as usize..]));
                    }
                    break;
                }
                let request = window.request(parsed, bytes);
                if parsed.is_sampled {
                    executor.execute_measured(&request);
                } else {
                    executor.execute(&request);
                }
                let session = executor.session();
                if session.is_closing {
                    feed.is_stopped = true;
                } else if let Some(waiter) = session.blocked() {
                    feed.is_stopped = true;
                    if let Some(at) = waiter.deadline_ms() {
                        self.timeouts.insert((at, waiter.number(), feed.token));
                    }
                    self.gates.watch(waiter);
                }
            }
            feed.done = parsed.end as usize;
            if feed.is_stopped {
                break;
            }
            if executor.output_bytes() > TURN_OUTPUT_MAX {
                feed.is_stopped = true;
                connection.has_more = true;
                break;
            }
        }
        drop(executor);
        self.gates.add(feed.token, &mut self.commands.needs);
        connection.out = Some(out);
        if let Some(bytes) = waiting {
            feed.source = Source::Owned(bytes);
            feed.done = 0;
        }
    }

    /// Keeps what was not executed for a later turn.
    fn keep_rest(&mut self, feed: Feed) {
        let Some(connection) = self.connections.get(feed.token) else { return };
        if connection.session.is_closing {
            return;
        }
        let Feed { token, source, reader, done, is_stopped, .. } = feed;
        let Reader { parser, mut args, .. } = reader;
        let len = match &source {
            Source::Chunk(chunk) => chunk.len as usize,
            Source::Owned(bytes) => bytes.len(),
        };
        if done == len && (is_stopped || !parser.is_inside_command()) {
            connection.has_more = false;
            return;
        }
        // What was kept before is kept on in place: a request that comes in many pieces must not be
        // copied as often.
        let bytes = match source {
            Source::Chunk(chunk) => self.driver.bytes(chunk)[done..].to_vec(),
            Source::Owned(mut bytes) => {
                bytes.drain(..done);
                bytes
            }
        };
        let mut partial = Partial { bytes, ..Partial::default() };
        if !is_stopped {
            partial.parser = parser;
            partial.parser.position -= done;
            if done > 0 {
                args.iter_mut().for_each(|range| *range = range.shifted_back(done));
            }
            partial.args = args;
            if partial.parser.is_skipping() {
                partial.bytes.truncate(partial.parser.position);
            }
        }
        if let Some(len) = partial.parser.awaits_bulk(LARGE_BULK) {
            self.receive_large(token, partial, len);
        } else {
            connection.partial = Some(Box::new(partial));
            self.mark_dirty(token);
        }
    }

    /// Has the rest of a large argument received into a buffer of its own.
    fn receive_large(&mut self, token: Token, mut partial: Partial, len: usize) {
        let Some(connection) = self.connections.get(token) else { return };
        let buffer = partial.bytes[partial.parser.position..].to_vec();
        partial.bytes.truncate(partial.parser.position);
        partial.is_filling = true;
        connection.partial = Some(Box::new(partial));
        // With the line end after it.
        self.driver.fill(token, buffer, len + 2);
        self.mark_dirty(token);
    }

    /// Takes up the requests that were left: of paused clients when the pause is over, and of those
    /// whose output had grown too large. After the turn's events, so that what arrived is behind.
    fn go_on(&mut self) {
        if std::mem::take(&mut self.is_resuming) {
            self.resume_paused();
        }
        for token in std::mem::take(&mut self.again) {
            self.feed(token, None, None);
        }
    }

    /// The peer is gone: the connection goes at the end of the turn, when nothing uses it.
    fn end(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.is_dead = true;
        self.mark_dirty(token);
    }

    fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        if let Some(waiter) = connection.session.blocked()
            && let Some(at) = waiter.deadline_ms()
        {
            self.timeouts.remove(&(at, waiter.number(), token));
        }
        self.gates.remove(token);
        connection.session.close(&self.shared);
        self.commands.stats.add_client_bytes(-(connection.counted_bytes as isize));
        self.driver.remove(token);
    }
}
