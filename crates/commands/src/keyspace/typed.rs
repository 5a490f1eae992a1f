//! Keys by the type of what they hold: strings, and collections with their changes.
//!
//! A command reads a collection with [`Keys::read`] and changes it with [`Keys::edit`], whose
//! [`Editor`] is the one way to do so: every operation that it applies is told as an effect, a
//! collection that was left empty goes with its key, and one that was not there is made by its first
//! operation.

use super::{History, Keys, Shard, discard};
use crate::error::ReplyError;
use hypercache_journal::{Change, Effect, Event};
use hypercache_store::types::{Collection, Hash, HashOp, Held, Kind, Object, Operation};
use hypercache_store::{Db, Edited, EntryRef, Key, Ttl, Was};
use std::ops::Deref;

/// A collection that a command changes. What it holds is read as if this were the collection.
#[derive(Debug)]
pub struct Editor<'e, T: Collection> {
    value: &'e mut T,
    history: &'e mut History,
    db: u8,
    key: &'e [u8],
    /// Whether the next record is the first of a key that was not there.
    is_new: bool,
    is_changed: bool,
}

impl<T: Collection> Deref for Editor<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T: Collection> Editor<'_, T> {
    /// Makes a change, and tells of it if it was one.
    #[inline]
    pub fn apply(&mut self, op: T::Op<'_>) -> T::Done {
        let done = self.value.apply(op);
        if T::has_changed(&done) {
            self.is_changed = true;
            let is_new = std::mem::take(&mut self.is_new);
            if self.history.is_unread() {
                self.history.log.pass();
            } else {
                let record = (self.db, self.key, is_new, T::wakes(&op));
                self.history.record_op(record, T::KIND, |out| op.encode(out));
            }
        }
        done
    }

    /// Whether there was a change.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Tells subscribers what the changes so far are called.
    #[inline]
    pub fn event(&mut self, event: Event) {
        self.history.record_event(self.db, self.key, event);
    }
}

impl History {
    /// Records an operation. It is put into its form only if the log is kept.
    #[inline(never)]
    fn record_op(
        &mut self,
        (db, key, is_new, wakes): (u8, &[u8], bool, bool),
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut op = Vec::new();
        if self.is_kept() {
            encode(&mut op);
        }
        let change = Change::Op { kind, op: &op };
        let effect = Effect { db, key, change, event: Event::Silent, is_new };
        if wakes { self.record(&effect) } else { self.record_quietly(&effect) }
    }

    #[inline]
    fn record_event(&mut self, db: u8, key: &[u8], event: Event) {
        if !self.is_unread() {
            self.record(&Effect { db, key, change: Change::Nothing, event, is_new: false });
        }
    }
}

