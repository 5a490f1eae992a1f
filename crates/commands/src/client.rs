//! What all workers may know of a connection, and the list of all connections.
//!
//! A connection lives on one worker; its [`Client`] is the part that CLIENT LIST, CLIENT KILL and
//! PUBLISH reach from another. It takes 96 bytes with the counts of its `Arc`, which is a class of
//! the allocator, and 8 in the list. Most clients need no more: what only few have (names,
//! subscriptions, a transaction) is in one box that is made when it is first needed ([`Cold`]), and
//! addresses that are no IPv4 are in another.
//!
//! What a whole connection costs stands in `server::connection`.

use crate::acl::Account;
use hypercache_stdx::chunks::Chunks;
use parking_lot::Mutex;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicI32, AtomicU16, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};

/// One end of a connection. Shown as `address:port`, `path:0` of a Unix socket, or `?:0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Not known.
    #[default]
    Unknown,
    /// IPv4 or IPv6.
    Ip(SocketAddr),
    /// Path of a Unix socket.
    Unix(String),
    /// A script, which monitors see as the sender of its commands.
    Script,
}

impl Address {
    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Ip(address) => Some(address.port()),
            Address::Unix(_) | Address::Script | Address::Unknown => None,
        }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Address::Ip(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) | Address::Script => true,
            Address::Unknown => false,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unknown => f.write_str("?:0"),
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{path}:0"),
            Address::Script => f.write_str("lua"),
        }
    }
}

/// The other end of a connection and ours, in 16 bytes.
#[derive(Clone, Debug)]
enum Ends {
    /// What most clients use.
    V4(SocketAddrV4, SocketAddrV4),
    Other(Box<(Address, Address)>),
}

impl From<(Address, Address)> for Ends {
    fn from(ends: (Address, Address)) -> Self {
        match ends {
            (Address::Ip(SocketAddr::V4(peer)), Address::Ip(SocketAddr::V4(local))) => {
                Ends::V4(peer, local)
            }
            other => Ends::Other(Box::new(other)),
        }
    }
}

/// Names that a client gave itself, and its user; most give none and have the default user.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: Box<[u8]>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Box<[u8]>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: Box<[u8]>,
    /// Its user; none is the default user.
    pub account: Option<Arc<Account>>,
}

/// What only few clients have. Once made it stays until the client goes.
#[derive(Debug)]
pub struct Cold {
    names: Mutex<Names>,
    /// Commands queued in MULTI, or -1.
    pub queued: AtomicI32,
    /// Channel subscriptions.
    pub channels: AtomicU32,
    /// Pattern subscriptions.
    pub patterns: AtomicU32,
    /// Shard channel subscriptions.
    pub shard_channels: AtomicU32,
    /// Number of the client that is told in its stead of what it tracks, and that client.
    redirect: Mutex<Option<(u64, Weak<Client>)>>,
}

