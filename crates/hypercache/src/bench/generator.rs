//! One thread's share of the load: many non-blocking connections behind one epoll instance.
//!
//! A connection has at most one batch (a pipeline's worth of requests) under way: built in its
//! output buffer, written with one call, and over when as many replies have been counted.
//!
//! * Closed loop: a connection starts its next batch when the last one is over. Latency counts
//!   from the moment the batch was started.
//! * Fixed rate: batches are due at fixed intervals, whatever the server does, and go to whichever
//!   connection is idle. Latency counts from the moment a batch was *due*, so the time it waited
//!   for a connection is in it, as it would be for a user (the "coordinated omission" of other
//!   tools is leaving it out). Batches still waiting at the end enter with the time waited so far.

use super::replies::ReplyCounter;
use super::request::RequestSource;
use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use hypercache_client::{Connection, Endpoint, Stream};
use hypercache_stdx::clock;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from the kernel at a time.
const MAX_EVENTS: usize = 256;
/// How long the server may stay silent while it owes replies.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// How often a silent server is noticed.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The event data of the timer; connections have their index.
const TIMER: u64 = u64::MAX;
/// Latencies above this are recorded as this.
const MAX_LATENCY_NS: u64 = 100_000_000_000;

/// When to stop starting batches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// After this many requests.
    Requests(u64),
    /// At this time.
    Until(Instant),
}

/// What one window of load is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) start: Instant,
    pub(crate) limit: Limit,
    /// Time between two batches of this generator; `None` is the closed loop.
    pub(crate) interval: Option<Duration>,
}

/// What was measured in one window.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latencies in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) replies: u64,
    pub(crate) errors: u64,
    pub(crate) nulls: u64,
    /// Requests that were due but not sent when the window ended.
    pub(crate) unsent: u64,
    pub(crate) first_error: Option<String>,
    /// From the start of the window to the last reply.
    pub(crate) elapsed: Duration,
}

impl Tally {
    /// A tally of nothing.
    pub(crate) fn new() -> anyhow::Result<Tally> {
        Ok(Tally {
            latencies: Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3)?,
            replies: 0,
            errors: 0,
            nulls: 0,
            unsent: 0,
            first_error: None,
            elapsed: Duration::ZERO,
        })
    }

    /// Adds what another generator measured in the same window.
    pub(crate) fn merge(&mut self, other: Tally) -> anyhow::Result<()> {
        self.latencies.add(&other.latencies)?;
        self.replies += other.replies;
        self.errors += other.errors;
        self.nulls += other.nulls;
        self.unsent += other.unsent;
        self.first_error = self.first_error.take().or(other.first_error);
        self.elapsed = self.elapsed.max(other.elapsed);
        Ok(())
    }

    fn record(&mut self, latency: Duration, requests: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record_n(nanoseconds.max(1), requests);
    }

    /// Operations per second.
    pub(crate) fn throughput(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latency, in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// One connection and the batch under way on it.
#[derive(Debug)]
struct Channel {
    stream: Stream,
    output: Vec<u8>,
    written: usize,
    /// Replies the server owes.
    owed: u64,
    /// When the batch was started, or due.
    since: Instant,
    counter: ReplyCounter,
    /// Whether epoll also reports when the socket can be written.
    watches_writes: bool,
}

/// Connections to one server, and the requests to send over them.
#[derive(Debug)]
pub(crate) struct Generator {
    epoll: OwnedFd,
    timer: OwnedFd,
    channels: Vec<Channel>,
    source: RequestSource,
    pipeline: u64,
    input: Box<[u8]>,
}

/// The part of a plan that changes while it is carried out.
struct Progress<'a> {
    plan: Plan,
    started_requests: u64,
    started_batches: u64,
    under_way: usize,
    idle: VecDeque<usize>,
    tally: Tally,
    done: &'a AtomicU64,
}

impl Progress<'_> {
    /// When the next batch is due, or `None` if there is none any more.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = match self.plan.interval {
            Some(interval) => self.plan.start + times(interval, self.started_batches),
            None => now,
        };
        let remains = match self.plan.limit {
            Limit::Requests(requests) => self.started_requests < requests,
            Limit::Until(end) => due < end && now < end,
        };
        remains.then_some(due)
    }

    fn batch_len(&self, pipeline: u64) -> u64 {
        match self.plan.limit {
            Limit::Requests(requests) => pipeline.min(requests - self.started_requests),
            Limit::Until(_) => pipeline,
        }
    }

    /// Records the batches that were due before the end but never started.
    fn record_unsent(&mut self, pipeline: u64) {
        let (Some(interval), Limit::Until(end)) = (self.plan.interval, self.plan.limit) else {
            return;
        };
        loop {
            let due = self.plan.start + times(interval, self.started_batches);
            if due >= end {
                return;
            }
            self.tally.record(end - due, pipeline);
            self.tally.unsent += pipeline;
            self.started_batches += 1;
        }
    }
}

