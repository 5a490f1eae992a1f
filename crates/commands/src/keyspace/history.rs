//! What is told of the writes of a partition.

use super::{WatchFlag, discard, expired};
use hypercache_journal::{Effect, Log};
use hypercache_store::Removed;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts records that are kept, so that those of one command on several partitions can be told in
/// the order they were made.
static STAMP: AtomicU64 = AtomicU64::new(0);

/// What is told of every write of a partition: its log and the watchers of its keys.
#[derive(Debug, Default)]
pub struct History {
    /// The partition's log of effects.
    pub log: Log,
    /// Number of the last record that became a notification.
    pub(super) notified: u64,
    /// When each of the records after that was made, in the order of the whole keyspace.
    pub(super) stamps: Vec<u64>,
    pub(super) watchers: HashMap<(u8, Box<[u8]>), Vec<WatchFlag>>,
}

impl History {
    /// Whether nobody reads of writes: neither the log nor a watcher.
    #[inline]
    pub(super) fn is_unread(&self) -> bool {
        !self.log.is_kept() && self.watchers.is_empty()
    }

    /// Records an effect. The one place through which writes are told.
    #[inline]
    pub(super) fn record(&mut self, effect: &Effect<'_>) {
        self.log.append(effect);
        if self.log.is_kept() {
            self.stamps.push(STAMP.fetch_add(1, Ordering::Relaxed));
        }
        if !self.watchers.is_empty() {
            self.touch_watchers(effect);
        }
    }

    /// Records that the time of a key was past, and frees it.
    #[cold]
    pub(super) fn record_expired(&mut self, db: u8, removed: Removed) {
        self.record(&expired(db, removed.key()));
        discard(removed);
    }

    #[cold]
    fn touch_watchers(&self, effect: &Effect<'_>) {
        if let Some(flags) = self.watchers.get(&(effect.db, Box::from(effect.key))) {
            raise(flags);
        }
    }

    /// Raises the flags of watched keys for which `is_touched` holds.
    pub(super) fn touch_watchers_where(&self, mut is_touched: impl FnMut(u8, &[u8]) -> bool) {
        let touched = self.watchers.iter().filter(|((db, key), _)| is_touched(*db, key));
        touched.for_each(|(_, flags)| raise(flags));
    }
}

fn raise(flags: &[WatchFlag]) {
    flags.iter().for_each(|flag| flag.store(true, Ordering::Release));
}
