//! Clients that wait, without sockets: who is served when, what is left behind, and what it counts.

use hypercache_commands::blocking::{TimedOut, serve_unserved, time_out};
use hypercache_commands::keyspace::partition_of;
use hypercache_commands::leftover::clear_some;
use hypercache_commands::session::Session;
use hypercache_commands::shared::{Mailbox, Message};
use hypercache_commands::testing::Harness;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn harness() -> Harness {
    let h = Harness::default();
    let mailboxes = (0..2).map(|_| Mailbox::new(Box::new(|| {}))).collect();
    assert!(h.shared.mailboxes.set(mailboxes).is_ok(), "set once");
    h
}

/// Has another client run a command, and answers its reply.
fn run_as(h: &mut Harness, session: &mut Session, command: &str) -> Vec<u8> {
    std::mem::swap(&mut h.session, session);
    let reply = h.run(command);
    std::mem::swap(&mut h.session, session);
    reply
}

/// A client that waits in a command.
fn waiting(h: &mut Harness, command: &str) -> Session {
    let mut session = Harness::connect(&h.shared);
    assert_eq!(run_as(h, &mut session, command), b"", "{command} waits");
    session
}

/// What clients that waited were told, in order.
fn told(h: &Harness) -> Vec<(u64, Vec<u8>)> {
    let mailboxes = h.shared.mailboxes.get().expect("they were set");
    let replies = mailboxes[0].take().into_iter().filter_map(|message| match message {
        Message::Unblock { client, reply, .. } => Some((client.id, reply.flattened())),
        _ => None,
    });
    replies.collect()
}

/// Sessions of two keys in different partitions exist as long as this holds.
const SOURCE: &str = "s";
const TARGET: &str = "t";

#[test]
fn the_keys_of_these_tests_are_in_two_partitions() {
    assert_ne!(partition_of(SOURCE.as_bytes()), partition_of(TARGET.as_bytes()));
}

#[test]
fn who_waits_is_served_before_the_writer_goes_on() {
    let mut h = harness();
    let (a, b) = (waiting(&mut h, "BLPOP s 0"), waiting(&mut h, "BLMOVE s t LEFT RIGHT 0"));
    let c = waiting(&mut h, "BLPOP t 0");
    assert_eq!(h.run("RPUSH s 1 2 3"), b":3\r\n");
    let expected = [
        (a.client.id, b"*2\r\n$1\r\ns\r\n$1\r\n1\r\n".to_vec()),
        (b.client.id, b"$1\r\n2\r\n".to_vec()),
        (c.client.id, b"*2\r\n$1\r\nt\r\n$1\r\n2\r\n".to_vec()),
    ];
    assert_eq!(told(&h), expected);
    assert_eq!(h.run("LRANGE s 0 -1"), b"*1\r\n$1\r\n3\r\n");
}

#[test]
fn what_a_held_target_keeps_from_being_served_is_served_before_anything_else() {
    let mut h = harness();
    let mover = waiting(&mut h, "BLMOVE s t LEFT RIGHT 0");
    let shared = Arc::clone(&h.shared);
    let target = shared.keyspace.lock(partition_of(TARGET.as_bytes()));
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| Harness::beside(&shared).run("RPUSH s x"));
        let thief = scope.spawn(|| {
            // It comes while the pusher waits for the target.
            std::thread::sleep(std::time::Duration::from_millis(30));
            Harness::beside(&shared).run("LPOP s")
        });
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert!(!pusher.is_finished() && !thief.is_finished(), "both wait for the target");
        assert_eq!(told(&h), []);
        drop(target);
        assert_eq!(pusher.join().expect("no failure"), b":1\r\n");
        assert_eq!(thief.join().expect("no failure"), b"$-1\r\n", "it found nothing");
    });
    assert_eq!(told(&h), [(mover.client.id, b"$1\r\nx\r\n".to_vec())]);
}

