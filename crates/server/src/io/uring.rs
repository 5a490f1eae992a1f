//! The io_uring back end. Hot path.
//!
//! One multishot receive per connection puts bytes into buffers shared by all; all sends of a turn
//! are queued and go to the kernel with the call that waits for the next turn. Measured with a
//! prototype: two percent of the system calls of epoll; 5 % less processor time for single requests,
//! 20 % less for deep pipelines; without deferred task running, more than epoll, hence [`probe`].
//!
//! What the kernel was told to read or write is never moved or freed before the completion has come:
//! a removed connection keeps its memory, its socket and its place until then. So no completion is
//! ever taken for a later connection's. A connection has at most one receive under way; one that is
//! cancelled goes on until its last completion, and only then the next begins.

mod buffers;
mod connection;
mod probe;
mod ring;

use super::{Chunk, Driver, Event, Token, Waker, trim};
use buffers::{BUFFERS, Buffers, GROUP};
use connection::{Connection, Filling, Flight, Kind, NO_EVENT, Tag};
use hypercache_protocol::reply::Output;
use hypercache_stdx::chunks::Chunks;
use hypercache_stdx::clock;
use io_uring::{cqueue, opcode, squeue, types};
pub(crate) use probe::probe;
use ring::{Ring, errno};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::Result;
use std::time::Duration;

/// The buffer of a [`Chunk`] in the shared buffers; others count the joined chunks from one.
const SHARED: u32 = 0;
/// How long nothing is accepted after a failure, such as no free descriptor.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;
/// How often and how long the end of the driver waits for its requests.
const LAST_WAITS: u32 = 100;
const LAST_WAIT: Duration = Duration::from_millis(10);

/// The number of the connection of a token in the list of connections.
#[derive(Clone, Copy)]
struct Place(u32);

impl Place {
    /// The token has no connection.
    const NONE: Place = Place(u32::MAX);
}

impl Default for Place {
    fn default() -> Self {
        Place::NONE
    }
}

struct Listener {
    fd: Option<OwnedFd>,
    is_unix: bool,
    is_armed: bool,
    is_stopped: bool,
}

/// After so many turns without an event the memory of the buffers is given back. A turn without
/// events lasts 100 ms, the worker's tick.
const IDLE_TURNS: u32 = 5;

/// See the module's text.
pub(crate) struct Uring {
    // Before the buffers: closed before they are freed.
    ring: Ring,
    buffers: Buffers,
    waker: Waker,
    listeners: Vec<Listener>,
    /// When listeners that failed accept again.
    accept_at_ns: Option<u64>,
    connections: Chunks<Option<Connection>>,
    free: Vec<u32>,
    /// The place of the connection of each token.
    places: Chunks<Place>,
    /// Connections that found no free buffer.
    starved: VecDeque<u32>,
    /// Connections with something to tell in the next turn.
    waiting: Vec<u32>,
    /// Chunks of this turn that did not lie together in the shared buffers.
    joined: Vec<Vec<u8>>,
    completions: Vec<cqueue::Entry>,
    /// Counts turns, without the upper bits.
    turn: u32,
    /// Turns since something happened last.
    idle_turns: u32,
    /// Whether the worker does something else between turns instead of waiting.
    is_busy: bool,
    is_ending: bool,
}

impl Uring {
    /// A driver for the calling thread only.
    pub(crate) fn new(waker: Waker) -> Result<Self> {
        let ring = Ring::new()?;
        let buffers = Buffers::register(&ring.uring.submitter())?;
        let mut driver = Uring {
            ring,
            buffers,
            waker,
            listeners: Vec::new(),
            accept_at_ns: None,
            connections: Chunks::default(),
            free: Vec::new(),
            places: Chunks::default(),
            starved: VecDeque::new(),
            waiting: Vec::new(),
            joined: Vec::new(),
            completions: Vec::new(),
            turn: 0,
            idle_turns: 0,
            is_busy: false,
            is_ending: false,
        };
        driver.watch_waker();
        Ok(driver)
    }

    fn get(&mut self, token: Token) -> Option<(u32, &mut Connection)> {
        let Place(place) = *self.places.get(token as usize)?;
        Some((place, self.connections.get_mut(place as usize)?.as_mut()?))
    }

    fn connection_of(&self, token: Token) -> Option<&Connection> {
        let Place(place) = *self.places.get(token as usize)?;
        self.connections.get(place as usize)?.as_ref()
    }

