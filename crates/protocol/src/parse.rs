//! Requests to borrowed arguments. Hot path.
//!
//! [`Parser::next`] reads one command at a time from a buffer and yields its arguments as ranges of
//! that buffer: nothing is copied and nothing allocated. A command that is not all there leaves its
//! progress in the parser, so that a request of a million arguments arriving in small pieces is
//! looked at once, not once per piece.
//!
//! Two kinds of argument do not live in the buffer and are shared buffers of their own: bulk
//! strings so large that they were received straight into one, and inline arguments that had to be
//! unquoted.

use std::sync::Arc;

/// Longest request line: inline command, or a count of arguments or bytes. In bytes.
pub const LINE_MAX: usize = 64 * 1024;

/// What a connection may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest bulk string, `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// Most arguments of one command.
    pub args_max: usize,
    /// Before authentication Redis allows 10 arguments of 16 KiB.
    pub authenticated: bool,
}

/// Where an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset in the buffer, or [`Range::OWNED`].
    start: u32,
    /// Length, or for an owned argument its index.
    len: u32,
}

impl Range {
    const OWNED: u32 = u32::MAX;

    /// The bytes from `start` to `end` of the buffer.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Range { start: start as u32, len: (end - start) as u32 }
    }

    /// Its bytes in the buffer.
    #[inline]
    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }

    /// Where it begins in the buffer.
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    fn owned(index: usize) -> Self {
        Range { start: Self::OWNED, len: index as u32 }
    }

    /// The same bytes in a buffer that begins `by` bytes later.
    #[must_use]
    pub fn shifted_back(self, by: usize) -> Self {
        if self.start == Self::OWNED {
            return self;
        }
        Range { start: self.start - by as u32, len: self.len }
    }
}

/// The arguments of one command, the command's name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    base: &'a [u8],
    ranges: &'a [Range],
    owned: &'a [Arc<Vec<u8>>],
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

impl<'a> Args<'a> {
    /// Arguments that lie in `base` and `owned`.
    #[inline]
    #[must_use]
    pub fn new(base: &'a [u8], ranges: &'a [Range], owned: &'a [Arc<Vec<u8>>]) -> Self {
        Args { base, ranges, owned }
    }

    /// How many, the name included.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Argument `i`; the name is number 0.
    ///
    /// # Panics
    /// When there is no such argument, as with a slice.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> &'a [u8] {
        let range = self.ranges[i];
        if range.start == Range::OWNED {
            return &self.owned[range.len as usize];
        }
        &self.base[range.start as usize..][..range.len as usize]
    }

    /// The eight bytes from the start of the name on, whatever of them belongs to it, as a
    /// little-endian word, and the name's length; if the name lies in the buffer and that goes on as
    /// far. One load whatever the length.
    #[inline]
    #[must_use]
    pub fn name_word(&self) -> Option<(u64, u32)> {
        let Range { start, len } = *self.ranges.first()?;
        Some((word_at(self.base, start)?, len))
    }

    /// Argument `i` as a shared buffer, if it has one of its own.
    #[inline]
    #[must_use]
    pub fn shared(&self, i: usize) -> Option<&'a Arc<Vec<u8>>> {
        let range = self.ranges[i];
        (range.start == Range::OWNED).then(|| &self.owned[range.len as usize])
    }

    /// All arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |i| this.get(i))
    }

    /// The command that begins at argument `from`.
    ///
    /// # Panics
    /// When there are fewer arguments.
    #[must_use]
    pub fn tail(self, from: usize) -> Self {
        Args { ranges: &self.ranges[from..], ..self }
    }

    /// The arguments from number `from` on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().skip(from)
    }
}

/// Arguments that own their bytes: a command kept for later, as in MULTI.
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    ranges: Vec<Range>,
    owned: Vec<Arc<Vec<u8>>>,
}

