//! The heart of the cluster: who holds which partition, and how its copies agree on every record.
//!
//! Everything here is a state machine without I/O: what happened and the time of this node's own
//! monotonic clock go in, what is to be sent or proposed comes out. There is no socket, no thread, no
//! clock, no source of randomness and no map whose order depends on one, so that a simulator runs the
//! very same code a million times with every fault it can think of (`crates/sim`).
//!
//! - [`meta`]: what the cluster has agreed on, as a deterministic state machine over typed commands.
//!   A consensus log ([`meta::MetaLog`]) orders them; it is never on the way of a request.
//! - [`partition`]: one copy of one partition: primary, replica or learner (PacificA: primary and
//!   backups, with the set of copies in sync kept by the consensus).
//! - [`lease`]: time-limited leave to answer reads, for which clocks need to agree in rate only.
//! - [`control`]: what the leader of the consensus does: leases, failover, repair.
//! - [`plan`]: which copy should be where.
//! - [`gate`]: when a reply may leave: `async`, `bounded` or `sync`.
//! - [`frame`]: messages between nodes as bytes; [`bus`] all else that nodes say to each other.
//! - [`host`]: what a server offers to the runtime of its node, and the other way round.
//!
//! How it is attached to the store and the log of effects: `docs/design/004-cluster-core.md`.
#![forbid(unsafe_code)]

pub mod bus;
pub mod control;
pub mod data;
pub mod frame;
pub mod gate;
pub mod host;
pub mod ids;
pub mod lease;
pub mod log;
pub mod message;
pub mod meta;
pub mod mutant;
pub mod partition;
pub mod plan;
pub mod settings;
pub mod wire;
