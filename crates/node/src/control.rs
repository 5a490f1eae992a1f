//! The control thread: what is agreed, as this node knows it; its registration and heartbeats; and, while
//! the node leads the consensus log, the leader's work.

use crate::applier::Call;
use crate::bus::Bus;
use crate::identity::Identity;
use crate::raft::{Log, Origin, RaftEvent};
use crate::voters;
use hypercache_cluster::bus::Frame;
use hypercache_cluster::control::{At, ControlAction, Heartbeat, Leader};
use hypercache_cluster::ids::{Generation, Member, NodeId, PARTITIONS, PartitionId};
use hypercache_cluster::message::{Message, SealAck};
use hypercache_cluster::meta::{Command, MetaState, NodeAddress, NodeState};
use hypercache_cluster::settings::Settings;
use hypercache_stdx::clock::boot_us;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the thread hears of.
#[derive(Debug)]
pub(crate) enum Event {
    Raft(RaftEvent),
    Heartbeat(Heartbeat),
    SealAck(SealAck),
    Propose {
        command: Command,
        origin: Origin,
    },
    /// A joining node learned which cluster it is of.
    Joined(u64),
    /// The node is about to stop: its lease was given back.
    Leave,
    Stop,
}

/// Events that wait; beyond, what other nodes say is dropped, and they say it again.
pub(crate) const EVENTS_MAX: usize = 65_536;

const TICK_US: u64 = 10_000;
const PUBLISH_EVERY_US: u64 = 1_000;
const MEMBERS_US: u64 = 300_000;
/// A voter that was not heard for so long may be replaced.
const VOTER_SILENT_US: u64 = 5_000_000;
/// A proposal that shows no effect is passed on again after this.
const PROPOSE_AGAIN_US: u64 = 300_000;
/// Proposals that are remembered before old ones are forgotten.
const PROPOSED_MAX: usize = 8192;
/// A removed node is told so for this long, then it is forgotten.
const GOODBYE_US: u64 = 2_000_000;
/// Events that are taken before what they changed is told: all that can wait.
const BATCH: usize = EVENTS_MAX;

/// What this node asks for when it forms or joins a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    pub(crate) address: NodeAddress,
    pub(crate) zone: u16,
    pub(crate) copies: u8,
    pub(crate) min_sync: u8,
    pub(crate) replica_reads: bool,
}

/// The newest agreed state, for whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published(Arc<Mutex<Arc<MetaState>>>);

impl Published {
    pub(crate) fn get(&self) -> Arc<MetaState> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, meta: Arc<MetaState>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = meta;
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) me: NodeId,
    pub(crate) boot: u64,
    pub(crate) wishes: Wishes,
    pub(crate) settings: Settings,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) bus: Arc<Bus>,
    pub(crate) log: Log,
    pub(crate) calls: SyncSender<Call>,
    pub(crate) published: Published,
    /// Commands of the metadata that the server knows.
    pub(crate) told: Arc<AtomicU64>,
    pub(crate) state: State,
}

/// What the thread knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    meta: MetaState,
    member: Option<Member>,
    is_expelled: bool,
    is_leaving: bool,
    /// Partitions that changed since the server was told last; each once.
    changed: BTreeSet<PartitionId>,
    /// Something was applied since.
    is_fresh: bool,
    leader: Option<NodeId>,
    /// The term that this node leads in, and its work.
    office: Option<(u64, Leader)>,
    beat_at_us: u64,
    tick_at_us: u64,
    published_us: u64,
    members_at_us: u64,
    /// When this leader passed on what was proposed, by its bytes.
    proposed_us: BTreeMap<Vec<u8>, u64>,
    /// When each removed node was seen to be so.
    removed_us: BTreeMap<NodeId, u64>,
}

impl Control {
    /// The thread.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        loop {
            let until_us = self.state.tick_at_us.min(self.publish_at_us());
            let wait_us = until_us.saturating_sub(boot_us()).max(50);
            match events.recv_timeout(Duration::from_micros(wait_us)) {
                Ok(first) => {
                    if self.on_events(first, events) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if boot_us() >= self.publish_at_us() {
                self.publish();
            }
            if boot_us() >= self.state.tick_at_us {
                self.tick();
            }
        }
    }