/// Pushers and a thief on several threads. There is always somebody who waits for what is pushed, so the
/// thief must never find anything. Another client keeps the target's partition busy.
#[test]
fn no_third_client_ever_gets_between_a_push_and_who_waits() {
    const PUSHES: usize = 3000;
    let h = harness();
    let (shared, is_over) = (&h.shared, &AtomicBool::new(false));
    let push = move |pusher: usize| {
        let mut h = Harness::beside(shared);
        for i in 0..PUSHES {
            let is_mover = (i + pusher).is_multiple_of(3);
            let _waits =
                waiting(&mut h, if is_mover { "BLMOVE s t LEFT LEFT 0" } else { "BLPOP s 0" });
            assert_eq!(h.run("RPUSH s x"), b":1\r\n");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut thief = Harness::beside(shared);
            while !is_over.load(Relaxed) {
                assert_eq!(thief.run("LPOP s"), b"$-1\r\n");
                assert_eq!(thief.run("LRANGE s 0 -1"), b"*0\r\n");
            }
        });
        scope.spawn(move || {
            let mut busy = Harness::beside(shared);
            while !is_over.load(Relaxed) {
                busy.run("LLEN t");
                busy.run("DEL t");
            }
        });
        scope.spawn(move || {
            let mut served = 0;
            while served < 2 * PUSHES {
                served += told_count(shared);
                std::thread::yield_now();
            }
            is_over.store(true, Relaxed);
        });
        (0..2).for_each(|pusher| drop(scope.spawn(move || push(pusher))));
    });
    assert_eq!(h.shared.blocked.len(), 0);
}

fn told_count(shared: &hypercache_commands::Shared) -> usize {
    shared.mailboxes.get().expect("they were set")[0].take().len()
}

#[test]
fn a_wait_ends_though_its_partition_is_held() {
    let mut h = harness();
    let mut late = waiting(&mut h, "BLPOP s t 1");
    let mut gone = waiting(&mut h, "BLPOP s t 0");
    let unblocked = waiting(&mut h, "BLPOP s t 0");
    assert_eq!(h.run("WATCH s t"), b"+OK\r\n");
    let shared = Arc::clone(&h.shared);
    let held = shared.keyspace.lock(partition_of(SOURCE.as_bytes()));
    let waiter = late.end_wait().expect("it waits");
    assert!(matches!(time_out(&shared, &waiter), TimedOut::Now(_)));
    assert!(matches!(time_out(&shared, &waiter), TimedOut::Before));
    gone.close(&shared);
    assert_eq!(h.run(&format!("CLIENT UNBLOCK {}", unblocked.client.id)), b":1\r\n");
    assert_eq!(h.run("UNWATCH"), b"+OK\r\n");
    assert_eq!((shared.blocked.len(), shared.leftovers.len()), (0, 4));
    // Of each a key in the partition that is free, and what is held is not worth trying again at once.
    clear_some(&shared);
    assert!(!clear_some(&shared));
    assert_eq!(shared.leftovers.len(), 4, "the partition is held yet");
    drop((held, waiter, late, gone, unblocked));
    told(&h);
    clear_some(&shared);
    assert_eq!(shared.leftovers.len(), 0);
    assert_eq!(h.run("RPUSH s x"), b":1\r\n");
    assert_eq!(h.run("DEL s"), b":1\r\n");
    assert_eq!(h.shared.keyspace.registered.bytes(), 0);
}

#[test]
fn much_that_ends_at_once_goes_in_parts() {
    let mut h = harness();
    let keys: String = (0..5000).map(|n| format!(" k{n}")).collect();
    h.run(&format!("WATCH{keys}"));
    let mut session = waiting(&mut h, &format!("BLPOP{keys} 0"));
    assert!(h.shared.keyspace.registered.bytes() > 5000 * 100);
    session.close(&h.shared);
    h.run("UNWATCH");
    drop(session);
    let mut turns = 0;
    loop {
        turns += 1;
        if !clear_some(&h.shared) {
            break;
        }
    }
    assert!((30..50).contains(&turns), "{turns} turns");
    assert_eq!(h.shared.keyspace.registered.bytes(), 0);
}

/// Requests that come faster than the turns clear what they leave.
#[test]
fn what_ends_leaves_no_more_than_there_is_room_for() {
    const ROOM: usize = 16 * 1024;
    let mut h = harness();
    let keys: String = (0..1000).map(|n| format!(" k{n}")).collect();
    for _ in 0..60 {
        assert_eq!(h.run(&format!("WATCH{keys}")), b"+OK\r\n");
        assert_eq!(h.run("UNWATCH"), b"+OK\r\n");
        assert!(h.shared.leftovers.keys() <= ROOM + 1000, "{}", h.shared.leftovers.keys());
    }
    while !h.shared.leftovers.is_empty() {
        clear_some(&h.shared);
    }
    assert_eq!((h.shared.leftovers.keys(), h.shared.keyspace.registered.bytes()), (0, 0));
    for _ in 0..60 {
        let waits = waiting(&mut h, &format!("BLPOP{keys} 0"));
        assert_eq!(h.run("RPUSH k7 x"), b":1\r\n");
        drop((waits, told(&h)));
        assert!(h.shared.leftovers.keys() <= ROOM + 1000, "{}", h.shared.leftovers.keys());
    }
    while !h.shared.leftovers.is_empty() {
        clear_some(&h.shared);
    }
    assert_eq!((h.shared.leftovers.keys(), h.shared.keyspace.registered.bytes()), (0, 0));
}

