//! What this node knows of its cluster, and the rule that a command's keys share a slot.
//!
//! What the cluster has agreed on comes from the metadata log ([`Cluster::publish`]); a node without one is
//! a cluster of itself with all slots: cluster clients work, and applications written for a cluster meet
//! its rules.

pub mod durability;
pub mod face;
pub(crate) mod health;
pub mod host;
pub mod plane;
pub mod serving;
#[cfg(test)]
pub(crate) mod testing;
pub mod wait;

use crate::client::{Address, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::session::Session;
use crate::shared::Shared;
use crate::table::Entry;
use face::Face;
use hypercache_cluster::host::{Outside, Seen};
use hypercache_cluster::ids::{Epoch, Generation, Member, NodeId, PARTITIONS, PartitionId};
use hypercache_cluster::meta::{
    Command, MetaState, NodeAddress, NodeEntry, NodeState, PartitionConfig,
};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_protocol::slot::slot_of;
use hypercache_stdx::rng;
use parking_lot::RwLock;
use plane::Plane;
use std::sync::{Arc, OnceLock};

/// See the module's text.
#[derive(Debug)]
pub struct Cluster {
    is_enabled: bool,
    view: RwLock<Arc<View>>,
    outside: OnceLock<Arc<dyn Outside>>,
    plane: OnceLock<Arc<Plane>>,
}

/// What the cluster has agreed on, as of some time, and which member of it this process is.
#[derive(Clone, Debug)]
pub struct View {
    /// This process.
    pub me: Member,
    /// The agreed state.
    pub meta: Arc<MetaState>,
    /// There is no other node and no log: the state was made up from this node alone.
    pub is_alone: bool,
}

impl Cluster {
    /// A node that is alone; whether clients see a cluster does not change while it runs.
    #[must_use]
    pub fn new(is_enabled: bool) -> Self {
        let view = RwLock::new(Arc::new(View::alone(is_enabled)));
        Cluster { is_enabled, view, outside: OnceLock::new(), plane: OnceLock::new() }
    }

    /// Whether clients see a cluster.
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// What HELLO and INFO call it.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        if self.is_enabled { "cluster" } else { "standalone" }
    }

    /// Has clients be told of a new state.
    pub fn publish(&self, me: Member, meta: &Arc<MetaState>) {
        *self.view.write() = Arc::new(View { me, meta: Arc::clone(meta), is_alone: false });
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Connects commands with the runtime of the node, once.
    pub fn attach(&self, outside: Arc<dyn Outside>) {
        // A second one would be of the same process, which has one runtime.
        let _kept = self.outside.set(outside);
    }

    /// The runtime of the node, unless it is alone.
    #[must_use]
    pub fn outside(&self) -> Option<&Arc<dyn Outside>> {
        self.outside.get()
    }

    /// What partitions, workers and the runtime share, unless the node is alone.
    #[inline]
    #[must_use]
    pub fn plane(&self) -> Option<&Arc<Plane>> {
        self.plane.get()
    }

    /// From now on the cluster decides who serves which partition, and this node has none yet. Before the
    /// workers begin.
    pub fn begin(&self, shared: &Shared, plane: &Arc<Plane>) {
        for number in 0..PARTITIONS {
            shared.keyspace.lock(number).set_foreign(true);
        }
        plane.set_rules(durability::rules(&shared.config));
        let is_first = self.plane.set(Arc::clone(plane)).is_ok();
        assert!(is_first, "a node begins once");
    }

    /// What is seen of the other nodes.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.outside().map(|outside| outside.seen()).unwrap_or_default()
    }
}

