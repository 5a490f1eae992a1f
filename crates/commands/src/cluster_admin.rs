//! HC.CLUSTER: what `hypercache cluster` shows of a cluster and does with its nodes.

use crate::cluster::face::{Face, node_name};
use crate::cluster::health::Health;
use crate::cluster::{face_of, remove_node};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Command, Flags, Group};
use hypercache_cluster::host::Outside;
use hypercache_cluster::ids::NodeId;
use hypercache_cluster::meta::{Command as Change, NodeEntry, NodeState, PartitionConfig};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use std::sync::Arc;

const BASE: Command = Command {
    group: Group::Cluster,
    since: "0.1.0",
    flags: Flags::ADMIN.or(Flags::LOADING).or(Flags::STALE),
    complexity: "O(N) in the number of partitions",
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "HC.CLUSTER",
    arity: -2,
    flags: Flags::NONE,
    summary: "Tells operators about the cluster, and takes nodes out of it.",
    complexity: "That of the subcommand",
    subcommands: SUBCOMMANDS,
    ..BASE
}];

const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "DRAIN",
        arity: 3,
        run: drain,
        summary: "Has a node emptied: its copies are made elsewhere, and it hands over.",
        syntax: "node-id",
        examples: "> HC.CLUSTER DRAIN 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        complexity: "O(1)",
        examples: "> HC.CLUSTER HELP\n…HC.CLUSTER <subcommand> …",
        ..BASE
    },
    Command {
        name: "NODES",
        arity: 2,
        run: nodes,
        summary: "The nodes, each with its state and how many partitions it has.",
        examples: "> HC.CLUSTER NODES\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "PLAN",
        arity: 2,
        run: plan,
        summary: "What the cluster would move next, with reasons.",
        examples: "> HC.CLUSTER PLAN\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "REMOVE",
        arity: 3,
        run: remove,
        summary: "Removes a node for good, unless that would lose the last copy of something.",
        syntax: "node-id",
        examples: "> HC.CLUSTER REMOVE 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "STATUS",
        arity: 2,
        run: status,
        summary: "Whether the cluster is well, and what is wrong in words.",
        examples: "> HC.CLUSTER STATUS\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
    Command {
        name: "UNDRAIN",
        arity: 3,
        run: undrain,
        summary: "Lets a node have copies again that was to be emptied.",
        syntax: "node-id",
        examples: "> HC.CLUSTER UNDRAIN 07c37df\n(error) ERR This instance has cluster support disabled",
        ..BASE
    },
];

/// Calls `f` with what this node knows, its runtime, and where the reply goes.
fn tell(
    cx: &mut Cx<'_>,
    f: impl FnOnce(&Face<'_>, Option<Arc<dyn Outside>>, &mut Reply<'_>) -> Outcome,
) -> Outcome {
    let cluster = &cx.shared.cluster;
    if !cluster.is_enabled() {
        return Err(ReplyError::ClusterDisabled);
    }
    let (view, outside) = (cluster.view(), cluster.outside().cloned());
    f(&face_of(cx, &view), outside, &mut cx.reply)
}

/// A field of a map.
enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Yes(bool),
}

fn fields(reply: &mut Reply<'_>, fields: &[(&str, Value<'_>)]) {
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        match value {
            Value::Text(text) => reply.bulk(text.as_bytes()),
            Value::Number(n) => reply.int(*n as i64),
            Value::Yes(is) => reply.bool(*is),
        }
    }
}

fn texts(reply: &mut Reply<'_>, texts: &[String]) {
    reply.array(texts.len());
    texts.iter().for_each(|text| reply.bulk(text.as_bytes()));
}

fn status(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, _, reply| {
        let health = Health::of(face);
        let leader = face.seen().leader.map(node_name).unwrap_or_default();
        let numbers = [
            ("nodes", health.nodes as u64),
            ("nodes-down", health.nodes_down as u64),
            ("partitions", health.partitions as u64),
            ("without-primary", health.without_primary as u64),
            ("below-copies", health.below_copies as u64),
            ("below-min-sync", health.below_min_sync as u64),
            ("copies-joining", health.copies_joining as u64),
            ("losses", health.losses),
            ("voters", face.seen().voters.len() as u64),
            ("term", face.seen().term),
            ("index", face.index()),
        ];
        reply.map(2 + numbers.len() + 2);
        let texts_first =
            [("state", Value::Text(health.state())), ("leader", Value::Text(&leader))];
        fields(reply, &texts_first);
        fields(reply, &numbers.map(|(name, n)| (name, Value::Number(n))));
        reply.bulk(b"problems");
        texts(reply, &health.problems);
        reply.bulk(b"notes");
        texts(reply, &health.notes);
        Ok(())
    })
}

