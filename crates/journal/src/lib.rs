//! The ordered history of writes: effects, their encoding, and the bounded log of a partition.
#![forbid(unsafe_code)]