impl OwnedArgs {
    /// A copy of `args`; large shared arguments are shared on.
    #[must_use]
    pub fn copy_of(args: Args<'_>) -> Self {
        let mut copy = OwnedArgs::default();
        for i in 0..args.len() {
            match args.shared(i) {
                Some(shared) => {
                    copy.ranges.push(Range::owned(copy.owned.len()));
                    copy.owned.push(Arc::clone(shared));
                }
                None => copy.push(args.get(i)),
            }
        }
        copy
    }

    /// Forgets all arguments and keeps their memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
        self.owned.clear();
    }

    /// Adds an argument.
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.ranges.push(Range { start, len: bytes.len() as u32 });
    }

    /// Arguments from separate pieces.
    pub fn from_pieces<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let mut args = OwnedArgs::default();
        pieces.into_iter().for_each(|piece| args.push(piece.as_ref()));
        args
    }

    /// The arguments, borrowed.
    #[must_use]
    pub fn as_args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges, &self.owned)
    }

    /// Bytes that this takes.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.bytes.capacity()
            + self.ranges.capacity() * size_of::<Range>()
            + self.owned.iter().map(|o| o.len()).sum::<usize>()
    }
}

/// A request that no server could understand. The connection is closed after the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` with a count that is no number or too large.
    MultibulkLength,
    /// More arguments than a client may send before it authenticated.
    UnauthenticatedMultibulkLength,
    /// `$` with a length that is no number, negative or too large.
    BulkLength,
    /// A longer argument than a client may send before it authenticated.
    UnauthenticatedBulkLength,
    /// Something else where `$` must stand.
    ExpectedDollar(u8),
    /// A count line without end.
    CountLine,
    /// A length line without end.
    LengthLine,
    /// An inline command without end.
    InlineTooLong,
    /// An inline command whose quotes do not close.
    UnbalancedQuotes,
}

impl ProtocolError {
    /// The text after `ERR Protocol error: `.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::MultibulkLength => "invalid multibulk length".into(),
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length".into(),
            Self::BulkLength => "invalid bulk length".into(),
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length".into(),
            Self::ExpectedDollar(got) => format!("expected '$', got '{}'", printable(got)),
            Self::CountLine => "too big mbulk count string".into(),
            Self::LengthLine => "too big bulk count string".into(),
            Self::InlineTooLong => "too big inline request".into(),
            Self::UnbalancedQuotes => "unbalanced quotes in request".into(),
        }
    }
}

fn printable(byte: u8) -> char {
    if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') { byte as char } else { ' ' }
}

/// What [`Parser::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command: its arguments are the last ones of the list given.
    Command,
    /// The rest is still to come.
    Incomplete,
    /// Not a request.
    Error(ProtocolError),
}

/// Progress within one connection's stream of requests. The default stands between two commands.
#[derive(Debug, Default)]
pub struct Parser {
    /// Offset in the buffer up to which all is understood.
    pub position: usize,
    /// Arguments of the current command that are still to come; 0 between commands.
    pub(crate) args_left: u32,
    /// Length of the argument whose bytes come next, if its header was read.
    pub(crate) bulk_len: Option<u32>,
    /// Bytes to skip; see [`crate::memcached`].
    pub(crate) to_skip: u32,
    /// See [`crate::memcached`].
    pub(crate) has_control: bool,
    /// Arguments of the current command that live outside the buffer.
    pub owned: Vec<Arc<Vec<u8>>>,
}

impl Parser {
    /// Whether a command has begun and is not complete.
    #[must_use]
    pub fn is_inside_command(&self) -> bool {
        self.args_left > 0
    }