    fn watch_waker(&mut self) {
        if self.is_ending {
            return;
        }
        let fd = types::Fd(self.waker.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        let entry = entry.user_data(Tag::new(Kind::Wake, 0).to_bits());
        // SAFETY: the waker stays open until the driver has ended, and with it all requests.
        unsafe { self.ring.push(entry) };
    }

    fn arm_listener(&mut self, index: u32) {
        let listener = &mut self.listeners[index as usize];
        let Some(fd) = &listener.fd else { return };
        if listener.is_armed || listener.is_stopped {
            return;
        }
        listener.is_armed = true;
        let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd()));
        let entry = entry.flags(libc::SOCK_CLOEXEC).build();
        let entry = entry.user_data(Tag::new(Kind::Accept, index).to_bits());
        // SAFETY: the socket stays open until the last completion sets `is_armed` back.
        unsafe { self.ring.push(entry) };
    }

    fn accepted(&mut self, index: u32, result: i32, is_last: bool, events: &mut Vec<Event>) {
        let listener = &mut self.listeners[index as usize];
        let is_unix = listener.is_unix;
        if result >= 0 {
            // SAFETY: the descriptor of the new socket is nobody else's.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            if !listener.is_stopped {
                events.push(Event::Accepted { fd, is_unix });
            }
        }
        if !is_last {
            return;
        }
        listener.is_armed = false;
        if listener.is_stopped {
            listener.fd = None;
        } else if result >= 0 || matches!(errno(result), Errno::CONNABORTED | Errno::INTR) {
            self.arm_listener(index);
        } else {
            // Out of descriptors, mostly: the connection stays in the backlog.
            self.accept_at_ns = Some(clock::mono_ns() + ACCEPT_PAUSE_NS);
        }
    }

    fn accept_again(&mut self) {
        if self.accept_at_ns.is_some_and(|at| at <= clock::mono_ns()) {
            self.accept_at_ns = None;
            (0..self.listeners.len()).for_each(|index| self.arm_listener(index as u32));
        }
    }

    /// Queues a request of a connection.
    ///
    /// # Safety
    /// As for [`Ring::push`]; the connection's descriptor and memory are kept while `in_flight`
    /// says that requests are under way.
    unsafe fn push(&mut self, index: u32, entry: squeue::Entry, tag: Tag) {
        if let Some(connection) = &mut self.connections[index as usize] {
            connection.in_flight += 1;
        }
        // SAFETY: passed on to the caller.
        unsafe { self.ring.push(entry.user_data(tag.to_bits())) };
    }

    /// Begins to receive, unless that is under way or not wanted now. Where reading stops, a fill
    /// that is under way goes on: it is bounded.
    fn arm(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let is_wanted = connection.is_reading && !connection.is_over && !connection.is_removed;
        if !is_wanted || connection.is_starved || connection.receiving.is_some() {
            return;
        }
        let fd = connection.raw();
        let (kind, entry) = match connection.filling.as_mut() {
            None => (Kind::Receive, opcode::RecvMulti::new(fd, GROUP).build()),
            Some(filling) if filling.is_full() => return,
            Some(filling) => (Kind::Fill, filling.request(fd)),
        };
        connection.receiving = Some(kind);
        // SAFETY: `received` and `filled` are the only ones that touch the buffer of a fill, or
        // take it away, while `receiving` names one.
        unsafe { self.push(index, entry, Tag::new(kind, index)) };
    }

    fn transmit(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let fd = connection.raw();
        let Some(flight) = &mut connection.flight else { return };
        let entry = flight.request(fd);
        // SAFETY: the box of the flight is only touched again when the completion has come.
        unsafe { self.push(index, entry, Tag::new(Kind::Send, index)) };
    }

    /// Cancels a request of a connection.
    fn cancel(&mut self, index: u32, kind: Kind) {
        let tag = Tag::new(kind, index);
        let entry = opcode::AsyncCancel::new(tag.to_bits()).build();
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(index, entry, Tag { is_cancel: true, ..tag }) };
    }

    fn cancel_receiving(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let Some(kind) = connection.receiving else { return };
        if !std::mem::replace(&mut connection.is_cancelling, true) {
            self.cancel(index, kind);
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let tag = Tag::from_bits(completion.user_data());
        let (result, flags) = (completion.result(), completion.flags());
        let is_last = !cqueue::more(flags);
        let buffer = cqueue::buffer_select(flags);
        match tag.kind {
            Kind::Wake | Kind::Accept if tag.is_cancel => return,
            Kind::Wake => {
                self.waker.clear();
                if is_last {
                    self.watch_waker();
                }
                return;
            }
            Kind::Accept => return self.accepted(tag.index, result, is_last, events),
            Kind::Receive | Kind::Fill | Kind::Send => {}
        }
        if let Some(connection) = &mut self.connections[tag.index as usize]
            && is_last
        {
            connection.in_flight -= 1;
        }
        match tag.kind {
            kind if tag.is_cancel => self.cancelled(tag.index, kind, result),
            Kind::Fill => self.filled(tag.index, result, events),
            Kind::Send => self.sent(tag.index, result, events),
            _ => self.received(tag.index, result, is_last, buffer, events),
        }
        self.release(tag.index);
    }

    /// A request may be between two states and not be found; then it is tried again.
    fn cancelled(&mut self, index: u32, kind: Kind, result: i32) {
        let Some(connection) = &self.connections[index as usize] else { return };
        let is_under_way = match kind {
            Kind::Send => connection.is_removed && connection.flight.is_some(),
            kind => connection.is_cancelling && connection.receiving == Some(kind),
        };
        if is_under_way && result < 0 && errno(result) == Errno::NOENT {
            self.cancel(index, kind);
        }
    }

    fn received(
        &mut self,
        index: u32,
        result: i32,
        is_last: bool,
        buffer: Option<u16>,
        events: &mut Vec<Event>,
    ) {
        let start = buffer.map(|buffer| self.buffers.take(buffer));
        let Some(connection) = &mut self.connections[index as usize] else { return };
        if is_last {
            connection.receiving = None;
            connection.is_cancelling = false;
        }
        if connection.is_removed || connection.is_over {
            return;
        }
        match result {
            0 => self.end(index, events),
            1.. => {
                if let Some(start) = start {
                    self.deliver(index, start, result as u32, events);
                }
            }
            _ => match errno(result) {
                Errno::NOBUFS => {
                    connection.is_starved = true;
                    self.starved.push_back(index);
                }
                Errno::CANCELED | Errno::INTR | Errno::AGAIN => {}
                _ => self.end(index, events),
            },
        }
        if is_last {
            self.arm(index);
        }
    }

    /// Passes bytes in the shared buffers on: to the buffer that is being filled, or else to the
    /// worker, which wants one event with bytes per connection and turn.
    fn deliver(&mut self, index: u32, start: u32, len: u32, events: &mut Vec<Event>) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let bytes = self.buffers.bytes(start, len);
        if let Some(filling) = &mut connection.filling {
            let rest = filling.append(bytes);
            let is_full = filling.is_full();
            connection.hold(rest);
            if is_full {
                self.finish_fill(index, events);
            }
            return;
        }
        if connection.turn != self.turn {
            connection.turn = self.turn;
            connection.event = events.len() as u32;
            let chunk = Chunk { buffer: SHARED, start, len };
            return events.push(Event::Received { token: connection.token, chunk });
        }
        // A connection that had no event for 2^32 turns may seem to have one in this one.
        match events.get_mut(connection.event as usize) {
            Some(Event::Received { chunk, token }) if *token == connection.token => {
                join(chunk, start, bytes, &self.buffers, &mut self.joined);
            }
            _ => {
                connection.hold(bytes);
                self.tell_later(index);
            }
        }
    }

    fn tell_later(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        if !std::mem::replace(&mut connection.is_waiting, true) {
            self.waiting.push(index);
        }
    }

    /// Tells what waited for this turn.
    fn deliver_waiting(&mut self, events: &mut Vec<Event>) {
        for index in std::mem::take(&mut self.waiting) {
            let Some(connection) = &mut self.connections[index as usize] else { continue };
            if !std::mem::take(&mut connection.is_waiting) || connection.is_removed {
                continue;
            }
            let token = connection.token;
            if connection.is_filled() {
                self.finish_fill(index, events);
            } else if connection.held.is_some() {
                let bytes = connection.take_held();
                connection.turn = self.turn;
                connection.event = events.len() as u32;
                let len = bytes.len() as u32;
                self.joined.push(bytes);
                let chunk = Chunk { buffer: self.joined.len() as u32, start: 0, len };
                events.push(Event::Received { token, chunk });
            }
            let Some(connection) = &self.connections[index as usize] else { continue };
            if connection.is_over && !connection.has_news() {
                events.push(Event::Closed { token });
            }
        }
    }

    fn filled(&mut self, index: u32, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        connection.receiving = None;
        connection.is_cancelling = false;
        if connection.is_removed || connection.is_over {
            return;
        }
        let Some(filling) = &mut connection.filling else { return };
        match result {
            0 => self.end(index, events),
            1.. => {
                filling.received(result as usize);
                if filling.is_full() {
                    return self.finish_fill(index, events);
                }
            }
            _ => match errno(result) {
                Errno::CANCELED | Errno::INTR | Errno::AGAIN => {}
                _ => self.end(index, events),
            },
        }
        self.arm(index);
    }

    fn finish_fill(&mut self, index: u32, events: &mut Vec<Event>) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let Some(filling) = connection.filling.take() else { return };
        connection.turn = self.turn;
        connection.event = NO_EVENT;
        events.push(Event::Filled { token: connection.token, buffer: filling.buffer });
        if connection.has_news() {
            self.tell_later(index);
        }
        self.arm(index);
    }

    fn sent(&mut self, index: u32, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let Some(flight) = &mut connection.flight else { return };
        let is_unwanted = connection.is_removed || connection.is_over;
        if result > 0 {
            flight.sending.sent += result as usize;
        }
        let is_done = flight.sending.left() == 0;
        let may_go_on =
            result > 0 || result < 0 && matches!(errno(result), Errno::INTR | Errno::AGAIN);
        if !is_unwanted && !is_done && may_go_on {
            return self.transmit(index);
        }
        let Some(flight) = connection.flight.take() else { return };
        if is_unwanted {
            return;
        }
        if is_done {
            let output = flight.sending.finish();
            events.push(Event::Sent { token: connection.token, output });
        } else {
            self.end(index, events);
        }
    }

    /// The connection is over: says so once, after what it received.
    fn end(&mut self, index: u32, events: &mut Vec<Event>) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        if !std::mem::replace(&mut connection.is_over, true) && !connection.has_news() {
            events.push(Event::Closed { token: connection.token });
        }
    }

    /// Frees a removed connection when no request of it is under way any more.
    fn release(&mut self, index: u32) {
        let place = &mut self.connections[index as usize];
        if place.as_ref().is_some_and(|c| c.is_removed && c.in_flight == 0) {
            *place = None;
            self.free.push(index);
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.take_completions(&mut completions);
        for completion in &completions {
            self.complete(completion, events);
        }
        completions.clear();
        trim(&mut completions);
        self.completions = completions;
    }
}

