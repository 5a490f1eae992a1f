//! Everything at once, at random: no byte may be lost, doubled or seen by another connection.

use super::{Loop, Output, pair};
use crate::io::{Driver, Token};
use hypercache_stdx::rng::Rng;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const TOKENS: u64 = 12;
const STEPS: usize = 3000;

/// The far end of a connection, with how far each direction is.
struct Peer {
    stream: TcpStream,
    /// Sets the bytes of this connection apart from others'.
    salt: usize,
    written: usize,
    read: usize,
    /// Bytes the driver was given to send.
    given: usize,
    /// Bytes the driver has told of.
    told: usize,
    fills: usize,
}

fn byte(salt: usize, at: usize) -> u8 {
    (at ^ (at >> 7) ^ (at >> 15)).wrapping_mul(31).wrapping_add(salt) as u8
}

fn bytes(salt: usize, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| byte(salt, at)).collect()
}

impl Peer {
    fn write(&mut self, count: usize) {
        match self.stream.write(&bytes(self.salt, self.written, count)) {
            Ok(count) => self.written += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn read(&mut self, count: usize) {
        let mut buffer = vec![0; count];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                assert!(count > 0, "closed by the driver");
                assert!(buffer[..count] == bytes(self.salt, self.read, count), "other bytes sent");
                self.read += count;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

struct Chaos<D> {
    it: Loop<D>,
    rng: Rng,
    peers: Vec<Peer>,
    next_salt: usize,
}

impl<D: Driver> Chaos<D> {
    fn connect(&mut self, token: Token) -> Peer {
        let (near, stream) = pair();
        stream.set_nonblocking(true).unwrap();
        self.it.driver.add(token, near).unwrap();
        self.next_salt += 1;
        Peer { stream, salt: self.next_salt, written: 0, read: 0, given: 0, told: 0, fills: 0 }
    }

    fn below(&mut self, count: u64) -> usize {
        self.rng.below(count) as usize
    }

    fn step(&mut self) {
        let token = self.below(TOKENS) as Token;
        let amount = [1, 100, 5000, 20_000, 200_000][self.below(5)];
        let amount = 1 + self.below(amount);
        match self.below(100) {
            0..35 => self.peers[token as usize].write(amount),
            35..60 => self.peers[token as usize].read(amount),
            60..70 => self.fill(token, amount),
            70..85 => self.send(token, amount),
            85..98 => self.it.driver.set_reading(token, amount.is_multiple_of(2)),
            _ => self.replace(token),
        }
        if self.below(3) == 0 {
            self.turn();
        }
    }

    fn fill(&mut self, token: Token, amount: usize) {
        if self.is_filling(token) {
            return;
        }
        let peer = &mut self.peers[token as usize];
        peer.fills += 1;
        self.it.driver.fill(token, Vec::with_capacity(amount), amount);
    }

    fn is_filling(&self, token: Token) -> bool {
        self.it.filled(token) < self.peers[token as usize].fills
    }

    fn send(&mut self, token: Token, amount: usize) {
        if self.it.sending.contains(&token) {
            return;
        }
        let peer = &mut self.peers[token as usize];
        let all = bytes(peer.salt, peer.given, amount);
        peer.given += amount;
        let mut output = Output::default();
        for (number, part) in all.chunks(1 + amount / 3).enumerate() {
            if number % 2 == 1 {
                output.shared.push((output.bytes.len(), Arc::new(part.to_vec())));
            } else {
                output.bytes.extend_from_slice(part);
            }
        }
        self.it.send(token, output);
    }

    /// Removes a connection, and makes another with the same token after the turn.
    fn replace(&mut self, token: Token) {
        self.it.driver.remove(token);
        self.turn();
        self.it.seen.remove(&token);
        self.it.sending.retain(|t| *t != token);
        self.peers[token as usize] = self.connect(token);
    }

    fn turn(&mut self) {
        let timeout = Duration::from_millis(self.rng.below(2));
        self.it.turn(timeout);
        for (token, peer) in self.peers.iter_mut().enumerate() {
            let Some(seen) = self.it.seen.get_mut(&(token as Token)) else { continue };
            assert!(!seen.is_closed, "nobody closed it");
            let stream = std::mem::take(&mut seen.stream);
            assert!(stream == bytes(peer.salt, peer.told, stream.len()), "other bytes received");
            peer.told += stream.len();
            assert!(peer.told <= peer.written);
        }
    }

    /// Lets everything arrive that is under way.
    fn settle(&mut self) {
        for token in 0..TOKENS as Token {
            self.it.driver.set_reading(token, true);
        }
        let mut turns = 0;
        loop {
            self.turn();
            let mut is_settled = self.it.sending.is_empty();
            for token in 0..TOKENS as Token {
                let is_filling = self.is_filling(token);
                let peer = &mut self.peers[token as usize];
                peer.read(1 << 20);
                if is_filling {
                    peer.write(1000);
                }
                is_settled &= !is_filling && peer.told == peer.written && peer.read == peer.given;
            }
            if is_settled {
                return;
            }
            turns += 1;
            assert!(turns < 20_000, "it settles");
        }
    }
}

pub(super) fn keeps_every_byte_in_any_order<D: Driver>(it: Loop<D>) {
    let mut chaos = Chaos { it, rng: Rng::new(7), peers: Vec::new(), next_salt: 0 };
    for token in 0..TOKENS as Token {
        let peer = chaos.connect(token);
        chaos.peers.push(peer);
    }
    for step in 0..STEPS {
        chaos.step();
        if step % 500 == 499 {
            chaos.settle();
        }
    }
    chaos.settle();
}