    /// Whether the bytes after [`Self::position`] are not wanted: they may be dropped, and the next
    /// ones follow there.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.to_skip > 0
    }

    /// When the next thing to come is a bulk string of at least `min` bytes: its length.
    #[must_use]
    pub fn awaits_bulk(&self, min: usize) -> Option<usize> {
        self.bulk_len.map(|len| len as usize).filter(|&len| len >= min)
    }

    /// Hands in the awaited bulk string, received elsewhere (without its line end), as the next
    /// argument. Returns whether it was the last one.
    pub fn supply_bulk(&mut self, value: Vec<u8>, args: &mut Vec<Range>) -> bool {
        debug_assert_eq!(self.bulk_len, Some(value.len() as u32));
        args.push(Range::owned(self.owned.len()));
        self.owned.push(Arc::new(value));
        self.bulk_len = None;
        self.args_left -= 1;
        self.args_left == 0
    }

    /// Reads on in `buffer` from [`Self::position`], appending the arguments it passes to `args`.
    #[inline]
    pub fn next(&mut self, buffer: &[u8], args: &mut Vec<Range>, limits: &Limits) -> Step {
        if self.args_left == 0
            && let Some(end) = short_command(buffer, self.position as u32, args, limits)
        {
            self.position = end as usize;
            return Step::Command;
        }
        self.next_any(buffer, args, limits)
    }

    fn next_any(&mut self, buffer: &[u8], args: &mut Vec<Range>, limits: &Limits) -> Step {
        loop {
            if self.args_left > 0 {
                return self.bulks(buffer, args, limits);
            }
            let Some(&first) = buffer.get(self.position) else { return Step::Incomplete };
            if first != b'*' {
                match self.inline(buffer, args) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            let (count, after) = match line_number(buffer, self.position + 1) {
                Line::Number(count, after) => (count, after),
                Line::Incomplete if buffer.len() - self.position > LINE_MAX => {
                    return Step::Error(ProtocolError::CountLine);
                }
                Line::Incomplete => return Step::Incomplete,
                Line::Bad => return Step::Error(ProtocolError::MultibulkLength),
            };
            if count > limits.args_max as i64 {
                return Step::Error(ProtocolError::MultibulkLength);
            }
            if count > 10 && !limits.authenticated {
                return Step::Error(ProtocolError::UnauthenticatedMultibulkLength);
            }
            self.position = after;
            // A count of zero or less is a command of nothing, which is skipped.
            self.args_left = count.max(0) as u32;
        }
    }

    fn bulks(&mut self, buffer: &[u8], args: &mut Vec<Range>, limits: &Limits) -> Step {
        if self.bulk_len.is_none() {
            self.short_bulks(buffer, args, limits);
        }
        if self.args_left == 0 { Step::Command } else { self.any_bulks(buffer, args, limits) }
    }

    /// Reads arguments below 1000 bytes that are all there, the usual case; stops at any other.
    fn short_bulks(&mut self, buffer: &[u8], args: &mut Vec<Range>, limits: &Limits) {
        while self.args_left > 0 {
            let at = self.position as u32;
            let Some((arg, end)) = short_bulk(buffer, at, limits) else { return };
            args.push(arg);
            self.position = end as usize;
            self.args_left -= 1;
        }
    }

    fn any_bulks(&mut self, buffer: &[u8], args: &mut Vec<Range>, limits: &Limits) -> Step {
        while self.args_left > 0 {
            let len = match self.bulk_len {
                Some(len) => len as usize,
                None => match self.bulk_header(buffer, limits) {
                    Ok(Some(len)) => len,
                    Ok(None) => return Step::Incomplete,
                    Err(error) => return Step::Error(error),
                },
            };
            let end = self.position + len;
            if buffer.len() < end + 2 {
                self.bulk_len = Some(len as u32);
                return Step::Incomplete;
            }
            args.push(Range { start: self.position as u32, len: len as u32 });
            self.position = end + 2;
            self.bulk_len = None;
            self.args_left -= 1;
        }
        Step::Command
    }

    fn bulk_header(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some(&first) = buffer.get(self.position) else { return Ok(None) };
        if first != b'$' {
            return self.not_a_bulk(buffer, first);
        }
        let (len, after) = match line_number(buffer, self.position + 1) {
            Line::Number(len, after) => (len, after),
            Line::Incomplete if buffer.len() - self.position > LINE_MAX => {
                return Err(ProtocolError::LengthLine);
            }
            Line::Incomplete => return Ok(None),
            Line::Bad => return Err(ProtocolError::BulkLength),
        };
        if len < 0 || len > limits.bulk_bytes_max as i64 {
            return Err(ProtocolError::BulkLength);
        }
        if len > 16 * 1024 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.position = after;
        Ok(Some(len as usize))
    }

    /// Redis complains about the byte only once the line is there.
    #[cold]
    fn not_a_bulk(&self, buffer: &[u8], first: u8) -> Result<Option<usize>, ProtocolError> {
        let line = &buffer[self.position..];
        match memchr::memchr(b'\r', line) {
            Some(at) if at + 1 < line.len() => Err(ProtocolError::ExpectedDollar(first)),
            _ if line.len() > LINE_MAX => Err(ProtocolError::LengthLine),
            _ => Ok(None),
        }
    }

    /// Reads an inline command. `None` when the line was empty and the next one should be read.
    #[cold]
    fn inline(&mut self, buffer: &[u8], args: &mut Vec<Range>) -> Option<Step> {
        let rest = &buffer[self.position..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            let too_long = rest.len() > LINE_MAX;
            let step = Step::Error(ProtocolError::InlineTooLong);
            return Some(if too_long { step } else { Step::Incomplete });
        };
        self.position += end + 1;
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(words) = split_words(line) else {
            return Some(Step::Error(ProtocolError::UnbalancedQuotes));
        };
        if words.is_empty() {
            return None;
        }
        for word in words {
            args.push(Range::owned(self.owned.len()));
            self.owned.push(Arc::new(word));
        }
        Some(Step::Command)
    }
}

