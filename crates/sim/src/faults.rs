//! What goes wrong: at random, and when the protocol does something that a fault would hurt most.
//!
//! Each seed draws which kinds of faults it has and how many (swarm testing; Groce et al. 2012): a run with
//! all kinds at once hides what needs one kind often. Random faults alone left two broken rules of an
//! earlier model undetected through 2,000 histories; with faults within 40 ms of a configuration change
//! both were found (`docs/track-record.md`).

use crate::env::{Env, Event, VOTERS};
use crate::net::Address;
use hypercache_cluster::gate::Durability;
use hypercache_stdx::rng::Rng;

/// A fault of a node, or of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends; another starts, empty.
    Crash(usize),
    /// The process stands still.
    Pause(usize),
    /// The node hears and says nothing, but for clients.
    Isolate(usize),
    /// The node is cut from the voters.
    CutFromVoters(usize),
    /// The node and one other are cut from each other.
    CutPair(usize),
    /// The node is not heard by some others.
    Mute(usize),
    /// The node hears nothing of some others.
    Deafen(usize),
    /// The leader of the log changes.
    Depose,
    /// The log has no majority for a while.
    NoQuorum,
    /// A primary is told to hand over.
    HandOver,
    /// Some nodes, with all voters, are cut from the others.
    Split,
    /// The node is to be emptied, for a while.
    Drain(usize),
    /// Something that was proposed a while ago arrives once more.
    Ghost,
}

/// What the protocol did that a fault may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A configuration was committed.
    Config,
    /// A member was removed from the set in sync.
    Shrink,
    /// A lease was granted.
    Grant,
    /// A full copy begins.
    CopyBegins,
    /// A full copy ends.
    CopyEnds,
    /// A successor is proposed.
    Handoff,
    /// The log's leader changes.
    LeaderChange,
    /// A node was started again.
    Restart,
}

/// What this seed may do. Drawn once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Data nodes.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Partitions.
    pub partitions: u16,
    /// Keys.
    pub keys: u64,
    /// Copies of each partition.
    pub copies: u8,
    /// Copies in sync without which nothing is committed.
    pub min_sync: u8,
    /// Whether replicas answer reads.
    pub replica_reads: bool,
    /// What writes wait for.
    pub durability: Durability,
    /// Whether copies are held by the real store and written by real commands.
    pub is_real: bool,
    /// Whether messages go through their encoding.
    pub encodes: bool,
    /// Whether cuts hold messages back instead of losing them.
    pub holds: bool,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message takes long.
    pub slow: f64,
    /// Longest ordinary delay.
    pub delay_us: u64,
    /// Longest time the log takes to commit.
    pub commit_us: u64,
    /// Rates of clocks differ by up to this.
    pub drift_ppm: u64,
    /// Kinds of faults; one that is there twice is twice as likely.
    pub kinds: Vec<Fault>,
    /// Mean time between random faults.
    pub every_us: u64,
    /// Probability that something the protocol does triggers a fault.
    pub triggered: f64,
    /// Whether the last copy of a partition is spared.
    pub spares_last: bool,
    /// How long things go wrong.
    pub faulty_us: u64,
    /// How long clients wait between calls.
    pub think_us: u64,
}

const KINDS: [Fault; 14] = [
    Fault::Crash(0),
    Fault::Pause(0),
    Fault::Isolate(0),
    Fault::CutFromVoters(0),
    Fault::CutPair(0),
    Fault::Mute(0),
    Fault::Deafen(0),
    Fault::Depose,
    Fault::NoQuorum,
    Fault::HandOver,
    Fault::HandOver,
    Fault::Split,
    Fault::Ghost,
    Fault::Drain(0),
];

impl Plan {
    /// Draws one.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Plan {
        let mut chance = |p: f64| rng.unit() < p;
        let mut kinds: Vec<Fault> = KINDS.into_iter().filter(|_| chance(0.5)).collect();
        if chance(0.7) {
            kinds.push(Fault::Crash(0));
        }
        if kinds.is_empty() {
            kinds.push(Fault::Crash(0));
        }
        let loss = if chance(0.3) { 0.02 } else { 0.0 };
        let slow = if chance(0.3) { 0.02 } else { 0.0 };
        let (replica_reads, encodes) = (chance(0.6), chance(0.25));
        let (holds, spares_last) = (chance(0.5), chance(0.67));
        let (has_drift, is_strict) = (chance(0.8), chance(0.6));
        let is_sync = chance(0.9);
        let nodes = 3 + rng.below(3) as usize;
        let copies = if rng.below(4) == 0 { 2 } else { 3 };
        let clients = 4 + rng.below(4) as usize;
        // Few, so that each sees much; some, so that the planner has something to spread. All have keys.
        let partitions = [1, 1, 2, 2, 2, 5][rng.below(6) as usize];
        let keys = (2 + rng.below(6)).max(u64::from(partitions));
        Plan {
            nodes,
            clients,
            partitions,
            keys,
            copies,
            min_sync: if is_strict { 2 } else { 1 },
            replica_reads,
            durability: if is_sync { Durability::Sync } else { Durability::Async },
            is_real: false,
            encodes,
            holds,
            loss,
            slow,
            delay_us: [400, 2_000, 8_000][rng.below(3) as usize],
            commit_us: [3_000, 12_000, 60_000][rng.below(3) as usize],
            drift_ppm: if has_drift { 9_900 } else { 0 },
            kinds,
            every_us: 40_000 + rng.below(400_000),
            triggered: [0.0, 0.1, 0.4, 0.8][rng.below(4) as usize],
            spares_last,
            faulty_us: 4_000_000 + rng.below(3_000_000),
            think_us: 2_000 + rng.below(20_000),
        }
    }

    fn has(&self, kind: Fault) -> bool {
        self.kinds.iter().any(|k| std::mem::discriminant(k) == std::mem::discriminant(&kind))
    }
}

