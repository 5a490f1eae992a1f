//! One connection's state as commands see it.

use crate::acl::Account;
use crate::blocking::Waiter;
use crate::charge::{Charge, Sum, heap, shared, table};
use crate::client::{Client, ClientFlags};
use crate::keyspace::WatchFlag;
use crate::leftover::Leftover;
use crate::shared::Shared;
use crate::table::{Entry, Flags};
use hypercache_cluster::ids::Lsn;
use hypercache_protocol::parse::OwnedArgs;
use hypercache_protocol::reply::Version;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Whether replies are sent, as CLIENT REPLY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// They are.
    #[default]
    On,
    /// None is until CLIENT REPLY ON.
    Off,
    /// The next command's is not.
    SkipNext,
    /// The current command's is not.
    Skip,
}

/// A transaction that is being queued.
#[derive(Debug, Default)]
pub struct Multi {
    /// Commands in order.
    pub queue: Vec<(&'static Entry, OwnedArgs)>,
    /// Bytes that the queue takes.
    pub bytes: u64,
    /// A command was refused while queueing, so EXEC will refuse all.
    pub is_aborted: bool,
}

impl Multi {
    /// Whether a command of a client in this transaction is refused above `maxmemory`: the queue
    /// takes memory whatever is queued, and EXEC runs what it holds.
    pub(crate) fn needs_room(&self, entry: &Entry) -> bool {
        match entry.row.name {
            "EXEC" => self.queue.iter().any(|(entry, _)| entry.row.flags.has(Flags::DENY_OOM)),
            "DISCARD" | "QUIT" | "RESET" => false,
            _ => true,
        }
    }
}

/// Keys being watched.
#[derive(Debug)]
pub struct Watch {
    /// Raised when one of them changes.
    pub flag: WatchFlag,
    /// Database and key of each.
    pub keys: HashMap<(u8, Box<[u8]>), ()>,
    /// Bytes of the names of the keys.
    names_bytes: usize,
    charge: Charge,
}

impl Watch {
    /// Of no key yet.
    #[must_use]
    pub fn new(registered: &Arc<Sum>) -> Self {
        let (flag, keys, names_bytes) = Default::default();
        Watch { flag, keys, names_bytes, charge: Charge::new(registered) }
    }

    /// Adds a key. Returns whether it is a new one.
    pub fn insert(&mut self, db: u8, key: &[u8]) -> bool {
        let is_new = self.keys.insert((db, Box::from(key)), ()).is_none();
        if is_new {
            self.names_bytes += heap(key.len());
            let own = heap(size_of::<Self>()) + shared::<std::sync::atomic::AtomicBool>();
            self.charge.set(own + table(&self.keys) + self.names_bytes);
        }
        is_new
    }
}

/// Keys that are no longer watched at once; of further ones it is later on, while there is room.
const UNWATCH_MAX: usize = 256;

/// Subscriptions of a connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// SUBSCRIBE.
    pub channels: BTreeSet<Arc<[u8]>>,
    /// PSUBSCRIBE.
    pub patterns: BTreeSet<Arc<[u8]>>,
    /// SSUBSCRIBE.
    pub shard_channels: BTreeSet<Arc<[u8]>>,
}

/// A record of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWrite {
    /// The partition.
    pub partition: u16,
    /// The record.
    pub lsn: Lsn,
}

/// See the module's text.
#[derive(Debug)]
pub struct Session {
    /// The part that other workers may see.
    pub client: Arc<Client>,
    /// Protocol version of replies.
    pub version: Version,
    /// Selected database.
    pub db: u8,
    /// Whether the password was given, or none is needed.
    pub is_authenticated: bool,
    /// The connection is closed once the reply is sent.
    pub is_closing: bool,
    /// Whether replies are sent.
    pub reply_mode: ReplyMode,
    /// What only few connections have; see [`Cold`].
    cold: Option<Box<Cold>>,
}

// Every byte counts as often as there are connections; what few need belongs into `Cold`.
const _: () = assert!(size_of::<Session>() == 24, "see server::connection");

/// What only few connections have. Made when it is first needed; stays until the connection ends.
#[derive(Debug, Default)]
pub struct Cold {
    /// The client's user; none is the default user.
    pub account: Option<Arc<Account>>,
    /// The transaction being queued.
    pub multi: Option<Box<Multi>>,
    /// Keys being watched.
    pub watch: Option<Box<Watch>>,
    /// Subscriptions.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What the client waits for, in a command that blocks.
    pub blocked: Option<Arc<Waiter>>,
    /// In a cluster: the client's last write, which WAIT asks about.
    pub last_write: Option<LastWrite>,
    /// While the client tracks keys: the prefixes of those it wants to know of, if it is not for those
    /// it reads.
    pub tracking: Option<BTreeSet<Box<[u8]>>>,
}

