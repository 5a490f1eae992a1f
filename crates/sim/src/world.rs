//! Everybody together: takes the next event and has it happen.

use crate::checks::{check_command, check_shown};
use crate::client::Clients;
use crate::env::{Clock, Env, Event, VOTERS};
use crate::faults::{Fault, Plan, Trigger, of_node};
use crate::net::{Address, Payload};
use crate::node::{Node, id_of, index_of};
use crate::voters::Voters;
use hypercache_cluster::gate::Durability;
use hypercache_cluster::ids::{Epoch, Member, PartitionId};
use hypercache_cluster::meta::{Command, MetaState, NodeState};
use hypercache_cluster::settings::Settings;
use hypercache_stdx::rng::Rng;
use std::collections::BTreeMap;

/// A cluster with its clients.
#[derive(Debug)]
pub struct World {
    /// What all use.
    pub env: Env,
    /// Data nodes.
    pub nodes: Vec<Node>,
    /// The consensus log.
    pub voters: Voters,
    /// Clients.
    pub clients: Clients,
    checked: MetaState,
    /// The epoch in which each partition started over last.
    started_over: BTreeMap<PartitionId, Epoch>,
    is_over: bool,
}

/// From calm to the end: what liveness is given.
pub const CALM_US: u64 = 5_000_000;
const QUIET_US: u64 = 600_000;

fn any_clock(rng: &mut Rng, drift_ppm: u64) -> Clock {
    let faster_ppm = rng.below(2 * drift_ppm + 1) as i64 - drift_ppm as i64;
    Clock { start_us: 1_000_000 + rng.below(1 << 40), faster_ppm }
}

