//! A server that is just enough to see a node at work: partitions over registers, one lock, and calls that
//! wait until their writes are committed.

mod registers;

use hypercache_cluster::gate::{Need, Verdict};
use hypercache_cluster::host::{Host, Outside};
use hypercache_cluster::ids::{Member, NodeId, PARTITIONS, PartitionId};
use hypercache_cluster::lease::HeldLease;
use hypercache_cluster::message::Message;
use hypercache_cluster::meta::{MetaState, NodeAddress};
use hypercache_cluster::partition::{Action, Cx, Moment, Partition, ReadRule};
use hypercache_cluster::settings::Settings;
use hypercache_node::{Node, Options};
use hypercache_stdx::clock::{boot_us, mono_ms};
use registers::Registers;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

#[derive(Debug)]
struct Slot {
    partition: Partition,
    data: Registers,
}

#[derive(Debug, Default)]
struct Inner {
    me: Option<Member>,
    meta: Arc<MetaState>,
    lease: HeldLease,
    slots: Vec<Slot>,
    expelled: Option<String>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Toy {
    inner: Mutex<Inner>,
    moved: Condvar,
    outside: OnceLock<Arc<dyn Outside>>,
    settings: Settings,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Value(Option<u64>),
    Refused,
    Unknown,
}

impl Toy {
    fn new(settings: Settings) -> Arc<Toy> {
        let (inner, moved, outside) = (Mutex::default(), Condvar::new(), OnceLock::new());
        Arc::new(Toy { inner, moved, outside, settings })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panicked")
    }

    fn step(&self, inner: &mut Inner, p: usize, f: impl FnOnce(&mut Partition, &mut Cx<'_>)) {
        let mut actions = Vec::new();
        let now_us = boot_us();
        let has_lease = inner.lease.is_held(now_us);
        let Some(slot) = inner.slots.get_mut(p) else { return };
        let (settings, data) = (&self.settings, &mut slot.data);
        f(
            &mut slot.partition,
            &mut Cx { now_us, has_lease, settings, data, actions: &mut actions },
        );
        let Some(outside) = self.outside.get() else { return };
        for action in actions {
            match action {
                Action::Send { to, message } => outside.send(to, &message),
                Action::Propose(command) => outside.propose(command),
                Action::Sealed(ack) => outside.sealed(ack),
                Action::Committed(_) | Action::Demoted => self.moved.notify_all(),
            }
        }
    }

    fn partition_of(key: u64) -> usize {
        (key % u64::from(PARTITIONS)) as usize
    }

    /// Writes, and waits until it is committed.
    pub(crate) fn write(&self, key: u64, value: u64) -> Outcome {
        let p = Self::partition_of(key);
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(p) else { return Outcome::Refused };
        let Some(term) = slot.partition.serving_term(&self.settings) else {
            return Outcome::Refused;
        };
        if slot.partition.may_write(&self.settings).is_err() {
            return Outcome::Refused;
        }
        let body = slot.data.write(key, value);
        let mut lsn = Default::default();
        self.step(&mut inner, p, |partition, cx| {
            lsn = partition.append(Arc::from(body), cx).lsn;
            partition.flush(cx);
        });
        self.outside.get().expect("it is attached").flush();
        let need = Need::Commit { partition: PartitionId(p as u16), term, lsn };
        self.wait(inner, p, &need, Outcome::Done)
    }

    /// Reads at the primary.
    pub(crate) fn read(&self, key: u64) -> Outcome {
        let p = Self::partition_of(key);
        let inner = self.lock();
        let Some(slot) = inner.slots.get(p) else { return Outcome::Refused };
        let Some(term) = slot.partition.serving_term(&self.settings) else {
            return Outcome::Refused;
        };
        let partition = PartitionId(p as u16);
        let need = match slot.partition.read_rule(key, &self.settings) {
            ReadRule::Now => Need::Lease { partition, term },
            ReadRule::After(lsn) => Need::CommitAndLease { partition, term, lsn },
        };
        let value = slot.data.get(key);
        self.wait(inner, p, &need, Outcome::Value(value))
    }

    fn wait(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        p: usize,
        need: &Need,
        then: Outcome,
    ) -> Outcome {
        let until_ms = mono_ms() + 3000;
        loop {
            let now_us = boot_us();
            let has_lease = inner.lease.is_held(now_us);
            let at = Moment { now_us, has_lease, settings: &self.settings };
            match inner.slots[p].partition.judge(need, at) {
                Verdict::Leave => return then,
                Verdict::Unknown => return Outcome::Unknown,
                Verdict::Wait if mono_ms() > until_ms => return Outcome::Unknown,
                Verdict::Wait => {}
            }
            let waited = self.moved.wait_timeout(inner, Duration::from_millis(5));
            inner = waited.expect("no thread panicked").0;
        }
    }

    pub(crate) fn meta(&self) -> Arc<MetaState> {
        Arc::clone(&self.lock().meta)
    }

    pub(crate) fn member(&self) -> Option<Member> {
        self.lock().me
    }

    pub(crate) fn expelled(&self) -> Option<String> {
        self.lock().expelled.clone()
    }
}

impl Host for Toy {
    fn registered(&self, me: Member) {
        let mut inner = self.lock();
        assert_eq!(inner.me, None, "a process has one generation");
        inner.me = Some(me);
    }

