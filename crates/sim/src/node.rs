//! A data node: what a server would be around the state machines of `hypercache-cluster`.

use crate::env::{Clock, Env, Event, Shown, VOTERS};
use crate::faults::Trigger;
use crate::machine::{Machine, Registers};
use crate::net::{Address, Ask, Outcome, Payload, Request};
use crate::store::{Server, StoreCopy, new_server};
use hypercache_cluster::control::Heartbeat;
use hypercache_cluster::frame;
use hypercache_cluster::gate::{Gate, Need, Verdict};
use hypercache_cluster::ids::{Generation, Member, NodeId, PartitionId, RecordId};
use hypercache_cluster::lease::HeldLease;
use hypercache_cluster::log::RECORD_OVERHEAD_BYTES;
use hypercache_cluster::message::{CopyPart, Message};
use hypercache_cluster::meta::{Command, MetaState, NodeAddress, NodeState};
use hypercache_cluster::partition::{Action, Cx, Moment, Partition, ReadRule};
use std::sync::Arc;

/// One partition on a node.
#[derive(Debug)]
pub struct Slot {
    /// Its state machine.
    pub partition: Partition,
    /// Its keys.
    pub data: Box<dyn Machine>,
}

/// A reply on its way out.
#[derive(Clone, Copy, Debug)]
struct Reply {
    call: u64,
    outcome: Outcome,
    shows: Option<Shown>,
    by_replica: bool,
}

/// A process on a machine.
#[derive(Debug)]
pub struct Node {
    /// Its address.
    pub index: usize,
    /// Its clock, which goes on when the process does not.
    pub clock: Clock,
    /// Who it is, once it is registered.
    pub member: Option<Member>,
    /// What it knows of the metadata.
    pub meta: MetaState,
    /// Its lease.
    pub lease: HeldLease,
    /// Its partitions.
    pub slots: Vec<Slot>,
    /// Until when it stands still.
    pub paused_until_us: u64,
    /// The server that holds the copies, when the real store does.
    server: Option<Server>,
    gates: Vec<Gate<Reply>>,
    beat_us: u64,
    asked_by: Address,
    is_flushing: bool,
}

