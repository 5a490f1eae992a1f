//! What waits to be sent to one peer, and the thread that sends it.
//!
//! Callers append encoded frames under a short lock and never wait; a thread per lane takes everything
//! that may leave and writes it at once. What does not fit its bound is dropped and counted, and so is
//! what waited while the peer could not be reached: the protocol sends again what is not acknowledged. A
//! peer that stands still holds up its own thread only.

use super::greet::{self, Greeting};
use super::{Bus, Peer};
use hypercache_cluster::bus::{Frame, Lane};
use hypercache_cluster::frame::{self, BODY_BYTES_MAX, HEADER_BYTES};
use hypercache_cluster::message::Message;
use hypercache_stdx::clock;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is sent when there is nothing else, so that either side notices that the other is gone.
const PING_EVERY: Duration = Duration::from_secs(1);
/// A write that takes longer ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// State of one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether it is connected.
    pub is_up: bool,
    /// Bytes that wait.
    pub queued: usize,
    /// Bytes that were sent.
    pub sent: u64,
    /// Frames that were dropped: their bound was reached, or nobody was there.
    pub dropped: u64,
    /// How often a connection was made.
    pub connects: u64,
    /// When the last one was made, in ms of this machine's monotonic clock.
    pub since_ms: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Frames in `bytes`.
    frames: u64,
    /// Up to here it may be sent.
    flushed: usize,
    is_over: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) lane: Lane,
    bytes_max: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Something was appended since the last flush.
    is_dirty: AtomicBool,
    is_up: AtomicBool,
    sent: AtomicU64,
    dropped: AtomicU64,
    connects: AtomicU64,
    since_ms: AtomicU64,
}

impl Outgoing {
    pub(super) fn new(lane: Lane, bytes_max: usize) -> Self {
        Outgoing {
            lane,
            bytes_max,
            queue: Mutex::default(),
            wake: Condvar::new(),
            is_dirty: AtomicBool::new(false),
            is_up: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            since_ms: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> LinkStatus {
        LinkStatus {
            is_up: self.is_up(),
            queued: self.lock().bytes.len(),
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            since_ms: self.since_ms.load(Ordering::Relaxed),
        }
    }

    /// Appends a message; it leaves after the next flush.
    pub(super) fn push_message(&self, message: &Message) {
        self.push(|out| frame::encode(message, out));
        self.is_dirty.store(true, Ordering::Release);
    }

    /// Appends a frame that leaves at once.
    pub(super) fn push_now(&self, frame: &Frame) {
        self.push(|out| frame.encode(out));
        self.flush();
    }

    fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.lock();
        let before = queue.bytes.len();
        if before >= self.bytes_max || queue.is_over {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        encode(&mut queue.bytes);
        let size = queue.bytes.len() - before;
        // One frame may be larger than the bound, or it would never be sent.
        let is_beyond = queue.bytes.len() > self.bytes_max && before > 0;
        if is_beyond || size > HEADER_BYTES + BODY_BYTES_MAX {
            queue.bytes.truncate(before);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.frames += 1;
    }

    /// What was appended may leave.
    pub(super) fn flush(&self) {
        let mut queue = self.lock();
        queue.flushed = queue.bytes.len();
        drop(queue);
        self.wake.notify_one();
    }

    /// As `flush`, at next to no cost when there is nothing new.
    pub(super) fn flush_if_dirty(&self) {
        if self.is_dirty.load(Ordering::Relaxed) && self.is_dirty.swap(false, Ordering::AcqRel) {
            self.flush();
        }
    }

    /// The thread is to end.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.wake.notify_all();
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Drops what waits.
    fn drop_waiting(&self) {
        let mut queue = self.lock();
        self.dropped.fetch_add(queue.frames, Ordering::Relaxed);
        *queue = Queue { is_over: queue.is_over, ..Queue::default() };
    }

    /// Waits until something may leave, and takes it into `out`; empty after a while.
    fn take(&self, out: &mut Vec<u8>) {
        let mut queue = self.lock();
        if queue.flushed == 0 && !queue.is_over {
            let waited = self.wake.wait_timeout_while(queue, PING_EVERY, |queue| {
                queue.flushed == 0 && !queue.is_over
            });
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.flushed == queue.bytes.len() {
            std::mem::swap(out, &mut queue.bytes);
            queue.frames = 0;
        } else {
            let flushed = queue.flushed;
            let rest = queue.bytes.split_off(flushed);
            *out = std::mem::replace(&mut queue.bytes, rest);
        }
        queue.flushed = 0;
    }

    fn pause(&self, span: Duration) {
        let queue = self.lock();
        let waited = self.wake.wait_timeout_while(queue, span, |queue| !queue.is_over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The thread: connects, sends, and connects again.
    pub(super) fn run(&self, bus: &Arc<Bus>, peer: &Peer) {
        let mut backoff = BACKOFF_MIN;
        let mut was_told = false;
        while !self.is_over() {
            match self.connect(bus, peer) {
                Ok(stream) => {
                    let since_ms = clock::mono_ms();
                    self.is_up.store(true, Ordering::Relaxed);
                    self.connects.fetch_add(1, Ordering::Relaxed);
                    self.since_ms.store(clock::mono_ms(), Ordering::Relaxed);
                    bus.sink.link_changed(peer.node, self.lane, true);
                    was_told = false;
                    let error = self.send_all(stream);
                    self.is_up.store(false, Ordering::Relaxed);
                    bus.sink.link_changed(peer.node, self.lane, false);
                    tracing::debug!("connection to node {:016x} ended: {error}", peer.node.0);
                    if clock::mono_ms() - since_ms > 1000 {
                        backoff = BACKOFF_MIN;
                    }
                }
                Err(why) => {
                    if !was_told {
                        tracing::warn!("cannot reach node {:016x}: {why}", peer.node.0);
                        was_told = true;
                    }
                }
            }
            self.drop_waiting();
            self.pause(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn connect(&self, bus: &Arc<Bus>, peer: &Peer) -> Result<TcpStream, String> {
        let greeting = Greeting { bus, lane: self.lane, to: peer.node };
        let mut met = Err("its address is not known".to_owned());
        for at in peer.addresses() {
            met = greet::connect(&greeting, &at.host, at.bus_port);
            if met.is_ok() {
                break;
            }
        }
        let (stream, others) = met?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(|e| e.to_string())?;
        others.ready.into_iter().for_each(|(node, at)| bus.learn_hint(node, at));
        Ok(stream)
    }

    /// Sends until that fails, and returns why it did.
    fn send_all(&self, mut stream: TcpStream) -> std::io::Error {
        let mut out = Vec::new();
        loop {
            out.clear();
            if out.capacity() > KEPT_BYTES_MAX {
                out = Vec::new();
            }
            self.take(&mut out);
            if self.is_over() {
                let last_words = stream.write_all(&out);
                return last_words.err().unwrap_or_else(|| std::io::Error::other("it is over"));
            }
            if out.is_empty() {
                Frame::Ping.encode(&mut out);
            }
            if let Err(error) = check_open(&stream).and_then(|()| stream.write_all(&out)) {
                return error;
            }
            self.sent.fetch_add(out.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Whether the other side has closed: what is written to such a connection would be lost without a word.
fn check_open(stream: &TcpStream) -> std::io::Result<()> {
    let mut byte = [0u8; 1];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(stream, &mut byte, flags) {
        Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(std::io::Error::other("it was closed by the other side")),
    }
}
