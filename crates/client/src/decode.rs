//! Bytes to replies, a piece at a time.
//!
//! The decoder keeps the aggregates it is inside of on a stack of its own, so that it can stop
//! after any byte and go on later without reading anything twice: decoding costs time linear in
//! the bytes received however they are cut up, and neither deep nesting nor a lying length can
//! exhaust the call stack or the memory. Every bound is in [`Limits`]. After an error the stream
//! has no known position any more, so the decoder repeats that error for ever.

use crate::{Error, Reply, reply::pair_up};

/// Room reserved for an aggregate at once; a longer one grows as its elements really arrive.
const MAX_RESERVED_ITEMS: usize = 1024;
/// Consumed bytes tolerated at the front of the buffer before the rest is moved down.
const COMPACT_AT_BYTES: usize = 64 * 1024;

/// What a server may make the client hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Aggregates nested in one another.
    pub max_depth: usize,
    /// Bytes on the wire of one top-level reply.
    pub max_reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_depth: 128, max_reply_bytes: 1 << 30 }
    }
}

/// The aggregate types, and the attributes that may precede a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

/// An aggregate of which some elements are still to come.
#[derive(Debug)]
struct Frame {
    kind: Aggregate,
    missing: usize,
    items: Vec<Reply>,
}

/// The types that carry a length and then bytes.
#[derive(Clone, Copy, Debug)]
enum Blob {
    Bulk,
    Error,
    Verbatim,
}

/// What one step of the decoder found.
enum Step {
    /// A reply without elements, or an empty aggregate.
    Leaf(Reply),
    /// A header; what it announces comes next.
    Header,
}

/// An incremental decoder of RESP2 and RESP3 replies.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that are decoded already.
    consumed: usize,
    /// Bytes after `consumed` known to hold no line end.
    searched: usize,
    /// A blob whose header is read but whose bytes are not all here.
    blob: Option<(Blob, usize)>,
    stack: Vec<Frame>,
    /// Wire bytes of the current top-level reply taken so far.
    reply_bytes: usize,
    failed: Option<&'static str>,
}

impl Decoder {
    /// A decoder with bounds of the caller's choice.
    pub fn with_limits(limits: Limits) -> Decoder {
        Decoder { limits, ..Decoder::default() }
    }

    /// Adds bytes received. Call [`Decoder::next_reply`] until it returns `None` before adding
    /// more, or the buffer grows past its bound.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        } else if self.consumed >= COMPACT_AT_BYTES {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an unfinished reply are held.
    pub fn is_mid_reply(&self) -> bool {
        self.consumed < self.buffer.len() || !self.stack.is_empty() || self.blob.is_some()
    }

