//! The keyspace: 1024 partitions, each behind its own lock, and access to the ones that a command
//! holds.
//!
//! A [`Shard`] is everything of one partition: databases, log, watchers. [`Keys`] is what a command
//! sees of the keyspace: the partitions of its declared keys, locked in ascending order before it
//! runs. All reads that expire lazily and all writes go through it, so that every change is reported
//! as an effect in one place.

mod dbs;
mod due;
mod history;
mod hold;
mod items;
mod tracked;
mod typed;

pub use history::{History, News, Ready, WatchFlag};
pub use tracked::{Cause, Stale, Totals};
pub use typed::Editor;

use crate::stats::WorkerStats;
use crate::turn::Turn;
use dbs::Dbs;
use hypercache_journal::{Change, Effect, Event};
use hypercache_protocol::slot::{SLOTS, SlotFinder, slot_of};
use hypercache_stdx::hash::KeyHasher;
use hypercache_stdx::rng::Rng;
use hypercache_store::{
    CoreCell, Db, EntryRef, Hint, Key, Live, Payload, Removed, Ttl, Was, prefetch_ends_to_write,
    prefetch_value,
};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Partitions of the keyspace: 16 hash slots each.
pub const PARTITIONS: usize = 1024;
/// Logical databases.
pub const DATABASES: usize = 16;

/// Number of the partition that owns a key.
#[inline]
#[must_use]
pub fn partition_of(key: &[u8]) -> u16 {
    partition_of_slot(slot_of(key))
}

/// Number of the partition that a slot is part of.
#[inline]
pub(crate) fn partition_of_slot(slot: u16) -> u16 {
    slot / (SLOTS / PARTITIONS as u16)
}

/// Everything of one partition, guarded by its lock.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    dbs: Dbs,
    hasher: KeyHasher,
    /// Log and watchers.
    pub history: History,
    /// Bytes last reported to the sum of the worker that held the lock.
    reported_bytes: usize,
    /// Whether something was written or removed since.
    is_changed: bool,
    /// Keys of hashes with fields that are due, by database: the last one is being worked on.
    due_within: Vec<(u8, Box<[u8]>)>,
}

impl Shard {
    fn new(hasher: KeyHasher) -> Self {
        let dbs = Dbs::default();
        let (history, due_within) = (History::default(), Vec::new());
        Shard { hasher, dbs, history, reported_bytes: 0, is_changed: false, due_within }
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
        self.live_as(db, |table| table.get_live(key, now_ms, touch))
    }

