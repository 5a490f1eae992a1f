//! Keys of a partition that clients keep copies of: the table of client-side caching.
//!
//! A key that a tracking client read has the list of such clients here, until it is written to: then
//! it leaves the table, and they are told. As in Redis the table knows no databases: a write to a key
//! counts for its namesakes too.
//!
//! **Cost**: 41 bytes for a key and one client, the key's own bytes and the free space of a hash table
//! beside. A second client makes a list of eight bytes each. The list is sorted by address, so a read
//! of a key that thousands remember is a binary search. A client that is gone or stopped tracking
//! stays in the lists until the key is written to, or until a list that has no room drops those: at
//! most as many as there are others. How many keys there are in all partitions is bounded by
//! `tracking-table-max-keys`; beyond it arbitrary ones are told of and forgotten.
//!
//! Clients that want to know of all keys with a prefix (BCAST) are not here: a partition only knows
//! whether there are any.

use crate::charge::{Charge, heap, table};
use crate::client::{Client, ClientFlags};
use hypercache_journal::{Change, Effect, Event};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Keys in the tables of all partitions, and clients in their lists.
#[derive(Debug, Default)]
pub struct Totals {
    /// Keys.
    pub keys: AtomicU64,
    /// Clients, as often as they are in a list.
    pub items: AtomicU64,
}

/// Clients that remember a key.
#[derive(Debug)]
enum Readers {
    One(Arc<Client>),
    /// In order of their addresses.
    Many(Vec<Arc<Client>>),
}

impl Readers {
    fn as_slice(&self) -> &[Arc<Client>] {
        match self {
            Readers::One(client) => std::slice::from_ref(client),
            Readers::Many(clients) => clients,
        }
    }

    /// Bytes beside its place in the table.
    fn bytes(&self) -> usize {
        match self {
            Readers::One(_) => 0,
            Readers::Many(clients) => heap(clients.capacity() * size_of::<Arc<Client>>()),
        }
    }

    fn into_vec(self) -> Vec<Arc<Client>> {
        match self {
            Readers::One(client) => vec![client],
            Readers::Many(clients) => clients,
        }
    }

    /// Adds a client that is not among them, which may drop others.
    fn add(&mut self, client: &Arc<Client>) {
        let found = self.as_slice().binary_search_by_key(&Arc::as_ptr(client), Arc::as_ptr);
        let Err(mut at) = found else { return };
        let mut clients = match std::mem::replace(self, Readers::Many(Vec::new())) {
            Readers::One(other) => vec![other],
            Readers::Many(clients) => clients,
        };
        if clients.len() == clients.capacity() {
            clients.retain(|other| other.has(ClientFlags::TRACKING));
            at = clients.partition_point(|other| Arc::as_ptr(other) < Arc::as_ptr(client));
        }
        clients.insert(at, Arc::clone(client));
        *self = Readers::Many(clients);
    }
}

/// What a client that keeps copies is to be told.
#[derive(Debug)]
pub enum Stale {
    /// A key is not what it was.
    Key {
        /// The key.
        key: Box<[u8]>,
        /// Clients that read it.
        readers: Vec<Arc<Client>>,
        /// Whether those who want to know of all keys with a prefix are to know.
        is_broadcast: bool,
        /// Why.
        cause: Cause,
    },
    /// All keys are.
    All,
}

/// Why a copy of a key is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A command changed the key.
    Changed,
    /// The key's time was past.
    Expired,
    /// The key, or that it is remembered, had to make room.
    Dropped,
}

/// The tables of a partition; see the module's text.
#[derive(Debug)]
pub(super) struct Tracked {
    readers: HashMap<Box<[u8]>, Readers>,
    /// Whether some client wants to know of all keys with a prefix.
    pub(super) is_broadcast: bool,
    /// What was not taken yet, with its time in the order of the whole keyspace.
    stale: Vec<(u64, Stale)>,
    totals: Arc<Totals>,
    /// Bytes of `readers` beside its table.
    readers_bytes: usize,
    /// Bytes of all this but of what is stale, which stays for a moment only.
    charge: Charge,
}

/// Numbers what is stale, so that what one command made stale in several partitions is told in the
/// order in which it was.
static STAMP: AtomicU64 = AtomicU64::new(0);

impl Tracked {
    pub(super) fn new(totals: &Arc<Totals>, charge: Charge) -> Self {
        let (readers, stale, totals) = (HashMap::new(), Vec::new(), Arc::clone(totals));
        let (is_broadcast, readers_bytes) = (false, 0);
        let mut tracked = Tracked { readers, is_broadcast, stale, totals, readers_bytes, charge };
        tracked.note_bytes();
        tracked
    }

    fn note_bytes(&mut self) {
        let bytes = heap(size_of::<Self>()) + table(&self.readers) + self.readers_bytes;
        self.charge.set(bytes);
    }

