//! memcached's text protocol to borrowed arguments. Hot path.
//!
//! [`next`] reads one request at a time: the words of its line, and after those of a storage command
//! the block of data as one argument more. As with RESP nothing is copied, progress is kept in a
//! [`Parser`], and a large block can be received straight into a buffer of its own.
//!
//! Which bytes are data hangs on the line, so a storage command's line is checked here. If it is
//! wrong, memcached takes the next line for a command; only where it knows how long the block was
//! meant to be does it skip it. A client that sends a block that is too large must send all of it,
//! but none of it is kept: see [`Parser::is_skipping`].

pub mod number;
pub mod reply;

use crate::parse::{Parser, Range};
use number::{parse_i64, parse_u32, parse_u64};

/// Longest key, in bytes.
pub const KEY_MAX: usize = 250;
/// A line that is longer and not complete ends the connection, unless it asks for many keys.
const LINE_MAX: usize = 2048;
/// Most words of the line of a meta command.
const META_WORDS_MAX: usize = 19;
/// Longest block, in bytes: a length that does not fit 32 bits with the line end is none.
const BLOCK_MAX: i64 = i32::MAX as i64 - 2;

/// States of [`Parser::args_left`] here.
const IN_LINE: u32 = 0;
const IN_BLOCK: u32 = 1;

/// What [`next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request: its words and its block, if it has one, are the last arguments of the list.
    Command,
    /// A request that must be answered with an error. Its words are the last arguments.
    Refused(Refusal),
    /// The rest is still to come.
    Incomplete,
    /// A line without end.
    TooLong,
}

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No command, or one with another number of words.
    Unknown,
    /// A key or number that is none.
    Line,
    /// A block that does not end where it should.
    Block,
    /// A value above the limit.
    TooLarge,
    /// A meta command with too many flags.
    Flags,
}

impl Refusal {
    /// The line that says so, without its end.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Unknown => "ERROR",
            Refusal::Line => "CLIENT_ERROR bad command line format",
            Refusal::Block => "CLIENT_ERROR bad data chunk",
            Refusal::TooLarge => "SERVER_ERROR object too large for cache",
            Refusal::Flags => "CLIENT_ERROR options flags too long",
        }
    }
}

/// What follows a line.
enum Follows {
    /// The next line.
    Nothing,
    /// A block of that many bytes.
    Block(u32),
    /// A block that is not wanted.
    Skipped(u32, Refusal),
    /// The next line, after an error.
    Refused(Refusal),
}

/// Offset of the first byte from `at` on that is a space or a control character, or the length.
#[inline]
fn word_end(buffer: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    while let Some(chunk) = buffer.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The lowest bit found is right; those above it may not be.
        let found = word.wrapping_sub(0x21 * ONES) & !word & (0x80 * ONES);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while buffer.get(at).is_some_and(|&byte| byte > b' ') {
        at += 1;
    }
    at
}

/// Reads on in `buffer` from the parser's position. The arguments of this request are those of
/// `args` from number `first` on. Values may be up to `value_max` bytes long.
#[inline]
pub fn next(
    parser: &mut Parser,
    buffer: &[u8],
    args: &mut Vec<Range>,
    first: usize,
    value_max: usize,
) -> Step {
    if parser.args_left == IN_LINE && parser.to_skip == 0 {
        if !read_line(parser, buffer, args) {
            return unfinished(parser, buffer, &args[first..]);
        }
        let has_control = std::mem::take(&mut parser.has_control);
        let follows = match follows(buffer, &args[first..], value_max) {
            Follows::Nothing if has_control => Follows::Refused(Refusal::Line),
            Follows::Block(len) if has_control => Follows::Skipped(len, Refusal::Line),
            other => other,
        };
        match follows {
            Follows::Nothing => return Step::Command,
            Follows::Refused(refusal) => return Step::Refused(refusal),
            Follows::Block(len) => {
                parser.args_left = IN_BLOCK;
                parser.bulk_len = Some(len);
            }
            Follows::Skipped(len, refusal) => {
                parser.to_skip = len + 2;
                parser.has_control = refusal == Refusal::Line;
            }
        }
    }
    if parser.to_skip > 0 { skip(parser, buffer) } else { block(parser, buffer, args) }
}

