//! What each back end must do, as tests that run on all of them.

mod chaos;

use super::epoll::Epoll;
use super::uring::{Uring, probe};
use super::{Driver, Event, Token, Waker};
use chaos::keeps_every_byte_in_any_order;
use hypercache_protocol::reply::Output;
use hypercache_stdx::clock;
use rustix::fd::OwnedFd;
use rustix::net::sockopt;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

trait Make: Driver + Sized {
    /// A driver, or nothing where it cannot be used.
    fn make(waker: Waker) -> Option<Self>;
}

impl Make for Epoll {
    fn make(waker: Waker) -> Option<Self> {
        Some(Epoll::new(waker).unwrap())
    }
}

impl Make for Uring {
    #[allow(clippy::print_stderr, reason = "who runs the tests should know what was not tested")]
    fn make(waker: Waker) -> Option<Self> {
        if let Err(why) = probe() {
            eprintln!("skipped, since io_uring cannot be used here: {why}");
            return None;
        }
        Some(Uring::new(waker).unwrap())
    }
}

macro_rules! on_all_back_ends {
    ($($name:ident),* $(,)?) => {
        mod epoll { $(#[test] fn $name() { super::run::<super::Epoll>(super::$name); })* }
        mod uring { $(#[test] fn $name() { super::run::<super::Uring>(super::$name); })* }
    };
}

on_all_back_ends! {
    echoes_small_messages,
    echoes_a_megabyte,
    sends_shared_parts_in_order,
    accepts_connections,
    stops_listening,
    serves_many_connections,
    serves_more_bursts_than_buffers,
    tells_that_the_peer_closed,
    tells_that_the_peer_reset,
    tells_bytes_before_the_end,
    sends_to_a_half_closed_peer,
    sends_to_a_slow_reader,
    loses_nothing_when_reading_stops_and_goes_on,
    fills_in_odd_pieces,
    fills_with_part_before_and_excess_after,
    fills_again_and_again,
    a_fill_may_end_early,
    removes_during_a_send,
    removes_during_a_fill,
    wakes,
    uses_tokens_again,
    ends_with_requests_under_way,
    keeps_every_byte_in_any_order,
}

/// What was seen of a connection.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    filled: Vec<Vec<u8>>,
    /// Both, as they came.
    stream: Vec<u8>,
    sent: usize,
    is_closed: bool,
}

/// A driver and what it told.
struct Loop<D> {
    driver: D,
    waker: Waker,
    seen: HashMap<Token, Seen>,
    accepted: Vec<OwnedFd>,
    /// Whether received bytes are sent back.
    is_echo: bool,
    /// Echoes that wait for an output under way.
    backlog: HashMap<Token, Vec<u8>>,
    sending: Vec<Token>,
}

fn run<D: Make>(test: fn(Loop<D>)) {
    let waker = Waker::new().unwrap();
    if let Some(driver) = D::make(waker.clone()) {
        test(Loop {
            driver,
            waker,
            seen: HashMap::new(),
            accepted: Vec::new(),
            is_echo: false,
            backlog: HashMap::new(),
            sending: Vec::new(),
        });
    }
}

impl<D: Driver> Loop<D> {
    fn turn(&mut self, timeout: Duration) {
        let mut events = Vec::new();
        self.driver.wait(timeout, &mut events).unwrap();
        let mut with_bytes = Vec::new();
        for event in events {
            match event {
                Event::Accepted { fd, .. } => self.accepted.push(fd),
                Event::Received { token, chunk } => {
                    with_bytes.push(token);
                    let bytes = self.driver.bytes(chunk);
                    assert!(!bytes.is_empty(), "an event without bytes");
                    let seen = self.seen.entry(token).or_default();
                    assert!(!seen.is_closed, "bytes after the end");
                    seen.bytes.extend_from_slice(bytes);
                    seen.stream.extend_from_slice(bytes);
                    if self.is_echo {
                        self.backlog.entry(token).or_default().extend_from_slice(bytes);
                    }
                }
                Event::Filled { token, buffer } => {
                    with_bytes.push(token);
                    let seen = self.seen.entry(token).or_default();
                    seen.stream.extend_from_slice(&buffer);
                    seen.filled.push(buffer);
                }
                Event::Sent { token, output } => {
                    assert!(output.is_empty(), "outputs come back empty");
                    self.sending.retain(|t| *t != token);
                    self.seen.entry(token).or_default().sent += 1;
                }
                Event::Closed { token } => {
                    let seen = self.seen.entry(token).or_default();
                    assert!(!seen.is_closed || self.driver.name() == "epoll", "closed twice");
                    seen.is_closed = true;
                }
            }
        }
        let count = with_bytes.len();
        with_bytes.sort_unstable();
        with_bytes.dedup();
        assert_eq!(count, with_bytes.len(), "one event with bytes per connection and turn");
        for token in with_bytes {
            self.echo(token);
        }
        self.driver.end_turn();
    }

    fn echo(&mut self, token: Token) {
        if !self.sending.contains(&token)
            && let Some(bytes) = self.backlog.remove(&token)
        {
            self.send(token, Output { bytes, shared: Vec::new() });
        }
    }

    fn send(&mut self, token: Token, output: Output) {
        match self.driver.send(token, Box::new(output)) {
            Some(output) => {
                assert!(output.is_empty(), "outputs come back empty");
                self.seen.entry(token).or_default().sent += 1;
            }
            None => self.sending.push(token),
        }
    }

    /// Turns until the condition holds.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let started = clock::instant();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "in time: {what}");
            self.turn(Duration::from_millis(5));
            for token in self.backlog.keys().copied().collect::<Vec<_>>() {
                self.echo(token);
            }
        }
    }

    fn until_bytes(&mut self, token: Token, count: usize) {
        self.until("bytes arrive", |this| this.bytes(token).len() >= count);
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn(Duration::from_millis(2)));
    }

    fn bytes(&self, token: Token) -> &[u8] {
        self.seen.get(&token).map_or(&[], |seen| &seen.bytes)
    }

    fn filled(&self, token: Token) -> usize {
        self.seen.get(&token).map_or(0, |seen| seen.filled.len())
    }

    fn is_closed(&self, token: Token) -> bool {
        self.seen.get(&token).is_some_and(|seen| seen.is_closed)
    }

    /// Adds a connection and returns the peer.
    fn connect(&mut self, token: Token) -> TcpStream {
        let (near, far) = pair();
        self.driver.add(token, near).unwrap();
        far
    }
}

fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    far.set_nodelay(true).unwrap();
    near.set_nonblocking(true).unwrap();
    (OwnedFd::from(near), far)
}

/// Bytes that differ from place to place.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn plain(bytes: &[u8]) -> Output {
    Output { bytes: bytes.to_vec(), shared: Vec::new() }
}

/// Writes in a thread of its own, as the kernel's buffers may be too small.
fn write_all(peer: &TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut peer = peer.try_clone().unwrap();
    std::thread::spawn(move || peer.write_all(&bytes).unwrap())
}

fn read_exact(peer: &TcpStream, count: usize) -> std::thread::JoinHandle<Vec<u8>> {
    let mut peer = peer.try_clone().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; count];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    })
}

fn echoes_small_messages<D: Driver>(mut it: Loop<D>) {
    it.is_echo = true;
    let peer = it.connect(0);
    for count in [1, 2, 100, 5000] {
        let bytes = pattern(count);
        write_all(&peer, bytes.clone());
        let reader = read_exact(&peer, count);
        it.until("the echo is back", |_| reader.is_finished());
        assert_eq!(reader.join().unwrap(), bytes);
    }
}

fn echoes_a_megabyte<D: Driver>(mut it: Loop<D>) {
    it.is_echo = true;
    let peer = it.connect(0);
    let bytes = pattern(1 << 20);
    write_all(&peer, bytes.clone());
    let reader = read_exact(&peer, bytes.len());
    it.until("the echo is back", |_| reader.is_finished());
    assert!(reader.join().unwrap() == bytes, "the echo differs");
}

