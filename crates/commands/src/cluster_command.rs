//! CLUSTER, and the commands by which cluster clients say where they will read.

use crate::client::ClientFlags;
use crate::cluster::face::{Face, Shard, node_name, shard_name};
use crate::cluster::{face_of, remove_node};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::partition_of_slot;
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_cluster::ids::{NodeId, PartitionId};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_protocol::slot::{SLOTS, slot_of};
use hypercache_stdx::number;

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
        run: read_write,
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
        summary: "Asks the primaries of all copies that this node has to hand over to it.",
        complexity: "O(N) in the number of partitions",
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
        summary: "Removes a node for good, unless that would lose the last copy of something.",
        complexity: "O(N) in the number of partitions",
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
        run: meet,
        summary: "Refused: a node joins when it is started with the setting cluster-join.",
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
        summary: "The id of the slots whose primary this node is.",
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
        run: by_itself,
        summary: "Refused: the cluster does it by itself.",
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
        summary: "The slots, and of each range its primary; its copies, too, after READONLY.",
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
        summary: "The slots, and of each range its primary, as lists; its copies, too, after READONLY.",
        complexity: "O(N) in the number of nodes",
        examples: "> CLUSTER SLOTS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
];

/// Most subcommands answer only where there is a cluster.
fn check_enabled(cx: &Cx<'_>) -> Outcome {
    if cx.shared.cluster.is_enabled() { Ok(()) } else { Err(ReplyError::ClusterDisabled) }
}

/// Calls `f` with what this node knows and with where the reply goes.
fn tell(cx: &mut Cx<'_>, f: impl FnOnce(&Face<'_>, &mut Reply<'_>) -> Outcome) -> Outcome {
    check_enabled(cx)?;
    let view = cx.shared.cluster.view();
    f(&face_of(cx, &view), &mut cx.reply)
}

fn read_only(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.session.client.set_flag(ClientFlags::READS_COPIES, true);
    cx.reply.ok();
    Ok(())
}

fn read_write(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.session.client.set_flag(ClientFlags::READS_COPIES, false);
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

fn meet(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    let text = "ERR CLUSTER MEET is not supported: start the new node with \
                --cluster-join HOST:PORT of any node of the cluster";
    Err(ReplyError::Text(text))
}

/// The node that an argument names.
fn named(face: &Face<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<NodeId, ReplyError> {
    let name = args.get(2);
    face.named(name).ok_or_else(|| {
        reply.error(&[b"ERR Unknown node ", name].concat());
        ReplyError::Written
    })
}

/// Asks for every partition that this node has a copy of. Whoever is primary hands over when the copy
/// has everything; what is not answered by then stays.
fn failover(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let words: Vec<&[u8]> = args.iter_from(2).collect();
    let is_known = |word: &&[u8]| {
        word.eq_ignore_ascii_case(b"FORCE") || word.eq_ignore_ascii_case(b"TAKEOVER")
    };
    let outside = cx.shared.cluster.outside().cloned();
    tell(cx, |face, reply| {
        if words.len() > 1 || !words.iter().all(is_known) {
            return Err(ReplyError::Syntax);
        }
        let me = face.me();
        let copies = face.partitions().filter(|(_, c)| c.is_in_sync(me) && c.primary != me);
        let copies: Vec<PartitionId> = copies.map(|(id, _)| id).collect();
        let Some(outside) = outside.filter(|_| !copies.is_empty()) else {
            return Err(ReplyError::Text("ERR You should send CLUSTER FAILOVER to a replica"));
        };
        copies.into_iter().for_each(|partition| outside.ask_hand_over(partition, me));
        reply.ok();
        Ok(())
    })
}

fn forget(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let outside = cx.shared.cluster.outside().cloned();
    tell(cx, |face, reply| {
        let node = named(face, args, reply)?;
        if node == face.me().node {
            return Err(ReplyError::Text("ERR I tried hard but I can't forget myself..."));
        }
        remove_node(face, node, outside.as_deref(), reply)
    })
}

fn count_failure_reports(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        let node = named(face, args, reply)?;
        // What others see is not gathered: only the metadata log decides.
        reply.int(i64::from(face.is_down(node)));
        Ok(())
    })
}

