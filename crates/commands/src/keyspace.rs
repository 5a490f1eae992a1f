//! The keyspace: 1024 partitions, each behind its own lock, and access to the ones that a command
//! holds.
//!
//! A [`Shard`] is everything of one partition: databases, log, watchers. [`Keys`] is what a command
//! sees of the keyspace: the partitions of its declared keys, locked in ascending order before it
//! runs. All reads that expire lazily and all writes go through it, so that every change is reported
//! as an effect in one place.

mod ahead;
mod copy;
mod dbs;
mod due;
mod evict;
mod follow;
mod history;
mod hold;
mod items;
mod loaded;
mod place;
mod relocate;
mod replica;
mod tracked;
mod typed;
mod waiting;
mod whole;

pub use copy::{Copy, Loading};
pub(crate) use evict::{Gone, partition_and_db};
pub use history::{History, Ready, WatchFlag};
pub(crate) use place::partition_of_slot;
pub use place::{Located, partition_of};
pub(crate) use replica::{Refused, Wish, is_clean, read_rule, read_rule_of_all};
pub use tracked::{Cause, Stale, Totals};
pub use typed::Editor;

use crate::charge::Sum;
use crate::leases::Leases;
use crate::stats::WorkerStats;
use crate::turn::Turn;
use dbs::Dbs;
use hypercache_journal::{Change, Effect, Event};
use hypercache_stdx::hash::{Hashing, KeyHasher};
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::Uses;
use hypercache_store::{CoreCell, Db, EntryRef, Key, Live, Payload, Removed, Ttl, Was};
use parking_lot::{Mutex, MutexGuard};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Partitions of the keyspace: 16 hash slots each.
pub const PARTITIONS: usize = 1024;
/// Logical databases.
pub const DATABASES: usize = 16;

/// Everything of one partition, guarded by its lock.
///
/// What each command needs comes first: with the lock before it that is one line of the cache, and
/// workers on different cores take from each other what they write to line by line.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    /// Whether something was written or removed since bytes were reported.
    is_changed: bool,
    /// Whether it was unlocked while clients waited for keys of it that are ready.
    is_unserved: bool,
    /// Whether another node decides what is here: this is a copy of its, or none.
    is_foreign: bool,
    dbs: Dbs,
    /// Log and watchers.
    pub history: History,
    hasher: KeyHasher,
    /// Bytes last reported to the sum of the worker that held the lock.
    reported_bytes: usize,
    /// Keys of hashes with fields that are due, by database: the last one is being worked on.
    due_within: Vec<(u8, Box<[u8]>)>,
    /// Its place in the cluster, if the node has others.
    replica: Option<Box<replica::Replica>>,
}

/// Bytes of the lock before what it guards.
const LOCK_BYTES: usize = align_of::<Shard>();
/// Bytes of a line of the cache.
const LINE_BYTES: usize = 64;
/// Bytes of the head of a history, which a write looks at.
const HISTORY_HEAD_BYTES: usize = 24;

const _: () = assert!(
    (LOCK_BYTES + offset_of!(Shard, history)) % LINE_BYTES <= LINE_BYTES - HISTORY_HEAD_BYTES,
    "the head of the history must lie on one line"
);

/// Where in a shard the tally of its first database is.
const TALLY: usize = offset_of!(Shard, dbs) + Db::TALLY.0;

const _: () = assert!(
    (LOCK_BYTES + TALLY) % LINE_BYTES + Db::TALLY.1 <= LINE_BYTES,
    "a tally must lie on one line"
);

impl Shard {
    fn new(hasher: KeyHasher, registered: &Arc<Sum>) -> Self {
        let dbs = Dbs::default();
        let (history, due_within) = (History::new(registered), Vec::new());
        let (is_changed, is_unserved, is_foreign, reported_bytes) = Default::default();
        Shard {
            is_changed,
            is_unserved,
            is_foreign,
            dbs,
            history,
            hasher,
            reported_bytes,
            due_within,
            replica: None,
        }
    }