fn sends_shared_parts_in_order<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    let mut output = Output::default();
    let mut expected = Vec::new();
    for part in 0..200usize {
        output.bytes.extend_from_slice(format!("<{part}>").as_bytes());
        expected.extend_from_slice(format!("<{part}>").as_bytes());
        let value = pattern(part * 50);
        output.shared.push((output.bytes.len(), Arc::new(value.clone())));
        expected.extend_from_slice(&value);
    }
    let reader = read_exact(&peer, expected.len());
    it.send(0, output);
    it.until("all is sent", |this| this.sending.is_empty() && reader.is_finished());
    assert!(reader.join().unwrap() == expected, "the parts differ");
    assert_eq!(it.seen[&0].sent, 1);
    assert_eq!(it.driver.unsent(0), 0);
}

fn accepts_connections<D: Driver>(mut it: Loop<D>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    it.driver.listen(OwnedFd::from(listener), false).unwrap();
    it.is_echo = true;
    let mut peers: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    it.until("all are accepted", |this| this.accepted.len() == 100);
    for (token, fd) in std::mem::take(&mut it.accepted).into_iter().enumerate() {
        it.driver.add(token as Token, fd).unwrap();
    }
    for peer in &mut peers {
        peer.write_all(b"hello").unwrap();
    }
    let readers: Vec<_> = peers.iter().map(|peer| read_exact(peer, 5)).collect();
    it.until("all echoes are back", |_| readers.iter().all(|reader| reader.is_finished()));
    for reader in readers {
        assert_eq!(reader.join().unwrap(), b"hello");
    }
}

fn stops_listening<D: Driver>(mut it: Loop<D>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    it.driver.listen(OwnedFd::from(listener), false).unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    it.until("one is accepted", |this| this.accepted.len() == 1);
    it.driver.stop_listening();
    it.turns(2);
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    it.turns(2);
    assert_eq!(it.accepted.len(), 1);
}

fn serves_many_connections<D: Driver>(mut it: Loop<D>) {
    it.is_echo = true;
    let mut peers: Vec<_> = (0..300).map(|token| it.connect(token)).collect();
    for round in 0..20u8 {
        let message = |number: usize| [round; 100][..1 + number % 100].to_vec();
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&message(number)).unwrap();
        }
        let read = |(number, peer)| read_exact(peer, message(number).len());
        let readers: Vec<_> = peers.iter().enumerate().map(read).collect();
        it.until("all echoes are back", |_| readers.iter().all(|reader| reader.is_finished()));
        for (number, reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.join().unwrap(), message(number));
        }
    }
}

/// More bytes at once than all buffers of a back end hold.
fn serves_more_bursts_than_buffers<D: Driver>(mut it: Loop<D>) {
    let bytes = pattern(50_000);
    let peers: Vec<_> = (0..200).map(|token| it.connect(token)).collect();
    let writers: Vec<_> = peers.iter().map(|peer| write_all(peer, bytes.clone())).collect();
    std::thread::sleep(Duration::from_millis(100));
    for token in 0..200 {
        it.until_bytes(token, bytes.len());
        assert!(it.bytes(token) == bytes, "the bytes of {token} differ");
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

fn tells_that_the_peer_closed<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    it.turns(2);
    drop(peer);
    it.until("the end is seen", |this| this.is_closed(0));
    it.driver.remove(0);
    it.turns(0);
}

fn tells_that_the_peer_reset<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    it.turns(2);
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    it.until("the end is seen", |this| this.is_closed(0));
    it.send(0, plain(b"to nobody"));
    it.driver.remove(0);
    it.turns(3);
}

fn tells_bytes_before_the_end<D: Driver>(mut it: Loop<D>) {
    let mut peer = it.connect(0);
    let bytes = pattern(100_000);
    peer.write_all(&bytes).unwrap();
    drop(peer);
    it.until("the end is seen", |this| this.is_closed(0));
    assert!(it.bytes(0) == bytes, "bytes are lost");
}

fn sends_to_a_half_closed_peer<D: Driver>(mut it: Loop<D>) {
    let mut peer = it.connect(0);
    peer.write_all(b"request").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut is_answered = false;
    let mut events = Vec::new();
    while !it.is_closed(0) {
        it.driver.wait(Duration::from_millis(5), &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Received { .. } => {
                    is_answered = true;
                    it.send(0, plain(b"reply"));
                }
                Event::Closed { .. } => it.seen.entry(0).or_default().is_closed = true,
                _ => {}
            }
        }
        if it.is_closed(0) {
            it.driver.remove(0);
        }
        it.driver.end_turn();
    }
    it.turns(2);
    assert!(is_answered);
    let mut reply = Vec::new();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"reply");
}

