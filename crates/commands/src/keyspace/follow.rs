//! Following another node's copy of a partition: its effects are applied here as they are.

use super::{DATABASES, Keyspace, Shard};
use crate::shared::free_in_background;
use hypercache_journal::{Change, Effect, Event, apply};
use hypercache_store::Db;

impl Shard {
    /// Applies an effect that happened in another copy of this partition, and tells of it as of one that
    /// happened here. A key whose time is past stays until its effect comes: only the primary decides.
    pub(super) fn follow(
        &mut self,
        keyspace: &Keyspace,
        partition: u16,
        effect: &Effect<'_>,
        now_ms: u64,
    ) {
        self.is_changed = true;
        let Shard { dbs, history, hasher, is_foreign, .. } = self;
        match effect.change {
            Change::Flush => {
                keyspace.core(partition, effect.db).set(None);
                dbs.take(effect.db).into_iter().for_each(|db| free_in_background(Box::new(db)));
            }
            Change::Swap(other) => {
                dbs.swap(effect.db, other);
                for i in [effect.db, other] {
                    keyspace.core(partition, i).set(dbs.get(i).map(Db::core));
                }
            }
            _ => {
                let make = || {
                    let mut db = keyspace.new_db(*hasher, (partition, effect.db), now_ms);
                    db.set_keeps_expired(*is_foreign);
                    db
                };
                let db = dbs.get_or_insert_with(effect.db, make);
                apply(effect, hasher.hash(effect.key), db);
            }
        }
        history.record(effect);
    }

    /// Empties the partition, before another copy of it takes its place.
    pub(super) fn clear(&mut self, keyspace: &Keyspace, partition: u16, now_ms: u64) {
        for db in 0..DATABASES as u8 {
            if self.db(db).is_some() {
                let (key, change, event) = (&b""[..], Change::Flush, Event::Silent);
                let effect = Effect { db, key, change, event, is_new: false };
                self.follow(keyspace, partition, &effect, now_ms);
            }
        }
        self.history.note_replaced();
    }
}

impl Keyspace {
    /// Applies an effect of another copy of a partition; see [`Shard::follow`].
    pub fn follow(&self, partition: u16, effect: &Effect<'_>, now_ms: u64) {
        self.lock(partition).follow(self, partition, effect, now_ms);
    }
}