    /// Database `i`, if it ever held a key.
    #[inline]
    #[must_use]
    pub fn db(&self, i: u8) -> Option<&Db> {
        self.dbs.get(i)
    }

    /// Bytes of all databases and the log.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.dbs.bytes() + self.history.log.bytes()
    }

    /// How many more (or fewer) bytes there are than at the last call.
    #[inline]
    pub fn take_bytes_delta(&mut self) -> isize {
        if !self.is_changed {
            return 0;
        }
        self.is_changed = false;
        let now = self.bytes();
        let delta = now as isize - self.reported_bytes as isize;
        self.reported_bytes = now;
        delta
    }

    /// The live entry of a key; one whose time is past is removed and reported.
    #[inline(always)]
    fn live(
        &mut self,
        db: u8,
        key: Key<'_>,
        now_ms: u64,
        touch: Option<u32>,
    ) -> Option<EntryRef<'_>> {
        let Shard { dbs, history, is_changed, .. } = self;
        not_expired(dbs.get_mut(db)?.get_live(key, now_ms, touch), (db, history, is_changed))
    }

    /// As [`Self::live`] on behalf of a memcached client, which is noted.
    #[inline(always)]
    fn live_item(
        &mut self,
        db: u8,
        key: Key<'_>,
        now_ms: u64,
        seconds: u32,
    ) -> Option<EntryRef<'_>> {
        let Shard { dbs, history, is_changed, .. } = self;
        not_expired(dbs.get_mut(db)?.read_item(key, now_ms, seconds), (db, history, is_changed))
    }

    /// Takes what clients keep copies of and that changed.
    #[must_use]
    pub fn take_stale(&mut self) -> Vec<(u64, Stale)> {
        let mut stale = Vec::new();
        self.history.take_stale(&mut stale);
        stale
    }

    /// Forgets some key that clients keep copies of, and has them told. Returns whether there was one.
    pub(crate) fn forget_one_tracked(&mut self, rng: &mut Rng) -> bool {
        self.history.forget_one_tracked(|n| rng.below(n))
    }

    /// Calls `f` with the records that no notification was made of yet.
    pub fn take_notifications(&mut self, f: &mut dyn FnMut(Effect<'_>)) {
        self.history.take_notifications(f);
    }

    /// Sets the log's bound and counts all records so far as notified.
    pub fn start_log(&mut self, bytes_max: usize) {
        self.is_changed = true;
        self.history.log.set_bytes_max(bytes_max);
        self.history.stamps = Vec::new();
        self.history.notified = self.history.log.last();
        self.history.log.hold_from(self.history.notified + 1);
    }
}

/// The entry that was found; reports one whose time is past and that was removed therefore.
#[inline(always)]
fn not_expired<'e>(
    found: Live<'e>,
    (db, history, is_changed): (u8, &mut History, &mut bool),
) -> Option<EntryRef<'e>> {
    match found {
        Live::Is(entry) => Some(entry),
        Live::Missing => None,
        Live::Expired(removed) => {
            *is_changed = true;
            history.record_expired(db, removed);
            None
        }
    }
}

fn expired(db: u8, key: &[u8]) -> Effect<'_> {
    Effect { db, key, change: Change::Del, event: Event::Expired, is_new: false }
}

/// Values at least this large are freed by the background thread.
const BACKGROUND_FREE_MIN: usize = 64 * 1024;

/// Frees an entry, on the background thread when that may take long.
pub fn discard(removed: Removed) {
    if removed.bytes_used() >= BACKGROUND_FREE_MIN {
        crate::shared::free_in_background(Box::new(removed));
    }
}

/// One partition behind its lock, which begins a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Partition {
    shard: Mutex<Shard>,
    /// Whether who holds it runs a script.
    is_of_script: AtomicBool,
}

