//! Replies to bytes, in RESP2 or RESP3. Hot path.
//!
//! A [`Reply`] appends to the connection's output. Types that RESP2 lacks are written as RESP2
//! clients expect them from Redis (a map as a flat array, a double as a bulk string, …).
//!
//! Large values are not copied: [`Reply::shared`] notes the shared buffer and where in the output
//! it belongs, and the sender interleaves it.

use std::sync::Arc;

/// Which version of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// RESP2, the default.
    #[default]
    V2,
    /// RESP3, chosen with HELLO 3.
    V3,
}

/// Bytes on their way to a client: a buffer, and shared values that are spliced into it.
#[derive(Debug, Default)]
pub struct Output {
    /// Everything but the shared values.
    pub bytes: Vec<u8>,
    /// Shared values, each with the offset in `bytes` before which it belongs, in order.
    pub shared: Vec<(usize, Arc<Vec<u8>>)>,
}

impl Output {
    /// Bytes to send in total.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared.iter().map(|(_, value)| value.len()).sum::<usize>()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// A mark to [`Self::truncate`] back to.
    #[must_use]
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.shared.len())
    }

    /// Forgets everything written since `mark`.
    pub fn truncate(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        self.shared.truncate(mark.1);
    }

    /// The bytes in the order they are sent.
    #[must_use]
    pub fn flattened(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        let mut from = 0;
        for (at, value) in &self.shared {
            bytes.extend_from_slice(&self.bytes[from..*at]);
            bytes.extend_from_slice(value);
            from = *at;
        }
        bytes.extend_from_slice(&self.bytes[from..]);
        bytes
    }

    /// Appends another output.
    pub fn append(&mut self, other: &Output) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.shared.extend(other.shared.iter().map(|(at, value)| (at + base, Arc::clone(value))));
    }
}

/// Writes one reply after the other.
pub struct Reply<'a> {
    out: &'a mut Output,
    version: Version,
}

impl std::fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reply({:?})", self.version)
    }
}

