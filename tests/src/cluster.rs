//! Clusters of real processes: nodes that are killed, stopped and started again, on ports they keep.

mod redis;

use crate::links::Links;
use crate::{binary, mono_ms};
use hypercache_client::{Address, Connection, Reply};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What runs on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The binary under test.
    Ours,
    /// `redis-server` with the settings it comes with: the number of nodes is even.
    Redis,
    /// `redis-server` with those settings by which it loses least.
    SafeRedis,
}

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What runs on the nodes.
    pub kind: Kind,
    /// Nodes.
    pub nodes: usize,
    /// Copies of each partition.
    pub copies: usize,
    /// `sync` or `async`.
    pub durability: &'static str,
    /// Whether what nodes say to each other goes through [`Links`].
    pub is_shaped: bool,
    /// Further settings of every node.
    pub settings: Vec<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            kind: Kind::Ours,
            nodes: 3,
            copies: 3,
            durability: "sync",
            is_shaped: false,
            settings: Vec::new(),
        }
    }
}

/// How long a cluster may take to form, or to mend itself.
pub const MENDS: Duration = Duration::from_secs(60);
/// How long a node may take to say how the cluster is.
const ANSWER: Duration = Duration::from_millis(700);

/// See the module's text. All processes end with this value.
#[derive(Debug)]
pub struct Nodes {
    root: TempDir,
    plan: Plan,
    nodes: Vec<Node>,
    links: Option<Links>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    bus_port: u16,
    child: Option<Child>,
    is_stopped: bool,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listen = |_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<_> = (0..count).map(listen).collect();
    listeners.iter().map(|l| l.local_addr().expect("an address").port()).collect()
}

impl Nodes {
    /// Starts a cluster and waits until it serves with all copies.
    pub fn start(plan: Plan) -> Nodes {
        let mut nodes = Nodes::launch(plan);
        nodes.wait_until_well();
        nodes
    }

    /// Starts the processes.
    pub fn launch(plan: Plan) -> Nodes {
        let root = tempfile::Builder::new().prefix("hypercache-cluster-").tempdir();
        let ports = free_ports(2 * plan.nodes);
        let node = |pair: &[u16]| Node {
            port: pair[0],
            bus_port: pair[1],
            child: None,
            is_stopped: false,
        };
        let nodes: Vec<Node> = ports.chunks_exact(2).map(node).collect();
        let buses: Vec<u16> = nodes.iter().map(|node| node.bus_port).collect();
        let links = plan.is_shaped.then(|| Links::start(&buses));
        let mut all = Nodes { root: root.expect("a folder"), plan, nodes, links };
        for i in 0..all.len() {
            std::fs::create_dir(all.folder(i)).expect("a folder");
            all.start_node(i);
        }
        if all.plan.kind != Kind::Ours {
            redis::create(&all);
        }
        all
    }

    /// How many nodes there are, running or not.
    #[allow(clippy::len_without_is_empty, reason = "there is always a node")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The links between the nodes.
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    /// The port of a node.
    pub fn port(&self, i: usize) -> u16 {
        self.nodes[i].port
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().map(|node| Address::tcp("127.0.0.1", node.port)).collect()
    }

    fn folder(&self, i: usize) -> PathBuf {
        self.root.path().join(i.to_string())
    }

    fn settings(&self, i: usize) -> Vec<(String, String)> {
        let Plan { copies, durability, .. } = self.plan;
        let node = &self.nodes[i];
        let needed = if durability == "sync" { copies.min(2) } else { 1 };
        let announced =
            |i: usize| self.links.as_ref().map_or(self.nodes[i].bus_port, |l| l.port(i));
        let mut settings = vec![
            ("port".to_owned(), node.port.to_string()),
            ("bind".to_owned(), "127.0.0.1".into()),
            ("cluster-enabled".to_owned(), "yes".into()),
            ("cluster-port".to_owned(), node.bus_port.to_string()),
            ("cluster-announce-bus-port".to_owned(), announced(i).to_string()),
            ("cluster-copies".to_owned(), copies.to_string()),
            ("min-sync-replicas".to_owned(), needed.to_string()),
            ("durability".to_owned(), durability.into()),
        ];
        if i > 0 {
            let join = format!("127.0.0.1:{}@{}", self.nodes[0].port, announced(0));
            settings.push(("cluster-join".to_owned(), join));
        }
        settings
    }

    fn flags(&self, i: usize) -> Vec<String> {
        let Node { port, bus_port, .. } = self.nodes[i];
        let mut settings = match self.plan.kind {
            Kind::Ours => self.settings(i),
            other => redis::flags(port, bus_port, other == Kind::SafeRedis),
        };
        settings.push(("dir".to_owned(), self.folder(i).display().to_string()));
        settings.extend(self.plan.settings.iter().cloned());
        settings.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }

