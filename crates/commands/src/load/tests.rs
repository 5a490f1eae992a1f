//! What clients see of leases, stale values and tags, alone and at once.

use super::*;
use crate::leases;
use crate::session::Session;
use crate::shared::{Mailbox, Message, Shared};
use crate::testing::Harness;
use hypercache_stdx::clock;
use std::sync::Arc;
use std::time::Duration;

/// A server with further clients, whose replies to waits come by message.
struct Clients {
    h: Harness,
    sessions: Vec<Session>,
}

impl Clients {
    fn new(count: usize) -> Clients {
        let mut h = Harness::default();
        h.worker.now_ms = clock::now_ms();
        assert!(h.shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok(), "set once");
        let sessions = (0..count).map(|_| Harness::connect(&h.shared)).collect();
        Clients { h, sessions }
    }

    fn run(&mut self, client: usize, command: &str) -> String {
        std::mem::swap(&mut self.h.session, &mut self.sessions[client]);
        let reply = self.h.run(command);
        std::mem::swap(&mut self.h.session, &mut self.sessions[client]);
        String::from_utf8(reply).unwrap()
    }

    /// State, value and token that HC.GET answers.
    fn get(&mut self, client: usize, command: &str) -> (String, String, String) {
        let reply = self.run(client, command);
        parts(&reply)
    }

    /// What clients that waited were answered so far, with the ids of the clients.
    fn answers(&mut self) -> Vec<(u64, String)> {
        let shared: &Shared = &self.h.shared;
        leases::end_due(shared);
        crate::blocking::serve_unserved(shared, &mut self.h.worker);
        let messages = shared.mailboxes.get().expect("they were set")[0].take();
        let answers = messages.into_iter().filter_map(|message| match message {
            Message::Unblock { client, reply, .. } => {
                let session = self.sessions.iter_mut().find(|s| s.client.id == client.id)?;
                session.end_wait();
                Some((client.id, String::from_utf8(reply.flattened()).unwrap()))
            }
            _ => None,
        });
        answers.collect()
    }

    fn id(&self, client: usize) -> u64 {
        self.sessions[client].client.id
    }
}

fn parts(reply: &str) -> (String, String, String) {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    assert_eq!((lines[0], lines[2], lines[6]), ("*8", "state", "value"), "{reply}");
    let is_null = lines[7] == "$-1";
    let value = if is_null { "" } else { lines[8] };
    let token = lines[if is_null { 10 } else { 11 }].trim_start_matches(':');
    (lines[4].into(), value.into(), token.into())
}

fn state(reply: &str) -> String {
    parts(reply).0
}

#[test]
fn one_client_loads_and_the_others_wait_for_it() {
    let mut c = Clients::new(300);
    let (state, _, token) = c.get(0, "HC.GET k LEASE 5000");
    assert_eq!(state, "lease");
    (1..300).for_each(|i| assert_eq!(c.run(i, "HC.GET k LEASE 5000"), "", "{i} waits"));
    assert_eq!(c.h.shared.blocked.len(), 299);
    assert_eq!(c.get(0, "HC.GET k LEASE 5000").0, "busy", "nobody waits for itself");
    assert_eq!(c.run(0, &format!("HC.SET k value LEASE {token} PX 9000")), "+OK\r\n");
    let answers = c.answers();
    assert_eq!(answers.len(), 299);
    for (_, reply) in answers {
        let (state, value, token) = parts(&reply);
        assert_eq!((&*state, &*value, &*token), ("hit", "value", "$-1"));
    }
    assert!(c.h.shared.blocked.is_empty() && c.h.shared.keyspace.leases.is_empty());
    assert_eq!(c.h.shared.keyspace.registered.bytes(), 0, "nothing is left of it");
}

#[test]
fn the_lease_of_a_client_that_is_gone_passes_on() {
    let mut c = Clients::new(4);
    assert_eq!(c.get(0, "HC.GET k LEASE 5000").0, "lease");
    assert_eq!(c.run(1, "HC.GET k LEASE 5000"), "");
    assert_eq!(c.run(2, "HC.GET k LEASE 5000"), "");
    assert!(c.answers().is_empty());
    let shared = Arc::clone(&c.h.shared);
    c.sessions[0].close(&shared);
    let answers = c.answers();
    assert_eq!(answers.len(), 1, "the other one waits on");
    assert_eq!((answers[0].0, &*state(&answers[0].1)), (c.id(1), "lease"));
    let token = parts(&answers[0].1).2;
    assert_eq!(c.run(1, &format!("HC.SET k v LEASE {token}")), "+OK\r\n");
    assert_eq!(c.answers().len(), 1);
}

