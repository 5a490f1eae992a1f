//! Connections between nodes: one listener, and for each peer one outgoing connection for data and one for
//! the control plane. Frames go in the direction of who connected.
//!
//! A peer is known by its id. Its address comes from the metadata, from its own greeting (which is newer
//! when it has just started elsewhere), or, for want of both, from what another node remembers.

mod greet;
mod incoming;
mod lane;
#[cfg(test)]
mod tests;

pub(crate) use greet::Met;
pub use lane::LinkStatus;

use crate::secret::Secret;
use greet::Greeting;
use hypercache_cluster::bus::{Frame, Lane};
use hypercache_cluster::ids::{Generation, NodeId};
use hypercache_cluster::message::Message;
use hypercache_cluster::meta::NodeAddress;
use hypercache_stdx::clock;
use lane::Outgoing;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Bytes that wait for one peer: beyond, messages are dropped and sent again by the protocol.
const DATA_BYTES_MAX: usize = 64 << 20;
const CONTROL_BYTES_MAX: usize = 32 << 20;

/// Where frames go that come in, and what happens to links.
pub(crate) trait Sink: Send + Sync + fmt::Debug {
    /// A frame of a node that has shown who it is.
    fn receive(&self, from: NodeId, frame: Frame);
    /// All frames that had come were handed on.
    fn end_of_turn(&self);
    /// A link was made or broke.
    fn link_changed(&self, node: NodeId, lane: Lane, is_up: bool);
}

/// What a bus is made with.
#[derive(Debug)]
pub(crate) struct BusOptions {
    pub(crate) me: NodeId,
    pub(crate) boot: u64,
    pub(crate) cluster: u64,
    pub(crate) address: NodeAddress,
    pub(crate) secret: Secret,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Bus {
    pub(crate) me: NodeId,
    pub(crate) boot: u64,
    address: NodeAddress,
    secret: Secret,
    cluster: AtomicU64,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    sink: Arc<dyn Sink>,
    is_over: AtomicBool,
    received: AtomicU64,
    connections: Mutex<BTreeMap<u64, TcpStream>>,
    admitted: AtomicU64,
    listening: Mutex<Vec<SocketAddr>>,
    removed: Mutex<BTreeSet<NodeId>>,
}

/// Where a peer may be. Which of these is the newest cannot be told, so all are tried, in this order; a
/// greeting says whom it is meant for.
#[derive(Debug, Default)]
struct Place {
    /// What it said of itself when it connected, or where it was met.
    greeted: Option<NodeAddress>,
    /// What the metadata says of this start of it.
    agreed: Option<(Generation, NodeAddress)>,
    /// What others remember.
    hint: Option<NodeAddress>,
}

impl Place {
    fn candidates(&self) -> Vec<NodeAddress> {
        let agreed = self.agreed.as_ref().map(|(_, address)| address);
        let mut all: Vec<NodeAddress> = Vec::new();
        for address in [self.greeted.as_ref(), agreed, self.hint.as_ref()].into_iter().flatten() {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    node: NodeId,
    place: Mutex<Place>,
    /// When something came from it last, in ms of this machine's monotonic clock.
    heard_ms: AtomicU64,
    data: Outgoing,
    control: Outgoing,
}

/// State of the links to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: NodeAddress,
    /// Messages about partitions.
    pub data: LinkStatus,
    /// Everything else.
    pub control: LinkStatus,
    /// When something came from it last, in ms of this machine's monotonic clock; 0 before anything did.
    pub heard_ms: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    fn place(&self) -> MutexGuard<'_, Place> {
        lock(&self.place)
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        self.place().candidates()
    }

    fn address(&self) -> Option<NodeAddress> {
        self.addresses().into_iter().next()
    }

    fn end(&self) {
        self.data.end();
        self.control.end();
    }
}

impl Bus {
    /// A bus that nobody hears yet.
    pub(crate) fn new(options: BusOptions, sink: Arc<dyn Sink>) -> Arc<Bus> {
        Arc::new(Bus {
            me: options.me,
            boot: options.boot,
            address: options.address,
            secret: options.secret,
            cluster: AtomicU64::new(options.cluster),
            peers: RwLock::default(),
            sink,
            is_over: AtomicBool::new(false),
            received: AtomicU64::new(0),
            connections: Mutex::default(),
            admitted: AtomicU64::new(0),
            listening: Mutex::default(),
            removed: Mutex::default(),
        })
    }

    /// Listens. Without a secret only this machine may connect.
    pub(crate) fn listen(self: &Arc<Self>, bind: &[IpAddr], port: u16) -> Result<(), String> {
        for ip in bind {
            let listener = TcpListener::bind((*ip, port)).map_err(|error| {
                format!("cannot listen on {ip}:{port} for other nodes: {error}")
            })?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            lock(&self.listening).push(address);
            let bus = Arc::clone(self);
            self.spawn("bus-listener", move || incoming::listen(&bus, &listener))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        thread.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    /// The node has joined a cluster.
    pub(crate) fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    /// Bytes that came in.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn peers(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&node).cloned()
    }

    /// All peers that are known.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.peers().keys().copied().collect()
    }