/// Appends bytes in the shared buffers to a chunk: in place if they follow it.
fn join(chunk: &mut Chunk, start: u32, bytes: &[u8], buffers: &Buffers, joined: &mut Vec<Vec<u8>>) {
    let is_next = chunk.buffer == SHARED && chunk.start + chunk.len == start;
    if !is_next && chunk.buffer == SHARED {
        let first = buffers.bytes(chunk.start, chunk.len);
        let mut all = Vec::with_capacity(2 * (first.len() + bytes.len()));
        all.extend_from_slice(first);
        joined.push(all);
        (chunk.buffer, chunk.start) = (joined.len() as u32, 0);
    }
    if !is_next {
        joined[chunk.buffer as usize - 1].extend_from_slice(bytes);
    }
    chunk.len += bytes.len() as u32;
}

/// The ring only waits for sockets that block.
fn make_blocking(fd: &OwnedFd) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK)?;
    }
    Ok(())
}

impl Driver for Uring {
    fn listen(&mut self, fd: OwnedFd, is_unix: bool) -> Result<()> {
        make_blocking(&fd)?;
        let listener = Listener { fd: Some(fd), is_unix, is_armed: false, is_stopped: false };
        self.listeners.push(listener);
        self.arm_listener(self.listeners.len() as u32 - 1);
        Ok(())
    }

