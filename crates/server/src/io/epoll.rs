//! The epoll back end: level-triggered readiness, one receive per ready connection and turn into a
//! buffer of the worker, one send per connection and turn.

use super::{Chunk, Driver, Event, Sending, Token, Waker};
use hypercache_protocol::reply::Output;
use hypercache_stdx::chunks::Chunks;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use std::io::Result;
use std::time::Duration;

/// The receive buffer of a worker. What does not fit waits for the next turn.
const BUFFER_BYTES: usize = 1 << 20;
/// Most that is received from one connection in a turn.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Connections accepted per turn and listener.
const ACCEPTS: usize = 64;
const EVENTS: usize = 512;

const WAKER: u64 = u64::MAX;
const LISTENER: u64 = 1 << 32;

/// What the back end knows of a connection.
#[derive(Default)]
struct Slot {
    fd: Option<OwnedFd>,
    sending: Option<Box<Sending>>,
    filling: Option<Box<(Vec<u8>, usize)>>,
    is_reading: bool,
}

const _: () = assert!(size_of::<Slot>() == 24, "see server::connection");

/// See the module's text.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    listeners: Vec<(OwnedFd, bool)>,
    slots: Chunks<Slot>,
    buffer: Box<[u8]>,
    used: usize,
    ready: Vec<epoll::Event>,
}

impl Epoll {
    pub(crate) fn new(waker: Waker) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(WAKER);
        epoll::add(&epoll, waker.fd(), data, epoll::EventFlags::IN)?;
        Ok(Epoll {
            epoll,
            waker,
            listeners: Vec::new(),
            slots: Chunks::default(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            used: 0,
            ready: Vec::with_capacity(EVENTS),
        })
    }

    /// Tells the kernel what the connection waits for.
    fn update(&self, token: Token) {
        let slot = &self.slots[token as usize];
        let Some(fd) = &slot.fd else { return };
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, slot.is_reading);
        flags.set(epoll::EventFlags::OUT, slot.sending.is_some());
        let data = epoll::EventData::new_u64(u64::from(token));
        // The descriptor is ours and registered, so this can only fail for lack of memory; then
        // the old interest stays and the connection is seen again.
        let _keeps_old_interest = epoll::modify(&self.epoll, fd, data, flags);
    }

    fn accept(&mut self, index: usize, events: &mut Vec<Event>) {
        let (listener, is_unix) = &self.listeners[index];
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(listener, flags) {
                Ok(fd) => events.push(Event::Accepted { fd, is_unix: *is_unix }),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Out of descriptors: the connection stays in the backlog.
                Err(_) => return,
            }
        }
    }

    fn receive(&mut self, token: Token, events: &mut Vec<Event>) {
        let slot = &mut self.slots[token as usize];
        if slot.filling.is_some() {
            return self.receive_into(token, events);
        }
        let Some(fd) = &slot.fd else { return };
        let room = (self.buffer.len() - self.used).min(RECEIVE_BYTES);
        if room == 0 || !slot.is_reading {
            return;
        }
        let target = &mut self.buffer[self.used..self.used + room];
        match recv(fd, target, RecvFlags::empty()) {
            Ok((0, _)) => events.push(Event::Closed { token }),
            Ok((n, _)) => {
                let chunk = Chunk { buffer: 0, start: self.used as u32, len: n as u32 };
                self.used += n;
                events.push(Event::Received { token, chunk });
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => events.push(Event::Closed { token }),
        }
    }

    fn receive_into(&mut self, token: Token, events: &mut Vec<Event>) {
        let slot = &mut self.slots[token as usize];
        let (Some(fd), Some(filling)) = (&slot.fd, &mut slot.filling) else { return };
        let (buffer, len) = &mut **filling;
        super::grow(buffer, *len);
        // Without any room left the connection ends as if the peer had closed it.
        match recv(fd, spare_capacity(buffer), RecvFlags::empty()) {
            Ok((0, _)) => return events.push(Event::Closed { token }),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return events.push(Event::Closed { token }),
        }
        if buffer.len() < *len {
            return;
        }
        // A capacity above what was asked for may have let in bytes of the next request.
        let excess = buffer.split_off(*len);
        let buffer = std::mem::take(buffer);
        slot.filling = None;
        events.push(Event::Filled { token, buffer });
        if !excess.is_empty() {
            let start = self.used;
            self.used += excess.len();
            self.buffer[start..self.used].copy_from_slice(&excess);
            let chunk = Chunk { buffer: 0, start: start as u32, len: excess.len() as u32 };
            events.push(Event::Received { token, chunk });
        }
    }

    /// Goes on sending. Returns whether all was sent; errors close the connection.
    fn transmit(&mut self, token: Token, events: &mut Vec<Event>) {
        let slot = &mut self.slots[token as usize];
        let (Some(fd), Some(sending)) = (&slot.fd, &mut slot.sending) else { return };
        match send_some(fd, sending) {
            Ok(()) if sending.left() == 0 => {}
            Ok(()) => return,
            Err(_) => return events.push(Event::Closed { token }),
        }
        if let Some(sending) = slot.sending.take() {
            events.push(Event::Sent { token, output: sending.finish() });
        }
        self.update(token);
    }
}