/// The parts of a database's tables that may be prefetched from without locks, by partition: close
/// together, so that finding one is no wait for memory.
type Cores = [CoreCell; PARTITIONS];

/// All partitions.
#[derive(Debug)]
pub struct Keyspace {
    /// Whose turn it is to run a script.
    pub turn: Arc<Turn>,
    /// The beginning of each key's hash.
    begun: Hashing,
    /// The CAS unique that was given last; see [`items`].
    last_cas: AtomicU64,
    cores: Box<[Cores; DATABASES]>,
    /// What is kept of the uses of keys.
    pub uses: Arc<Uses>,
    partitions: Box<[Partition; PARTITIONS]>,
    /// How much clients keep copies of.
    pub tracked: Arc<Totals>,
    /// Bytes of what clients have registered.
    pub registered: Arc<Sum>,
    /// Who is loading what.
    pub leases: Arc<Leases>,
    unserved: waiting::Unserved,
}

impl Keyspace {
    /// An empty keyspace whose hash is keyed by `secret`.
    #[must_use]
    pub fn new(secret: (u64, u64)) -> Self {
        let hasher = KeyHasher::new(secret);
        let registered = Arc::default();
        let shard = || Mutex::new(Shard::new(hasher, &registered));
        let partition = |_| Partition { shard: shard(), is_of_script: AtomicBool::new(false) };
        let partitions: Box<[Partition]> = (0..PARTITIONS).map(partition).collect();
        let partitions = partitions.try_into().expect("it has as many");
        let no_cores = |_| [const { CoreCell::new() }; PARTITIONS];
        let cores: Box<[Cores]> = (0..DATABASES).map(no_cores).collect();
        let cores = cores.try_into().expect("it has as many");
        let last_cas = AtomicU64::new(items::first_cas());
        let (turn, tracked, unserved) = Default::default();
        let (begun, uses) = (hasher.begin(), Arc::default());
        let leases = Arc::new(Leases::new(&registered));
        Keyspace {
            turn,
            begun,
            last_cas,
            cores,
            uses,
            partitions,
            tracked,
            registered,
            leases,
            unserved,
        }
    }

    #[inline]
    fn partition(&self, number: u16) -> &Partition {
        // All numbers are below; the remainder spares the check.
        &self.partitions[number as usize % PARTITIONS]
    }

    #[inline]
    fn core(&self, partition: u16, db: u8) -> &CoreCell {
        &self.cores[db as usize % DATABASES][partition as usize % PARTITIONS]
    }

    /// A new database of a partition; `at` has the numbers of both.
    #[inline(never)]
    fn new_db(&self, hasher: KeyHasher, at: (u16, u8), now_ms: u64) -> Db {
        let db = self.new_db_apart(hasher, at, now_ms);
        self.core(at.0, at.1).set(Some(db.core()));
        db
    }

    /// As [`Self::new_db`], for one that is not in its place yet.
    fn new_db_apart(&self, hasher: KeyHasher, at: (u16, u8), now_ms: u64) -> Db {
        Db::with_uses(hasher, now_ms, Arc::clone(&self.uses), evict::place_of(at))
    }

    /// Locks one partition.
    #[inline]
    pub fn lock(&self, partition: u16) -> MutexGuard<'_, Shard> {
        self.partition(partition).shard.lock()
    }
}

/// A partition that is held for one key.
#[derive(Debug)]
struct One<'a> {
    at: &'a Located,
    shard: MutexGuard<'a, Shard>,
}

impl One<'_> {
    #[inline(always)]
    fn is_for(&self, key: &[u8]) -> bool {
        self.at.start == key.as_ptr().addr() && self.at.len as usize == key.len()
    }
}

