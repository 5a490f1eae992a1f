//! Three servers without sockets as one cluster: their messages go through a queue of the test, and the
//! metadata log is a list.

use hypercache_cluster::gate::{Need, Verdict};
use hypercache_cluster::host::{Host, Outside};
use hypercache_cluster::ids::{Generation, Member, NodeId, PartitionId};
use hypercache_cluster::lease::{Grant, HeldLease};
use hypercache_cluster::message::{Message, SealAck};
use hypercache_cluster::meta::{Command, MetaState, NodeAddress};
use hypercache_cluster::partition::Moment;
use hypercache_cluster::settings::Settings;
use hypercache_commands::cluster::host::{ServerHost, flush_written};
use hypercache_commands::cluster::plane::Plane;
use hypercache_commands::config::Config;
use hypercache_commands::keyspace::partition_of;
use hypercache_commands::testing::Harness;
use hypercache_stdx::clock;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is on its way.
#[derive(Debug, Default)]
struct Wire {
    messages: Mutex<VecDeque<(NodeId, NodeId, Message)>>,
    proposals: Mutex<VecDeque<Command>>,
}

#[derive(Debug)]
struct Side {
    me: NodeId,
    wire: Arc<Wire>,
}

impl Outside for Side {
    fn send(&self, to: NodeId, message: &Message) {
        self.wire.messages.lock().push_back((self.me, to, message.clone()));
    }

    fn flush(&self) {}

    fn propose(&self, command: Command) {
        self.wire.proposals.lock().push_back(command);
    }

    fn sealed(&self, _: SealAck) {}
}

struct Node {
    harness: Harness,
    host: ServerHost,
    plane: Arc<Plane>,
    is_up: bool,
}

struct Cluster {
    nodes: Vec<Node>,
    wire: Arc<Wire>,
    meta: MetaState,
    settings: Settings,
}

fn id(n: usize) -> NodeId {
    NodeId(n as u64 + 1)
}

fn member(n: usize) -> Member {
    Member { node: id(n), generation: Generation(1) }
}

fn node(n: usize, wire: &Arc<Wire>, settings: &[(&str, &str)]) -> Node {
    let mut config = Config::default();
    config.set_at_start("cluster-enabled", "yes").expect("a setting");
    for (name, value) in settings {
        config.set_at_start(name, value).expect("a setting");
    }
    let mut harness = Harness::new(config);
    harness.worker.now_ms = clock::now_ms();
    let shared = Arc::clone(&harness.shared);
    let plane = Arc::new(Plane::new(Settings::default(), 1));
    shared.cluster.begin(&shared, &plane);
    shared.cluster.attach(Arc::new(Side { me: id(n), wire: Arc::clone(wire) }));
    let host = ServerHost::new(&shared, &plane);
    Node { harness, host, plane, is_up: true }
}

impl Cluster {
    fn new(copies: u8, min_sync: u8, settings: &[(&str, &str)]) -> Cluster {
        let wire = Arc::default();
        let nodes: Vec<Node> = (0..3).map(|n| node(n, &wire, settings)).collect();
        let settings = Settings::default();
        let mut cluster = Cluster { nodes, wire, meta: MetaState::default(), settings };
        for n in 0..3 {
            let address =
                NodeAddress { host: format!("10.0.0.{n}"), port: 7000 + n as u16, bus_port: 1 };
            let (node, after) = (id(n), Generation(0));
            cluster.apply(Command::RegisterNode { node, after, boot: 9, zone: 0, address });
            cluster.apply(Command::JoinNode(node));
            cluster.nodes[n].host.registered(member(n));
        }
        let replica_reads = true;
        cluster.apply(Command::CreatePartitions { count: 1024, copies, min_sync, replica_reads });
        cluster.grant();
        // A new primary commits nothing while a replica may have leave of the one before.
        let wait_us = 2 * cluster.settings.read_lease_us;
        let until_us = clock::boot_us() + wait_us;
        while clock::boot_us() < until_us {
            cluster.settle();
        }
        cluster
    }

