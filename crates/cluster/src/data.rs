//! What a partition's state machine asks of the store.

use std::fmt;

/// Where a walk over a partition in hash order stands: everything before it was visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// A piece of a full copy.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Entries in the store's own form.
    pub bytes: Vec<u8>,
    /// Where the walk goes on; `None` when it is at its end.
    pub next: Option<Cursor>,
}

/// What of a record concerns keys before a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing: they will be copied later, with this change in them.
    Nothing,
    /// The record as it is.
    All,
    /// These effects of it, as a record.
    Some(Vec<u8>),
    /// It cannot be told (databases changed places): the copy must start over.
    Unclear,
}

/// A part of a copy that is no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPart;

impl fmt::Display for BadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("damaged part of a full copy: it is asked for again")
    }
}

impl std::error::Error for BadPart {}

/// One copy of a partition's keys. All calls happen under the partition's lock, in the order of its log.
///
/// A full copy is read without fork and without copy-on-write, in hash order with a cursor: a change of a
/// key before the cursor is sent on beside the copy, a change beyond it will be copied later. It is
/// written beside what is there (`load_*`), so that a copy that is counted as in sync never has less
/// than it had.
pub trait Data {
    /// Applies a record.
    fn apply(&mut self, record: &[u8]);
    /// Calls `each` with the hash of every key that a record changes.
    fn touched(&self, record: &[u8], each: &mut dyn FnMut(u64));
    /// Reads a piece of about `bytes_max` from the cursor on.
    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk;
    /// What of a record a copy that stands at `cursor` must be told.
    fn part_before(&self, record: &[u8], cursor: Cursor) -> Part;
    /// Starts to load a full copy; without `keep`, what is there is dropped first.
    fn load_begin(&mut self, keep: bool);
    /// Loads bytes that `chunk` made: a piece, or a part of a large one that the next call goes on with.
    ///
    /// # Errors
    /// When it is none.
    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart>;
    /// Applies a record to what is being loaded.
    fn load_record(&mut self, record: &[u8]);
    /// What was loaded takes the place of what is there.
    fn load_end(&mut self);
    /// Forgets what was loaded.
    fn load_abort(&mut self);
    /// Forgets everything.
    fn clear(&mut self);
}