/// What a command sees of the keyspace. See the module's text.
#[derive(Debug)]
pub struct Keys<'a> {
    keyspace: &'a Keyspace,
    stats: &'a WorkerStats,
    /// The one partition that most commands hold.
    one: Option<One<'a>>,
    /// The partitions that others hold, in ascending order.
    many: Vec<(u16, MutexGuard<'a, Shard>)>,
    /// The turn to run a script, released last.
    turn: Option<MutexGuard<'a, ()>>,
    /// The selected database.
    pub db: u8,
    /// The time that expiry is judged by, in ms since the epoch: that of the loop turn.
    pub now_ms: u64,
    /// Seconds of the server's clock, noted in entries that are used.
    pub now_s: u32,
    /// Whether reads count as a use of the key (not after CLIENT NO-TOUCH and in OBJECT).
    pub touch: bool,
    /// What clients keep copies of and that changed in the partitions that were released, each with
    /// its place in the order.
    pub(crate) stale: Vec<(u64, Stale)>,
}

impl<'a> Keys<'a> {
    /// A view that holds nothing yet.
    #[inline]
    #[must_use]
    pub fn new(keyspace: &'a Keyspace, stats: &'a WorkerStats, db: u8, now_ms: u64) -> Self {
        let now_s = (now_ms / 1000) as u32;
        let (one, many, turn, stale) = (None, Vec::new(), None, Vec::new());
        Keys { keyspace, stats, one, many, turn, db, now_ms, now_s, touch: true, stale }
    }

    /// Reports the bytes that changed and unlocks, after [`Self::hold_one`], if nobody wants
    /// notifications and nobody observes keys.
    #[inline]
    pub fn release_one(&mut self) {
        if let Some(One { mut shard, .. }) = self.one.take()
            && shard.is_changed
        {
            self.stats.add_bytes(shard.take_bytes_delta());
        }
    }