    /// Whether nobody wants to know of a write.
    pub(super) fn is_idle(&self) -> bool {
        self.readers.is_empty() && !self.is_broadcast
    }

    /// Whether it can be dropped.
    pub(super) fn is_empty(&self) -> bool {
        self.is_idle() && self.stale.is_empty()
    }

    /// Whether somebody is to be told.
    pub(super) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Notes that a client read a key.
    pub(super) fn remember(&mut self, key: &[u8], client: &Arc<Client>) {
        match self.readers.get_mut(key) {
            Some(readers) => {
                let (before, bytes) = (readers.as_slice().len(), readers.bytes());
                readers.add(client);
                let change = readers.as_slice().len().wrapping_sub(before);
                self.totals.items.fetch_add(change as u64, Relaxed);
                self.readers_bytes = self.readers_bytes + readers.bytes() - bytes;
            }
            None => {
                self.readers.insert(Box::from(key), Readers::One(Arc::clone(client)));
                self.totals.keys.fetch_add(1, Relaxed);
                self.totals.items.fetch_add(1, Relaxed);
                self.readers_bytes += heap(key.len());
            }
        }
        self.note_bytes();
    }

    /// Notes that a key was written to.
    pub(super) fn note(&mut self, effect: &Effect<'_>) {
        if matches!(effect.change, Change::Flush | Change::Swap(_) | Change::Invalidate(_)) {
            return;
        }
        let readers = self.take_readers(effect.key);
        if readers.is_empty() && !self.is_broadcast {
            return;
        }
        let is_last =
            |stale: &Stale| matches!(stale, Stale::Key { key, .. } if **key == *effect.key);
        if readers.is_empty() && self.stale.last().is_some_and(|(_, stale)| is_last(stale)) {
            // A command that changes a key in many steps is told of once.
            return;
        }
        let cause = match effect.event {
            Event::Expired => Cause::Expired,
            Event::Evicted => Cause::Dropped,
            _ => Cause::Changed,
        };
        let (key, is_broadcast) = (Box::from(effect.key), self.is_broadcast);
        self.add(Stale::Key { key, readers, is_broadcast, cause });
    }

    /// Notes that a database was emptied, which counts for all of them. `is_first`: it is the first
    /// partition of all that were, in which it is told.
    pub(super) fn note_flush(&mut self, is_first: bool) {
        let items: usize = self.readers.values().map(|readers| readers.as_slice().len()).sum();
        self.totals.items.fetch_sub(items as u64, Relaxed);
        self.totals.keys.fetch_sub(self.readers.len() as u64, Relaxed);
        self.readers = HashMap::new();
        self.readers_bytes = 0;
        self.note_bytes();
        if is_first {
            self.add(Stale::All);
        }
    }

    /// Notes that all keys are stale, those that are remembered and those with a prefix.
    pub(super) fn note_all(&mut self) {
        let keys: Vec<Box<[u8]>> = self.readers.keys().cloned().collect();
        for key in keys {
            let readers = self.take_readers(&key);
            self.add(Stale::Key { key, readers, is_broadcast: false, cause: Cause::Changed });
        }
        if self.is_broadcast {
            self.add(Stale::All);
        }
    }

    /// Forgets some key, because there are too many, and has its readers told. `random` chooses
    /// among the first few: walking further would cost more than it is worth. Returns whether there
    /// was one.
    pub(super) fn forget_one(&mut self, random: impl FnOnce(u64) -> u64) -> bool {
        let Some(last) = self.readers.len().min(CHOICE).checked_sub(1) else { return false };
        let chosen = random(last as u64 + 1) as usize;
        let Some(key) = self.readers.keys().nth(chosen).cloned() else { return false };
        let readers = self.take_readers(&key);
        self.add(Stale::Key { key, readers, is_broadcast: false, cause: Cause::Dropped });
        true
    }

    /// Moves what is stale to the end of `stale`.
    pub(super) fn take_stale(&mut self, stale: &mut Vec<(u64, Stale)>) {
        stale.append(&mut self.stale);
    }

    fn add(&mut self, stale: Stale) {
        self.stale.push((STAMP.fetch_add(1, Relaxed), stale));
    }

    fn take_readers(&mut self, key: &[u8]) -> Vec<Arc<Client>> {
        let Some(readers) = self.readers.remove(key) else { return Vec::new() };
        self.totals.keys.fetch_sub(1, Relaxed);
        self.totals.items.fetch_sub(readers.as_slice().len() as u64, Relaxed);
        self.readers_bytes -= heap(key.len()) + readers.bytes();
        self.note_bytes();
        readers.into_vec()
    }
}

