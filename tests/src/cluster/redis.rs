//! Redis Cluster under the same driver, to have its figures side by side.
//!
//! Three primaries with a replica each, as `redis-cli --cluster create` makes them; links between its nodes
//! are not shaped, because its replication does not go over the bus.

use super::{Nodes, ask};
use crate::wait_for;
use std::process::{Command, Stdio};

/// Flags of node `i` beside its folder.
pub(super) fn flags(port: u16, bus_port: u16, is_safe: bool) -> Vec<(String, String)> {
    let mut flags = vec![
        ("port", port.to_string()),
        ("bind", "127.0.0.1".into()),
        ("cluster-enabled", "yes".into()),
        ("cluster-port", bus_port.to_string()),
        ("save", String::new()),
        ("appendonly", "no".into()),
    ];
    if is_safe {
        // What its documentation names against the loss of writes.
        flags.push(("cluster-node-timeout", "1000".into()));
        flags.push(("min-replicas-to-write", "1".into()));
        flags.push(("min-replicas-max-lag", "1".into()));
    }
    flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Makes a cluster of nodes that run.
pub(super) fn create(nodes: &Nodes) {
    for i in 0..nodes.len() {
        wait_for("an answer of a new node", || ask(nodes.port(i), &["PING"]));
    }
    let places = nodes.addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut command = Command::new("redis-cli");
    command.args(["--cluster", "create"]).args(places).args(["--cluster-replicas", "1"]);
    command.arg("--cluster-yes").stdin(Stdio::null());
    let output = command.output().expect("redis-cli runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// Whether a node sees all slots served and all nodes, and is linked to its primary if it is a replica.
pub(super) fn is_well(port: u16, nodes: usize) -> bool {
    let text = |words: &[&str]| Some(ask(port, words)?.as_text()?.into_owned());
    let look = || {
        let (info, lines) = (text(&["CLUSTER", "INFO"])?, text(&["CLUSTER", "NODES"])?);
        let replication = text(&["INFO", "replication"])?;
        let has = |line: &str| replication.lines().any(|found| found == line);
        let is_linked = has("connected_slaves:1") || has("master_link_status:up");
        let is_whole = lines.lines().count() == nodes && !lines.contains("fail");
        Some(info.starts_with("cluster_state:ok") && is_whole && is_linked)
    };
    look().unwrap_or(false)
}
