//! Commands and the agreed state as bytes: for the log and its snapshots on disk, and for other nodes.
//!
//! Each begins with its version. What comes in is hostile until checked, as in [`crate::frame`]; and there
//! is one way to write each state, so that equal states are equal bytes.

use super::{Command, MetaState, NodeAddress, NodeEntry, NodeState, PartitionConfig};
use crate::frame::FrameError;
use crate::ids::{Generation, NodeId, PartitionId};
use crate::wire::{Read, Reader, Writer};

/// The version that this build writes.
pub const VERSION: u8 = 1;

const REGISTER: u8 = 1;
const JOIN: u8 = 2;
const DRAIN: u8 = 3;
const REMOVE: u8 = 4;
const CREATE: u8 = 5;
const SET_PRIMARY: u8 = 6;
const SHRINK: u8 = 7;
const ADD_ISR: u8 = 8;
const ADD_LEARNER: u8 = 9;
const DROP_LEARNER: u8 = 10;
const FAILOVER: u8 = 11;
const REAFFIRM: u8 = 12;
const LOSS: u8 = 13;

impl Command {
    /// The command as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        Writer(&mut bytes).command(self);
        bytes
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Command, FrameError> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let command = reader.command()?;
        reader.end()?;
        Ok(command)
    }
}

impl MetaState {
    /// The state as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut writer = Writer(&mut bytes);
        writer.u64(self.index);
        writer.u32(self.nodes.len() as u32);
        self.nodes.iter().for_each(|(node, entry)| writer.node_entry(*node, entry));
        writer.u32(self.partitions.len() as u32);
        for (partition, config) in &self.partitions {
            writer.partition(*partition);
            writer.config(config);
        }
        bytes
    }

    /// Reads what [`MetaState::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<MetaState, FrameError> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let mut state = MetaState { index: reader.u64()?, ..MetaState::default() };
        for _ in 0..reader.u32()? {
            let (node, entry) = (reader.node()?, reader.node_entry()?);
            in_order(state.nodes.last_key_value().is_none_or(|(last, _)| *last < node))?;
            state.nodes.insert(node, entry);
        }
        for _ in 0..reader.u32()? {
            let (partition, config) = (reader.partition()?, reader.config()?);
            in_order(state.partitions.last_key_value().is_none_or(|(last, _)| *last < partition))?;
            state.partitions.insert(partition, config);
        }
        reader.end()?;
        Ok(state)
    }
}

fn in_order(is_so: bool) -> Read<()> {
    if is_so { Ok(()) } else { Err(FrameError::Malformed) }
}

impl Writer<'_> {
    /// Where a node is reached.
    pub fn address(&mut self, address: &NodeAddress) {
        self.text(&address.host);
        self.u16(address.port);
        self.u16(address.bus_port);
    }

    fn node_entry(&mut self, node: NodeId, entry: &NodeEntry) {
        self.u64(node.0);
        self.u32(entry.generation.0);
        self.u64(entry.boot);
        self.u8(match entry.state {
            NodeState::Joining => 0,
            NodeState::Up => 1,
            NodeState::Draining => 2,
            NodeState::Removed => 3,
        });
        self.u16(entry.zone);
        self.address(&entry.address);
    }

    fn config(&mut self, config: &PartitionConfig) {
        self.u64(config.epoch.0);
        self.member(config.primary);
        self.u16(config.isr.len() as u16);
        config.isr.iter().for_each(|member| self.member(*member));
        self.u16(config.learners.len() as u16);
        config.learners.iter().for_each(|node| self.u64(node.0));
        self.u8(config.copies);
        self.u8(config.min_sync);
        self.u8(config.replica_reads.into());
        self.u32(config.losses);
        self.u8(config.is_handover.into());
    }

    pub(crate) fn command(&mut self, command: &Command) {
        match command {
            Command::RegisterNode { node, after, boot, zone, address } => {
                self.u8(REGISTER);
                self.u64(node.0);
                self.u32(after.0);
                self.u64(*boot);
                self.u16(*zone);
                self.address(address);
            }
            Command::JoinNode(node) => self.of_node(JOIN, *node),
            Command::DrainNode(node) => self.of_node(DRAIN, *node),
            Command::RemoveNode(node) => self.of_node(REMOVE, *node),
            Command::CreatePartitions { count, copies, min_sync, replica_reads } => {
                self.u8(CREATE);
                self.u16(*count);
                self.u8(*copies);
                self.u8(*min_sync);
                self.u8((*replica_reads).into());
            }
            _ => self.of_partition(command),
        }
    }

    fn of_node(&mut self, kind: u8, node: NodeId) {
        self.u8(kind);
        self.u64(node.0);
    }

    /// All of these name a partition and an epoch; most a member or a node.
    fn of_partition(&mut self, command: &Command) {
        let (kind, member, node) = match *command {
            Command::SetPrimary { to, .. } => (SET_PRIMARY, Some(to), None),
            Command::ShrinkIsr { member, .. } => (SHRINK, Some(member), None),
            Command::AddIsr { member, .. } => (ADD_ISR, Some(member), None),
            Command::AddLearner { node, .. } => (ADD_LEARNER, None, Some(node)),
            Command::DropLearner { node, .. } => (DROP_LEARNER, None, Some(node)),
            Command::Failover { to, .. } => (FAILOVER, Some(to), None),
            Command::DeclareLoss { to, .. } => (LOSS, Some(to), None),
            _ => (REAFFIRM, None, None),
        };
        let (partition, epoch) = command.subject().unwrap_or_default();
        self.u8(kind);
        self.partition(partition);
        self.u64(epoch.0);
        member.into_iter().for_each(|member| self.member(member));
        node.into_iter().for_each(|node: NodeId| self.u64(node.0));
    }
}