/// Reads the words of a line. Returns whether its end is there.
#[inline]
fn read_line(parser: &mut Parser, buffer: &[u8], args: &mut Vec<Range>) -> bool {
    let mut at = parser.position;
    loop {
        let mut end = word_end(buffer, at);
        // A control character within a word belongs to it.
        let after = loop {
            match buffer.get(end) {
                Some(b' ') => break Some((end + 1, false)),
                Some(b'\n') => break Some((end + 1, true)),
                Some(b'\r') if buffer.get(end + 1) == Some(&b'\n') => break Some((end + 2, true)),
                Some(b'\r') if end + 1 == buffer.len() => break None,
                None => break None,
                Some(_) => {
                    parser.has_control = true;
                    end = word_end(buffer, end + 1);
                }
            }
        };
        let Some((next, is_last)) = after else {
            parser.position = at;
            return false;
        };
        if end > at {
            args.push(Range::new(at, end));
        }
        at = next;
        if is_last {
            parser.position = at;
            return true;
        }
    }
}

/// A line whose end is not there: it may be too long to wait for it.
#[cold]
fn unfinished(parser: &Parser, buffer: &[u8], words: &[Range]) -> Step {
    let start = words.first().map_or(parser.position, |word| word.start());
    let asks_for_many = |name| [&b"get"[..], b"gets"].contains(&name);
    let is_list = words.first().is_some_and(|word| asks_for_many(word.of(buffer)));
    let is_long = buffer.len() - start > LINE_MAX;
    let is_long_word = buffer.len() - parser.position > LINE_MAX;
    if is_long && !is_list || is_long_word { Step::TooLong } else { Step::Incomplete }
}

/// What follows the line with these words.
#[inline]
fn follows(buffer: &[u8], words: &[Range], value_max: usize) -> Follows {
    let Some(name) = words.first() else { return Follows::Refused(Refusal::Unknown) };
    match name.of(buffer) {
        b"get" | b"gets" | b"mg" => Follows::Nothing,
        b"set" | b"add" | b"replace" | b"append" | b"prepend" => {
            classic(buffer, words, value_max, 5)
        }
        b"cas" => classic(buffer, words, value_max, 6),
        b"ms" => meta(buffer, words, value_max),
        _ => Follows::Nothing,
    }
}

/// `name key flags exptime bytes [cas] [noreply]`, of `count` words without the last.
#[inline]
fn classic(buffer: &[u8], words: &[Range], value_max: usize, count: usize) -> Follows {
    if words.len() != count && words.len() != count + 1 {
        return Follows::Refused(Refusal::Unknown);
    }
    let word = |i: usize| words[i].of(buffer);
    let is_valid = word(1).len() <= KEY_MAX
        && parse_u32(word(2)).is_some()
        && parse_i64(word(3)).is_some()
        && (count == 5 || parse_u64(word(5)).is_some());
    match parse_i64(word(4)) {
        Some(len @ 0..=BLOCK_MAX) if is_valid => block_of(len as u32, value_max),
        _ => Follows::Refused(Refusal::Line),
    }
}

/// `ms key bytes flag...`
fn meta(buffer: &[u8], words: &[Range], value_max: usize) -> Follows {
    let [_, key, rest @ ..] = words else { return Follows::Refused(Refusal::Unknown) };
    if words.len() > META_WORDS_MAX && key.of(buffer).len() <= KEY_MAX {
        return Follows::Refused(Refusal::Flags);
    }
    let len = rest.first().and_then(|len| parse_i64(len.of(buffer)));
    match len {
        Some(len @ 0..=BLOCK_MAX) if key.of(buffer).len() <= KEY_MAX => {
            block_of(len as u32, value_max)
        }
        _ => Follows::Refused(Refusal::Line),
    }
}

#[inline]
fn block_of(len: u32, value_max: usize) -> Follows {
    if len as usize > value_max {
        return Follows::Skipped(len, Refusal::TooLarge);
    }
    Follows::Block(len)
}

/// Takes the block that is due as an argument.
#[inline]
fn block(parser: &mut Parser, buffer: &[u8], args: &mut Vec<Range>) -> Step {
    let start = parser.position;
    let end = start + parser.bulk_len.unwrap_or_default() as usize;
    let Some(line_end) = buffer.get(end..end + 2) else { return Step::Incomplete };
    parser.position = end + 2;
    parser.bulk_len = None;
    parser.args_left = IN_LINE;
    if line_end != b"\r\n" {
        return Step::Refused(Refusal::Block);
    }
    args.push(Range::new(start, end));
    Step::Command
}

/// Skips what is there of a block that is not wanted.
#[cold]
fn skip(parser: &mut Parser, buffer: &[u8]) -> Step {
    let there = buffer.len() - parser.position;
    if there < parser.to_skip as usize {
        parser.to_skip -= there as u32;
        return Step::Incomplete;
    }
    parser.position += parser.to_skip as usize;
    parser.to_skip = 0;
    let is_bad_line = std::mem::take(&mut parser.has_control);
    Step::Refused(if is_bad_line { Refusal::Line } else { Refusal::TooLarge })
}