fn replicas(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        let node = named(face, args, reply)?;
        let replicas = face.replicas_of(node);
        reply.array(replicas.len());
        replicas.iter().for_each(|r| reply.bulk(face.node_line(*r, Some(node)).as_bytes()));
        Ok(())
    })
}

fn info(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        reply.verbatim("txt", face.info_text().as_bytes());
        Ok(())
    })
}

fn key_slot(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_enabled(cx)?;
    cx.reply.int(i64::from(slot_of(args.get(2))));
    Ok(())
}

fn links(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let now_ms = cx.worker.now_ms;
    tell(cx, |face, reply| {
        let links: Vec<_> = face.seen().peers.iter().filter(|peer| peer.is_connected).collect();
        reply.array(links.len());
        for link in links {
            reply.map(6);
            let node = node_name(link.node);
            for (name, value) in [("direction", "to"), ("node", &node)] {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
            reply.bulk(b"create-time");
            reply.int(now_ms.saturating_sub(link.connected_ms) as i64);
            reply.bulk(b"events");
            reply.bulk(b"rw");
            for name in ["send-buffer-allocated", "send-buffer-used"] {
                reply.bulk(name.as_bytes());
                reply.int(link.queued_bytes as i64);
            }
        }
        Ok(())
    })
}

fn my_id(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        reply.bulk(node_name(face.me().node).as_bytes());
        Ok(())
    })
}

fn my_shard_id(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        reply.bulk(shard_name(face.me().node).as_bytes());
        Ok(())
    })
}

fn nodes(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        reply.verbatim("txt", face.nodes_text().as_bytes());
        Ok(())
    })
}

fn slots(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        let ranges = face.ranges();
        reply.array(ranges.len());
        for range in ranges {
            reply.array(3 + range.replicas.len());
            reply.int(i64::from(range.first));
            reply.int(i64::from(range.last));
            for node in [range.primary].into_iter().chain(range.replicas) {
                let address = face.address(node);
                reply.array(4);
                reply.bulk(address.host.as_bytes());
                reply.int(i64::from(address.port));
                reply.bulk(node_name(node).as_bytes());
                reply.map(0);
            }
        }
        Ok(())
    })
}

fn shards(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, reply| {
        let shards = face.shards();
        reply.array(shards.len());
        for Shard { nodes, runs } in shards {
            reply.map(2);
            reply.bulk(b"slots");
            reply.array(2 * runs.len());
            for (first, last) in runs {
                reply.int(i64::from(first));
                reply.int(i64::from(last));
            }
            reply.bulk(b"nodes");
            reply.array(nodes.len());
            for (i, node) in nodes.into_iter().enumerate() {
                node_of_shard(face, node, i == 0, reply);
            }
        }
        Ok(())
    })
}

/// The fields are in Redis' order, for readers by place.
fn node_of_shard(face: &Face<'_>, node: NodeId, is_primary: bool, reply: &mut Reply<'_>) {
    let address = face.address(node);
    let texts = |reply: &mut Reply<'_>, pairs: &[(&str, &str)]| {
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            reply.bulk(text.as_bytes());
        }
    };
    reply.map(7);
    texts(reply, &[("id", &node_name(node))]);
    reply.bulk(b"port");
    reply.int(i64::from(address.port));
    let role = if is_primary { "master" } else { "replica" };
    texts(reply, &[("ip", &address.host), ("endpoint", &address.host), ("role", role)]);
    // Positions are kept per partition: there is no one number for a node.
    reply.bulk(b"replication-offset");
    reply.int(0);
    texts(reply, &[("health", if face.is_down(node) { "failed" } else { "online" })]);
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