    /// Handles what waits, and says whether that is the end. What the log says comes first: a proposal is
    /// judged by the state, and a state that is known late, behind thousands of proposals, lets pass again
    /// and again what is done already.
    fn on_events(&mut self, first: Event, events: &Receiver<Event>) -> bool {
        let waiting = std::iter::once(first).chain(events.try_iter().take(BATCH));
        let is_of_log = |event: &Event| matches!(event, Event::Raft(_));
        let (of_log, others): (Vec<Event>, Vec<Event>) = waiting.partition(is_of_log);
        for event in of_log.into_iter().chain(others) {
            if matches!(event, Event::Stop) {
                return true;
            }
            self.on_event(event);
        }
        false
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Raft(event) => self.on_raft(event),
            Event::Heartbeat(heartbeat) => {
                self.lead(|leader, now_us, at, out| {
                    leader.on_heartbeat(heartbeat, now_us, at, out)
                });
            }
            Event::SealAck(ack) => {
                self.lead(|leader, _, _, _| leader.on_seal_ack(&ack));
                // One look at all partitions for all acks that wait: a lost node makes a thousand.
                self.state.tick_at_us = 0;
            }
            Event::Propose { command, origin } => self.propose(command, origin),
            Event::Joined(cluster) => {
                self.identity.cluster = cluster;
                self.save_identity();
            }
            Event::Leave => {
                self.state.is_leaving = true;
                self.beat(boot_us());
            }
            Event::Stop => {}
        }
    }

    fn on_raft(&mut self, event: RaftEvent) {
        match event {
            RaftEvent::Elected(term) => {
                tracing::info!("this node leads the cluster's log in term {term}");
                self.state.office = Some((term, Leader::new(boot_us(), &self.settings)));
                self.beat(boot_us());
            }
            RaftEvent::Deposed => {
                tracing::info!("this node leads the cluster's log no more");
                self.state.office = None;
            }
            RaftEvent::Confirmed(term, token) => {
                if self.state.office.as_ref().is_some_and(|(of, _)| *of == term) {
                    self.lead(|leader, _, at, out| leader.on_confirmed(token, at, out));
                }
            }
            RaftEvent::Committed(command) => self.apply(&command),
            RaftEvent::Whole(meta) => self.take_whole(*meta),
            RaftEvent::Leads(leader) => {
                self.state.leader = leader;
                self.beat(boot_us());
            }
            RaftEvent::Failed(why) => self.expel(format!("the cluster's log has failed: {why}")),
        }
    }

    fn apply(&mut self, command: &Command) {
        let subject = command.subject().map(|(partition, _)| partition);
        if subject.is_some_and(|partition| self.state.changed.contains(&partition)) {
            // Each configuration is told: who skips one does not know what it was in between.
            self.publish();
        }
        let applied = self.state.meta.apply(command, &self.settings);
        self.state.proposed_us.remove(&command.encode());
        self.state.is_fresh = true;
        if let Err(reason) = applied {
            tracing::debug!("{command:?} changes nothing: {reason:?}");
            return;
        }
        match (subject, command) {
            (Some(partition), _) => drop(self.state.changed.insert(partition)),
            (None, Command::CreatePartitions { .. }) => self.all_changed(),
            (None, _) => self.nodes_changed(),
        }
    }

    fn take_whole(&mut self, meta: MetaState) {
        if meta.index >= self.state.meta.index {
            self.state.meta = meta;
            self.state.is_fresh = true;
            self.all_changed();
            self.nodes_changed();
        }
    }

    fn all_changed(&mut self) {
        self.state.changed = self.state.meta.partitions.keys().copied().collect();
    }

    /// Looks what the metadata says of nodes: where they are, and whether this process still counts.
    fn nodes_changed(&mut self) {
        for (node, entry) in &self.state.meta.nodes {
            if entry.state == NodeState::Removed {
                self.state.removed_us.entry(*node).or_insert_with(boot_us);
            } else {
                self.bus.learn_meta(*node, entry.generation, &entry.address);
            }
        }
        self.save_identity();
        let Some(entry) = self.state.meta.nodes.get(&self.me) else { return };
        let is_mine = entry.boot == self.boot;
        if entry.state == NodeState::Removed {
            self.expel("this node was removed from the cluster".to_owned());
        } else if self.state.member.is_none() && is_mine {
            let member = Member { node: self.me, generation: entry.generation };
            tracing::info!("this process is member {:016x}/{}", self.me.0, member.generation.0);
            self.state.member = Some(member);
            self.tell(Call::Registered(member));
            self.all_changed();
            self.beat(boot_us());
        } else if self.state.member.is_some() && !is_mine {
            self.expel("a later start of this node registered".to_owned());
        }
    }

    fn save_identity(&mut self) {
        let mut identity = self.identity.clone();
        identity.peers = self.bus.addresses();
        if identity.peers != self.identity.peers || self.identity.cluster != self.bus.cluster() {
            identity.cluster = self.bus.cluster();
            if let Err(why) = identity.save(&self.dir) {
                tracing::error!("{why}");
            }
            self.identity = identity;
        }
    }

    fn expel(&mut self, why: String) {
        if !self.state.is_expelled {
            tracing::error!("this process is no part of the cluster any more: {why}");
            self.state.is_expelled = true;
            self.tell(Call::Expelled(why));
        }
    }

    fn tell(&self, call: Call) {
        if self.calls.send(call).is_err() {
            tracing::debug!("the server is told nothing more");
        }
    }

    /// When the next state is to be told: a copy of it takes some 100 us, so that hundreds of commands a
    /// second share one.
    fn publish_at_us(&self) -> u64 {
        if self.state.is_fresh { self.state.published_us + PUBLISH_EVERY_US } else { u64::MAX }
    }

    /// Tells the server and others what changed.
    fn publish(&mut self) {
        if !self.state.is_fresh {
            return;
        }
        self.state.published_us = boot_us();
        let meta = Arc::new(self.state.meta.clone());
        self.published.set(Arc::clone(&meta));
        self.state.is_fresh = false;
        if self.state.member.is_some() && !self.state.is_expelled {
            let changed = std::mem::take(&mut self.state.changed).into_iter().collect();
            self.tell(Call::Metadata(meta, changed));
        }
        // What was taken away is taken at once.
        self.lead(Leader::tick);
    }

    fn tick(&mut self) {
        let now_us = boot_us();
        self.state.tick_at_us = now_us + TICK_US;
        if now_us >= self.state.beat_at_us {
            self.beat(now_us);
        }
        self.lead(Leader::tick);
        for (node, _) in self.state.removed_us.iter().filter(|(_, at)| now_us >= *at + GOODBYE_US) {
            self.bus.forget(*node);
        }
        if self.state.office.is_some() && now_us >= self.state.members_at_us {
            self.state.members_at_us = now_us + MEMBERS_US;
            self.see_to_members(now_us);
        }
    }

    /// Registers, or says that this process runs and asks for its lease.
    fn beat(&mut self, now_us: u64) {
        self.state.beat_at_us = now_us + self.settings.heartbeat_us;
        if self.bus.cluster() == 0 || self.state.is_expelled {
            return;
        }
        let entry = self.state.meta.nodes.get(&self.me);
        let Some(from) = self.state.member else {
            let after = entry.map_or(Generation(0), |entry| entry.generation);
            let Wishes { address, zone, .. } = self.wishes.clone();
            let (node, boot) = (self.me, self.boot);
            self.propose(Command::RegisterNode { node, after, boot, zone, address }, Origin::Here);
            return;
        };
        let is_joining = entry.is_some_and(|entry| entry.state == NodeState::Joining);
        if is_joining {
            self.propose(Command::JoinNode(self.me), Origin::Here);
        }
        let heartbeat = Heartbeat {
            from,
            stamp_us: now_us,
            meta_index: self.told.load(Ordering::Relaxed),
            is_leaving: self.state.is_leaving,
        };
        match self.state.leader {
            Some(leader) if leader == self.me => self.lead(|leader, now_us, at, out| {
                leader.on_heartbeat(heartbeat, now_us, at, out);
            }),
            Some(leader) => self.bus.send(leader, &Frame::Heartbeat(heartbeat)),
            None => {}
        }
    }

    /// Passes a proposal on. Whoever waits for one proposes again and again; while this node leads, what
    /// can take no effect and what is on its way already goes no further.
    fn propose(&mut self, command: Command, origin: Origin) {
        if self.state.office.is_some() {
            let epoch_of = |partition| self.state.meta.partitions.get(&partition).map(|c| c.epoch);
            let is_late = command.subject().is_some_and(|(p, epoch)| epoch_of(p) != Some(epoch));
            let now_us = boot_us();
            let asked = self.state.proposed_us.entry(command.encode()).or_insert(0);
            if is_late || now_us < *asked + PROPOSE_AGAIN_US {
                return;
            }
            *asked = now_us;
            if self.state.proposed_us.len() > PROPOSED_MAX {
                self.state.proposed_us.retain(|_, at| now_us < *at + PROPOSE_AGAIN_US);
            }
        }
        self.log.propose(command, origin);
    }

    /// The leader's work, if this node leads.
    fn lead(&mut self, f: impl FnOnce(&mut Leader, u64, &At<'_>, &mut Vec<ControlAction>)) {
        let Some((term, leader)) = &mut self.state.office else { return };
        let mut actions = Vec::new();
        let at = At { meta: &self.state.meta, settings: &self.settings };
        f(leader, boot_us(), &at, &mut actions);
        let term = *term;
        for action in actions {
            match action {
                ControlAction::Confirm(token) => self.log.confirm(term, token),
                ControlAction::Propose(command) => self.propose(command, Origin::Here),
                ControlAction::Grant(grant) if grant.to.node == self.me => {
                    self.tell(Call::Grant(grant));
                }
                ControlAction::Grant(grant) => {
                    self.bus.send(grant.to.node, &Frame::Grant(grant));
                }
                ControlAction::HandOver { partition, from, to } if from.node == self.me => {
                    self.tell(Call::HandOver(partition, to));
                }
                ControlAction::HandOver { partition, from, to } => {
                    self.bus.send(from.node, &Frame::HandOver { partition, to });
                }
                ControlAction::Seal { to, seal } if to.node == self.me => {
                    self.tell(Call::Seal(seal));
                }
                ControlAction::Seal { to, seal } => {
                    self.bus.send(to.node, &Frame::Message(Message::Seal(seal)));
                }
            }
        }
    }

    /// Makes partitions in a new cluster, and sees to it that there are as many voters as there can be.
    fn see_to_members(&mut self, now_us: u64) {
        let Some((_, leader)) = &self.state.office else { return };
        let meta = &self.state.meta;
        let has_node = meta.nodes.values().any(|entry| entry.state == NodeState::Up);
        if meta.partitions.is_empty() && has_node {
            let Wishes { copies, min_sync, replica_reads, .. } = self.wishes;
            let count = PARTITIONS;
            let make = Command::CreatePartitions { count, copies, min_sync, replica_reads };
            self.log.propose(make, Origin::Here);
        }
        let is_gone = |node: &NodeId| {
            self.state.removed_us.get(node).is_some_and(|at| now_us >= at + GOODBYE_US)
        };
        let all = meta.nodes.keys().filter(|node| !is_gone(node));
        let all: BTreeSet<u64> = all.map(|node| node.0).chain([self.me.0]).collect();
        let voting = self.log.status().voters.into_iter().collect();
        let is_heard = |node: NodeId| {
            let silent_us = meta.member(node).map(|member| leader.silent_us(member, now_us));
            silent_us.is_some_and(|us| us < VOTER_SILENT_US)
        };
        let voters = voters::wanted(meta, self.me, &voting, is_heard);
        self.log.set_members(voters.into_iter().map(|node| node.0).collect(), all);
    }
}