    fn stop_listening(&mut self) {
        for index in 0..self.listeners.len() {
            let listener = &mut self.listeners[index];
            if std::mem::replace(&mut listener.is_stopped, true) {
                continue;
            }
            if !listener.is_armed {
                listener.fd = None;
                continue;
            }
            let tag = Tag::new(Kind::Accept, index as u32);
            let entry = opcode::AsyncCancel::new(tag.to_bits()).build();
            let entry = entry.user_data(Tag { is_cancel: true, ..tag }.to_bits());
            // SAFETY: a cancellation names no memory.
            unsafe { self.ring.push(entry) };
        }
        self.ring.submit();
    }

    fn add(&mut self, token: Token, fd: OwnedFd) -> Result<()> {
        make_blocking(&fd)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        self.connections[index as usize] = Some(Connection::new(token, fd, self.turn));
        self.places.extend_to(token as usize + 1);
        self.places[token as usize] = Place(index);
        self.arm(index);
        Ok(())
    }

    fn remove(&mut self, token: Token) {
        let Some((index, connection)) = self.get(token) else { return };
        connection.is_removed = true;
        let is_sending = connection.flight.is_some();
        self.places[token as usize] = Place::NONE;
        self.cancel_receiving(index);
        if is_sending {
            self.cancel(index, Kind::Send);
        }
        self.release(index);
    }

    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> Result<()> {
        self.turn = self.turn.wrapping_add(1);
        self.is_busy = timeout.is_zero();
        self.accept_again();
        let events_before = events.len();
        self.deliver_waiting(events);
        let is_ready = events.len() > events_before || !self.starved.is_empty();
        self.ring.enter(u32::from(!is_ready), timeout)?;
        let known = events.len();
        self.reap(events);
        self.idle_turns = if events.len() == known { self.idle_turns + 1 } else { 0 };
        if self.idle_turns == IDLE_TURNS && !is_ready {
            self.buffers.rest();
        }
        Ok(())
    }

