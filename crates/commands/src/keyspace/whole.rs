//! What is done to whole databases: emptied, exchanged, counted. Of partitions that another node decides
//! about nothing is.

use super::{DATABASES, Keys, Shard};
use hypercache_journal::{Change, Effect, Event};
use hypercache_store::{Db, Key};

impl Keys<'_> {
    /// Empties databases (all of them, or one) in all partitions, which must be held. Returns what
    /// must be dropped: on the background thread, or at once.
    #[must_use]
    pub fn flush(&mut self, only: Option<u8>) -> Vec<Db> {
        let mut flushed = Vec::new();
        let keyspace = self.keyspace;
        let now_ms = self.now_ms;
        self.each_shard(|p, shard| {
            if shard.is_foreign {
                return true;
            }
            shard.is_changed = true;
            let Shard { hasher, dbs, history, .. } = shard;
            history.forget_tracked(p == 0, &keyspace.tracked);
            history.end_leases_where(|db, _| only.is_none_or(|only| only == db));
            for i in (0..DATABASES as u8).filter(|i| only.is_none_or(|o| o == *i)) {
                let Some(db) = dbs.take_if_used(i) else { continue };
                history.touch_where(|watched, key| {
                    let key = Key::new(key, hasher.hash(key));
                    watched == i && db.get(key).is_some_and(|e| !e.is_expired(now_ms))
                });
                history.make_ready_where(|waiting| waiting == i);
                keyspace.core(p, i).set(None);
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
            history.end_leases_where(|db, _| db == a || db == b);
            history.make_ready_where(|db| db == a || db == b);
            for i in [a, b] {
                let core = dbs.get(i).map(Db::core);
                keyspace.core(p, i).set(core);
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
            if let Some(db) = shard.own_db(db) {
                sum = (sum.0 + db.len(), sum.1 + db.expires());
            }
            true
        });
        sum
    }

    /// Keys and bytes of the selected database, copies of other nodes' keys among them.
    pub(crate) fn size(&mut self) -> (usize, usize) {
        let (number, mut sum) = (self.db, (0, 0));
        self.each_shard(|_, shard| {
            if let Some(db) = shard.db(number) {
                sum = (sum.0 + db.len(), sum.1 + db.bytes());
            }
            true
        });
        sum
    }
}
