//! Requests mean the same however they are cut into pieces, and a parser holds no more than it was
//! given.

use hypercache_protocol::parse::{
    Args, LINE_MAX, Limits, OwnedArgs, Parser, ProtocolError, Range, Step,
};
use hypercache_stdx::rng::Rng;

/// The commands of a stream, and the error that ended it.
type Parsed = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// How many bytes a parser may hold for every byte given, and how many before the first. An inline
/// word of one letter is the worst: a shared buffer, a vector, and a place in two lists.
const HELD_PER_BYTE_MAX: usize = 128;
const HELD_AT_ONCE_MAX: usize = 4096;

/// Arguments at least this long are received apart, as the server does with much longer ones.
const APART_MIN: usize = 24;

/// The first byte says under which limits, the second how the rest is cut into pieces.
///
/// # Panics
/// When pieces and whole give different commands or errors, or the parser holds too much.
pub fn resp_parser(input: &[u8]) {
    let Some((&[options, cut], stream)) = input.split_first_chunk() else { return };
    if stream.len() > LINE_MAX {
        // A longer line may be refused or not, depending on how much of it arrived at once.
        return;
    }
    let limits = Limits {
        bulk_bytes_max: if options & 1 == 0 { 512 << 20 } else { 64 },
        args_max: if options & 2 == 0 { i32::MAX as usize } else { 32 },
        authenticated: options & 4 == 0,
    };
    let receives_apart = options & 8 != 0;
    let whole = parse_whole(stream, &limits);
    let pieces = Reader::new(limits, receives_apart).read(stream, cut);
    assert_eq!(whole, pieces, "whole and in pieces");
}

fn parse_whole(stream: &[u8], limits: &Limits) -> Parsed {
    let mut parser = Parser::default();
    let mut commands = Vec::new();
    loop {
        let mut args = Vec::new();
        parser.owned.clear();
        let step = parser.next(stream, &mut args, limits);
        check_held(&parser, &args, stream.len());
        match step {
            Step::Command => commands.push(collect(Args::new(stream, &args, &parser.owned))),
            Step::Incomplete => return (commands, None),
            Step::Error(error) => return (commands, Some(error)),
        }
    }
}

/// A command's arguments, which survive being kept for later.
fn collect(args: Args<'_>) -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
    let kept = OwnedArgs::copy_of(args);
    assert!(kept.as_args().iter().eq(all.iter().map(Vec::as_slice)), "a copy is the same");
    assert!(!all.is_empty(), "a command has a name");
    all
}

fn check_held(parser: &Parser, args: &Vec<Range>, given: usize) {
    let words = parser.owned.iter().map(|word| word.capacity() + 48).sum::<usize>();
    let lists = args.capacity() * size_of::<Range>() + parser.owned.capacity() * size_of::<usize>();
    let most = given * HELD_PER_BYTE_MAX + HELD_AT_ONCE_MAX;
    assert!(words + lists <= most, "{given} bytes made the parser hold {}", words + lists);
}

/// Reads a stream piece by piece as a connection does: what was executed leaves the buffer.
struct Reader {
    limits: Limits,
    receives_apart: bool,
    parser: Parser,
    buffer: Vec<u8>,
    args: Vec<Range>,
    commands: Vec<Vec<Vec<u8>>>,
    given: usize,
}

impl Reader {
    fn new(limits: Limits, receives_apart: bool) -> Self {
        Reader {
            limits,
            receives_apart,
            parser: Parser::default(),
            buffer: Vec::new(),
            args: Vec::new(),
            commands: Vec::new(),
            given: 0,
        }
    }

    fn read(mut self, stream: &[u8], cut: u8) -> Parsed {
        let mut rng = Rng::new(u64::from(cut));
        let piece_max = 1 << (cut % 9);
        let mut rest = stream;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + rng.below(piece_max) as usize).min(rest.len()));
            rest = after;
            self.buffer.extend_from_slice(piece);
            self.given += piece.len();
            if let Some(error) = self.advance() {
                return (self.commands, Some(error));
            }
            rest = self.receive_apart(rest);
            if let Some(error) = self.advance() {
                return (self.commands, Some(error));
            }
        }
        (self.commands, None)
    }

    /// Takes all complete commands from the buffer, then moves what is left to its front.
    fn advance(&mut self) -> Option<ProtocolError> {
        loop {
            let step = self.parser.next(&self.buffer, &mut self.args, &self.limits);
            check_held(&self.parser, &self.args, self.given);
            match step {
                Step::Command => self.take_command(),
                Step::Incomplete => return None,
                Step::Error(error) => return Some(error),
            }
        }
    }

    fn take_command(&mut self) {
        let args = Args::new(&self.buffer, &self.args, &self.parser.owned);
        self.commands.push(collect(args));
        self.args.clear();
        self.parser.owned.clear();
        self.buffer.drain(..self.parser.position);
        self.parser.position = 0;
    }

    /// Receives an argument that is to come into a buffer of its own, if all of it does come.
    fn receive_apart<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some(len) = self.parser.awaits_bulk(APART_MIN) else { return rest };
        let at = self.parser.position;
        let missing = len + 2 - (self.buffer.len() - at);
        if !self.receives_apart || missing > rest.len() {
            return rest;
        }
        let mut value = self.buffer.split_off(at);
        value.extend_from_slice(&rest[..missing]);
        value.truncate(len);
        self.given += missing;
        if self.parser.supply_bulk(value, &mut self.args) {
            self.take_command();
        }
        &rest[missing..]
    }
}
