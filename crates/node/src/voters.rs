//! Who should vote on the consensus log: a pure function of what is agreed and of who is heard.
//!
//! One voter up to two nodes, three up to four, five from there on: two could bear no failure more than
//! one, and would stop for either. A voter that is silent is replaced by a node that is not; while
//! nobody can take its place it keeps its vote, since fewer voters would not bear more.

use hypercache_cluster::ids::NodeId;
use hypercache_cluster::meta::{MetaState, NodeState};
use std::collections::{BTreeMap, BTreeSet};

/// The voters that there should be. `me` leads; `is_heard` tells who runs.
pub(crate) fn wanted(
    meta: &MetaState,
    me: NodeId,
    voting: &BTreeSet<NodeId>,
    is_heard: impl Fn(NodeId) -> bool,
) -> BTreeSet<NodeId> {
    let up = || meta.nodes.iter().filter(|(_, entry)| entry.state == NodeState::Up);
    let target = match up().count() {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    };
    let mut chosen = BTreeSet::new();
    let mut zones: BTreeMap<u16, usize> = BTreeMap::new();
    while chosen.len() < target {
        // Who leads stays, then who votes, then zones that have the fewest voters.
        let rank = |node: NodeId, zone: u16| {
            let in_zone = zones.get(&zone).copied().unwrap_or(0);
            let is_silent = !is_heard(node) && node != me;
            (node != me, is_silent, in_zone, !voting.contains(&node), node)
        };
        let free = up().filter(|(node, _)| !chosen.contains(*node));
        let useful =
            free.filter(|(node, _)| is_heard(**node) || voting.contains(*node) || **node == me);
        let Some((node, entry)) = useful.min_by_key(|(node, entry)| rank(**node, entry.zone))
        else {
            break;
        };
        chosen.insert(*node);
        *zones.entry(entry.zone).or_default() += 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_cluster::ids::Generation;
    use hypercache_cluster::meta::NodeEntry;

    fn cluster(zones: &[u16]) -> MetaState {
        let mut meta = MetaState::default();
        for (i, zone) in zones.iter().enumerate() {
            let entry = NodeEntry {
                generation: Generation(1),
                boot: 1,
                state: NodeState::Up,
                zone: *zone,
                address: hypercache_cluster::meta::NodeAddress::default(),
            };
            meta.nodes.insert(NodeId(i as u64 + 1), entry);
        }
        meta
    }

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn one_three_or_five() {
        for (nodes, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)] {
            let meta = cluster(&vec![0; nodes]);
            let voters = wanted(&meta, NodeId(1), &set(&[1]), |_| true);
            assert_eq!(voters.len(), expected, "{nodes} nodes");
            assert!(voters.contains(&NodeId(1)));
        }
    }

    #[test]
    fn a_silent_voter_is_replaced_if_it_can_be() {
        let (of_three, of_four) = (cluster(&[0; 3]), cluster(&[0; 4]));
        let heard = |node: NodeId| node != NodeId(2);
        assert_eq!(wanted(&of_three, NodeId(1), &set(&[1, 2, 3]), heard), set(&[1, 2, 3]));
        assert_eq!(wanted(&of_four, NodeId(1), &set(&[1, 2, 3]), heard), set(&[1, 3, 4]));
        assert_eq!(wanted(&of_four, NodeId(1), &set(&[1, 3, 4]), |_| true), set(&[1, 3, 4]));
    }

    #[test]
    fn zones_share_the_votes() {
        let meta = cluster(&[1, 1, 1, 2, 3]);
        let four = {
            let mut four = meta.clone();
            four.nodes.remove(&NodeId(3));
            four
        };
        assert_eq!(wanted(&four, NodeId(1), &set(&[1]), |_| true), set(&[1, 4, 5]));
    }

    #[test]
    fn who_is_to_be_emptied_votes_no_more() {
        let mut meta = cluster(&[0; 4]);
        meta.nodes.get_mut(&NodeId(2)).expect("it is there").state = NodeState::Draining;
        assert_eq!(wanted(&meta, NodeId(1), &set(&[1, 2, 3]), |_| true), set(&[1, 3, 4]));
    }
}
