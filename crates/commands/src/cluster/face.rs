//! What cluster clients are told, made from what the cluster agreed on and what this node sees.
//!
//! Redis knows groups of one primary with its replicas, and a node is the one or the other. Here a node is
//! primary of some partitions and replica of others, and clients exist that keep one role per node and
//! take the last one that they are told (redis-py). So every node is told as a `master` with the slots whose
//! primary it is. Only to who said READONLY, CLUSTER SLOTS and SHARDS name copies as well: ranges with the
//! same primary and the same copies make a shard then.

use super::View;
use hypercache_cluster::host::{PeerSeen, Seen};
use hypercache_cluster::ids::{Member, NodeId, PartitionId, SLOTS_PER_PARTITION};
use hypercache_cluster::meta::{NodeAddress, NodeEntry, NodeState, PartitionConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A node of which nothing was heard for so long is told to clients as failed. Nodes that have nothing to
/// say to each other say so once a second; one whose process ended is known by its connections.
const SILENT_MS: u64 = 2500;

/// The name of a node: forty hexadecimal digits, as clients expect them, the first sixteen of which tell.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("{:016x}{:024x}", node.0, 0)
}

/// The name of the slots whose primary a node is.
#[must_use]
pub fn shard_name(node: NodeId) -> String {
    format!("{:016x}{:024x}", node.0, 1)
}

/// Neighbouring slots with the same primary and the same replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
    /// Who takes writes.
    pub primary: NodeId,
    /// Who else has all of it and answers, in the order of their ids.
    pub replicas: Vec<NodeId>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Face<'a> {
    view: &'a View,
    seen: Seen,
    /// Where this node is reached, where the agreed state does not say.
    own: NodeAddress,
    now_ms: u64,
    shows_copies: bool,
}

/// Slots with the same primary and the same replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Who has them, the primary first.
    pub nodes: Vec<NodeId>,
    /// First and last slot of each run.
    pub runs: Vec<(u16, u16)>,
}

impl<'a> Face<'a> {
    /// The face of a node at a time, in ms since the epoch.
    #[must_use]
    pub fn new(view: &'a View, seen: Seen, own: NodeAddress, now_ms: u64) -> Self {
        Face { view, seen, own, now_ms, shows_copies: false }
    }

    /// The same for a client that reads from copies, or does not.
    #[must_use]
    pub fn showing_copies(self, shows_copies: bool) -> Self {
        Face { shows_copies, ..self }
    }

    /// What is seen of the other nodes.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// This process.
    #[must_use]
    pub fn me(&self) -> Member {
        self.view.me
    }