    /// Whether clients are to be told that what they keep copies of changed.
    #[inline]
    #[must_use]
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Reports the bytes that changed, hands each new record to `notify`, and unlocks.
    pub fn release(&mut self, notify: Option<&mut dyn FnMut(Effect<'_>)>) {
        if let Some(One { mut shard, at }) = self.one.take() {
            if let Some(notify) = notify {
                shard.take_notifications(notify);
            }
            shard.history.take_stale(&mut self.stale);
            shard.leave_ready(self.keyspace, at.partition);
            self.stats.add_bytes(shard.take_bytes_delta());
        } else if !self.many.is_empty() {
            self.release_many(notify);
        }
        if self.turn.is_some() {
            self.turn = None;
        }
    }

    fn release_many(&mut self, notify: Option<&mut dyn FnMut(Effect<'_>)>) {
        if let Some(notify) = notify {
            self.notify_in_order(notify);
        }
        self.note_script(false);
        for (partition, shard) in &mut self.many {
            shard.history.take_stale(&mut self.stale);
            shard.leave_ready(self.keyspace, *partition);
            self.stats.add_bytes(shard.take_bytes_delta());
        }
        self.many = Vec::new();
    }

    /// Hands the new records of all partitions held to `notify`, in the order they were made.
    fn notify_in_order(&mut self, notify: &mut dyn FnMut(Effect<'_>)) {
        let mut all = Vec::new();
        for (i, (_, shard)) in self.many.iter_mut().enumerate() {
            let History { log, notified, stamps, .. } = &mut shard.history;
            // Records without a stamp were made while nobody wanted notifications.
            let first = log.last() + 1 - stamps.len() as u64;
            all.extend((first..).zip(stamps.drain(..)).map(|(number, stamp)| (stamp, i, number)));
            *notified = log.last();
        }
        all.sort_unstable();
        for (_, i, number) in all {
            if let Some(effect) = self.many[i].1.history.log.get(number) {
                notify(effect);
            }
        }
        for (_, shard) in &mut self.many {
            let History { log, notified, .. } = &mut shard.history;
            log.hold_from(*notified + 1);
        }
    }

    /// The shard of a key with the key's hash. The command must have declared the key.
    #[inline(always)]
    fn shard_of<'k>(&mut self, key: &'k [u8]) -> (&mut Shard, Key<'k>)
    where
        'a: 'k,
    {
        let (shard, _, key) = self.place_of(key);
        (shard, key)
    }

    /// The shard of a key, its number, and the key with its hash.
    #[inline(always)]
    fn place_of<'k>(&mut self, key: &'k [u8]) -> (&mut Shard, u16, Key<'k>)
    where
        'a: 'k,
    {
        if self.one.as_ref().is_some_and(|one| one.is_for(key)) {
            let One { at, shard, .. } = self.one.as_mut().expect("it was there a line ago");
            return (shard, at.partition, Key { bytes: key, hash: at.hash, hint: Some(&at.hint) });
        }
        self.place_of_another(key)
    }

    #[cold]
    fn place_of_another<'k>(&mut self, key: &'k [u8]) -> (&mut Shard, u16, Key<'k>) {
        let (partition, hash) = self.keyspace.place_and_hash(key);
        (self.held_shard(partition), partition, Key::new(key, hash))
    }

    #[inline]
    fn held_shard(&mut self, partition: u16) -> &mut Shard {
        match &mut self.one {
            Some(one) if one.at.partition == partition => &mut one.shard,
            _ => {
                let at = self.many.binary_search_by_key(&partition, |(p, _)| *p);
                &mut self.many[at.expect("a command touches declared keys only")].1
            }
        }
    }

    /// A partition that is held, for reading.
    fn seen_shard(&self, partition: u16) -> Option<&Shard> {
        match &self.one {
            Some(one) if one.at.partition == partition => Some(&one.shard),
            _ => {
                let at = self.many.binary_search_by_key(&partition, |(p, _)| *p).ok()?;
                Some(&self.many[at].1)
            }
        }
    }

    /// Calls `f` with every partition in turn: under the lock already held, or a lock of its own.
    /// `f` says whether to go on. For commands whose keys are [`crate::table::Keys::All`] or `Each`.
    pub fn each_shard(&mut self, mut f: impl FnMut(u16, &mut Shard) -> bool) {
        for p in 0..PARTITIONS as u16 {
            if !self.with_shard(p, |shard| f(p, shard)) {
                return;
            }
        }
    }

    /// Calls `f` with one partition, locked if it is not held.
    pub fn with_shard<R>(&mut self, partition: u16, f: impl FnOnce(&mut Shard) -> R) -> R {
        if !self.many.is_empty() {
            return f(self.held_shard(partition));
        }
        let mut shard = self.keyspace.lock(partition);
        let result = f(&mut shard);
        shard.history.take_stale(&mut self.stale);
        shard.leave_ready(self.keyspace, partition);
        self.stats.add_bytes(shard.take_bytes_delta());
        result
    }

    /// Reads a key: counts a hit or miss, notes the use.
    #[inline(always)]
    pub fn get(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let stats = self.stats;
        let entry = self.get_uncounted(key);
        stats.count_lookup(entry.is_some());
        entry
    }

    /// Reads a key on behalf of a write: no hit or miss.
    #[inline(always)]
    pub fn get_uncounted(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (db, now_ms) = (self.db, self.now_ms);
        let touch = self.touch.then_some(self.now_s);
        let (shard, key) = self.shard_of(key);
        shard.live(db, key, now_ms, touch)
    }

    /// Reads a key without a trace: no hit, no use.
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (db, now_ms) = (self.db, self.now_ms);
        let (shard, key) = self.shard_of(key);
        shard.live(db, key, now_ms, None)
    }

    /// Reads a key as [`Self::get`] does, but the read is no use of it.
    pub fn look(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let stats = self.stats;
        let entry = self.peek(key);
        stats.count_lookup(entry.is_some());
        entry
    }

    /// Whether the key is there.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The database to write to, made if it is the first write.
    #[inline(always)]
    fn writable<'s>(
        keyspace: &Keyspace,
        shard: &'s mut Shard,
        at: (u16, u8),
        now_ms: u64,
    ) -> (&'s mut Db, &'s mut History) {
        debug_assert!(!shard.is_foreign, "another node decides what is here");
        shard.is_changed = true;
        let Shard { hasher, dbs, history, .. } = shard;
        (dbs.get_or_insert_with(at.1, || keyspace.new_db(*hasher, at, now_ms)), history)
    }

