//! Input and output behind one small completion-style trait, with two back ends. One of the three
//! rooms where `unsafe` lives (in `uring`; `epoll` needs none).
//!
//! The worker asks for things (`send` this, go on receiving) and is told what happened
//! ([`Event`]s), whichever back end runs underneath. Received bytes stay in buffers of the back
//! end until the turn ends, so an idle connection holds no buffer.

pub(crate) mod epoll;
pub(crate) mod uring;

#[cfg(test)]
mod suite;

use hypercache_protocol::reply::Output;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::io::{IoSlice, Result};
use std::sync::Arc;
use std::time::Duration;

/// Number of a connection within its worker.
pub(crate) type Token = u32;

/// Where received bytes are; valid until the turn ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// Which buffer of the back end.
    pub(crate) buffer: u32,
    /// Offset in it.
    pub(crate) start: u32,
    /// Bytes.
    pub(crate) len: u32,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody connected.
    Accepted {
        /// The connection's socket.
        fd: OwnedFd,
        /// Whether it is a Unix socket.
        is_unix: bool,
    },
    /// Bytes arrived.
    Received {
        /// From which connection.
        token: Token,
        /// Where they are.
        chunk: Chunk,
    },
    /// The buffer given to [`Driver::fill`] is full.
    Filled {
        /// Of which connection.
        token: Token,
        /// The buffer.
        buffer: Vec<u8>,
    },
    /// All of the output given to [`Driver::send`] was sent.
    Sent {
        /// Of which connection.
        token: Token,
        /// The empty output, for use again.
        output: Box<Output>,
    },
    /// The peer closed the connection, or it failed. Nothing further comes for it.
    Closed {
        /// Which connection.
        token: Token,
    },
}

/// Wakes a worker from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker and the descriptor that becomes readable when it is used.
    pub(crate) fn new() -> Result<Self> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        Ok(Waker(Arc::new(rustix::event::eventfd(0, flags)?)))
    }

    /// Ends the worker's wait.
    pub(crate) fn wake(&self) {
        // A full counter means that a wake-up is pending anyway.
        let _already_pending = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Takes the wake-ups so far.
    pub(crate) fn clear(&self) {
        let _nothing_pending = rustix::io::read(&*self.0, &mut [0u8; 8][..]);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        use rustix::fd::AsFd;
        self.0.as_fd()
    }
}

/// Copies what waits to be received on a connection, without taking it. `fd` is the number of the
/// connection's socket, which its worker must not have closed.
pub(crate) fn peek(fd: i32, buffer: &mut [u8]) -> usize {
    if fd < 0 {
        return 0;
    }
    // SAFETY: only the connection's worker closes the socket, and it is the caller, who says that
    // it did not.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    rustix::net::recv(fd, buffer, flags).map_or(0, |(len, _)| len)
}

/// A back end.
pub(crate) trait Driver {
    /// Accepts connections from a listening socket.
    fn listen(&mut self, fd: OwnedFd, is_unix: bool) -> Result<()>;

    /// Stops accepting; closes all listening sockets.
    fn stop_listening(&mut self);

    /// Receives from a new connection.
    fn add(&mut self, token: Token, fd: OwnedFd) -> Result<()>;

    /// Ends a connection and closes its socket. Events for the token may still come from before;
    /// the token is free again after the next turn.
    fn remove(&mut self, token: Token);

    /// Waits until something happens, at most `timeout`, and appends it to `events`: at most one
    /// event with bytes ([`Event::Received`] or [`Event::Filled`]) per connection and turn.
    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> Result<()>;

    /// Received bytes.
    fn bytes(&self, chunk: Chunk) -> &[u8];

    /// Ends the turn: frees all chunks. What was asked for is sent now, or with the next wait.
    fn end_turn(&mut self);

    /// Sends an output, which must not be empty, on a connection that has none under way. `None`
    /// when it is under way and [`Event::Sent`] follows; else the emptied output.
    fn send(&mut self, token: Token, output: Box<Output>) -> Option<Box<Output>>;