    /// Applies a command of the metadata log everywhere.
    fn apply(&mut self, command: Command) {
        let is_done = self.meta.apply(&command, &self.settings).is_ok();
        let all = || self.meta.partitions.keys().copied().collect();
        let changed: Vec<PartitionId> =
            command.subject().map_or_else(all, |(partition, _)| vec![partition]);
        let meta = Arc::new(self.meta.clone());
        for node in self.nodes.iter().filter(|node| node.is_up && is_done) {
            node.host.metadata(&meta, &changed);
        }
    }

    /// Gives all nodes that are up their leases.
    fn grant(&mut self) {
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_up) {
            let (now_us, mut lease) = (clock::boot_us(), HeldLease::default());
            let meta_index = self.meta.index;
            let length_us = 60_000_000;
            let grant = Grant { to: member(n), asked_us: now_us, length_us, meta_index };
            lease.take(&grant, meta_index, now_us, &self.settings);
            node.host.lease(lease);
        }
    }

    /// Delivers what is on its way, until nothing is.
    fn deliver(&mut self) {
        loop {
            for node in self.nodes.iter().filter(|node| node.is_up) {
                flush_written(&node.harness.shared, &node.plane);
            }
            let message = self.wire.messages.lock().pop_front();
            if let Some((from, to, message)) = message {
                let to = &self.nodes[to.0 as usize - 1];
                if to.is_up && self.nodes[from.0 as usize - 1].is_up {
                    to.host.receive(from, message);
                }
                continue;
            }
            let Some(command) = self.wire.proposals.lock().pop_front() else { return };
            self.apply(command);
        }
    }

    /// Lets some time pass.
    fn settle(&mut self) {
        for _ in 0..12 {
            std::thread::sleep(std::time::Duration::from_millis(6));
            let up = self.nodes.iter().filter(|node| node.is_up);
            up.for_each(|node| (0..2).for_each(|_| node.host.tick()));
            self.deliver();
        }
    }

    /// The nodes by what they are to a key: primary, then others.
    fn primary_of(&self, key: &str) -> usize {
        let partition = PartitionId(partition_of(key.as_bytes()));
        (self.meta.partitions[&partition].primary.node.0 - 1) as usize
    }

    fn run(&mut self, n: usize, line: &str) -> String {
        String::from_utf8_lossy(&self.nodes[n].harness.run(line)).into_owned()
    }

    /// What becomes now of the replies since the last call.
    fn verdict(&mut self, n: usize) -> Verdict {
        let node = &mut self.nodes[n];
        let now_us = clock::boot_us();
        let needs: Vec<Need> = std::mem::take(&mut node.harness.worker.needs);
        let has_lease = node.plane.has_lease(now_us);
        let at = Moment { now_us, has_lease, settings: &node.plane.settings };
        let judge = |need: &Need| {
            let number = need.partition().expect("it is about one").0;
            let locked = || node.harness.shared.keyspace.lock(number).judge(need, at);
            node.plane.judge(need, now_us).unwrap_or_else(locked)
        };
        let verdicts = needs.iter().map(judge);
        let verdict = verdicts.fold(Verdict::Leave, |a, b| if a == Verdict::Leave { b } else { a });
        node.harness.worker.needs = needs;
        verdict
    }

    fn forget(&mut self, n: usize) {
        self.nodes[n].harness.worker.needs.clear();
    }

    fn fail_over(&mut self, from: usize, to: usize) {
        self.nodes[from].is_up = false;
        let ids: Vec<PartitionId> = self.meta.partitions.keys().copied().collect();
        for partition in ids {
            let config = &self.meta.partitions[&partition];
            if config.primary == member(from) && config.is_in_sync(member(to)) {
                let epoch = config.epoch;
                self.apply(Command::Failover { partition, epoch, to: member(to) });
            }
        }
    }
}