impl Session {
    /// The session of a client that just connected.
    #[must_use]
    pub fn new(client: Arc<Client>, is_authenticated: bool) -> Self {
        client.set_flag(ClientFlags::AUTHENTICATED, is_authenticated);
        Session {
            client,
            version: Version::V2,
            db: 0,
            is_authenticated,
            is_closing: false,
            reply_mode: ReplyMode::On,
            cold: None,
        }
    }

    /// What only few connections have, if this one has it.
    #[inline]
    #[must_use]
    pub fn cold(&self) -> Option<&Cold> {
        self.cold.as_deref()
    }

    /// The same, made if it was not there.
    pub fn make_cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// The client's user; none is the default user.
    #[inline]
    #[must_use]
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.cold()?.account.as_ref()
    }

    /// The transaction being queued.
    #[inline]
    #[must_use]
    pub fn multi(&self) -> Option<&Multi> {
        self.cold()?.multi.as_deref()
    }

    /// The transaction being queued.
    #[must_use]
    pub fn multi_mut(&mut self) -> Option<&mut Multi> {
        self.cold.as_mut()?.multi.as_deref_mut()
    }

    /// Ends queueing.
    #[must_use]
    pub(crate) fn take_multi(&mut self) -> Option<Box<Multi>> {
        self.cold.as_mut()?.multi.take()
    }

    /// Keys being watched.
    #[must_use]
    pub fn watch(&self) -> Option<&Watch> {
        self.cold()?.watch.as_deref()
    }

    /// Ends watching. The keys stay registered.
    #[must_use]
    pub(crate) fn take_watch(&mut self) -> Option<Box<Watch>> {
        self.cold.as_mut()?.watch.take()
    }

    /// Subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> Option<&Subscriptions> {
        self.cold()?.subscriptions.as_deref()
    }

    /// Subscriptions.
    #[must_use]
    pub(crate) fn subscriptions_mut(&mut self) -> Option<&mut Subscriptions> {
        self.cold.as_mut()?.subscriptions.as_deref_mut()
    }

    /// Whether a command means what it says: no transaction is being queued, and nothing is
    /// subscribed to.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.cold().is_none_or(|cold| cold.multi.is_none() && cold.subscriptions.is_none())
    }

    /// Whether the client tracks keys that it keeps copies of.
    #[inline]
    #[must_use]
    pub fn is_tracking(&self) -> bool {
        self.cold().is_some_and(|cold| cold.tracking.is_some())
    }

    /// What the client waits for, in a command that blocks.
    #[inline]
    #[must_use]
    pub fn blocked(&self) -> Option<&Arc<Waiter>> {
        self.cold()?.blocked.as_ref()
    }

    /// Selects a database.
    pub fn select(&mut self, db: u8) {
        self.db = db;
        self.client.set_db(db);
    }

    /// Chooses the protocol version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
        self.client.set_flag(ClientFlags::RESP3, version == Version::V3);
    }

    /// Whether only subscription commands are allowed (RESP2 with subscriptions).
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions().is_some()
    }

    /// Bytes of the transaction that is being queued.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.multi().map_or(0, |multi| multi.bytes as usize)
    }

    /// Forgets the transaction and the watched keys.
    pub fn discard_transaction(&mut self, shared: &Shared) {
        if let Some(cold) = &mut self.cold {
            cold.multi = None;
        }
        self.client.set_queued(-1);
        self.client.set_flag(ClientFlags::MULTI, false);
        self.unwatch(shared);
    }

    /// Forgets the watched keys. Those of partitions that are held, by whomever, are removed later.
    pub fn unwatch(&mut self, shared: &Shared) {
        let Some(watch) = self.take_watch() else { return };
        self.client.set_flag(ClientFlags::DIRTY, false);
        let Watch { flag, keys, charge, .. } = *watch;
        let mut left = VecDeque::new();
        let max = if shared.leftovers.is_full() { usize::MAX } else { UNWATCH_MAX };
        for (n, (db, key)) in keys.into_keys().enumerate() {
            let lock = || shared.keyspace.try_lock(crate::keyspace::partition_of(&key));
            match (n < max).then(lock).flatten() {
                Some(mut shard) => shard.history.unwatch(db, &key, &flag),
                None => left.push_back((db, key)),
            }
        }
        if !left.is_empty() {
            shared.leftovers.add(Leftover::Watch { flag, left, charge });
        }
    }

    /// What must be undone when the connection ends. No lock may be held.
    pub fn close(&mut self, shared: &Shared) {
        crate::blocking::abandon(shared, self);
        self.discard_transaction(shared);
        crate::pubsub::unsubscribe_all(shared, self);
        crate::monitor::stop_monitoring(shared, self);
        crate::tracking::disable(shared, self);
        shared.keyspace.leases.end_client(self.client.id);
        self.client.set_flag(ClientFlags::GONE, true);
        shared.clients.remove(&self.client);
    }
}
