//! Client-side caching: clients that keep copies of keys are told when these are stale.
//!
//! **Who is told.** A client that tracks is told of keys that it read, which its partitions remember
//! (`keyspace::tracked`), or of all keys with certain prefixes (BCAST), which stand in one table
//! here. A partition notes what becomes stale while it is held; it is told when the locks are released.
//!
//! **When.** A client is told of what its own command made stale after the reply of that command;
//! others through the mailboxes of their workers, at the latest at the end of the turn. Keys with
//! prefixes are gathered during a turn and told together, each once.
//!
//! **Bounds.** Notices on their way count as output of the client they go to, which is closed beyond
//! its limit. Keys of a turn are told early when they are [`BROADCAST_KEYS_MAX`].

mod rows;

pub(crate) use rows::{CACHING, GETREDIR, TRACKING, TRACKINGINFO, redirect_id};

use crate::client::{Client, ClientFlags};
use crate::context::{Cx, Worker};
use crate::keyspace::{Cause, PARTITIONS, Shard, Stale};
use crate::pubsub::has_room;
use crate::session::Session;
use crate::shared::{Message, Shared};
use crate::table::{Entry, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::{Output, Reply, Version};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The channel on which a client of RESP2 is told in another's stead.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Clients that track keys.
#[derive(Debug, Default)]
pub struct Tracking {
    /// How many there are.
    clients: AtomicU64,
    /// Those that want to know of all keys with a prefix.
    prefixes: RwLock<Prefixes>,
}

type Prefixes = BTreeMap<Box<[u8]>, Vec<Arc<Client>>>;

impl Tracking {
    /// How many clients track keys.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients.load(Relaxed)
    }

    /// How many prefixes are tracked.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.prefixes.read().len()
    }

    fn is_broadcast(&self) -> bool {
        !self.prefixes.read().is_empty()
    }
}

/// Keys that were changed in a turn, with the client that changed each first if it was one.
#[derive(Debug, Default)]
pub struct Broadcast(BTreeMap<Box<[u8]>, Option<u64>>);

/// More keys of one turn than this are told of before its end.
const BROADCAST_KEYS_MAX: usize = 1024;

/// What a client is told of the keys it tracks.
#[derive(Clone, Debug)]
enum Word {
    /// These are stale.
    Keys(Arc<Vec<Box<[u8]>>>),
    /// All are.
    All,
    /// The client of this number, which was to be told, is gone.
    Broken(u64),
}

/// See [`Word`].
#[derive(Clone, Debug)]
pub struct Notice {
    word: Word,
    /// Whether another client tracks the keys.
    is_redirected: bool,
}

impl Notice {
    /// Bytes that it takes in the output, roughly.
    fn bytes(&self) -> u64 {
        let keys = match &self.word {
            Word::Keys(keys) => keys.iter().map(|key| key.len() + 16).sum(),
            Word::All | Word::Broken(_) => 0,
        };
        64 + keys as u64
    }
}

/// Writes a notice as the protocol version of its reader has it. In RESP2 it is a message of a
/// channel, for a client that tracks nothing itself and has some subscription.
pub fn write_notice(notice: &Notice, version: Version, is_subscribed: bool, out: &mut Output) {
    let mut reply = Reply::new(out, version);
    match (&notice.word, version) {
        (Word::Broken(id), Version::V3) => {
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            return reply.int(*id as i64);
        }
        (_, Version::V3) => {
            reply.push(2);
            reply.bulk(b"invalidate");
        }
        (Word::Keys(_) | Word::All, Version::V2) if notice.is_redirected && is_subscribed => {
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL);
        }
        _ => return,
    }
    if let Word::Keys(keys) = &notice.word {
        reply.array(keys.len());
        keys.iter().for_each(|key| reply.bulk(key));
    } else {
        reply.null();
    }
}

/// Whom to tell in the place of a client that tracks, and what; `None` when nobody would understand.
fn route(tracker: &Arc<Client>, word: Word) -> Option<(Arc<Client>, Notice)> {
    let understands = |client: &Client| client.has(ClientFlags::RESP3);
    let direct = |word| {
        let notice = Notice { word, is_redirected: false };
        understands(tracker).then(|| (Arc::clone(tracker), notice))
    };
    match tracker.redirect() {
        None => direct(word),
        Some((id, None)) => {
            tracker.set_flag(ClientFlags::BROKEN_REDIRECT, true);
            direct(Word::Broken(id))
        }
        Some((_, Some(target))) => {
            let is_able = understands(&target) || target.has(ClientFlags::PUBSUB);
            is_able.then_some((target, Notice { word, is_redirected: true }))
        }
    }
}

/// Those who are told, and the client whose command is the reason.
struct Teller<'a> {
    shared: &'a Shared,
    current: Option<&'a Arc<Client>>,
    /// What the current client is told.
    own: Vec<Notice>,
}