    /// The next complete reply, or `None` if more bytes are needed.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, Error> {
        if let Some(what) = self.failed {
            return Err(Error::Protocol(what));
        }
        let result = self.advance();
        if let Err(what) = result {
            self.failed = Some(what);
        }
        result.map_err(Error::Protocol)
    }

    fn advance(&mut self) -> Result<Option<Reply>, &'static str> {
        while let Some(step) = self.step()? {
            let Step::Leaf(reply) = step else { continue };
            if let Some(whole) = self.deliver(reply) {
                self.reply_bytes = 0;
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    /// Hands a finished reply to the aggregate it belongs to, which may finish that one in turn.
    fn deliver(&mut self, mut reply: Reply) -> Option<Reply> {
        loop {
            let Some(frame) = self.stack.last_mut() else { return Some(reply) };
            frame.items.push(reply);
            frame.missing -= 1;
            if frame.missing > 0 {
                return None;
            }
            let frame = self.stack.pop()?;
            // Attributes only describe the reply that follows; nothing here makes use of them.
            reply = finish(frame.kind, frame.items)?;
        }
    }

    /// Takes one header, line or blob off the buffer.
    fn step(&mut self) -> Result<Option<Step>, &'static str> {
        if let Some((kind, len)) = self.blob {
            return self.take_blob(kind, len);
        }
        let Some(end) = self.find_line_end()? else { return Ok(None) };
        let start = self.consumed;
        self.consume(end + 2 - start)?;
        let kind = *self.buffer.get(start).ok_or("an empty line")?;
        if end == start {
            return Err("an empty line");
        }
        self.decode_line(kind, start + 1, end)
    }

    /// The position of the next CR LF, remembering how far the search got.
    fn find_line_end(&mut self) -> Result<Option<usize>, &'static str> {
        let from = self.consumed + self.searched;
        let Some(offset) = self.buffer[from..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len() - self.consumed;
            self.check_size(self.searched)?;
            return Ok(None);
        };
        self.searched = 0;
        let newline = from + offset;
        if newline == self.consumed || self.buffer[newline - 1] != b'\r' {
            return Err("a line that does not end in CR LF");
        }
        Ok(Some(newline - 1))
    }

    fn check_size(&self, more: usize) -> Result<(), &'static str> {
        if self.reply_bytes.saturating_add(more) > self.limits.max_reply_bytes {
            return Err("a reply longer than the client accepts");
        }
        Ok(())
    }

    fn consume(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.check_size(bytes)?;
        self.reply_bytes += bytes;
        self.consumed += bytes;
        Ok(())
    }

    fn decode_line(
        &mut self,
        kind: u8,
        from: usize,
        to: usize,
    ) -> Result<Option<Step>, &'static str> {
        let text = &self.buffer[from..to];
        let leaf = match kind {
            b'+' => Reply::Simple(text.to_vec()),
            b'-' => Reply::Error(text.to_vec()),
            b':' => Reply::Int(parse_int(text).ok_or("a bad integer")?),
            b'_' if text.is_empty() => Reply::Null,
            b',' => parse_double(text).ok_or("a bad double")?,
            b'#' if text == b"t" => Reply::Bool(true),
            b'#' if text == b"f" => Reply::Bool(false),
            b'(' if is_big_number(text) => Reply::BigNumber(text.to_vec()),
            b'$' => return self.open_blob(Blob::Bulk, from, to),
            b'!' => return self.open_blob(Blob::Error, from, to),
            b'=' => return self.open_blob(Blob::Verbatim, from, to),
            b'*' => return self.open_aggregate(Aggregate::Array, from, to),
            b'%' => return self.open_aggregate(Aggregate::Map, from, to),
            b'~' => return self.open_aggregate(Aggregate::Set, from, to),
            b'>' => return self.open_aggregate(Aggregate::Push, from, to),
            b'|' => return self.open_aggregate(Aggregate::Attribute, from, to),
            b'_' | b'#' | b'(' => return Err("a bad null, boolean or big number"),
            _ => return Err("an unknown type byte"),
        };
        Ok(Some(Step::Leaf(leaf)))
    }

    /// A length, or `None` for the nulls of RESP2.
    fn parse_len(&self, from: usize, to: usize) -> Result<Option<usize>, &'static str> {
        let value = parse_int(&self.buffer[from..to]).ok_or("a bad length")?;
        if value == -1 {
            return Ok(None);
        }
        let len = usize::try_from(value).map_err(|_| "a negative length")?;
        self.check_size(len)?;
        Ok(Some(len))
    }

    fn open_blob(
        &mut self,
        kind: Blob,
        from: usize,
        to: usize,
    ) -> Result<Option<Step>, &'static str> {
        match self.parse_len(from, to)? {
            Some(len) => self.blob = Some((kind, len)),
            None if matches!(kind, Blob::Bulk) => return Ok(Some(Step::Leaf(Reply::Null))),
            None => return Err("a negative length"),
        }
        Ok(Some(Step::Header))
    }

    fn take_blob(&mut self, kind: Blob, len: usize) -> Result<Option<Step>, &'static str> {
        let start = self.consumed;
        let end = start + len;
        let Some(line_end) = self.buffer.get(end..end + 2) else { return Ok(None) };
        if line_end != b"\r\n" {
            return Err("a string that does not end in CR LF");
        }
        self.blob = None;
        self.consume(len + 2)?;
        let bytes = &self.buffer[start..end];
        let reply = match kind {
            Blob::Bulk => Reply::Bulk(bytes.to_vec()),
            Blob::Error => Reply::Error(bytes.to_vec()),
            Blob::Verbatim => parse_verbatim(bytes).ok_or("a verbatim string without format")?,
        };
        Ok(Some(Step::Leaf(reply)))
    }

    fn open_aggregate(
        &mut self,
        kind: Aggregate,
        from: usize,
        to: usize,
    ) -> Result<Option<Step>, &'static str> {
        let Some(len) = self.parse_len(from, to)? else {
            return match kind {
                Aggregate::Array => Ok(Some(Step::Leaf(Reply::Null))),
                _ => Err("a negative length"),
            };
        };
        if len == 0 {
            return Ok(Some(finish(kind, Vec::new()).map_or(Step::Header, Step::Leaf)));
        }
        if self.stack.len() >= self.limits.max_depth {
            return Err("replies nested too deeply");
        }
        let missing = match kind {
            Aggregate::Map | Aggregate::Attribute => len.saturating_mul(2),
            Aggregate::Array | Aggregate::Set | Aggregate::Push => len,
        };
        let items = Vec::with_capacity(missing.min(MAX_RESERVED_ITEMS));
        self.stack.push(Frame { kind, missing, items });
        Ok(Some(Step::Header))
    }
}