#[test]
fn a_write_is_where_its_copies_are() {
    let mut c = Cluster::new(3, 1, &[]);
    for n in 0..200 {
        let key = format!("key:{n}");
        let (p, other) = (c.primary_of(&key), (c.primary_of(&key) + 1) % 3);
        assert_eq!(c.run(p, &format!("SET {key} {n}")), "+OK\r\n");
        assert_eq!(c.run(p, &format!("RPUSH l{{{key}}} a b c")), ":3\r\n");
        let moved = c.run(other, &format!("SET {key} x"));
        assert!(
            moved.starts_with("-MOVED ") && moved.contains(&format!(" 10.0.0.{p}:700{p}")),
            "{moved}"
        );
    }
    c.deliver();
    for n in (0..200).step_by(20) {
        let key = format!("key:{n}");
        let other = (c.primary_of(&key) + 1) % 3;
        assert!(c.run(other, &format!("GET {key}")).starts_with("-MOVED"));
        c.run(other, "READONLY");
        let value = format!("${}\r\n{n}\r\n", n.to_string().len());
        assert_eq!(c.read_at(other, &format!("GET {key}")), value);
        assert_eq!(c.read_at(other, &format!("LLEN l{{{key}}}")), ":3\r\n");
        assert!(c.run(other, &format!("DEL {key}")).starts_with("-MOVED"));
        c.run(other, "READWRITE");
        assert!(c.run(other, &format!("GET {key}")).starts_with("-MOVED"));
    }
}

impl Cluster {
    /// Reads at a replica, once it has leave to answer.
    fn read_at(&mut self, n: usize, line: &str) -> String {
        (0..50)
            .find_map(|_| {
                let reply = self.run(n, line);
                if !reply.starts_with("-MOVED") {
                    return Some(reply);
                }
                self.settle();
                None
            })
            .expect("a replica in sync gets leave to answer")
    }
}

#[test]
fn sync_replies_wait_for_the_copies() {
    let mut c = Cluster::new(3, 2, &[("durability", "sync")]);
    let p = c.primary_of("k");
    assert_eq!(c.run(p, "SET k 1"), "+OK\r\n");
    assert_eq!(c.verdict(p), Verdict::Wait);
    assert_eq!(c.run(p, "GET k"), "$1\r\n1\r\n");
    assert_eq!(c.verdict(p), Verdict::Wait, "what is shown may be undone");
    c.deliver();
    assert_eq!(c.verdict(p), Verdict::Leave);
    c.forget(p);
    assert_eq!(c.run(p, "GET k"), "$1\r\n1\r\n");
    assert_eq!(c.verdict(p), Verdict::Leave, "nothing waits to be committed");
    c.forget(p);
    assert_eq!(c.run(p, "MULTI"), "+OK\r\n");
    assert_eq!(c.run(p, "INCR k"), "+QUEUED\r\n");
    assert_eq!(c.run(p, "LPUSH {k}l x"), "+QUEUED\r\n");
    assert_eq!(c.run(p, "EXEC"), "*2\r\n:2\r\n:1\r\n");
    assert_eq!(c.nodes[p].harness.worker.needs.len(), 1, "a transaction is one record");
    assert_eq!(c.verdict(p), Verdict::Wait);
    c.deliver();
    assert_eq!(c.verdict(p), Verdict::Leave);
}

#[test]
fn what_a_failed_primary_did_not_commit_is_of_unknown_outcome() {
    let mut c = Cluster::new(3, 1, &[("durability", "sync")]);
    let p = c.primary_of("k");
    let other = (p + 1) % 3;
    c.run(p, "SET k committed");
    c.deliver();
    assert_eq!(c.verdict(p), Verdict::Leave);
    c.forget(p);
    c.run(p, "SET k lost");
    c.fail_over(p, other);
    c.settle();
    assert_eq!(c.run(other, "GET k"), "$9\r\ncommitted\r\n");
    assert_eq!(c.run(other, "SET k next"), "+OK\r\n");
    // The old one hears of it late.
    c.nodes[p].is_up = true;
    let meta = Arc::new(c.meta.clone());
    let all: Vec<PartitionId> = c.meta.partitions.keys().copied().collect();
    c.nodes[p].host.metadata(&meta, &all);
    assert_eq!(c.verdict(p), Verdict::Unknown);
    assert!(c.run(p, "GET k").starts_with("-MOVED"));
}

