//! What each command does. Deterministic: the same commands give the same state everywhere.

use super::{Command, MetaState, NodeAddress, NodeEntry, NodeState, PartitionConfig};
use crate::ids::{Generation, Member, NodeId, PartitionId};
use crate::mutant::Mutant;
use crate::settings::Settings;

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The partition has another epoch by now, or is not there.
    OtherEpoch,
    /// Another start of the node registered in between.
    OtherGeneration,
    /// No such node, or a removed one.
    NoNode,
    /// The member is dead.
    Dead,
    /// The member is not in sync, or is so already.
    NotInSync,
    /// The node has a copy already, or gets none.
    NotLearning,
    /// Fewer than `min_sync` would be left, one of them alive.
    TooFew,
    /// A member in sync still lives.
    NotLost,
    /// It was done before.
    Done,
    /// There are not as many nodes as copies are asked for.
    TooFewNodes,
}

impl MetaState {
    /// Applies the next command.
    ///
    /// # Errors
    /// When it changes nothing but the index, with the reason.
    pub fn apply(&mut self, command: &Command, settings: &Settings) -> Result<(), Reason> {
        self.index += 1;
        match *command {
            Command::RegisterNode { node, after, boot, zone, ref address } => {
                let is_next = self.nodes.get(&node).map_or(0, |n| n.generation.0) == after.0;
                if !is_next && !settings.breaks(Mutant::RegistersInAnyOrder) {
                    return Err(Reason::OtherGeneration);
                }
                self.register(node, boot, (zone, address), settings)
            }
            Command::JoinNode(node) => self.set_state(node, NodeState::Up),
            Command::DrainNode(node) => self.set_state(node, NodeState::Draining),
            Command::RemoveNode(node) => self.set_state(node, NodeState::Removed),
            Command::CreatePartitions { count, copies, min_sync, replica_reads } => self.create(
                count,
                copies,
                &PartitionConfig { copies, min_sync, replica_reads, ..PartitionConfig::default() },
            ),
            _ => self.apply_to_partition(command, settings),
        }
    }

    fn register(
        &mut self,
        node: NodeId,
        boot: u64,
        (zone, address): (u16, &NodeAddress),
        settings: &Settings,
    ) -> Applied {
        let entry = self.nodes.entry(node).or_insert_with(|| NodeEntry {
            generation: Generation(0),
            boot: 0,
            state: NodeState::Joining,
            zone,
            address: address.clone(),
        });
        if entry.state == NodeState::Removed {
            return Err(Reason::NoNode);
        }
        let is_known = entry.generation.0 > 0;
        if is_known && entry.boot == boot {
            return Err(Reason::Done);
        }
        if !(is_known && settings.breaks(Mutant::RestartKeepsGeneration)) {
            entry.generation.0 += 1;
        }
        entry.boot = boot;
        entry.zone = zone;
        entry.address.clone_from(address);
        Ok(())
    }

    fn set_state(&mut self, node: NodeId, state: NodeState) -> Applied {
        let entry = self.nodes.get_mut(&node).ok_or(Reason::NoNode)?;
        if entry.state == NodeState::Removed {
            return Err(Reason::NoNode);
        }
        if entry.state == state {
            return Err(Reason::Done);
        }
        entry.state = state;
        Ok(())
    }

    /// New partitions are empty, so every member that gets one is in sync from the start. Each node is
    /// primary of a run of neighbours, so that clients see few ranges of slots. Where there are fewer nodes
    /// than copies are wanted, the others are made when nodes come.
    fn create(&mut self, count: u16, copies: u8, model: &PartitionConfig) -> Applied {
        let up: Vec<(Member, u16)> = (self.nodes.iter())
            .filter(|(_, entry)| entry.state == NodeState::Up)
            .filter_map(|(node, entry)| Some((self.member(*node)?, entry.zone)))
            .collect();
        if up.is_empty() {
            return Err(Reason::TooFewNodes);
        }
        for number in 0..count {
            let isr = place(number, count, usize::from(copies.max(1)), &up);
            let config = self.partitions.entry(PartitionId(number)).or_default();
            if config.epoch.0 == 0 {
                let (primary, epoch) = (isr[0], config.epoch.next());
                *config = PartitionConfig { primary, isr, epoch, ..model.clone() };
            }
        }
        Ok(())
    }

    fn apply_to_partition(&mut self, command: &Command, settings: &Settings) -> Applied {
        let (partition, epoch) = command.subject().ok_or(Reason::OtherEpoch)?;
        let config = self.partitions.get(&partition).ok_or(Reason::OtherEpoch)?;
        if config.epoch != epoch && !settings.breaks(Mutant::ApplyIgnoresEpoch) {
            return Err(Reason::OtherEpoch);
        }
        let mut changed = config.clone();
        changed.is_handover = false;
        self.change(&mut changed, command, settings)?;
        changed.epoch = changed.epoch.next();
        debug_assert!(changed.is_in_sync(changed.primary), "a primary is in sync");
        self.partitions.insert(partition, changed);
        Ok(())
    }

