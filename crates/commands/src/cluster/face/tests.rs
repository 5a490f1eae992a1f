//! Tests of [`super`] on made-up states.

use super::*;
use crate::cluster::testing::{cluster, face, member, partition, view};
use hypercache_cluster::meta::MetaState;

fn ids(nodes: &[u64]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

#[test]
fn neighbours_with_the_same_copies_are_one_range() {
    let view = view(cluster(3));
    let ranges = face(&view, &[]).ranges();
    let range = |first, last, primary, replicas: &[u64]| Range {
        first,
        last,
        primary: NodeId(primary),
        replicas: ids(replicas),
    };
    let expected = [
        range(0, 5471, 1, &[2, 3]),
        range(5472, 10927, 2, &[1, 3]),
        range(10928, 16383, 3, &[1, 2]),
    ];
    assert_eq!(ranges, expected);
}

#[test]
fn copies_that_do_not_answer_are_not_told() {
    let mut meta = cluster(3);
    partition(&mut meta, 0).isr = vec![member(1), member(3)];
    partition(&mut meta, 2).primary = member(2);
    let view = view(meta);
    let ranges = face(&view, &[]).ranges();
    let begin: Vec<_> = ranges.iter().take(4).map(|r| (r.first, r.last, r.primary.0)).collect();
    assert_eq!(begin, [(0, 15, 1), (16, 31, 1), (32, 47, 2), (48, 5471, 1)]);
    assert_eq!(ranges[0].replicas, ids(&[3]));
    let with_3_down = face(&view, &[3]).ranges();
    assert_eq!(with_3_down[0].replicas, []);
    let last = with_3_down.last().expect("ranges");
    assert_eq!((last.primary, &last.replicas), (NodeId(3), &ids(&[1, 2])), "nobody took over yet");
}

#[test]
fn shards_gather_ranges_and_nodes_without_slots() {
    let mut meta = cluster(3);
    partition(&mut meta, 2).primary = member(2);
    for number in 0..1024 {
        let config = partition(&mut meta, number);
        config.isr.retain(|m| m.node != NodeId(3));
        if config.primary == member(3) {
            config.primary = member(1);
        }
    }
    let view = view(meta);
    let shards = face(&view, &[]).shards();
    let shard =
        |nodes: &[u64], runs: &[(u16, u16)]| Shard { nodes: ids(nodes), runs: runs.to_vec() };
    let expected = [
        shard(&[1, 2], &[(0, 31), (48, 5471), (10928, 16383)]),
        shard(&[2, 1], &[(32, 47), (5472, 10927)]),
        shard(&[3], &[]),
    ];
    assert_eq!(shards, expected);
    let without_copies = face(&view, &[]).showing_copies(false).shards();
    assert_eq!(without_copies[0], Shard { nodes: ids(&[1]), ..expected[0].clone() });
    assert_eq!(without_copies.len(), 3);
}

#[test]
fn each_node_has_a_line() {
    let view = view(cluster(3));
    let text = face(&view, &[3]).nodes_text();
    let zeros = "0".repeat(24);
    let expected = format!(
        "0000000000000001{zeros} 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5471\n\
         0000000000000002{zeros} 10.0.0.1:7002@17002 master - 0 999980 1 connected 5472-10927\n\
         0000000000000003{zeros} 10.0.0.1:7003@17003 master,fail - 995000 995000 1 disconnected 10928-16383\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_slot_is_there_when_its_primary_answers() {
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect(name).to_owned()
    };
    let view = view(cluster(3));
    let all = face(&view, &[]).info_text();
    assert_eq!(field(&all, "cluster_state"), "ok");
    assert_eq!(field(&all, "cluster_slots_ok"), "16384");
    assert_eq!(field(&all, "cluster_size"), "3");
    let without_3 = face(&view, &[3]).info_text();
    assert_eq!(field(&without_3, "cluster_state"), "fail");
    assert_eq!(field(&without_3, "cluster_slots_fail"), "5456");
    let none = super::View { meta: std::sync::Arc::new(MetaState::default()), ..view };
    assert_eq!(field(&face(&none, &[]).info_text(), "cluster_slots_assigned"), "0");
}

#[test]
fn nodes_are_found_by_the_beginning_of_their_names() {
    let view = view(cluster(3));
    let face = face(&view, &[]);
    assert_eq!(face.find("0000000000000002"), Ok(NodeId(2)));
    assert_eq!(face.find("0000"), Err("several nodes begin like this"));
    assert_eq!(face.find("4"), Err("no such node"));
    assert_eq!(face.named(node_name(NodeId(3)).as_bytes()), Some(NodeId(3)));
    assert_eq!(face.named(b"0000000000000003"), None);
    assert_eq!(face.replicas_of(NodeId(2)).into_iter().collect::<Vec<_>>(), ids(&[1, 3]));
}