    /// Starts a node that does not run. Its folder is as it left it, its memory empty.
    pub fn start_node(&mut self, i: usize) {
        let mut log = std::fs::File::options();
        let log = log.create(true).append(true).open(self.folder(i).join("stderr"));
        let is_ours = self.plan.kind == Kind::Ours;
        let mut command = Command::new(if is_ours { binary() } else { "redis-server".into() });
        command.args(self.flags(i)).env_remove("HYPERCACHE_TEST_BINARY");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        let child = command.spawn().expect("a node starts");
        if let Some(links) = &self.links {
            links.set_process(i, child.id());
        }
        self.nodes[i].child = Some(child);
        self.nodes[i].is_stopped = false;
    }

    /// Kills a node.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.nodes[i].child.take() {
            // Both fail only when it is gone.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }

    /// Ends a node as an operator would, and waits for that.
    pub fn end(&mut self, i: usize) {
        self.signal(i, Signal::TERM);
        if let Some(mut child) = self.nodes[i].child.take() {
            let _gone = child.wait();
        }
    }

    fn signal(&self, i: usize, signal: Signal) {
        if let Some(child) = &self.nodes[i].child {
            let _gone = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Has a node stand still.
    pub fn pause(&mut self, i: usize) {
        self.signal(i, Signal::STOP);
        self.nodes[i].is_stopped = true;
    }

    /// Has it go on.
    pub fn resume(&mut self, i: usize) {
        self.signal(i, Signal::CONT);
        self.nodes[i].is_stopped = false;
    }

    /// Whether a node runs and does not stand still.
    pub fn is_running(&self, i: usize) -> bool {
        self.nodes[i].child.is_some() && !self.nodes[i].is_stopped
    }

    /// What a node said to its standard error.
    pub fn log(&self, i: usize) -> String {
        let bytes = std::fs::read(self.folder(i).join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the first node that answers says of the cluster.
    pub fn status(&self) -> Option<Reply> {
        let running = (0..self.len()).filter(|i| self.is_running(*i));
        running.filter_map(|i| ask(self.port(i), &["HC.CLUSTER", "STATUS"])).next()
    }

    /// Whether every running node says that all nodes are there with all copies.
    pub fn is_well(&self) -> bool {
        let is_node_well = match self.plan.kind {
            Kind::Ours => is_well,
            _ => redis::is_well,
        };
        (0..self.len()).all(|i| self.is_running(i) && is_node_well(self.port(i), self.len()))
    }

    /// Waits until [`Self::is_well`].
    pub fn wait_until_well(&mut self) {
        let deadline = mono_ms() + MENDS.as_millis() as u64;
        while !self.is_well() {
            for i in 0..self.len() {
                let child = self.nodes[i].child.as_mut();
                let ended = child.and_then(|child| child.try_wait().expect("a child"));
                assert!(ended.is_none(), "node {i} ended: {ended:?}\n{}", self.log(i));
            }
            assert!(mono_ms() < deadline, "{}", self.complaint());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Why the cluster is not well, as far as it can be told.
    pub fn complaint(&self) -> String {
        let mut text = String::from("the cluster does not become well");
        for i in 0..self.len() {
            let status = ask(self.port(i), &["HC.CLUSTER", "STATUS"]);
            let problems = status.as_ref().and_then(|status| field(status, "problems"));
            let log = self.log(i);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(8)..].join("\n    ");
            text.push_str(&format!("\n  node {i} says {problems:?}; its log ends\n    {last}"));
        }
        text
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        (0..self.len()).for_each(|i| self.kill(i));
    }
}

/// Asks a node something on a connection of its own.
pub fn ask(port: u16, words: &[&str]) -> Option<Reply> {
    let mut connection = Connection::connect(&Address::tcp("127.0.0.1", port), ANSWER).ok()?;
    connection.set_read_timeout(Some(ANSWER)).ok()?;
    connection.hello(3).ok()?;
    connection.command(words).ok().filter(|reply| !reply.is_error())
}

/// Whether a node sees all nodes, and all copies there.
fn is_well(port: u16, nodes: usize) -> bool {
    let look = || {
        let status = ask(port, &["HC.CLUSTER", "STATUS"])?;
        let state = field(&status, "state")?.as_text()?.into_owned();
        Some(state == "ok" && field(&status, "nodes")?.as_int()? == nodes as i64)
    };
    look().unwrap_or(false)
}

/// A field of a map.
pub fn field<'r>(reply: &'r Reply, name: &str) -> Option<&'r Reply> {
    let Reply::Map(pairs) = reply else { return None };
    let is_named = |pair: &&(Reply, Reply)| pair.0.as_text().is_some_and(|text| text == name);
    pairs.iter().find(is_named).map(|(_, value)| value)
}
