//! What comparison with Redis does not reach: chance, walks, and fields that expire.

use hypercache_commands::config::Config;
use hypercache_commands::keyspace::PARTITIONS;
use hypercache_commands::testing::Harness;
use hypercache_commands::testing::replay::{KEEP_ALL, dataset, replay};
use hypercache_journal::Event;
use std::collections::BTreeSet;

/// The bulk strings of a reply, whose texts have no line ends.
fn strings(reply: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(reply);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let pairs = lines.iter().zip(&lines[1..]);
    pairs.filter(|(head, _)| head.starts_with('$')).map(|(_, s)| (*s).to_owned()).collect()
}

fn run(harness: &mut Harness, line: &str) -> Vec<String> {
    strings(&harness.run(line))
}

fn int(harness: &mut Harness, line: &str) -> i64 {
    let reply = String::from_utf8(harness.run(line)).expect("an integer");
    reply.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{line}: {reply}"))
}

fn fill(harness: &mut Harness, members: u32) {
    for n in 0..members {
        harness.run(&format!("SADD s m{n}"));
        harness.run(&format!("HSET h m{n} {n}"));
    }
}

/// Removes what is due, as the workers do.
fn expire(harness: &Harness, batch: usize) {
    for partition in 0..PARTITIONS as u16 {
        let mut shard = harness.shared.keyspace.lock(partition);
        while shard.expire_due(harness.worker.now_ms, batch).0 >= batch {}
        harness.worker.stats.add_bytes(shard.take_bytes_delta());
    }
}

#[test]
fn a_walk_sees_all_that_stay_while_others_come_and_go() {
    let mut h = Harness::default();
    fill(&mut h, 3000);
    for command in ["SSCAN s", "HSCAN h"] {
        let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), "0".to_owned(), 0);
        loop {
            let mut reply = run(&mut h, &format!("{command} {cursor} COUNT 100"));
            cursor = reply.remove(0);
            seen.extend(reply);
            calls += 1;
            for n in 0..100 {
                h.run(&format!("SREM s m{}", 1000 + calls * 100 + n));
                h.run(&format!("HSET h other{calls}-{n} x"));
            }
            if cursor == "0" {
                break;
            }
        }
        assert!((0..1000).all(|n| seen.contains(&format!("m{n}"))), "{command}");
        assert!((10..60).contains(&calls), "{command}: {calls} calls");
    }
    let matching = run(&mut h, "SSCAN s 0 MATCH m99* COUNT 1000000");
    assert_eq!(matching[1..].iter().collect::<BTreeSet<_>>().len(), 11);
}

#[test]
fn members_at_random_are_members_and_different_when_they_should_be() {
    let mut h = Harness::default();
    fill(&mut h, 1000);
    for (count, expected) in [(0, 0), (5, 5), (400, 400), (999, 999), (5000, 1000), (-3000, 3000)] {
        for command in ["SRANDMEMBER s", "HRANDFIELD h"] {
            let drawn = run(&mut h, &format!("{command} {count}"));
            assert_eq!(drawn.len(), expected, "{command} {count}");
            assert!(drawn.iter().all(|m| m.starts_with('m')));
            let different: BTreeSet<&String> = drawn.iter().collect();
            assert!(count < 0 || different.len() == expected, "{command} {count}");
        }
    }
    let pairs = run(&mut h, "HRANDFIELD h 400 WITHVALUES");
    assert_eq!(pairs.len(), 800);
    assert!(pairs.chunks(2).all(|pair| pair[0] == format!("m{}", pair[1])));
    assert!(h.run("SRANDMEMBER s -9000000000000000000").starts_with(b"-ERR the reply would"));
    assert_eq!(h.run("PING"), b"+PONG\r\n");
}

#[test]
fn what_is_popped_is_gone_and_comes_once() {
    let mut h = Harness::default();
    fill(&mut h, 1000);
    (0..300).for_each(|n| drop(h.run(&format!("SADD ints {n}"))));
    for (key, all) in [("s", 1000), ("ints", 300)] {
        let mut popped = BTreeSet::new();
        for command in [format!("SPOP {key}"), format!("SPOP {key} 99"), format!("SPOP {key} 9999")]
        {
            for member in run(&mut h, &command) {
                assert_eq!(int(&mut h, &format!("SISMEMBER {key} {member}")), 0);
                assert!(popped.insert(member), "{command}");
            }
        }
        assert_eq!((popped.len(), int(&mut h, &format!("EXISTS {key}"))), (all, 0));
    }
}