impl View {
    /// A cluster of one node, with a new identity.
    fn alone(is_enabled: bool) -> View {
        let me = Member { node: NodeId(rng::entropy()), generation: Generation(1) };
        let entry = NodeEntry {
            generation: me.generation,
            boot: 0,
            state: NodeState::Up,
            zone: 0,
            address: NodeAddress::default(),
        };
        let config = PartitionConfig {
            epoch: Epoch(1),
            primary: me,
            isr: vec![me],
            copies: 1,
            min_sync: 1,
            ..PartitionConfig::default()
        };
        let mut meta = MetaState::default();
        if is_enabled {
            meta.nodes.insert(me.node, entry);
            let all = (0..PARTITIONS).map(|number| (PartitionId(number), config.clone()));
            meta.partitions.extend(all);
        }
        View { me, meta: Arc::new(meta), is_alone: true }
    }
}

/// Where clients reach a node that is alone: what is announced, or else the end of this very connection.
fn own_address(cx: &Cx<'_>) -> NodeAddress {
    let config = &cx.shared.config;
    let local = match cx.session.client.local() {
        Address::Ip(address) => address.ip().to_string(),
        _ => String::new(),
    };
    let host = Some(config.get("cluster-announce-ip")).filter(|ip| !ip.is_empty());
    let ports = [config.get("cluster-announce-port"), config.get("port")];
    let port = ports.iter().filter_map(|port| port.parse::<u16>().ok()).find(|port| *port != 0);
    let port: u16 = port.unwrap_or(0);
    // The port of a bus between nodes is part of the format: Redis' is 10,000 above the other.
    let bus_port = port.saturating_add(10_000);
    NodeAddress { host: host.unwrap_or(local), port, bus_port }
}

/// What the client of a command is to be told.
pub(crate) fn face_of<'v>(cx: &Cx<'_>, view: &'v View) -> Face<'v> {
    let face = Face::new(view, cx.shared.cluster.seen(), own_address(cx), cx.worker.now_ms);
    face.showing_copies(cx.session.client.has(ClientFlags::READS_COPIES))
}

/// Removes a node for good, unless something would be lost with it.
pub(crate) fn remove_node(
    face: &Face<'_>,
    node: NodeId,
    outside: Option<&dyn Outside>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let is_last = |config: &PartitionConfig| {
        let mut others = config.isr.iter().filter(|member| member.node != node);
        config.isr.iter().any(|member| member.node == node) && !others.any(|m| face.serves(*m))
    };
    let last = face.partitions().filter(|(_, config)| is_last(config)).count();
    let Some(outside) = outside else {
        return Err(ReplyError::Text("ERR this node is alone"));
    };
    if last > 0 {
        let text = format!("ERR the node has the last copy of {last} partitions: drain it first");
        reply.error(text.as_bytes());
        return Err(ReplyError::Written);
    }
    outside.propose(Command::RemoveNode(node));
    reply.ok();
    Ok(())
}

/// The slot of all keys (and shard channels) of a command; `None` if it has none.
///
/// # Errors
/// [`ReplyError::CrossSlot`] if they are of several.
pub fn slot_of_keys(entry: &Entry, args: Args<'_>) -> Result<Option<u16>, ReplyError> {
    let (mut slot, mut is_crossing) = (None, false);
    entry.row.keys.for_each(args, &mut |i, _| {
        let of_key = slot_of(args.get(i));
        is_crossing |= *slot.get_or_insert(of_key) != of_key;
    });
    if is_crossing { Err(ReplyError::CrossSlot) } else { Ok(slot) }
}

/// The slot of the keys that a script declares, whose first is argument number 3.
pub(crate) fn slot_of_script(shared: &Shared, args: Args<'_>, keys: usize) -> Option<u16> {
    (shared.cluster.is_enabled() && keys > 0).then(|| slot_of(args.get(3)))
}

