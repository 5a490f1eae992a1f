//! Counts replies without decoding them.
//!
//! A load generator needs to know only how many replies have ended, which were errors and which
//! were null. So strings are skipped by their length, aggregates only add to the number of values
//! still to come, and nothing is kept but the header line a read may have cut in two: memory is
//! constant whatever the server sends.

/// Bytes kept of a line; longer ones are status or error texts, of which the start is enough.
const MAX_LINE_BYTES: usize = 256;

/// What has been counted, and where in the stream of bytes the counter is.
#[derive(Debug)]
pub(crate) struct ReplyCounter {
    /// The start of a line of which the end has not arrived.
    line: Vec<u8>,
    /// Bytes of a string still to skip, with its line end.
    skip: u64,
    /// Values still to come before the current reply ends.
    missing: u64,
    /// Whether the next value starts a reply, rather than being an element of one.
    at_start: bool,
    /// Replies that have ended.
    pub(crate) replies: u64,
    /// Replies that were errors.
    pub(crate) errors: u64,
    /// Replies that were null.
    pub(crate) nulls: u64,
    /// The first error.
    pub(crate) first_error: Option<String>,
}

impl ReplyCounter {
    /// A counter at the start of a reply.
    pub(crate) fn new() -> ReplyCounter {
        ReplyCounter {
            line: Vec::new(),
            skip: 0,
            missing: 1,
            at_start: true,
            replies: 0,
            errors: 0,
            nulls: 0,
            first_error: None,
        }
    }

    /// Goes on with the bytes that arrived; returns how many replies ended in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<u64, &'static str> {
        let before = self.replies;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                bytes = &bytes[skipped as usize..];
                self.skip -= skipped;
                if self.skip == 0 {
                    self.end_value();
                }
                continue;
            }
            let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                self.keep(bytes);
                break;
            };
            if self.line.is_empty() {
                self.take_line(&bytes[..end])?;
            } else {
                self.keep(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
                // Its memory serves the next line that is cut in two.
                self.line = line;
                self.line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        Ok(self.replies - before)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES - self.line.len().min(MAX_LINE_BYTES);
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (kind, text) = line.split_first().ok_or("an empty line")?;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let is_reply = std::mem::replace(&mut self.at_start, false);
        match kind {
            b'+' | b':' | b',' | b'#' | b'(' => self.end_value(),
            b'-' => {
                if is_reply {
                    self.note_error(text);
                }
                self.end_value();
            }
            b'_' => self.end_null(is_reply),
            b'$' | b'=' | b'!' => match parse_len(text)? {
                None => self.end_null(is_reply),
                Some(len) => {
                    if *kind == b'!' && is_reply {
                        self.note_error(b"an error with a length");
                    }
                    self.skip = len + 2;
                }
            },
            b'*' | b'~' | b'>' => match parse_len(text)? {
                None => self.end_null(is_reply),
                Some(len) => self.add_values(len),
            },
            b'%' => self.add_values(parse_len(text)?.unwrap_or(0).saturating_mul(2)),
            b'|' => {
                // Attributes come in addition to the value they describe.
                self.missing += 1;
                self.add_values(parse_len(text)?.unwrap_or(0).saturating_mul(2));
            }
            _ => return Err("an unknown type byte"),
        }
        Ok(())
    }

    fn add_values(&mut self, values: u64) {
        self.missing = self.missing.saturating_add(values);
        self.end_value();
    }

    fn end_value(&mut self) {
        self.missing -= 1;
        if self.missing == 0 {
            self.missing = 1;
            self.at_start = true;
            self.replies += 1;
        }
    }

    fn end_null(&mut self, is_reply: bool) {
        self.nulls += u64::from(is_reply);
        self.end_value();
    }

    fn note_error(&mut self, text: &[u8]) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(String::from_utf8_lossy(text).into_owned());
        }
    }
}

/// The length in a header, or `None` for a null.
fn parse_len(text: &[u8]) -> Result<Option<u64>, &'static str> {
    const MAX_LEN: i64 = 1 << 40;
    match std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()) {
        Some(-1) => Ok(None),
        Some(len @ 0..=MAX_LEN) => Ok(Some(len as u64)),
        _ => Err("a bad length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"+OK\r\n$5\r\na\r\nbc\r\n$-1\r\n-ERR x\r\n*2\r\n*1\r\n-E\r\n$0\r\n\r\n\
        *-1\r\n%1\r\n+a\r\n~0\r\n_\r\n:1\r\n*0\r\n|1\r\n+k\r\n+v\r\n#t\r\n!3\r\nE y\r\n=5\r\ntxt:a\r\n";

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        for size in [1, 2, 3, 7, 1000] {
            let mut counter = ReplyCounter::new();
            let ended: u64 = STREAM.chunks(size).map(|bytes| counter.feed(bytes).unwrap()).sum();
            assert_eq!(ended, 13, "{size}");
            assert_eq!((counter.errors, counter.nulls), (2, 3));
            assert_eq!(counter.first_error.as_deref(), Some("ERR x"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [&b"x\r\n"[..], b"\n", b"$x\r\n", b"*-2\r\n", b"$99999999999999\r\n"] {
            assert!(ReplyCounter::new().feed(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn endless_lines_take_no_memory() {
        let mut counter = ReplyCounter::new();
        (0..1000).for_each(|_| assert_eq!(counter.feed(&[b'-'; 1000]), Ok(0)));
        assert!(counter.line.len() <= MAX_LINE_BYTES);
        assert_eq!(counter.feed(b"\r\n"), Ok(1));
        assert_eq!(counter.errors, 1);
    }
}