#[test]
fn waiting_clients_are_told_when_their_keys_go_elsewhere() {
    use hypercache_commands::shared::{Mailbox, Message as Mail};
    let mut c = Cluster::new(2, 1, &[]);
    let p = c.primary_of("list");
    let shared = Arc::clone(&c.nodes[p].harness.shared);
    assert!(shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok(), "set once");
    assert_eq!(c.run(p, "BLPOP list 0"), "");
    let partition = PartitionId(partition_of(b"list"));
    let config = c.meta.partitions[&partition].clone();
    let to = *config.isr.iter().find(|m| **m != config.primary).expect("a replica");
    c.nodes[p].host.hand_over(partition, to);
    c.settle();
    let mail = shared.mailboxes.get().expect("set above")[0].take();
    let replies = mail.iter().filter_map(|mail| match mail {
        Mail::Unblock { reply, .. } => Some(String::from_utf8_lossy(&reply.bytes).into_owned()),
        _ => None,
    });
    let replies: Vec<String> = replies.collect();
    assert!(matches!(&replies[..], [only] if only.starts_with("-UNBLOCKED force")), "{replies:?}");
    let new = (to.node.0 - 1) as usize;
    assert_eq!(c.run(new, "RPUSH list x"), ":1\r\n");
}

#[test]
fn a_node_that_was_away_is_copied_to() {
    let mut c = Cluster::new(2, 1, &[]);
    let keys: Vec<String> = (0..300).map(|n| format!("{{t}}{n}")).collect();
    let p = c.primary_of("{t}");
    for key in &keys {
        c.run(p, &format!("SET {key} {}", "v".repeat(500)));
        c.run(p, &format!("HSET h{key} f 1 g 2"));
    }
    c.deliver();
    let partition = PartitionId(partition_of(b"{t}"));
    let config = c.meta.partitions[&partition].clone();
    let outsider = (0..3).map(member).find(|m| !config.is_in_sync(*m)).expect("two of three");
    let epoch = config.epoch;
    c.apply(Command::AddLearner { partition, epoch, node: outsider.node });
    for (i, key) in keys.iter().enumerate() {
        c.run(p, &format!("SET {key} {i}"));
        if i % 60 == 0 {
            c.settle();
        }
    }
    c.settle();
    c.settle();
    assert!(
        c.meta.partitions[&partition].is_in_sync(outsider),
        "{:?}",
        c.meta.partitions[&partition]
    );
    let learned = (outsider.node.0 - 1) as usize;
    let (a, b) = (c.contents(p), c.contents(learned));
    assert_eq!(a.len(), 600);
    assert_eq!(a, b);
    c.fail_over(p, learned);
    assert_eq!(c.run(learned, "GET {t}17"), "$2\r\n17\r\n");
    assert_eq!(c.run(learned, "HGET h{t}299 g"), "$1\r\n2\r\n");
}

impl Cluster {
    /// Keys and values of the partition of `{t}`.
    fn contents(&self, n: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let shard = self.nodes[n].harness.shared.keyspace.lock(partition_of(b"{t}"));
        let mut all = Vec::new();
        if let Some(db) = shard.db(0) {
            db.for_each(|entry| {
                let value = entry
                    .object()
                    .map_or_else(|| entry.value().to_vec(), |object| object.canonical());
                all.push((entry.key().to_vec(), value));
            });
        }
        all.sort_unstable();
        all
    }
}

