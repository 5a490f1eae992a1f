//! Which copy should be where: a pure function of what is agreed and of who runs.
//!
//! It returns a few steps, each one change of one partition, and is asked again when their outcome is
//! known. In order of urgency:
//!
//! 1. copies that are missing are made, on nodes that have least, in zones without a copy;
//! 2. a node that is to be emptied hands over what it is primary of, and what it has is made elsewhere;
//! 3. surplus copies go: those of nodes that do not run, then of zones with several, then of the fullest;
//! 4. copies move to zones without one, and from nodes with many to nodes with few;
//! 5. primacies are handed over from nodes with many to nodes with few.
//!
//! A move is a copy more and then a copy less, so there are never fewer than before. Counts within a
//! twentieth of each other are even: without that room the last few would move for ever. What is on its
//! way is counted as arrived. Each step says why, for those who look before they leap.

use crate::ids::{Member, NodeId, PartitionId};
use crate::meta::{MetaState, NodeState, PartitionConfig};
use std::collections::BTreeMap;

/// A change of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node is to get a copy.
    Add(NodeId),
    /// A node gets none after all.
    Drop(NodeId),
    /// A member in sync is not needed any more.
    Remove(Member),
    /// The primary is to hand over.
    HandOver {
        /// The primary.
        from: Member,
        /// Its successor.
        to: Member,
    },
}

/// A step and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Of which partition.
    pub partition: PartitionId,
    /// What.
    pub step: Step,
    /// Why.
    pub reason: &'static str,
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, why) = (self.partition.0, self.reason);
        match self.step {
            Step::Add(node) => write!(f, "partition {id}: copy to {:016x} ({why})", node.0),
            Step::Drop(node) => write!(f, "partition {id}: no copy to {:016x} ({why})", node.0),
            Step::Remove(member) => {
                write!(f, "partition {id}: drop {:016x} ({why})", member.node.0)
            }
            Step::HandOver { from, to } => {
                let (from, to) = (from.node.0, to.node.0);
                write!(f, "partition {id}: primary {from:016x} to {to:016x} ({why})")
            }
        }
    }
}

/// How much may be under way at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Copies that a node gets, and that it gives, while copies are missing.
    pub repairs_per_node: usize,
    /// The same when copies only move.
    pub moves_per_node: usize,
    /// Primacies that are handed over in one round.
    pub hand_overs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { repairs_per_node: 64, moves_per_node: 16, hand_overs: 32 }
    }
}

/// See the module's text. `runs` tells whether a member was heard of lately, `keeps_up` whether it knows what
/// was agreed: one that lags is given nothing more, or it would be removed before it heard of it.
#[must_use]
pub fn plan(
    meta: &MetaState,
    runs: &dyn Fn(Member) -> bool,
    keeps_up: &dyn Fn(Member) -> bool,
    limits: Limits,
) -> Vec<Move> {
    let mut planner = Planner::new(meta, runs, limits);
    for (node, load) in &mut planner.usable {
        load.lags = meta.member(*node).is_some_and(|member| !keeps_up(member));
    }
    for (id, config) in &meta.partitions {
        if let Some((step, reason)) = planner.mend(config) {
            planner.take(*id, step, reason);
        } else if planner.is_settled(config) {
            planner.settled.push((*id, config));
        }
    }
    planner.move_copies();
    planner.move_primaries();
    planner.moves
}

/// What a node has, and will have.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    zone: u16,
    /// Copies in sync or on their way.
    copies: usize,
    primaries: usize,
    /// Copies on their way to it.
    incoming: usize,
    /// Copies that it is the source of.
    outgoing: usize,
    /// It gets nothing more for now.
    lags: bool,
}

struct Planner<'a> {
    meta: &'a MetaState,
    runs: &'a dyn Fn(Member) -> bool,
    limits: Limits,
    /// Nodes that may have copies.
    usable: BTreeMap<NodeId, Load>,
    /// Partitions that nothing is under way of.
    settled: Vec<(PartitionId, &'a PartitionConfig)>,
    hand_overs: usize,
    moves: Vec<Move>,
}

/// Counts that differ by no more are even.
fn room(total: usize, nodes: usize) -> usize {
    (total / nodes.max(1) / 20).max(1)
}