fn sends_to_a_slow_reader<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    let bytes = pattern(30 << 20);
    it.send(0, plain(&bytes));
    it.turns(5);
    let unsent = it.driver.unsent(0);
    assert!(unsent > 0, "the socket cannot hold everything");
    assert!(unsent < bytes.len(), "the socket holds something");
    assert_eq!(it.sending, [0]);
    let reader = read_exact(&peer, bytes.len());
    it.until("all is sent", |this| this.sending.is_empty() && reader.is_finished());
    assert!(reader.join().unwrap() == bytes, "the bytes differ");
    assert_eq!(it.driver.unsent(0), 0);
    assert_eq!(it.seen[&0].sent, 1);
}

fn loses_nothing_when_reading_stops_and_goes_on<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    let bytes = pattern(3 << 20);
    let writer = write_all(&peer, bytes.clone());
    let mut turn = 0usize;
    it.until("all arrived", |this| {
        turn += 1;
        this.driver.set_reading(0, !turn.is_multiple_of(3));
        if turn.is_multiple_of(7) {
            this.driver.set_reading(0, false);
            this.driver.set_reading(0, true);
        }
        this.bytes(0).len() >= bytes.len()
    });
    assert!(it.bytes(0) == bytes, "the bytes differ");
    writer.join().unwrap();
    it.driver.set_reading(0, false);
    it.turns(3);
    let before = it.bytes(0).len();
    write_all(&peer, bytes.clone());
    it.turns(5);
    assert_eq!(it.bytes(0).len(), before, "nothing is read");
    it.driver.set_reading(0, true);
    it.until_bytes(0, before + bytes.len());
    assert!(it.bytes(0)[before..] == bytes, "the bytes differ");
}

fn fills_in_odd_pieces<D: Driver>(mut it: Loop<D>) {
    let mut peer = it.connect(0);
    let bytes = pattern(300_000);
    peer.write_all(&bytes[..10]).unwrap();
    it.until_bytes(0, 10);
    let mut buffer = Vec::with_capacity(bytes.len());
    buffer.extend_from_slice(&bytes[..10]);
    it.driver.fill(0, buffer, bytes.len());
    let mut at = 10;
    let mut piece = 1;
    while at < bytes.len() {
        let end = (at + piece).min(bytes.len());
        peer.write_all(&bytes[at..end]).unwrap();
        it.turn(Duration::from_millis(1));
        at = end;
        piece = piece * 3 + 1;
    }
    it.until("it is full", |this| this.filled(0) == 1);
    assert!(it.seen[&0].filled[0] == bytes, "the buffer differs");
    assert_eq!(it.bytes(0).len(), 10);
    peer.write_all(b"next").unwrap();
    it.until_bytes(0, 14);
    assert_eq!(&it.bytes(0)[10..], b"next");
}

/// Bytes for the buffer are there before it is known, and bytes after it come at once.
fn fills_with_part_before_and_excess_after<D: Driver>(mut it: Loop<D>) {
    for round in 0..20u32 {
        let peer = it.connect(round);
        let bytes = pattern(200_000 + round as usize * 7001);
        let (start, len) = (100, 150_000);
        write_all(&peer, bytes[..start].to_vec()).join().unwrap();
        it.until_bytes(round, start);
        let writer = write_all(&peer, bytes[start..].to_vec());
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        it.driver.fill(round, Vec::with_capacity(len), len);
        it.until("it is full", |this| this.filled(round) == 1);
        it.until_bytes(round, bytes.len() - len);
        writer.join().unwrap();
        let seen = &it.seen[&round];
        assert!(seen.filled[0] == bytes[start..start + len], "the buffer differs");
        assert!(seen.bytes[start..] == bytes[start + len..], "what follows differs");
        it.driver.remove(round);
        it.turns(1);
    }
}

