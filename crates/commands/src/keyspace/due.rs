//! What a partition does when times are past: keys go, and fields of hashes; and keys whose tags were
//! invalidated.

use super::{Shard, typed};
use hypercache_store::{Due, Key};

impl Shard {
    /// Removes keys and fields of hashes whose time is past, and keys that are gone with their tags.
    /// Returns how many hints and fields were looked at (fewer than `max`: nothing more is due, see
    /// [`Db::expire_due`]) and how many keys went.
    pub fn expire_due(&mut self, now_ms: u64, max: usize) -> (usize, usize) {
        let (mut looked, mut gone) = (0, 0);
        let Shard { dbs, history, due_within, hasher, is_changed, .. } = self;
        for (i, db) in dbs.iter_mut() {
            looked += db.expire_due(now_ms, max.saturating_sub(looked), &mut |due| match due {
                Due::Key(removed) => {
                    gone += 1;
                    history.record_expired(i, removed);
                }
                Due::Within(key) => due_within.push((i, Box::from(key))),
            });
            if db.needs_purge() {
                *is_changed = true;
                looked += db.purge(max.saturating_sub(looked), &mut |removed| {
                    gone += 1;
                    history.record_expired(i, removed);
                });
            }
        }
        while looked < max
            && let Some((i, bytes)) = due_within.last()
        {
            let key = Key::new(bytes, hasher.hash(bytes));
            let fields = dbs
                .get_mut(*i)
                .map_or(0, |db| typed::expire_fields(db, history, (*i, key), now_ms, max - looked));
            looked += fields;
            if looked < max {
                due_within.pop();
            }
        }
        *is_changed |= looked > 0;
        (looked, gone)
    }
}
