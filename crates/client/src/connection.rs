//! A blocking connection: one socket, requests buffered on the way out, replies decoded on the
//! way in.
//!
//! [`Connection::command`] is one round trip. For a pipeline, call [`Connection::send`] for each
//! request, then [`Connection::flush`] once, then [`Connection::read_reply`] once per request.
//! The output buffer is written out by itself when it passes a fixed size, so it is bounded; a
//! caller that never reads may block there once the server has stopped reading as well.

use crate::{Address, Decoder, Error, Reply, encode_command};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Requests are written out once this many bytes are waiting.
const FLUSH_AT_BYTES: usize = 256 * 1024;
/// Bytes asked of the socket at a time.
const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Push messages kept while waiting for a reply; beyond this the oldest is dropped.
const MAX_KEPT_PUSHES: usize = 4096;

/// A connected socket of either family.
#[derive(Debug)]
pub enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
            Address::Tcp { host, port } => connect_tcp(host, *port, timeout),
        }
    }

    /// A second handle on the same socket.
    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Tcp(socket) => socket.try_clone().map(Stream::Tcp),
            Stream::Unix(socket) => socket.try_clone().map(Stream::Unix),
        }
    }

    /// Bounds how long a read blocks; `None` is for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.set_read_timeout(timeout),
            Stream::Unix(socket) => socket.set_read_timeout(timeout),
        }
    }

    /// Makes reads and writes return at once instead of blocking.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.set_nonblocking(nonblocking),
            Stream::Unix(socket) => socket.set_nonblocking(nonblocking),
        }
    }

    /// Ends both directions, which wakes a thread blocked on the socket.
    pub fn shutdown(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Stream::Unix(socket) => socket.shutdown(Shutdown::Both),
        }
    }
}

/// Tries every address the name has, and reports the failure of the last.
fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // A request is one write, so waiting to coalesce would only add latency.
                socket.set_nodelay(true)?;
                return Ok(Stream::Tcp(socket));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read(buffer),
            Stream::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.write(buffer),
            Stream::Unix(socket) => socket.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(socket) => socket.as_fd(),
            Stream::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    output: Vec<u8>,
    input: Box<[u8]>,
    decoder: Decoder,
    pushes: VecDeque<Reply>,
}

impl Connection {
    /// Connects, waiting at most `timeout` for each address the host name has.
    pub fn connect(address: &Address, timeout: Duration) -> Result<Connection, Error> {
        let stream = Stream::connect(address, timeout)
            .map_err(|source| Error::Connect { address: address.to_string(), source })?;
        Ok(Connection::from_stream(stream))
    }

    /// A connection on a socket that is connected already.
    pub fn from_stream(stream: Stream) -> Connection {
        Connection {
            stream,
            output: Vec::new(),
            input: vec![0; READ_CHUNK_BYTES].into(),
            decoder: Decoder::default(),
            pushes: VecDeque::new(),
        }
    }

