//! Made-up states of clusters, for tests of what is told about them.

use super::View;
use super::face::Face;
use hypercache_cluster::host::{Outside, PeerSeen, Seen};
use hypercache_cluster::ids::{Generation, Member, NodeId, PARTITIONS, PartitionId};
use hypercache_cluster::message::{Message, SealAck};
use hypercache_cluster::meta::{Command, MetaState, NodeAddress, PartitionConfig};
use hypercache_cluster::settings::Settings;
use parking_lot::Mutex;
use std::sync::Arc;

/// A cluster of some nodes, numbered from 1, where each partition has copies on all of them and the
/// primaries have a run of neighbours each.
pub(crate) fn cluster(nodes: u64) -> MetaState {
    let mut meta = MetaState::default();
    let run = |meta: &mut MetaState, command| {
        meta.apply(&command, &Settings::default()).expect("it changes something");
    };
    for node in 1..=nodes {
        let address = NodeAddress {
            host: "10.0.0.1".into(),
            port: 7000 + node as u16,
            bus_port: 17000 + node as u16,
        };
        let (node, after) = (NodeId(node), Generation(0));
        run(&mut meta, Command::RegisterNode { node, after, boot: node.0, zone: 0, address });
        run(&mut meta, Command::JoinNode(node));
    }
    let copies = nodes as u8;
    let create =
        Command::CreatePartitions { count: PARTITIONS, copies, min_sync: 2, replica_reads: true };
    run(&mut meta, create);
    for number in 0..PARTITIONS {
        let primary = member(1 + u64::from(number) * nodes / u64::from(PARTITIONS));
        partition(&mut meta, number).primary = primary;
    }
    meta
}

/// The first start of a node.
pub(crate) fn member(node: u64) -> Member {
    Member { node: NodeId(node), generation: Generation(1) }
}

/// A partition's configuration, to change.
pub(crate) fn partition(meta: &mut MetaState, number: u16) -> &mut PartitionConfig {
    meta.partitions.get_mut(&PartitionId(number)).expect("a partition")
}

/// The view of node 1.
pub(crate) fn view(meta: MetaState) -> View {
    View { me: member(1), meta: Arc::new(meta), is_alone: false }
}

/// What node 1 sees when it hears of all others but these.
pub(crate) fn seen(nodes: u64, down: &[u64]) -> Seen {
    let peer = |node| PeerSeen {
        node: NodeId(node),
        is_connected: !down.contains(&node),
        connected_ms: 60_000,
        silent_ms: if down.contains(&node) { 5000 } else { 20 },
        queued_bytes: 0,
    };
    let voters = (1..=nodes).map(NodeId).collect();
    Seen { leader: Some(NodeId(1)), term: 3, voters, peers: (2..=nodes).map(peer).collect() }
}

/// The face of node 1 at 1,000,000 ms since the epoch, for who reads from copies.
pub(crate) fn face<'v>(view: &'v View, down: &[u64]) -> Face<'v> {
    let seen = seen(view.meta.nodes.len() as u64, down);
    Face::new(view, seen, NodeAddress::default(), 1_000_000).showing_copies(true)
}

/// A runtime that notes what it is asked for.
#[derive(Debug)]
pub(crate) struct Wishes {
    seen: Seen,
    proposed: Mutex<Vec<Command>>,
    asked: Mutex<Vec<(PartitionId, Member)>>,
}

impl Wishes {
    pub(crate) fn new(seen: Seen) -> Self {
        Wishes { seen, proposed: Mutex::default(), asked: Mutex::default() }
    }

    /// What was proposed.
    pub(crate) fn proposed(&self) -> Vec<Command> {
        self.proposed.lock().clone()
    }

    /// What is to be handed over, and to whom.
    pub(crate) fn asked(&self) -> Vec<(PartitionId, Member)> {
        self.asked.lock().clone()
    }
}

impl Outside for Wishes {
    fn send(&self, _: NodeId, _: &Message) {}

    fn flush(&self) {}

    fn propose(&self, command: Command) {
        self.proposed.lock().push(command);
    }

    fn sealed(&self, _: SealAck) {}

    fn seen(&self) -> Seen {
        self.seen.clone()
    }

    fn plan(&self) -> Vec<String> {
        vec!["nothing, really".into()]
    }

    fn ask_hand_over(&self, partition: PartitionId, to: Member) {
        self.asked.lock().push((partition, to));
    }
}
