//! Whether bytes are replies of one version of the protocol, and how many.

use hypercache_protocol::reply::Version;

/// Replies found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// Answers to commands.
    pub(super) replies: usize,
    /// Push messages, which only RESP3 tells apart.
    pub(super) pushes: usize,
}

/// Counts the replies that `bytes` are.
///
/// # Errors
/// Where and why they are no replies of that version.
pub(super) fn frames(bytes: &[u8], version: Version) -> Result<Frames, String> {
    let mut reader = Reader { bytes, at: 0, version };
    let mut found = Frames::default();
    while reader.at < bytes.len() {
        let is_push = bytes[reader.at] == b'>';
        reader.frame()?;
        if is_push { found.pushes += 1 } else { found.replies += 1 }
    }
    Ok(found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    version: Version,
}

impl<'a> Reader<'a> {
    /// Passes one reply with all its elements.
    fn frame(&mut self) -> Result<(), String> {
        let mut left = 1u64;
        while left > 0 {
            left = left - 1 + self.item()?;
        }
        Ok(())
    }

    fn fail(&self, start: usize, what: &str) -> String {
        let shown = &self.bytes[start..self.bytes.len().min(start + 80)];
        format!("{what} at {start} in {:?}: {}", self.version, shown.escape_ascii())
    }

    /// Passes one item; gives how many items it announces.
    fn item(&mut self) -> Result<u64, String> {
        let start = self.at;
        let line = self.line()?;
        let (&kind, text) = line.split_first().ok_or_else(|| self.fail(start, "an empty line"))?;
        let is_v3 = self.version == Version::V3;
        match kind {
            b'+' | b'-' => Ok(0),
            b':' if is_integer(text) => Ok(0),
            b'$' | b'*' if text == b"-1" && !is_v3 => Ok(0),
            b'$' => self.blob(start, text, 0),
            b'*' => self.count(start, text),
            b'_' if is_v3 && text.is_empty() => Ok(0),
            b'#' if is_v3 && matches!(text, b"t" | b"f") => Ok(0),
            b',' if is_v3 && is_double(text) => Ok(0),
            b'(' if is_v3 && is_big_number(text) => Ok(0),
            b'=' if is_v3 => self.blob(start, text, 4),
            b'~' | b'>' if is_v3 => self.count(start, text),
            b'%' if is_v3 => self.count(start, text).map(|pairs| 2 * pairs),
            // Attributes come before the item that they describe.
            b'|' if is_v3 => self.count(start, text).map(|pairs| 2 * pairs + 1),
            _ => Err(self.fail(start, "not a reply")),
        }
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return Err(self.fail(start, "a line without end"));
        };
        self.at += end + 1;
        match rest[..end].strip_suffix(b"\r") {
            Some(line) if !line.contains(&b'\r') => Ok(line),
            _ => Err(self.fail(start, "a bad line end")),
        }
    }

    fn count(&self, start: usize, text: &[u8]) -> Result<u64, String> {
        length(text).ok_or_else(|| self.fail(start, "a bad count"))
    }

    /// Passes the bytes after the header of a blob.
    fn blob(&mut self, start: usize, text: &[u8], least: usize) -> Result<u64, String> {
        let len = length(text).ok_or_else(|| self.fail(start, "a bad length"))? as usize;
        let end = self.at.saturating_add(len);
        let after = self.bytes.get(end..end.saturating_add(2));
        if after != Some(b"\r\n") || len < least {
            return Err(self.fail(start, "a length that is not true"));
        }
        self.at = end + 2;
        Ok(0)
    }
}

/// A length without sign or leading zero.
fn length(text: &[u8]) -> Option<u64> {
    let is_plain = text == b"0" || (text.first()? != &b'0' && text.iter().all(u8::is_ascii_digit));
    is_plain.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    length(digits).is_some() && std::str::from_utf8(text).is_ok_and(|t| t.parse::<i64>().is_ok())
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn is_double(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).unwrap_or_default();
    matches!(text, "inf" | "-inf" | "nan") || text.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_and_lies_found() {
        let count = |bytes: &str, version| frames(bytes.as_bytes(), version);
        let one = Ok(Frames { replies: 1, pushes: 0 });
        assert_eq!(count("*2\r\n$1\r\na\r\n*1\r\n:-7\r\n", Version::V2), one);
        assert_eq!(count("%1\r\n+a\r\n_\r\n", Version::V3), one);
        let both = Ok(Frames { replies: 1, pushes: 1 });
        assert_eq!(count(">1\r\n+a\r\n=5\r\ntxt:a\r\n", Version::V3), both);
        for bad in ["$2\r\na\r\n", "*1\r\n", "+a\n", ":1x\r\n", "x\r\n", "$01\r\na\r\n"] {
            assert!(count(bad, Version::V2).is_err(), "{bad:?}");
            assert!(count(bad, Version::V3).is_err(), "{bad:?}");
        }
        assert!(count("$-1\r\n", Version::V3).is_err());
        assert!(count("_\r\n", Version::V2).is_err());
    }
}