impl<'a> Planner<'a> {
    fn new(meta: &'a MetaState, runs: &'a dyn Fn(Member) -> bool, limits: Limits) -> Self {
        let up = meta.nodes.iter().filter(|(node, entry)| {
            let member = Member { node: **node, generation: entry.generation };
            entry.state == NodeState::Up && runs(member)
        });
        let load = |zone| Load { zone, ..Load::default() };
        let usable = up.map(|(node, entry)| (*node, load(entry.zone))).collect();
        let mut planner = Planner {
            meta,
            runs,
            limits,
            usable,
            settled: Vec::new(),
            hand_overs: 0,
            moves: Vec::new(),
        };
        meta.partitions.values().for_each(|config| planner.count(config));
        meta.partitions.values().for_each(|config| planner.count_as_moved(config));
        planner
    }

    fn count(&mut self, config: &PartitionConfig) {
        let nodes = config.isr.iter().map(|m| m.node).chain(config.learners.iter().copied());
        for node in nodes {
            self.load(node).into_iter().for_each(|load| load.copies += 1);
        }
        for node in &config.learners {
            self.load(*node).into_iter().for_each(|load| load.incoming += 1);
        }
        let under_way = config.learners.len();
        if let Some(load) = self.load(config.primary.node) {
            load.primaries += 1;
            load.outgoing += under_way;
        }
    }

    /// What will be dropped when a copy on its way has come counts no more.
    fn count_as_moved(&mut self, config: &PartitionConfig) {
        let will_be = config.isr.len() + config.learners.len();
        if !config.learners.is_empty() && will_be > self.wanted(config) {
            let member = self.surplus(config);
            let load = member.and_then(|member| self.load(member.node));
            load.into_iter().for_each(|load| load.copies = load.copies.saturating_sub(1));
        }
    }

    fn load(&mut self, node: NodeId) -> Option<&mut Load> {
        self.usable.get_mut(&node)
    }

    /// Copies that a partition can have as things are.
    fn wanted(&self, config: &PartitionConfig) -> usize {
        usize::from(config.copies).min(self.usable.len()).max(1)
    }

    fn is_usable(&self, member: Member) -> bool {
        self.usable.contains_key(&member.node) && self.meta.is_alive(member)
    }

    /// Whether the member may be handed a primacy.
    fn may_lead(&self, member: Member) -> bool {
        self.is_usable(member) && self.usable.get(&member.node).is_some_and(|load| !load.lags)
    }

    fn in_sync(&self, config: &PartitionConfig) -> usize {
        config.isr.iter().filter(|member| self.is_usable(**member)).count()
    }

    fn is_settled(&self, config: &PartitionConfig) -> bool {
        config.learners.is_empty()
            && self.in_sync(config) == config.isr.len()
            && config.isr.len() == self.wanted(config)
    }

    /// Copies of a partition in a zone.
    fn in_zone(&self, config: &PartitionConfig, zone: u16) -> usize {
        let nodes = config.isr.iter().map(|m| m.node).chain(config.learners.iter().copied());
        nodes.filter(|node| self.usable.get(node).is_some_and(|load| load.zone == zone)).count()
    }

    fn take(&mut self, partition: PartitionId, step: Step, reason: &'static str) {
        self.moves.push(Move { partition, step, reason });
        let source = self.meta.partitions.get(&partition).map(|config| config.primary.node);
        match step {
            Step::Add(node) => {
                if let Some(load) = self.load(node) {
                    load.copies += 1;
                    load.incoming += 1;
                }
                let source = source.and_then(|node| self.load(node));
                source.into_iter().for_each(|load| load.outgoing += 1);
            }
            Step::Remove(member) => {
                let load = self.load(member.node).into_iter();
                load.for_each(|load| load.copies = load.copies.saturating_sub(1));
            }
            Step::HandOver { from, to } => {
                self.hand_overs += 1;
                let load = self.load(from.node).into_iter();
                load.for_each(|load| load.primaries = load.primaries.saturating_sub(1));
                self.load(to.node).into_iter().for_each(|load| load.primaries += 1);
            }
            Step::Drop(_) => {}
        }
    }

    /// What a partition needs before anything is moved for evenness' sake.
    fn mend(&self, config: &PartitionConfig) -> Option<(Step, &'static str)> {
        if let Some(node) = config.learners.iter().find(|node| !self.usable.contains_key(node)) {
            return Some((Step::Drop(*node), "the node does not run or is to be emptied"));
        }
        let (wanted, in_sync) = (self.wanted(config), self.in_sync(config));
        let is_emptied = !self.is_usable(config.primary) && (self.runs)(config.primary);
        if is_emptied && in_sync > 0 {
            return self.emptied(config);
        }
        if in_sync > wanted || (in_sync == wanted && config.isr.len() > wanted) {
            let member = self.surplus(config)?;
            return Some((Step::Remove(member), "there are more copies than wanted"));
        }
        if in_sync + config.learners.len() < wanted {
            let node = self.place_for(config, self.limits.repairs_per_node)?;
            return Some((Step::Add(node), "a copy is missing"));
        }
        None
    }

