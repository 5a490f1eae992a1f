//! A cluster of processes on this machine, in a folder that goes away with it.

use super::report;
use anyhow::{Context, bail};
use hypercache_client::{Address, Connection, Reply};
use hypercache_stdx::clock::mono_ms;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long to wait for a node's answer to a question about the cluster.
const ANSWER: Duration = Duration::from_millis(500);

/// See the module's text. The processes are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Local {
    folder: TempDir,
    nodes: Vec<Node>,
    durability: String,
}

#[derive(Debug)]
struct Node {
    port: u16,
    bus_port: u16,
    child: Option<Child>,
}

/// Ports that nobody uses now, all different.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listen = |_| TcpListener::bind("127.0.0.1:0");
    let listeners: Vec<_> = (0..count).map(listen).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

impl Local {
    /// Starts a cluster of so many nodes. It may be a while until it serves.
    pub(crate) fn start(count: usize, durability: &str) -> anyhow::Result<Local> {
        let folder = tempfile::Builder::new().prefix("hypercache-demo-").tempdir()?;
        let ports = free_ports(2 * count).context("there are no free ports")?;
        let node = |pair: &[u16]| Node { port: pair[0], bus_port: pair[1], child: None };
        let nodes = ports.chunks_exact(2).map(node).collect();
        let mut local = Local { folder, nodes, durability: durability.to_owned() };
        for i in 0..count {
            std::fs::create_dir(local.folder_of(i))?;
            local.revive(i)?;
        }
        Ok(local)
    }

    /// How many nodes there are, running or not.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach the nodes.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().map(|node| Address::tcp("127.0.0.1", node.port)).collect()
    }

    fn folder_of(&self, i: usize) -> PathBuf {
        self.folder.path().join(i.to_string())
    }

    fn settings(&self, i: usize) -> Vec<String> {
        let node = &self.nodes[i];
        let copies = self.nodes.len().min(3);
        // Of three copies two must have what is acknowledged, of two both.
        let needed = if self.durability == "sync" { copies.min(2) } else { 1 };
        let mut settings = vec![
            ("port", node.port.to_string()),
            ("bind", "127.0.0.1".into()),
            ("dir", self.folder_of(i).display().to_string()),
            ("logfile", "log".into()),
            ("cluster-enabled", "yes".into()),
            ("cluster-port", node.bus_port.to_string()),
            ("cluster-copies", copies.to_string()),
            ("min-sync-replicas", needed.to_string()),
            ("durability", self.durability.clone()),
        ];
        if i > 0 {
            let first = &self.nodes[0];
            let join = format!("127.0.0.1:{}@{}", first.port, first.bus_port);
            settings.push(("cluster-join", join));
        }
        settings.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }

    /// Starts a node that does not run.
    pub(crate) fn revive(&mut self, i: usize) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder_of(i).join("stderr"))?;
        let mut command = Command::new(program);
        command.arg("serve").args(self.settings(i));
        // Of the terminal's signals the nodes hear nothing: this process ends them.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.nodes[i].child = Some(command.spawn().context("a node cannot be started")?);
        Ok(())
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.nodes[i].child.take() {
            // Both fail only when it is gone.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }

    /// What a node that answers says of the cluster.
    pub(crate) fn status(&self) -> Option<Reply> {
        let running = self.nodes.iter().filter(|node| node.child.is_some());
        running.filter_map(|node| ask(node.port)).next()
    }

    /// Whether all nodes are there and have all copies.
    pub(crate) fn is_well(&self) -> bool {
        self.status().is_some_and(|status| {
            let is_ok = report::field(&status, "state").and_then(Reply::as_text);
            let nodes = report::number(&status, "nodes");
            is_ok == Some("ok".into()) && nodes == self.nodes.len() as i64
        })
    }

    /// Waits until all is well, or says what is not.
    pub(crate) fn wait_until_well(
        &mut self,
        patience: Duration,
        is_stopped: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = mono_ms() + patience.as_millis() as u64;
        while !self.is_well() {
            self.check_children()?;
            if is_stopped() {
                bail!("stopped");
            }
            if mono_ms() > deadline {
                let status = self.status();
                let said = status.map(|status| report::status(&status));
                bail!("not well after {patience:?}\n{}", said.unwrap_or("No node answers".into()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A node that ended by itself will not become well.
    fn check_children(&mut self) -> anyhow::Result<()> {
        for i in 0..self.nodes.len() {
            let ended = match &mut self.nodes[i].child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                let read = |name| std::fs::read_to_string(self.folder_of(i).join(name));
                let said = [read("stderr"), read("log")].map(Result::unwrap_or_default).concat();
                let lines: Vec<&str> = said.lines().collect();
                let last = lines[lines.len().saturating_sub(5)..].join("\n");
                bail!("node {} ended by itself ({status}):\n{last}", i + 1);
            }
        }
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|i| self.kill(i));
    }
}

fn ask(port: u16) -> Option<Reply> {
    let mut connection = Connection::connect(&Address::tcp("127.0.0.1", port), ANSWER).ok()?;
    connection.set_read_timeout(Some(ANSWER)).ok()?;
    connection.hello(3).ok()?;
    connection.command(&["HC.CLUSTER", "STATUS"]).ok().filter(|reply| !reply.is_error())
}
