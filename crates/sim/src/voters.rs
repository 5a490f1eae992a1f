//! The consensus log as an actor with the semantics that the protocol relies on, and the worst manners
//! that they allow.
//!
//! One voter leads; what it proposes is committed after a while, unless it was deposed before: then it is
//! lost, or, as with an entry that a majority already had, takes effect just before its successor begins.
//! A deposed leader learns of it late and goes on granting, sealing and proposing meanwhile.

use crate::env::{Clock, Env, Event, VOTERS};
use crate::faults::Trigger;
use crate::net::{Address, Payload};
use crate::node::index_of;
use hypercache_cluster::control::{At, ControlAction, Heartbeat, Leader};
use hypercache_cluster::message::Message;
use hypercache_cluster::meta::{Command, MetaEvent, MetaLog, MetaState};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
struct Voter {
    clock: Clock,
    leader: Option<Leader>,
    term: u64,
    meta: MetaState,
    inbox: VecDeque<MetaEvent>,
}

/// The log and its voters.
#[derive(Debug)]
pub struct Voters {
    voters: Vec<Voter>,
    /// Everything that was committed.
    pub committed: Vec<Command>,
    /// What it amounts to.
    pub truth: MetaState,
    /// Who leads, and in which term.
    pub leads: Option<(usize, u64)>,
    term: u64,
    in_flight: BTreeMap<u64, (usize, u64, Command)>,
    tickets: u64,
    /// Whether a majority is there.
    pub has_quorum: bool,
}

/// The log as one voter sees it.
struct Handle<'a> {
    env: &'a mut Env,
    inbox: &'a mut VecDeque<MetaEvent>,
    in_flight: &'a mut BTreeMap<u64, (usize, u64, Command)>,
    tickets: &'a mut u64,
    who: (usize, u64),
}

impl MetaLog for Handle<'_> {
    fn propose(&mut self, command: Command) {
        *self.tickets += 1;
        self.in_flight.insert(*self.tickets, (self.who.0, self.who.1, command));
        let us = self.env.between(500, self.env.plan.commit_us);
        self.env.after(us, Event::Commit(*self.tickets));
    }

    fn confirm(&mut self, token: u64) {
        let us = self.env.between(300, self.env.plan.commit_us);
        self.env.after(us, Event::Confirm(self.who.0, self.who.1, token));
    }

    fn poll(&mut self) -> Option<MetaEvent> {
        self.inbox.pop_front()
    }
}

const TICK_US: u64 = 10_000;

impl Voters {
    /// An empty log without a leader.
    #[must_use]
    pub fn new(clocks: &[Clock]) -> Self {
        let voter = |clock: &Clock| Voter {
            clock: *clock,
            leader: None,
            term: 0,
            meta: MetaState::default(),
            inbox: VecDeque::new(),
        };
        Voters {
            voters: clocks.iter().map(voter).collect(),
            committed: Vec::new(),
            truth: MetaState::default(),
            leads: None,
            term: 0,
            in_flight: BTreeMap::new(),
            tickets: 0,
            has_quorum: true,
        }
    }

    /// The leader is no more; it will learn of it later. Returns who it was.
    pub fn depose(&mut self, env: &mut Env) -> Option<usize> {
        let (voter, term) = self.leads.take()?;
        let late_us = env.between(1, 900_000);
        env.after(late_us, Event::Deposed(voter, term));
        let election_us = env.between(50_000, 400_000);
        env.after(election_us, Event::Elect);
        env.trigger(Trigger::LeaderChange, env.plan.nodes);
        Some(voter)
    }

    /// A voter takes office, unless somebody has.
    pub fn elect(&mut self, env: &mut Env) {
        if self.leads.is_some() {
            return;
        }
        if !self.has_quorum {
            env.after(20_000, Event::Elect);
            return;
        }
        // What voters had of the last leader's proposals may be the new leader's to commit. Proposals of
        // earlier leaders cannot: a majority has entries of a later term.
        for (_, term, command) in std::mem::take(&mut self.in_flight).into_values() {
            if term == self.term && env.chance(0.3) {
                self.append(command, env);
            }
        }
        let voter = env.rng.below(VOTERS as u64) as usize;
        self.term += 1;
        self.leads = Some((voter, self.term));
        self.voters[voter].inbox.push_back(MetaEvent::Elected);
        self.voters[voter].term = self.term;
        self.voters[voter].meta = self.truth.clone();
        self.drain(voter, env);
    }

    /// A voter learns that a term of its is over.
    pub fn on_deposed(&mut self, voter: usize, term: u64, env: &mut Env) {
        if self.voters[voter].term == term {
            self.voters[voter].inbox.push_back(MetaEvent::Deposed);
            self.drain(voter, env);
        }
    }

    /// A proposal is committed if its proposer still leads.
    pub fn on_commit(&mut self, ticket: u64, env: &mut Env) {
        let Some((voter, term, command)) = self.in_flight.remove(&ticket) else { return };
        if self.leads == Some((voter, term)) && self.has_quorum {
            self.append(command.clone(), env);
            self.voters[voter].inbox.push_back(MetaEvent::Committed(command));
            self.drain(voter, env);
        }
    }

