//! CLUSTER, and the commands by which cluster clients say where they will read.

use crate::client::Address;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::partition_of_slot;
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_protocol::slot::{SLOTS, slot_of};
use hypercache_stdx::number;
use std::fmt::Write;

const BASE: Command =
    Command { group: Group::Cluster, since: "3.0.0", flags: Flags::STALE, ..Command::DEFAULT };

const CHANGE: Flags = Flags::ADMIN.or(Flags::STALE).or(Flags::NO_ASYNC_LOADING);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "CLUSTER",
        arity: -2,
        flags: Flags::NONE,
        summary: "Tells about the cluster.",
        complexity: "That of the subcommand",
        subcommands: CLUSTER,
        ..BASE
    },
    Command {
        name: "READONLY",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        acl: Acl::CONNECTION,
        run: read_only,
        summary: "Lets the connection read from replicas.",
        examples: "> READONLY\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "READWRITE",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        acl: Acl::CONNECTION,
        run: read_only,
        summary: "Has the connection read from primaries again.",
        examples: "> READWRITE\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "ASKING",
        arity: 1,
        flags: Flags::FAST,
        acl: Acl::CONNECTION,
        run: asking,
        summary: "Precedes a request that was redirected by ASK, which this server never does.",
        examples: "> ASKING\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
];