    /// The socket, for callers that do their own input and output from here on.
    ///
    /// Call it between a reply and the next request only: bytes already read are lost.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bounds how long [`Connection::read_reply`] waits for more bytes; `None` is for ever.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Adds one request to the pipeline.
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<(), Error> {
        encode_command(arguments, &mut self.output);
        if self.output.len() >= FLUSH_AT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Adds bytes to the pipeline as they are; for tests of servers, and for inline requests.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.extend_from_slice(bytes);
        if self.output.len() >= FLUSH_AT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes out every request added so far.
    pub fn flush(&mut self) -> Result<(), Error> {
        let result = self.stream.write_all(&self.output);
        self.output.clear();
        // One large request must not keep its memory for the life of the connection.
        self.output.shrink_to(FLUSH_AT_BYTES);
        Ok(result?)
    }

    /// The next reply or push message, waiting for it.
    ///
    /// After [`Error::TimedOut`] the call can be repeated; nothing is lost.
    pub fn read_reply(&mut self) -> Result<Reply, Error> {
        loop {
            if let Some(reply) = self.decoder.next_reply()? {
                return Ok(reply);
            }
            match self.stream.read(&mut self.input) {
                Ok(0) => return Err(Error::Closed),
                Ok(len) => self.decoder.feed(&self.input[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends one request and waits for its reply.
    ///
    /// Push messages that arrive first are kept for [`Connection::take_pushes`], except that
    /// the confirmation of a subscription, which in RESP3 *is* a push, counts as the reply.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply, Error> {
        self.send(arguments)?;
        self.flush()?;
        let name = arguments.first().map_or(&b""[..], AsRef::as_ref);
        loop {
            let reply = self.read_reply()?;
            match reply {
                Reply::Push(items) if !confirms(name, &items) => self.keep_push(items),
                reply => return Ok(reply),
            }
        }
    }

    fn keep_push(&mut self, items: Vec<Reply>) {
        if self.pushes.len() == MAX_KEPT_PUSHES {
            self.pushes.pop_front();
        }
        self.pushes.push_back(Reply::Push(items));
    }

    /// Takes the push messages kept by [`Connection::command`], oldest first.
    pub fn take_pushes(&mut self) -> impl Iterator<Item = Reply> + '_ {
        self.pushes.drain(..)
    }

    /// Authenticates; without a user name as the default user.
    pub fn auth(&mut self, user: Option<&str>, password: &str) -> Result<(), Error> {
        match user {
            Some(user) => self.command(&["AUTH", user, password])?.into_result()?,
            None => self.command(&["AUTH", password])?.into_result()?,
        };
        Ok(())
    }

    /// Switches to RESP `version` (2 or 3); the reply describes the server.
    pub fn hello(&mut self, version: u8) -> Result<Reply, Error> {
        self.command(&["HELLO", &version.to_string()])?.into_result()
    }

    /// Switches to another database.
    pub fn select(&mut self, database: u32) -> Result<(), Error> {
        self.command(&["SELECT", &database.to_string()])?.into_result()?;
        Ok(())
    }
}

/// Whether a push is the confirmation the request `name` is waiting for.
fn confirms(name: &[u8], push: &[Reply]) -> bool {
    let kind = push.first().and_then(Reply::as_bytes).unwrap_or_default();
    name.to_ascii_lowercase().ends_with(b"subscribe") && kind.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A server that answers the first bytes it gets with `answer` and then closes.
    fn answering(answer: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(answer);
        });
        Connection::connect(&Address::tcp("127.0.0.1", port), Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn a_pipeline_gets_its_replies_in_order_and_then_the_end() {
        let mut connection = answering(b"+OK\r\n:1\r\n");
        connection.send(&["SET", "k", "v"]).unwrap();
        connection.send(&["INCR", "n"]).unwrap();
        connection.flush().unwrap();
        assert_eq!(connection.read_reply().unwrap(), Reply::Simple(b"OK".to_vec()));
        assert_eq!(connection.read_reply().unwrap(), Reply::Int(1));
        assert!(matches!(connection.read_reply(), Err(Error::Closed)));
    }

    #[test]
    fn pushes_do_not_take_the_place_of_a_reply() {
        let mut connection = answering(b">2\r\n+invalidate\r\n_\r\n+PONG\r\n");
        assert_eq!(connection.command(&["PING"]).unwrap(), Reply::Simple(b"PONG".to_vec()));
        assert_eq!(connection.take_pushes().count(), 1);
    }

    #[test]
    fn the_confirmation_of_a_subscription_is_its_reply() {
        let mut connection = answering(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
        let reply = connection.command(&["SUBSCRIBE", "c"]).unwrap();
        assert_eq!(reply.into_items().unwrap()[2], Reply::Int(1));
    }

    #[test]
    fn a_timeout_leaves_the_connection_usable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address::tcp("127.0.0.1", port);
        let mut connection = Connection::connect(&address, Duration::from_secs(5)).unwrap();
        connection.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"$4\r\nab").unwrap();
        assert!(matches!(connection.read_reply(), Err(Error::TimedOut)));
        server.write_all(b"cd\r\n").unwrap();
        connection.set_read_timeout(None).unwrap();
        assert_eq!(connection.read_reply().unwrap(), Reply::bulk("abcd"));
    }

    #[test]
    fn unix_sockets_work_and_missing_ones_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let missing = Connection::connect(&Address::Unix(path.clone()), Duration::from_secs(1));
        assert!(missing.unwrap_err().to_string().contains("is the path right?"));
        let listener = UnixListener::bind(&path).unwrap();
        let mut connection =
            Connection::connect(&Address::Unix(path), Duration::from_secs(1)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"+PONG\r\n").unwrap();
        assert_eq!(connection.command(&["PING"]).unwrap(), Reply::Simple(b"PONG".to_vec()));
    }

    #[test]
    fn refused_connections_name_the_address() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = Address::tcp("127.0.0.1", port);
        let error = Connection::connect(&address, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}