/// The same kind of fault for another node.
#[must_use]
pub fn of_node(kind: Fault, node: usize) -> Fault {
    match kind {
        Fault::Crash(_) => Fault::Crash(node),
        Fault::Pause(_) => Fault::Pause(node),
        Fault::Isolate(_) => Fault::Isolate(node),
        Fault::CutFromVoters(_) => Fault::CutFromVoters(node),
        Fault::CutPair(_) => Fault::CutPair(node),
        Fault::Mute(_) => Fault::Mute(node),
        Fault::Deafen(_) => Fault::Deafen(node),
        Fault::Drain(_) => Fault::Drain(node),
        Fault::Depose | Fault::NoQuorum | Fault::HandOver | Fault::Split | Fault::Ghost => kind,
    }
}

impl Env {
    /// The protocol did something: now would be a bad moment for a fault of `node`.
    pub fn trigger(&mut self, what: Trigger, node: usize) {
        let may = self.plan.triggered > 0.0 && self.now_us >= self.next_trigger_us;
        let is_over = self.now_us >= self.plan.faulty_us;
        let weight = if what == Trigger::Grant { 0.05 } else { 1.0 };
        if !may || is_over || !self.chance(self.plan.triggered * weight) {
            return;
        }
        self.next_trigger_us = self.now_us + 60_000;
        let node = if node < self.plan.nodes {
            node
        } else {
            self.rng.below(self.plan.nodes as u64) as usize
        };
        let kind = match self.rng.below(4) {
            0 if self.plan.has(Fault::Crash(0)) => Fault::Crash(node),
            1 => Fault::Pause(node),
            2 if what == Trigger::Config && self.plan.has(Fault::Depose) => Fault::Depose,
            2 => Fault::CutFromVoters(node),
            _ => Fault::Isolate(node),
        };
        let kind = if what == Trigger::Handoff { Fault::Isolate(node) } else { kind };
        let crashes = what == Trigger::Shrink && self.plan.has(Fault::Crash(0));
        let kind = if crashes { Fault::Crash(node) } else { kind };
        let within_us = self.between(0, if what == Trigger::Handoff { 8_000 } else { 40_000 });
        self.stats.triggered += 1;
        self.after(within_us, Event::Fault(kind));
    }

    /// Cuts links and heals them later.
    pub fn cut(&mut self, links: Vec<(Address, Address)>) {
        links.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        let us = if self.chance(0.3) {
            self.between(1_000, 100_000)
        } else {
            self.between(100_000, 1_500_000)
        };
        self.after(us, Event::Heal(links));
    }

    /// Links that a fault of this kind cuts.
    pub fn links_of(&mut self, fault: Fault) -> Vec<(Address, Address)> {
        let voters: Vec<Address> = (0..VOTERS).map(|v| self.voter(v)).collect();
        let nodes = 0..self.plan.nodes;
        let others: Vec<Address> =
            nodes.clone().chain(voters.iter().copied()).filter(|_| self.rng.below(3) > 0).collect();
        let both = |node: usize, with: Vec<Address>| -> Vec<(Address, Address)> {
            with.into_iter().flat_map(|a| [(node, a), (a, node)]).collect()
        };
        match fault {
            Fault::Isolate(node) => {
                let all = (0..self.plan.nodes).filter(|n| *n != node).chain(voters).collect();
                both(node, all)
            }
            Fault::CutFromVoters(node) => both(node, voters),
            Fault::CutPair(node) => {
                let other = (node + 1 + self.rng.below(self.plan.nodes as u64 - 1) as usize)
                    % self.plan.nodes;
                both(node, vec![other])
            }
            Fault::Mute(node) => others.into_iter().map(|a| (node, a)).collect(),
            Fault::Deafen(node) => others.into_iter().map(|a| (a, node)).collect(),
            _ => Vec::new(),
        }
    }
}