const CLUSTER: &[Command] = &[
    Command {
        name: "ADDSLOTS",
        arity: -3,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "slot [slot ...]",
        examples: "> CLUSTER ADDSLOTS 1\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "ADDSLOTSRANGE",
        since: "7.0.0",
        arity: -4,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "start-slot end-slot [start-slot end-slot ...]",
        examples: "> CLUSTER ADDSLOTSRANGE 1 5\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "BUMPEPOCH",
        arity: 2,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        examples: "> CLUSTER BUMPEPOCH\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "COUNT-FAILURE-REPORTS",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        run: count_failure_reports,
        summary: "How many nodes say that a node does not answer.",
        syntax: "node-id",
        examples: "> CLUSTER COUNT-FAILURE-REPORTS 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "COUNTKEYSINSLOT",
        arity: 3,
        keys: Keys::Each,
        run: count_keys_in_slot,
        summary: "Number of keys of a slot in the selected database.",
        complexity: "O(N) in the number of keys of the slot's partition",
        syntax: "slot",
        examples: "> CLUSTER COUNTKEYSINSLOT 7000\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "DELSLOTS",
        arity: -3,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "slot [slot ...]",
        examples: "> CLUSTER DELSLOTS 1\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "DELSLOTSRANGE",
        since: "7.0.0",
        arity: -4,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "start-slot end-slot [start-slot end-slot ...]",
        examples: "> CLUSTER DELSLOTSRANGE 1 5\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "FAILOVER",
        arity: -2,
        flags: CHANGE,
        run: failover,
        summary: "Refused: this node is nobody's replica.",
        syntax: "[FORCE | TAKEOVER]",
        examples: "> CLUSTER FAILOVER\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "FLUSHSLOTS",
        arity: 2,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        examples: "> CLUSTER FLUSHSLOTS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "FORGET",
        arity: 3,
        flags: CHANGE,
        run: forget,
        summary: "Refused: there is no other node.",
        syntax: "node-id",
        examples: "> CLUSTER FORGET 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "GETKEYSINSLOT",
        arity: 4,
        keys: Keys::Each,
        run: get_keys_in_slot,
        summary: "Keys of a slot in the selected database.",
        complexity: "O(N) in the number of keys of the slot's partition",
        syntax: "slot count",
        examples: "> CLUSTER GETKEYSINSLOT 7000 10\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "HELP",
        since: "5.0.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        examples: "> CLUSTER HELP\n…CLUSTER <subcommand> …",
        summary: "Lists the subcommands.",
        ..BASE
    },
    Command {
        name: "INFO",
        arity: 2,
        run: info,
        summary: "The state of the cluster, one field a line.",
        examples: "> CLUSTER INFO\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "KEYSLOT",
        arity: 3,
        run: key_slot,
        summary: "The slot of a key.",
        complexity: "O(N) in the length of the key",
        syntax: "key",
        examples: "> CLUSTER KEYSLOT a\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "LINKS",
        since: "7.0.0",
        arity: 2,
        run: links,
        summary: "The connections to other nodes.",
        examples: "> CLUSTER LINKS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "MEET",
        arity: -4,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "ip port [cluster-bus-port]",
        examples: "> CLUSTER MEET 127.0.0.1 7000\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "MYID",
        arity: 2,
        run: my_id,
        summary: "The id of this node.",
        examples: "> CLUSTER MYID\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "MYSHARDID",
        since: "7.2.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: my_shard_id,
        summary: "The id of the nodes that have the slots of this one.",
        examples: "> CLUSTER MYSHARDID\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "NODES",
        arity: 2,
        run: nodes,
        summary: "The nodes with their slots, one a line.",
        complexity: "O(N) in the number of nodes",
        examples: "> CLUSTER NODES\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "REPLICAS",
        since: "5.0.0",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        run: replicas,
        summary: "The replicas of a node, one a line.",
        syntax: "node-id",
        examples: "> CLUSTER REPLICAS 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "REPLICATE",
        arity: 3,
        flags: CHANGE,
        run: replicate,
        summary: "Refused: there is no other node.",
        syntax: "node-id",
        examples: "> CLUSTER REPLICATE 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "RESET",
        arity: -2,
        flags: Flags::ADMIN.or(Flags::NO_SCRIPT).or(Flags::STALE),
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "[HARD | SOFT]",
        examples: "> CLUSTER RESET\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SAVECONFIG",
        arity: 2,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        examples: "> CLUSTER SAVECONFIG\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SET-CONFIG-EPOCH",
        arity: 3,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "config-epoch",
        examples: "> CLUSTER SET-CONFIG-EPOCH 1\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SETSLOT",
        arity: -4,
        flags: CHANGE,
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
        syntax: "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
        examples: "> CLUSTER SETSLOT 1 STABLE\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SHARDS",
        since: "7.0.0",
        arity: 2,
        run: shards,
        summary: "The slots, and of each range the nodes that have it.",
        complexity: "O(N) in the number of nodes",
        examples: "> CLUSTER SHARDS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SLAVES",
        arity: 3,
        flags: Flags::ADMIN.or(Flags::STALE),
        run: replicas,
        summary: "The replicas of a node, under its old name.",
        syntax: "node-id",
        examples: "> CLUSTER SLAVES 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "SLOTS",
        arity: 2,
        run: slots,
        summary: "The slots, and of each range the nodes that have it, as lists.",
        complexity: "O(N) in the number of nodes",
        examples: "> CLUSTER SLOTS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
];

/// Most subcommands answer only where there is a cluster.
fn check_enabled(cx: &Cx<'_>) -> Outcome {
    if cx.shared.cluster.is_enabled() { Ok(()) } else { Err(ReplyError::ClusterDisabled) }
}

fn read_only(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    // This node is primary of all slots: what is read here is what was written here either way.
    cx.reply.ok();
    Ok(())
}

fn asking(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.ok();
    Ok(())
}

fn by_itself(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let name = String::from_utf8_lossy(args.get(1)).to_uppercase();
    let text = format!(
        "ERR CLUSTER {name} is not supported: slots, epochs and nodes are managed by the cluster itself"
    );
    cx.reply.error(text.as_bytes());
    Err(ReplyError::Written)
}

fn failover(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    Err(ReplyError::Text("ERR You should send CLUSTER FAILOVER to a replica"))
}

/// Checks that an argument names this node, the only one there is.
fn check_node(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let id = args.get(2);
    if id == cx.shared.cluster.node_id.as_bytes() {
        return Ok(());
    }
    cx.reply.error(&[b"ERR Unknown node ", id].concat());
    Err(ReplyError::Written)
}

fn count_failure_reports(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_node(cx, args)?;
    cx.reply.int(0);
    Ok(())
}

fn replicas(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_node(cx, args)?;
    cx.reply.array(0);
    Ok(())
}

fn forget(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_node(cx, args)?;
    Err(ReplyError::Text("ERR I tried hard but I can't forget myself..."))
}

fn replicate(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_node(cx, args)?;
    Err(ReplyError::Text("ERR Can't replicate myself"))
}

fn info(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let text = format!(
        "cluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n\
         cluster_current_epoch:0\r\ncluster_my_epoch:0\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n"
    );
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn key_slot(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.int(i64::from(slot_of(args.get(2))));
    Ok(())
}

fn links(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.array(0);
    Ok(())
}

fn my_id(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.bulk(cx.shared.cluster.node_id.as_bytes());
    Ok(())
}

fn my_shard_id(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.bulk(cx.shared.cluster.shard_id.as_bytes());
    Ok(())
}

/// Where clients reach this node.
struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// What is announced, or else the end of this very connection.
    fn of(cx: &Cx<'_>) -> Endpoint {
        let config = &cx.shared.config;
        let local = match cx.session.client.local() {
            Address::Ip(address) => address.ip().to_string(),
            _ => String::new(),
        };
        let host = Some(config.get("cluster-announce-ip")).filter(|ip| !ip.is_empty());
        let ports = [config.get("cluster-announce-port"), config.get("port")];
        let port = ports.iter().filter_map(|port| port.parse().ok()).find(|port| *port != 0);
        Endpoint { host: host.unwrap_or(local), port: port.unwrap_or(0) }
    }
}

fn nodes(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let (Endpoint { host, port }, id) = (Endpoint::of(cx), &cx.shared.cluster.node_id);
    let mut text = String::new();
    // The port of a bus between nodes is part of the format: Redis' is 10,000 above the other.
    let bus = u32::from(port) + 10_000;
    let last = SLOTS - 1;
    _ = writeln!(text, "{id} {host}:{port}@{bus} myself,master - 0 0 0 connected 0-{last}");
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn slots(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let Endpoint { host, port } = Endpoint::of(cx);
    cx.reply.array(1);
    cx.reply.array(3);
    cx.reply.int(0);
    cx.reply.int(i64::from(SLOTS) - 1);
    cx.reply.array(4);
    cx.reply.bulk(host.as_bytes());
    cx.reply.int(i64::from(port));
    cx.reply.bulk(cx.shared.cluster.node_id.as_bytes());
    cx.reply.map(0);
    Ok(())
}

fn shards(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let Endpoint { host, port } = Endpoint::of(cx);
    let reply = &mut cx.reply;
    reply.array(1);
    reply.map(2);
    reply.bulk(b"slots");
    reply.array(2);
    reply.int(0);
    reply.int(i64::from(SLOTS) - 1);
    reply.bulk(b"nodes");
    reply.array(1);
    reply.map(7);
    let texts = [
        ("id", cx.shared.cluster.node_id.as_str()),
        ("ip", &host),
        ("endpoint", &host),
        ("role", "master"),
        ("health", "online"),
    ];
    for (name, value) in texts {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (name, value) in [("port", i64::from(port)), ("replication-offset", 0)] {
        reply.bulk(name.as_bytes());
        reply.int(value);
    }
    Ok(())
}

fn count_keys_in_slot(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let slot = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let slot = in_range(slot).ok_or(ReplyError::Text("ERR Invalid slot"))?;
    let mut count = 0;
    each_key(cx, slot, |_| {
        count += 1;
        true
    });
    cx.reply.int(count);
    Ok(())
}

fn get_keys_in_slot(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let number = |i| number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger);
    let (slot, max) = (number(2)?, number(3)?);
    let (Some(slot), Ok(max)) = (in_range(slot), usize::try_from(max)) else {
        return Err(ReplyError::Text("ERR Invalid slot or number of keys"));
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    if max > 0 {
        each_key(cx, slot, |key| {
            found.push(key.to_vec());
            found.len() < max
        });
    }
    found.truncate(max);
    cx.reply.array(found.len());
    found.iter().for_each(|key| cx.reply.bulk(key));
    Ok(())
}

fn in_range(slot: i64) -> Option<u16> {
    u16::try_from(slot).ok().filter(|slot| *slot < SLOTS)
}

/// Buckets that are looked at under one hold of a partition's lock.
const BUCKETS_PER_HOLD: usize = 256;

/// Calls `f` with the keys of a slot in the selected database until it has enough. A key that is
/// there throughout is met, one at a time that tables grow perhaps twice.
fn each_key(cx: &mut Cx<'_>, slot: u16, mut f: impl FnMut(&[u8]) -> bool) {
    let (db, now_ms) = (cx.keys.db, cx.keys.now_ms);
    let (mut cursor, mut wants_more) = (0, true);
    loop {
        cursor = cx.keys.with_shard(partition_of_slot(slot), |shard| {
            let Some(db) = shard.db(db).filter(|db| !db.is_empty()) else { return 0 };
            for _ in 0..BUCKETS_PER_HOLD {
                cursor = db.scan(cursor, &mut |entry: hypercache_store::EntryRef<'_>| {
                    let is_of_slot = slot_of(entry.key()) == slot && !entry.is_expired(now_ms);
                    if wants_more && is_of_slot {
                        wants_more = f(entry.key());
                    }
                });
                if cursor == 0 || !wants_more {
                    break;
                }
            }
            cursor
        });
        if cursor == 0 || !wants_more {
            return;
        }
    }
}