/// Reads a command of two or three short arguments that is all there, as `GET key` and
/// `SET key value`: what nearly all requests are. Returns where it ends; with `None` nothing is read.
#[inline(always)]
fn short_command(buffer: &[u8], at: u32, args: &mut Vec<Range>, limits: &Limits) -> Option<u32> {
    // Both head lines are one word: `*2`, `$3`, each with its line end.
    const HEAD: u64 = u64::from_le_bytes(*b"*\0\r\n$\0\r\n");
    const IN_HEAD: u64 = 0xffff_00ff_ffff_00ff;
    let word = word_at(buffer, at)?;
    let name_len = digit(word, 5);
    if word & IN_HEAD != HEAD || name_len > 9 {
        return None;
    }
    let name = Range { start: at + 8, len: name_len };
    let (key, end) = short_bulk(buffer, at + 8 + name_len + 2, limits)?;
    let (value, end) = match digit(word, 1) {
        2 => (None, end),
        3 => short_bulk(buffer, end, limits).map(|(value, end)| (Some(value), end))?,
        _ => return None,
    };
    args.extend_from_slice(&[name, key]);
    if let Some(value) = value {
        args.push(value);
    }
    Some(end)
}

/// A bulk string below 1000 bytes at `at`, if it is all there, and where it ends.
#[inline(always)]
fn short_bulk(buffer: &[u8], at: u32, limits: &Limits) -> Option<(Range, u32)> {
    let (header, len) = short_bulk_header(word_at(buffer, at)?)?;
    let start = at + header;
    let end = start + len + 2;
    let is_there = end as usize <= buffer.len() && len as usize <= limits.bulk_bytes_max;
    is_there.then_some((Range { start, len }, end))
}

