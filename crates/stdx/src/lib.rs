//! What the standard library lacks: clock, seeded random numbers, histogram, checksums, keyed hash, number and glob rules.
#![forbid(unsafe_code)]

pub mod float80;
mod float_bits;
pub mod glob;
pub mod histogram;
pub mod number;
pub mod size;