    /// Bytes of the output under way that are not yet sent.
    fn unsent(&self, token: Token) -> usize;

    /// Bytes received so far of the buffer given to [`Driver::fill`].
    fn filled_bytes(&self, token: Token) -> usize;

    /// Stops (or goes on) receiving from a connection.
    fn set_reading(&mut self, token: Token, is_reading: bool);

    /// Receives the next bytes of a connection straight into `buffer` until it is `len` long. The
    /// buffer grows as bytes arrive; see [`grow`].
    fn fill(&mut self, token: Token, buffer: Vec<u8>, len: usize);

    /// `epoll` or `io_uring`.
    fn name(&self) -> &'static str;
}

/// Least capacity of a buffer that is being filled. A request to receive into it makes all of it
/// resident with io_uring.
const FILL_BYTES_MIN: usize = 16 * 1024;
/// A buffer that is being filled grows by this factor: to copy a seventh more costs little, and a
/// client that sends little can claim little.
const FILL_GROWTH: usize = 8;

/// Makes room in a buffer on its way to be `len` bytes long, once it is full: for a multiple of
/// what has arrived, not for all that was claimed. An allocation costs memory even where nothing is
/// written, 3 MB for 1 GB as measured. Where there is none left, the buffer stays full.
fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() == buffer.capacity() && buffer.len() < len {
        let target = len.min(FILL_BYTES_MIN.max(buffer.len() * FILL_GROWTH));
        let _stays_full = buffer.try_reserve_exact(target - buffer.len());
    }
}

/// Forgets a list's memory if a burst made it large.
pub(crate) fn trim<T>(list: &mut Vec<T>) {
    const KEPT_MAX: usize = 1024;
    if list.is_empty() && list.capacity() > KEPT_MAX {
        *list = Vec::new();
    }
}

/// An output on its way, and how much of it went.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) output: Box<Output>,
    pub(crate) sent: usize,
}

/// Parts given to one system call at most.
pub(crate) const PARTS_MAX: usize = 64;

impl Sending {
    pub(crate) fn new(output: Box<Output>) -> Self {
        Sending { output, sent: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.output.len() - self.sent
    }

    /// The bytes that are left, in at most [`PARTS_MAX`] parts.
    pub(crate) fn parts(&self) -> smallvec::SmallVec<[IoSlice<'_>; 4]> {
        let mut parts = smallvec::SmallVec::new();
        let mut skip = self.sent;
        let mut add = |bytes| {
            let skipped = skip.min(<[u8]>::len(bytes));
            skip -= skipped;
            if skipped < bytes.len() && parts.len() < PARTS_MAX {
                parts.push(IoSlice::new(&bytes[skipped..]));
            }
        };
        let mut from = 0;
        for (at, value) in &self.output.shared {
            add(&self.output.bytes[from..*at]);
            add(value);
            from = *at;
        }
        add(&self.output.bytes[from..]);
        parts
    }

    /// The output, emptied. Large buffers are given back instead of kept.
    pub(crate) fn finish(self) -> Box<Output> {
        const KEPT_BYTES_MAX: usize = 64 * 1024;
        let mut output = self.output;
        output.shared = Vec::new();
        output.bytes.clear();
        if output.bytes.capacity() > KEPT_BYTES_MAX {
            output.bytes = Vec::new();
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_what_was_sent() {
        let output = Output {
            bytes: b"abcdef".to_vec(),
            shared: vec![(2, Arc::new(b"XY".to_vec())), (6, Arc::new(b"Z".to_vec()))],
        };
        let mut sending = Sending::new(Box::new(output));
        for sent in 0..=9 {
            sending.sent = sent;
            let bytes: Vec<u8> = sending.parts().iter().flat_map(|p| p.to_vec()).collect();
            assert_eq!(bytes, b"abXYcdefZ"[sent..], "after {sent} bytes");
        }
    }
}
