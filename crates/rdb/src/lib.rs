//! Values in the format of Redis' snapshots and dumps (RDB): read from every encoding that Redis 2 to
//! 8.0 and Valkey 9 write, written in encodings that Redis 7.0 reads. Knows neither commands nor keys.
//!
//! **Reading is for hostile input.** Nothing is taken for granted, as Redis does under
//! `sanitize-dump-payload yes`: a length is compared with what is there before memory is taken for it,
//! an inner encoding must be sound to its last byte, what must be distinct is, and counters fit what
//! they count. What a value takes in memory is a small multiple of its bytes, unpacked where these are
//! packed with LZF; all of them together unpack to a bounded multiple of the payload.
//!
//! **Written** is the simplest encoding of each type; strings are not packed. A payload says version 10
//! (Redis 7.0), unless it holds a hash with deadlines, which Redis knows since version 12 (7.4).
#![forbid(unsafe_code)]

mod element;
mod intset;
mod listpack;
mod lzf;
pub mod payload;
mod read;
mod reader;
mod write;
mod ziplist;
mod zipmap;

pub use read::{Refused, Value, read_value};
pub use reader::Reader;
pub use write::{put_object, put_string, put_string_value};

/// The version that Redis 7.0 writes.
pub const VERSION: u16 = 10;
/// The version of Redis 7.4 and 8.0, whose hashes may have deadlines.
pub const VERSION_DEADLINES: u16 = 12;
/// The version of Valkey 9, whose hashes have deadlines in a way of their own.
pub const VERSION_VALKEY: u16 = 80;

/// Numbers of the types and encodings of values.
mod kind {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// Scores as text.
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    /// Scores as bits.
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM_LISTPACKS: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_LISTPACKS_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_LISTPACKS_3: u8 = 21;
    /// In Valkey. (A release candidate of Redis 7.4 used the number otherwise.)
    pub(crate) const HASH_2: u8 = 22;
    pub(crate) const HASH_METADATA: u8 = 24;
    pub(crate) const HASH_LISTPACK_EX: u8 = 25;
}

#[cfg(test)]
mod tests;