fn nodes(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |face, _, reply| {
        let nodes: Vec<_> = face.nodes().collect();
        reply.array(nodes.len());
        nodes.into_iter().for_each(|(node, entry)| tell_node(face, node, entry, reply));
        Ok(())
    })
}

fn tell_node(face: &Face<'_>, node: NodeId, entry: &NodeEntry, reply: &mut Reply<'_>) {
    let count = |is: &dyn Fn(&PartitionConfig) -> bool| {
        face.partitions().filter(|(_, config)| is(config)).count() as u64
    };
    let in_sync = count(&|c| c.isr.iter().any(|m| m.node == node && face.is_alive(*m)));
    let primaries = count(&|c| c.primary.node == node && face.is_alive(c.primary));
    let state = match entry.state {
        NodeState::Joining => "joining",
        NodeState::Up => "up",
        NodeState::Draining => "draining",
        NodeState::Removed => "removed",
    };
    let (name, address, seen) = (node_name(node), face.address(node), face.seen());
    let told = [
        ("id", Value::Text(&name)),
        ("host", Value::Text(&address.host)),
        ("port", Value::Number(u64::from(address.port))),
        ("bus-port", Value::Number(u64::from(address.bus_port))),
        ("zone", Value::Number(u64::from(entry.zone))),
        ("state", Value::Text(state)),
        ("answers", Value::Yes(!face.is_down(node))),
        ("starts", Value::Number(u64::from(entry.generation.0))),
        ("primaries", Value::Number(primaries)),
        ("replicas", Value::Number(in_sync - primaries)),
        ("learning", Value::Number(count(&|c| c.learners.contains(&node)))),
        ("leads", Value::Yes(seen.leader == Some(node))),
        ("votes", Value::Yes(seen.voters.contains(&node))),
        ("myself", Value::Yes(face.me().node == node)),
    ];
    reply.map(told.len());
    fields(reply, &told);
}

fn plan(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    tell(cx, |_, outside, reply| {
        texts(reply, &outside.map(|outside| outside.plan()).unwrap_or_default());
        Ok(())
    })
}

fn drain(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    change(cx, args, |face, node, outside, reply| {
        let is_place = |other: &(NodeId, &NodeEntry)| {
            other.0 != node && other.1.state == NodeState::Up && !face.is_down(other.0)
        };
        if !face.nodes().any(|other| is_place(&other)) {
            return Err(ReplyError::Text("ERR there is no other node to move its copies to"));
        }
        outside.propose(Change::DrainNode(node));
        reply.ok();
        Ok(())
    })
}

fn undrain(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    change(cx, args, |_, node, outside, reply| {
        outside.propose(Change::JoinNode(node));
        reply.ok();
        Ok(())
    })
}

fn remove(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    change(cx, args, |face, node, outside, reply| remove_node(face, node, Some(outside), reply))
}

/// Calls `f` with the node that the argument names.
fn change(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    f: impl FnOnce(&Face<'_>, NodeId, &dyn Outside, &mut Reply<'_>) -> Outcome,
) -> Outcome {
    tell(cx, |face, outside, reply| {
        let name = String::from_utf8_lossy(args.get(2)).into_owned();
        let node = face.find(&name).map_err(|why| {
            reply.error(format!("ERR '{name}': {why}").as_bytes());
            ReplyError::Written
        })?;
        let Some(outside) = outside else {
            return Err(ReplyError::Text("ERR this node is alone"));
        };
        f(face, node, &*outside, reply)
    })
}

#[cfg(test)]
mod tests {
    use crate::cluster::testing::{Wishes, cluster, member, partition, seen};
    use crate::config::Config;
    use crate::testing::Harness;
    use hypercache_cluster::ids::NodeId;
    use hypercache_cluster::meta::{Command, MetaState};
    use std::sync::Arc;

    /// Node 1 of a cluster of three, of which some do not answer.
    fn node_1(meta: MetaState, down: &[u64]) -> (Harness, Arc<Wishes>) {
        let mut config = Config::default();
        config.set_at_start("cluster-enabled", "yes").expect("a setting");
        let h = Harness::new(config);
        let wishes = Arc::new(Wishes::new(seen(3, down)));
        h.shared.cluster.publish(member(1), &Arc::new(meta));
        h.shared.cluster.attach(Arc::clone(&wishes) as _);
        (h, wishes)
    }

    fn text(h: &mut Harness, line: &str) -> String {
        String::from_utf8(h.run(line)).expect("text")
    }

