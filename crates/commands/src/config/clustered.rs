//! The settings of a node of a cluster.

use super::{Kind, Setting, live, start};
use crate::cluster::durability::{self, MODES};

pub(super) const PORT: Setting = start(
    "cluster-port",
    Kind::Int(0, 65535),
    "0",
    "Port that other nodes connect to, on the addresses of `bind`; 0 for `port` + 10000.",
);

pub(super) const JOIN: Setting = start(
    "cluster-join",
    Kind::Text,
    "",
    "Nodes of a cluster to join, `HOST:PORT` each as clients reach them; empty to begin one, or to go on.",
);

pub(super) const SECRET: Setting = start(
    "cluster-secret",
    Kind::Text,
    "",
    "What the nodes of a cluster know and others do not; needed to listen on a public address.",
);

pub(super) const DIR: Setting = start(
    "cluster-dir",
    Kind::Text,
    "",
    "Directory of the node's identity and of what the cluster agreed on; empty for `nodes-PORT` in `dir`.",
);

pub(super) const COPIES: Setting = start(
    "cluster-copies",
    Kind::Int(1, 7),
    "2",
    "Copies of each key that a new cluster keeps, on as many nodes.",
);

pub(super) const MIN_SYNC: Setting = start(
    "min-sync-replicas",
    Kind::Int(1, 7),
    "1",
    "Copies in sync, the primary's among them, with fewer of which a new cluster takes no writes.",
);

pub(super) const REPLICA_READS: Setting = start(
    "cluster-replica-reads",
    Kind::Bool,
    "yes",
    "Whether in a new cluster clients may read from copies, after READONLY.",
);

pub(super) const ZONE: Setting = start(
    "cluster-zone",
    Kind::Int(0, 65535),
    "0",
    "Number of the zone that the node is in: copies of a key are kept in several, if there are.",
);

pub(super) const ANNOUNCE_IP: Setting = start(
    "cluster-announce-ip",
    Kind::Text,
    "",
    "Address that clients and other nodes are told; empty for the first of `bind`.",
);

pub(super) const ANNOUNCE_PORT: Setting = start(
    "cluster-announce-port",
    Kind::Int(0, 65535),
    "0",
    "Port that cluster clients are told; 0 for `port`.",
);

pub(super) const ANNOUNCE_BUS_PORT: Setting = start(
    "cluster-announce-bus-port",
    Kind::Int(0, 65535),
    "0",
    "Port that other nodes are told; 0 for `cluster-port`.",
);

pub(super) const DURABILITY: Setting = live(
    "durability",
    Kind::Choice(MODES),
    "async",
    durability::apply,
    "What an acknowledged write survives: `sync` every failover, `bounded` all but the last moment, `async` \
     all but what is not replicated yet.",
);

pub(super) const MAX_LAG_MS: Setting = live(
    "durability-max-lag-ms",
    Kind::Int(1, 60_000),
    "100",
    durability::apply,
    "Under `bounded`: replies wait while the oldest record that is not replicated is older.",
);

pub(super) const MAX_LAG_BYTES: Setting = live(
    "durability-max-lag-bytes",
    Kind::Bytes(1 << 10, 1 << 30),
    "1mb",
    durability::apply,
    "Under `bounded`: replies wait while more of a partition is not replicated.",
);

pub(super) const RULES: Setting = live(
    "durability-rules",
    Kind::Checked(durability::check),
    "",
    durability::apply,
    "Another durability for keys with a prefix, as `cart:=sync page:=async`; the longest prefix counts.",
);