/// As a stream of large values: each is announced by a byte.
fn fills_again_and_again<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    let value = pattern(400_000);
    let mut stream = Vec::new();
    for number in 0..30u8 {
        stream.push(number);
        stream.extend_from_slice(&value);
    }
    let writer = write_all(&peer, stream.clone());
    let mut fills = 0;
    it.until("all values came", |this| {
        let Some(seen) = this.seen.get(&0) else { return false };
        let missing = (value.len() + 1) - seen.stream.len() % (value.len() + 1);
        let is_filling = seen.filled.len() < fills;
        let is_all = seen.stream.len() >= stream.len();
        if !is_filling && !is_all && missing <= value.len() {
            fills += 1;
            this.driver.fill(0, Vec::with_capacity(missing), missing);
        }
        is_all
    });
    assert!(it.seen[&0].stream == stream, "the stream differs");
    assert!(fills > 0, "the values were received by fills");
    writer.join().unwrap();
}

fn a_fill_may_end_early<D: Driver>(mut it: Loop<D>) {
    let mut peer = it.connect(0);
    it.driver.fill(0, Vec::with_capacity(1000), 1000);
    peer.write_all(&pattern(999)).unwrap();
    it.turns(3);
    drop(peer);
    it.until("the end is seen", |this| this.is_closed(0));
    assert_eq!(it.filled(0), 0);
    it.driver.remove(0);
    it.turns(2);
}

fn removes_during_a_send<D: Driver>(mut it: Loop<D>) {
    let peer = it.connect(0);
    it.send(0, plain(&pattern(30 << 20)));
    it.turns(2);
    assert!(it.driver.unsent(0) > 0);
    it.driver.remove(0);
    assert_eq!(it.driver.unsent(0), 0);
    it.turns(3);
    assert!(it.seen.get(&0).is_none_or(|seen| seen.sent == 0));
    let mut rest = Vec::new();
    let mut peer = peer;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 30 << 20);
    assert!(rest == pattern(rest.len()), "the bytes differ");
}

fn removes_during_a_fill<D: Driver>(mut it: Loop<D>) {
    for token in 0..20 {
        let mut peer = it.connect(token);
        peer.write_all(&pattern(5000)).unwrap();
        it.driver.fill(token, Vec::with_capacity(1 << 20), 1 << 20);
        it.turns(token as usize % 3);
        it.driver.remove(token);
        let _peer_sees_the_end = peer.write_all(&pattern(5000));
        it.turns(1);
        assert_eq!(it.filled(token), 0);
    }
}

fn wakes<D: Driver>(mut it: Loop<D>) {
    for _ in 0..3 {
        let waker = it.waker.clone();
        let started = clock::instant();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
            waker.wake();
        });
        it.turn(PATIENCE);
        assert!(started.elapsed() < PATIENCE / 2, "the waker ends the wait");
        thread.join().unwrap();
        it.turns(2);
    }
    let started = clock::instant();
    it.turn(Duration::from_millis(50));
    assert!(started.elapsed() >= Duration::from_millis(45), "no wake-up is left");
}

fn uses_tokens_again<D: Driver>(mut it: Loop<D>) {
    it.is_echo = true;
    for round in 0..200u32 {
        let mut old = it.connect(0);
        old.write_all(b"bytes that nobody may see later").unwrap();
        if round % 3 > 0 {
            it.turn(Duration::from_millis(u64::from(round % 2)));
        }
        it.driver.remove(0);
        it.turn(Duration::ZERO);
        it.seen.clear();
        it.backlog.clear();
        it.sending.clear();
        let mut new = it.connect(0);
        new.write_all(b"new").unwrap();
        it.until_bytes(0, 3);
        assert_eq!(it.bytes(0), b"new");
        assert!(!it.is_closed(0));
        it.driver.remove(0);
        it.turn(Duration::ZERO);
        it.seen.clear();
        it.backlog.clear();
        it.sending.clear();
    }
}

fn ends_with_requests_under_way<D: Driver>(mut it: Loop<D>) {
    let peers: Vec<_> = (0..50).map(|token| it.connect(token)).collect();
    for token in 0..50 {
        if token % 2 == 0 {
            it.send(token, plain(&pattern(8 << 20)));
        }
        if token % 3 == 0 {
            it.driver.fill(token, Vec::with_capacity(100_000), 100_000);
        }
    }
    it.turns(2);
    for mut peer in &peers {
        peer.write_all(b"something").unwrap();
    }
    let started = clock::instant();
    drop(it);
    assert!(started.elapsed() < Duration::from_millis(900), "it ends at once");
}
