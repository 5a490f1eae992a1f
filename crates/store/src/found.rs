//! What a database hands out: entries that are there, and entries that left it.

use crate::care::Head;
use crate::db::Payload;
use crate::mark::Mark;
use crate::mem::entry::{Blob, EntryPtr, OwnedEntry};
use crate::types::{Kind, Object};
use std::sync::Arc;

/// A live entry, borrowed from its database.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    pub(crate) entry: EntryPtr,
    borrow: std::marker::PhantomData<&'a crate::Db>,
}

impl std::fmt::Debug for EntryRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryRef({} bytes)", self.bytes_used())
    }
}

impl<'a> EntryRef<'a> {
    pub(crate) fn new(entry: EntryPtr) -> Self {
        EntryRef { entry, borrow: std::marker::PhantomData }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.entry.key()
    }

    /// The type of the value.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entry.kind()
    }

    /// The value, of a key that holds no string.
    #[inline]
    #[must_use]
    pub fn object(&self) -> Option<&'a Object> {
        self.entry.object()
    }

    /// The value's bytes, of a key that holds a string.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.entry.value()
    }

    /// Whether the value has a buffer of its own.
    #[inline]
    #[must_use]
    pub fn is_blob(&self) -> bool {
        self.entry.is_external()
    }

    /// The value's buffer, when it has one of its own, shared.
    #[inline]
    #[must_use]
    pub fn blob(&self) -> Option<Arc<Blob>> {
        self.entry.blob()
    }

    /// The string as something that can be stored again.
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        match self.blob() {
            Some(blob) => Payload::Blob(blob),
            None => Payload::Slice(self.value()),
        }
    }

    /// When the key expires, in milliseconds since the epoch.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.entry.deadline()
    }

    /// Whether the key's time is past.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline().is_some_and(|at| now_ms > at)
    }

    /// What the memcached protocol keeps of it.
    #[inline]
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.entry.mark()
    }

    /// How the value may be used, but for its tags, which [`crate::Db::care_of`] tells.
    #[must_use]
    pub fn care_head(&self) -> Head {
        Head::decode(self.entry.care())
    }

    /// Whether the value stands for nothing.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.care_head().is_negative
    }

    /// Whether the value was edited in place, which Redis shows as encoding `raw`.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.entry.is_raw()
    }

    /// What is kept of the key's use, for [`crate::evict::Uses`] to read.
    #[must_use]
    pub fn use_bits(&self) -> u32 {
        self.entry.access()
    }

    /// Bytes that the entry takes.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.entry.bytes_used()
    }
}

/// What became of a change of a collection.
#[derive(Debug)]
pub enum Edited<R, F> {
    /// It was made.
    Done {
        /// What the change answered.
        result: R,
        /// The key, which went because nothing is left in its collection.
        removed: Option<Removed>,
        /// Whether the key takes another number of bytes than before.
        has_other_size: bool,
    },
    /// There is no such key; what was to be done comes back.
    Missing(F),
    /// The key's time was past, so it is gone; what was to be done comes back.
    Expired(Removed, F),
    /// The key holds another type.
    OtherType,
}

/// What was known of an item's use before it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// What was kept of its use, for [`crate::evict::Uses`] to read.
    pub bits: u32,
    /// Whether a memcached client read it.
    pub is_fetched: bool,
}

/// What [`crate::Db::get_live`] found.
#[derive(Debug)]
pub enum Live<'a> {
    /// The entry.
    Is(EntryRef<'a>),
    /// There is none.
    Missing,
    /// There was one, which is taken out because its time is past.
    Expired(Removed),
}

/// An entry that left its database. Dropping it frees it, on whichever thread that happens.
pub struct Removed(pub(crate) OwnedEntry);

impl std::fmt::Debug for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Removed({} bytes)", self.bytes_used())
    }
}

impl Removed {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.0.entry().key()
    }

    /// Takes the value out, of a key that held no string.
    #[must_use]
    pub fn take_object(&mut self) -> Option<Box<Object>> {
        self.0.entry().take_object()
    }

    /// The string as something that can be stored again.
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        EntryRef::new(self.0.entry()).payload()
    }

    /// When the key was to expire.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.0.entry().deadline()
    }

    /// Whether the value was edited in place.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.0.entry().is_raw()
    }

    /// Bytes that are freed when this is dropped.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.0.entry().bytes_used()
    }
}

/// What was under a key before something was stored there.
#[derive(Debug)]
pub enum Was {
    /// Nothing.
    Missing,
    /// A value that the new one was written over.
    Overwritten,
    /// This.
    Replaced(Removed),
}

/// What [`crate::Db::expire_due`] found.
#[derive(Debug)]
pub enum Due<'a> {
    /// A key that was taken out.
    Key(Removed),
    /// A key whose object holds something that is due.
    Within(&'a [u8]),
}
