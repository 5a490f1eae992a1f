//! Links between processes: in order, with delay, loss, and cuts of one direction.
//!
//! A message belongs to the two processes of the moment it was sent in: when its receiver was started
//! anew it is lost, as with a connection. A cut either loses what is sent or, as TCP does, holds it back
//! and delivers everything late.

use hypercache_cluster::control::Heartbeat;
use hypercache_cluster::ids::{Member, PartitionId};
use hypercache_cluster::lease::Grant;
use hypercache_cluster::message::Message;
use hypercache_cluster::meta::{Command, MetaState};
use std::collections::VecDeque;

/// Who sends or receives: nodes first, then voters of the consensus log, then clients.
pub type Address = usize;

/// What is sent.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Between copies of a partition.
    Data(Message),
    /// The same as bytes.
    Frame(Vec<u8>),
    /// From a node: what it knows of the metadata, and once it has a generation, its heartbeat.
    Beat(u64, Option<Heartbeat>),
    /// To a node.
    Grant(Grant),
    /// Commands after an index.
    Delta(u64, Vec<Command>),
    /// The metadata as a whole.
    Whole(Box<MetaState>),
    /// To the leader.
    Propose(Command),
    /// To a primary: another is wanted.
    HandOver(PartitionId, Member),
    /// From a client.
    Request(Request),
    /// To a client.
    Reply(u64, Outcome),
}

/// A client's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which call.
    pub call: u64,
    /// What it asks for.
    pub ask: Ask,
    /// Whether a replica may answer.
    pub at_replica: bool,
}

/// See [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The value of a key.
    Read(u64),
    /// Keys get values, in one record.
    Write([Option<(u64, u64)>; 2]),
    /// A key gets a value if it has another.
    Cas(u64, Option<u64>, u64),
}

impl Ask {
    /// The first key.
    #[must_use]
    pub fn key(&self) -> u64 {
        match self {
            Ask::Read(key) | Ask::Cas(key, ..) => *key,
            Ask::Write(pairs) => pairs[0].map_or(0, |(key, _)| key),
        }
    }
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value read.
    Value(Option<u64>),
    /// It was done.
    Done,
    /// The key had another value: this.
    Missed(Option<u64>),
    /// It was not done and never will be.
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) queue: VecDeque<InFlight>,
    cuts: u32,
    last_us: u64,
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) ready_us: u64,
    pub(crate) to_boot: u64,
    pub(crate) payload: Payload,
}

/// All links.
#[derive(Debug)]
pub struct Net {
    count: usize,
    links: Vec<Link>,
    /// Whether a cut holds messages back instead of losing them.
    pub holds: bool,
}

impl Net {
    /// Links between `count` processes.
    #[must_use]
    pub fn new(count: usize, holds: bool) -> Self {
        Net { count, links: (0..count * count).map(|_| Link::default()).collect(), holds }
    }

    fn link(&mut self, from: Address, to: Address) -> &mut Link {
        &mut self.links[from * self.count + to]
    }

    /// Queues a message; returns when it is to be delivered.
    pub(crate) fn send(
        &mut self,
        (from, to): (Address, Address),
        ready_us: u64,
        to_boot: u64,
        payload: Payload,
    ) -> Option<u64> {
        let holds = self.holds;
        let link = self.link(from, to);
        if link.cuts > 0 && !holds {
            return None;
        }
        let ready_us = ready_us.max(link.last_us);
        link.last_us = ready_us;
        link.queue.push_back(InFlight { ready_us, to_boot, payload });
        Some(ready_us)
    }

    /// Takes the next message that is due, unless the link is cut.
    pub(crate) fn take(&mut self, from: Address, to: Address, now_us: u64) -> Option<InFlight> {
        let link = self.link(from, to);
        if link.cuts > 0 {
            return None;
        }
        link.queue.pop_front_if(|m| m.ready_us <= now_us)
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: Address, to: Address) {
        let holds = self.holds;
        let link = self.link(from, to);
        link.cuts += 1;
        if !holds {
            link.queue.clear();
        }
    }

    /// Undoes one cut.
    pub(crate) fn heal(&mut self, from: Address, to: Address) {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Undoes all cuts.
    pub(crate) fn heal_all(&mut self) {
        self.links.iter_mut().for_each(|link| link.cuts = 0);
    }
}
