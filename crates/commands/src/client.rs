//! What all workers may know of a connection, and the list of all connections.
//!
//! A connection lives on one worker; its [`Client`] is the part that CLIENT LIST, CLIENT KILL and
//! PUBLISH reach from another. About 100 bytes, mostly atomics that only its worker writes.

use hypercache_stdx::chunks::Chunks;
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// One end of a connection, in 16 bytes. Shown as `address:port`, `path:0` of a Unix socket, or
/// `?:0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Not known.
    #[default]
    Unknown,
    /// IPv4, what most clients use.
    V4(SocketAddrV4),
    /// Any other.
    Other(Box<OtherAddress>),
}

/// An address that is longer than most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherAddress {
    /// IPv6.
    Ip(SocketAddr),
    /// Path of a Unix socket.
    Unix(String),
}

impl Address {
    /// The address of a Unix socket at `path`.
    #[must_use]
    pub fn unix(path: String) -> Self {
        Address::Other(Box::new(OtherAddress::Unix(path)))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Address::V4(address) => address.ip().is_loopback(),
            Address::Other(other) => match &**other {
                OtherAddress::Ip(address) => match address.ip() {
                    IpAddr::V4(ip) => ip.is_loopback(),
                    IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
                },
                OtherAddress::Unix(_) => true,
            },
            Address::Unknown => false,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Address::V4(address),
            SocketAddr::V6(_) => Address::Other(Box::new(OtherAddress::Ip(address))),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unknown => f.write_str("?:0"),
            Address::V4(address) => write!(f, "{address}"),
            Address::Other(other) => match &**other {
                OtherAddress::Ip(address) => write!(f, "{address}"),
                OtherAddress::Unix(path) => write!(f, "{path}:0"),
            },
        }
    }
}

/// Names that a client gave itself; most give none.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: Box<[u8]>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Box<[u8]>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: Box<[u8]>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    /// Unique for the life of the process, in order of arrival.
    pub id: u64,
    /// Number of the worker that serves it.
    pub worker: u16,
    /// The number of its socket, which CLIENT LIST shows; -1 for a client without one (tests).
    pub fd: i32,
    /// The other end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
    /// The worker's number for its connection.
    pub token: AtomicU32,
    /// Its place among all clients.
    slot: AtomicU32,
    /// When it connected, in seconds since the epoch.
    pub created_s: u32,
    /// When it last sent a command, in seconds since the epoch.
    pub active_s: AtomicU32,
    /// Number of its last command plus one ([`crate::table::Entry::id`]); 0 before the first.
    pub last_command: AtomicU16,
    /// Selected database.
    pub db: AtomicU8,
    /// RESP version: 2 or 3.
    pub resp: AtomicU8,
    /// Bits of [`ClientFlags`].
    pub flags: AtomicU32,
    /// Commands queued in MULTI, or -1.
    pub queued: AtomicI32,
    /// Channel subscriptions.
    pub channels: AtomicU32,
    /// Pattern subscriptions.
    pub patterns: AtomicU32,
    /// Shard channel subscriptions.
    pub shard_channels: AtomicU32,
    /// Bytes of requests that are not complete.
    pub query_bytes: AtomicU32,
    /// Bytes waiting to be sent, messages on their way from other workers included.
    pub output_bytes: AtomicU64,
    /// Set by CLIENT KILL and by a publisher that finds the output beyond its limit.
    pub is_killed: AtomicBool,
    names: Mutex<Option<Box<Names>>>,
}

/// Properties of a client that CLIENT LIST shows as letters.
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
}

impl Client {
    /// A client that just connected.
    #[must_use]
    pub fn new(
        id: u64,
        worker: u16,
        fd: i32,
        (peer, local): (Address, Address),
        now_s: u32,
    ) -> Self {
        Client {
            id,
            worker,
            fd,
            peer,
            local,
            token: AtomicU32::new(0),
            slot: AtomicU32::new(u32::MAX),
            created_s: now_s,
            active_s: AtomicU32::new(now_s),
            last_command: AtomicU16::new(0),
            db: AtomicU8::new(0),
            resp: AtomicU8::new(2),
            flags: AtomicU32::new(0),
            queued: AtomicI32::new(-1),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            query_bytes: AtomicU32::new(0),
            output_bytes: AtomicU64::new(0),
            is_killed: AtomicBool::new(false),
            names: Mutex::new(None),
        }
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.peer.is_loopback()
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    /// Sets or clears a flag; only the client's worker may.
    pub fn set_flag(&self, flag: u32, on: bool) {
        let flags = self.flags.load(Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Relaxed);
    }

    /// The names it gave itself.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.lock().as_deref().cloned().unwrap_or_default()
    }

    /// Changes its names.
    pub fn rename(&self, f: impl FnOnce(&mut Names)) {
        let mut names = self.names.lock();
        let mut new = names.take().unwrap_or_default();
        f(&mut new);
        let is_empty = new.name.is_empty() && new.lib_name.is_empty() && new.lib_version.is_empty();
        *names = (!is_empty).then_some(new);
    }
}

/// All connections, 9 bytes each beside the client itself. Those that come and go are found at once;
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
