//! Keys whose values are loaded from elsewhere, as a command sees them that holds their partitions:
//! leases ([`crate::leases`]), and what a value carries ([`Care`]).

use super::{Keys, Shard, not_expired};
use crate::leases::Lease;
use hypercache_journal::{Change, Effect, Event};
use hypercache_stdx::clock;
use hypercache_store::{Care, EntryRef, Key, Payload, Ttl};
use std::sync::Arc;

/// Calls `f` with the effect that gives a key its care.
pub(super) fn with_care((db, key): (u8, &[u8]), care: &Care, f: impl FnOnce(&Effect<'_>)) {
    let tags: Vec<u8> = care.tags.iter().flat_map(|tag| tag.to_le_bytes()).collect();
    let Care { stale_ms, cost_us, is_negative, .. } = *care;
    let change = Change::Care { stale_ms, cost_us, is_negative, tags: &tags };
    f(&Effect { db, key, change, event: Event::Silent, is_new: false });
}

impl Shard {
    /// Makes all keys of a database with a tag gone. Returns how many there are at most.
    fn invalidate_tag(&mut self, number: u8, tag: u64) -> usize {
        self.history.note_invalidated(number, tag);
        let Shard { dbs, history, hasher, is_changed, .. } = self;
        let Some(db) = dbs.get_mut(number) else { return 0 };
        let keys = db.invalidate_tag(tag);
        if keys == 0 {
            return 0;
        }
        *is_changed = true;
        let (key, change, event) = (&b""[..], Change::Invalidate(tag), Event::Silent);
        history.record(&Effect { db: number, key, change, event, is_new: false });
        let is_gone = |other: u8, key: &[u8]| {
            other == number && db.is_invalidated_key(Key::new(key, hasher.hash(key)))
        };
        history.touch_where(is_gone);
        history.end_leases_where(is_gone);
        keys
    }
}

impl Keys<'_> {
    /// Reads a key as one who knows of values that stand for nothing. No hit or miss.
    pub(crate) fn loaded(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (db, now_ms) = (self.db, self.now_ms);
        let touch = self.touch.then_some(self.now_s);
        let (shard, key) = self.shard_of(key);
        let Shard { dbs, history, is_changed, .. } = shard;
        not_expired(dbs.get_mut(db)?.get_loaded(key, now_ms, touch), (db, history, is_changed))
    }

    /// Counts a hit or a miss of [`Self::loaded`].
    pub(crate) fn count_loaded(&mut self, is_hit: bool) {
        self.stats.count_lookup(is_hit);
    }

    /// How a value may be used that is there.
    pub(crate) fn care(&mut self, key: &[u8]) -> Option<Care> {
        let db = self.db;
        let (shard, key) = self.shard_of(key);
        shard.db(db)?.care(key)
    }

    /// Changes how a string may be used that is there.
    pub(crate) fn set_care(&mut self, key: &[u8], care: &Care) {
        let number = self.db;
        let (db, history, key) = self.write_to(key);
        if db.set_care(key, care) {
            with_care((number, key.bytes), care, |effect| history.record_quietly(effect));
        }
    }

    /// Stores a value that was loaded. A key whose time is past was looked up before.
    pub(crate) fn set_loaded(&mut self, key: &[u8], value: Payload<'_>, ttl: Ttl, care: &Care) {
        self.set(key, value, ttl, Event::Set);
        if !care.is_none() {
            self.set_care(key, care);
        }
        if matches!(ttl, Ttl::At(_)) {
            self.also(key, Event::Expire);
        }
    }

    /// Makes all keys of the database with a tag gone, in all partitions, which must be held, but for
    /// those that another node is the primary of. Returns how many there are at most.
    pub(crate) fn invalidate_tag(&mut self, tag: u64) -> usize {
        let (db, mut keys) = (self.db, 0);
        self.each_shard(|_, shard| {
            if !shard.is_foreign() {
                keys += shard.invalidate_tag(db, tag);
            }
            true
        });
        keys
    }

    /// The lease of a key, if it has one.
    pub(crate) fn lease(&mut self, key: &[u8]) -> Option<&Lease> {
        let db = self.db;
        let (shard, key) = self.shard_of(key);
        shard.history.lease(db, key.bytes, clock::mono_ms())
    }

    /// Gives a client the lease of a key for a time, unless there are `max` leases.
    pub(crate) fn grant(
        &mut self,
        key: &[u8],
        client: u64,
        for_ms: u64,
        max: usize,
    ) -> Option<u64> {
        let (db, leases) = (self.db, Arc::clone(&self.keyspace.leases));
        let (shard, partition, key) = self.place_of(key);
        // What another node decides about is not loaded here.
        if shard.is_foreign() {
            return None;
        }
        let history = &mut shard.history;
        // The old one is over, so it makes room first.
        history.end_lease(db, key.bytes, None);
        let place = (partition, db, key.bytes);
        let lease = leases.grant(place, client, for_ms, history.invalidations(), max)?;
        let token = lease.token;
        history.put_lease(db, key.bytes, lease);
        Some(token)
    }

    /// Whether what the holder of a lease read is what the source holds: neither the key nor one of the
    /// tags was invalidated since. Returns how long it took, in microseconds.
    pub(crate) fn redeem(&mut self, key: &[u8], token: u64, tags: &[u64]) -> Option<u64> {
        let db = self.db;
        let (shard, key) = self.shard_of(key);
        let history = &shard.history;
        let lease = history.lease(db, key.bytes, clock::mono_ms());
        let lease = lease.filter(|lease| lease.token == token)?;
        let took_us = clock::mono_us().saturating_sub(lease.begun_us);
        (!history.is_outdated(lease, db, tags)).then_some(took_us)
    }

    /// Ends the lease of a key; with `token` only that one.
    pub(crate) fn end_lease(&mut self, key: &[u8], token: Option<u64>) {
        let db = self.db;
        let (shard, key) = self.shard_of(key);
        shard.history.end_lease(db, key.bytes, token);
    }

    /// How many clients wait for a key.
    pub(crate) fn waiting_for(&mut self, key: &[u8]) -> usize {
        let db = self.db;
        let (shard, key) = self.shard_of(key);
        shard.history.waiting_for(db, key.bytes)
    }
}
