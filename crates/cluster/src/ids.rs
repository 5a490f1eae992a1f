//! Names of things in a cluster.

use std::fmt;

/// Partitions of the keyspace, as in the store.
pub const PARTITIONS: u16 = 1024;
/// Hash slots of a partition.
pub const SLOTS_PER_PARTITION: u16 = 16;

/// A machine's identity: drawn once at random, kept on its disk, never used again for another. An
/// address is no identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Which start of a node's process this is. Given out by the consensus at each start, so a process that
/// came back with empty memory is never taken for the one that held data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// One process: only a member can hold data, acknowledge or be primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The machine.
    pub node: NodeId,
    /// The start of its process.
    pub generation: Generation,
}

/// 16 consecutive hash slots: the unit of locking, logging, replication and placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition of a hash slot.
    #[must_use]
    pub fn of_slot(slot: u16) -> Self {
        PartitionId(slot / SLOTS_PER_PARTITION)
    }
}

/// Number of a partition's configuration; each change raises it by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Epoch(self.0 + 1)
    }
}

/// Position of a record in its partition's log, from 1 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Lsn(self.0 + 1)
    }

    /// The one before; that of 0 is 0.
    #[must_use]
    pub fn before(self) -> Self {
        Lsn(self.0.saturating_sub(1))
    }
}

/// A record's identity: one primary writes in an epoch, so equal ids mean equal bytes. The order is that
/// of "who has more": first the epoch, then the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Epoch it was written in.
    pub epoch: Epoch,
    /// Its position.
    pub lsn: Lsn,
}

impl RecordId {
    /// What an empty log ends with.
    pub const NONE: RecordId = RecordId { epoch: Epoch(0), lsn: Lsn(0) };
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.lsn.0)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node.0, self.generation.0)
    }
}