    fn bytes(&self, chunk: Chunk) -> &[u8] {
        if chunk.buffer == SHARED {
            return self.buffers.bytes(chunk.start, chunk.len);
        }
        &self.joined[chunk.buffer as usize - 1][chunk.start as usize..][..chunk.len as usize]
    }

    fn end_turn(&mut self) {
        self.joined.clear();
        self.buffers.give_back();
        // No more than can find a buffer, so that many busy connections do not try in vain.
        for _ in 0..BUFFERS {
            let Some(index) = self.starved.pop_front() else { break };
            if let Some(connection) = &mut self.connections[index as usize] {
                connection.is_starved = false;
                self.arm(index);
            }
        }
        // A worker that does not wait has other work to do, but its replies should not wait for it.
        if self.is_busy {
            self.ring.submit();
        }
    }

    fn send(&mut self, token: Token, output: Box<Output>) -> Option<Box<Output>> {
        let flight = Box::new(Flight::new(output));
        let is_empty = flight.sending.left() == 0;
        match self.get(token) {
            Some((index, connection)) if !is_empty => {
                debug_assert!(connection.flight.is_none(), "one output at a time");
                connection.flight = Some(flight);
                self.transmit(index);
                None
            }
            _ => Some(flight.sending.finish()),
        }
    }

    fn unsent(&self, token: Token) -> usize {
        let flight = self.connection_of(token).and_then(|connection| connection.flight.as_ref());
        flight.map_or(0, |flight| flight.sending.left())
    }

    fn filled_bytes(&self, token: Token) -> usize {
        let filling = self.connection_of(token).and_then(|connection| connection.filling.as_ref());
        filling.map_or(0, |filling| filling.buffer.len())
    }

    fn set_reading(&mut self, token: Token, is_reading: bool) {
        let Some((index, connection)) = self.get(token) else { return };
        if std::mem::replace(&mut connection.is_reading, is_reading) == is_reading {
            return;
        }
        if is_reading {
            self.arm(index);
        } else if connection.receiving == Some(Kind::Receive) {
            self.cancel_receiving(index);
        }
    }

    fn fill(&mut self, token: Token, buffer: Vec<u8>, len: usize) {
        let Some((index, connection)) = self.get(token) else { return };
        let mut filling = Box::new(Filling { buffer, len });
        let held = connection.take_held();
        connection.hold(filling.append(&held));
        let is_full = filling.is_full();
        connection.filling = Some(filling);
        if is_full {
            self.tell_later(index);
        }
        self.cancel_receiving(index);
        self.arm(index);
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.is_ending = true;
        self.stop_listening();
        for token in 0..self.places.len() as Token {
            self.remove(token);
        }
        let wake = Tag::new(Kind::Wake, 0);
        let entry = opcode::AsyncCancel::new(wake.to_bits()).build();
        let entry = entry.user_data(Tag { is_cancel: true, ..wake }.to_bits());
        // SAFETY: a cancellation names no memory.
        unsafe { self.ring.push(entry) };
        let mut events = Vec::new();
        for _ in 0..LAST_WAITS {
            if self.ring.in_flight() == 0 || self.wait(LAST_WAIT, &mut events).is_err() {
                break;
            }
            events.clear();
            self.end_turn();
        }
        if self.ring.in_flight() > 0 {
            // The kernel may still write to this memory, so nobody else may get it.
            self.buffers.leak();
            std::mem::forget(std::mem::take(&mut self.connections));
        }
    }
}
