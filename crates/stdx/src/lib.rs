//! What the standard library lacks and every other crate needs: clock, seeded random numbers,
//! keyed hash, number rules, glob patterns, sizes,
//! histograms, mailboxes between threads. Knows nothing of caches.
#![forbid(unsafe_code)]

pub mod chunks;
pub mod clock;
pub mod crc32c;
pub mod crc64;
pub mod float80;
mod float_bits;
pub mod glob;
pub mod hash;
pub mod histogram;
pub mod mailbox;
pub mod number;
pub mod quote;
pub mod rng;
pub mod sha1;
pub mod size;