#[test]
fn tags_go_with_a_copy() {
    let mut c = Cluster::new(2, 1, &[]);
    let p = c.primary_of("{t}");
    c.run(p, "HC.SET {t}dead 1 EX 1000 TAGS old");
    c.run(p, "HC.TAG.INVALIDATE old");
    c.run(p, "HC.SET {t}a 1 EX 1000 STALE 500000 TAGS old both");
    c.run(p, "HC.SET {t}b 1 EX 1000 TAGS both");
    let partition = PartitionId(partition_of(b"{t}"));
    let config = c.meta.partitions[&partition].clone();
    let is_copy = |m: &Member| config.is_in_sync(*m);
    let replica = (0..3).find(|n| *n != p && is_copy(&member(*n))).expect("two copies");
    let outsider = (0..3).find(|n| !is_copy(&member(*n))).expect("two of three");
    c.apply(Command::AddLearner { partition, epoch: config.epoch, node: id(outsider) });
    c.settle();
    c.settle();
    c.deliver();
    // What another node is the primary of is not this one's to invalidate.
    assert_eq!(c.run(replica, "HC.TAG.INVALIDATE both"), ":0\r\n");
    c.fail_over(p, outsider);
    assert_eq!(c.run(outsider, "GET {t}dead"), "$-1\r\n");
    assert_eq!(c.run(outsider, "GET {t}b"), "$1\r\n1\r\n");
    c.run(outsider, "HC.TAG.INVALIDATE old");
    assert_eq!(c.run(outsider, "EXISTS {t}a {t}b"), ":1\r\n");
    c.run(outsider, "HC.TAG.INVALIDATE both");
    assert_eq!(c.run(outsider, "EXISTS {t}a {t}b"), ":0\r\n");
}

#[test]
fn only_the_primary_expires() {
    let mut c = Cluster::new(3, 1, &[]);
    let p = c.primary_of("k");
    let other = (p + 1) % 3;
    c.run(p, "SET k v PX 20");
    c.deliver();
    c.run(other, "READONLY");
    for node in &mut c.nodes {
        node.harness.worker.now_ms = clock::now_ms() + 1000;
    }
    assert_eq!(c.read_at(other, "GET k"), "$-1\r\n", "it shows that the key's time is past");
    let partition = partition_of(b"k");
    let keys = |c: &Cluster, n: usize| {
        c.nodes[n].harness.shared.keyspace.lock(partition).db(0).map_or(0, |db| db.len())
    };
    assert_eq!((keys(&c, p), keys(&c, other)), (1, 1), "and leaves it");
    assert_eq!(c.run(p, "GET k"), "$-1\r\n");
    c.deliver();
    assert_eq!((keys(&c, p), keys(&c, other)), (0, 0));
}

#[test]
fn wait_tells_how_many_have_it() {
    let mut c = Cluster::new(3, 1, &[]);
    let p = c.primary_of("k");
    assert_eq!(c.run(p, "WAIT 5 1"), ":2\r\n", "who wrote nothing waits for nothing");
    c.run(p, "SET k v");
    c.run(p, "MULTI");
    c.run(p, "WAIT 2 0");
    assert_eq!(c.run(p, "EXEC"), "*1\r\n:0\r\n");
    c.deliver();
    assert_eq!(c.run(p, "WAIT 2 0"), ":2\r\n");
}

#[test]
fn without_a_lease_nothing_is_shown() {
    let mut c = Cluster::new(2, 1, &[("durability-rules", "safe:=sync")]);
    let (p, q) = (c.primary_of("k"), c.primary_of("safe:{k}"));
    assert_eq!(p, q);
    c.nodes[p].host.lease(HeldLease::default());
    assert!(c.run(p, "GET k").starts_with("-CLUSTERDOWN"));
    assert!(c.run(p, "SET k v").starts_with("-CLUSTERDOWN"));
    assert_eq!(c.run(p, "SET safe:{k} v"), "+OK\r\n", "all copies will have it");
    assert_eq!(c.verdict(p), Verdict::Wait);
    c.deliver();
    assert_eq!(c.verdict(p), Verdict::Leave);
}