    /// A quorum answers a leader.
    pub fn on_confirm(&mut self, voter: usize, term: u64, token: u64, env: &mut Env) {
        if self.leads == Some((voter, term)) && self.has_quorum {
            self.voters[voter].inbox.push_back(MetaEvent::Confirmed(token));
            self.drain(voter, env);
        }
    }

    fn append(&mut self, command: Command, env: &mut Env) {
        let _no_op = self.truth.apply(&command, &env.settings);
        self.committed.push(command);
    }

    fn drain(&mut self, v: usize, env: &mut Env) {
        while let Some(event) = self.handle(v, env).poll() {
            let now_us = self.voters[v].clock.read(env.now_us);
            match event {
                MetaEvent::Elected => {
                    self.voters[v].leader = Some(Leader::new(now_us, &env.settings));
                }
                MetaEvent::Deposed => self.voters[v].leader = None,
                MetaEvent::Confirmed(token) => {
                    self.lead(v, env, |leader, _, at, out| leader.on_confirmed(token, at, out));
                }
                MetaEvent::Committed(command) => self.announce(v, command, env),
            }
        }
    }

    fn announce(&mut self, v: usize, command: Command, env: &mut Env) {
        let index = self.voters[v].meta.index;
        let _no_op = self.voters[v].meta.apply(&command, &env.settings);
        for node in 0..env.plan.nodes {
            env.send(env.voter(v), node, Payload::Delta(index, vec![command.clone()]));
        }
        // What was taken away is taken at once.
        self.lead(v, env, Leader::tick);
    }

    fn handle<'a>(&'a mut self, v: usize, env: &'a mut Env) -> Handle<'a> {
        let voter = &mut self.voters[v];
        let who = (v, voter.term);
        let (in_flight, tickets) = (&mut self.in_flight, &mut self.tickets);
        Handle { env, inbox: &mut voter.inbox, in_flight, tickets, who }
    }

    fn lead(
        &mut self,
        v: usize,
        env: &mut Env,
        f: impl FnOnce(&mut Leader, u64, &At<'_>, &mut Vec<ControlAction>),
    ) {
        let voter = &mut self.voters[v];
        let now_us = voter.clock.read(env.now_us);
        let Some(leader) = &mut voter.leader else { return };
        let mut actions = Vec::new();
        let at = At { meta: &voter.meta, settings: &env.settings };
        f(leader, now_us, &at, &mut actions);
        for action in actions {
            self.act(v, action, env);
        }
    }

    fn act(&mut self, v: usize, action: ControlAction, env: &mut Env) {
        let from = env.voter(v);
        match action {
            ControlAction::Confirm(token) => self.handle(v, env).confirm(token),
            ControlAction::Propose(command) => self.handle(v, env).propose(command),
            ControlAction::Grant(grant) => {
                env.send(from, index_of(grant.to.node), Payload::Grant(grant));
            }
            ControlAction::HandOver { partition, from: primary, to } => {
                env.send(from, index_of(primary.node), Payload::HandOver(partition, to));
            }
            ControlAction::Seal { to, seal } => {
                env.send(from, index_of(to.node), Payload::Data(Message::Seal(seal)));
            }
        }
    }

    /// A voter's turn.
    pub fn tick(&mut self, v: usize, env: &mut Env) {
        env.after(TICK_US, Event::VoterTick(v));
        self.lead(v, env, Leader::tick);
    }

    /// A voter takes a message.
    pub fn receive(&mut self, v: usize, from: Address, payload: Payload, env: &mut Env) {
        if self.voters[v].leader.is_none() {
            return;
        }
        match payload {
            Payload::Beat(index, heartbeat) => self.on_beat(v, from, index, heartbeat, env),
            Payload::Propose(command) => self.handle(v, env).propose(command),
            Payload::Data(Message::SealAck(ack)) => {
                self.lead(v, env, |leader, now_us, at, out| {
                    leader.on_seal_ack(&ack);
                    leader.tick(now_us, at, out);
                });
            }
            _ => {}
        }
    }

    fn on_beat(
        &mut self,
        v: usize,
        from: Address,
        index: u64,
        heartbeat: Option<Heartbeat>,
        env: &mut Env,
    ) {
        let known = self.voters[v].meta.index;
        // Metadata and grants may travel apart: sometimes the grant is first.
        let is_sent = env.chance(0.8);
        if index < known && is_sent {
            let missing = &self.committed[index as usize..known as usize];
            let payload = if missing.len() > 40 {
                Payload::Whole(Box::new(self.voters[v].meta.clone()))
            } else {
                Payload::Delta(index, missing.to_vec())
            };
            env.send(env.voter(v), from, payload);
        }
        if let Some(heartbeat) = heartbeat {
            self.lead(v, env, |leader, now_us, at, out| {
                leader.on_heartbeat(heartbeat, now_us, at, out);
            });
        }
    }

    /// Proposes something on behalf of an operator.
    pub fn propose(&mut self, command: Command, env: &mut Env) {
        if let Some((v, _)) = self.leads {
            self.handle(v, env).propose(command);
        }
    }
}
