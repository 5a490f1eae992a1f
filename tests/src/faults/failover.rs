//! How long it is felt when a primary crashes: from the kill to the first write that is served again.

use crate::cluster::{Nodes, ask};
use crate::mono_ms;
use hypercache_client::{Address, Connection, Reply};
use std::time::Duration;

/// A node that has not answered for so long is asked again.
const REPLY: Duration = Duration::from_millis(400);
/// A trial that takes longer has failed.
const MOST_MS: u64 = 20_000;

/// A key whose primary is a node.
fn key_of(nodes: &Nodes, node: usize) -> Option<String> {
    let port = i64::from(nodes.port(node));
    let ranges = ask(port as u16, &["CLUSTER", "SLOTS"])?.into_items()?;
    let own = ranges.into_iter().find_map(|range| {
        let mut range = range.into_items()?.into_iter();
        let (first, last) = (range.next()?.as_int()?, range.next()?.as_int()?);
        let primary = range.next()?.into_items()?.get(1)?.as_int()?;
        (primary == port).then_some((first, last))
    });
    let (first, last) = own?;
    (0..200_000).map(|n| format!("key:{n}")).find(|key| {
        let slot = i64::from(hypercache_protocol::slot::slot_of(key.as_bytes()));
        (first..=last).contains(&slot)
    })
}

/// Kills the primary of a key, and returns after how many ms another node served a write to it.
pub fn trial(nodes: &mut Nodes, node: usize) -> u64 {
    nodes.wait_until_well();
    let key = key_of(nodes, node).expect("each node is primary of something");
    let others = (0..nodes.len()).filter(|i| *i != node);
    let ports: Vec<u16> = others.map(|i| nodes.port(i)).collect();
    let mut probes: Vec<Probe> = ports.iter().map(|port| Probe::new(*port)).collect();
    // All are connected, and only what a crash costs is measured.
    for probe in &mut probes {
        probe.writes(&key);
    }
    let began_ms = mono_ms();
    nodes.kill(node);
    while !probes.iter_mut().any(|probe| probe.writes(&key)) {
        assert!(mono_ms() < began_ms + MOST_MS, "nobody took over: {}", nodes.complaint());
        std::thread::sleep(Duration::from_millis(2));
    }
    let took_ms = mono_ms() - began_ms;
    nodes.start_node(node);
    took_ms
}

/// A connection to one node.
struct Probe {
    address: Address,
    connection: Option<Connection>,
}

impl Probe {
    fn new(port: u16) -> Probe {
        Probe { address: Address::tcp("127.0.0.1", port), connection: None }
    }

    /// Whether the node takes a write to the key.
    fn writes(&mut self, key: &str) -> bool {
        let connection = self.connection.take().or_else(|| {
            let mut connection = Connection::connect(&self.address, REPLY).ok()?;
            connection.set_read_timeout(Some(REPLY)).ok()?;
            Some(connection)
        });
        let Some(mut connection) = connection else { return false };
        let Ok(reply) = connection.command(&["SET", key, "v"]) else { return false };
        self.connection = Some(connection);
        reply == Reply::Simple(b"OK".to_vec())
    }
}

/// The values at some percentiles of a list of times.
pub fn percentile(times: &[u64], percent: usize) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0)
}
