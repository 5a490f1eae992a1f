//! Keys as items of the memcached protocol: strings with a [`Mark`]. A key of another type is no
//! item, but is not free either.

use super::{History, Keys, discard};
use hypercache_journal::{Change, Effect, Event};
use hypercache_stdx::clock;
use hypercache_store::types::Kind;
use hypercache_store::{EntryRef, Mark, Payload, Ttl, Use, Was};
use std::sync::atomic::Ordering::Relaxed;

/// Bits that CAS uniques count within one second since the epoch.
const CAS_BITS: u32 = 20;

/// Where CAS uniques begin. They follow the clock, so that a client that kept one over a restart of
/// the server does not meet it again; a million of them a second would have to be asked for to
/// outrun the clock. Below 2^53 until 2242, for clients that know numbers as doubles only.
pub(super) fn first_cas() -> u64 {
    (clock::now_ms() / 1000) << CAS_BITS
}

fn record_mark(history: &mut History, db: u8, key: &[u8], mark: Mark) {
    let Mark { client_flags, state, .. } = mark;
    let (change, event) = (Change::Mark { client_flags, state }, Event::Silent);
    history.record(&Effect { db, key, change, event, is_new: false });
}

#[inline(always)]
fn only_item(entry: Option<EntryRef<'_>>) -> Option<EntryRef<'_>> {
    entry.filter(|entry| entry.kind() == Kind::String)
}

impl Keys<'_> {
    /// The item under a key, without a trace of the look.
    #[inline]
    pub fn item(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (db, now_ms) = (self.db, self.now_ms);
        let (shard, key) = self.shard_of(key);
        only_item(shard.live(db, key, now_ms, None))
    }

    /// Notes that a memcached client read an item that is there; tells how it was used before.
    #[inline]
    pub fn fetch(&mut self, key: &[u8], is_use: bool) -> Option<Use> {
        let (db, seconds) = (self.db, self.now_s);
        let (shard, key) = self.shard_of(key);
        shard.dbs.get_mut(db)?.fetch(key, is_use.then_some(seconds))
    }

    /// Seconds since an item was used before.
    pub fn idle_s(&self, before: Use) -> u32 {
        self.keyspace.uses.idle_s(before.bits, self.now_s)
    }

    /// Reads an item on behalf of a memcached client, and notes that.
    #[inline(always)]
    pub fn read_item(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (db, now_ms, seconds) = (self.db, self.now_ms, self.now_s);
        let (shard, key) = self.shard_of(key);
        only_item(shard.live_item(db, key, now_ms, seconds))
    }

    /// Stores an item, whatever the key held. As with [`Keys::set`], one whose time is past counts
    /// as there.
    #[inline]
    pub fn set_item(&mut self, key: &[u8], value: Payload<'_>, ttl: Ttl, mark: Mark, event: Event) {
        let (db_number, seconds) = (self.db, self.now_s);
        let (db, history, key) = self.write_to(key);
        if history.is_unread() {
            history.log.pass();
            if let Was::Replaced(old) = db.set_marked(key, value, ttl, seconds, mark) {
                discard(old);
            }
            return;
        }
        let copy = history.is_kept().then(|| value.clone());
        let was = db.set_marked(key, value, ttl, seconds, mark);
        let is_new = matches!(was, Was::Missing);
        let (bytes, deadline) = match &copy {
            Some(value) => (value.bytes(), db.get(key).and_then(|e| e.deadline())),
            None => (&b""[..], None),
        };
        let change = Change::Set { value: bytes, deadline };
        history.record(&Effect { db: db_number, key: key.bytes, change, event, is_new });
        if mark.client_flags != 0 || mark.state != 0 {
            record_mark(history, db_number, key.bytes, mark);
        }
        if let Was::Replaced(old) = was {
            discard(old);
        }
    }

    /// Changes the mark of an item that is there.
    pub fn set_mark(&mut self, key: &[u8], mark: Mark) {
        let db_number = self.db;
        let (db, history, key) = self.write_to(key);
        let old = db.get(key).map(|entry| entry.mark()).unwrap_or_default();
        db.set_mark(key, mark);
        if (old.client_flags, old.state) != (mark.client_flags, mark.state) {
            record_mark(history, db_number, key.bytes, mark);
        }
    }

    /// The CAS unique of an item that is there: that which was given since its last change, or the
    /// next one.
    pub fn cas_of(&mut self, key: &[u8]) -> u64 {
        let last_cas = &self.keyspace.last_cas;
        let (db, _, key) = self.write_to(key);
        let Some(mark) = db.get(key).map(|entry| entry.mark()) else { return 0 };
        if mark.cas != 0 {
            return mark.cas;
        }
        let cas = last_cas.fetch_add(1, Relaxed) + 1;
        db.set_mark(key, Mark { cas, ..mark });
        cas
    }
}
