//! Seeing to it that each partition has the copies it should have: a pure function of the agreed state and
//! of who is heard. One change per partition and round, so that each is decided on what the last one
//! made of it.

use super::{At, ControlAction, Leader};
use crate::ids::{NodeId, PartitionId};
use crate::meta::{Command, NodeState, PartitionConfig};
use std::collections::BTreeMap;

impl Leader {
    pub(super) fn repair(&mut self, now_us: u64, at: &At<'_>, out: &mut Vec<ControlAction>) {
        let mut load = copies_by_node(at);
        for (id, config) in &at.meta.partitions {
            if let Some(command) = self.repair_of(*id, config, &load, now_us, at) {
                if let Command::AddLearner { node, .. } = command {
                    *load.entry(node).or_default() += 1;
                }
                out.push(ControlAction::Propose(command));
            }
        }
    }

    fn repair_of(
        &self,
        partition: PartitionId,
        config: &PartitionConfig,
        load: &BTreeMap<NodeId, usize>,
        now_us: u64,
        at: &At<'_>,
    ) -> Option<Command> {
        let epoch = config.epoch;
        let is_usable = |node: NodeId| {
            let member = at.meta.member(node)?;
            let is_up = at.meta.nodes.get(&node)?.state == NodeState::Up;
            (is_up && self.is_heard(member, now_us, at.settings)).then_some(member)
        };
        if let Some(node) = config.learners.iter().find(|node| is_usable(**node).is_none()) {
            return Some(Command::DropLearner { partition, epoch, node: *node });
        }
        let in_sync = config.isr.iter().filter(|m| is_usable(m.node) == Some(**m)).count();
        let copies = usize::from(config.copies);
        if in_sync > copies || (in_sync == copies && config.isr.len() > copies) {
            let surplus = |m: &&crate::ids::Member| **m != config.primary;
            let unusable = config.isr.iter().find(|m| is_usable(m.node) != Some(**m));
            let member = unusable.or_else(|| config.isr.iter().rfind(surplus))?;
            return Some(Command::ShrinkIsr { partition, epoch, member: *member });
        }
        if in_sync + config.learners.len() >= copies {
            return None;
        }
        // A node whose earlier start is still listed as in sync may be the place for the copy.
        let is_free = |node: &NodeId| {
            let Some(member) = is_usable(*node) else { return false };
            !config.is_in_sync(member) && !config.learners.contains(node)
        };
        let node = load.iter().filter(|(node, _)| is_free(node)).min_by_key(|(_, n)| **n)?;
        Some(Command::AddLearner { partition, epoch, node: *node.0 })
    }
}

fn copies_by_node(at: &At<'_>) -> BTreeMap<NodeId, usize> {
    let mut load: BTreeMap<NodeId, usize> = at.meta.nodes.keys().map(|n| (*n, 0)).collect();
    for config in at.meta.partitions.values() {
        let nodes = config.isr.iter().map(|m| m.node).chain(config.learners.iter().copied());
        nodes.for_each(|node| *load.entry(node).or_default() += 1);
    }
    load
}
