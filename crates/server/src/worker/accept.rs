//! New connections: which worker gets one, and whether it is served.

use super::Worker;
use crate::connection::Connection;
use crate::io::{Driver, Waker};
use crate::listen::tune;
use hypercache_commands::Session;
use hypercache_commands::client::{Address, Client, ClientFlags};
use hypercache_stdx::mailbox::Mailbox;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::SocketAddrAny;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// New connections on their way to a worker: the acceptor's side of it. On a line of the cache of its
/// own, for its worker looks at it each turn.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Inbox {
    sockets: Mailbox<(OwnedFd, bool)>,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Inbox { sockets: Mailbox::new(), waker: Waker::new()? })
    }

    /// What ends the wait of its worker.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Hands a socket over, and says whether it is a Unix socket.
    pub(crate) fn push(&self, fd: OwnedFd, is_unix: bool) {
        if self.sockets.push((fd, is_unix)) {
            self.waker.wake();
        }
    }

    /// Takes all that is there.
    #[inline]
    pub(crate) fn take(&self) -> Vec<(OwnedFd, bool)> {
        self.sockets.take()
    }
}

impl<D: Driver> Worker<D> {
    /// Gives a new connection to the next worker in turn.
    pub(super) fn deal(&mut self, fd: OwnedFd, is_unix: bool) {
        let target = self.next_inbox;
        self.next_inbox = (self.next_inbox + 1) % self.shared.workers();
        if self.shared.keyspace.turn.busy_worker() == Some(target) {
            // Its script takes long, and is perhaps to be killed by this very client.
            return self.deal(fd, is_unix);
        }
        if target == self.commands.id {
            return self.connect(fd, is_unix);
        }
        self.inboxes[target].push(fd, is_unix);
    }

    pub(super) fn take_inbox(&mut self) {
        for (fd, is_unix) in self.inboxes[self.commands.id].take() {
            self.connect(fd, is_unix);
        }
    }

    fn connect(&mut self, fd: OwnedFd, is_unix: bool) {
        let hot = &self.shared.config.hot;
        let ends = self.ends_of(&fd, is_unix);
        let is_memcached = self.memcached.is_spoken_at(&ends.1);
        if let Some(text) = self.refusal(is_memcached) {
            self.commands.stats.connections_rejected.add(1);
            let _peer_may_be_gone = rustix::net::send(&fd, text, rustix::net::SendFlags::NOSIGNAL);
            return;
        }
        if !is_unix {
            tune(&fd, hot.keepalive_s.load(Relaxed));
        }
        let now_s = (self.commands.now_ms / 1000) as u32;
        let id = self.shared.clients.next_id();
        let worker = self.commands.id as u16;
        let client = Arc::new(Client::new(id, worker, fd.as_raw_fd(), ends, now_s));
        client.set_flag(ClientFlags::UNIX, is_unix);
        let token = self.connections.reserve();
        if self.driver.add(token, fd).is_err() {
            // Out of kernel resources: dropping the descriptor tells the peer.
            return self.connections.give_back(token);
        }
        self.commands.stats.connections_received.add(1);
        self.shared.clients.add(Arc::clone(&client));
        let mut session = Session::new(client, self.shared.acl.lets_in());
        if is_memcached {
            hypercache_commands::memcached::adopt(&mut session);
        }
        self.connections.insert(token, Connection::new(session));
    }

    /// The other end of a new connection, and ours.
    fn ends_of(&self, fd: &OwnedFd, is_unix: bool) -> (Address, Address) {
        if is_unix {
            let path = Address::Unix(self.shared.config.get("unixsocket"));
            return (path.clone(), path);
        }
        let known = |end: Option<SocketAddrAny>| SocketAddr::try_from(end?).ok().map(Address::Ip);
        let peer = known(rustix::net::getpeername(fd).ok().flatten());
        let local = known(rustix::net::getsockname(fd).ok());
        (peer.unwrap_or_default(), local.unwrap_or_default())
    }
}
