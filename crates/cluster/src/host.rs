//! The two sides that the state machines stand between: the server that holds the partitions, and the
//! runtime of the node, which has the sockets, the metadata log and the threads.
//!
//! Calls to a [`Host`] come from the runtime's threads; the host takes the lock of the partition that a
//! call is about. Calls to an [`Outside`] come from anywhere, also under a partition's lock, and return at
//! once: what cannot be queued is dropped, because the protocol sends again what is not acknowledged.

use crate::ids::{Member, NodeId, PartitionId};
use crate::lease::HeldLease;
use crate::message::{Message, SealAck};
use crate::meta::{Command, MetaState};
use std::fmt;
use std::sync::Arc;

/// The server that holds the partitions.
pub trait Host: Send + Sync + fmt::Debug {
    /// The metadata log gave this process its generation. Called once, before anything else.
    fn registered(&self, me: Member);

    /// The metadata has changed. `changed` names the partitions with a new configuration, each once;
    /// calls come in the order of the log and none is left out, unless the node was given the metadata as
    /// a whole: then `changed` names all.
    fn metadata(&self, meta: &Arc<MetaState>, changed: &[PartitionId]);

    /// The node's lease, after each grant and after it was given back.
    fn lease(&self, lease: HeldLease);

    /// Another node's message about one partition.
    fn receive(&self, from: NodeId, message: Message);

    /// To be called every few milliseconds.
    fn tick(&self);

    /// This node is primary of the partition, and the leader wants the member to be: a hand-over may begin
    /// ([`crate::partition::Partition::hand_over`]). Nothing is promised.
    fn hand_over(&self, partition: PartitionId, to: Member);

    /// A later start of this node registered, or the node was removed: this process answers nothing more
    /// and ends.
    fn expelled(&self, why: &str);
}

/// The runtime of a node.
pub trait Outside: Send + Sync + fmt::Debug {
    /// Sends a message. Those to one node about one partition arrive in the order of the calls, or not
    /// at all. Nothing leaves before the next [`Outside::flush`], which need not come from the same
    /// thread.
    fn send(&self, to: NodeId, message: &Message);

    /// What was sent may leave: called once at the end of a worker's turn.
    fn flush(&self);

    /// Asks for a command of the metadata log. Not answered: the next configuration tells.
    fn propose(&self, command: Command);

    /// Answers the leader that sealed an epoch.
    fn sealed(&self, ack: SealAck);

    /// What this node sees of the others, for those who ask about the cluster: seldom, so it may take a
    /// lock.
    fn seen(&self) -> Seen {
        Seen::default()
    }

    /// What the cluster would move, in words, each with its reason.
    fn plan(&self) -> Vec<String> {
        Vec::new()
    }

    /// Asks whoever is primary of a partition to hand it over to a member. The wish may be lost, and
    /// nothing is promised.
    fn ask_hand_over(&self, partition: PartitionId, to: Member) {
        let _ = (partition, to);
    }
}

/// What a node sees of the others at one time. It decides nothing: it is told to people and clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Who leads the metadata log, if that is known.
    pub leader: Option<NodeId>,
    /// The term of that leader.
    pub term: u64,
    /// Who votes about the metadata log.
    pub voters: Vec<NodeId>,
    /// The other nodes that there are connections to, or should be.
    pub peers: Vec<PeerSeen>,
}

/// Another node, as [`Seen`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSeen {
    /// Which.
    pub node: NodeId,
    /// Whether there is a connection to it.
    pub is_connected: bool,
    /// For how long there has been one, in ms.
    pub connected_ms: u64,
    /// Since when nothing was heard of it, in ms.
    pub silent_ms: u64,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: u64,
}