    #[inline(always)]
    fn write_to<'k>(&mut self, key: &'k [u8]) -> (&mut Db, &mut History, Key<'k>)
    where
        'a: 'k,
    {
        let (keyspace, db, now_ms) = (self.keyspace, self.db, self.now_ms);
        let (shard, partition, key) = self.place_of(key);
        let (db, history) = Self::writable(keyspace, shard, (partition, db), now_ms);
        (db, history, key)
    }

    /// Stores a string. A key whose time is past counts as not there only if it was looked up
    /// before, which every write that cares does.
    pub fn set(&mut self, key: &[u8], value: Payload<'_>, ttl: Ttl, event: Event) {
        self.set_here(key, value, ttl, event);
    }

    /// As [`Self::set`], for the one command that is run so often that a call shows: a key that is
    /// held alone, of whose writes nobody reads.
    #[inline(always)]
    pub fn set_here(&mut self, key: &[u8], value: Payload<'_>, ttl: Ttl, event: Event) {
        let (keyspace, db, now_ms) = (self.keyspace, self.db, self.now_ms);
        let Some(One { at, shard }) = self.one.as_mut().filter(|one| one.is_for(key)) else {
            return self.set_and_tell(key, value, ttl, event);
        };
        if !shard.history.is_unread() {
            return self.set_and_tell(key, value, ttl, event);
        }
        let was_changed = shard.is_changed;
        let (db, history) = Self::writable(keyspace, shard, (at.partition, db), now_ms);
        history.log.pass();
        let key = Key { bytes: key, hash: at.hash, hint: Some(&at.hint) };
        match db.set(key, value, ttl, self.now_s) {
            Was::Replaced(old) => discard(old),
            // In place and without a new deadline, so there are as many bytes as before.
            Was::Overwritten if !matches!(ttl, Ttl::At(_)) => shard.is_changed = was_changed,
            Was::Overwritten | Was::Missing => {}
        }
    }

    /// Stores a string and tells of it.
    #[inline(never)]
    fn set_and_tell(&mut self, key: &[u8], value: Payload<'_>, ttl: Ttl, event: Event) {
        let (db_number, seconds) = (self.db, self.now_s);
        if !self.shard_of(key).0.history.is_unread() {
            // One whose time is past goes first, and that is told.
            self.exists(key);
        }
        let (db, history, key) = self.write_to(key);
        let observed = history.is_kept();
        let copy = if observed { Some(value.clone()) } else { None };
        let was = db.set(key, value, ttl, seconds);
        let is_new = matches!(was, Was::Missing);
        let (bytes, deadline) = match &copy {
            Some(value) => (value.bytes(), db.get(key).and_then(|e| e.deadline())),
            None => (&b""[..], None),
        };
        let change = Change::Set { value: bytes, deadline };
        let effect = Effect { db: db_number, key: key.bytes, change, event, is_new };
        history.record(&effect);
        if let Was::Replaced(old) = was {
            discard(old);
        }
    }

    /// Makes the string exactly `len` bytes long, new bytes zero, and writes `bytes` at `offset`.
    /// A missing key is made. Keeps the deadline.
    pub fn splice(&mut self, key: &[u8], len: usize, offset: usize, bytes: &[u8], event: Event) {
        let (db_number, seconds) = (self.db, self.now_s);
        let (db, history, key) = self.write_to(key);
        let is_new = db.get(key).is_none();
        db.edit(key, len, seconds, |value| {
            value[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
        let change = Change::Splice { len: len as u64, offset: offset as u64, bytes };
        let effect = Effect { db: db_number, key: key.bytes, change, event, is_new };
        history.record(&effect);
    }

    /// Changes the deadline of a key that is there.
    pub fn set_ttl(&mut self, key: &[u8], deadline: Option<u64>, event: Event) {
        let db_number = self.db;
        let (db, history, key) = self.write_to(key);
        db.set_ttl(key, deadline.map_or(Ttl::Clear, Ttl::At));
        let change = Change::Deadline(deadline);
        let effect = Effect { db: db_number, key: key.bytes, change, event, is_new: false };
        history.record(&effect);
    }

    /// Reports a further event of a key whose change was reported already, as `expire` after `set`.
    pub fn also(&mut self, key: &[u8], event: Event) {
        let db_number = self.db;
        let (db, history, key) = self.write_to(key);
        if !history.is_kept() {
            return;
        }
        let deadline = db.get(key).and_then(|e| e.deadline());
        let change = Change::Deadline(deadline);
        history.record(&Effect { db: db_number, key: key.bytes, change, event, is_new: false });
    }

    /// Removes a key. Returns it, for what is done with its value; drop it with [`discard`].
    pub fn remove(&mut self, key: &[u8], event: Event) -> Option<Removed> {
        let (db, now_ms) = (self.db, self.now_ms);
        let (shard, key) = self.shard_of(key);
        if shard.live(db, key, now_ms, None).is_none() {
            // Who deletes what is not there says that what is being loaded may be old.
            shard.history.end_lease(db, key.bytes, None);
            return None;
        }
        shard.is_changed = true;
        let removed = shard.dbs.get_mut(db)?.remove(key)?;
        let change = Change::Del;
        let effect = Effect { db, key: key.bytes, change, event, is_new: false };
        shard.history.record(&effect);
        Some(removed)
    }

    /// Deletes a key. Returns whether it was there.
    pub fn delete(&mut self, key: &[u8], event: Event) -> bool {
        let removed = self.remove(key, event);
        let was_there = removed.is_some();
        removed.into_iter().for_each(discard);
        was_there
    }

    /// Puts a value that was removed from elsewhere under `key`, with its deadline and encoding.
    pub fn put(&mut self, key: &[u8], mut taken: Removed, event: Event) {
        let ttl = taken.deadline().map_or(Ttl::Clear, Ttl::At);
        match taken.take_object() {
            Some(object) => self.put_object(key, *object, ttl, event),
            None => self.put_string(key, taken.payload(), ttl, taken.is_raw(), event),
        }
        discard(taken);
    }

    /// Stores a string with its encoding.
    pub fn put_string(
        &mut self,
        key: &[u8],
        value: Payload<'_>,
        ttl: Ttl,
        raw: bool,
        event: Event,
    ) {
        self.set(key, value, ttl, event);
        let (db, _, key) = self.write_to(key);
        db.set_raw(key, raw);
    }

    /// Notes that a client that keeps copies read a key, which must be held.
    pub(crate) fn remember(&mut self, key: &[u8], client: &Arc<crate::client::Client>) {
        let totals = &self.keyspace.tracked;
        let (shard, _) = self.shard_of(key);
        shard.history.remember(key, client, totals);
    }

    /// Watches a key for the session that owns `flag`.
    pub fn watch(&mut self, key: &[u8], flag: &WatchFlag) {
        let db = self.db;
        // A key whose time is past leaves now, so that its leaving later is no change.
        self.exists(key);
        let (shard, _) = self.shard_of(key);
        shard.history.watch(db, key, flag);
    }

    /// Ends [`Self::watch`]. The key must be held.
    pub fn unwatch(&mut self, key: &[u8], flag: &WatchFlag) {
        let db = self.db;
        let (shard, _) = self.shard_of(key);
        shard.history.unwatch(db, key, flag);
    }
}
