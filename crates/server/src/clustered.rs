//! From settings to a node of a cluster, and back to a goodbye.

use crate::listen::ip_of;
use hypercache_cluster::host::Host;
use hypercache_cluster::meta::NodeAddress;
use hypercache_cluster::settings::Settings;
use hypercache_commands::Shared;
use hypercache_commands::cluster::host::ServerHost;
use hypercache_commands::cluster::plane::Plane;
use hypercache_commands::config::Config;
use hypercache_node::{BUS_PORT_OFFSET, Node, Options};
use hypercache_stdx::clock;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How long a start waits until the node is one of a cluster. Then it serves: it may be one later.
const READY_WAIT: Duration = Duration::from_secs(3);

/// Records of a partition that are kept for a copy that comes back: 64 MiB if a node has all partitions. A
/// copy that missed more gets the partition anew, a thousandth of the data.
const LOG_BYTES_MAX: usize = 64 << 10;

/// A node of a cluster that runs.
#[derive(Debug)]
pub(crate) struct Clustered {
    plane: Arc<Plane>,
    node: Node,
}

/// Has a server take part in a cluster, if it is to. Before its workers begin.
///
/// # Errors
/// One sentence that says why it cannot.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<Option<Clustered>, String> {
    if !shared.config.is_on("cluster-enabled") {
        return Ok(None);
    }
    if shared.config.get("memcached-port") != "0" {
        let text = "memcached clients cannot follow the keys of a cluster from node to node: leave out \
                    memcached-port or cluster-enabled";
        return Err(text.to_owned());
    }
    let options = options(&shared.config)?;
    let plane = Arc::new(Plane::new(options.settings.clone(), shared.workers()));
    shared.cluster.begin(shared, &plane);
    let host: Arc<dyn Host> = Arc::new(ServerHost::new(shared, &plane));
    let node = hypercache_node::start(options, host)?;
    shared.cluster.attach(node.outside());
    let clustered = Clustered { plane, node };
    clustered.wait_until_ready();
    Ok(Some(clustered))
}

impl Clustered {
    fn is_ready(&self) -> bool {
        let has_partitions = !self.plane.meta().partitions.is_empty();
        has_partitions && self.plane.me().is_some() && self.plane.has_lease(clock::boot_us())
    }

    fn wait_until_ready(&self) {
        let until = clock::instant() + READY_WAIT;
        while !self.is_ready() {
            if clock::instant() >= until {
                return warn!("the node is not one of a cluster yet; it serves when it is");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        info!("this is a node of a cluster");
    }

    /// Says goodbye to the others, when the workers have ended.
    ///
    /// # Errors
    /// When the node did not end because somebody wished it.
    pub(crate) fn stop(self) -> Result<(), String> {
        self.node.stop();
        match self.plane.expelled() {
            Some(why) => Err(format!("this process is no member of its cluster any more: {why}")),
            None => Ok(()),
        }
    }
}

fn number(config: &Config, name: &str) -> u16 {
    // The setting's bounds are those of the type.
    config.get(name).parse().unwrap_or_default()
}

/// The first of some numbers that is not zero.
fn first_of(numbers: [u16; 2]) -> u16 {
    numbers.into_iter().find(|number| *number != 0).unwrap_or_default()
}

/// The addresses of `bind`, without those that need not be there.
fn addresses(config: &Config) -> Result<Vec<IpAddr>, String> {
    let bind = config.get("bind");
    bind.split_whitespace().filter(|word| !word.starts_with('-')).map(ip_of).collect()
}

fn options(config: &Config) -> Result<Options, String> {
    let port = number(config, "port");
    let bus_port = match number(config, "cluster-port") {
        0 => port.checked_add(BUS_PORT_OFFSET).ok_or(
            "port + 10000 is no port: say with cluster-port where other nodes reach this one",
        )?,
        given => given,
    };
    let bind = addresses(config)?;
    let announced = Some(config.get("cluster-announce-ip")).filter(|ip| !ip.is_empty());
    let first = bind.iter().find(|ip| !ip.is_unspecified()).map(IpAddr::to_string);
    let host = announced
        .or(first)
        .ok_or("bind names no address that others can be told: set cluster-announce-ip")?;
    let dir = match config.get("cluster-dir") {
        dir if dir.is_empty() => PathBuf::from(config.get("dir")).join(format!("nodes-{port}")),
        dir => PathBuf::from(dir),
    };
    let secret = Some(config.get("cluster-secret")).filter(|secret| !secret.is_empty());
    Ok(Options {
        dir,
        bind,
        bus_port,
        address: NodeAddress {
            host,
            port: first_of([number(config, "cluster-announce-port"), port]),
            bus_port: first_of([number(config, "cluster-announce-bus-port"), bus_port]),
        },
        join: config.get("cluster-join").split_ascii_whitespace().map(str::to_owned).collect(),
        secret,
        copies: number(config, "cluster-copies") as u8,
        min_sync: number(config, "min-sync-replicas") as u8,
        replica_reads: config.is_on("cluster-replica-reads"),
        zone: number(config, "cluster-zone"),
        settings: Settings { log_bytes_max: LOG_BYTES_MAX, ..Settings::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(settings: &[(&str, &str)]) -> Result<Options, String> {
        let mut config = Config::default();
        for (name, value) in settings {
            config.set_at_start(name, value).expect("a setting");
        }
        options(&config)
    }

    #[test]
    fn settings_say_where_the_node_is_reached() {
        let plain = options_of(&[("port", "7000")]).expect("it can be reached");
        assert_eq!(plain.bind, [IpAddr::from([127, 0, 0, 1])]);
        let expected = NodeAddress { host: "127.0.0.1".into(), port: 7000, bus_port: 17_000 };
        assert_eq!((plain.address, plain.bus_port), (expected, 17_000));
        assert_eq!(plain.dir, PathBuf::from("./nodes-7000"));
        let told = options_of(&[
            ("bind", "0.0.0.0"),
            ("cluster-announce-ip", "cache.example"),
            ("cluster-announce-port", "1"),
            ("cluster-port", "2"),
            ("cluster-join", "a:1 b:2"),
        ])
        .expect("it can be reached");
        let expected = NodeAddress { host: "cache.example".into(), port: 1, bus_port: 2 };
        assert_eq!((told.address, told.join.len()), (expected, 2));
        assert!(options_of(&[("bind", "0.0.0.0")]).is_err(), "others must be told something");
        assert!(options_of(&[("port", "60000")]).is_err());
    }
}
