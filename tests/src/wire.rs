//! A connection whose replies are the very bytes that the server sent.
//!
//! It knows just enough of RESP to tell where a value ends, so that two servers can be compared
//! byte for byte.

use crate::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The bytes of one RESP value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    /// The type byte.
    pub fn kind(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The first line without its type byte.
    pub fn line(&self) -> String {
        let line = self.0.split(|&byte| byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line.get(1..).unwrap_or_default()).into_owned()
    }

    /// The text of a status, an error or a string.
    pub fn text(&self) -> String {
        let head = self.line().len() + 3;
        match self.kind() {
            b'$' | b'=' | b'!' if self.0.len() > head => {
                String::from_utf8_lossy(&self.0[head..self.0.len() - 2]).into_owned()
            }
            _ => self.line(),
        }
    }

    /// The bytes of a string; `None` of anything else.
    pub fn bulk(&self) -> Option<&[u8]> {
        let head = self.line().len() + 3;
        let is_string = self.kind() == b'$' && self.0.len() > head;
        is_string.then(|| &self.0[head..self.0.len() - 2])
    }

    /// The values in an array, a set or a push; `None` of anything else, also of a null array.
    pub fn items(&self) -> Option<Vec<Frame>> {
        let count: usize = match self.kind() {
            b'*' | b'~' | b'>' => self.line().parse().ok()?,
            _ => return None,
        };
        let mut rest = &self.0[self.line().len() + 3..];
        let mut items = Vec::new();
        for _ in 0..count {
            let (item, after) = rest.split_at(frame_len(rest)?);
            items.push(Frame(item.to_vec()));
            rest = after;
        }
        Some(items)
    }

    /// The integer of `:` replies.
    pub fn as_int(&self) -> Option<i64> {
        if self.kind() == b':' { self.line().parse().ok() } else { None }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(300)];
        write!(f, "{}", shown.escape_ascii())?;
        if self.0.len() > shown.len() { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// Encodes a request as an array of bulk strings.
pub fn request<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut out = Vec::new();
    hypercache_client::encode_command(words, &mut out);
    out
}

/// See the module's text.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// Bytes in front that were given away.
    taken: usize,
}

impl Wire {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Wire {
        Wire::try_connect(port).unwrap_or_else(|| panic!("nothing listens on {port}"))
    }

    /// Connects, or not.
    pub fn try_connect(port: u16) -> Option<Wire> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
        // A port that nobody listens on can, rarely, be connected to itself.
        if stream.local_addr().ok()? == address {
            return None;
        }
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Wire { stream, bytes: Vec::new(), taken: 0 })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes as they are; false when the server closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        // The server may have closed it already.
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends a request and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Frame {
        self.send(&request(words));
        self.read()
    }

    /// Reads one value.
    pub fn read(&mut self) -> Frame {
        self.try_read().unwrap_or_else(|| {
            panic!("the server closed the connection or does not answer; it sent {:?}", self.rest())
        })
    }

    /// Reads one value, or finds the connection closed or silent.
    pub fn try_read(&mut self) -> Option<Frame> {
        loop {
            if let Some(len) = frame_len(&self.bytes[self.taken..]) {
                let frame = Frame(self.bytes[self.taken..self.taken + len].to_vec());
                self.taken += len;
                return Some(frame);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads up to and including `end`, or finds the connection closed or silent.
    pub fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut looked = 0;
        loop {
            let there = &self.bytes[self.taken..];
            let from = looked.min(there.len());
            if let Some(at) = there[from..].windows(end.len()).position(|part| part == end) {
                let len = from + at + end.len();
                let found = there[..len].to_vec();
                self.taken += len;
                return Some(found);
            }
            looked = there.len().saturating_sub(end.len());
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads as many bytes, or fewer when no more come.
    pub fn read_bytes(&mut self, len: usize) -> Vec<u8> {
        while self.bytes.len() - self.taken < len && self.fill() {}
        let end = self.bytes.len().min(self.taken + len);
        let bytes = self.bytes[self.taken..end].to_vec();
        self.taken = end;
        bytes
    }

    /// Reads a value if one arrives within `patience`.
    pub fn read_within(&mut self, patience: Duration) -> Option<Frame> {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
        let frame = self.try_read();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        frame
    }

    /// Whether the server closed the connection, after reading and dropping what it sent.
    pub fn is_closed(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }

    /// All that the server sends until it closes the connection; `None` if it does not within
    /// `patience` of silence.
    pub fn read_to_end(&mut self, patience: Duration) -> (Vec<u8>, bool) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
        let mut chunk = vec![0; 64 * 1024];
        let is_closed = loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break true,
                Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(_) => break false,
            }
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        (self.rest(), is_closed)
    }

    fn rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.taken);
        self.bytes.clear();
        self.taken = 0;
        rest
    }

    fn fill(&mut self) -> bool {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(len) => {
                    self.bytes.extend_from_slice(&chunk[..len]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// The length of the value at the start of `bytes`, once it is complete.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    // Values that are still to come, counted instead of nested.
    let mut missing = 1_usize;
    let mut at = 0;
    while missing > 0 {
        missing -= 1;
        let rest = &bytes[at..];
        let line_len = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..line_len]).unwrap_or_default();
        let number = line.get(1..).and_then(|digits| digits.parse::<i64>().ok());
        at += line_len + 2;
        let count = number.and_then(|n| usize::try_from(n).ok());
        match (rest[0], count) {
            (b'$' | b'=' | b'!', Some(len)) => at += len + 2,
            (b'*' | b'~' | b'>', Some(count)) => missing += count,
            (b'%' | b'|', Some(count)) => missing += 2 * count,
            _ => {}
        }
        if at > bytes.len() {
            return None;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        let whole: &[&[u8]] = &[
            b"+OK\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$3\r\na\r\n\r\n",
            b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
            b"%1\r\n+a\r\n*0\r\n",
            b"*0\r\n",
        ];
        for value in whole {
            assert_eq!(frame_len(value), Some(value.len()), "{}", value.escape_ascii());
            for cut in 0..value.len() {
                assert_eq!(frame_len(&value[..cut]), None, "{}", value.escape_ascii());
            }
        }
    }
}