#[test]
fn an_expired_field_is_seen_by_nobody_and_freed_by_the_workers() {
    let mut h = Harness::default();
    fill(&mut h, 2000);
    for n in 0..1990 {
        h.run(&format!("HPEXPIRE h {} FIELDS 1 m{n}", 500 + n % 7));
    }
    assert_eq!(int(&mut h, "HLEN h"), 2000);
    h.worker.now_ms += 1000;
    let live: BTreeSet<String> = (1990..2000).map(|n| format!("m{n}")).collect();
    let seen = |reply: Vec<String>| reply.into_iter().collect::<BTreeSet<_>>() == live;
    assert_eq!(int(&mut h, "HLEN h"), 10);
    assert!(seen(run(&mut h, "HKEYS h")) && seen(run(&mut h, "HRANDFIELD h 100")));
    assert!(seen(run(&mut h, "HRANDFIELD h -500")));
    assert_eq!(run(&mut h, "HSCAN h 0 COUNT 100000").len(), 1 + 20);
    assert_eq!(run(&mut h, "HGETALL h").len(), 20);
    assert_eq!(h.run("HMGET h m0 m1999"), b"*2\r\n$-1\r\n$4\r\n1999\r\n");
    assert_eq!((int(&mut h, "HEXISTS h m5"), int(&mut h, "HSTRLEN h m5")), (0, 0));
    assert_eq!(h.run("HTTL h FIELDS 1 m5"), b"*1\r\n:-2\r\n");
    assert_eq!((int(&mut h, "HDEL h m5 m6"), int(&mut h, "HSET h m7 new")), (0, 1));
    assert_eq!((int(&mut h, "HINCRBY h m8 3"), int(&mut h, "HSETNX h m9 x")), (3, 1));
    let before = h.shared.bytes_used();
    expire(&h, 64);
    assert_eq!(int(&mut h, "HLEN h"), 13);
    let freed = before - h.shared.bytes_used();
    assert!(freed > 40_000, "{freed} of {before} bytes");
    assert_eq!(h.shared.bytes_used(), h.bytes_there());
    h.run("HPEXPIRE h 1 FIELDS 3 m7 m8 m9");
    (1990..2000).for_each(|n| drop(h.run(&format!("HPEXPIRE h 1 FIELDS 1 m{n}"))));
    h.worker.now_ms += 1000;
    expire(&h, 64);
    assert_eq!(int(&mut h, "EXISTS h"), 0);
}

#[test]
fn a_field_keeps_its_time_through_copies_and_in_the_log() {
    let mut config = Config::default();
    KEEP_ALL.iter().for_each(|(name, value)| config.set_at_start(name, value).expect("valid"));
    let mut h = Harness::new(config);
    h.run("HSETEX {k}a PX 100 FIELDS 2 f 1 g 2");
    h.run("HSET {k}a stays 3");
    h.run("COPY {k}a {k}b");
    h.run("RENAME {k}a {k}c");
    h.run("PEXPIRE {k}c 100000");
    h.run("HINCRBY {k}b f 5");
    h.worker.now_ms += 101;
    assert_eq!(run(&mut h, "HKEYS {k}b"), ["stays"]);
    // The wheel's tick comes within a quarter of a second.
    h.worker.now_ms += 256;
    expire(&h, 64);
    assert_eq!(replay(&h), dataset(&h));
    let mut names = Vec::new();
    for partition in 0..PARTITIONS as u16 {
        let shard = h.shared.keyspace.lock(partition);
        let read = shard.history.log.read_from(1, &mut |effect| names.push(effect.event));
        assert!(read.is_ok());
    }
    let told = |wanted| names.iter().filter(|event| **event == wanted).count();
    assert_eq!((told(Event::HExpired), told(Event::HExpire), told(Event::Del)), (2, 1, 0));
}