#[test]
fn unblocking_finds_a_client_that_is_just_tried() {
    let h = harness();
    let (shared, is_over) = (&h.shared, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = Harness::beside(shared);
            while !is_over.load(Relaxed) {
                // The stream is there, so who waits is tried and finds nothing.
                writer.run("XADD k 1-1 f v");
                writer.run("XTRIM k MAXLEN 0");
                writer.run("DEL k");
            }
        });
        let mut own = Harness::beside(shared);
        for _ in 0..3000 {
            let waits = waiting(&mut own, "XREAD BLOCK 0 STREAMS k 9-9");
            assert_eq!(own.run(&format!("CLIENT UNBLOCK {}", waits.client.id)), b":1\r\n");
        }
        is_over.store(true, Relaxed);
    });
}

const NO_STREAM: &[u8] = b"-UNBLOCKED the stream key no longer exists\r\n";

#[test]
fn who_waits_for_a_stream_learns_that_it_expired_or_was_evicted() {
    let mut h = harness();
    h.run("XGROUP CREATE s g $ MKSTREAM");
    let a = waiting(&mut h, "XREADGROUP GROUP g me BLOCK 0 STREAMS s >");
    h.run("PEXPIRE s 1000");
    let partition = partition_of(SOURCE.as_bytes());
    let mut shard = h.shared.keyspace.lock(partition);
    shard.expire_due(h.worker.now_ms + 5000, 100);
    shard.leave_ready(&h.shared.keyspace, partition);
    let shared = Arc::clone(&h.shared);
    assert!(shared.keyspace.has_unserved());
    serve_unserved(&shared, &mut h.worker);
    assert_eq!(told(&h), [], "the partition is held");
    assert!(shared.keyspace.has_unserved());
    drop(shard);
    serve_unserved(&shared, &mut h.worker);
    assert!(!shared.keyspace.has_unserved());
    assert_eq!(told(&h), [(a.client.id, NO_STREAM.to_vec())]);

    h.run("XGROUP CREATE s g $ MKSTREAM");
    let b = waiting(&mut h, "XREADGROUP GROUP g me BLOCK 0 STREAMS s >");
    h.run("CONFIG SET maxmemory 1 maxmemory-policy allkeys-random");
    h.run("SET x y");
    serve_unserved(&shared, &mut h.worker);
    assert_eq!(told(&h), [(b.client.id, NO_STREAM.to_vec())]);
}

#[test]
fn what_clients_register_counts_as_overhead_and_against_maxmemory() {
    let mut h = harness();
    let overhead = |h: &mut Harness| -> usize {
        let info = String::from_utf8(h.run("INFO memory")).expect("text");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory_overhead:"));
        line.expect("the field").parse().expect("a number")
    };
    let none = overhead(&mut h);
    let long = "k".repeat(100_000);
    let mut waits = waiting(&mut h, &format!("BLPOP {long} 0"));
    let one = overhead(&mut h);
    assert!(one >= none + 300_000, "arguments, names and list: {none} {one}");
    h.run(&format!("WATCH {long}"));
    let two = overhead(&mut h);
    assert!(two >= one + 100_000, "{one} {two}");
    assert_eq!(h.shared.bytes_used(), h.bytes_there());
    h.run("CONFIG SET maxmemory 200kb");
    assert!(h.run("SET a b").starts_with(b"-OOM"), "what is registered cannot be evicted");
    waits.close(&h.shared);
    drop(waits);
    h.run("UNWATCH");
    assert_eq!(h.run("SET a b"), b"+OK\r\n");

    h.run("CONFIG SET maxmemory 0");
    h.run("HELLO 3");
    let before = overhead(&mut h);
    h.run("CLIENT TRACKING ON");
    (0..1000).for_each(|n| drop(h.run(&format!("GET key:{n}"))));
    let tracking = overhead(&mut h);
    assert!(tracking > before + 1000 * 48, "{before} {tracking}");
    h.run("FLUSHALL");
    assert!(overhead(&mut h) < before + 1024 * 200, "tables of partitions only");
}
