//! Whole clusters in one process: real sockets, threads, log and clock, and a server of registers.

mod support;

use hypercache_cluster::ids::{NodeId, PARTITIONS};
use hypercache_cluster::meta::MetaState;
use hypercache_stdx::clock::mono_ms;
use std::path::Path;
use support::{Outcome, Process, eventually, options};

fn is_whole(meta: &MetaState, copies: usize) -> bool {
    let has_all = |config: &hypercache_cluster::meta::PartitionConfig| {
        config.isr.len() == copies && config.isr.iter().all(|member| meta.is_alive(*member))
    };
    meta.partitions.len() == usize::from(PARTITIONS) && meta.partitions.values().all(has_all)
}

/// Makes a call at whichever node answers it.
fn call(nodes: &[&Process], f: impl Fn(&Process) -> Outcome) -> Outcome {
    let until_ms = mono_ms() + 8000;
    while mono_ms() < until_ms {
        for node in nodes {
            match f(node) {
                Outcome::Refused => {}
                outcome => return outcome,
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Outcome::Refused
}

fn write_all(nodes: &[&Process], value: u64) {
    for key in 0..200 {
        let outcome = call(nodes, |node| node.toy.write(key * 5, value));
        assert_eq!(outcome, Outcome::Done, "key {key}");
    }
}

fn read_all(nodes: &[&Process], value: u64) {
    for key in 0..200 {
        let outcome = call(nodes, |node| node.toy.read(key * 5));
        assert_eq!(outcome, Outcome::Value(Some(value)), "key {key}");
    }
}

fn leader_of(nodes: &[&Process]) -> Option<NodeId> {
    nodes.iter().find_map(|node| node.node.status().log.leader.filter(|l| *l == node.node.me()))
}

fn three(root: &Path) -> [Process; 3] {
    let first = options(&root.join("a"), &[]);
    let a = Process::start(&first);
    eventually("the first node forms a cluster", 5, || is_whole(&a.toy.meta(), 1));
    let b = Process::start(&options(&root.join("b"), &[&first]));
    let c = Process::start(&options(&root.join("c"), &[&first]));
    let all = [a, b, c];
    eventually("every partition has two copies", 20, || {
        all.iter().all(|node| is_whole(&node.toy.meta(), 2))
    });
    eventually("three nodes vote", 5, || {
        all.iter().all(|node| node.node.status().log.voters.len() == 3)
    });
    all
}

#[test]
fn three_nodes_form_a_cluster_and_survive_each_other() {
    let root = tempfile::tempdir().expect("a directory");
    let [a, b, c] = three(root.path());
    write_all(&[&a, &b, &c], 1);
    read_all(&[&a, &b, &c], 1);

    // A node that does not lead dies: nothing is lost.
    let leader = leader_of(&[&a, &b, &c]).expect("somebody leads");
    let (victim, rest): (Vec<_>, Vec<_>) = {
        let mut all = vec![a, b, c];
        let at = all.iter().position(|node| node.node.me() != leader).expect("two follow");
        (vec![all.remove(at)], all)
    };
    let (id, place) = (victim[0].node.me(), victim[0].options.clone());
    let before = victim[0].toy.member().expect("it is registered");
    drop(victim);
    let since_ms = mono_ms();
    let alive: Vec<&Process> = rest.iter().collect();
    read_all(&alive, 1);
    println!("all is read again {} ms after a crash", mono_ms() - since_ms);
    write_all(&alive, 2);

    // It comes back with its directory and finds the others without being told where.
    let back = Process::start(&hypercache_node::Options { join: Vec::new(), ..place });
    assert_eq!(back.node.me(), id);
    eventually("it registers as another member", 10, || {
        back.toy.member().is_some_and(|member| member.generation > before.generation)
    });
    eventually("every partition has two copies again", 20, || is_whole(&back.toy.meta(), 2));

    // The leader dies.
    let at = rest.iter().position(|node| node.node.me() == leader).expect("it runs");
    let mut rest = rest;
    drop(rest.remove(at));
    rest.push(back);
    let since_ms = mono_ms();
    let alive: Vec<&Process> = rest.iter().collect();
    read_all(&alive, 2);
    println!("all is read again {} ms after the leader's crash", mono_ms() - since_ms);
    write_all(&alive, 3);
    read_all(&alive, 3);
}