    /// Where peers are, and this node.
    fn known(&self) -> Vec<(NodeId, NodeAddress)> {
        let peers = self.peers();
        let others = peers.values().filter_map(|peer| Some((peer.node, peer.address()?)));
        // A list for a stranger is bounded; the metadata tells the rest.
        std::iter::once((self.me, self.address.clone())).chain(others).take(256).collect()
    }

    /// The peers with their addresses.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, NodeAddress> {
        self.known().into_iter().filter(|(node, _)| *node != self.me).collect()
    }

    fn learn(self: &Arc<Self>, node: NodeId, change: impl FnOnce(&mut Place)) {
        let is_none = node == self.me || node.0 == 0 || self.is_removed(node);
        if is_none || self.is_over.load(Ordering::Relaxed) {
            return;
        }
        if let Some(peer) = self.peer(node) {
            return change(&mut peer.place());
        }
        let peer = Arc::new(Peer {
            node,
            place: Mutex::default(),
            heard_ms: AtomicU64::new(0),
            data: Outgoing::new(Lane::Data, DATA_BYTES_MAX),
            control: Outgoing::new(Lane::Control, CONTROL_BYTES_MAX),
        });
        change(&mut peer.place());
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.contains_key(&node) {
            return;
        }
        peers.insert(node, Arc::clone(&peer));
        drop(peers);
        for lane in [Lane::Data, Lane::Control] {
            let (bus, peer) = (Arc::clone(self), Arc::clone(&peer));
            let body = move || match lane {
                Lane::Data => peer.data.run(&bus, &peer),
                _ => peer.control.run(&bus, &peer),
            };
            if let Err(why) = self.spawn("bus-writer", body) {
                tracing::error!("{why}");
            }
        }
    }

    /// What the metadata says of a node's newest start.
    pub(crate) fn learn_meta(
        self: &Arc<Self>,
        node: NodeId,
        generation: Generation,
        at: &NodeAddress,
    ) {
        self.learn(node, |place| {
            if place.agreed.as_ref().is_none_or(|(known, _)| generation > *known) {
                place.agreed = Some((generation, at.clone()));
            }
        });
    }

    /// What a node says of itself.
    pub(crate) fn learn_greeting(self: &Arc<Self>, node: NodeId, at: NodeAddress) {
        self.learn(node, |place| place.greeted = Some(at));
    }

    /// What others say.
    pub(crate) fn learn_hint(self: &Arc<Self>, node: NodeId, at: NodeAddress) {
        self.learn(node, |place| place.hint = Some(at));
    }

    /// Whether the node is gone for good.
    fn is_removed(&self, node: NodeId) -> bool {
        lock(&self.removed).contains(&node)
    }

    /// The node is gone for good: it is sent nothing more, and refused if it comes.
    pub(crate) fn forget(&self, node: NodeId) {
        lock(&self.removed).insert(node);
        let peer = self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
        peer.into_iter().for_each(|peer| peer.end());
    }

    /// Looks who is at an address.
    pub(crate) fn probe(&self, host: &str, port: u16) -> Result<Met, String> {
        let greeting = Greeting { bus: self, lane: Lane::Probe, to: NodeId(0) };
        greet::connect(&greeting, host, port).map(|(_, met)| met)
    }

    /// Sends a message about a partition at the next flush.
    pub(crate) fn send_data(&self, to: NodeId, message: &Message) {
        if let Some(peer) = self.peers().get(&to) {
            peer.data.push_message(message);
        }
    }

    /// What was sent may leave.
    pub(crate) fn flush(&self) {
        self.peers().values().for_each(|peer| peer.data.flush_if_dirty());
    }

    /// Sends something of the control plane at once.
    pub(crate) fn send(&self, to: NodeId, frame: &Frame) {
        if let Some(peer) = self.peers().get(&to) {
            peer.control.push_now(frame);
        }
    }

    /// Whether the control plane of a peer is connected.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.peers().get(&node).is_some_and(|peer| peer.control.is_up())
    }

    /// Something came from a peer.
    fn heard(&self, node: NodeId) {
        if let Some(peer) = self.peers().get(&node) {
            peer.heard_ms.store(clock::mono_ms(), Ordering::Relaxed);
        }
    }

    /// State of all links.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let peers = self.peers();
        let status = |peer: &Arc<Peer>| PeerStatus {
            node: peer.node,
            address: peer.address().unwrap_or_default(),
            data: peer.data.status(),
            control: peer.control.status(),
            heard_ms: peer.heard_ms.load(Ordering::Relaxed),
        };
        peers.values().map(status).collect()
    }

    /// A connection came in; its number, or `None` when there are too many.
    fn admit(&self, stream: &TcpStream, max: usize) -> Option<u64> {
        let mut connections = lock(&self.connections);
        if connections.len() >= max || self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.admitted.fetch_add(1, Ordering::Relaxed);
        connections.insert(number, stream.try_clone().ok()?);
        Some(number)
    }

    fn dismiss(&self, number: u64) {
        lock(&self.connections).remove(&number);
    }

    /// Ends all connections and threads.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.peers().values().for_each(|peer| peer.end());
        for stream in lock(&self.connections).values() {
            let _it_may_be_closed = stream.shutdown(Shutdown::Both);
        }
        for address in lock(&self.listening).drain(..) {
            // Whoever accepts looks up.
            let _it_may_be_gone = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        }
    }
}