    fn change(&self, config: &mut PartitionConfig, command: &Command, s: &Settings) -> Applied {
        match *command {
            Command::SetPrimary { to, .. } => {
                self.check_in_sync(config, to)?;
                config.primary = to;
                config.is_handover = true;
                Ok(())
            }
            Command::ShrinkIsr { member, .. } => self.shrink(config, member, s),
            Command::AddIsr { member, .. } => self.add_isr(config, member, s),
            Command::AddLearner { node, .. } => self.add_learner(config, node),
            Command::DropLearner { node, .. } => {
                let place = config.learners.iter().position(|n| *n == node);
                config.learners.remove(place.ok_or(Reason::NotLearning)?);
                Ok(())
            }
            Command::Failover { to, .. } => self.fail_over(config, to, s),
            Command::DeclareLoss { to, .. } => self.declare_loss(config, to, s),
            _ => Ok(()),
        }
    }

    fn check_in_sync(&self, config: &PartitionConfig, member: Member) -> Applied {
        if !config.is_in_sync(member) {
            return Err(Reason::NotInSync);
        }
        if self.is_alive(member) { Ok(()) } else { Err(Reason::Dead) }
    }

    /// A member that still lives may be the one that has what the others are about to lose (the last
    /// replica standing of Kafka's KIP-966), so it leaves only when enough others are there.
    fn shrink(&self, config: &mut PartitionConfig, member: Member, settings: &Settings) -> Applied {
        if !config.is_in_sync(member) || member == config.primary {
            return Err(Reason::NotInSync);
        }
        let would_be_too_few = config.isr.len() <= usize::from(config.min_sync);
        let is_checked = !settings.breaks(Mutant::ShrinkBelowMinSync);
        if would_be_too_few && self.is_alive(member) && is_checked {
            return Err(Reason::TooFew);
        }
        config.isr.retain(|m| *m != member);
        Ok(())
    }

    fn add_isr(
        &self,
        config: &mut PartitionConfig,
        member: Member,
        settings: &Settings,
    ) -> Applied {
        let place = config.learners.iter().position(|n| *n == member.node);
        let place = place.ok_or(Reason::NotLearning)?;
        if !self.is_alive(member) && !settings.breaks(Mutant::AddDeadGeneration) {
            return Err(Reason::Dead);
        }
        config.learners.remove(place);
        // An earlier start of the same node is dead and has nothing.
        config.isr.retain(|m| m.node != member.node);
        let place = config.isr.partition_point(|m| *m < member);
        config.isr.insert(place, member);
        Ok(())
    }

    fn add_learner(&self, config: &mut PartitionConfig, node: NodeId) -> Applied {
        let entry = self.nodes.get(&node).ok_or(Reason::NoNode)?;
        if entry.state != NodeState::Up {
            return Err(Reason::NoNode);
        }
        let member = Member { node, generation: entry.generation };
        if config.learners.contains(&node) || config.is_in_sync(member) {
            return Err(Reason::NotLearning);
        }
        config.learners.push(node);
        Ok(())
    }

    /// The old primary leaves, and the dead with it; but one that lives stays if too few would be left:
    /// it may come back, and it has everything that was acknowledged.
    fn fail_over(&self, config: &mut PartitionConfig, to: Member, settings: &Settings) -> Applied {
        if settings.breaks(Mutant::FailoverToAny) && self.is_alive(to) {
            config.learners.retain(|n| *n != to.node);
            config.isr.retain(|m| m.node != to.node);
            config.isr.push(to);
        }
        self.check_in_sync(config, to)?;
        let old = config.primary;
        config.isr.retain(|m| self.is_alive(*m));
        let enough_without = config.isr.len() > usize::from(config.min_sync);
        if to != old && (enough_without || settings.breaks(Mutant::ShrinkBelowMinSync)) {
            config.isr.retain(|m| *m != old);
        }
        config.primary = to;
        Ok(())
    }

    fn declare_loss(
        &self,
        config: &mut PartitionConfig,
        to: Member,
        settings: &Settings,
    ) -> Applied {
        let others = config.isr.iter().filter(|m| **m != config.primary);
        let survivors = if settings.breaks(Mutant::LossDeclaredEarly) {
            0
        } else {
            others.chain([&config.primary]).filter(|m| self.is_alive(**m)).count()
        };
        if survivors > 0 {
            return Err(Reason::NotLost);
        }
        if !self.is_alive(to) {
            return Err(Reason::Dead);
        }
        config.primary = to;
        config.isr = vec![to];
        config.learners.retain(|n| *n != to.node);
        config.losses += 1;
        Ok(())
    }
}

