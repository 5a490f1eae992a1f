//! Commands of the metadata log.

use super::NodeAddress;
use crate::ids::{Epoch, Generation, Member, NodeId, PartitionId};

/// A change of what the cluster agrees on. Those about a partition take effect only in the epoch that
/// they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A process started: it gets a generation, and all earlier ones of its node are dead. It names the
    /// generation it comes after: of two starts, the registration of the earlier may arrive later, and
    /// must not declare the later one dead.
    RegisterNode {
        /// The machine.
        node: NodeId,
        /// The newest generation that this start knows of; 0 for none.
        after: Generation,
        /// Drawn by this start; it finds its generation by it.
        boot: u64,
        /// Where the machine stands.
        zone: u16,
        /// Where clients and other nodes reach this start.
        address: NodeAddress,
    },
    /// The node may be given copies.
    JoinNode(NodeId),
    /// The node is to be emptied.
    DrainNode(NodeId),
    /// The node never comes back.
    RemoveNode(NodeId),
    /// Makes all partitions that are not there, on the nodes that are up.
    CreatePartitions {
        /// How many.
        count: u16,
        /// Copies wanted of each.
        copies: u8,
        /// Copies in sync without which nothing is committed.
        min_sync: u8,
        /// Whether replicas may answer reads.
        replica_reads: bool,
    },
    /// The primary hands over to a member in sync.
    SetPrimary {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Its successor.
        to: Member,
    },
    /// A member is no longer in sync.
    ShrinkIsr {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Who.
        member: Member,
    },
    /// A learner is in sync.
    AddIsr {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Who.
        member: Member,
    },
    /// A node is to get a copy.
    AddLearner {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Who.
        node: NodeId,
    },
    /// A node gets no copy after all.
    DropLearner {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Who.
        node: NodeId,
    },
    /// The primary is gone; a member in sync takes over.
    Failover {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Its successor.
        to: Member,
    },
    /// Nothing changes but the epoch. A primary that is not sure what came of a proposal makes sure that
    /// it takes no effect any more.
    Reaffirm {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
    },
    /// All members in sync are dead; a node starts over with nothing.
    DeclareLoss {
        /// Partition.
        partition: PartitionId,
        /// Expected.
        epoch: Epoch,
        /// Who starts over.
        to: Member,
    },
}

impl Command {
    /// The partition and epoch that it is about.
    #[must_use]
    pub fn subject(&self) -> Option<(PartitionId, Epoch)> {
        match *self {
            Command::SetPrimary { partition, epoch, .. }
            | Command::ShrinkIsr { partition, epoch, .. }
            | Command::AddIsr { partition, epoch, .. }
            | Command::AddLearner { partition, epoch, .. }
            | Command::DropLearner { partition, epoch, .. }
            | Command::Failover { partition, epoch, .. }
            | Command::Reaffirm { partition, epoch }
            | Command::DeclareLoss { partition, epoch, .. } => Some((partition, epoch)),
            Command::RegisterNode { .. }
            | Command::JoinNode(_)
            | Command::DrainNode(_)
            | Command::RemoveNode(_)
            | Command::CreatePartitions { .. } => None,
        }
    }
}