impl Default for Cold {
    fn default() -> Self {
        Cold {
            names: Mutex::default(),
            queued: AtomicI32::new(-1),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            redirect: Mutex::default(),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    /// Unique for the life of the process, in order of arrival.
    pub id: u64,
    ends: Ends,
    cold: OnceLock<Box<Cold>>,
    /// Bytes waiting to be sent, messages on their way from other workers included.
    pub output_bytes: AtomicU64,
    /// Bytes of requests that are not complete.
    pub query_bytes: AtomicU32,
    /// Bits of [`ClientFlags`], and the selected database from bit [`DB_SHIFT`] on.
    flags: AtomicU32,
    /// The number of its socket, which CLIENT LIST shows; -1 for a client without one (tests).
    pub fd: i32,
    /// The worker's number for its connection.
    pub token: AtomicU32,
    /// Its place among all clients.
    slot: AtomicU32,
    /// When it connected, in seconds since the epoch.
    pub created_s: u32,
    /// When it last sent a command, in seconds since the epoch.
    pub active_s: AtomicU32,
    /// Number of the worker that serves it.
    pub worker: u16,
    /// Number of its last command plus one ([`crate::table::Entry::id`]); 0 before the first.
    pub last_command: AtomicU16,
}

// With the two counts of an `Arc`: 96 bytes, which is a class of the allocator.
const _: () = assert!(size_of::<Client>() == 80, "see the module's text");

/// Where the selected database begins among the flags; below it is room for 24 of them.
const DB_SHIFT: u32 = 24;

/// Properties of a client that CLIENT LIST shows, most of them as letters.
#[derive(Debug)]
pub struct ClientFlags;

impl ClientFlags {
    /// `O`: a monitor.
    pub const MONITOR: u32 = 1;
    /// `P`: in subscribe mode.
    pub const PUBSUB: u32 = 1 << 1;
    /// `x`: in a transaction.
    pub const MULTI: u32 = 1 << 2;
    /// `d`: a watched key changed.
    pub const DIRTY: u32 = 1 << 3;
    /// `U`: connected through a Unix socket.
    pub const UNIX: u32 = 1 << 4;
    /// `e`: excluded from client eviction.
    pub const NO_EVICT: u32 = 1 << 5;
    /// `T`: its reads are no use of a key.
    pub const NO_TOUCH: u32 = 1 << 6;
    /// `c`: closed after the reply.
    pub const CLOSING: u32 = 1 << 7;
    /// Authenticated, not shown.
    pub const AUTHENTICATED: u32 = 1 << 8;
    /// `A`: killed by CLIENT KILL, or by a publisher that found the output beyond its limit.
    pub const KILLED: u32 = 1 << 9;
    /// Its replies are of RESP version 3.
    pub const RESP3: u32 = 1 << 10;
    /// `b`: waits in a command that blocks.
    pub const BLOCKED: u32 = 1 << 11;
    /// Speaks the memcached protocol; not shown as a letter.
    pub const MEMCACHED: u32 = 1 << 12;
    /// `t`: tracks keys that it keeps copies of.
    pub const TRACKING: u32 = 1 << 13;
    /// `R`: the client that was to be told in its stead is gone.
    pub const BROKEN_REDIRECT: u32 = 1 << 14;
    /// `B`: tracks all keys that begin with its prefixes.
    pub const BROADCAST: u32 = 1 << 15;
    /// Tracks what it reads after CLIENT CACHING YES only.
    pub const OPT_IN: u32 = 1 << 16;
    /// Tracks what it reads but after CLIENT CACHING NO.
    pub const OPT_OUT: u32 = 1 << 17;
    /// Is not told of what it changes itself.
    pub const NO_LOOP: u32 = 1 << 18;
    /// CLIENT CACHING was just given.
    pub const CACHING: u32 = 1 << 19;
    /// It is not connected any more.
    pub const GONE: u32 = 1 << 20;
    /// It said that it goes where a redirection sends it.
    pub const REDIRECT_CAPABLE: u32 = 1 << 21;
    /// READONLY: it reads from copies of other nodes' partitions, too.
    pub const READS_COPIES: u32 = 1 << 22;
}

impl Client {
    /// A client that just connected.
    #[must_use]
    pub fn new(id: u64, worker: u16, fd: i32, ends: (Address, Address), now_s: u32) -> Self {
        Client {
            id,
            ends: ends.into(),
            cold: OnceLock::new(),
            output_bytes: AtomicU64::new(0),
            query_bytes: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            fd,
            token: AtomicU32::new(0),
            slot: AtomicU32::new(u32::MAX),
            created_s: now_s,
            active_s: AtomicU32::new(now_s),
            worker,
            last_command: AtomicU16::new(0),
        }
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Address {
        match &self.ends {
            Ends::V4(peer, _) => Address::Ip(SocketAddr::V4(*peer)),
            Ends::Other(ends) => ends.0.clone(),
        }
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> Address {
        match &self.ends {
            Ends::V4(_, local) => Address::Ip(SocketAddr::V4(*local)),
            Ends::Other(ends) => ends.1.clone(),
        }
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.peer().is_loopback()
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    /// Sets or clears a flag; only the client's worker may.
    pub fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Relaxed);
        } else {
            self.flags.fetch_and(!flag, Relaxed);
        }
    }

    /// Marks it as killed. Returns whether it was before.
    pub(crate) fn kill(&self) -> bool {
        self.flags.fetch_or(ClientFlags::KILLED, AcqRel) & ClientFlags::KILLED != 0
    }

    /// Whether it was killed; it may be connected for a moment yet.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.flags.load(Acquire) & ClientFlags::KILLED != 0
    }

    /// The selected database.
    #[must_use]
    pub fn db(&self) -> u8 {
        (self.flags.load(Relaxed) >> DB_SHIFT) as u8
    }

    /// Notes which database is selected; only the client's worker may.
    pub fn set_db(&self, db: u8) {
        let change = u32::from(self.db() ^ db) << DB_SHIFT;
        self.flags.fetch_xor(change, Relaxed);
    }

    /// What few clients have, if this one has it.
    #[must_use]
    pub fn cold(&self) -> Option<&Cold> {
        self.cold.get().map(|cold| &**cold)
    }

    /// What few clients have, made if it was not there.
    pub fn make_cold(&self) -> &Cold {
        self.cold.get_or_init(Box::default)
    }

    /// Notes how many commands are queued in MULTI; -1: it is not in a transaction.
    pub fn set_queued(&self, count: i32) {
        if count >= 0 {
            self.make_cold().queued.store(count, Relaxed);
        } else if let Some(cold) = self.cold() {
            cold.queued.store(-1, Relaxed);
        }
    }

    /// Number of the client that is told in its stead of what it tracks, and that client unless it is
    /// gone.
    #[must_use]
    pub fn redirect(&self) -> Option<(u64, Option<Arc<Client>>)> {
        let (id, target) = self.cold()?.redirect.lock().clone()?;
        let target = target.upgrade().filter(|target| !target.has(ClientFlags::GONE));
        Some((id, target))
    }

    /// Has another client told in its stead of what it tracks.
    pub(crate) fn set_redirect(&self, target: Option<&Arc<Client>>) {
        if target.is_some() || self.cold().is_some() {
            let target = target.map(|target| (target.id, Arc::downgrade(target)));
            *self.make_cold().redirect.lock() = target;
        }
    }

    /// The names it gave itself.
    #[must_use]
    pub fn names(&self) -> Names {
        self.cold().map(|cold| cold.names.lock().clone()).unwrap_or_default()
    }

    /// Changes its names.
    pub fn rename(&self, f: impl FnOnce(&mut Names)) {
        f(&mut self.make_cold().names.lock());
    }
}

/// All connections, 8 bytes each beside the client itself. Those that come and go are found at once;
/// looking for an id, which only CLIENT does, looks at all.
#[derive(Debug, Default)]
pub struct Clients {
    slots: Mutex<Slots>,
    connected: AtomicU64,
    last_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Slots {
    clients: Chunks<Option<Arc<Client>>>,
    free: Vec<u32>,
}

impl Clients {
    /// The id of the next client.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    /// Adds a client.
    pub fn add(&self, client: Arc<Client>) {
        let mut slots = self.slots.lock();
        let Slots { clients, free } = &mut *slots;
        let slot = free.pop().unwrap_or_else(|| clients.push(None) as u32);
        client.slot.store(slot, Relaxed);
        clients[slot as usize] = Some(client);
        self.connected.fetch_add(1, Relaxed);
    }

