//! The keyspace of one partition: a table of entries per logical database with its expiry index
//! and exact memory accounting. Knows neither protocol nor clients.
//!
//! `unsafe` lives in `mem` and `table` only; everything public here is safe.

pub mod care;
pub mod evict;
pub mod growth;
mod mark;
mod mem;
pub mod mrc;
mod table;
mod tags;
mod wheel;

mod db;
mod found;
pub mod types;

pub use care::{Care, tag_number};
pub use db::{BATCH_MAX, Choice, Db, Key, Payload, Ttl, expect};
pub use found::{Due, Edited, EntryRef, Live, Removed, Use, Was};
pub use mark::Mark;
pub use mem::class_size;
pub use mem::entry::{Blob, INLINE_MAX};
pub use mem::pages::set_held_max;
pub use mem::slab::{Items, give_back, items};
pub use mem::slots::{give_back_kept, give_back_unused};
pub use mem::sparse::{Gain, Guess, Sparse};
pub use table::{Core, CoreCell, Hint, prefetch_to_write};

/// Starts the thread that makes memory for tables ready ahead of its use. Without this call the first
/// table that needs it does, which takes as long as to start a thread takes.
pub fn start_preparing() {
    let _later_if_it_failed = mem::region::toucher();
}

/// Bytes of all table buckets of the process.
#[must_use]
pub fn table_bytes_in_use() -> usize {
    mem::pool::bytes_in_use()
}
