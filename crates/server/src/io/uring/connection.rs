//! A connection of the ring, and the memory that its requests under way refer to. In 48 bytes, and
//! four more by which its token names it: what only few connections have is in boxes.

use crate::io::{Sending, Token};
use hypercache_protocol::reply::Output;
use io_uring::{opcode, squeue, types};
use rustix::fd::{AsRawFd, OwnedFd};

/// Most bytes of one request; the kernel caps it at about twice that.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// What kind of request a completion belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Watches the waker.
    Wake,
    /// Accepts connections.
    Accept,
    /// Receives into the shared buffers.
    Receive,
    /// Receives into a buffer of the worker.
    Fill,
    /// Sends.
    Send,
}

/// What a completion is about; travels through the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// Whether it is the cancellation of the request, not the request.
    pub(super) is_cancel: bool,
    /// Which connection or listener. A place is used again only when the last completion of its
    /// requests has come, so it needs no generation.
    pub(super) index: u32,
}

impl Tag {
    pub(super) fn new(kind: Kind, index: u32) -> Self {
        Tag { kind, is_cancel: false, index }
    }

    pub(super) fn to_bits(self) -> u64 {
        (u64::from(self.is_cancel) << 40) | ((self.kind as u64) << 32) | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let kind = match (bits >> 32) as u8 {
            0 => Kind::Wake,
            1 => Kind::Accept,
            2 => Kind::Receive,
            3 => Kind::Fill,
            _ => Kind::Send,
        };
        Tag { kind, is_cancel: (bits >> 40) != 0, index: bits as u32 }
    }
}

/// A buffer of the worker on its way to be `len` long.
pub(super) struct Filling {
    pub(super) buffer: Vec<u8>,
    pub(super) len: usize,
}

impl Filling {
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= self.len
    }

    /// Appends bytes up to the full length. Returns the rest.
    pub(super) fn append<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = self.len.saturating_sub(self.buffer.len());
        let (own, rest) = bytes.split_at(missing.min(bytes.len()));
        self.buffer.extend_from_slice(own);
        rest
    }

    /// The request that receives what is missing, or a part of it. It refers to memory of the
    /// buffer, which must not be touched meanwhile.
    pub(super) fn request(&mut self, fd: types::Fd) -> squeue::Entry {
        let missing = self.len.saturating_sub(self.buffer.len());
        crate::io::grow(&mut self.buffer, self.len);
        let spare = self.buffer.spare_capacity_mut();
        // Without any room left nothing is received, which ends the connection.
        let len = missing.min(spare.len()).min(REQUEST_BYTES_MAX) as u32;
        // Not all of it at once: what has arrived is to be counted as it arrives.
        opcode::Recv::new(fd, spare.as_mut_ptr().cast(), len).build()
    }

    /// Notes that the request put `count` bytes into the buffer.
    pub(super) fn received(&mut self, count: usize) {
        let len = self.buffer.len() + count;
        assert!(len <= self.buffer.capacity(), "no more bytes than were asked for");
        // SAFETY: the kernel wrote the `count` bytes behind the buffer's length.
        unsafe { self.buffer.set_len(len) };
    }
}

/// An output under way, with the list of its parts for the kernel.
pub(super) struct Flight {
    pub(super) sending: Sending,
    parts: Vec<libc::iovec>,
    message: Option<libc::msghdr>,
}

impl Flight {
    pub(super) fn new(output: Box<Output>) -> Self {
        Flight { sending: Sending::new(output), parts: Vec::new(), message: None }
    }

    /// The request that sends what is left. It refers to memory of `self`, which must stay where
    /// it is and not be touched meanwhile.
    pub(super) fn request(&mut self, fd: types::Fd) -> squeue::Entry {
        let output = &self.sending.output;
        if output.shared.is_empty() {
            let bytes = &output.bytes[self.sending.sent..];
            let len = bytes.len().min(REQUEST_BYTES_MAX) as u32;
            return opcode::Send::new(fd, bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        }
        self.parts.clear();
        self.parts.extend(self.sending.parts().iter().map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        }));
        // SAFETY: the structure consists of integers and pointers, for which zero is valid.
        let empty: libc::msghdr = unsafe { std::mem::zeroed() };
        let message = self.message.insert(empty);
        message.msg_iov = self.parts.as_mut_ptr();
        message.msg_iovlen = self.parts.len() as _;
        opcode::SendMsg::new(fd, message).flags(libc::MSG_NOSIGNAL as u32).build()
    }
}

/// No event of a turn has this place.
pub(super) const NO_EVENT: u32 = u32::MAX;

/// See the module's text.
pub(super) struct Connection {
    pub(super) fd: OwnedFd,
    pub(super) token: Token,
    /// Requests whose last completion did not come yet, cancellations too.
    pub(super) in_flight: u8,
    /// The request that receives, if one is under way: [`Kind::Receive`] or [`Kind::Fill`].
    pub(super) receiving: Option<Kind>,
    /// Whether that request is being cancelled.
    pub(super) is_cancelling: bool,
    /// Whether the worker wants bytes.
    pub(super) is_reading: bool,
    /// No buffer was free; it waits for its turn to receive again.
    pub(super) is_starved: bool,
    /// It is in the list of those with something to tell in the next turn.
    pub(super) is_waiting: bool,
    /// The peer closed it, or it failed.
    pub(super) is_over: bool,
    /// The worker removed it; it waits for the end of its requests.
    pub(super) is_removed: bool,
    /// The turn of the last event with bytes, counted without its upper bits.
    pub(super) turn: u32,
    /// The place of that event, or [`NO_EVENT`] if it was [`super::Event::Filled`].
    pub(super) event: u32,
    /// The output under way. In a box, since the kernel is told where it is.
    pub(super) flight: Option<Box<Flight>>,
    pub(super) filling: Option<Box<Filling>>,
    /// Bytes to deliver in the next turn.
    #[allow(clippy::box_collection, reason = "most hold none, and this is a third of the size")]
    pub(super) held: Option<Box<Vec<u8>>>,
}

// The list keeps them without a box, so none must need a word beside it.
const _: () = assert!(size_of::<Option<Connection>>() == 48, "see server::connection");

impl Connection {
    /// A connection made in a turn; it had no event with bytes in it.
    pub(super) fn new(token: Token, fd: OwnedFd, turn: u32) -> Self {
        Connection {
            fd,
            token,
            in_flight: 0,
            receiving: None,
            is_cancelling: false,
            is_reading: true,
            is_starved: false,
            is_waiting: false,
            is_over: false,
            is_removed: false,
            turn,
            event: NO_EVENT,
            flight: None,
            filling: None,
            held: None,
        }
    }

    /// Keeps bytes for the next turn.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held.get_or_insert_default().extend_from_slice(bytes);
        }
    }

    /// The bytes that were kept.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        self.held.take().map_or_else(Vec::new, |held| *held)
    }

    pub(super) fn raw(&self) -> types::Fd {
        types::Fd(self.fd.as_raw_fd())
    }

    /// Whether something waits to be told in the next turn.
    pub(super) fn has_news(&self) -> bool {
        self.held.is_some() || self.is_filled()
    }

    /// Whether the worker waits for a buffer that is full.
    pub(super) fn is_filled(&self) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.is_full())
    }
}