/// `interval` times `count`, without the rounding of floating point.
fn times(interval: Duration, count: u64) -> Duration {
    let nanoseconds = interval.as_nanos().saturating_mul(u128::from(count));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl Generator {
    /// Opens `connections` connections to `endpoint`.
    pub(crate) fn connect(
        endpoint: &Endpoint,
        connections: usize,
        pipeline: u64,
        source: RequestSource,
    ) -> anyhow::Result<Generator> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let mut channels = Vec::with_capacity(connections);
        for index in 0..connections {
            let stream = open(endpoint)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            channels.push(Channel {
                stream,
                output: Vec::new(),
                written: 0,
                owed: 0,
                since: clock::instant(),
                counter: ReplyCounter::new(),
                watches_writes: false,
            });
        }
        let input = vec![0; READ_BYTES].into();
        Ok(Generator { epoll, timer, channels, source, pipeline, input })
    }

    /// Carries out one window of load; `done` counts replies as they come.
    pub(crate) fn run(&mut self, plan: Plan, done: &AtomicU64) -> anyhow::Result<Tally> {
        let mut progress = Progress {
            plan,
            started_requests: 0,
            started_batches: 0,
            under_way: 0,
            idle: (0..self.channels.len()).collect(),
            tally: Tally::new()?,
            done,
        };
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut last_event = clock::instant();
        loop {
            let due = self.start_batches(&mut progress)?;
            if progress.under_way == 0 && due.is_none() {
                break;
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&TICK))
            {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = clock::instant();
            if !events.is_empty() || progress.under_way == 0 {
                last_event = now;
            } else if now - last_event >= STALL_LIMIT {
                bail!("The server has not answered for {} seconds", STALL_LIMIT.as_secs());
            }
            for event in &events {
                match event.data.u64() {
                    TIMER => self.clear_timer()?,
                    index => self.handle(index as usize, &mut progress)?,
                }
            }
        }
        progress.record_unsent(self.pipeline);
        self.collect_counts(&mut progress.tally);
        Ok(progress.tally)
    }

    /// Starts every batch that is due and has an idle connection. Returns when the next one is
    /// due, or `None` if none is left.
    fn start_batches(&mut self, progress: &mut Progress<'_>) -> anyhow::Result<Option<Instant>> {
        loop {
            let now = clock::instant();
            let Some(due) = progress.next_due(now) else { return Ok(None) };
            if progress.idle.is_empty() {
                return Ok(Some(due));
            }
            if due > now {
                self.set_timer(due - now)?;
                return Ok(Some(due));
            }
            let Some(index) = progress.idle.pop_front() else { return Ok(Some(due)) };
            let len = progress.batch_len(self.pipeline);
            progress.started_requests += len;
            progress.started_batches += 1;
            progress.under_way += 1;
            self.start_batch(index, len, due)?;
        }
    }

    fn start_batch(&mut self, index: usize, len: u64, since: Instant) -> anyhow::Result<()> {
        let channel = &mut self.channels[index];
        channel.output.clear();
        channel.written = 0;
        (0..len).for_each(|_| self.source.append(&mut channel.output));
        channel.owed = len;
        channel.since = since;
        self.write(index)
    }

    /// Writes what is left of the batch, and watches for room if the socket has none.
    fn write(&mut self, index: usize) -> anyhow::Result<()> {
        let channel = &mut self.channels[index];
        while channel.written < channel.output.len() {
            match channel.stream.write(&channel.output[channel.written..]) {
                Ok(len) => channel.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(error)),
            }
        }
        let wants_writes = channel.written < channel.output.len();
        if wants_writes == channel.watches_writes {
            return Ok(());
        }
        channel.watches_writes = wants_writes;
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, wants_writes);
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::modify(&self.epoll, &channel.stream, data, flags)?)
    }

    /// Reads what a connection has, and writes what it still has to send.
    fn handle(&mut self, index: usize, progress: &mut Progress<'_>) -> anyhow::Result<()> {
        if self.channels[index].watches_writes {
            self.write(index)?;
        }
        let channel = &mut self.channels[index];
        loop {
            let len = match channel.stream.read(&mut self.input) {
                Ok(0) => bail!("The server closed a connection; its log may say why"),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(error)),
            };
            let ended = match channel.counter.feed(&self.input[..len]) {
                Ok(ended) => ended,
                Err(what) => bail!("The server sent something that is not RESP ({what})"),
            };
            if ended > channel.owed {
                bail!("The server sent more replies than there were requests");
            }
            if ended > 0 {
                let now = clock::instant();
                channel.owed -= ended;
                progress.tally.record(now - channel.since, ended);
                progress.tally.elapsed = now - progress.plan.start;
                progress.done.fetch_add(ended, Ordering::Relaxed);
                if channel.owed == 0 {
                    progress.under_way -= 1;
                    progress.idle.push_back(index);
                }
            }
            if len < self.input.len() {
                return Ok(());
            }
        }
    }

    fn set_timer(&self, wait: Duration) -> anyhow::Result<()> {
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec {
            tv_sec: wait.as_secs().try_into()?,
            // A wait of nothing would switch the timer off.
            tv_nsec: wait.subsec_nanos().max(1).into(),
        };
        let time = Itimerspec { it_interval: once, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }

    fn clear_timer(&self) -> anyhow::Result<()> {
        match rustix::io::read(&self.timer, &mut [0_u8; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the counts of the connections into the tally, so that the next window starts at
    /// nothing.
    fn collect_counts(&mut self, tally: &mut Tally) {
        for channel in &mut self.channels {
            let counter = &mut channel.counter;
            tally.replies += std::mem::take(&mut counter.replies);
            tally.errors += std::mem::take(&mut counter.errors);
            tally.nulls += std::mem::take(&mut counter.nulls);
            let error = counter.first_error.take();
            tally.first_error = tally.first_error.take().or(error);
        }
    }
}

/// Connects and logs in with the blocking client, then takes the socket over.
pub(crate) fn open(endpoint: &Endpoint) -> anyhow::Result<Stream> {
    let stream = connect(endpoint)?.into_stream();
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A blocking connection that has logged in.
pub(crate) fn connect(endpoint: &Endpoint) -> anyhow::Result<Connection> {
    let mut connection = Connection::connect(&endpoint.address, STALL_LIMIT)?;
    connection.set_read_timeout(Some(STALL_LIMIT))?;
    if let Some(password) = &endpoint.password {
        connection.auth(endpoint.user.as_deref(), password).context("Logging in failed")?;
    }
    if let Some(database) = endpoint.database.filter(|&number| number != 0) {
        connection.select(database).context("Selecting the database failed")?;
    }
    // A server at its limit of clients, or one that is still loading, says so here.
    connection.command(&["PING"])?.into_result().context("The server refused a PING")?;
    connection.set_read_timeout(None)?;
    Ok(connection)
}

fn lost(error: io::Error) -> anyhow::Error {
    hypercache_client::Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::keys::KeyChooser;
    use crate::bench::random::Random;
    use crate::bench::request::{KeyFormat, Template, ValueSize};
    use hypercache_client::Address;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers every PING, each read only after a pause.
    fn ponging(pause: Duration) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                thread::spawn(move || answer_pings(&socket, pause));
            }
        });
        Endpoint { address, user: None, password: None, database: None }
    }

    fn answer_pings(mut socket: &std::net::TcpStream, pause: Duration) {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = socket.read(&mut buffer) {
            thread::sleep(pause);
            // One line begins with a star per request, and tests here are small.
            let requests = buffer[..len].iter().filter(|&&byte| byte == b'*').count();
            if socket.write_all(&b"+PONG\r\n".repeat(requests)).is_err() {
                return;
            }
        }
    }

    fn pings() -> RequestSource {
        let size = ValueSize { min: 0, max: 0 };
        let template = Template::new(&["PING"], &KeyFormat::new("", 1), size, &[]);
        RequestSource {
            templates: vec![(template, 1)],
            keys: KeyChooser::Uniform { keys: 1 },
            random: Random::new(1),
            value_size: size,
            filler: [].into(),
            places: Vec::new(),
        }
    }

    #[test]
    fn every_request_is_answered_once() {
        let endpoint = ponging(Duration::ZERO);
        let mut generator = Generator::connect(&endpoint, 3, 4, pings()).unwrap();
        let done = AtomicU64::new(0);
        for requests in [1, 10, 101] {
            let limit = Limit::Requests(requests);
            let plan = Plan { start: clock::instant(), limit, interval: None };
            let tally = generator.run(plan, &done).unwrap();
            assert_eq!((tally.replies, tally.errors, tally.unsent), (requests, 0, 0));
            assert_eq!(tally.latencies.len(), requests);
        }
        assert_eq!(done.into_inner(), 112);
    }

    #[test]
    fn waiting_for_a_slow_server_counts_as_latency() {
        // One connection, a reply every 20 ms, a request due every 5 ms for 200 ms: most of them
        // wait longer than the server takes.
        let endpoint = ponging(Duration::from_millis(20));
        let mut generator = Generator::connect(&endpoint, 1, 1, pings()).unwrap();
        let start = clock::instant();
        let plan = Plan {
            start,
            limit: Limit::Until(start + Duration::from_millis(200)),
            interval: Some(Duration::from_millis(5)),
        };
        let tally = generator.run(plan, &AtomicU64::new(0)).unwrap();
        assert_eq!(tally.replies + tally.unsent, 40);
        assert!(tally.unsent >= 25, "{}", tally.unsent);
        assert!(tally.quantile_us(0.5) > 50_000.0, "{}", tally.quantile_us(0.5));
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 64]);
            let _ = socket.write_all(b"+PONG\r\n");
            let _ = socket.read(&mut [0; 64]);
        });
        let endpoint = Endpoint { address, user: None, password: None, database: None };
        let mut generator = Generator::connect(&endpoint, 1, 1, pings()).unwrap();
        let plan = Plan { start: clock::instant(), limit: Limit::Requests(5), interval: None };
        let error = generator.run(plan, &AtomicU64::new(0)).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
    }
}
