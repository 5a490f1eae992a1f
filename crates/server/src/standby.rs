//! What happens to connections while a script takes longer than `busy-reply-threshold`.
//!
//! The worker that runs the script cannot serve its connections. From within the script's
//! interpreter it calls [`Watch::look`] every 20 ms, which
//!
//! * looks at the requests that wait in the sockets of this worker's clients, without taking them: a
//!   SCRIPT KILL or FUNCTION KILL kills the script at once (and is answered when the worker reads it,
//!   a moment later), a SHUTDOWN stops the server;
//! * hands new connections on: those that wait in this worker's inbox, and if it is the one that
//!   accepts, those that wait to be accepted. They go to the standby, one more worker that is started
//!   when first needed, so that a client that connects in order to kill the script can.
//!
//! All other requests of this worker's clients wait until the script is over. Clients of other
//! workers are served; what needs something that the script holds is answered with BUSY.

use crate::io::epoll::Epoll;
use crate::io::peek;
use crate::listen::Listener;
use crate::worker::{Inbox, Worker};
use hypercache_commands::Shared;
use hypercache_commands::client::{Client, ClientFlags};
use hypercache_commands::turn::Kind;
use hypercache_protocol::parse::{Args, Limits, Parser, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with};
use std::io::Result;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Weak};

/// Bytes of waiting requests that are looked at: enough for one of the commands looked for.
const PEEK_BYTES: usize = 256;
/// Connections handed on at a time.
const ACCEPTS_MAX: usize = 64;

struct Watch {
    shared: Weak<Shared>,
    inboxes: Arc<Vec<Inbox>>,
    /// The listening sockets once more, and whether each is a Unix socket.
    listeners: Vec<(OwnedFd, bool)>,
}

/// Has the worker of a script that takes long look after connections.
pub(crate) fn watch(
    shared: &Arc<Shared>,
    inboxes: &Arc<Vec<Inbox>>,
    listeners: &[Listener],
) -> Result<()> {
    let copy = |listener: &Listener| Ok((listener.fd.try_clone()?, listener.is_unix));
    let listeners = listeners.iter().map(copy).collect::<Result<Vec<_>>>()?;
    let (weak, inboxes) = (Arc::downgrade(shared), Arc::clone(inboxes));
    let watch = Watch { shared: weak, inboxes, listeners };
    shared.keyspace.turn.watch(Box::new(move |worker| watch.look(worker)));
    Ok(())
}

impl Watch {
    /// Called by worker number `worker`, whose script takes long.
    fn look(&self, worker: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        for client in shared.clients.all() {
            if client.worker as usize == worker && may_be_looked_at(&client) {
                look_at(&shared, &client);
            }
        }
        let mut waiting = self.inboxes[worker].take();
        // The first worker is the one that accepts.
        if worker == 0 {
            self.accept(&mut waiting);
        }
        if !waiting.is_empty() {
            self.hand_on(&shared, waiting);
        }
    }

    fn accept(&self, waiting: &mut Vec<(OwnedFd, bool)>) {
        for (listener, is_unix) in &self.listeners {
            while waiting.len() < ACCEPTS_MAX && is_readable(listener) {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let Ok(fd) = accept_with(listener, flags) else { break };
                waiting.push((fd, *is_unix));
            }
        }
    }

    fn hand_on(&self, shared: &Arc<Shared>, sockets: Vec<(OwnedFd, bool)>) {
        let id = shared.workers();
        if !shared.has_standby.load(Acquire) && !self.start(shared, id) {
            // Without a thread nobody serves them: they are closed.
            return;
        }
        let inbox = &self.inboxes[id];
        sockets.into_iter().for_each(|(fd, is_unix)| inbox.push(fd, is_unix));
    }

    /// Starts the standby; says whether it could. It ends with the process.
    fn start(&self, shared: &Arc<Shared>, id: usize) -> bool {
        let (shared_, inboxes) = (Arc::clone(shared), Arc::clone(&self.inboxes));
        let body = move || {
            let Ok(driver) = Epoll::new(inboxes[id].waker().clone()) else { return };
            if let Err(error) = Worker::new(shared_, driver, inboxes, id).run() {
                tracing::error!("the standby event loop failed: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("hc-standby".into());
        let is_started = thread.spawn(body).is_ok();
        shared.has_standby.fetch_or(is_started, AcqRel);
        is_started
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Whether what waits in a client's socket begins with a request of somebody who may give orders: not
/// where a request has arrived in part, and not where the next one is not to run yet.
fn may_be_looked_at(client: &Client) -> bool {
    let otherwise = [ClientFlags::MEMCACHED, ClientFlags::BLOCKED, ClientFlags::MULTI];
    client.has(ClientFlags::AUTHENTICATED)
        && !otherwise.iter().any(|flag| client.has(*flag))
        && client.query_bytes.load(Relaxed) == 0
}

/// Does what the first request that waits in a client's socket asks of the script, if it does.
fn look_at(shared: &Shared, client: &Client) {
    let mut buffer = [0; PEEK_BYTES];
    let len = peek(client.fd, &mut buffer);
    let limits = Limits { bulk_bytes_max: PEEK_BYTES, args_max: 8, authenticated: true };
    let mut ranges = Vec::new();
    if Parser::default().next(&buffer[..len], &mut ranges, &limits) != Step::Command {
        return;
    }
    let args = Args::new(&buffer[..len], &ranges, &[]);
    let is = |i: usize, word: &[u8]| args.len() > i && args.get(i).eq_ignore_ascii_case(word);
    let turn = &shared.keyspace.turn;
    if is(0, b"shutdown") && is(1, b"nosave") {
        shared.stop();
    } else if args.len() == 2 && is(1, b"kill") {
        if is(0, b"script") {
            turn.kill_for(client.id, Kind::Script);
        } else if is(0, b"function") {
            turn.kill_for(client.id, Kind::Function);
        }
    }
}