impl Teller<'_> {
    fn is_current(&self, client: &Client) -> bool {
        self.current.is_some_and(|current| current.id == client.id)
    }

    fn tell(&mut self, tracker: &Arc<Client>, word: Word) {
        let Some((client, notice)) = route(tracker, word) else { return };
        if self.is_current(&client) {
            return self.own.push(notice);
        }
        if has_room(self.shared, &client, notice.bytes()) {
            self.shared.send(client.worker, Message::Invalidate { client, notice });
        }
    }

    fn tell_readers(&mut self, readers: &[Arc<Client>], key: &[u8], cause: Cause) {
        if readers.is_empty() {
            return;
        }
        let word = Word::Keys(Arc::new(vec![Box::from(key)]));
        for reader in readers {
            let is_reader =
                reader.has(ClientFlags::TRACKING) && !reader.has(ClientFlags::BROADCAST);
            // It knows of what its own command did, but not of what had to make room for it.
            let knows = reader.has(ClientFlags::NO_LOOP)
                && self.is_current(reader)
                && cause != Cause::Dropped;
            if is_reader && !knows {
                self.tell(reader, word.clone());
            }
        }
    }

    fn tell_all(&mut self) {
        if self.shared.tracking.clients() == 0 {
            return;
        }
        for client in self.shared.clients.all() {
            if client.has(ClientFlags::TRACKING) {
                self.tell(&client, Word::All);
            }
        }
    }

    /// Tells of what became stale, in order; keys for those who want all with a prefix are put by.
    fn tell_stale(&mut self, worker: &mut Worker, mut stale: Vec<(u64, Stale)>) {
        stale.sort_unstable_by_key(|(stamp, _)| *stamp);
        for (_, stale) in stale {
            let Stale::Key { key, readers, is_broadcast, cause } = stale else {
                self.tell_all();
                continue;
            };
            self.tell_readers(&readers, &key, cause);
            if is_broadcast {
                let by = self.current.filter(|_| cause == Cause::Changed).map(|c| c.id);
                worker.broadcast.0.entry(key).or_insert(by);
                if worker.broadcast.0.len() >= BROADCAST_KEYS_MAX {
                    broadcast(self.shared, worker);
                }
            }
        }
    }
}

/// Tells of what the context's command made stale, its own client after what it was answered. No
/// lock is held.
#[cold]
pub(crate) fn tell_stale(cx: &mut Cx<'_>) {
    let stale = std::mem::take(&mut cx.keys.stale);
    let current = Arc::clone(&cx.session.client);
    let mut teller = Teller { shared: cx.shared, current: Some(&current), own: Vec::new() };
    teller.tell_stale(cx.worker, stale);
    write_own(cx, &teller.own);
}

fn write_own(cx: &mut Cx<'_>, notices: &[Notice]) {
    let (version, is_subscribed) = (cx.session.version, cx.session.is_subscribed());
    for notice in notices {
        write_notice(notice, version, is_subscribed, cx.reply.output());
    }
}

/// Tells of what became stale without a command of a client. No lock is held.
pub fn tell_without_client(shared: &Shared, worker: &mut Worker, stale: Vec<(u64, Stale)>) {
    if !stale.is_empty() {
        Teller { shared, current: None, own: Vec::new() }.tell_stale(worker, stale);
    }
}

/// Tells of the keys that were changed in this turn those who want to know by prefix. No lock is held.
#[inline]
pub fn broadcast(shared: &Shared, worker: &mut Worker) {
    if !worker.broadcast.0.is_empty() {
        broadcast_keys(shared, std::mem::take(&mut worker.broadcast.0));
    }
}

#[cold]
fn broadcast_keys(shared: &Shared, keys: BTreeMap<Box<[u8]>, Option<u64>>) {
    let mut teller = Teller { shared, current: None, own: Vec::new() };
    for (prefix, clients) in shared.tracking.prefixes.read().iter() {
        let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let own = |client: &Client| Some(client.id).filter(|_| client.has(ClientFlags::NO_LOOP));
        let keys_but = |own: Option<u64>| -> Arc<Vec<Box<[u8]>>> {
            let with_prefix =
                keys.range(from.clone()).take_while(|(key, _)| key.starts_with(prefix));
            let others = with_prefix.filter(|(_, by)| own.is_none() || own != **by);
            Arc::new(others.map(|(key, _)| key.clone()).collect())
        };
        let all = keys_but(None);
        if all.is_empty() {
            continue;
        }
        for client in clients {
            let own = own(client);
            let keys = if own.is_some() { keys_but(own) } else { Arc::clone(&all) };
            if !keys.is_empty() {
                teller.tell(client, Word::Keys(keys));
            }
        }
    }
}

/// Has the partitions remember the keys that a command of a tracking client read. They are held yet,
/// so that no write comes between the read and this.
#[cold]
pub(crate) fn remember(cx: &mut Cx<'_>, entry: &Entry, args: Args<'_>) {
    let client = &cx.session.client;
    let has = |flag| client.has(flag);
    let is_excepted = has(ClientFlags::BROADCAST)
        || has(ClientFlags::OPT_IN) && !has(ClientFlags::CACHING)
        || has(ClientFlags::OPT_OUT) && has(ClientFlags::CACHING);
    // The keys of scripts are not remembered.
    let is_read = entry.row.flags.has(Flags::READONLY) && entry.row.group != Group::Scripting;
    if is_read && entry.locks_keys && !is_excepted {
        let keys = &mut cx.keys;
        entry.row.keys.for_each(args, &mut |i, _| keys.remember(args.get(i), client));
    }
}