    /// Commands of the metadata log that were applied.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.view.meta.index
    }

    /// Whether no later start of its node is known.
    #[must_use]
    pub fn is_alive(&self, member: Member) -> bool {
        self.view.meta.is_alive(member)
    }

    /// The nodes that were not removed.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &'a NodeEntry)> {
        let nodes = self.view.meta.nodes.iter();
        nodes.map(|(id, entry)| (*id, entry)).filter(|(_, n)| n.state != NodeState::Removed)
    }

    /// All partitions that there are.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &'a PartitionConfig)> {
        let partitions = self.view.meta.partitions.iter();
        partitions.map(|(id, config)| (*id, config)).filter(|(_, config)| config.epoch.0 > 0)
    }

    fn peer(&self, node: NodeId) -> Option<&PeerSeen> {
        self.seen.peers.iter().find(|peer| peer.node == node)
    }

    /// Whether a node does not answer, as far as this one sees.
    #[must_use]
    pub fn is_down(&self, node: NodeId) -> bool {
        let is_silent = |peer: &PeerSeen| !peer.is_connected || peer.silent_ms > SILENT_MS;
        node != self.view.me.node && self.peer(node).is_some_and(is_silent)
    }

    /// Whether a process is there and answers.
    #[must_use]
    pub fn serves(&self, member: Member) -> bool {
        self.view.meta.is_alive(member) && !self.is_down(member.node)
    }

    /// Where a node is reached.
    #[must_use]
    pub fn address(&self, node: NodeId) -> NodeAddress {
        let entry = self.view.meta.nodes.get(&node).filter(|_| !self.view.is_alone);
        entry.map_or_else(|| self.own.clone(), |entry| entry.address.clone())
    }

    /// The members in sync that answer, the primary not among them, in the order of their ids.
    #[must_use]
    pub fn replicas(&self, config: &PartitionConfig) -> Vec<NodeId> {
        let others = config.isr.iter().filter(|m| **m != config.primary && self.serves(**m));
        let mut replicas: Vec<NodeId> = others.map(|member| member.node).collect();
        replicas.sort_unstable();
        replicas
    }

    /// All slots that somebody has, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range> {
        self.ranges_by(|config| if self.shows_copies { self.replicas(config) } else { Vec::new() })
    }

    fn ranges_by(&self, replicas: impl Fn(&PartitionConfig) -> Vec<NodeId>) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (id, config) in self.partitions() {
            let first = id.0 * SLOTS_PER_PARTITION;
            let (last, primary) = (first + SLOTS_PER_PARTITION - 1, config.primary.node);
            let replicas = replicas(config);
            match ranges.last_mut() {
                Some(range)
                    if range.last + 1 == first
                        && range.primary == primary
                        && range.replicas == replicas =>
                {
                    range.last = last;
                }
                _ => ranges.push(Range { first, last, primary, replicas }),
            }
        }
        ranges
    }

    /// The shards. A node that has nothing of any is one without slots.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let mut shards: BTreeMap<Vec<NodeId>, Vec<(u16, u16)>> = BTreeMap::new();
        for range in self.ranges() {
            let nodes = [vec![range.primary], range.replicas].concat();
            shards.entry(nodes).or_default().push((range.first, range.last));
        }
        let met: BTreeSet<NodeId> = shards.keys().flatten().copied().collect();
        for (node, _) in self.nodes().filter(|(node, _)| !met.contains(node)) {
            shards.insert(vec![node], Vec::new());
        }
        shards.into_iter().map(|(nodes, runs)| Shard { nodes, runs }).collect()
    }

    /// The node of a name, which may be shortened as long as it is the only one that begins so.
    ///
    /// # Errors
    /// Whether there is none or there are several.
    pub fn find(&self, name: &str) -> Result<NodeId, &'static str> {
        let name = name.to_ascii_lowercase();
        let mut found =
            self.nodes().map(|(id, _)| id).filter(|id| node_name(*id).starts_with(&name));
        match (found.next(), found.next()) {
            _ if name.is_empty() => Err("no such node"),
            (Some(node), None) => Ok(node),
            (None, _) => Err("no such node"),
            _ => Err("several nodes begin like this"),
        }
    }

    /// The node of a name in full, as the commands of Redis name one.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<NodeId> {
        self.nodes().map(|(id, _)| id).find(|id| node_name(*id).as_bytes() == name)
    }

    /// Who has copies in sync of partitions whose primary a node is.
    #[must_use]
    pub fn replicas_of(&self, node: NodeId) -> BTreeSet<NodeId> {
        let own = self.partitions().filter(|(_, config)| config.primary.node == node);
        own.flat_map(|(_, config)| self.replicas(config)).collect()
    }

    /// The highest epoch of the partitions whose primary a node is.
    fn epoch_of(&self, node: NodeId) -> u64 {
        let own = self.partitions().filter(|(_, config)| config.primary.node == node);
        own.map(|(_, config)| config.epoch.0).max().unwrap_or(0)
    }

    /// CLUSTER NODES.
    #[must_use]
    pub fn nodes_text(&self) -> String {
        let ranges = self.ranges_by(|_| Vec::new());
        let mut text = String::new();
        for (node, _) in self.nodes() {
            text.push_str(&self.node_line(node, None));
            for range in ranges.iter().filter(|range| range.primary == node) {
                // Writing to a string does not fail.
                _ = write!(text, " {}-{}", range.first, range.last);
            }
            text.push('\n');
        }
        text
    }

    /// The line of a node without slots; with the primary that it is shown as a replica of.
    #[must_use]
    pub fn node_line(&self, node: NodeId, primary: Option<NodeId>) -> String {
        let NodeAddress { host, port, bus_port } = self.address(node);
        let is_down = self.is_down(node);
        let myself = if node == self.view.me.node { "myself," } else { "" };
        let role = if primary.is_some() { "slave" } else { "master" };
        let fail = if is_down { ",fail" } else { "" };
        let of = primary.map_or_else(|| "-".to_owned(), node_name);
        let heard_ms = self.peer(node).map_or(0, |p| self.now_ms.saturating_sub(p.silent_ms));
        let asked_ms = if is_down { heard_ms } else { 0 };
        let epoch = self.epoch_of(primary.unwrap_or(node));
        let is_linked = self.peer(node).is_none_or(|peer| peer.is_connected);
        let link = if is_linked { "connected" } else { "disconnected" };
        let name = node_name(node);
        format!(
            "{name} {host}:{port}@{bus_port} {myself}{role}{fail} {of} {asked_ms} {heard_ms} {epoch} {link}"
        )
    }

    /// CLUSTER INFO.
    #[must_use]
    pub fn info_text(&self) -> String {
        let slots = |count: usize| count * usize::from(SLOTS_PER_PARTITION);
        let assigned = self.partitions().count();
        let served = self.partitions().filter(|(_, config)| self.serves(config.primary)).count();
        let all = usize::from(hypercache_cluster::ids::PARTITIONS);
        let state = if served == all { "ok" } else { "fail" };
        let primaries: BTreeSet<_> = self.partitions().map(|(_, c)| c.primary.node).collect();
        let lines = [
            ("cluster_slots_assigned", slots(assigned) as u64),
            ("cluster_slots_ok", slots(served) as u64),
            ("cluster_slots_pfail", 0),
            ("cluster_slots_fail", slots(assigned - served) as u64),
            ("cluster_known_nodes", self.nodes().count() as u64),
            ("cluster_size", primaries.len() as u64),
            ("cluster_current_epoch", self.view.meta.index),
            ("cluster_my_epoch", self.epoch_of(self.view.me.node)),
            ("cluster_stats_messages_sent", 0),
            ("cluster_stats_messages_received", 0),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        let lines = lines.map(|(name, value)| format!("{name}:{value}\r\n")).concat();
        format!("cluster_state:{state}\r\n{lines}")
    }
}

#[cfg(test)]
mod tests;