/// Removes up to `max` fields whose time is past from the hash of a key, and the key with the last.
/// Returns how many fields went; fewer than `max` means that no more are due.
pub(super) fn expire_fields(
    db: &mut Db,
    history: &mut History,
    (number, key): (u8, Key<'_>),
    now_ms: u64,
    max: usize,
) -> usize {
    let mut expire = |hash: &mut Hash| {
        let mut due = Vec::new();
        hash.fields().each_expired(now_ms, |record| {
            due.push(record.key.to_vec());
            due.len() < max
        });
        let (is_new, is_changed, key) = (false, false, key.bytes);
        let mut editor = Editor { value: hash, history, db: number, key, is_new, is_changed };
        for field in &due {
            editor.apply(HashOp::Remove(field));
        }
        if !due.is_empty() {
            editor.event(Event::HExpired);
        }
        if due.len() < max {
            hash.settle();
        }
        (due.len(), hash.is_empty())
    };
    let done = db.edit_object(key, None, |object| Hash::of_mut(object).map(&mut expire));
    let Some((fields, is_empty)) = done.flatten() else { return 0 };
    if is_empty && fields > 0 {
        db.remove(key).into_iter().for_each(discard);
        let (change, event) = (Change::Del, Event::Del);
        history.record(&Effect { db: number, key: key.bytes, change, event, is_new: false });
    }
    fields
}

/// Has `f` change a collection. Returns what it answers, and whether there was a change.
#[inline]
fn change<T: Collection, R>(
    value: &mut T,
    history: &mut History,
    (db, key): (u8, &[u8]),
    is_new: bool,
    f: impl FnOnce(&mut Editor<'_, T>) -> R,
) -> (R, bool) {
    let mut editor = Editor { value, history, db, key, is_new, is_changed: false };
    let result = f(&mut editor);
    (result, editor.is_changed)
}

/// An entry, if it is a string or missing.
#[inline(always)]
fn only_string(entry: Option<EntryRef<'_>>) -> Result<Option<EntryRef<'_>>, ReplyError> {
    match entry {
        Some(entry) if entry.kind() != Kind::String => Err(ReplyError::WrongType),
        entry => Ok(entry),
    }
}

/// The collection of an entry, if it is of this type or missing.
#[inline]
fn only<T: Collection>(entry: Option<EntryRef<'_>>) -> Result<Option<&T>, ReplyError> {
    let Some(entry) = entry else { return Ok(None) };
    entry.object().and_then(T::of).map(Some).ok_or(ReplyError::WrongType)
}

impl Keys<'_> {
    /// Reads a string: counts a hit or miss, notes the use.
    pub fn string(&mut self, key: &[u8]) -> Result<Option<EntryRef<'_>>, ReplyError> {
        self.string_here(key)
    }

    /// As [`Self::string`], for the one command that is run so often that a call shows.
    #[inline(always)]
    pub fn string_here(&mut self, key: &[u8]) -> Result<Option<EntryRef<'_>>, ReplyError> {
        only_string(self.get(key))
    }

    /// Reads a string on behalf of a write: no hit or miss.
    #[inline]
    pub fn string_uncounted(&mut self, key: &[u8]) -> Result<Option<EntryRef<'_>>, ReplyError> {
        only_string(self.get_uncounted(key))
    }

    /// Reads a collection: counts a hit or miss, notes the use.
    #[inline]
    pub fn read<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, ReplyError> {
        only(self.get(key))
    }

    /// Reads a collection on behalf of a write: no hit or miss.
    #[inline]
    pub fn read_uncounted<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, ReplyError> {
        only(self.get_uncounted(key))
    }

    /// A collection that this command has read: to look at several at once.
    #[must_use]
    pub fn seen<T: Collection>(&self, key: &[u8]) -> Option<&T> {
        let (partition, hash) = self.keyspace.place_and_hash(key);
        let db = self.seen_shard(partition)?.db(self.db)?;
        db.get(Key::new(key, hash))?.object().and_then(T::of)
    }

    /// Changes a collection, which is made if it is not there; see the module's text.
    ///
    /// # Errors
    /// If the key holds another type.
    #[inline]
    pub fn edit<T: Collection, R>(
        &mut self,
        key: &[u8],
        f: impl FnOnce(&mut Editor<'_, T>) -> R,
    ) -> Result<R, ReplyError> {
        match self.edit_there(key, f)? {
            Ok(result) => Ok(result),
            Err(f) => Ok(self.make(key, f)),
        }
    }

    /// Changes a collection, if it is there; `None` if it is not.
    ///
    /// # Errors
    /// If the key holds another type.
    #[inline]
    pub fn edit_if_there<T: Collection, R>(
        &mut self,
        key: &[u8],
        f: impl FnOnce(&mut Editor<'_, T>) -> R,
    ) -> Result<Option<R>, ReplyError> {
        Ok(self.edit_there(key, f)?.ok())
    }

    /// Changes a collection that is there; gives `f` back if it is not.
    #[inline]
    fn edit_there<T: Collection, R, F: FnOnce(&mut Editor<'_, T>) -> R>(
        &mut self,
        key: &[u8],
        f: F,
    ) -> Result<Result<R, F>, ReplyError> {
        let (db, at) = (self.db, (self.now_ms, self.now_s));
        let (shard, key) = self.shard_of(key);
        let Shard { dbs, history, is_changed, .. } = shard;
        let Some(table) = dbs.get_mut(db) else { return Ok(Err(f)) };
        // What is recorded without a change may be told, too.
        *is_changed |= !history.is_unread();
        let edited = table.edit_live(key, at, f, |value: &mut T, f| {
            change(value, history, (db, key.bytes), false, f)
        });
        match edited {
            Edited::Done { result, removed, has_other_size } => {
                *is_changed |= has_other_size;
                if let Some(removed) = removed {
                    let (key, change, event) = (key.bytes, Change::Del, Event::Del);
                    history.record(&Effect { db, key, change, event, is_new: false });
                    discard(removed);
                }
                Ok(Ok(result))
            }
            Edited::Missing(f) => Ok(Err(f)),
            Edited::Expired(removed, f) => {
                *is_changed = true;
                history.record_expired(db, removed);
                Ok(Err(f))
            }
            Edited::OtherType => Err(ReplyError::WrongType),
        }
    }

    /// Makes a collection by changing an empty one.
    fn make<T: Collection, R>(&mut self, key: &[u8], f: impl FnOnce(&mut Editor<'_, T>) -> R) -> R {
        let (db_number, seconds) = (self.db, self.now_s);
        let (db, history, key) = self.write_to(key);
        let mut value = T::default();
        let (result, is_changed) = change(&mut value, history, (db_number, key.bytes), true, f);
        if is_changed && value.is_empty() {
            let (key, change, event) = (key.bytes, Change::Del, Event::Del);
            history.record(&Effect { db: db_number, key, change, event, is_new: false });
        } else if is_changed {
            db.set_object(key, Box::new(value.into_object()), Ttl::Clear, seconds);
        }
        result
    }

    /// Stores a collection as a whole under `key`, whatever it held. An empty one is not stored:
    /// then the key goes.
    pub fn put_object(&mut self, key: &[u8], object: Object, ttl: Ttl, event: Event) {
        if object.is_empty() {
            self.delete(key, Event::Del);
            return;
        }
        let (db_number, seconds) = (self.db, self.now_s);
        let (db, history, key) = self.write_to(key);
        let (kind, mut ops) = (object.kind(), Vec::new());
        if history.is_kept() {
            object.encode(&mut ops);
        }
        let was = db.set_object(key, Box::new(object), ttl, seconds);
        let deadline = db.get(key).and_then(|entry| entry.deadline());
        let change = Change::Object { kind, ops: &ops, deadline };
        let is_new = matches!(was, Was::Missing);
        history.record(&Effect { db: db_number, key: key.bytes, change, event, is_new });
        if let Was::Replaced(old) = was {
            discard(old);
        }
    }
}