impl World {
    /// A cluster that starts now.
    #[must_use]
    pub fn new(mut rng: Rng, plan: Plan, settings: Settings) -> Self {
        let drift = plan.drift_ppm;
        let clocks: Vec<Clock> = (0..VOTERS).map(|_| any_clock(&mut rng, drift)).collect();
        let (count, partitions) = (plan.clients, usize::from(plan.partitions));
        let nodes = (0..plan.nodes).map(|i| Node::new(i, any_clock(&mut rng, drift), count));
        let nodes = nodes.collect();
        let mut world = World {
            env: Env::new(rng, plan, settings),
            nodes,
            voters: Voters::new(&clocks),
            clients: Clients::new(count, partitions),
            checked: MetaState::default(),
            started_over: BTreeMap::new(),
            is_over: false,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let env = &mut self.env;
        (0..env.plan.nodes).for_each(|node| env.after(0, Event::Start(node)));
        (0..VOTERS).for_each(|voter| env.after(1, Event::VoterTick(voter)));
        (0..env.plan.clients).for_each(|client| env.after(300_000, Event::ClientStep(client)));
        env.after(1, Event::Elect);
        env.after(200_000, Event::Create);
        env.after(500_000, Event::RandomFault);
        env.after(env.plan.faulty_us, Event::Calm);
        env.after(env.plan.faulty_us + CALM_US - QUIET_US, Event::Quiet);
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) {
        let end_us = self.env.plan.faulty_us + CALM_US;
        while self.env.violations.is_empty() {
            let Some(event) = self.env.next_event() else { return };
            if self.env.now_us >= end_us {
                self.is_over = true;
                return;
            }
            self.happen(event);
            self.look();
        }
    }

    /// Whether it ran to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn happen(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Deliver(from, to) => self.deliver(from, to),
            Event::NodeTick(n, boot) => self.tick(n, boot),
            Event::Flush(n, boot) => self.flush(n, boot),
            Event::Resume(n) => self.resume(n),
            Event::Start(n) => self.nodes[n].start(env),
            Event::VoterTick(v) => self.voters.tick(v, env),
            Event::Commit(ticket) => self.voters.on_commit(ticket, env),
            Event::Confirm(v, term, token) => self.voters.on_confirm(v, term, token, env),
            Event::Elect => self.voters.elect(env),
            Event::Deposed(v, term) => self.voters.on_deposed(v, term, env),
            Event::ClientStep(client) => self.clients.step(client, env),
            Event::ClientTimeout(client, call) => self.clients.give_up(client, call, env),
            Event::RandomFault => self.random_fault(),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal(links) => self.heal(&links),
            Event::QuorumBack => self.voters.has_quorum = true,
            Event::Create => self.create(),
            Event::Undrain(n) => self.undrain(n),
            Event::Calm => self.calm(),
            Event::Quiet => env.is_quiet = true,
        }
    }

    fn is_running(&self, n: usize, boot: u64) -> bool {
        self.env.boots[n] == boot && self.env.now_us >= self.nodes[n].paused_until_us
    }

    fn tick(&mut self, n: usize, boot: u64) {
        if self.is_running(n, boot) {
            self.nodes[n].tick(&mut self.env);
        }
    }

    /// A process that stands still flushes when it goes on, before it hears of anything.
    fn flush(&mut self, n: usize, boot: u64) {
        if self.is_running(n, boot) {
            self.nodes[n].flush(&mut self.env);
        } else if self.env.boots[n] == boot {
            let us = self.nodes[n].paused_until_us - self.env.now_us;
            self.env.after(us, Event::Flush(n, boot));
        }
    }

    fn deliver(&mut self, from: Address, to: Address) {
        if to < self.nodes.len() && self.env.now_us < self.nodes[to].paused_until_us {
            return;
        }
        let now_us = self.env.now_us;
        while let Some(message) = self.env.net.take(from, to, now_us) {
            if message.to_boot == self.env.boots[to] && self.env.boots[to] != 0 {
                self.receive(from, to, message.payload);
            }
        }
    }

    fn receive(&mut self, from: Address, to: Address, payload: Payload) {
        let env = &mut self.env;
        let nodes = self.nodes.len();
        if to < nodes {
            self.nodes[to].receive(from, payload, env);
        } else if to < nodes + VOTERS {
            self.voters.receive(to - nodes, from, payload, env);
        } else if let Payload::Reply(call, outcome) = payload {
            self.clients.on_reply(call, outcome, env);
        }
    }

    fn resume(&mut self, n: usize) {
        if self.env.now_us < self.nodes[n].paused_until_us || self.env.boots[n] == 0 {
            return;
        }
        self.env.after(1, Event::NodeTick(n, self.env.boots[n]));
        self.deliver_to(n);
    }

    fn deliver_to(&mut self, n: usize) {
        let count = self.env.boots.len();
        for from in 0..count {
            let us = self.env.between(2, 400);
            self.env.after(us, Event::Deliver(from, n));
        }
    }

    fn heal(&mut self, links: &[(Address, Address)]) {
        for (from, to) in links {
            self.env.net.heal(*from, *to);
            self.env.after(1, Event::Deliver(*from, *to));
        }
    }

    fn create(&mut self) {
        let plan = &self.env.plan;
        if self.voters.truth.partitions.is_empty() {
            let (count, copies, min_sync) = (plan.partitions, plan.copies, plan.min_sync);
            let replica_reads = plan.replica_reads;
            let make = Command::CreatePartitions { count, copies, min_sync, replica_reads };
            self.voters.propose(make, &mut self.env);
            self.env.after(50_000, Event::Create);
        }
    }

    fn undrain(&mut self, n: usize) {
        let entry = self.voters.truth.nodes.get(&id_of(n));
        if entry.is_some_and(|entry| entry.state == NodeState::Draining) {
            self.voters.propose(Command::JoinNode(id_of(n)), &mut self.env);
            self.env.after(100_000, Event::Undrain(n));
        }
    }

    fn random_fault(&mut self) {
        if self.env.now_us >= self.env.plan.faulty_us {
            return;
        }
        let next_us = self.env.between(1_000, 2 * self.env.plan.every_us);
        self.env.after(next_us, Event::RandomFault);
        let which = self.env.rng.below(self.env.plan.kinds.len() as u64) as usize;
        let node = self.env.rng.below(self.env.plan.nodes as u64) as usize;
        let fault = of_node(self.env.plan.kinds[which], node);
        self.fault(fault);
    }

    fn fault(&mut self, fault: Fault) {
        if self.env.now_us >= self.env.plan.faulty_us {
            return;
        }
        self.env.stats.faults += 1;
        self.env.tell(|| format!("fault: {fault:?}"));
        match fault {
            Fault::Crash(n) => self.crash(n),
            Fault::Pause(n) => self.pause(n),
            Fault::Depose => self.depose(),
            Fault::NoQuorum => {
                self.voters.has_quorum = false;
                let us = self.env.between(50_000, 1_200_000);
                self.env.after(us, Event::QuorumBack);
            }
            Fault::HandOver => self.hand_over(),
            Fault::Ghost => self.ghost(),
            Fault::Split => self.split(),
            Fault::Drain(n) => {
                self.voters.propose(Command::DrainNode(id_of(n)), &mut self.env);
                let us = self.env.between(100_000, 2_000_000);
                self.env.after(us, Event::Undrain(n));
            }
            cut => {
                let mut links = self.env.links_of(cut);
                links.retain(|(from, to)| from != to);
                self.env.cut(links);
            }
        }
    }

    /// The leader is deposed and, sometimes, goes on in its belief beside a node that hears of no other.
    fn depose(&mut self) {
        let old = self.voters.depose(&mut self.env);
        let primaries = self.voters.truth.partitions.values().map(|c| index_of(c.primary.node));
        let node = primaries.max();
        if let (Some(old), Some(node), true) = (old, node, self.env.chance(0.4)) {
            let others = (0..VOTERS).filter(|v| *v != old).map(|v| self.env.plan.nodes + v);
            let links = others.flat_map(|voter| [(node, voter), (voter, node)]).collect();
            self.env.cut(links);
        }
    }

    /// Some nodes, a primary among them if it can be, are cut from the others and from all voters.
    fn split(&mut self) {
        let primary = self.voters.truth.partitions.values().map(|c| index_of(c.primary.node)).max();
        let mut apart: Vec<Address> = primary.into_iter().collect();
        apart.extend((0..self.nodes.len()).filter(|n| primary != Some(*n) && self.env.chance(0.4)));
        let others = (0..self.nodes.len() + VOTERS).filter(|a| !apart.contains(a));
        let links = others.flat_map(|a| apart.iter().flat_map(move |n| [(*n, a), (a, *n)]));
        let links = links.collect();
        self.env.cut(links);
    }

    fn ghost(&mut self) {
        let of_starts = self.env.chance(0.5);
        let list = if of_starts { &self.env.registered } else { &self.env.proposed };
        let which = self.env.rng.below(list.len() as u64) as usize;
        if let Some(command) = list.get(which).cloned() {
            self.voters.propose(command, &mut self.env);
        }
    }

    fn crash(&mut self, n: usize) {
        if self.env.boots[n] == 0 || (self.env.plan.spares_last && self.is_last(n)) {
            return;
        }
        self.nodes[n].stop(&mut self.env);
        let soon = self.env.chance(0.5);
        let us =
            if soon { self.env.between(500, 50_000) } else { self.env.between(50_000, 1_500_000) };
        self.env.after(us, Event::Start(n));
        self.env.trigger(Trigger::Restart, self.env.plan.nodes);
    }

    /// Whether some partition would have no member in sync left without the node.
    fn is_last(&self, n: usize) -> bool {
        let runs = |m: &Member| {
            let node = index_of(m.node);
            node != n && self.nodes[node].member == Some(*m) && self.env.boots[node] != 0
        };
        self.voters.truth.partitions.values().any(|config| !config.isr.iter().any(runs))
    }

    fn pause(&mut self, n: usize) {
        let us = if self.env.chance(0.5) {
            self.env.between(1_000, 300_000)
        } else {
            self.env.between(300_000, 2_000_000)
        };
        let until_us = self.env.now_us + us;
        self.nodes[n].paused_until_us = self.nodes[n].paused_until_us.max(until_us);
        self.env.after(us, Event::Resume(n));
    }

    fn hand_over(&mut self) {
        let p = self.env.rng.below(u64::from(self.env.plan.partitions)) as u16;
        let Some(config) = self.voters.truth.partitions.get(&PartitionId(p)) else { return };
        let to = config.isr[self.env.rng.below(config.isr.len() as u64) as usize];
        let n = index_of(config.primary.node);
        let is_there = self.nodes[n].slots.len() > usize::from(p);
        if is_there && self.is_running(n, self.env.boots[n]) {
            self.nodes[n]
                .step(p.into(), &mut self.env, |partition, cx| partition.hand_over(to, cx));
        }
    }

    fn calm(&mut self) {
        self.env.net.heal_all();
        (self.env.plan.loss, self.env.plan.slow) = (0.0, 0.0);
        self.voters.has_quorum = true;
        for n in 0..self.nodes.len() {
            if self.env.boots[n] == 0 {
                self.nodes[n].start(&mut self.env);
            }
            self.nodes[n].paused_until_us = self.env.now_us;
            self.resume(n);
            self.env.after(300_000, Event::Undrain(n));
        }
        let count = self.env.boots.len();
        (0..count).for_each(|to| self.deliver_to(to));
    }

    /// Looks at what the event did.
    fn look(&mut self) {
        while self.checked.index < self.voters.truth.index {
            let command = self.voters.committed[self.checked.index as usize].clone();
            let before = self.checked.clone();
            let applied = self.checked.apply(&command, &self.env.settings);
            if applied.is_ok() {
                self.committed(&command, &before);
            }
        }
        for shown in std::mem::take(&mut self.env.shown) {
            // What was committed and then declared lost may still be told of by who was asleep.
            let since = self.started_over.get(&shown.partition);
            let is_current = since.is_none_or(|since| shown.id.epoch >= *since);
            if is_current && self.env.plan.durability == Durability::Sync {
                check_shown(&shown, &self.nodes, &self.voters.truth, &mut self.env);
            }
        }
    }

    fn committed(&mut self, command: &Command, before: &MetaState) {
        check_command(command, before, &self.checked, &self.nodes, &mut self.env);
        self.env.tell(|| format!("committed: {command:?}"));
        let Some((partition, _)) = command.subject() else { return };
        let stats = &mut self.env.stats;
        match command {
            Command::Failover { .. } => stats.failovers += 1,
            Command::SetPrimary { .. } => stats.handovers += 1,
            Command::ShrinkIsr { .. } => stats.shrinks += 1,
            Command::AddIsr { .. } => stats.joins += 1,
            Command::DeclareLoss { .. } => {
                stats.losses += 1;
                let (partitions, keys) = (self.env.plan.partitions.into(), self.env.plan.keys);
                let epoch = self.checked.partitions.get(&partition).map(|config| config.epoch);
                self.started_over.extend(epoch.map(|epoch| (partition, epoch)));
                self.clients.declare_loss(partition.0.into(), partitions, keys);
            }
            _ => {}
        }
        let primary = self.checked.partitions.get(&partition).map(|c| index_of(c.primary.node));
        if let Some(primary) = primary {
            let is_shrink = matches!(command, Command::ShrinkIsr { .. });
            let what = if is_shrink { Trigger::Shrink } else { Trigger::Config };
            self.env.trigger(what, primary);
        }
    }
}