/// Among how many keys [`Tracked::forget_one`] chooses.
const CHOICE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64) -> Arc<Client> {
        let client = Client::new(id, 0, -1, Default::default(), 0);
        client.set_flag(ClientFlags::TRACKING, true);
        Arc::new(client)
    }

    fn deleted(key: &[u8]) -> Effect<'_> {
        Effect { db: 3, key, change: Change::Del, event: Event::Del, is_new: false }
    }

    /// Keys that are stale, with the numbers of those to tell.
    fn stale(tracked: &mut Tracked) -> Vec<(Vec<u8>, Vec<u64>)> {
        let mut stale = Vec::new();
        tracked.take_stale(&mut stale);
        let mut told: Vec<_> = stale
            .into_iter()
            .filter_map(|(_, stale)| match stale {
                Stale::Key { key, readers, .. } => {
                    Some((key.to_vec(), readers.iter().map(|client| client.id).collect()))
                }
                Stale::All => None,
            })
            .collect();
        told.iter_mut().for_each(|(_, ids): &mut (_, Vec<u64>)| ids.sort_unstable());
        told
    }

    fn counts(tracked: &Tracked) -> (u64, u64) {
        (tracked.totals.keys.load(Relaxed), tracked.totals.items.load(Relaxed))
    }

    #[test]
    fn each_reader_is_told_once() {
        let mut tracked = Tracked::new(&Arc::default(), Charge::default());
        let clients: Vec<_> = (0..100).map(client).collect();
        for client in clients.iter().rev().chain(&clients) {
            tracked.remember(b"k", client);
        }
        tracked.remember(b"l", &clients[7]);
        assert_eq!(counts(&tracked), (2, 101));
        tracked.note(&deleted(b"k"));
        tracked.note(&deleted(b"k"));
        assert_eq!(stale(&mut tracked), [(b"k".to_vec(), (0..100).collect())]);
        assert_eq!(counts(&tracked), (1, 1));
        assert!(tracked.forget_one(|n| n - 1) && !tracked.forget_one(|n| n - 1));
        assert_eq!(stale(&mut tracked), [(b"l".to_vec(), vec![7])]);
        assert_eq!(counts(&tracked), (0, 0));
        assert!(tracked.is_empty());
    }

    #[test]
    fn its_bytes_are_counted() {
        let registered = Arc::default();
        let mut tracked = Tracked::new(&Arc::default(), Charge::new(&registered));
        let clients: Vec<_> = (0..20).map(client).collect();
        let of = |tracked: &Tracked| {
            let each =
                tracked.readers.iter().map(|(key, readers)| heap(key.len()) + readers.bytes());
            heap(size_of::<Tracked>()) + table(&tracked.readers) + each.sum::<usize>()
        };
        for n in 0..300 {
            let key = vec![b'k'; n];
            clients[..n % 20].iter().for_each(|client| tracked.remember(&key, client));
            assert_eq!(registered.bytes(), of(&tracked));
        }
        for n in (0..300).step_by(3) {
            tracked.note(&deleted(&vec![b'k'; n]));
            assert_eq!(registered.bytes(), of(&tracked));
        }
        while tracked.forget_one(|n| n / 2) {
            assert_eq!(registered.bytes(), of(&tracked));
        }
        drop(tracked);
        assert_eq!(registered.bytes(), 0);
    }

    #[test]
    fn those_who_are_gone_do_not_gather() {
        let mut tracked = Tracked::new(&Arc::default(), Charge::default());
        let stays = client(0);
        tracked.remember(b"k", &stays);
        for id in 1..10_000 {
            let goes = client(id);
            tracked.remember(b"k", &goes);
            goes.set_flag(ClientFlags::TRACKING, false);
        }
        let (keys, items) = counts(&tracked);
        assert!(keys == 1 && items <= 4, "{items} items");
        tracked.note(&deleted(b"k"));
        assert!(stale(&mut tracked)[0].1.contains(&0));
    }

    #[test]
    fn after_a_flush_nothing_is_remembered() {
        let mut tracked = Tracked::new(&Arc::default(), Charge::default());
        tracked.remember(b"k", &client(1));
        tracked.remember(b"k", &client(2));
        tracked.note_flush(true);
        let mut told = Vec::new();
        tracked.take_stale(&mut told);
        assert!(matches!(told[..], [(_, Stale::All)]));
        assert_eq!(counts(&tracked), (0, 0));
        assert!(tracked.is_empty());
    }

    #[test]
    fn a_key_changed_in_many_steps_is_broadcast_once() {
        let mut tracked = Tracked::new(&Arc::default(), Charge::default());
        tracked.is_broadcast = true;
        for key in [b"k", b"k", b"l", b"k"] {
            tracked.note(&deleted(key));
        }
        let keys: Vec<_> = stale(&mut tracked).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"k", b"l", b"k"]);
    }
}