/// Writes a request out again: its words, and its block if it has one.
#[must_use]
pub fn in_one_piece(words: &[&[u8]], block: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = words.join(&b' ');
    bytes.extend_from_slice(b"\r\n");
    if let Some(block) = block {
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Whether the last argument of a request of this name is a block.
#[must_use]
pub fn has_block(name: &[u8]) -> bool {
    matches!(name, b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" | b"ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Args;

    /// What a stream holds: words joined by `|`, and errors in brackets.
    fn read_all(stream: &[u8]) -> Vec<String> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        loop {
            let mut args = Vec::new();
            let step = next(&mut parser, stream, &mut args, 0, 100);
            let words = Args::new(stream, &args, &[]);
            let words: Vec<_> = words.iter().map(|w| w.escape_ascii().to_string()).collect();
            match step {
                Step::Command => found.push(words.join("|")),
                Step::Refused(refusal) => found.push(format!("[{}]", refusal.text())),
                Step::Incomplete => return found,
                Step::TooLong => {
                    found.push("closed".into());
                    return found;
                }
            }
        }
    }

    #[test]
    fn lines_and_blocks() {
        let cases: &[(&str, &[&str])] = &[
            ("get a\r\nget  bb   c \n", &["get|a", "get|bb|c"]),
            ("\r\n", &["[ERROR]"]),
            ("get a\r", &[]),
            ("set k 1 2 3\r\na\nb\r\nget k\r\n", &["set|k|1|2|3|a\\nb", "get|k"]),
            ("set k 1 2 0 noreply\r\n\r\n", &["set|k|1|2|0|noreply|"]),
            ("set k 1 2 3\r\nabcd\r\n", &["[CLIENT_ERROR bad data chunk]", "[ERROR]"]),
            ("cas k 1 2 1 9\r\na\r\n", &["cas|k|1|2|1|9|a"]),
            ("cas k 1 2 1\r\n", &["[ERROR]"]),
            ("set k 1 2 x\r\nversion\r\n", &["[CLIENT_ERROR bad command line format]", "version"]),
            ("ms k 2 T0\r\nab\r\nmn\r\n", &["ms|k|2|T0|ab", "mn"]),
            ("ms k\r\n", &["[CLIENT_ERROR bad command line format]"]),
            ("get a\tb\r\n", &["[CLIENT_ERROR bad command line format]"]),
            ("set a\tb 0 0 1\r\nx\r\nmn\r\n", &["[CLIENT_ERROR bad command line format]", "mn"]),
        ];
        for (stream, expected) in cases {
            assert_eq!(&read_all(stream.as_bytes()), expected, "{stream:?}");
        }
    }

    #[test]
    fn a_block_that_is_too_large_is_skipped_piece_by_piece() {
        let (mut parser, mut args) = (Parser::default(), Vec::new());
        let mut buffer = b"set k 0 0 101\r\n".to_vec();
        let line = buffer.len();
        for _ in 0..10 {
            buffer.extend_from_slice(&[b'x'; 10]);
            assert_eq!(next(&mut parser, &buffer, &mut args, 0, 100), Step::Incomplete);
            assert!(parser.is_skipping() && parser.position == line);
            buffer.truncate(line);
        }
        buffer.extend_from_slice(b"x\r\nget a\r\n");
        let step = next(&mut parser, &buffer, &mut args, 0, 100);
        assert_eq!(step, Step::Refused(Refusal::TooLarge));
        args.clear();
        assert_eq!(next(&mut parser, &buffer, &mut args, 0, 100), Step::Command);
        assert_eq!(args.len(), 2);
    }

    #[test]
    fn a_line_without_end_is_given_up_unless_it_lists_keys() {
        assert_eq!(read_all(&[b'x'; 2049]), ["closed"]);
        assert!(read_all(&[b'x'; 2048]).is_empty());
        assert!(read_all(&b"get k ".repeat(1000)).is_empty());
        assert_eq!(read_all(&[b"gat 1 ", &b"k "[..].repeat(2000)[..]].concat()), ["closed"]);
    }

    #[test]
    fn words_end_where_they_should() {
        for len in 0..40 {
            let mut text = vec![b'k'; len];
            text.extend_from_slice(b"\xff\x80\x21 rest");
            assert_eq!(word_end(&text, 0), len + 3);
        }
    }
}