    /// The live entry that `look` finds.
    #[inline(always)]
    fn live_as(
        &mut self,
        db: u8,
        look: impl for<'d> FnOnce(&'d mut Db) -> Live<'d>,
    ) -> Option<EntryRef<'_>> {
        let table = self.dbs.get_mut(db)?;
        match look(table) {
            Live::Is(entry) => Some(entry),
            Live::Missing => None,
            Live::Expired(removed) => {
                self.is_changed = true;
                self.history.record_expired(db, removed);
                None
            }
        }
    }

    /// Removes a key at random from any database; returns whether there was one.
    pub fn evict_random(&mut self, rng: &mut Rng) -> bool {
        self.is_changed = true;
        let start = rng.below(DATABASES as u64) as usize;
        for n in 0..DATABASES {
            let i = (start + n) % DATABASES;
            let Some(db) = self.dbs.get_mut(i as u8) else { continue };
            let Some(entry) = db.random(|n| rng.below(n)) else { continue };
            let bytes = entry.key().to_vec();
            let key = Key::new(&bytes, self.hasher.hash(&bytes));
            if let Some(removed) = db.remove(key) {
                let (db, key, change) = (i as u8, &bytes[..], Change::Del);
                let event = Event::Evicted;
                self.history.record(&Effect { db, key, change, event, is_new: false });
                discard(removed);
                return true;
            }
        }
        false
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

/// One partition: its lock, and the parts of its tables that may be prefetched from without it.
#[derive(Debug)]
#[repr(C, align(64))]
struct Partition {
    cores: [CoreCell; DATABASES],
    shard: Mutex<Shard>,
}

/// All partitions.
#[derive(Debug)]
pub struct Keyspace {
    /// Whose turn it is to run a script.
    pub turn: Arc<Turn>,
    hasher: KeyHasher,
    /// The CAS unique that was given last; see [`items`].
    last_cas: AtomicU64,
    partitions: Box<[Partition; PARTITIONS]>,
    /// How much clients keep copies of.
    pub tracked: Arc<Totals>,
}

impl Keyspace {
    /// An empty keyspace whose hash is keyed by `secret`.
    #[must_use]
    pub fn new(secret: (u64, u64)) -> Self {
        let hasher = KeyHasher::new(secret);
        let partition =
            |_| Partition { cores: Default::default(), shard: Mutex::new(Shard::new(hasher)) };
        let partitions: Box<[Partition]> = (0..PARTITIONS).map(partition).collect();
        let partitions = partitions.try_into().expect("it has as many");
        let last_cas = AtomicU64::new(items::first_cas());
        let tracked = Arc::default();
        Keyspace { turn: Arc::default(), hasher, last_cas, partitions, tracked }
    }

    #[inline]
    fn partition(&self, number: u16) -> &Partition {
        // All numbers are below; the remainder spares the check.
        &self.partitions[number as usize % PARTITIONS]
    }

    /// A new database of a partition; `at` has the numbers of both.
    #[inline(never)]
    fn new_db(&self, hasher: KeyHasher, at: (u16, u8), now_ms: u64) -> Db {
        let db = Db::new(hasher, now_ms);
        self.partition(at.0).cores[at.1 as usize].set(Some(db.core()));
        db
    }

    /// Locks one partition.
    #[inline]
    pub fn lock(&self, partition: u16) -> MutexGuard<'_, Shard> {
        self.partition(partition).shard.lock()
    }

    /// Tells all partitions whether some client wants to know of all keys with a prefix. `is_wanted`
    /// is asked under each lock, so that of two callers at a time the last word is the right one.
    pub(crate) fn set_broadcast(&self, is_wanted: impl Fn() -> bool) {
        for p in 0..PARTITIONS as u16 {
            self.lock(p).history.set_broadcast(is_wanted(), &self.tracked);
        }
    }

    /// Brings the first thing that is read of a key towards the cache: its partition.
    #[inline]
    pub fn prefetch_partition(&self, at: &Located) {
        let partition = self.partition(at.partition);
        prefetch_value(&partition.cores);
        prefetch_ends_to_write(&partition.shard);
    }

    /// Begins to look for where a key is, without any lock.
    #[inline]
    pub fn begin_hint(&self, at: &mut Located) {
        at.hint = self.partition(at.partition).cores[at.db as usize % DATABASES].hint();
    }

    /// Where a key of a database belongs.
    #[inline(always)]
    #[must_use]
    pub fn locate(&self, key: &[u8], db: u8) -> Located {
        let (partition, hash) = self.place_and_hash(key);
        let (start, len) = (key.as_ptr().addr(), key.len() as u32);
        Located { start, len, partition, db, hash, hint: Hint::default() }
    }

    /// Partition and keyed hash of a key, in one pass over it. Not copied to where it is called from,
    /// so that its result comes in two registers.
    #[inline(never)]
    fn place_and_hash(&self, key: &[u8]) -> (u16, u64) {
        let (words, rest) = key.as_chunks::<8>();
        let (mut slot, mut hash) = (SlotFinder::default(), self.hasher.begin());
        for word in words {
            slot.add(word);
            hash.add(word);
        }
        (partition_of_slot(slot.finish(rest, key)), hash.finish(rest, key))
    }
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    /// Address of the key in the request that it is an argument of, by which it is known again.
    start: usize,
    /// Length of the key.
    len: u32,
    /// Number of the partition.
    pub partition: u16,
    /// Number of the database that it is looked for in beforehand.
    pub db: u8,
    /// Keyed hash.
    pub hash: u64,
    /// Where it is, as far as that was found out before its partition is locked.
    pub hint: Hint,
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
    /// What others are to be told of the partitions that were released.
    pub(crate) news: News,
}

impl<'a> Keys<'a> {
    /// A view that holds nothing yet.
    #[inline]
    #[must_use]
    pub fn new(keyspace: &'a Keyspace, stats: &'a WorkerStats, db: u8, now_ms: u64) -> Self {
        let now_s = (now_ms / 1000) as u32;
        let (one, many, turn, news) = (None, Vec::new(), None, News::default());
        Keys { keyspace, stats, one, many, turn, db, now_ms, now_s, touch: true, news }
    }