/// Who gets a new partition, its primary first: others take turns, those of zones without a copy before.
fn place(number: u16, count: u16, copies: usize, up: &[(Member, u16)]) -> Vec<Member> {
    let first = usize::from(number) * up.len() / usize::from(count);
    let mut chosen = vec![up[first]];
    let others = up.len() - 1;
    let turn = |i: usize| up[(first + 1 + (usize::from(number) + i) % others) % up.len()];
    while chosen.len() < copies.min(up.len()) {
        let free = (0..others).map(turn).filter(|node| !chosen.contains(node));
        let in_zone = |node: &(Member, u16)| chosen.iter().filter(|c| c.1 == node.1).count();
        let Some(next) = free.min_by_key(in_zone) else { break };
        chosen.push(next);
    }
    chosen.into_iter().map(|(member, _)| member).collect()
}

type Applied = Result<(), Reason>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    const P: PartitionId = PartitionId(0);

    fn member(node: u64, generation: u32) -> Member {
        Member { node: NodeId(node), generation: Generation(generation) }
    }

    fn register(node: NodeId, after: u32, boot: u64) -> Command {
        Command::RegisterNode {
            node,
            after: Generation(after),
            boot,
            zone: 0,
            address: NodeAddress::default(),
        }
    }

    fn run(state: &mut MetaState, command: Command) -> Result<(), Reason> {
        state.apply(&command, &Settings::default())
    }

    fn cluster(nodes: u64, copies: u8, min_sync: u8) -> MetaState {
        let mut state = MetaState::default();
        for node in (1..=nodes).map(NodeId) {
            run(&mut state, register(node, 0, node.0)).expect("new");
            run(&mut state, Command::JoinNode(node)).expect("it joins");
        }
        let create = Command::CreatePartitions { count: 1, copies, min_sync, replica_reads: true };
        run(&mut state, create).expect("there are enough nodes");
        state
    }

    #[test]
    fn of_two_changes_of_the_same_epoch_one_takes_effect() {
        let mut state = cluster(3, 3, 1);
        let (partition, epoch) = (P, Epoch(1));
        let shrink = Command::ShrinkIsr { partition, epoch, member: member(2, 1) };
        let failover = Command::Failover { partition, epoch, to: member(2, 1) };
        assert_eq!(run(&mut state, shrink), Ok(()));
        assert_eq!(run(&mut state, failover), Err(Reason::OtherEpoch));
        assert_eq!(state.partitions[&P].isr, [member(1, 1), member(3, 1)]);
        assert_eq!(state.partitions[&P].epoch, Epoch(2));
    }

    #[test]
    fn a_process_that_starts_again_is_another_member() {
        let mut state = cluster(3, 3, 2);
        let again = register(NodeId(1), 1, 77);
        assert_eq!(run(&mut state, again.clone()), Ok(()));
        assert_eq!(run(&mut state, again), Err(Reason::OtherGeneration));
        assert_eq!(run(&mut state, register(NodeId(1), 1, 66)), Err(Reason::OtherGeneration));
        assert_eq!(run(&mut state, register(NodeId(1), 2, 77)), Err(Reason::Done));
        assert!(!state.is_alive(member(1, 1)) && state.is_alive(member(1, 2)));
        let (partition, epoch) = (P, Epoch(1));
        let to = member(1, 2);
        let failover = Command::Failover { partition, epoch, to };
        assert_eq!(run(&mut state, failover), Err(Reason::NotInSync));
        let failover = Command::Failover { partition, epoch, to: member(2, 1) };
        assert_eq!(run(&mut state, failover), Ok(()));
        assert_eq!(state.partitions[&P].isr, [member(2, 1), member(3, 1)]);
    }

    #[test]
    fn a_live_member_is_not_removed_below_min_sync() {
        let mut state = cluster(2, 2, 2);
        let (partition, epoch) = (P, Epoch(1));
        let shrink = Command::ShrinkIsr { partition, epoch, member: member(2, 1) };
        assert_eq!(run(&mut state, shrink.clone()), Err(Reason::TooFew));
        let failover = Command::Failover { partition, epoch, to: member(2, 1) };
        assert_eq!(run(&mut state, failover), Ok(()));
        assert_eq!(state.partitions[&P].isr.len(), 2, "the old primary stays in sync");
        let loss = Command::DeclareLoss { partition, epoch: Epoch(2), to: member(1, 1) };
        assert_eq!(run(&mut state, loss), Err(Reason::NotLost));
    }

    #[test]
    fn loss_is_declared_when_nobody_is_left() {
        let mut state = cluster(2, 2, 1);
        for node in [1, 2].map(NodeId) {
            run(&mut state, register(node, 1, 9)).expect("new");
        }
        let loss = Command::DeclareLoss { partition: P, epoch: Epoch(1), to: member(1, 2) };
        assert_eq!(run(&mut state, loss), Ok(()));
        let config = &state.partitions[&P];
        assert_eq!((config.primary, config.losses, config.epoch), (member(1, 2), 1, Epoch(2)));
    }
}
