//! What everybody in the simulation uses: time, randomness, the queue of events, links, the record of what
//! happened.

use crate::faults::{Fault, Plan};
use crate::net::{Address, Net, Payload};
use hypercache_cluster::ids::{PartitionId, RecordId};
use hypercache_cluster::meta::Command;
use hypercache_cluster::settings::Settings;
use hypercache_stdx::rng::Rng;
use std::collections::{BTreeMap, VecDeque};

/// What happens next.
#[derive(Debug)]
pub enum Event {
    /// Messages on a link may be due.
    Deliver(Address, Address),
    /// A node's process gets its turn.
    NodeTick(usize, u64),
    /// A node lets replies go.
    Flush(usize, u64),
    /// A node runs again.
    Resume(usize),
    /// A node's process starts.
    Start(usize),
    /// A voter gets its turn.
    VoterTick(usize),
    /// A proposal is committed, if its proposer still leads.
    Commit(u64),
    /// A quorum answers, if the one who asked still leads: voter, term, token.
    Confirm(usize, u64, u64),
    /// A voter is elected.
    Elect,
    /// A voter learns that its term is over.
    Deposed(usize, u64),
    /// A client makes its next call.
    ClientStep(usize),
    /// A client gives up a call.
    ClientTimeout(usize, u64),
    /// Something goes wrong at random.
    RandomFault,
    /// Something goes wrong now.
    Fault(Fault),
    /// A cut ends.
    Heal(Vec<(Address, Address)>),
    /// The log can commit again.
    QuorumBack,
    /// A node that was to be emptied takes part again, until that is agreed.
    Undrain(usize),
    /// Partitions are to be made, until they are there.
    Create,
    /// Nothing goes wrong any more.
    Calm,
    /// Clients stop.
    Quiet,
}

/// What a run counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events processed.
    pub events: u64,
    /// Things that went wrong.
    pub faults: u64,
    /// Of them, those triggered by what the protocol did.
    pub triggered: u64,
    /// Partitions that got another primary because theirs was gone.
    pub failovers: u64,
    /// Planned hand-overs.
    pub handovers: u64,
    /// Members removed from the set in sync.
    pub shrinks: u64,
    /// Members that joined it.
    pub joins: u64,
    /// Declared losses.
    pub losses: u64,
    /// Full copies that were completed.
    pub copies: u64,
    /// Of them, those of members in sync that differed.
    pub copies_in_sync: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Of them, by replicas.
    pub replica_reads: u64,
    /// Calls nobody knows the outcome of.
    pub unknown: u64,
}

/// A reply left that shows a record: everybody who counts must have it.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Its partition.
    pub partition: PartitionId,
    /// The record.
    pub id: RecordId,
}

/// See the module's text.
#[derive(Debug)]
pub struct Env {
    /// Virtual time.
    pub now_us: u64,
    /// The only source of randomness.
    pub rng: Rng,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    /// Links.
    pub net: Net,
    /// Which start each process is; 0: it is down.
    pub boots: Vec<u64>,
    /// What may go wrong.
    pub plan: Plan,
    /// Times and bounds of the protocol.
    pub settings: Settings,
    /// What happened so far, as a number.
    pub trace: u64,
    /// Counts.
    pub stats: Stats,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// Records shown since the last look.
    pub shown: Vec<Shown>,
    /// Which record wrote a value.
    pub written: BTreeMap<u64, (PartitionId, RecordId)>,
    /// Digest of the primary when a full copy was complete, by partition and session.
    pub copies: BTreeMap<(PartitionId, u64), u32>,
    /// What nodes proposed last: it may arrive again.
    pub proposed: VecDeque<Command>,
    /// The registrations among them.
    pub registered: VecDeque<Command>,
    /// Until then no further fault is triggered.
    pub next_trigger_us: u64,
    /// Whether nothing is written any more.
    pub is_quiet: bool,
    /// What happened, in words, when that is asked for.
    pub story: Option<Vec<String>>,
}

impl Env {
    /// An empty world.
    #[must_use]
    pub fn new(rng: Rng, plan: Plan, settings: Settings) -> Self {
        let count = plan.nodes + VOTERS + plan.clients;
        Env {
            now_us: 0,
            rng,
            queue: BTreeMap::new(),
            queued: 0,
            net: Net::new(count, plan.holds),
            boots: vec![1; count],
            plan,
            settings,
            trace: 0,
            stats: Stats::default(),
            violations: Vec::new(),
            shown: Vec::new(),
            written: BTreeMap::new(),
            copies: BTreeMap::new(),
            proposed: VecDeque::new(),
            registered: VecDeque::new(),
            next_trigger_us: 0,
            is_quiet: false,
            story: None,
        }
    }

    /// Lets something happen later.
    pub fn after(&mut self, us: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now_us + us, self.queued), event);
    }

    /// What happens next.
    pub fn next_event(&mut self) -> Option<Event> {
        let ((at_us, number), event) = self.queue.pop_first()?;
        self.now_us = at_us;
        self.stats.events += 1;
        self.note(number);
        Some(event)
    }

    /// Mixes something into the trace.
    pub fn note(&mut self, what: u64) {
        let mixed = self.trace ^ what.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.now_us;
        self.trace = mixed.rotate_left(23).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }

    /// A number in `from..to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.rng.below(to - from)
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.unit() < probability
    }

    /// Sends a message.
    pub fn send(&mut self, from: Address, to: Address, payload: Payload) {
        let is_lost = self.plan.loss > 0.0 && self.chance(self.plan.loss);
        if is_lost || from == to {
            return;
        }
        let slow = self.plan.slow > 0.0 && self.chance(self.plan.slow);
        let longest = if slow { 40_000 } else { self.plan.delay_us };
        let delay_us = self.between(50, 51 + longest);
        let to_boot = self.boots[to];
        let ready_us = self.now_us + delay_us;
        if let Some(ready_us) = self.net.send((from, to), ready_us, to_boot, payload) {
            self.after(ready_us - self.now_us, Event::Deliver(from, to));
        }
    }

    /// Notes what happened, for whoever reads the story of a seed.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(story) = &mut self.story {
            story.push(format!("{now_us:>9} us  {}", text()));
        }
    }

    /// Notes a proposal, so that it may arrive again. Of registrations more are kept: they are few.
    pub fn remember(&mut self, command: Command) {
        let is_start = matches!(command, Command::RegisterNode { .. });
        let list = if is_start { &mut self.registered } else { &mut self.proposed };
        list.push_back(command);
        if list.len() > 32 {
            list.pop_front();
        }
    }

    /// A promise was broken.
    pub fn violate(&mut self, text: String) {
        if self.violations.len() < 8 {
            self.violations.push(format!("at {} us: {text}", self.now_us));
        }
    }

    /// The address of a voter.
    #[must_use]
    pub fn voter(&self, voter: usize) -> Address {
        self.plan.nodes + voter
    }

    /// The address of a client.
    #[must_use]
    pub fn client(&self, client: usize) -> Address {
        self.plan.nodes + VOTERS + client
    }
}

/// Voters of the consensus log.
pub const VOTERS: usize = 3;

/// A clock that runs at its own rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed at the beginning.
    pub start_us: u64,
    /// How much faster it is, in millionths.
    pub faster_ppm: i64,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub fn read(&self, now_us: u64) -> u64 {
        let scaled = now_us as i64 * (1_000_000 + self.faster_ppm) / 1_000_000;
        self.start_us + scaled as u64
    }
}
