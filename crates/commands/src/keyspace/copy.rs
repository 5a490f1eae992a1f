//! A partition as the cluster's state machine sees it: records are applied, and it is copied while it
//! changes.
//!
//! A copy is read in the order of [`Db::walk`], database by database, so a place in it is one number:
//! database and place of the hash. Each node hashes with a secret of its own, hence places mean something
//! to the node that reads the copy only; what travels are keys. An entry is written down as the effect
//! that makes it what it is, which for a collection is all its operations: the largest entry decides how
//! large a piece can become.
//!
//! A copy is loaded into databases of its own, beside those that are there, and exchanged for them at its
//! end.

use super::dbs::Dbs;
use super::loaded::with_care;
use super::{DATABASES, Keyspace, Shard};
use crate::shared::free_in_background;
use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use hypercache_journal::{Change, Effect, Event, apply, record};
use hypercache_store::{Db, EntryRef, Mark};

/// What stands for all keys of a partition in the table of keys whose newest change is not committed.
pub(super) const EVERY_KEY: u64 = 0;

/// What is being loaded beside what is there.
#[derive(Debug, Default)]
pub struct Loading {
    dbs: Option<Box<Dbs>>,
    /// The beginning of an effect whose rest is on its way.
    rest: Vec<u8>,
}

impl Loading {
    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.dbs.as_ref().map_or(0, |dbs| dbs.bytes()) + self.rest.len()
    }
}

/// One partition, which is held.
#[derive(Debug)]
pub struct Copy<'a> {
    keyspace: &'a Keyspace,
    shard: &'a mut Shard,
    partition: u16,
    loading: &'a mut Loading,
    now_ms: u64,
}

/// What stands for a key in the table of keys whose newest change is not committed.
pub(super) fn mark_of(db: u8, hash: u64) -> u64 {
    hash.wrapping_add(u64::from(db)) | 1
}

fn is_of_database(effect: &Effect<'_>) -> bool {
    matches!(effect.change, Change::Flush | Change::Swap(_) | Change::Invalidate(_))
}

/// The effects that make an entry of a database what it is.
fn add_entry((db, from): (u8, &Db), entry: &EntryRef<'_>, out: &mut Vec<u8>) {
    let (key, deadline, event) = (entry.key(), entry.deadline(), Event::Silent);
    let mut ops = Vec::new();
    let change = match entry.object() {
        Some(object) => {
            object.encode(&mut ops);
            Change::Object { kind: object.kind(), ops: &ops, deadline }
        }
        None => Change::Set { value: entry.value(), deadline },
    };
    record::add(&Effect { db, key, change, event, is_new: true }, out);
    let Mark { client_flags, state, .. } = entry.mark();
    if client_flags != 0 || state != 0 {
        let change = Change::Mark { client_flags, state };
        record::add(&Effect { db, key, change, event, is_new: false }, out);
    }
    if let Some(care) = from.care_of(*entry) {
        with_care((db, key), &care, |effect| record::add(effect, out));
    }
}

impl Keyspace {
    /// A partition that is held as the cluster's state machine sees it.
    pub fn copy<'a>(
        &'a self,
        (partition, shard): (u16, &'a mut Shard),
        loading: &'a mut Loading,
        now_ms: u64,
    ) -> Copy<'a> {
        Copy { keyspace: self, shard, partition, loading, now_ms }
    }
}