#[test]
fn a_lease_that_is_over_passes_on_and_is_of_no_more_use() {
    let mut c = Clients::new(3);
    let (_, _, token) = c.get(0, "HC.GET k LEASE 20");
    assert_eq!(c.run(1, "HC.GET k LEASE 5000"), "");
    std::thread::sleep(Duration::from_millis(30));
    let answers = c.answers();
    assert_eq!((answers.len(), &*state(&answers[0].1)), (1, "lease"));
    assert_eq!(c.run(0, &format!("HC.SET k old LEASE {token}")), "+REFUSED\r\n");
    let token = parts(&answers[0].1).2;
    assert_eq!(c.run(1, &format!("HC.SET k new LEASE {token}")), "+OK\r\n");
    assert_eq!(c.get(2, "HC.GET k").1, "new");
}

#[test]
fn whatever_invalidates_ends_the_lease() {
    let mut c = Clients::new(2);
    let writes = [
        "DEL k",
        "UNLINK k",
        "HC.DEL k",
        "SET k x",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "LPUSH k x",
        "MSET a 1 k 2",
        "HC.SET k x",
        "EVAL \"redis.call('DEL','k')\" 0",
    ];
    for write in writes {
        let (state, _, token) = c.get(0, "HC.GET k LEASE 5000");
        assert_eq!(state, "lease", "before {write}");
        let reply = c.run(1, write);
        if write.starts_with("EVAL") && reply.starts_with('-') {
            // This crate has no interpreter of its own.
            c.run(1, "DEL k");
        }
        assert_eq!(c.run(0, &format!("HC.SET k old LEASE {token}")), "+REFUSED\r\n", "{write}");
        c.run(1, "DEL k");
        c.run(1, "DEL {k}");
    }
    let (_, _, token) = c.get(0, "HC.GET k LEASE 5000");
    c.run(1, "SELECT 3");
    c.run(1, "DEL k");
    c.run(1, "FLUSHDB");
    assert_eq!(c.run(0, &format!("HC.SET k v LEASE {token}")), "+OK\r\n", "another database");
}

#[test]
fn a_key_whose_time_is_over_keeps_its_lease() {
    let mut c = Clients::new(2);
    c.run(0, "HC.SET k old PX 50 STALE 50");
    c.h.worker.now_ms += 60;
    let (state, value, token) = c.get(0, "HC.GET k LEASE 5000");
    assert_eq!((&*state, &*value), ("stale", "old"));
    let (state, value, other) = c.get(1, "HC.GET k LEASE 5000");
    assert_eq!((&*state, &*value, &*other), ("stale", "old", "$-1"), "one client loads it");
    assert_eq!(c.get(1, "HC.GET k LEASE 5000 STALE 5 WAIT 0").0, "busy", "it wants none so old");
    c.h.worker.now_ms += 60;
    assert_eq!(c.get(1, "HC.GET k").0, "miss");
    assert_eq!(c.run(0, &format!("HC.SET k new LEASE {token}")), "+OK\r\n");
    assert_eq!(c.get(1, "HC.GET k").1, "new");
}

#[test]
fn a_tag_that_is_invalidated_refuses_what_was_loaded_before() {
    let mut c = Clients::new(3);
    let (_, _, token) = c.get(0, "HC.GET k LEASE 5000");
    assert_eq!(c.run(2, "HC.GET k LEASE 5000"), "");
    c.run(1, "HC.TAG.INVALIDATE t");
    assert_eq!(c.run(0, &format!("HC.SET k old LEASE {token} TAGS s t")), "+REFUSED\r\n");
    assert_eq!(state(&c.answers()[0].1), "lease", "the next one loads it");
    let (_, _, token) = c.get(0, "HC.GET j LEASE 5000");
    c.run(1, "HC.TAG.INVALIDATE t");
    assert_eq!(c.run(0, &format!("HC.SET j new LEASE {token} TAGS s")), "+OK\r\n");
    assert_eq!(c.run(1, "HC.TAG.INVALIDATE s"), ":1\r\n");
    assert_eq!(c.get(0, "HC.GET j").0, "miss");
}