/// The digits of the numbers below 100.
static DIGITS: [[u8; 2]; 100] = {
    let mut digits = [[0; 2]; 100];
    let mut n = 0;
    while n < digits.len() {
        digits[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    digits
};

/// The head of a bulk string of 10 to 99 bytes, the usual case.
#[inline]
fn short_head(len: usize) -> Option<[u8; 5]> {
    let [tens, ones] = *DIGITS.get(len).filter(|[tens, _]| *tens != b'0')?;
    Some([b'$', tens, ones, b'\r', b'\n'])
}

/// Values shorter than this are copied even when they could be shared.
const SHARED_MIN: usize = 16 * 1024;

impl<'a> Reply<'a> {
    /// A writer to `out`.
    #[inline]
    pub fn new(out: &'a mut Output, version: Version) -> Self {
        Reply { out, version }
    }

    /// The protocol version that is written.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Chooses the protocol version of what follows.
    #[inline]
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// The output, for what is already encoded.
    pub fn output(&mut self) -> &mut Output {
        self.out
    }

    fn is_v3(&self) -> bool {
        self.version == Version::V3
    }

    #[inline]
    fn header(&mut self, kind: u8, n: i64) {
        let out = &mut self.out.bytes;
        // Most counts and short strings: a third of the work below.
        match usize::try_from(n).ok().and_then(|n| DIGITS.get(n)) {
            Some([b'0', ones]) => return out.extend_from_slice(&[kind, *ones, b'\r', b'\n']),
            Some([tens, ones]) => {
                return out.extend_from_slice(&[kind, *tens, *ones, b'\r', b'\n']);
            }
            None => {}
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(n).as_bytes();
        out.reserve(digits.len() + 3);
        out.push(kind);
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; must not contain line ends.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// A simple string of any bytes. Line ends in it become spaces.
    pub fn status(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// An error with its code, as `ERR something`. Line ends in it become spaces.
    pub fn error(&mut self, text: &[u8]) {
        self.line(b'-', text);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        let out = &mut self.out.bytes;
        out.push(kind);
        out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        let Some([b'0', digit]) = DIGITS.get(bytes.len()) else { return self.bulk_here(bytes) };
        // Members and fields are often that short.
        let out = &mut self.out.bytes;
        out.reserve(bytes.len() + 6);
        out.extend_from_slice(&[b'$', *digit, b'\r', b'\n']);
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }

    /// A bulk string, for the one command that is run so often that a call shows.
    #[inline(always)]
    pub fn bulk_here(&mut self, bytes: &[u8]) {
        let out = &mut self.out.bytes;
        out.reserve(bytes.len() + 16);
        match short_head(bytes.len()) {
            Some(head) => out.extend_from_slice(&head),
            None => self.header(b'$', bytes.len() as i64),
        }
        let out = &mut self.out.bytes;
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }

    /// A bulk string that is sent from a shared buffer when it is large.
    pub fn shared(&mut self, value: Arc<Vec<u8>>) {
        if value.len() < SHARED_MIN {
            self.bulk(&value);
            return;
        }
        self.header(b'$', value.len() as i64);
        let at = self.out.bytes.len();
        self.out.shared.push((at, value));
        self.out.bytes.extend_from_slice(b"\r\n");
    }

    /// A bulk string of a number's digits.
    pub fn bulk_int(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// No value where a string could stand.
    #[inline]
    pub fn null(&mut self) {
        let text: &[u8] = if self.is_v3() { b"_\r\n" } else { b"$-1\r\n" };
        self.out.bytes.extend_from_slice(text);
    }

    /// No value where an array could stand.
    pub fn null_array(&mut self) {
        let text: &[u8] = if self.is_v3() { b"_\r\n" } else { b"*-1\r\n" };
        self.out.bytes.extend_from_slice(text);
    }

    /// The head of an array of `n` elements, which the caller writes next.
    #[inline]
    pub fn array(&mut self, n: usize) {
        self.header(b'*', n as i64);
    }

    /// The head of a map of `n` pairs.
    pub fn map(&mut self, n: usize) {
        if self.is_v3() { self.header(b'%', n as i64) } else { self.header(b'*', 2 * n as i64) }
    }

    /// The head of a set of `n` elements.
    pub fn set(&mut self, n: usize) {
        self.header(if self.is_v3() { b'~' } else { b'*' }, n as i64);
    }

    /// The head of a push message of `n` elements (an array in RESP2).
    pub fn push(&mut self, n: usize) {
        self.header(if self.is_v3() { b'>' } else { b'*' }, n as i64);
    }

    /// A truth value: `#t`, or 1 and 0 in RESP2.
    pub fn bool(&mut self, value: bool) {
        if !self.is_v3() {
            return self.int(i64::from(value));
        }
        self.out.bytes.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
    }

    /// A double given as the text that stands for it.
    pub fn double_text(&mut self, text: &[u8]) {
        if self.is_v3() { self.line(b',', text) } else { self.bulk(text) }
    }

    /// A number of any size given as its digits (a bulk string in RESP2).
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.is_v3() { self.line(b'(', digits) } else { self.bulk(digits) }
    }

    /// Text with its format, `txt` or `mkd` (a bulk string in RESP2).
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.is_v3() {
            return self.bulk(text);
        }
        debug_assert_eq!(format.len(), 3);
        self.header(b'=', text.len() as i64 + 4);
        let out = &mut self.out.bytes;
        out.extend_from_slice(format.as_bytes());
        out.push(b':');
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, f: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Output::default();
        f(&mut Reply::new(&mut out, version));
        String::from_utf8(out.bytes).expect("ascii")
    }

    fn check(f: impl Fn(&mut Reply<'_>), v2: &str, v3: &str) {
        assert_eq!(written(Version::V2, &f), v2);
        assert_eq!(written(Version::V3, &f), v3);
    }

    #[test]
    fn each_type_has_its_form_in_both_versions() {
        check(|r| r.ok(), "+OK\r\n", "+OK\r\n");
        check(|r| r.int(-7), ":-7\r\n", ":-7\r\n");
        check(|r| r.bulk(b"ab"), "$2\r\nab\r\n", "$2\r\nab\r\n");
        check(|r| r.null(), "$-1\r\n", "_\r\n");
        check(|r| r.null_array(), "*-1\r\n", "_\r\n");
        check(|r| r.map(2), "*4\r\n", "%2\r\n");
        check(|r| r.set(2), "*2\r\n", "~2\r\n");
        check(|r| r.push(3), "*3\r\n", ">3\r\n");
        check(|r| r.bool(true), ":1\r\n", "#t\r\n");
        check(|r| r.double_text(b"1.5"), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        check(|r| r.error(b"ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
    }

    #[test]
    fn large_values_are_spliced_not_copied() {
        let mut out = Output::default();
        let value = Arc::new(vec![b'x'; SHARED_MIN]);
        let mut reply = Reply::new(&mut out, Version::V2);
        reply.shared(Arc::clone(&value));
        reply.shared(Arc::new(b"small".to_vec()));
        assert_eq!(out.bytes, b"$16384\r\n\r\n$5\r\nsmall\r\n");
        assert_eq!((out.shared[0].0, out.shared.len()), (8, 1));
        assert_eq!(out.len(), out.bytes.len() + SHARED_MIN);
    }
}
