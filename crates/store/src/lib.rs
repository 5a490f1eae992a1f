//! The keyspace of one partition: a table of entries per logical database with its expiry index
//! and exact memory accounting. Knows neither protocol nor clients.
//!
//! `unsafe` lives in `mem` and `table` only; everything public here is safe.

pub mod growth;
mod mem;
mod table;
mod wheel;

mod db;
pub mod types;

pub use db::{Db, EntryRef, Key, Live, Payload, Removed, Ttl, Was};
pub use mem::class_size;
pub use mem::entry::{Blob, INLINE_MAX};
pub use table::{Core, CoreCell, Hint, prefetch_ends_to_write, prefetch_value};

/// Bytes of all table buckets of the process.
#[must_use]
pub fn table_bytes_in_use() -> usize {
    mem::pool::bytes_in_use()
}