    /// Removes a client that was added.
    pub fn remove(&self, client: &Client) {
        let mut slots = self.slots.lock();
        let slot = client.slot.load(Relaxed);
        let is_there = |other: &mut Arc<Client>| other.id == client.id;
        let removed = slots.clients.get_mut(slot as usize).and_then(|c| c.take_if(is_there));
        if removed.is_some() {
            slots.free.push(slot);
            self.connected.fetch_sub(1, Relaxed);
        }
    }

    /// The client with an id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.slots.lock().clients.iter().flatten().find(|client| client.id == id).cloned()
    }

    /// All clients in order of arrival.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.slots.lock().clients.iter().flatten().cloned().collect();
        all.sort_unstable_by_key(|client| client.id);
        all
    }

    /// How many are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connected.load(Relaxed) as usize
    }

    /// Whether none is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_and_flags_leave_each_other_alone() {
        let client = Client::new(1, 0, -1, Default::default(), 0);
        client.set_flag(ClientFlags::MULTI, true);
        client.set_db(15);
        assert!(!client.kill() && client.kill());
        client.set_db(4);
        client.set_flag(ClientFlags::MULTI, false);
        assert_eq!((client.db(), client.is_killed()), (4, true));
        assert!(!client.has(ClientFlags::MULTI));
    }

    #[test]
    fn ends_are_told_as_they_were_given() {
        let ip = |text: &str| Address::Ip(text.parse().expect("an address"));
        let unix = || Address::Unix("/run/h.sock".into());
        for (peer, local, is_local) in [
            (ip("127.0.0.1:5"), ip("127.0.0.1:6379"), true),
            (ip("10.0.0.1:5"), ip("10.0.0.2:6379"), false),
            (ip("[::1]:5"), ip("[::1]:6379"), true),
            (ip("[::ffff:127.0.0.1]:5"), Address::Unknown, true),
            (unix(), unix(), true),
            (Address::Unknown, Address::Unknown, false),
        ] {
            let client = Client::new(1, 0, -1, (peer.clone(), local.clone()), 0);
            assert_eq!((client.peer(), client.local(), client.is_local()), (peer, local, is_local));
        }
    }

    #[test]
    fn a_client_that_does_nothing_special_has_no_cold_part() {
        let client = Client::new(1, 0, -1, Default::default(), 0);
        client.set_queued(-1);
        assert!(client.names().name.is_empty() && client.cold().is_none());
        client.rename(|names| names.name = Box::from(&b"n"[..]));
        assert_eq!(client.cold().map(|cold| cold.queued.load(Relaxed)), Some(-1));
    }
}
