//! A node of a cluster: what drives the state machines of `hypercache-cluster` with sockets, threads, a
//! clock and a real consensus log.
//!
//! ```text
//! server (Host) <--- applier, ticker, readers --- [ this crate ] --- other nodes
//!      |                                            ^
//!      +--- Outside: send, flush, propose, sealed --+
//! ```
//! - [`raft`]: the consensus log, on a thread of its own; [`disk`] is what it writes to.
//! - [`bus`]: connections between nodes; never waits for one.
//! - [`control`]: what is agreed, registration, heartbeats, and the leader's work.
//! - [`applier`]: tells the server, in order.
//!
//! A node without a directory of its own forms a cluster of itself, or joins one by the address of any of
//! its nodes. It is known by an id that it drew once; a restart with its directory finds the others again
//! wherever they are now. Design: `docs/design/004-cluster-core.md`.
#![forbid(unsafe_code)]

mod applier;
mod bus;
mod control;
mod disk;
mod identity;
mod join;
mod raft;
mod router;
mod secret;
mod voters;

pub use bus::{LinkStatus, PeerStatus};
pub use join::BUS_PORT_OFFSET;
pub use raft::LogStatus;

use applier::{Applier, CALLS_MAX, Call, Phase};
use bus::{Bus, BusOptions, Sink};
use control::{Control, EVENTS_MAX, Event, Published, State, Wishes};
use disk::Disk;
use hypercache_cluster::host::{Host, Outside};
use hypercache_cluster::ids::NodeId;
use hypercache_cluster::lease::HeldLease;
use hypercache_cluster::meta::{Command, MetaState, NodeAddress};
use hypercache_cluster::settings::Settings;
use hypercache_stdx::clock::mono_ms;
use hypercache_stdx::rng::entropy;
use identity::{Identity, LockedDir};
use join::Seed;
use raft::{EventsFn, Log, LogOptions};
use router::{Face, Router};
use secret::Secret;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own directory; made if it is not there, and locked while the node runs.
    pub dir: PathBuf,
    /// Where it listens for other nodes. Without a secret only addresses of this machine.
    pub bind: Vec<IpAddr>,
    /// The port that it listens on.
    pub bus_port: u16,
    /// Where clients and other nodes are told to reach it.
    pub address: NodeAddress,
    /// Nodes of the cluster to join: `HOST:PORT` of their clients, or `HOST:PORT@BUSPORT`.
    pub join: Vec<String>,
    /// What all nodes of the cluster know and nobody else.
    pub secret: Option<String>,
    /// Copies of each partition, in a cluster that this node forms.
    pub copies: u8,
    /// Copies in sync without which nothing is committed, in a cluster that this node forms.
    pub min_sync: u8,
    /// Whether replicas may answer reads, in a cluster that this node forms.
    pub replica_reads: bool,
    /// Copies are spread over zones.
    pub zone: u16,
    /// Times and bounds.
    pub settings: Settings,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub me: NodeId,
    /// Its cluster; 0 before it joined one.
    pub cluster: u64,
    /// The consensus log.
    pub log: LogStatus,
    /// Commands of the metadata that it knows.
    pub meta_index: u64,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Bytes that other nodes sent.
    pub received: u64,
}

