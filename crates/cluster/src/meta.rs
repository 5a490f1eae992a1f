//! What the cluster has agreed on: its nodes with their generations, and each partition's configuration.
//!
//! A consensus log orders [`Command`]s; every node applies them in that order to its [`MetaState`], so all
//! states of the same index are equal. A command about a partition names the epoch that it expects
//! (compare and set): of two that were made at the same time one takes effect, and the other is a no-op
//! with a [`Reason`]. So a proposal may be made twice, or arrive an hour late.

mod apply;
pub mod codec;
mod command;

pub use apply::Reason;
pub use command::Command;

use crate::ids::{Epoch, Generation, Member, NodeId, PartitionId};
use std::collections::BTreeMap;

/// What a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It registered; nothing is placed on it yet.
    Joining,
    /// It takes part.
    Up,
    /// It is to be emptied.
    Draining,
    /// It is gone for good, and its memory with it.
    Removed,
}

/// Where a node is reached. It may change with each start and identifies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddress {
    /// Name or IP, as others are to use it.
    pub host: String,
    /// Port of its clients.
    pub port: u16,
    /// Port of the other nodes.
    pub bus_port: u16,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// The newest start of its process. All earlier ones are dead.
    pub generation: Generation,
    /// What that start called itself when it registered, so that it finds its generation.
    pub boot: u64,
    /// Its use.
    pub state: NodeState,
    /// Copies of a partition are spread over zones.
    pub zone: u16,
    /// Where its newest start is reached.
    pub address: NodeAddress,
}

/// Who holds a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionConfig {
    /// Raised by each change; 0 is "none yet".
    pub epoch: Epoch,
    /// Who takes writes.
    pub primary: Member,
    /// Who has every committed record (in-sync replicas), the primary among them.
    pub isr: Vec<Member>,
    /// Who is being brought up to date.
    pub learners: Vec<NodeId>,
    /// Copies wanted.
    pub copies: u8,
    /// Copies in sync without which nothing is committed.
    pub min_sync: u8,
    /// Whether replicas may answer reads.
    pub replica_reads: bool,
    /// How often all copies were lost and the partition started over, empty.
    pub losses: u32,
    /// The primary took over from one that had everything committed and no lease out.
    pub is_handover: bool,
}

impl PartitionConfig {
    /// Whether a member is in sync.
    #[must_use]
    pub fn is_in_sync(&self, member: Member) -> bool {
        self.isr.contains(&member)
    }

    /// Whether the node has a copy or is getting one.
    #[must_use]
    pub fn is_on(&self, node: NodeId) -> bool {
        self.learners.contains(&node) || self.isr.iter().any(|m| m.node == node)
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaState {
    /// Commands applied.
    pub index: u64,
    /// Nodes that ever registered.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// Partitions.
    pub partitions: BTreeMap<PartitionId, PartitionConfig>,
}

impl MetaState {
    /// Whether the member may still run: no later start of its node registered, and the node was not
    /// removed. `false` is proof that its memory is gone or will never be used.
    #[must_use]
    pub fn is_alive(&self, member: Member) -> bool {
        let node = self.nodes.get(&member.node);
        node.is_some_and(|n| n.generation == member.generation && n.state != NodeState::Removed)
    }

    /// The newest start of a node.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<Member> {
        let entry = self.nodes.get(&node)?;
        Some(Member { node, generation: entry.generation })
    }
}

/// The consensus log as the rest of the cluster sees it. A leader of it may be deposed at any time
/// without knowing; what it proposes then is lost or, rarely, takes effect under its successor.
pub trait MetaLog {
    /// Asks for a command to be appended. It may be lost without a word.
    fn propose(&mut self, command: Command);

    /// Asks a quorum whether this node still leads; if so, [`MetaEvent::Confirmed`] follows.
    fn confirm(&mut self, token: u64);

    /// What happened since.
    fn poll(&mut self) -> Option<MetaEvent>;
}

/// See [`MetaLog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaEvent {
    /// This node leads, and has applied everything that was committed before.
    Elected,
    /// It leads no more.
    Deposed,
    /// A quorum agreed, after the question was asked, that it leads.
    Confirmed(u64),
    /// The next command is committed.
    Committed(Command),
}