/// Sends as much as the socket takes.
fn send_some(fd: &OwnedFd, sending: &mut Sending) -> rustix::io::Result<()> {
    while sending.left() > 0 {
        let result = if sending.output.shared.is_empty() {
            send(fd, &sending.output.bytes[sending.sent..], SendFlags::NOSIGNAL)
        } else {
            rustix::io::writev(fd, &sending.parts())
        };
        match result {
            Ok(n) => sending.sent += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Driver for Epoll {
    fn listen(&mut self, fd: OwnedFd, is_unix: bool) -> Result<()> {
        let data = epoll::EventData::new_u64(LISTENER + self.listeners.len() as u64);
        epoll::add(&self.epoll, &fd, data, epoll::EventFlags::IN)?;
        self.listeners.push((fd, is_unix));
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    fn add(&mut self, token: Token, fd: OwnedFd) -> Result<()> {
        let data = epoll::EventData::new_u64(u64::from(token));
        epoll::add(&self.epoll, &fd, data, epoll::EventFlags::IN)?;
        let slot = Slot { fd: Some(fd), sending: None, filling: None, is_reading: true };
        if self.slots.len() == token as usize {
            self.slots.push(slot);
        } else {
            self.slots[token as usize] = slot;
        }
        Ok(())
    }

    fn remove(&mut self, token: Token) {
        // Closing the last descriptor of a socket also takes it out of epoll.
        self.slots[token as usize] =
            Slot { fd: None, sending: None, filling: None, is_reading: false };
    }

    fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> Result<()> {
        self.ready.clear();
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut ready = std::mem::take(&mut self.ready);
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == WAKER {
                self.waker.clear();
            } else if data >= LISTENER {
                let index = (data - LISTENER) as usize;
                if index < self.listeners.len() {
                    self.accept(index, events);
                }
            } else {
                let token = data as Token;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.transmit(token, events);
                }
                if flags.intersects(epoll::EventFlags::IN) {
                    self.receive(token, events);
                } else if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    events.push(Event::Closed { token });
                }
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn bytes(&self, chunk: Chunk) -> &[u8] {
        &self.buffer[chunk.start as usize..][..chunk.len as usize]
    }

    fn end_turn(&mut self) {
        self.used = 0;
    }

    fn send(&mut self, token: Token, output: Box<Output>) -> Option<Box<Output>> {
        let slot = &mut self.slots[token as usize];
        let mut sending = Sending::new(output);
        let Some(fd) = &slot.fd else { return Some(sending.finish()) };
        // An error shows up again as readiness, and closes the connection there.
        let result = send_some(fd, &mut sending);
        if result.is_err() || sending.left() == 0 {
            return Some(sending.finish());
        }
        slot.sending = Some(Box::new(sending));
        self.update(token);
        None
    }

    fn unsent(&self, token: Token) -> usize {
        self.slots[token as usize].sending.as_ref().map_or(0, |s| s.left())
    }

    fn filled_bytes(&self, token: Token) -> usize {
        self.slots[token as usize].filling.as_ref().map_or(0, |filling| filling.0.len())
    }

    fn set_reading(&mut self, token: Token, is_reading: bool) {
        if self.slots[token as usize].is_reading != is_reading {
            self.slots[token as usize].is_reading = is_reading;
            self.update(token);
        }
    }

    fn fill(&mut self, token: Token, buffer: Vec<u8>, len: usize) {
        self.slots[token as usize].filling = Some(Box::new((buffer, len)));
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}