/// Whether the keys of a command are of several slots; those of a transaction if it is EXEC.
pub(crate) fn crosses_slots(session: &Session, entry: &Entry, args: Args<'_>) -> bool {
    let multi = session.multi().filter(|_| entry.row.name == "EXEC");
    let Some(multi) = multi else {
        return !entry.has_one_key && slot_of_keys(entry, args).is_err();
    };
    // Each command by itself was looked at when it was queued.
    let slots = multi.queue.iter().map(|(queued, args)| slot_of_keys(queued, args.as_args()));
    let mut slots = slots.filter_map(|slot| slot.ok().flatten());
    let first = slots.next();
    slots.any(|slot| Some(slot) != first)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::testing::Harness;

    fn in_cluster() -> Harness {
        let mut config = Config::default();
        config.set_at_start("cluster-enabled", "yes").expect("a setting");
        Harness::new(config)
    }

    /// Runs lines; each reply must begin as told.
    fn check(script: &[(&str, &str)]) {
        let mut h = in_cluster();
        for (line, expected) in script {
            let reply = String::from_utf8_lossy(&h.run(line)).into_owned();
            assert!(reply.starts_with(expected), "{line}: {reply:?} for {expected:?}");
        }
    }

    #[test]
    fn keys_of_a_command_share_a_slot() {
        check(&[
            ("MSET {t}a 1 {t}b 2", "+OK"),
            ("MGET {t}a {t}b", "*2"),
            ("MGET {t}a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
            ("RENAME a b", "-CROSSSLOT"),
            ("EVAL 'return 1' 2 a b", "-CROSSSLOT"),
            ("SUNIONSTORE {t}d {t}a b", "-CROSSSLOT"),
            ("XREAD STREAMS a b 0 0", "-CROSSSLOT"),
            ("DBSIZE", ":2"),
            ("SORT {t}a BY w*", "-ERR BY option of SORT denied in cluster mode."),
            ("SORT {t}a GET w", "-ERR GET option of SORT denied in cluster mode."),
            ("SORT {t}none BY nosort GET #", "*0"),
            ("SWAPDB 0 1", "-ERR SWAPDB is not allowed in cluster mode"),
        ]);
    }

    #[test]
    fn a_transaction_stays_in_its_slot() {
        check(&[
            ("MULTI", "+OK"),
            ("SET {t}a 1", "+QUEUED"),
            ("MGET a b", "-CROSSSLOT"),
            ("EXEC", "-EXECABORT"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("SET b 1", "+QUEUED"),
            ("EXEC", "-CROSSSLOT Keys in request don't hash to the same slot"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("EXISTS a", ":0"),
            ("MULTI", "+OK"),
            ("SET {t}a 1", "+QUEUED"),
            ("PING", "+QUEUED"),
            ("GET {t}a", "+QUEUED"),
            ("EXEC", "*3\r\n+OK\r\n+PONG\r\n$1\r\n1"),
        ]);
    }

    #[test]
    fn keys_of_a_slot_are_found() {
        let slot = crate::cluster::slot_of(b"{t}");
        let mut h = in_cluster();
        for i in 0..500 {
            h.run(&format!("SET {{t}}{i} x"));
            h.run(&format!("SET other{i} x"));
        }
        assert_eq!(h.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), b":500\r\n");
        let some = h.run(&format!("CLUSTER GETKEYSINSLOT {slot} 3"));
        assert!(some.starts_with(b"*3\r\n"), "{}", String::from_utf8_lossy(&some));
        let all = h.run(&format!("CLUSTER GETKEYSINSLOT {slot} 1000"));
        assert!(all.starts_with(b"*500\r\n") && !all.windows(5).any(|w| w == b"other"));
        for (line, error) in [
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot\r\n"),
            ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range\r\n"),
            ("CLUSTER GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&h.run(line)), error, "{line}");
        }
    }

    #[test]
    fn one_node_has_all_slots() {
        check(&[
            ("CLUSTER SLOTS", "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n"),
            ("CLUSTER INFO", "$"),
            ("CLUSTER KEYSLOT foo", ":12182"),
            ("CLUSTER MYID", "$40"),
            ("CLUSTER REPLICAS 1", "-ERR Unknown node 1"),
            ("CLUSTER ADDSLOTS 1", "-ERR CLUSTER ADDSLOTS is not supported"),
            ("READONLY", "+OK"),
            ("READWRITE", "+OK"),
            ("ASKING", "+OK"),
        ]);
    }
}