impl Reader<'_> {
    fn version(&mut self) -> Read<()> {
        if self.u8()? == VERSION { Ok(()) } else { Err(FrameError::Unknown) }
    }

    /// Where a node is reached.
    ///
    /// # Errors
    /// When it is not there.
    pub fn address(&mut self) -> Read<NodeAddress> {
        Ok(NodeAddress { host: self.text()?, port: self.u16()?, bus_port: self.u16()? })
    }

    fn node_entry(&mut self) -> Read<NodeEntry> {
        let (generation, boot) = (Generation(self.u32()?), self.u64()?);
        let state = match self.u8()? {
            0 => NodeState::Joining,
            1 => NodeState::Up,
            2 => NodeState::Draining,
            3 => NodeState::Removed,
            _ => return Err(FrameError::Malformed),
        };
        Ok(NodeEntry { generation, boot, state, zone: self.u16()?, address: self.address()? })
    }

    fn config(&mut self) -> Read<PartitionConfig> {
        let (epoch, primary) = (self.epoch()?, self.member()?);
        let isr = (0..self.u16()?).map(|_| self.member()).collect::<Read<_>>()?;
        let learners = (0..self.u16()?).map(|_| self.node()).collect::<Read<_>>()?;
        let (copies, min_sync) = (self.u8()?, self.u8()?);
        let (replica_reads, losses) = (self.flag()?, self.u32()?);
        let is_handover = self.flag()?;
        Ok(PartitionConfig {
            epoch,
            primary,
            isr,
            learners,
            copies,
            min_sync,
            replica_reads,
            losses,
            is_handover,
        })
    }

    pub(crate) fn command(&mut self) -> Read<Command> {
        match self.u8()? {
            REGISTER => {
                let (node, after) = (self.node()?, Generation(self.u32()?));
                let (boot, zone) = (self.u64()?, self.u16()?);
                Ok(Command::RegisterNode { node, after, boot, zone, address: self.address()? })
            }
            JOIN => Ok(Command::JoinNode(self.node()?)),
            DRAIN => Ok(Command::DrainNode(self.node()?)),
            REMOVE => Ok(Command::RemoveNode(self.node()?)),
            CREATE => {
                let (count, copies, min_sync) = (self.u16()?, self.u8()?, self.u8()?);
                let replica_reads = self.flag()?;
                Ok(Command::CreatePartitions { count, copies, min_sync, replica_reads })
            }
            kind => self.partition_command(kind),
        }
    }

    fn partition_command(&mut self, kind: u8) -> Read<Command> {
        let partition: PartitionId = self.partition()?;
        let epoch = self.epoch()?;
        Ok(match kind {
            SET_PRIMARY => Command::SetPrimary { partition, epoch, to: self.member()? },
            SHRINK => Command::ShrinkIsr { partition, epoch, member: self.member()? },
            ADD_ISR => Command::AddIsr { partition, epoch, member: self.member()? },
            ADD_LEARNER => Command::AddLearner { partition, epoch, node: self.node()? },
            DROP_LEARNER => Command::DropLearner { partition, epoch, node: self.node()? },
            FAILOVER => Command::Failover { partition, epoch, to: self.member()? },
            REAFFIRM => Command::Reaffirm { partition, epoch },
            LOSS => Command::DeclareLoss { partition, epoch, to: self.member()? },
            _ => return Err(FrameError::Malformed),
        })
    }
}