/// Eight bytes as a little-endian word.
#[inline(always)]
fn word_at(buffer: &[u8], at: u32) -> Option<u64> {
    let bytes = buffer.get(at as usize..at as usize + 8)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Bytes of the header that `word` begins with, and the length it tells, of a bulk string below
/// 1000 bytes.
#[inline(always)]
fn short_bulk_header(word: u64) -> Option<(u32, u32)> {
    const ONE_DIGIT: u64 = u64::from_le_bytes(*b"$\0\r\n\0\0\0\0");
    const TWO_DIGITS: u64 = u64::from_le_bytes(*b"$\0\0\r\n\0\0\0");
    const THREE_DIGITS: u64 = u64::from_le_bytes(*b"$\0\0\0\r\n\0\0");
    let (first, second) = (digit(word, 1), digit(word, 2));
    if word & 0xff_ff00_00ff == TWO_DIGITS {
        let is_number = first.wrapping_sub(1) <= 8 && second <= 9;
        return is_number.then_some((5, first.wrapping_mul(10).wrapping_add(second)));
    }
    if word & 0xffff_00ff == ONE_DIGIT {
        return (first <= 9).then_some((4, first));
    }
    let third = digit(word, 3);
    let is_number = first.wrapping_sub(1) <= 8 && second <= 9 && third <= 9;
    let is_header = word & 0xffff_0000_00ff == THREE_DIGITS && is_number;
    is_header.then(|| (6, first * 100 + second * 10 + third))
}

/// The digit that is byte `i` of a word; above 9 if it is none.
#[inline(always)]
fn digit(word: u64, i: u32) -> u32 {
    u32::from((word >> (8 * i)) as u8).wrapping_sub(u32::from(b'0'))
}

enum Line {
    Number(i64, usize),
    Incomplete,
    Bad,
}

/// Reads the decimal number of the line at `start`; the position after it skips the line end.
#[inline]
fn line_number(buffer: &[u8], start: usize) -> Line {
    let mut value = 0i64;
    let mut at = start;
    // Numbers of up to nine digits without sign or leading zero: all that clients send.
    while let Some(&byte) = buffer.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || at - start == 9 {
            break;
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    let is_plain = at > start && (buffer[start] != b'0' || at == start + 1);
    if is_plain && buffer.get(at) == Some(&b'\r') && buffer.len() > at + 1 {
        return Line::Number(value, at + 2);
    }
    line_number_slow(buffer, start)
}

#[cold]
fn line_number_slow(buffer: &[u8], start: usize) -> Line {
    let line = &buffer[start..];
    let Some(end) = memchr::memchr(b'\r', line).filter(|end| end + 1 < line.len()) else {
        return Line::Incomplete;
    };
    match canonical_i64(&line[..end]) {
        Some(number) => Line::Number(number, start + end + 2),
        None => Line::Bad,
    }
}

fn canonical_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let leads_with_zero = digits.first() == Some(&b'0') && text != b"0";
    if leads_with_zero || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Splits a line into words by the quoting rules of Redis' command line: double quotes with
/// `\n \r \t \b \a \xHH` escapes, single quotes with `\'`; a closing quote must be followed by a
/// space or the end. `None` when a quote does not close.
#[must_use]
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|b| !is_space(*b));
        let Some(start) = start else { return Some(words) };
        let (word, after) = split_word(&rest[start..])?;
        words.push(word);
        rest = after;
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn split_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            // A zero byte ends a word, as it ends a string in C. Not all space does.
            [b' ' | b'\t' | b'\n' | b'\r' | 0, ..] => return Some((word, &rest[1..])),
            [quote @ (b'"' | b'\''), tail @ ..] => {
                let after = unquote(*quote, tail, &mut word)?;
                let closed_well = after.first().is_none_or(|b| is_space(*b));
                return closed_well.then_some((word, after));
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Copies up to the closing quote into `word` and returns what follows it.
fn unquote<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\\', b'x', high, low, tail @ ..] if quote == b'"' && is_hex(*high, *low) => {
                word.push(hex(*high) << 4 | hex(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] if *byte == quote => return Some(tail),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn is_hex(high: u8, low: u8) -> bool {
    high.is_ascii_hexdigit() && low.is_ascii_hexdigit()
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { bulk_bytes_max: 512 << 20, args_max: 1 << 20, authenticated: true };

    type Commands = Vec<Vec<Vec<u8>>>;

    /// Feeds the pieces one after the other, as a connection does, and collects the commands.
    fn parse_pieces(pieces: &[&[u8]]) -> Result<Commands, ProtocolError> {
        let (mut parser, mut buffer, mut args) = (Parser::default(), Vec::new(), Vec::new());
        let mut commands = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&buffer, &mut args, &LIMITS) {
                    Step::Command => {
                        let all = Args::new(&buffer, &args, &parser.owned);
                        commands.push(all.iter().map(<[u8]>::to_vec).collect());
                        args.clear();
                        parser.owned.clear();
                    }
                    Step::Incomplete => break,
                    Step::Error(error) => return Err(error),
                }
            }
        }
        Ok(commands)
    }

    fn check(input: &[u8], expected: &[&[&str]]) {
        let expected: Commands =
            expected.iter().map(|c| c.iter().map(|a| a.as_bytes().to_vec()).collect()).collect();
        assert_eq!(parse_pieces(&[input]).as_ref(), Ok(&expected));
        for cut in 0..input.len() {
            let (a, b) = input.split_at(cut);
            assert_eq!(parse_pieces(&[a, b]).as_ref(), Ok(&expected), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(parse_pieces(&bytes).as_ref(), Ok(&expected));
    }

    #[test]
    fn multibulk_pipelined_and_cut_anywhere() {
        check(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n", &[&["GET", "a"], &["PING"]]);
        check(b"*0\r\n*-1\r\n*1\r\n$0\r\n\r\n", &[&[""]]);
        check(b"\r\n\r\n*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
    }

    #[test]
    fn lengths_of_one_to_four_digits_at_the_end_and_before_more() {
        for len in [0, 1, 9, 10, 99, 100, 999, 1000] {
            let value = "v".repeat(len);
            let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\n{value}\r\n");
            check(set.as_bytes(), &[&["SET", "k", &value]]);
            let twice = [set.as_bytes(), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"].concat();
            check(&twice, &[&["SET", "k", &value], &["GET", "k"]]);
        }
    }

    #[test]
    fn inline_with_quotes() {
        check(b"set k \"a b\\x41\\n\"\r\n", &[&["set", "k", "a bA\n"]]);
        check(b"  PING  \nECHO 'it\\'s'\n", &[&["PING"], &["ECHO", "it's"]]);
        assert_eq!(parse_pieces(&[b"set k \"a\n"]), Err(ProtocolError::UnbalancedQuotes));
        assert_eq!(parse_pieces(&[b"set k \"a\"b\n"]), Err(ProtocolError::UnbalancedQuotes));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let cases: [(&[u8], ProtocolError); 7] = [
            (b"*a\r\n", ProtocolError::MultibulkLength),
            (b"*10000000000\r\n", ProtocolError::MultibulkLength),
            (b"*1\r\n+PING\r\n", ProtocolError::ExpectedDollar(b'+')),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$1000000000\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$01\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$\r\n", ProtocolError::BulkLength),
        ];
        for (input, error) in cases {
            assert_eq!(parse_pieces(&[input]), Err(error), "{:?}", String::from_utf8_lossy(input));
        }
        let endless = vec![b'a'; LINE_MAX + 1];
        assert_eq!(parse_pieces(&[&endless]), Err(ProtocolError::InlineTooLong));
        let endless = [b"*", &vec![b'1'; LINE_MAX + 1][..]].concat();
        assert_eq!(parse_pieces(&[&endless]), Err(ProtocolError::CountLine));
    }

    #[test]
    fn before_authentication_requests_are_small() {
        let limits = Limits { authenticated: false, ..LIMITS };
        let step = |input: &[u8]| Parser::default().next(input, &mut Vec::new(), &limits);
        let many = Step::Error(ProtocolError::UnauthenticatedMultibulkLength);
        let long = Step::Error(ProtocolError::UnauthenticatedBulkLength);
        assert_eq!(step(b"*11\r\n"), many);
        assert_eq!(step(b"*1\r\n$16385\r\n"), long);
    }

    #[test]
    fn a_large_bulk_can_be_supplied_from_outside() {
        let mut parser = Parser::default();
        let mut args = Vec::new();
        let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxy";
        assert_eq!(parser.next(head, &mut args, &LIMITS), Step::Incomplete);
        assert_eq!(parser.awaits_bulk(65536), Some(100_000));
        assert!(parser.supply_bulk(vec![b'x'; 100_000], &mut args));
        let all = Args::new(head, &args, &parser.owned);
        assert_eq!((all.len(), all.get(1), all.get(2).len()), (3, &b"k"[..], 100_000));
        assert!(all.shared(2).is_some());
        let kept = OwnedArgs::copy_of(all);
        assert_eq!(kept.as_args().get(2).len(), 100_000);
    }
}