#[test]
fn scripts_and_transactions_keep_to_their_slot_and_node() {
    let mut c = Cluster::new(2, 1, &[]);
    let p = c.primary_of("{a}");
    let other = (0..3).find(|n| *n != p).expect("there are three");
    c.run(other, "MULTI");
    assert!(c.run(other, "SET {a} 1").starts_with("-MOVED"));
    assert!(c.run(other, "EXEC").starts_with("-EXECABORT"));
    assert!(c.run(other, "SSUBSCRIBE {a}").starts_with("-MOVED"));
    assert_eq!(c.run(p, "MULTI"), "+OK\r\n");
    assert_eq!(c.run(p, "SET {a} 1"), "+QUEUED\r\n");
    let partition = PartitionId(partition_of(b"{a}"));
    let to =
        *c.meta.partitions[&partition].isr.iter().find(|m| m.node != id(p)).expect("a replica");
    c.nodes[p].host.hand_over(partition, to);
    c.settle();
    assert!(c.run(p, "EXEC").starts_with("-MOVED"), "it went elsewhere meanwhile");
}

#[test]
fn what_is_about_all_keys_is_about_those_of_the_primary() {
    let mut c = Cluster::new(2, 1, &[("durability", "sync")]);
    let keys: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    for key in &keys {
        let p = c.primary_of(key);
        c.run(p, &format!("SET {key} v"));
    }
    c.deliver();
    let mine = keys.iter().filter(|key| c.primary_of(key) == 0).count();
    assert_eq!(c.run(0, "DBSIZE"), format!(":{mine}\r\n"));
    assert!(c.run(0, "KEYS *").starts_with(&format!("*{mine}\r\n")));
    c.forget(0);
    assert_eq!(c.run(0, "FLUSHALL"), "+OK\r\n");
    assert_eq!(c.verdict(0), Verdict::Wait);
    c.deliver();
    assert_eq!(c.verdict(0), Verdict::Leave);
    let sizes: Vec<String> = (0..3).map(|n| c.run(n, "DBSIZE")).collect();
    assert_eq!(sizes[0], ":0\r\n");
    let left: usize =
        sizes.iter().map(|size| size[1..].trim().parse::<usize>().expect("a number")).sum();
    assert_eq!(left, keys.len() - mine);
}

#[test]
fn a_replica_serves_those_who_wait_to_read() {
    use hypercache_commands::blocking::serve_unserved;
    use hypercache_commands::shared::{Mailbox, Message as Mail};
    let mut c = Cluster::new(3, 1, &[]);
    let p = c.primary_of("stream");
    let other = (p + 1) % 3;
    let shared = Arc::clone(&c.nodes[other].harness.shared);
    assert!(shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok(), "set once");
    c.run(other, "READONLY");
    assert_eq!(c.read_at(other, "XREAD BLOCK 0 STREAMS stream $"), "");
    assert!(c.run(p, "XADD stream 1-1 f v").starts_with('$'));
    c.settle();
    serve_unserved(&shared, &mut c.nodes[other].harness.worker);
    let mail = shared.mailboxes.get().expect("set above")[0].take();
    let is_answer = |mail: &Mail| {
        matches!(mail, Mail::Unblock { reply, need: Need::Leave { .. }, .. }
            if reply.bytes.windows(3).any(|bytes| bytes == b"1-1"))
    };
    assert!(mail.iter().any(is_answer), "{mail:?}");
    assert!(!shared.keyspace.has_unserved());
}

#[test]
fn bounded_replies_wait_while_the_copies_are_too_far_behind() {
    let settings = [
        ("durability", "bounded"),
        ("durability-max-lag-bytes", "1kb"),
        ("durability-max-lag-ms", "60000"),
    ];
    let mut c = Cluster::new(2, 1, &settings);
    let p = c.primary_of("k");
    assert_eq!(c.run(p, "SET k little"), "+OK\r\n");
    assert_eq!(c.verdict(p), Verdict::Leave);
    assert_eq!(c.run(p, &format!("SET k {}", "v".repeat(2000))), "+OK\r\n");
    assert_eq!(c.verdict(p), Verdict::Wait);
    c.deliver();
    assert_eq!(c.verdict(p), Verdict::Leave);
}
