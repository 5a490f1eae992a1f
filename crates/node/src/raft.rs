//! The consensus log: the only module that names openraft.
//!
//! To the rest it is what `hypercache_cluster::meta::MetaLog` describes: commands are proposed without an
//! answer, and events come in order. It runs on a thread of its own with a runtime of one thread; nothing
//! of it is on the way of a request. A node that holds no vote is a learner and hears every command too.
//!
//! **Elected** is told when a quorum has confirmed the office and everything committed before was told.
//! **Confirmed** is a read index: a round of heartbeats that began after the question. Questions that come
//! while one is asked are answered together by the next.

mod net;
mod store;
mod wire;

use crate::bus::Bus;
use crate::disk::{Disk, Writer};
use hypercache_cluster::bus::{Frame, RaftCall};
use hypercache_cluster::ids::NodeId;
use hypercache_cluster::meta::{Command, MetaState};
use hypercache_cluster::settings::Settings;
use net::{Calls, Links};
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias;
use openraft::{ChangeMembers, Config, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{LogStore, Machine, SnapshotData};
use tokio::sync::mpsc;

openraft::declare_raft_types!(
    /// What consensus is about.
    pub(crate) Types:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = (),
);

type LogId = alias::LogIdOf<Types>;
type Vote = alias::VoteOf<Types>;
type Entry = alias::EntryOf<Types>;
type Membership = openraft::Membership<u64, ()>;
type StoredMembership = alias::StoredMembershipOf<Types>;
type SnapshotMeta = alias::SnapshotMetaOf<Types>;
type Snapshot = alias::SnapshotOf<Types, SnapshotData>;
type RaftNode = openraft::Raft<Types, Machine>;

/// A command as an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RaftEvent {
    /// This node leads in this term, and everything that was committed before has been told.
    Elected(u64),
    /// It leads no more.
    Deposed,
    /// A quorum agreed, after the question was asked, that it leads in this term.
    Confirmed(u64, u64),
    /// The next command is committed.
    Committed(Command),
    /// The state as a whole, in place of commands that this node was not told of.
    Whole(Box<MetaState>),
    /// Who leads now, as far as is known here.
    Leads(Option<NodeId>),
    /// The log can go on no more on this node.
    Failed(String),
}

/// Where events go. Called from the log's thread; it must not wait for that thread.
pub(crate) type Events = Arc<EventsFn>;

/// See [`Events`].
pub(crate) struct EventsFn(pub(crate) Box<dyn Fn(RaftEvent) + Send + Sync>);

impl fmt::Debug for EventsFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventsFn")
    }
}

impl std::ops::Deref for EventsFn {
    type Target = dyn Fn(RaftEvent) + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// How the log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// The newest entry here.
    pub last: u64,
    /// The newest entry that is applied here.
    pub applied: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only listens.
    pub learners: Vec<NodeId>,
}

/// Who proposes: a proposal goes from its node to one other and from there to who leads, no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This node.
    Here,
    /// The node that it came from.
    Node,
    /// A node that passed it on.
    Passed,
}

/// What is asked of the log's thread.
#[derive(Debug)]
enum Ask {
    Propose(Command, Origin),
    Confirm { term: u64, token: u64 },
    Call(NodeId, RaftCall),
    Reply(NodeId, RaftCall),
    Members { voters: BTreeSet<u64>, all: BTreeSet<u64> },
    GiveUp,
    Stop,
}

/// Questions that wait for the log's thread; what is beyond is dropped, and asked again by whoever cares.
const ASKS_MAX: usize = 16_384;

