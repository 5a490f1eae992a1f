//! What nodes say to each other about one partition. As bytes: [`crate::frame`].

use crate::ids::{Epoch, Lsn, Member, PartitionId, RecordId};
use crate::log::{Point, Record};
use std::sync::Arc;

/// Primary to replica: records, or none as a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The partition.
    pub partition: PartitionId,
    /// The primary.
    pub from: Member,
    /// The configuration that it acts under.
    pub epoch: Epoch,
    /// The epoch in which it became primary: all of its appends with the same term extend one log.
    pub term: Epoch,
    /// How often the partition was declared lost and started over. What a copy has of an earlier lineage
    /// is void, whether it has heard of the declaration or not.
    pub lineage: u32,
    /// What comes before the first record.
    pub prev: Point,
    /// What is committed.
    pub commit: Lsn,
    /// The replica's own time of an [`Ack`]: it may answer reads for a while from then on.
    pub read_stamp_us: Option<u64>,
    /// Consecutive records.
    pub records: Vec<Record>,
}

/// Replica to primary: what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The partition.
    pub partition: PartitionId,
    /// The replica.
    pub from: Member,
    /// The highest epoch that it heard of: nothing of an earlier one will change its copy any more.
    pub epoch: Epoch,
    /// Whose log it compared with; 0 before the first append.
    pub term: Epoch,
    /// Up to where its log is that of the term's primary; `None` before that is known.
    pub verified: Option<Lsn>,
    /// The newest record that it has, verified or not.
    pub tail: Point,
    /// Its log differs: it needs a full copy.
    pub wants_copy: bool,
    /// Its own time.
    pub stamp_us: u64,
}

/// Primary to learner: a part of a full copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The partition.
    pub partition: PartitionId,
    /// The primary.
    pub from: Member,
    /// The configuration that it acts under.
    pub epoch: Epoch,
    /// As in [`Append`].
    pub term: Epoch,
    /// As in [`Append`].
    pub lineage: u32,
    /// Which copy this is a part of.
    pub session: u64,
    /// Number of the part, from 0.
    pub seq: u32,
    /// The part.
    pub part: CopyPart,
}

/// See [`Copy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyPart {
    /// Entries in hash order.
    Chunk(Arc<[u8]>),
    /// A change of keys that were copied before.
    Record(Arc<[u8]>),
    /// The copy is complete and as of this record.
    End {
        /// The record.
        tail: Point,
        /// What is committed.
        commit: Lsn,
    },
}

/// Learner to primary: how much of a copy it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyAck {
    /// The partition.
    pub partition: PartitionId,
    /// The learner.
    pub from: Member,
    /// Which copy.
    pub session: u64,
    /// The part it waits for.
    pub next_seq: u32,
}

/// Leader to replica: the primary of this epoch is gone; what do you have?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that ends.
    pub epoch: Epoch,
}

/// Replica to leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealAck {
    /// The partition.
    pub partition: PartitionId,
    /// The replica.
    pub from: Member,
    /// The epoch that ends.
    pub epoch: Epoch,
    /// The newest record that it has.
    pub tail: RecordId,
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Append`].
    Append(Append),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Copy`].
    Copy(Copy),
    /// See [`CopyAck`].
    CopyAck(CopyAck),
    /// See [`Seal`].
    Seal(Seal),
    /// See [`SealAck`].
    SealAck(SealAck),
}

impl Message {
    /// The partition that it is about.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Message::Append(m) => m.partition,
            Message::Ack(m) => m.partition,
            Message::Copy(m) => m.partition,
            Message::CopyAck(m) => m.partition,
            Message::Seal(m) => m.partition,
            Message::SealAck(m) => m.partition,
        }
    }
}