/// The reply made of the elements of an aggregate; attributes make none.
fn finish(kind: Aggregate, items: Vec<Reply>) -> Option<Reply> {
    match kind {
        Aggregate::Array => Some(Reply::Array(items)),
        Aggregate::Map => Some(Reply::Map(pair_up(items))),
        Aggregate::Set => Some(Reply::Set(items)),
        Aggregate::Push => Some(Reply::Push(items)),
        Aggregate::Attribute => None,
    }
}

fn parse_int(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_double(text: &[u8]) -> Option<Reply> {
    let text = std::str::from_utf8(text).ok()?;
    Some(Reply::Double { value: text.parse().ok()?, text: text.into() })
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn parse_verbatim(bytes: &[u8]) -> Option<Reply> {
    let (format, rest) = bytes.split_first_chunk::<3>()?;
    let text = rest.strip_prefix(b":")?;
    Some(Reply::Verbatim { format: *format, text: text.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_one(bytes: &[u8]) -> Result<Option<Reply>, Error> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        decoder.next_reply()
    }

    fn decoded(bytes: &[u8]) -> Reply {
        decode_one(bytes).unwrap().unwrap()
    }

    #[test]
    fn every_type_is_understood() {
        assert_eq!(decoded(b"+OK\r\n"), Reply::Simple(b"OK".to_vec()));
        assert_eq!(decoded(b"-ERR x\r\n"), Reply::Error(b"ERR x".to_vec()));
        assert_eq!(decoded(b":-7\r\n"), Reply::Int(-7));
        assert_eq!(decoded(b"$2\r\n\r\n\r\n"), Reply::bulk("\r\n"));
        assert_eq!(decoded(b"$0\r\n\r\n"), Reply::bulk(""));
        for null in [&b"$-1\r\n"[..], b"*-1\r\n", b"_\r\n"] {
            assert_eq!(decoded(null), Reply::Null);
        }
        assert_eq!(decoded(b"#t\r\n"), Reply::Bool(true));
        assert_eq!(decoded(b"(-123\r\n"), Reply::BigNumber(b"-123".to_vec()));
        assert_eq!(decoded(b"!3\r\nE\n!\r\n"), Reply::Error(b"E\n!".to_vec()));
        let verbatim = Reply::Verbatim { format: *b"txt", text: b"hi".to_vec() };
        assert_eq!(decoded(b"=6\r\ntxt:hi\r\n"), verbatim);
        assert_eq!(decoded(b"~1\r\n:1\r\n"), Reply::Set(vec![Reply::Int(1)]));
        assert_eq!(decoded(b">1\r\n:1\r\n"), Reply::Push(vec![Reply::Int(1)]));
        assert_eq!(decoded(b"%1\r\n:1\r\n_\r\n"), Reply::Map(vec![(Reply::Int(1), Reply::Null)]));
        assert_eq!(decoded(b"*0\r\n"), Reply::Array(vec![]));
    }

    #[test]
    fn doubles_keep_their_digits() {
        let Reply::Double { value, text } = decoded(b",0.10000000000000001\r\n") else {
            panic!("not a double");
        };
        assert_eq!((value, &*text), (0.1, "0.10000000000000001"));
        assert_eq!(decoded(b",-inf\r\n").as_f64(), Some(f64::NEG_INFINITY));
        assert!(decoded(b",nan\r\n").as_f64().unwrap().is_nan());
    }

    #[test]
    fn attributes_are_skipped_wherever_they_stand() {
        assert_eq!(decoded(b"|1\r\n+k\r\n*1\r\n:1\r\n:5\r\n"), Reply::Int(5));
        let list = decoded(b"*2\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n");
        assert_eq!(list, Reply::Array(vec![Reply::Int(1), Reply::Int(2)]));
        assert_eq!(decoded(b"|0\r\n:5\r\n"), Reply::Int(5));
    }

    #[test]
    fn nonsense_is_refused_for_ever() {
        for bad in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"\n",
            b":x\r\n",
            b":1\n",
            b"$-2\r\n",
            b"$1\r\nab\r\n",
            b"*-5\r\n",
            b"%-1\r\n",
            b"$?\r\n",
            b"_x\r\n",
            b"#y\r\n",
            b"(1x\r\n",
            b"=2\r\nab\r\n",
            b"=4\r\ntxt!\r\n",
            b"*9223372036854775807\r\n",
            b"%9223372036854775807\r\n",
            b"$9223372036854775807\r\n",
        ] {
            let mut decoder = Decoder::default();
            decoder.feed(bad);
            assert!(decoder.next_reply().is_err(), "{:?}", bad.escape_ascii().to_string());
            decoder.feed(b"+OK\r\n");
            assert!(decoder.next_reply().is_err());
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let limits = Limits { max_depth: 4, max_reply_bytes: 64 };
        let mut deep = Decoder::with_limits(limits);
        deep.feed(&b"*1\r\n".repeat(5));
        assert!(deep.next_reply().is_err());

        let mut long_line = Decoder::with_limits(limits);
        long_line.feed(&[b'+'; 65]);
        assert!(long_line.next_reply().is_err());

        let mut many = Decoder::with_limits(limits);
        many.feed(b"*20\r\n");
        many.feed(&b":1\r\n".repeat(20));
        assert!(many.next_reply().is_err());

        // The bound is on one reply, not on the connection.
        let mut stream = Decoder::with_limits(limits);
        for _ in 0..100 {
            stream.feed(b"$10\r\n0123456789\r\n");
            assert!(stream.next_reply().unwrap().is_some());
        }
        assert!(!stream.is_mid_reply());
    }

    /// Any reply that encodes to one of its own type.
    fn any_reply() -> impl Strategy<Value = Reply> {
        let text = proptest::collection::vec(any::<u8>(), 0..20);
        let line = "[ -~]{0,12}".prop_map(String::into_bytes);
        let leaf = prop_oneof![
            line.clone().prop_map(Reply::Simple),
            text.clone().prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Int),
            text.clone().prop_map(Reply::Bulk),
            Just(Reply::Null),
            any::<bool>().prop_map(Reply::Bool),
            proptest::num::f64::NORMAL.prop_map(Reply::double),
            "-?[0-9]{1,40}".prop_map(|digits| Reply::BigNumber(digits.into_bytes())),
            text.prop_map(|text| Reply::Verbatim { format: *b"mkd", text }),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..6);
            prop_oneof![
                items.clone().prop_map(Reply::Array),
                items.clone().prop_map(Reply::Set),
                items.prop_map(Reply::Push),
                proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(reply in any_reply()) {
            let mut bytes = Vec::new();
            reply.encode_into(&mut bytes);
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            prop_assert_eq!(decoder.next_reply().unwrap(), Some(reply));
            prop_assert!(!decoder.is_mid_reply());
        }

        #[test]
        fn a_cut_at_any_byte_only_delays(reply in any_reply()) {
            let mut bytes = Vec::new();
            reply.encode_into(&mut bytes);
            for cut in 0..bytes.len() {
                let mut decoder = Decoder::default();
                decoder.feed(&bytes[..cut]);
                prop_assert_eq!(decoder.next_reply().unwrap(), None);
                decoder.feed(&bytes[cut..]);
                prop_assert_eq!(decoder.next_reply().unwrap(), Some(reply.clone()));
            }
        }

        #[test]
        fn one_byte_at_a_time_is_the_same(replies in proptest::collection::vec(any_reply(), 1..4)) {
            let mut bytes = Vec::new();
            replies.iter().for_each(|reply| reply.encode_into(&mut bytes));
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for byte in bytes {
                decoder.feed(&[byte]);
                while let Some(reply) = decoder.next_reply().unwrap() {
                    seen.push(reply);
                }
            }
            prop_assert_eq!(seen, replies);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_reply() {}
        }

        #[test]
        fn hostile_headers_never_panic(text in "([-+:$*%~>|=!,#(_]-?[0-9]{0,20}\r\n){1,12}") {
            let mut decoder = Decoder::default();
            decoder.feed(text.as_bytes());
            while let Ok(Some(_)) = decoder.next_reply() {}
        }
    }
}