/// A voter stands for election 300 to 400 ms after it last heard of a leader: the longest election timeout,
/// and then a drawn one. Leases of nodes (500 ms) are to outlive the change of a leader.
const HEARTBEAT_MS: u64 = 50;
const ELECTION_MIN_MS: u64 = 100;
const ELECTION_MAX_MS: u64 = 200;
/// Entries between snapshots, and entries kept beside one for those who lag.
const SNAPSHOT_EVERY: u64 = 4096;
const KEPT_ENTRIES: u64 = 1024;
/// A node that lags by more entries is not given a vote yet.
const LAG_MAX: u64 = 256;
const WATCH_PAUSE: Duration = Duration::from_millis(5);
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(300);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The log as other threads see it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    asks: mpsc::Sender<Ask>,
    status: Arc<Mutex<LogStatus>>,
}

/// What the log is started with.
#[derive(Debug)]
pub(crate) struct LogOptions {
    pub(crate) bus: Arc<Bus>,
    pub(crate) disk: Disk,
    pub(crate) settings: Settings,
    /// Whether an empty log begins with this node alone.
    pub(crate) is_founder: bool,
    pub(crate) events: Events,
}

impl Log {
    /// Starts the thread.
    pub(crate) fn start(options: LogOptions) -> Result<Log, String> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let status = Arc::new(Mutex::new(LogStatus::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| format!("cannot start the log of the cluster: {error}"))?;
        let log = Log { asks, status: Arc::clone(&status) };
        let events = Arc::clone(&options.events);
        let body = move || {
            if let Err(why) = runtime.block_on(run(options, asked, status)) {
                events(RaftEvent::Failed(why));
            }
        };
        let thread = std::thread::Builder::new().name("raft".to_owned()).spawn(body);
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(log)
    }

    fn ask(&self, ask: Ask) {
        if self.asks.try_send(ask).is_err() {
            tracing::debug!("the log of the cluster is busy or has ended: a question is dropped");
        }
    }

    /// Asks for a command to be appended, here or by who leads. It may be lost without a word.
    pub(crate) fn propose(&self, command: Command, origin: Origin) {
        self.ask(Ask::Propose(command, origin));
    }

    /// Asks a quorum whether this node still leads in this term.
    pub(crate) fn confirm(&self, term: u64, token: u64) {
        self.ask(Ask::Confirm { term, token });
    }

    /// A call of another node.
    pub(crate) fn on_call(&self, from: NodeId, call: RaftCall) {
        self.ask(Ask::Call(from, call));
    }

    /// The answer to a call of this node.
    pub(crate) fn on_reply(&self, from: NodeId, reply: RaftCall) {
        self.ask(Ask::Reply(from, reply));
    }

    /// Who should vote, and who should hear of everything. One step towards it is taken.
    pub(crate) fn set_members(&self, voters: BTreeSet<u64>, all: BTreeSet<u64>) {
        self.ask(Ask::Members { voters, all });
    }

    /// Passes the office on, if this node has it and another voter can take it.
    pub(crate) fn give_up_office(&self) {
        self.ask(Ask::GiveUp);
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.ask(Ask::Stop);
    }