    /// A primary on a node that is to be emptied hands over.
    fn emptied(&self, config: &PartitionConfig) -> Option<(Step, &'static str)> {
        let others = config.isr.iter().filter(|member| self.may_lead(**member));
        let to = others.min_by_key(|member| self.usable.get(&member.node).map(|l| l.primaries))?;
        let step = Step::HandOver { from: config.primary, to: *to };
        let may = self.hand_overs < self.limits.hand_overs && self.meta.is_alive(config.primary);
        may.then_some((step, "the node is to be emptied"))
    }

    /// The member that is missed least: never the primary.
    fn surplus(&self, config: &PartitionConfig) -> Option<Member> {
        let others = config.isr.iter().filter(|member| **member != config.primary);
        let rank = |member: &&Member| {
            let load = self.usable.get(&member.node).filter(|_| self.is_usable(**member));
            let in_zone = load.map_or(0, |load| self.in_zone(config, load.zone));
            (load.is_none(), in_zone, load.map_or(0, |load| load.copies), member.node)
        };
        others.max_by_key(rank).copied()
    }

    /// Where a copy is to be made, if that may begin now.
    fn place_for(&self, config: &PartitionConfig, per_node: usize) -> Option<NodeId> {
        let source = self.usable.get(&config.primary.node);
        if source.is_some_and(|load| load.outgoing >= per_node) {
            return None;
        }
        let has_copy = |node: NodeId| {
            let is_in_sync = config.isr.iter().any(|m| m.node == node && self.is_usable(*m));
            is_in_sync || config.learners.contains(&node)
        };
        let free =
            self.usable.iter().filter(|(node, load)| !has_copy(**node) && load.incoming < per_node);
        let rank = |(node, load): &(&NodeId, &Load)| {
            (self.in_zone(config, load.zone), load.copies, **node)
        };
        free.min_by_key(rank).map(|(node, _)| *node)
    }

    /// Copies move to zones without one, and to nodes that have few.
    fn move_copies(&mut self) {
        let total = self.usable.values().map(|load| load.copies).sum();
        let room = room(total, self.usable.len());
        for at in 0..self.settled.len() {
            let (id, config) = self.settled[at];
            let Some((member, node, spreads)) = self.best_move(config, room) else { continue };
            let reason = if spreads { "copies share a zone" } else { "the node has fewer copies" };
            self.take(id, Step::Add(node), reason);
            let load = self.load(member.node).into_iter();
            load.for_each(|load| load.copies = load.copies.saturating_sub(1));
        }
    }

    /// The copy of a partition that had best be elsewhere, where, and whether for its zone.
    fn best_move(&self, config: &PartitionConfig, room: usize) -> Option<(Member, NodeId, bool)> {
        let per_node = self.limits.moves_per_node;
        if self.usable.get(&config.primary.node)?.outgoing >= per_node {
            return None;
        }
        let fewest = self.usable.values().map(|load| load.copies).min()?;
        let mut best: Option<((bool, isize), Member, NodeId)> = None;
        for member in config.isr.iter().filter(|member| **member != config.primary) {
            let from = self.usable.get(&member.node)?;
            let crowd = self.in_zone(config, from.zone);
            if crowd < 2 && from.copies <= fewest + room {
                continue;
            }
            for (node, to) in &self.usable {
                let is_free = !config.is_on(*node) && to.incoming < per_node && !to.lags;
                let there =
                    if to.zone == from.zone { crowd - 1 } else { self.in_zone(config, to.zone) };
                // Copies in the zone that it leaves, beside it, and in the zone that it comes to.
                let spreads = crowd - 1 > there;
                let evens = crowd - 1 == there && from.copies > to.copies + room;
                let gain = (spreads, from.copies as isize - to.copies as isize);
                let is_better = best.is_none_or(|(known, ..)| gain > known);
                if is_free && (spreads || evens) && is_better {
                    best = Some((gain, *member, *node));
                }
            }
        }
        best.map(|((spreads, _), member, node)| (member, node, spreads))
    }