impl Copy<'_> {
    /// Where a key is in the order of a copy.
    fn place(&self, db: u8, key: &[u8]) -> u64 {
        u64::from(db) << 32 | u64::from(Db::place_of(self.shard.hasher.hash(key)))
    }

    /// What stands for a key among those whose newest change is not committed.
    #[must_use]
    pub fn mark(&self, db: u8, key: &[u8]) -> u64 {
        mark_of(db, self.shard.hasher.hash(key))
    }

    /// Applies an effect to what is being loaded.
    fn load(&mut self, effect: &Effect<'_>) {
        let Some(dbs) = &mut self.loading.dbs else { return };
        let (hasher, at) = (self.shard.hasher, (self.partition, effect.db));
        let db = dbs.get_or_insert_with(effect.db, || {
            let mut db = self.keyspace.new_db_apart(hasher, at, self.now_ms);
            db.set_keeps_expired(self.shard.is_foreign);
            db
        });
        apply(effect, hasher.hash(effect.key), db);
    }

    /// Exchanges what is there for what was loaded.
    fn exchange(&mut self, mut loaded: Dbs) {
        self.shard.is_changed = true;
        for i in 0..DATABASES as u8 {
            let new = loaded.take(i);
            let old = self.shard.dbs.take(i);
            self.keyspace.core(self.partition, i).set(new.as_ref().map(Db::core));
            self.shard.dbs.put(i, new);
            old.into_iter().for_each(|db| free_in_background(Box::new(db)));
        }
        self.shard.history.note_replaced();
    }
}

impl Data for Copy<'_> {
    fn apply(&mut self, bytes: &[u8]) {
        for effect in record::effects(bytes).flatten() {
            self.shard.follow(self.keyspace, self.partition, &effect, self.now_ms);
        }
    }

    fn touched(&self, bytes: &[u8], each: &mut dyn FnMut(u64)) {
        for effect in record::effects(bytes).flatten() {
            if is_of_database(&effect) {
                each(EVERY_KEY);
            } else {
                each(self.mark(effect.db, effect.key));
            }
        }
    }

    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk {
        let mut bytes = Vec::new();
        let mut at = Some(from.0 as u32);
        for i in (from.0 >> 32) as u8..DATABASES as u8 {
            while let Some(here) = at {
                if bytes.len() >= bytes_max {
                    let next = Some(Cursor(u64::from(i) << 32 | u64::from(here)));
                    return Chunk { bytes, next };
                }
                let db = self.shard.dbs.get(i);
                at =
                    db.and_then(|db| db.walk(here, |entry| add_entry((i, db), &entry, &mut bytes)));
            }
            at = Some(0);
        }
        Chunk { bytes, next: None }
    }

    fn part_before(&self, bytes: &[u8], cursor: Cursor) -> Part {
        let mut before = Vec::new();
        for effect in record::effects(bytes) {
            let Ok(effect) = effect else { return Part::Unclear };
            if is_of_database(&effect) {
                return Part::Unclear;
            }
            if self.place(effect.db, effect.key) < cursor.0 {
                record::add(&effect, &mut before);
            }
        }
        match before.len() {
            0 => Part::Nothing,
            n if n == bytes.len() => Part::All,
            _ => Part::Some(before),
        }
    }

    fn load_begin(&mut self, keep: bool) {
        if !keep {
            self.clear();
        }
        *self.loading = Loading { dbs: Some(Box::default()), rest: Vec::new() };
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart> {
        let mut all = std::mem::take(&mut self.loading.rest);
        all.extend_from_slice(bytes);
        let whole = record::whole_bytes(&all);
        for effect in record::effects(&all[..whole]) {
            let effect = effect.map_err(|_| BadPart)?;
            self.load(&effect);
        }
        all.drain(..whole);
        self.loading.rest = all;
        Ok(())
    }

    fn load_record(&mut self, bytes: &[u8]) {
        for effect in record::effects(bytes).flatten() {
            self.load(&effect);
        }
    }

    fn load_end(&mut self) {
        let Loading { dbs, .. } = std::mem::take(self.loading);
        if let Some(dbs) = dbs {
            self.exchange(*dbs);
        }
    }

    fn load_abort(&mut self) {
        let Loading { dbs, .. } = std::mem::take(self.loading);
        dbs.into_iter().for_each(|dbs| free_in_background(dbs));
    }

    fn clear(&mut self) {
        self.load_abort();
        self.shard.clear(self.keyspace, self.partition, self.now_ms);
    }
}