    #[test]
    fn status_says_what_is_wrong() {
        let (mut h, _) = node_1(cluster(3), &[3]);
        let status = text(&mut h, "HC.CLUSTER STATUS");
        assert!(status.contains("$5\r\nstate\r\n$4\r\ndown\r\n"), "{status}");
        assert!(status.contains("Node 00000000 (10.0.0.1:7003) does not answer"), "{status}");
        let nodes = text(&mut h, "HC.CLUSTER NODES");
        assert!(nodes.starts_with("*3\r\n*28\r\n$2\r\nid\r\n$40\r\n0000000000000001"), "{nodes}");
        assert!(nodes.contains("$9\r\nprimaries\r\n:342\r\n$8\r\nreplicas\r\n:682\r\n"), "{nodes}");
    }

    #[test]
    fn nodes_are_drained_and_removed() {
        let (mut h, wishes) = node_1(cluster(3), &[]);
        assert_eq!(text(&mut h, "HC.CLUSTER DRAIN 9"), "-ERR '9': no such node\r\n");
        assert_eq!(text(&mut h, "HC.CLUSTER DRAIN 0000000000000002"), "+OK\r\n");
        assert_eq!(text(&mut h, "HC.CLUSTER UNDRAIN 0000000000000002"), "+OK\r\n");
        assert_eq!(text(&mut h, "HC.CLUSTER REMOVE 0000000000000002"), "+OK\r\n");
        let two = NodeId(2);
        let proposed = [Command::DrainNode(two), Command::JoinNode(two), Command::RemoveNode(two)];
        assert_eq!(wishes.proposed(), proposed);
        assert_eq!(text(&mut h, "HC.CLUSTER PLAN"), "*1\r\n$15\r\nnothing, really\r\n");
    }

    #[test]
    fn the_last_copy_is_not_removed() {
        let mut meta = cluster(3);
        partition(&mut meta, 1000).isr = vec![member(3)];
        let (mut h, wishes) = node_1(meta, &[]);
        let id = format!("0000000000000003{:024}", 0);
        for command in ["HC.CLUSTER REMOVE", "CLUSTER FORGET"] {
            let reply = text(&mut h, &format!("{command} {id}"));
            let expected = "-ERR the node has the last copy of 1 partitions: drain it first\r\n";
            assert_eq!(reply, expected);
        }
        assert_eq!(wishes.proposed(), []);
    }

    #[test]
    fn failover_asks_for_all_copies_of_this_node() {
        let (mut h, wishes) = node_1(cluster(3), &[]);
        assert_eq!(text(&mut h, "CLUSTER FAILOVER SOON"), "-ERR syntax error\r\n");
        assert_eq!(text(&mut h, "CLUSTER FAILOVER"), "+OK\r\n");
        let asked = wishes.asked();
        assert_eq!((asked.len(), asked[0].0.0, asked[0].1), (682, 342, member(1)));
    }

    #[test]
    fn clients_see_all_nodes() {
        let (mut h, _) = node_1(cluster(3), &[]);
        let primaries = text(&mut h, "CLUSTER SLOTS");
        let begin = "*3\r\n*3\r\n:0\r\n:5471\r\n*4\r\n$8\r\n10.0.0.1\r\n:7001\r\n$40\r\n";
        assert!(primaries.starts_with(begin), "{primaries}");
        h.run("READONLY");
        let slots = text(&mut h, "CLUSTER SLOTS");
        let begin = "*3\r\n*5\r\n:0\r\n:5471\r\n*4\r\n$8\r\n10.0.0.1\r\n:7001\r\n$40\r\n";
        assert!(slots.starts_with(begin), "{slots}");
        let shards = text(&mut h, "CLUSTER SHARDS");
        let begin = "*3\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:5471\r\n$5\r\nnodes\r\n*3\r\n*14\r\n";
        assert!(shards.starts_with(begin), "{shards}");
        assert!(text(&mut h, "CLUSTER LINKS").starts_with("*2\r\n*12\r\n$9\r\ndirection\r\n"));
        let role = "*3\r\n$6\r\nmaster\r\n:0\r\n*2\r\n*3\r\n$8\r\n10.0.0.1\r\n$4\r\n7002\r\n";
        assert!(text(&mut h, "ROLE").starts_with(role));
        let info = text(&mut h, "INFO replication");
        assert!(info.contains("slave1:ip=10.0.0.1,port=7003,state=online,offset=0,lag=0\r\n"));
        let info = text(&mut h, "INFO cluster");
        assert!(info.contains("cluster_enabled:1\r\ncluster_health:ok\r\n"), "{info}");
        let id = format!("0000000000000002{:024}", 0);
        let replicas = text(&mut h, &format!("CLUSTER REPLICAS {id}"));
        let line = format!("{:016x}{:024x} 10.0.0.1:7001@17001 myself,slave {id} ", 1, 0);
        assert!(replicas.starts_with("*2\r\n") && replicas.contains(&line), "{replicas}");
        assert!(text(&mut h, "CLUSTER MEET 1.2.3.4 5").contains("--cluster-join"));
    }
}