    /// Primacies go from nodes that have many to nodes that have few.
    fn move_primaries(&mut self) {
        let total = self.usable.values().map(|load| load.primaries).sum();
        let room = room(total, self.usable.len());
        for at in 0..self.settled.len() {
            if self.hand_overs >= self.limits.hand_overs {
                return;
            }
            let (id, config) = self.settled[at];
            if self.moves.iter().any(|other| other.partition == id) {
                continue;
            }
            let primaries = |member: &Member| self.usable.get(&member.node).map(|l| l.primaries);
            let Some(here) = primaries(&config.primary) else { continue };
            let others = config.isr.iter().filter(|member| **member != config.primary);
            let others = others.filter(|member| self.may_lead(**member));
            let Some(to) = others.min_by_key(|member| primaries(member)) else { continue };
            if primaries(to).is_some_and(|there| here > there + room) {
                let (from, to) = (config.primary, *to);
                let reason = "the node is primary of fewer";
                self.take(id, Step::HandOver { from, to }, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Command, NodeAddress};
    use crate::settings::Settings;
    use proptest::prelude::*;

    fn apply(meta: &mut MetaState, command: &Command) {
        meta.apply(command, &Settings::default()).expect("it changes something");
    }

    fn join(meta: &mut MetaState, node: u64, zone: u16) {
        let (node, after) = (NodeId(node), meta.nodes.get(&NodeId(node)).map(|n| n.generation));
        let (after, address) = (after.unwrap_or_default(), NodeAddress::default());
        let boot = u64::from(after.0) + 1;
        apply(meta, &Command::RegisterNode { node, after, boot, zone, address });
        let _it_may_be_up = meta.apply(&Command::JoinNode(node), &Settings::default());
    }

    fn create(meta: &mut MetaState, count: u16, copies: u8) {
        let (min_sync, replica_reads) = (1, false);
        apply(meta, &Command::CreatePartitions { count, copies, min_sync, replica_reads });
    }

    /// Does what is planned until nothing is, and returns how many steps that took.
    fn settle(meta: &mut MetaState) -> usize {
        for round in 0.. {
            let alive = meta.clone();
            let moves = plan(meta, &|m| alive.is_alive(m), &|_| true, Limits::default());
            if moves.is_empty() {
                return round;
            }
            assert!(round < 2000, "it never ends: {}", moves[0]);
            for Move { partition, step, .. } in moves {
                let epoch = meta.partitions[&partition].epoch;
                match step {
                    Step::Add(node) => {
                        apply(meta, &Command::AddLearner { partition, epoch, node });
                        let (epoch, member) = (epoch.next(), meta.member(node).expect("there"));
                        apply(meta, &Command::AddIsr { partition, epoch, member });
                    }
                    Step::Drop(node) => {
                        apply(meta, &Command::DropLearner { partition, epoch, node });
                    }
                    Step::Remove(member) => {
                        apply(meta, &Command::ShrinkIsr { partition, epoch, member });
                    }
                    Step::HandOver { from, to } => {
                        assert_eq!(meta.partitions[&partition].primary, from);
                        apply(meta, &Command::SetPrimary { partition, epoch, to });
                    }
                }
            }
        }
        unreachable!("a round is always next")
    }

    fn counts(meta: &MetaState) -> (Vec<usize>, Vec<usize>) {
        let up = || meta.nodes.iter().filter(|(_, entry)| entry.state == NodeState::Up);
        let configs = || meta.partitions.values();
        let copies = up().map(|(n, _)| configs().filter(|c| c.is_on(*n)).count());
        let primaries = up().map(|(n, _)| configs().filter(|c| c.primary.node == *n).count());
        (copies.collect(), primaries.collect())
    }

    fn is_even(counts: &[usize]) -> bool {
        let (most, least) = (counts.iter().max(), counts.iter().min());
        let mean = counts.iter().sum::<usize>() / counts.len().max(1);
        most.zip(least).is_none_or(|(most, least)| most - least <= (mean / 10).max(2))
    }

    fn check(meta: &MetaState, copies: usize) {
        let alive = meta.nodes.values().filter(|entry| entry.state == NodeState::Up).count();
        for config in meta.partitions.values() {
            assert_eq!(config.isr.len(), copies.min(alive), "{config:?}");
            assert!(config.isr.iter().all(|member| meta.is_alive(*member)));
        }
        let (copies, primaries) = counts(meta);
        assert!(is_even(&copies) && is_even(&primaries), "{copies:?} {primaries:?}");
    }

    fn grown(nodes: u64) -> MetaState {
        let mut meta = MetaState::default();
        join(&mut meta, 1, 0);
        create(&mut meta, 1024, 2);
        for node in 2..=nodes {
            join(&mut meta, node, 0);
            settle(&mut meta);
            check(&meta, 2);
        }
        meta
    }

    #[test]
    fn a_cluster_that_grows_stays_even() {
        grown(5);
    }

    #[test]
    fn a_move_is_not_asked_for_twice() {
        let mut meta = grown(3);
        join(&mut meta, 4, 0);
        let steps = |meta: &MetaState| plan(meta, &|_| true, &|_| true, Limits::default());
        for Move { partition, step, .. } in steps(&meta) {
            if let Step::Add(node) = step {
                let epoch = meta.partitions[&partition].epoch;
                apply(&mut meta, &Command::AddLearner { partition, epoch, node });
            }
        }
        let adds = steps(&meta).iter().filter(|m| matches!(m.step, Step::Add(_))).count();
        assert_eq!(adds, 0, "as much as may be is under way");
    }

    #[test]
    fn a_node_that_lost_its_memory_gets_its_share_again() {
        let mut meta = grown(3);
        join(&mut meta, 2, 0);
        for (partition, config) in meta.partitions.clone() {
            if config.primary.node == NodeId(2) {
                let others = config.isr.iter().find(|m| m.node != NodeId(2));
                let (epoch, to) = (config.epoch, *others.expect("two copies"));
                apply(&mut meta, &Command::Failover { partition, epoch, to });
            }
        }
        settle(&mut meta);
        check(&meta, 2);
    }

    #[test]
    fn a_node_is_emptied() {
        for nodes in [2, 3, 4] {
            let mut meta = grown(nodes);
            apply(&mut meta, &Command::DrainNode(NodeId(1)));
            settle(&mut meta);
            assert!(meta.partitions.values().all(|config| !config.is_on(NodeId(1))));
            check(&meta, 2);
        }
    }

    #[test]
    fn copies_are_in_different_zones() {
        let mut meta = MetaState::default();
        (1..=2).for_each(|node| join(&mut meta, node, 7));
        create(&mut meta, 128, 2);
        (3..=4).for_each(|node| join(&mut meta, node, 8));
        settle(&mut meta);
        let zone = |member: &Member| meta.nodes[&member.node].zone;
        for config in meta.partitions.values() {
            assert_ne!(zone(&config.isr[0]), zone(&config.isr[1]), "{config:?}");
        }
        check(&meta, 2);
    }

    #[test]
    fn a_node_that_lags_is_given_nothing() {
        let mut meta = grown(2);
        join(&mut meta, 3, 0);
        let lags = |member: Member| member.node != NodeId(3);
        let moves = plan(&meta, &|_| true, &lags, Limits::default());
        let is_for_it = |m: &Move| match m.step {
            Step::Add(node) => node == NodeId(3),
            Step::HandOver { to, .. } => to.node == NodeId(3),
            Step::Drop(_) | Step::Remove(_) => false,
        };
        assert!(!moves.iter().any(is_for_it), "{moves:?}");
        assert!(plan(&meta, &|_| true, &|_| true, Limits::default()).iter().any(is_for_it));
    }

    #[test]
    fn a_step_says_why() {
        let mut meta = grown(2);
        join(&mut meta, 3, 0);
        let moves = plan(&meta, &|_| true, &|_| true, Limits::default());
        let text = moves[0].to_string();
        assert_eq!(text, "partition 0: copy to 0000000000000003 (the node has fewer copies)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn whatever_happens_it_settles(
            zones in proptest::collection::vec(0u16..3, 1..7),
            copies in 1u8..4,
            partitions in 1u16..200,
            changes in proptest::collection::vec((0u8..3, 1u64..7), 0..6),
        ) {
            let mut meta = MetaState::default();
            join(&mut meta, 1, zones[0]);
            create(&mut meta, partitions, copies);
            for (i, zone) in zones.iter().enumerate().skip(1) {
                join(&mut meta, i as u64 + 1, *zone);
            }
            for (what, node) in changes {
                let known = meta.nodes.contains_key(&NodeId(node));
                let up = meta.nodes.values().filter(|n| n.state == NodeState::Up).count();
                match what {
                    0 if known && up > 1 => {
                        let _again = meta.apply(&Command::DrainNode(NodeId(node)), &Settings::default());
                    }
                    1 if known => {
                        let _again = meta.apply(&Command::JoinNode(NodeId(node)), &Settings::default());
                    }
                    _ => {}
                }
                settle(&mut meta);
            }
            settle(&mut meta);
            for config in meta.partitions.values() {
                prop_assert!(!config.isr.is_empty() && config.learners.is_empty());
                let up = meta.nodes.values().filter(|n| n.state == NodeState::Up).count();
                prop_assert_eq!(config.isr.len(), usize::from(copies).min(up).max(1));
            }
        }
    }
}
