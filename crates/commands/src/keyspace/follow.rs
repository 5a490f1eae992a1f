//! Following another node's copy of a partition: its effects are applied here as they are.

use super::{DATABASES, Keyspace};
use hypercache_journal::{Change, Effect, Event, apply};
use hypercache_store::Db;

impl Keyspace {
    /// Applies an effect that happened in another copy of a partition, and tells of it as of one that
    /// happened here. A key whose time is past stays until its effect comes: only the primary decides.
    pub fn follow(&self, partition: u16, effect: &Effect<'_>, now_ms: u64) {
        let mut shard = self.lock(partition);
        let shard = &mut *shard;
        shard.is_changed = true;
        match effect.change {
            Change::Flush => {
                self.core(partition, effect.db).set(None);
                drop(shard.dbs.take(effect.db));
            }
            Change::Swap(other) => {
                shard.dbs.swap(effect.db, other);
                for i in [effect.db, other] {
                    self.core(partition, i).set(shard.dbs.get(i).map(Db::core));
                }
            }
            _ => {
                let hasher = shard.hasher;
                let make = || self.new_db(hasher, (partition, effect.db), now_ms);
                let db = shard.dbs.get_or_insert_with(effect.db, make);
                apply(effect, hasher.hash(effect.key), db);
            }
        }
        shard.history.record(effect);
    }

    /// Empties a partition, before another copy of it takes its place.
    pub fn clear_partition(&self, partition: u16, now_ms: u64) {
        for db in 0..DATABASES as u8 {
            if self.lock(partition).db(db).is_some() {
                let (key, change, event) = (&b""[..], Change::Flush, Event::Silent);
                self.follow(partition, &Effect { db, key, change, event, is_new: false }, now_ms);
            }
        }
    }
}