/// A node that runs. Dropping it ends it as a crash would; [`Node::stop`] says goodbye first.
#[derive(Debug)]
pub struct Node {
    face: Arc<Face>,
    events: SyncSender<Event>,
    calls: SyncSender<Call>,
    is_over: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How often the server is given its turn.
const TICK: Duration = Duration::from_millis(5);
/// A process that ends may hold the directory for a moment.
const LOCK_WAIT_MS: u64 = 2000;
/// What a goodbye may take: passing on the office, and telling the leader.
const GOODBYE_MS: u64 = 600;

/// Starts a node. Returns when it listens; its generation comes later, by [`Host::registered`].
///
/// # Errors
/// When the directory, the addresses or the options cannot be used.
pub fn start(options: Options, host: Arc<dyn Host>) -> Result<Node, String> {
    check(&options)?;
    let seeds = options.join.iter().map(|text| Seed::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let lock = lock_dir(&options.dir)?;
    let identity = identify(&options.dir, !seeds.is_empty())?;
    let disk = Disk::open(&options.dir, lock)?;
    let boot = entropy() | 1;
    let (events, to_control) = sync_channel(EVENTS_MAX);
    let (calls, to_host) = sync_channel(CALLS_MAX);
    let router = Arc::new(Router {
        host: Arc::clone(&host),
        events: events.clone(),
        calls: calls.clone(),
        phase: Arc::new(Phase::default()),
        asked_by: Arc::new(AtomicU64::new(identity.node.0)),
        bus: OnceLock::new(),
        log: OnceLock::new(),
    });
    let bus = Bus::new(
        BusOptions {
            me: identity.node,
            boot,
            cluster: identity.cluster,
            address: options.address.clone(),
            secret: Secret::new(options.secret.as_deref()),
        },
        Arc::clone(&router) as Arc<dyn Sink>,
    );
    let _set_once = router.bus.set(Arc::clone(&bus));
    bus.listen(&options.bind, options.bus_port)?;
    let log = Log::start(LogOptions {
        bus: Arc::clone(&bus),
        disk,
        settings: options.settings.clone(),
        is_founder: identity.is_founder,
        events: raft_events(&events),
    })?;
    let _set_once = router.log.set(log.clone());
    for (node, at) in &identity.peers {
        bus.learn_hint(*node, at.clone());
    }
    let published = Published::default();
    let face = Face { router, bus, log, published };
    let node = Node {
        face: Arc::new(face),
        events,
        calls,
        is_over: Arc::default(),
        threads: Mutex::default(),
    };
    node.start_threads(options, identity, seeds, (to_control, to_host))?;
    Ok(node)
}

fn check(options: &Options) -> Result<(), String> {
    let is_open = options.bind.iter().any(|ip| !ip.is_loopback());
    if options.bind.is_empty() {
        return Err("a node of a cluster needs an address to listen on".to_owned());
    }
    if is_open && options.secret.as_deref().unwrap_or_default().is_empty() {
        return Err(
            "other machines could pose as nodes of the cluster: set cluster-secret to the same \
                    value on all nodes, or bind to addresses of this machine only"
                .to_owned(),
        );
    }
    let host = &options.address.host;
    if host.is_empty() || host.contains(char::is_whitespace) || host.len() > 253 {
        return Err("say where other nodes reach this one: cluster-announce-ip".to_owned());
    }
    Ok(())
}

fn lock_dir(dir: &Path) -> Result<LockedDir, String> {
    let until_ms = mono_ms() + LOCK_WAIT_MS;
    loop {
        match LockedDir::open(dir) {
            Err(_) if mono_ms() < until_ms => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

fn identify(dir: &Path, joins: bool) -> Result<Identity, String> {
    if let Some(identity) = Identity::load(dir)? {
        check_log(&identity, dir)?;
        if identity.cluster == 0 && !joins {
            return Err(format!(
                "the node of {} was to join a cluster and never did: say which with join, or remove \
                 the directory",
                dir.display()
            ));
        }
        return Ok(identity);
    }
    let identity = Identity::new(joins);
    identity.save(dir)?;
    Ok(identity)
}

/// A node that voted once must not come back without knowing how: it could vote twice in one term.
fn check_log(identity: &Identity, dir: &Path) -> Result<(), String> {
    let never_ran = identity.cluster == 0 || (identity.is_founder && identity.peers.is_empty());
    if never_ran || Disk::is_in(dir) {
        return Ok(());
    }
    Err(format!(
        "the log of the cluster is missing in {}: remove the directory to join as a new node",
        dir.display()
    ))
}

fn raft_events(events: &SyncSender<Event>) -> raft::Events {
    let events = events.clone();
    let tell = move |event| {
        if events.send(Event::Raft(event)).is_err() {
            tracing::debug!("the control thread has ended");
        }
    };
    Arc::new(EventsFn(Box::new(tell)))
}

type Inboxes = (std::sync::mpsc::Receiver<Event>, std::sync::mpsc::Receiver<Call>);

impl Node {
    fn start_threads(
        &self,
        options: Options,
        identity: Identity,
        seeds: Vec<Seed>,
        (to_control, to_host): Inboxes,
    ) -> Result<(), String> {
        let Face { router, bus, log, published } = &*self.face;
        let told = Arc::new(AtomicU64::new(0));
        let applier = Applier {
            host: Arc::clone(&router.host),
            bus: Arc::clone(bus),
            settings: options.settings.clone(),
            phase: Arc::clone(&router.phase),
            asked_by: Arc::clone(&router.asked_by),
            member: None,
            lease: HeldLease::default(),
            applied: 0,
            told: Arc::clone(&told),
            early: VecDeque::new(),
        };
        let control = Control {
            me: bus.me,
            boot: bus.boot,
            wishes: Wishes {
                address: options.address,
                zone: options.zone,
                copies: options.copies,
                min_sync: options.min_sync,
                replica_reads: options.replica_reads,
            },
            settings: options.settings,
            dir: options.dir,
            identity,
            bus: Arc::clone(bus),
            log: log.clone(),
            calls: self.calls.clone(),
            published: published.clone(),
            told,
            state: State::default(),
        };
        self.spawn("applier", move || applier.run(&to_host))?;
        self.spawn("control", move || control.run(&to_control))?;
        let (router, bus, is_over) =
            (Arc::clone(router), Arc::clone(bus), Arc::clone(&self.is_over));
        self.spawn("ticker", move || tick(&router, &bus, &is_over))?;
        if !seeds.is_empty() {
            let (bus, events) = (Arc::clone(&self.face.bus), self.events.clone());
            let is_over = Arc::clone(&self.is_over);
            self.spawn("join", move || join::find(&bus, &seeds, &events, &is_over))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// What the server sends by.
    #[must_use]
    pub fn outside(&self) -> Arc<dyn Outside> {
        Arc::clone(&self.face) as Arc<dyn Outside>
    }

    /// Who this node is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.face.bus.me
    }

    /// Its cluster; 0 before it joined one.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.face.bus.cluster()
    }

    /// The newest agreed state that it knows.
    #[must_use]
    pub fn meta(&self) -> Arc<MetaState> {
        self.face.published.get()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let Face { bus, log, published, .. } = &*self.face;
        Status {
            me: bus.me,
            cluster: bus.cluster(),
            log: log.status(),
            meta_index: published.get().index,
            peers: bus.status(),
            received: bus.received(),
        }
    }

    /// Asks for a command of the metadata log, on behalf of an operator. Not answered: [`Node::meta`] shows
    /// what came of it.
    pub fn propose(&self, command: Command) {
        self.outside().propose(command);
    }

    /// Says goodbye, so that others take over at once, and ends.
    pub fn stop(&self) {
        let until_ms = mono_ms() + GOODBYE_MS;
        let log = &self.face.log;
        let others_vote = log.status().voters.iter().any(|node| *node != self.me());
        while others_vote && log.status().leader == Some(self.me()) && mono_ms() < until_ms {
            log.give_up_office();
            std::thread::sleep(Duration::from_millis(50));
        }
        let (told, is_told) = sync_channel(1);
        let _it_may_have_ended = self.calls.try_send(Call::Release(told));
        if is_told.recv_timeout(Duration::from_millis(GOODBYE_MS)).is_ok() {
            let _it_may_have_ended = self.events.try_send(Event::Leave);
            std::thread::sleep(Duration::from_millis(30));
        }
        self.end();
    }

    fn end(&self) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let Face { router, bus, log, .. } = &*self.face;
        router.phase.end();
        bus.end();
        let _it_may_have_ended = self.events.try_send(Event::Stop);
        log.stop();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        drop(threads);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn tick(router: &Router, bus: &Bus, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if router.phase.runs() {
            router.host.tick();
            bus.flush();
        }
        std::thread::sleep(TICK);
    }
}
