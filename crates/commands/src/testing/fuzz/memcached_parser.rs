//! Requests of memcached clients mean the same however they are cut into pieces.

use hypercache_protocol::memcached::{Refusal, Step, next};
use hypercache_protocol::parse::{Args, Parser, Range};
use hypercache_stdx::rng::Rng;

/// Longest value that is taken.
const VALUE_MAX: usize = 100;
/// Blocks at least this long are received apart, as the server does with much longer ones.
const APART_MIN: usize = 24;
/// A line is given up when more than this of it is there and its end is not, which depends on how
/// it arrives; so no stream is longer.
const STREAM_MAX: usize = 2048;

/// A request: its arguments, and why it is refused.
type Request = (Vec<Vec<u8>>, Option<Refusal>);

/// The first byte says how the rest is cut into pieces, and whether blocks are received apart.
///
/// # Panics
/// When pieces and whole give different requests.
pub fn memcached_parser(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    if stream.len() > STREAM_MAX {
        return;
    }
    let whole = Reader::default().read(stream, |rest| rest.len());
    let mut rng = Rng::new(u64::from(cut));
    let most = 1 << (cut % 9);
    let pieces = Reader { receives_apart: cut & 0x80 != 0, ..Reader::default() };
    let pieces = pieces.read(stream, |_| 1 + rng.below(most) as usize);
    assert_eq!(whole, pieces, "whole and in pieces");
}

/// Reads a stream piece by piece as a connection does: what was executed leaves the buffer.
#[derive(Default)]
struct Reader {
    receives_apart: bool,
    parser: Parser,
    buffer: Vec<u8>,
    args: Vec<Range>,
    requests: Vec<Request>,
}

impl Reader {
    fn read(mut self, stream: &[u8], mut len: impl FnMut(&[u8]) -> usize) -> Vec<Request> {
        let mut rest = stream;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(len(rest).min(rest.len()));
            self.buffer.extend_from_slice(piece);
            self.advance();
            rest = self.receive_apart(after);
            self.advance();
        }
        self.requests
    }

    /// Takes all complete requests from the buffer, then drops what is not wanted.
    fn advance(&mut self) {
        loop {
            let step = next(&mut self.parser, &self.buffer, &mut self.args, 0, VALUE_MAX);
            match step {
                Step::Command => self.take(None),
                Step::Refused(refusal) => self.take(Some(refusal)),
                Step::Incomplete => break,
                Step::TooLong => unreachable!("the stream is too short for that"),
            }
        }
        if self.parser.is_skipping() {
            self.buffer.truncate(self.parser.position);
        }
    }

    fn take(&mut self, refusal: Option<Refusal>) {
        let args = Args::new(&self.buffer, &self.args, &self.parser.owned);
        self.requests.push((args.iter().map(<[u8]>::to_vec).collect(), refusal));
        self.args.clear();
        self.parser.owned.clear();
        self.buffer.drain(..self.parser.position);
        self.parser.position = 0;
    }

    /// Receives a block that is to come into a buffer of its own, if all of it does come.
    fn receive_apart<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some(len) = self.parser.awaits_bulk(APART_MIN) else { return rest };
        let at = self.parser.position;
        let missing = len + 2 - (self.buffer.len() - at);
        if !self.receives_apart || missing > rest.len() {
            return rest;
        }
        let mut value = self.buffer.split_off(at);
        value.extend_from_slice(&rest[..missing]);
        let ends_well = value.ends_with(b"\r\n");
        value.truncate(len);
        self.parser.supply_bulk(value, &mut self.args);
        if ends_well {
            self.take(None);
        } else {
            // In one buffer such a block is no argument.
            self.args.pop();
            self.take(Some(Refusal::Block));
        }
        &rest[missing..]
    }
}
