//! Whole clusters in one process: real sockets, threads, log and clock, and a server of registers.

#![allow(clippy::print_stdout, reason = "figures for whoever runs it")]

mod support;

use hypercache_cluster::ids::{NodeId, PARTITIONS};
use hypercache_cluster::meta::{Command, MetaState};
use hypercache_stdx::clock::mono_ms;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{Outcome, Process, eventually, options};

fn is_whole(meta: &MetaState, copies: usize) -> bool {
    let has_all = |config: &hypercache_cluster::meta::PartitionConfig| {
        config.isr.len() == copies && config.isr.iter().all(|member| meta.is_alive(*member))
    };
    meta.partitions.len() == usize::from(PARTITIONS) && meta.partitions.values().all(has_all)
}

/// Makes a call at whichever node answers it. Calls here may be made twice.
fn call(nodes: &[&Process], f: impl Fn(&Process) -> Outcome) -> Outcome {
    let until_ms = mono_ms() + 8000;
    while mono_ms() < until_ms {
        for node in nodes {
            match f(node) {
                Outcome::Refused | Outcome::Unknown => {}
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

fn is_even(nodes: &[&Process]) -> bool {
    let meta = nodes[0].toy.meta();
    let counts = nodes.iter().map(|node| {
        meta.partitions.values().filter(|c| Some(c.primary) == node.toy.member()).count()
    });
    let (most, least) = (counts.clone().max().unwrap_or(0), counts.min().unwrap_or(0));
    least > 0 && most - least <= 34
}

fn leader_of(nodes: &[&Process]) -> Option<NodeId> {
    nodes.iter().find_map(|node| node.node.status().log.leader.filter(|l| *l == node.node.me()))
}

/// Three nodes are enough for two cores.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNS: Mutex<()> = Mutex::new(());
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
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
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let [a, b, c] = three(root.path());
    write_all(&[&a, &b, &c], 1);
    read_all(&[&a, &b, &c], 1);
    eventually("each is primary of its share", 10, || is_even(&[&a, &b, &c]));
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
    let all: Vec<&Process> = rest.iter().chain([&back]).collect();
    eventually("each is primary of its share again", 10, || is_even(&all));
    read_all(&all, 2);

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

#[test]
fn a_cluster_that_stopped_as_a_whole_comes_back_and_says_what_is_lost() {
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let all = three(root.path());
    let ids = all.each_ref().map(|node| node.node.me());
    let places = all.each_ref().map(|node| node.options.clone());
    all.iter().for_each(|node| node.node.stop());
    drop(all);
    let again = places.map(|place| {
        let port = support::free_port();
        // All have other addresses than before; two know one of them.
        let address = hypercache_cluster::meta::NodeAddress { bus_port: port, ..place.address };
        hypercache_node::Options { bus_port: port, address, join: Vec::new(), ..place }
    });
    let seed = format!("127.0.0.1:{}@{}", again[0].address.port, again[0].bus_port);
    let again: Vec<Process> = (again.iter().enumerate())
        .map(|(i, place)| {
            let join = if i == 0 { Vec::new() } else { vec![seed.clone()] };
            Process::start(&hypercache_node::Options { join, ..place.clone() })
        })
        .collect();
    let nodes: Vec<&Process> = again.iter().collect();
    assert!(nodes.iter().zip(ids).all(|(node, id)| node.node.me() == id));
    eventually("every partition is there again, empty", 20, || {
        nodes.iter().all(|node| {
            let meta = node.toy.meta();
            is_whole(&meta, 2) && meta.partitions.values().all(|config| config.losses == 1)
        })
    });
    write_all(&nodes, 9);
    read_all(&nodes, 9);
}

#[test]
fn a_goodbye_is_heard() {
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let [a, b, c] = three(root.path());
    write_all(&[&a, &b, &c], 4);
    let since_ms = mono_ms();
    a.node.stop();
    read_all(&[&b, &c], 4);
    println!("all is read again {} ms after a goodbye began", mono_ms() - since_ms);
}

#[test]
fn a_node_is_emptied_and_removed() {
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let [a, b, c] = three(root.path());
    write_all(&[&a, &b, &c], 5);
    let gone = b.node.me();
    a.node.propose(Command::DrainNode(gone));
    eventually("it has nothing", 20, || {
        let meta = a.toy.meta();
        is_whole(&meta, 2) && meta.partitions.values().all(|config| !config.is_on(gone))
    });
    a.node.propose(Command::RemoveNode(gone));
    eventually("it is told that it is no part any more", 5, || b.toy.expelled().is_some());
    read_all(&[&a, &c], 5);
    eventually("it votes no more", 5, || !a.node.status().log.voters.contains(&gone));
}

#[test]
fn strangers_are_refused() {
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let first = options(&root.path().join("a"), &[]);
    let a = Process::start(&first);
    eventually("the first node forms a cluster", 5, || is_whole(&a.toy.meta(), 1));
    let other = options(&root.path().join("b"), &[&first]);
    let stranger = hypercache_node::Options { secret: Some("another".to_owned()), ..other };
    let b = Process::start(&stranger);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!((b.node.cluster_id(), a.toy.meta().nodes.len()), (0, 1));
    drop(b);
    let open = options(&root.path().join("c"), &[]);
    let bind = vec![std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)];
    let open = hypercache_node::Options { secret: None, bind, ..open };
    let refused = support::try_start(&open);
    assert!(refused.is_err_and(|why| why.contains("cluster-secret")));
    let twice = hypercache_node::Options { bus_port: support::free_port(), ..first };
    let refused = support::try_start(&twice);
    assert!(refused.is_err_and(|why| why.contains("another process")));
}

#[test]
fn a_node_does_not_start_without_what_it_voted() {
    let _one = one_at_a_time();
    let root = tempfile::tempdir().expect("a directory");
    let place = options(&root.path().join("a"), &[]);
    let joiner = options(&root.path().join("b"), &[&place]);
    let (a, b) = (Process::start(&place), Process::start(&joiner));
    eventually("the second joins", 10, || {
        a.toy.meta().nodes.len() == 2 && b.toy.member().is_some()
    });
    let identity = || std::fs::read_to_string(place.dir.join("nodes")).unwrap_or_default();
    eventually("it is remembered", 5, || identity().contains("peer"));
    drop((a, b));
    eventually("it ends", 5, || std::fs::remove_file(place.dir.join("log")).is_ok());
    for options in [&place, &hypercache_node::Options { join: Vec::new(), ..joiner.clone() }] {
        let _it_is_there = std::fs::remove_file(options.dir.join("log"));
        let refused = support::try_start(options);
        assert!(refused.as_ref().is_err_and(|why| why.contains("missing")), "{refused:?}");
    }
}