#[test]
fn no_command_sees_a_key_whose_tag_was_invalidated() {
    let mut c = Clients::new(1);
    let looks = [
        ("GET {k}1", "$-1\r\n"),
        ("EXISTS {k}1", ":0\r\n"),
        ("STRLEN {k}1", ":0\r\n"),
        ("TTL {k}1", ":-2\r\n"),
        ("TYPE {k}1", "+none\r\n"),
        ("OBJECT ENCODING {k}1", "$-1\r\n"),
        ("MGET {k}1", "*1\r\n$-1\r\n"),
        ("DEL {k}1", ":0\r\n"),
        ("DUMP {k}1", "$-1\r\n"),
        ("COPY {k}1 {k}2", ":0\r\n"),
        ("RENAME {k}1 {k}2", "-ERR no such key\r\n"),
        ("APPEND {k}1 x", ":1\r\n"),
        ("SETNX {k}1 x", ":1\r\n"),
        ("INCR {k}1", ":1\r\n"),
        ("RPUSH {k}1 x", ":1\r\n"),
        ("SET {k}1 x XX", "$-1\r\n"),
        ("GETSET {k}1 x", "$-1\r\n"),
        ("PERSIST {k}1", ":0\r\n"),
        ("KEYS *", "*0\r\n"),
        ("SCAN 0 COUNT 1000000", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("RANDOMKEY", "$-1\r\n"),
    ];
    for (look, reply) in looks {
        for prepare in
            ["", "RENAME {k}1 {k}3", "COPY {k}1 {k}1 DB 1", "MOVE {k}1 1", "APPEND {k}1 5"]
        {
            c.run(0, "FLUSHALL");
            c.run(0, "HC.SET {k}1 5 TAGS t");
            let look = match prepare.split(' ').next().unwrap_or_default() {
                "RENAME" => look.replace("{k}1", "{k}3"),
                "COPY" | "MOVE" => {
                    c.run(0, prepare);
                    c.run(0, "SELECT 1");
                    look.to_owned()
                }
                _ => look.to_owned(),
            };
            if !prepare.is_empty() && !prepare.ends_with('1') {
                c.run(0, prepare);
            }
            assert_ne!(c.run(0, "HC.TAG.INVALIDATE t"), ":0\r\n", "{prepare} {look}");
            assert_eq!(c.run(0, &look), reply, "{look} after {prepare}");
            c.run(0, "SELECT 0");
        }
    }
}

#[test]
fn memory_of_invalidated_keys_comes_back() {
    let mut c = Clients::new(1);
    let free = c.h.shared.bytes_used();
    (0..5000).for_each(|n| drop(c.run(0, &format!("HC.SET {{{}}}{n} value TAGS t", n % 7))));
    c.run(0, "SET {1}other 1");
    assert_eq!(c.h.shared.bytes_used(), c.h.bytes_there());
    assert_eq!(c.run(0, "HC.TAG.INVALIDATE t"), ":5000\r\n");
    let mut gone = 0;
    for partition in 0..crate::keyspace::PARTITIONS as u16 {
        let mut shard = c.h.shared.keyspace.lock(partition);
        loop {
            let (looked, removed) = shard.expire_due(c.h.worker.now_ms, 100);
            gone += removed;
            if looked < 100 {
                break;
            }
        }
        c.h.worker.stats.add_bytes(shard.take_bytes_delta());
    }
    assert_eq!((gone, &*c.run(0, "DBSIZE")), (5000, ":1\r\n"));
    assert_eq!(c.h.shared.bytes_used(), c.h.bytes_there());
    let left = c.h.shared.bytes_used() - free;
    assert!(left < 5000 * 16, "{left}: tables, and little else");
}

#[test]
fn the_longer_loading_takes_the_earlier_it_begins() {
    let mut rng = Rng::new(3);
    let mut early = |cost_us, left_ms, percent| {
        let found =
            Found { is_negative: false, stale_for_ms: None, fresh_for_ms: Some(left_ms), cost_us };
        (0..10_000).filter(|_| found.is_due_early(&mut rng, percent)).count() as f64 / 10_000.0
    };
    // The chance is e to the power of minus what is left by what it takes.
    for (cost_us, left_ms, share) in
        [(200_000, 200, 0.3679), (200_000, 600, 0.0498), (1000, 200, 0.0)]
    {
        let is = early(cost_us, left_ms, 100);
        assert!((is - share).abs() < 0.02, "{is} instead of {share}");
    }
    assert!((early(100_000, 200, 200) - 0.3679).abs() < 0.02, "percent");
    assert_eq!((early(0, 0, 100), early(200_000, 1, 0)), (0.0, 0.0));

    let mut c = Clients::new(2);
    c.run(0, "HC.SET k v PX 60000 COST 4000000000");
    let tokens: Vec<String> = (0..3).map(|_| c.get(0, "HC.GET k LEASE 500").2).collect();
    assert_eq!(tokens.iter().filter(|token| **token != "$-1").count(), 1, "{tokens:?}");
}

#[test]
fn what_loading_takes_is_measured() {
    let mut c = Clients::new(1);
    let (_, _, token) = c.get(0, "HC.GET k LEASE 5000");
    std::thread::sleep(Duration::from_millis(20));
    c.run(0, &format!("HC.SET k v PX 60000 LEASE {token}"));
    let mut shard = c.h.shared.keyspace.lock(crate::keyspace::partition_of(b"k"));
    let mut costs = Vec::new();
    shard.db(0).expect("there is a key").for_each(|entry| costs.push(entry.care_head().cost_us));
    assert!(costs.len() == 1 && (20_000..2_000_000).contains(&costs[0]), "{costs:?}");
    assert!(shard.take_bytes_delta() >= 0);
}

#[test]
fn what_stands_for_nothing_is_told_and_is_no_value() {
    let mut c = Clients::new(1);
    c.run(0, "HC.SET k \"\" NEGATIVE PX 5000 TAGS t");
    assert_eq!(c.get(0, "HC.GET k LEASE 500"), ("absent".into(), "".into(), "$-1".into()));
    assert_eq!(c.run(0, "HC.TAG.INVALIDATE t"), ":1\r\n");
    assert_eq!(c.get(0, "HC.GET k").0, "miss");
    c.run(0, "HC.SET k \"\" NEGATIVE PX 5000");
    assert_eq!(c.run(0, "KEYS *"), "*0\r\n");
    assert_eq!(c.run(0, "GET k"), "$-1\r\n");
    assert_eq!(c.get(0, "HC.GET k").0, "miss", "who asks otherwise ends it");
    assert!(c.run(0, "HC.SET k x NEGATIVE PX 5").starts_with("-ERR NEGATIVE"));
    assert!(c.run(0, "HC.SET k \"\" NEGATIVE").starts_with("-ERR STALE, JITTER"));
}

#[test]
fn jitter_shortens_times() {
    let mut c = Clients::new(1);
    let mut times: Vec<i64> = (0..200)
        .map(|n| {
            c.run(0, &format!("HC.SET k{n} v PX 100000 JITTER 20"));
            c.run(0, &format!("PTTL k{n}")).trim()[1..].parse().unwrap()
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] >= 80_000 && times[0] < 83_000, "{times:?}");
    assert!(times[199] <= 100_000 && times[199] > 97_000, "{times:?}");
}

#[test]
fn leases_and_waits_are_bounded() {
    let mut c = Clients::new(8);
    c.run(0, "CONFIG SET lease-max 3 lease-waiters-max 2");
    let states: Vec<String> =
        (0..4).map(|n| c.get(0, &format!("HC.GET k{n} LEASE 900")).0).collect();
    assert_eq!(states, ["lease", "lease", "lease", "miss"]);
    assert_eq!(
        (c.run(1, "HC.GET k1 LEASE 900"), c.run(2, "HC.GET k1 LEASE 900")),
        Default::default()
    );
    assert_eq!(c.get(3, "HC.GET k1 LEASE 900").0, "busy");
    assert_eq!(c.get(4, "HC.GET k1 LEASE 900 WAIT 0").0, "busy");
    c.run(5, "DEL k0");
    assert_eq!(c.get(5, "HC.GET k0 LEASE 900").0, "lease", "there is room again");
    for wrong in ["LEASE", "LEASE 0", "LEASE 700000", "WAIT -1", "STALE x", "EX 5"] {
        assert!(c.run(6, &format!("HC.GET k {wrong}")).starts_with("-ERR"), "{wrong}");
    }
    c.run(6, "MULTI");
    c.run(6, "HC.GET k1 LEASE 900");
    assert!(c.run(6, "EXEC").contains("busy"), "a transaction does not wait");
    let waiter = c.sessions[1].blocked().map(Arc::clone).expect("it waits");
    let crate::blocking::TimedOut::Now(reply) = crate::blocking::time_out(&c.h.shared, &waiter)
    else {
        panic!("its time is over");
    };
    assert_eq!(state(&String::from_utf8(reply.flattened()).unwrap()), "busy");
}

#[test]
fn memcached_clients_and_others_share_who_loads() {
    let mut c = Clients::new(2);
    c.run(0, "HC.SET k v PX 100000");
    assert_eq!(c.run(0, "HC.DEL k STALE 5000"), ":1\r\n");
    let (state, _, token) = c.get(0, "HC.GET k LEASE 5000");
    assert_eq!(state, "stale");
    let run = |c: &mut Clients, line: &str| crate::memcached::tests::run(&mut c.h, line);
    assert_eq!(run(&mut c, "mg k v\n"), "VA 1 Z X\nv\n", "another client loads it");
    run(&mut c, "md missing\n");
    assert_eq!(c.run(0, &format!("HC.SET k w LEASE {token} PX 9000")), "+OK\r\n");
    assert_eq!(run(&mut c, "mg k v\n"), "VA 1\nw\n");
    run(&mut c, "md k I T30\n");
    let (state, value, token) = c.get(0, "HC.GET k LEASE 5000");
    assert_eq!((&*state, &*value), ("stale", "w"));
    run(&mut c, "md k I T30\n");
    assert_eq!(c.run(0, &format!("HC.SET k x LEASE {token}")), "+REFUSED\r\n");
    let (_, _, token) = c.get(0, "HC.GET j LEASE 5000");
    run(&mut c, "md j\n");
    assert_eq!(c.run(0, &format!("HC.SET j x LEASE {token}")), "+REFUSED\r\n");
}

/// Loaders and writers of one key, in any order of their steps: what a loader read before a writer's
/// invalidation was answered is never there afterwards.
#[test]
fn nothing_is_stored_that_was_read_before_it_changed() {
    const RACES: usize = 100_000;
    let (mut c, mut rng) = (Clients::new(4), Rng::new(11));
    let mut origin = 0_u64;
    // What each of two loaders is at: its token and what it read.
    let mut loading: [Option<(String, Option<u64>)>; 2] = [None, None];
    let (mut stored, mut refused, mut invalidated, mut step) = (0, 0, 0, 0);
    while stored + refused < RACES {
        step += 1;
        let i = rng.below(2) as usize;
        match loading[i].take() {
            _ if rng.below(4) == 0 => {
                origin += 1;
                let how = ["DEL k", "HC.TAG.INVALIDATE t", "UNLINK k", "HC.DEL k"];
                // All partitions are looked at for a tag, so that is tried less often.
                let how = how[if step % 16 == 0 { 1 } else { [0, 2, 3][rng.below(3) as usize] }];
                c.run(2, how);
                invalidated = origin;
            }
            None => {
                let (state, value, token) = c.get(i, "HC.GET k LEASE 600000 WAIT 0");
                if state == "hit" {
                    assert!(value.parse::<u64>().unwrap() >= invalidated, "stale in step {step}");
                    c.run(3, "DEL k");
                } else if state == "lease" {
                    loading[i] = Some((token, None));
                }
            }
            Some((token, None)) => loading[i] = Some((token, Some(origin))),
            Some((token, Some(read))) => {
                match &*c.run(i, &format!("HC.SET k {read} PX 600000 LEASE {token} TAGS t")) {
                    "+OK\r\n" => stored += 1,
                    "+REFUSED\r\n" => refused += 1,
                    other => panic!("{other}"),
                }
            }
        }
    }
    assert!(stored > RACES / 3 && refused > RACES / 4, "{stored} stored, {refused} refused");
}

/// As before, with threads.
#[test]
fn nothing_stale_is_stored_by_threads_either() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    const ROUNDS: usize = 30_000;
    let first = Harness::default();
    let (origin, invalidated) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut h = Harness::beside(&first.shared);
            for _ in 0..ROUNDS {
                let new = origin.fetch_add(1, SeqCst) + 1;
                h.run("DEL k");
                invalidated.store(new, SeqCst);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut h = Harness::beside(&first.shared);
                for _ in 0..ROUNDS {
                    let least = invalidated.load(SeqCst);
                    let reply = h.run("HC.GET k LEASE 600000 WAIT 0");
                    let (state, value, token) = parts(std::str::from_utf8(&reply).unwrap());
                    if state == "hit" {
                        assert!(value.parse::<u64>().unwrap() >= least, "{value} < {least}");
                    } else if state == "lease" {
                        let read = origin.load(SeqCst);
                        h.run(&format!("HC.SET k {read} LEASE {token}"));
                    }
                }
            });
        }
    });
}