    /// Reports the bytes that changed and unlocks, after [`Self::hold_one`] and if nobody wants
    /// notifications.
    #[inline]
    pub fn release_one(&mut self) {
        if let Some(One { mut shard, .. }) = self.one.take()
            && shard.is_changed
        {
            shard.history.take_news(&mut self.news);
            self.stats.add_bytes(shard.take_bytes_delta());
        }
    }

    /// Whether there is something to be told.
    #[inline]
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Reports the bytes that changed, hands each new record to `notify`, and unlocks.
    pub fn release(&mut self, notify: Option<&mut dyn FnMut(Effect<'_>)>) {
        if let Some(One { mut shard, .. }) = self.one.take() {
            if let Some(notify) = notify {
                shard.take_notifications(notify);
            }
            shard.history.take_news(&mut self.news);
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
        for (_, shard) in &mut self.many {
            shard.history.take_news(&mut self.news);
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
        shard.history.take_news(&mut self.news);
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
        let (db, history, key) = self.write_to(key);
        let observed = history.log.is_kept();
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
        if !history.log.is_kept() {
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
        shard.live(db, key, now_ms, None)?;
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

    /// Empties databases (all of them, or one) in all partitions, which must be held. Returns what
    /// must be dropped: on the background thread, or at once.
    #[must_use]
    pub fn flush(&mut self, only: Option<u8>) -> Vec<Db> {
        let mut flushed = Vec::new();
        let keyspace = self.keyspace;
        let now_ms = self.now_ms;
        self.each_shard(|p, shard| {
            shard.is_changed = true;
            let Shard { hasher, dbs, history, .. } = shard;
            history.forget_tracked(p == 0, &keyspace.tracked);
            for i in (0..DATABASES as u8).filter(|i| only.is_none_or(|o| o == *i)) {
                let Some(db) = dbs.take_if_used(i) else { continue };
                history.touch_where(|watched, key| {
                    let key = Key::new(key, hasher.hash(key));
                    watched == i && db.get(key).is_some_and(|e| !e.is_expired(now_ms))
                });
                history.make_ready_where(|waiting| waiting == i);
                keyspace.partition(p).cores[i as usize].set(None);
                flushed.push(db);
                let change = Change::Flush;
                let event = Event::Silent;
                history.record(&Effect { db: i, key: b"", change, event, is_new: false });
            }
            true
        });
        flushed
    }

    /// Exchanges two databases in all partitions, which must be held.
    pub fn swap_dbs(&mut self, a: u8, b: u8) {
        let keyspace = self.keyspace;
        self.each_shard(|p, shard| {
            shard.is_changed = true;
            let Shard { hasher, dbs, history, .. } = shard;
            let is_in = |db: u8, key: &[u8]| {
                let key = Key::new(key, hasher.hash(key));
                dbs.get(db).is_some_and(|db| db.get(key).is_some())
            };
            history.touch_where(|db, key| (db == a || db == b) && (is_in(a, key) || is_in(b, key)));
            dbs.swap(a, b);
            history.make_ready_where(|db| db == a || db == b);
            for i in [a, b] {
                let core = dbs.get(i).map(Db::core);
                keyspace.partition(p).cores[i as usize].set(core);
            }
            let (change, event) = (Change::Swap(b), Event::Silent);
            history.record(&Effect { db: a, key: b"", change, event, is_new: false });
            true
        });
    }

    /// Keys and keys with a deadline in a database.
    pub fn count(&mut self, db: u8) -> (usize, usize) {
        let mut sum = (0, 0);
        self.each_shard(|_, shard| {
            if let Some(db) = shard.db(db) {
                sum = (sum.0 + db.len(), sum.1 + db.expires());
            }
            true
        });
        sum
    }

    /// Has a client wait for a key, which must be held, until it changes.
    pub(crate) fn wait_for(&mut self, key: &[u8], waiter: &Arc<crate::blocking::Waiter>) {
        let db = self.db;
        let (shard, _) = self.shard_of(key);
        shard.history.add_waiter(db, key, waiter);
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
}