    fn metadata(&self, meta: &Arc<MetaState>, changed: &[PartitionId]) {
        let mut inner = self.lock();
        let me = inner.me.expect("it is registered");
        inner.meta = Arc::clone(meta);
        while inner.slots.len() < meta.partitions.len() {
            let id = PartitionId(inner.slots.len() as u16);
            let (partition, data) = (Partition::new(id, me), Registers::default());
            inner.slots.push(Slot { partition, data });
        }
        for id in changed {
            let config = &meta.partitions[id];
            self.step(&mut inner, usize::from(id.0), |partition, cx| {
                partition.configure(config, cx)
            });
        }
        self.moved.notify_all();
    }

    fn lease(&self, lease: HeldLease) {
        self.lock().lease = lease;
    }

    fn receive(&self, from: NodeId, message: Message) {
        let _who = from;
        let p = usize::from(message.partition().0);
        let mut inner = self.lock();
        self.step(&mut inner, p, |partition, cx| partition.receive(message, cx));
    }

    fn tick(&self) {
        let mut inner = self.lock();
        for p in 0..inner.slots.len() {
            self.step(&mut inner, p, |partition, cx| partition.tick(cx));
        }
    }

    fn hand_over(&self, partition: PartitionId, to: Member) {
        let mut inner = self.lock();
        self.step(&mut inner, usize::from(partition.0), |partition, cx| {
            partition.hand_over(to, cx)
        });
    }

    fn expelled(&self, why: &str) {
        self.lock().expelled = Some(why.to_owned());
    }
}

/// A port that is free just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("it is bound").port()
}

/// Options of a node in a directory.
pub(crate) fn options(dir: &Path, join: &[&Options]) -> Options {
    let bus_port = free_port();
    let join =
        join.iter().map(|other| format!("127.0.0.1:{}@{}", other.address.port, other.bus_port));
    Options {
        dir: dir.to_owned(),
        bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        bus_port,
        address: NodeAddress { host: "127.0.0.1".to_owned(), port: bus_port, bus_port },
        join: join.collect(),
        secret: Some("of the test".to_owned()),
        copies: 2,
        min_sync: 1,
        replica_reads: false,
        zone: 0,
        settings: Settings::default(),
    }
}

/// A node with its server.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) toy: Arc<Toy>,
    pub(crate) options: Options,
}

impl Process {
    pub(crate) fn start(options: &Options) -> Process {
        let toy = Toy::new(options.settings.clone());
        let host = Arc::clone(&toy) as Arc<dyn Host>;
        let node = hypercache_node::start(options.clone(), host).expect("it starts");
        toy.outside.set(node.outside()).expect("it is set once");
        Process { node, toy, options: options.clone() }
    }
}

/// Starts a node that is not expected to start.
pub(crate) fn try_start(options: &Options) -> Result<Node, String> {
    hypercache_node::start(options.clone(), Toy::new(options.settings.clone()))
}

/// Waits for something.
pub(crate) fn eventually(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let until_ms = mono_ms() + seconds * 1000;
    while !is_so() {
        assert!(mono_ms() < until_ms, "after {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