    /// How the log stands.
    pub(crate) fn status(&self) -> LogStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn config() -> Result<Arc<Config>, String> {
    let config = Config {
        cluster_name: "hypercache".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

async fn run(
    options: LogOptions,
    mut asked: mpsc::Receiver<Ask>,
    status: Arc<Mutex<LogStatus>>,
) -> Result<(), String> {
    let LogOptions { bus, disk, settings, is_founder, events } = options;
    let (image, snapshot) = (disk.image().clone(), disk.snapshot());
    let writer = Writer::start(disk)?;
    let text = |error: std::io::Error| error.to_string();
    let logs = LogStore::new(&image, writer.clone()).map_err(text)?;
    let machine =
        Machine::new(snapshot.as_deref(), settings, writer, Arc::clone(&events)).map_err(text)?;
    let calls = Calls::new(Arc::clone(&bus));
    let links = Links(Arc::clone(&calls));
    let raft = RaftNode::new(bus.me.0, config()?, links, logs, machine)
        .await
        .map_err(|error| error.to_string())?;
    if is_founder && !raft.is_initialized().await.map_err(|error| error.to_string())? {
        let alone = BTreeSet::from([bus.me.0]);
        raft.initialize(alone).await.map_err(|error| error.to_string())?;
    }
    tokio::spawn(watch(raft.clone(), status, Arc::clone(&events)));
    tokio::spawn(announce(raft.clone(), Arc::clone(&events)));
    let (confirms, to_confirm) = mpsc::channel(ASKS_MAX);
    tokio::spawn(confirm_all(raft.clone(), to_confirm, events));
    let is_changing = Arc::new(AtomicBool::new(false));
    while let Some(ask) = asked.recv().await {
        match ask {
            Ask::Propose(command, origin) => propose(&raft, &bus, command, origin).await,
            Ask::Confirm { term, token } => drop(confirms.try_send((term, token))),
            Ask::Call(from, call) => {
                tokio::spawn(net::answer(raft.clone(), Arc::clone(&bus), from, call));
            }
            Ask::Reply(from, reply) => calls.on_reply(from, reply),
            Ask::Members { voters, all } => {
                if !is_changing.swap(true, Ordering::Relaxed) {
                    let (raft, is_changing) = (raft.clone(), Arc::clone(&is_changing));
                    tokio::spawn(async move {
                        let step = change_members(&raft, voters, all);
                        if tokio::time::timeout(CHANGE_TIMEOUT, step).await.is_err() {
                            tracing::warn!("a change of the cluster's voters takes long");
                        }
                        is_changing.store(false, Ordering::Relaxed);
                    });
                }
            }
            Ask::GiveUp => give_up_office(&raft, &bus).await,
            Ask::Stop => break,
        }
    }
    let stopped = tokio::time::timeout(Duration::from_secs(1), raft.shutdown()).await;
    if !matches!(stopped, Ok(Ok(()))) {
        tracing::warn!("the log of the cluster did not stop in time");
    }
    Ok(())
}

type Metrics = RaftMetrics<Types>;

fn term_led(metrics: &Metrics) -> Option<u64> {
    (metrics.state == ServerState::Leader).then_some(metrics.current_term)
}

/// Keeps the status up to date, and tells when another leads or the log fails.
async fn watch(raft: RaftNode, status: Arc<Mutex<LogStatus>>, events: Events) {
    let mut metrics = raft.metrics();
    let mut leader = None;
    loop {
        let now = metrics.borrow_watched().clone();
        let membership = now.membership_config.membership();
        let fresh = LogStatus {
            leader: now.current_leader.map(NodeId),
            term: now.current_term,
            last: now.last_log_index.unwrap_or(0),
            applied: now.last_applied.map_or(0, |id| id.index),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
        };
        if fresh.leader != leader {
            leader = fresh.leader;
            events(RaftEvent::Leads(leader));
        }
        *status.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        if let Err(error) = now.running_state {
            events(RaftEvent::Failed(error.to_string()));
            return;
        }
        // A copy of all metrics for each answer of each voter would cost more than the answers.
        tokio::time::sleep(WATCH_PAUSE).await;
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Tells when this node takes office and when it has lost it.
async fn announce(raft: RaftNode, events: Events) {
    let mut metrics = raft.metrics();
    let mut told = None;
    loop {
        let led = term_led(&metrics.borrow_watched());
        if told.is_some() && told != led {
            told = None;
            events(RaftEvent::Deposed);
        }
        if let (None, Some(term)) = (told, led) {
            // Everything committed before is applied when a read index of this term is.
            let is_sure = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok();
            if is_sure && term_led(&metrics.borrow_watched()) == led {
                told = led;
                events(RaftEvent::Elected(term));
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Answers questions whether this node still leads: all that wait by one round.
async fn confirm_all(raft: RaftNode, mut asked: mpsc::Receiver<(u64, u64)>, events: Events) {
    while let Some(mut newest) = asked.recv().await {
        while let Ok(later) = asked.try_recv() {
            newest = newest.max(later);
        }
        let (term, token) = newest;
        let round = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let is_sure = matches!(tokio::time::timeout(CONFIRM_TIMEOUT, round).await, Ok(Ok(_)));
        if is_sure && term_led(&raft.metrics().borrow_watched()) == Some(term) {
            events(RaftEvent::Confirmed(term, token));
        }
    }
}

async fn propose(raft: &RaftNode, bus: &Bus, command: Command, origin: Origin) {
    let metrics = raft.metrics();
    let now = metrics.borrow_watched().clone();
    if term_led(&now).is_some() {
        if let Err(error) = raft.client_write_ff(Proposal(command), None).await {
            tracing::debug!("a proposal is lost: {error}");
        }
        return;
    }
    let leader = now.current_leader.map(NodeId).filter(|leader| *leader != bus.me);
    // A node that was told nothing yet asks all that it knows of; they pass it on once.
    let knows_nobody = now.membership_config.voter_ids().next().is_none();
    match (origin, leader) {
        (Origin::Passed, _) => {}
        (Origin::Here | Origin::Node, Some(leader)) => {
            bus.send(leader, &Frame::Propose { command, is_forwarded: true });
        }
        (Origin::Here, None) if knows_nobody => {
            let frame = Frame::Propose { command, is_forwarded: false };
            bus.nodes().into_iter().for_each(|node| bus.send(node, &frame));
        }
        (Origin::Here | Origin::Node, None) => {}
    }
}

/// One step from the members that are towards those that should be.
async fn change_members(raft: &RaftNode, voters: BTreeSet<u64>, all: BTreeSet<u64>) {
    let metrics = raft.metrics().borrow_watched().clone();
    if term_led(&metrics).is_none() {
        return;
    }
    let membership = metrics.membership_config.membership();
    let is_joint = membership.get_joint_config().len() > 1;
    let here: BTreeSet<u64> = membership.nodes().map(|(node, ())| *node).collect();
    let voting: BTreeSet<u64> = membership.voter_ids().collect();
    if let Some(node) = all.difference(&here).next() {
        tracing::info!("node {node:016x} is told of the cluster's log");
        tell(raft.add_learner(*node, (), false).await.map(drop));
        return;
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let follows = |node: &u64| {
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(node));
        let matched = matched.and_then(|id| id.as_ref()).map_or(0, |id| id.index);
        voting.contains(node) || *node == metrics.id || matched + LAG_MAX >= last
    };
    if (voters != voting || is_joint) && !voters.is_empty() && voters.iter().all(follows) {
        tracing::info!("voters of the cluster's log: {:016x?}, they were {voting:016x?}", voters);
        let change = ChangeMembers::ReplaceAllVoters(voters);
        tell(raft.change_membership(change, true).await.map(drop));
        return;
    }
    let gone: BTreeSet<u64> =
        here.difference(&all).filter(|n| !voting.contains(n)).copied().collect();
    if !gone.is_empty() {
        tell(raft.change_membership(ChangeMembers::RemoveNodes(gone), true).await.map(drop));
    }
}

fn tell(changed: Result<(), impl fmt::Display>) {
    if let Err(error) = changed {
        tracing::debug!("the cluster's voters are not changed: {error}");
    }
}

/// Lets the voter that has most take the office.
async fn give_up_office(raft: &RaftNode, bus: &Bus) {
    let metrics = raft.metrics().borrow_watched().clone();
    let Some(replication) = metrics.replication.filter(|_| metrics.state == ServerState::Leader)
    else {
        return;
    };
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let best = replication
        .iter()
        .filter(|(node, _)| {
            voters.contains(node) && **node != metrics.id && bus.is_up(NodeId(**node))
        })
        .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index));
    if let Some((node, _)) = best {
        tell(raft.trigger().transfer_leader(*node).await);
    }
}