/// The machine of a node's address.
#[must_use]
pub fn id_of(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

/// The address of a machine.
#[must_use]
pub fn index_of(node: NodeId) -> usize {
    (node.0 - 1) as usize
}

const TICK_US: u64 = 5_000;

/// What wall clocks show at the beginning.
const WALL_MS: u64 = 1_700_000_000_000;

impl Node {
    /// A machine without a process.
    #[must_use]
    pub fn new(index: usize, clock: Clock, clients: usize) -> Self {
        Node {
            index,
            clock,
            member: None,
            meta: MetaState::default(),
            lease: HeldLease::default(),
            slots: Vec::new(),
            paused_until_us: 0,
            server: None,
            gates: (0..clients).map(|_| Gate::default()).collect(),
            beat_us: 0,
            asked_by: 0,
            is_flushing: false,
        }
    }

    /// Starts a process with empty memory.
    pub fn start(&mut self, env: &mut Env) {
        *self = Node::new(self.index, self.clock, self.gates.len());
        env.boots[self.index] = env.rng.next_u64() | 1;
        env.tell(|| format!("node {} starts", self.index));
        self.server = env.plan.is_real.then(|| new_server(env.boots[self.index]));
        env.after(0, Event::NodeTick(self.index, env.boots[self.index]));
    }

    /// Ends it, and with it all it knew.
    pub fn stop(&mut self, env: &mut Env) {
        *self = Node::new(self.index, self.clock, self.gates.len());
        env.boots[self.index] = 0;
        env.tell(|| format!("node {} stops", self.index));
    }

    /// What its clock shows.
    #[must_use]
    pub fn local_us(&self, env: &Env) -> u64 {
        self.clock.read(env.now_us)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self, env: &Env) -> bool {
        env.boots[self.index] != 0
    }

    /// Whether it holds its lease.
    #[must_use]
    pub fn has_lease(&self, env: &Env) -> bool {
        self.lease.is_held(self.local_us(env))
    }

    /// Its turn.
    pub fn tick(&mut self, env: &mut Env) {
        let boot = env.boots[self.index];
        env.after(TICK_US, Event::NodeTick(self.index, boot));
        let now_us = self.local_us(env);
        if now_us >= self.beat_us {
            self.beat_us = now_us + env.settings.heartbeat_us;
            self.beat(now_us, env);
        }
        for p in 0..self.slots.len() {
            self.step(p, env, |partition, cx| partition.tick(cx));
            self.do_other_things(p, env);
            self.check_slot(p, env);
        }
        self.release(env);
    }

    fn beat(&mut self, now_us: u64, env: &mut Env) {
        let heartbeat = self.member.map(|from| Heartbeat {
            from,
            stamp_us: now_us,
            meta_index: self.meta.index,
            is_leaving: false,
        });
        for voter in 0..VOTERS {
            let beat = Payload::Beat(self.meta.index, heartbeat);
            env.send(self.index, env.voter(voter), beat);
        }
        let node = id_of(self.index);
        let entry = self.meta.nodes.get(&node);
        if self.member.is_none() {
            let after = entry.map_or(Generation(0), |entry| entry.generation);
            let boot = env.boots[self.index];
            let address = NodeAddress::default();
            self.propose(Command::RegisterNode { node, after, boot, zone: 0, address }, env);
        } else if entry.is_some_and(|entry| entry.state == NodeState::Joining) {
            self.propose(Command::JoinNode(node), env);
        }
    }

    fn propose(&mut self, command: Command, env: &mut Env) {
        if matches!(command, Command::SetPrimary { .. }) {
            env.trigger(Trigger::Handoff, self.index);
        }
        for voter in 0..VOTERS {
            env.send(self.index, env.voter(voter), Payload::Propose(command.clone()));
        }
        env.remember(command);
    }

    /// Runs a step of a partition and does what it asks for.
    pub fn step(&mut self, p: usize, env: &mut Env, f: impl FnOnce(&mut Partition, &mut Cx<'_>)) {
        let mut actions = Vec::new();
        let (now_us, has_lease) = (self.local_us(env), self.has_lease(env));
        let slot = &mut self.slots[p];
        let settings = &env.settings;
        slot.data.set_time(WALL_MS + env.now_us / 1000);
        let data = &mut *slot.data;
        let mut cx = Cx { now_us, has_lease, settings, data, actions: &mut actions };
        f(&mut slot.partition, &mut cx);
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(p, index_of(to), message, env),
                Action::Propose(command) => self.propose(command, env),
                Action::Sealed(ack) => {
                    env.send(self.index, self.asked_by, Payload::Data(Message::SealAck(ack)));
                }
                Action::Committed(_) => {
                    let config = self.slots[p].partition.config();
                    if config.isr.len() < usize::from(config.min_sync) {
                        env.violate(format!("I6: commit in {p} with {} in sync", config.isr.len()));
                    }
                    self.flush_soon(env);
                }
                Action::Demoted => self.flush_soon(env),
            }
        }
    }

    fn send(&mut self, p: usize, to: Address, message: Message, env: &mut Env) {
        if let Message::Copy(copy) = &message {
            if copy.seq == 0 {
                env.trigger(Trigger::CopyBegins, self.index);
            }
            if matches!(copy.part, CopyPart::End { .. }) {
                let digest = self.slots[p].data.digest();
                env.copies.entry((copy.partition, copy.session)).or_insert(digest);
                env.trigger(Trigger::CopyEnds, self.index);
            }
        }
        let payload = if env.plan.encodes {
            let mut bytes = Vec::new();
            frame::encode(&message, &mut bytes);
            Payload::Frame(bytes)
        } else {
            Payload::Data(message)
        };
        env.send(self.index, to, payload);
    }

    fn flush_soon(&mut self, env: &mut Env) {
        if !self.is_flushing {
            self.is_flushing = true;
            let us = env.between(1, 150);
            env.after(us, Event::Flush(self.index, env.boots[self.index]));
        }
    }

    /// Takes a message.
    pub fn receive(&mut self, from: Address, payload: Payload, env: &mut Env) {
        match payload {
            Payload::Data(message) => self.receive_data(from, message, env),
            Payload::Frame(bytes) => match frame::decode(&bytes) {
                Ok(Some((message, _))) => self.receive_data(from, message, env),
                other => env.violate(format!("a frame does not decode: {other:?}")),
            },
            Payload::Grant(grant) => {
                if self.member == Some(grant.to) {
                    let now_us = self.local_us(env);
                    self.lease.take(&grant, self.meta.index, now_us, &env.settings);
                    env.trigger(Trigger::Grant, self.index);
                }
            }
            Payload::Delta(first, commands) => self.take_delta(first, &commands, env),
            Payload::Whole(meta) => self.take_whole(*meta, env),
            Payload::HandOver(partition, to) => {
                let p = usize::from(partition.0);
                if p < self.slots.len() {
                    self.step(p, env, |partition, cx| partition.hand_over(to, cx));
                }
            }
            Payload::Request(request) => self.execute(from, request, env),
            Payload::Beat(..) | Payload::Propose(_) | Payload::Reply(..) => {}
        }
    }

    fn receive_data(&mut self, from: Address, message: Message, env: &mut Env) {
        let p = usize::from(message.partition().0);
        if p >= self.slots.len() {
            return;
        }
        if matches!(message, Message::Seal(_)) {
            self.asked_by = from;
        }
        let end = match &message {
            Message::Copy(copy) => match copy.part {
                CopyPart::End { tail, .. } => Some((copy.session, tail)),
                CopyPart::Chunk(_) | CopyPart::Record(_) => None,
            },
            _ => None,
        };
        let before = self.slots[p].partition.tail();
        env.tell(|| format!("node {from} to {}: {message:?}", self.index));
        self.step(p, env, |partition, cx| partition.receive(message, cx));
        let after = self.slots[p].partition.tail();
        if self.slots[p].data.refused() > 0 {
            env.violate(format!("I18: node {} got a key of {p} twice", self.index));
        }
        if let Some((session, tail)) = end
            && after == tail.id
            && before != after
        {
            env.stats.copies += 1;
            let in_sync =
                self.slots[p].partition.config().is_in_sync(self.member.unwrap_or_default());
            env.stats.copies_in_sync += u64::from(in_sync);
            let expected = env.copies.get(&(PartitionId(p as u16), session)).copied();
            if expected != Some(self.slots[p].data.digest()) {
                env.violate(format!("I18: node {} has a wrong copy of {p}", self.index));
            }
        }
    }

    fn take_delta(&mut self, first: u64, commands: &[Command], env: &mut Env) {
        for (i, command) in commands.iter().enumerate() {
            if first + i as u64 == self.meta.index {
                let _no_op = self.meta.apply(command, &env.settings);
                self.after_meta(command.subject().map(|(partition, _)| partition), env);
            }
        }
    }

    fn take_whole(&mut self, meta: MetaState, env: &mut Env) {
        if meta.index > self.meta.index {
            self.meta = meta;
            self.after_meta(None, env);
        }
    }

    /// Acts on what changed; `only` names the partition if it is one.
    fn after_meta(&mut self, only: Option<PartitionId>, env: &mut Env) {
        let entry = self.meta.nodes.get(&id_of(self.index));
        let own = entry.filter(|entry| entry.boot == env.boots[self.index]);
        let newest = own.map(|e| Member { node: id_of(self.index), generation: e.generation });
        match (self.member, newest) {
            (None, Some(member)) => self.member = Some(member),
            (Some(_), None) => {
                // Another start registered after this one: this one is dead by definition.
                self.start(env);
                return;
            }
            _ => {}
        }
        let Some(member) = self.member else { return };
        while self.slots.len() < self.meta.partitions.len() {
            let id = PartitionId(self.slots.len() as u16);
            let partition = Partition::new(id, member);
            let data: Box<dyn Machine> = match &self.server {
                Some(server) => Box::new(StoreCopy::new(server, id.0)),
                None => Box::new(Registers::default()),
            };
            self.slots.push(Slot { partition, data });
        }
        let range = only.map_or(0..self.slots.len(), |p| p.0 as usize..p.0 as usize + 1);
        for p in range {
            let config = self.meta.partitions.get(&PartitionId(p as u16)).cloned();
            if let Some(config) = config {
                self.step(p, env, |partition, cx| partition.configure(&config, cx));
            }
        }
    }

    fn execute(&mut self, from: Address, request: Request, env: &mut Env) {
        let p = (request.ask.key() % u64::from(env.plan.partitions)) as usize;
        let client = from - env.client(0);
        let executed = if p < self.slots.len() { self.execute_in(p, &request, env) } else { None };
        let Some((need, outcome, shows)) = executed else {
            env.send(self.index, from, Payload::Reply(request.call, Outcome::Refused));
            return;
        };
        let by_replica = matches!(need, Need::Leave { .. });
        let reply = Reply { call: request.call, outcome, shows, by_replica };
        self.gates[client].push(need, reply);
        self.flush_soon(env);
    }

    fn execute_in(&mut self, p: usize, request: &Request, env: &mut Env) -> Option<Executed> {
        let partition = PartitionId(p as u16);
        let now_us = self.local_us(env);
        let slot = &self.slots[p];
        let place = slot.data.place(request.ask.key());
        let value = slot.data.get(request.ask.key());
        let Some(term) = slot.partition.serving_term(&env.settings) else {
            let is_read = matches!(request.ask, Ask::Read(_)) && request.at_replica;
            let may = slot.partition.may_read_at_replica(place, now_us, &env.settings);
            let shows = shows(value, env);
            return (is_read && may).then_some((
                Need::Leave { partition },
                Outcome::Value(value),
                shows,
            ));
        };
        let changes: Vec<(u64, u64)> = match request.ask {
            Ask::Write(pairs) => pairs.into_iter().flatten().collect(),
            Ask::Cas(key, from, to) if from == value => vec![(key, to)],
            Ask::Read(_) | Ask::Cas(..) => {
                let need = match slot.partition.read_rule(place, &env.settings) {
                    ReadRule::Now => Need::Lease { partition, term },
                    ReadRule::After(lsn) => Need::CommitAndLease { partition, term, lsn },
                };
                let is_read = matches!(request.ask, Ask::Read(_));
                let outcome = if is_read { Outcome::Value(value) } else { Outcome::Missed(value) };
                return Some((need, outcome, shows(value, env)));
            }
        };
        slot.partition.may_write(&env.settings).ok()?;
        let id = self.write(p, &changes, env);
        let need = Need::of_write(env.plan.durability, partition, term, id.lsn);
        Some((need, Outcome::Done, Some(Shown { partition, id })))
    }

    fn write(&mut self, p: usize, changes: &[(u64, u64)], env: &mut Env) -> RecordId {
        self.slots[p].data.set_time(WALL_MS + env.now_us / 1000);
        let body = self.slots[p].data.write(changes);
        let id = self.append(p, body, env);
        let partition = PartitionId(p as u16);
        for (_, value) in changes {
            env.written.insert(*value, (partition, id));
        }
        self.check_memory(p, env);
        id
    }

    fn append(&mut self, p: usize, body: Vec<u8>, env: &mut Env) -> RecordId {
        let mut id = RecordId::NONE;
        let size = body.len() + RECORD_OVERHEAD_BYTES;
        self.step(p, env, |partition, cx| id = partition.append(Arc::from(body), cx));
        let (behind, _) = self.slots[p].partition.behind(self.local_us(env));
        // One record may begin below the bound and end beyond it.
        if behind > env.settings.uncommitted_bytes_max + size {
            env.violate(format!("I23: {behind} bytes wait to be committed"));
        }
        id
    }

    /// What else a server does while it is primary: commands that no client of the simulation waits for,
    /// and removing what is past its time.
    fn do_other_things(&mut self, p: usize, env: &mut Env) {
        if self.server.is_none() || env.is_quiet {
            return;
        }
        self.slots[p].data.set_time(WALL_MS + env.now_us / 1000);
        let what = env.rng.next_u64() >> 20;
        for is_expiry in [true, false] {
            if self.slots[p].partition.may_write(&env.settings).is_err() {
                return;
            }
            let data = &mut self.slots[p].data;
            let record = if is_expiry { data.expire() } else { data.other_write(what) };
            if let Some(body) = record {
                self.append(p, body, env);
            }
        }
        self.flush_soon(env);
    }

    /// The end of a turn: records go out, the clock is read, and replies leave.
    pub fn flush(&mut self, env: &mut Env) {
        self.is_flushing = false;
        for p in 0..self.slots.len() {
            self.step(p, env, |partition, cx| partition.flush(cx));
        }
        self.release(env);
    }

    fn release(&mut self, env: &mut Env) {
        let (now_us, has_lease) = (self.local_us(env), self.has_lease(env));
        for client in 0..self.gates.len() {
            if self.gates[client].is_empty() {
                continue;
            }
            let mut left = Vec::new();
            let at = Moment { now_us, has_lease, settings: &env.settings };
            let slots = &self.slots;
            let mut judge = |need: &Need| {
                let slot = need.partition().and_then(|p| slots.get(usize::from(p.0)));
                slot.map_or(Verdict::Leave, |slot| slot.partition.judge(need, at))
            };
            let released = self.gates[client].release(&mut judge, &mut |reply| left.push(reply));
            for reply in left {
                self.answer(client, reply, env);
            }
            if released.is_err() {
                let mut dropped = Vec::new();
                let mut all = |_: &Need| Verdict::Leave;
                let _always = self.gates[client].release(&mut all, &mut |r| dropped.push(r));
                for reply in dropped {
                    let closed = Payload::Reply(reply.call, Outcome::Unknown);
                    env.send(self.index, env.client(client), closed);
                }
            }
        }
    }

    fn answer(&mut self, client: usize, reply: Reply, env: &mut Env) {
        env.shown.extend(reply.shows);
        match reply.outcome {
            Outcome::Done => env.stats.writes += 1,
            Outcome::Value(_) | Outcome::Missed(_) => env.stats.reads += 1,
            Outcome::Refused | Outcome::Unknown => {}
        }
        env.stats.replica_reads += u64::from(reply.by_replica);
        env.note(reply.call);
        env.tell(|| format!("node {} answers {client}: {reply:?}", self.index));
        let payload = Payload::Reply(reply.call, reply.outcome);
        env.send(self.index, env.client(client), payload);
    }

    fn check_slot(&self, p: usize, env: &mut Env) {
        let partition = &self.slots[p].partition;
        let is_committed = partition.commit() == partition.tail().lsn;
        if is_committed && partition.dirty_keys() > 0 {
            env.violate(format!("I20: node {} has dirty keys and no open record", self.index));
        }
        self.check_memory(p, env);
    }

    fn check_memory(&self, p: usize, env: &mut Env) {
        let s = &env.settings;
        let peers = env.plan.nodes;
        let slack = 1024 + s.chunk_bytes;
        let bound =
            s.log_bytes_max + s.uncommitted_bytes_max + peers * (2 * s.copy_window_bytes + slack);
        let partition = &self.slots[p].partition;
        let bytes = partition.replication_bytes();
        if bytes > bound {
            env.violate(format!("I23: {bytes} bytes of replication, bound {bound}"));
        }
    }
}

type Executed = (Need, Outcome, Option<Shown>);

fn shows(value: Option<u64>, env: &Env) -> Option<Shown> {
    let (partition, id) = *env.written.get(&value?)?;
    Some(Shown { partition, id })
}