/// What is done after each command of a tracking client: CLIENT CACHING counts for one, and there may
/// be too many keys. `entry` is the command's row if it had one.
#[cold]
pub(crate) fn after_command(cx: &mut Cx<'_>, entry: Option<&Entry>) {
    let is_client = entry.is_some_and(|entry| entry.full_name.starts_with("client|"));
    if !is_client && cx.session.multi().is_none() {
        cx.session.client.set_flag(ClientFlags::CACHING, false);
    }
    let current = Arc::clone(&cx.session.client);
    let own = forget_surplus(cx.shared, cx.worker, Some(&current));
    write_own(cx, &own);
}

/// Keys that are forgotten at most at a time, because there are too many.
const FORGET_MAX: usize = 1024;

/// Forgets some keys if there are more than `tracking-table-max-keys`. Returns what the current client
/// is told. No lock is held.
pub fn forget_surplus(
    shared: &Shared,
    worker: &mut Worker,
    current: Option<&Arc<Client>>,
) -> Vec<Notice> {
    let max = shared.config.hot.tracked_keys_max.load(Relaxed);
    let is_surplus = || max > 0 && shared.keyspace.tracked.keys.load(Relaxed) > max;
    let mut teller = Teller { shared, current, own: Vec::new() };
    let mut left = FORGET_MAX;
    while left > 0 && is_surplus() {
        left -= 1;
        let start = worker.rng.below(PARTITIONS as u64) as usize;
        for p in (start..start + PARTITIONS).map(|p| (p % PARTITIONS) as u16) {
            // One that a script holds is left alone: this can wait.
            let Some(mut shard) = shared.keyspace.try_lock(p) else { continue };
            if shard.forget_one_tracked(&mut worker.rng) {
                let stale = shard.take_stale();
                drop(shard);
                teller.tell_stale(worker, stale);
                break;
            }
        }
    }
    teller.own
}

/// Adds a client to those that want to know of all keys with a prefix.
fn add_prefix(shared: &Shared, session: &mut Session, prefix: &[u8]) {
    let mine = session.make_cold().tracking.get_or_insert_default();
    if mine.insert(Box::from(prefix)) {
        let mut prefixes = shared.tracking.prefixes.write();
        prefixes.entry(Box::from(prefix)).or_default().push(Arc::clone(&session.client));
    }
}

/// What a client tracks and how, besides whom to tell.
const OPTIONS: u32 = ClientFlags::BROKEN_REDIRECT
    | ClientFlags::BROADCAST
    | ClientFlags::OPT_IN
    | ClientFlags::OPT_OUT
    | ClientFlags::NO_LOOP;

/// Has a client track keys, with the options that are set in `options`. No lock is held.
fn enable(
    shared: &Shared,
    session: &mut Session,
    redirect: Option<&Arc<Client>>,
    options: u32,
    prefixes: &[&[u8]],
) {
    if !session.is_tracking() {
        shared.tracking.clients.fetch_add(1, Relaxed);
        session.make_cold().tracking = Some(Default::default());
    }
    session.client.set_redirect(redirect);
    session.client.set_flag(OPTIONS, false);
    session.client.set_flag(ClientFlags::TRACKING | options, true);
    if options & ClientFlags::BROADCAST != 0 {
        let prefixes = if prefixes.is_empty() { &[&b""[..]][..] } else { prefixes };
        prefixes.iter().for_each(|prefix| add_prefix(shared, session, prefix));
    }
}

/// Ends tracking, if the client did. Takes no lock of a partition: see [`end_broadcast`].
pub(crate) fn disable(shared: &Shared, session: &mut Session) {
    if !session.is_tracking() {
        return;
    }
    let mine = session.make_cold().tracking.take().unwrap_or_default();
    shared.tracking.clients.fetch_sub(1, Relaxed);
    let client = &session.client;
    client.set_flag(ClientFlags::TRACKING | ClientFlags::CACHING | OPTIONS, false);
    client.set_redirect(None);
    if mine.is_empty() {
        return;
    }
    let mut prefixes = shared.tracking.prefixes.write();
    for prefix in &mine {
        let Some(clients) = prefixes.get_mut(prefix) else { continue };
        clients.retain(|other| other.id != client.id);
        if clients.is_empty() {
            prefixes.remove(prefix);
        }
    }
}

/// Has a partition, whose lock is held, note no more what nobody wants to know of by a prefix any
/// longer. Until then it does so in vain.
pub fn end_broadcast(shared: &Shared, shard: &mut Shard) {
    if shard.history.is_broadcast() && !shared.tracking.is_broadcast() {
        shard.history.set_broadcast(false, &shared.keyspace.tracked);
    }
}
