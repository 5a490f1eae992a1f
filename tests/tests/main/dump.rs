//! Values move between this server and Redis 7.0: as payloads of DUMP, whatever their type and
//! encoding, and by MIGRATE.

use hypercache_tests::{Frame, Server, Wire, is_installed, mono_ms, request, skipped, wait_for};
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

/// This server and Redis, unless that is not there.
fn both() -> Option<(Server, Server)> {
    if !is_installed("redis-server") {
        skipped("redis-server is not installed");
        return None;
    }
    Some((Server::start(&[]), Server::redis(&[])))
}

fn call(wire: &mut Wire, line: &str) -> Frame {
    wire.call(&line.split(' ').collect::<Vec<_>>())
}

/// Sends a command with many arguments.
fn fill(wire: &mut Wire, command: &str, words: impl Iterator<Item = String>) {
    let all: Vec<String> = command.split(' ').map(str::to_owned).chain(words).collect();
    let reply = wire.call(&all);
    assert_ne!(reply.kind(), b'-', "{command}: {reply:?}");
}

/// Makes values of each type, small and large, with whatever makes their encodings differ.
fn make_values(wire: &mut Wire) {
    for line in [
        "SET int:8 7",
        "SET int:16 -300",
        "SET int:32 100000",
        "SET int:64 1234567890123",
        "SET text hello",
        "RPUSH list:small a 1 -5 4096 -4097 70000 5000000000",
        "SADD set:ints 1 2 3 -70000",
        "SADD set:wide 1 1099511627776",
        "SADD set:text a b 7",
        "HSET hash:small a 1 b two",
        "ZADD zset:small 1 a 2.5 b inf c -inf d -0.1 e 1e300 f",
        "PFADD sketch a b c",
        "GEOADD places 13.4 52.5 Berlin",
        "XGROUP CREATE stream:empty g 0 MKSTREAM",
        "XADD stream:gone 5-5 a 1",
        "XDEL stream:gone 5-5",
        "XADD stream:last 18446744073709551615-18446744073709551614 f v",
    ] {
        assert_ne!(call(wire, line).kind(), b'-', "{line}");
    }
    fill(wire, "SET", ["empty".to_owned(), String::new()].into_iter());
    fill(wire, "SET", ["packed".to_owned(), "ab".repeat(500)].into_iter());
    fill(wire, "SET", ["large".to_owned(), "x".repeat(100_000)].into_iter());
    fill(wire, "RPUSH list:large", (0..3000).map(|i| format!("item{i}").repeat(i % 20)));
    fill(wire, "RPUSH list:huge", ["y".repeat(20_000), "z".into(), "1".repeat(5000)].into_iter());
    fill(wire, "SADD set:large", (0..1500).map(|i| i.to_string()));
    fill(wire, "SADD set:texts", (0..600).map(|i| "m".repeat(i)));
    let field = |i: usize| [format!("f{i}"), "v".repeat(i % 90)];
    fill(wire, "HSET hash:large", (0..800).flat_map(field));
    fill(wire, "HSET hash:long", ["a".to_owned(), "v".repeat(100)].into_iter());
    let scored = |i: usize| [format!("{}", i as f64 * 1.7), format!("m{i}")];
    fill(wire, "ZADD zset:large", (0..700).flat_map(scored));
    fill(wire, "ZADD zset:long 1", std::iter::once("m".repeat(100)));
    make_streams(wire);
}

fn make_streams(wire: &mut Wire) {
    for i in 0..350 {
        call(wire, &format!("XADD stream:same {}-{i} a {i} b {}", i / 3 + 1, "x".repeat(i % 50)));
        let other = if i % 3 == 0 { format!("c{i} 1 d e") } else { format!("a {i}") };
        call(wire, &format!("XADD stream:mixed {}-{i} {other}", i / 7 + 1));
    }
    for line in [
        "XTRIM stream:same MAXLEN 290",
        "XDEL stream:mixed 1-3 2-9 50-349",
        "XGROUP CREATE stream:mixed g 0",
        "XGROUP CREATE stream:mixed 7 $",
        "XREADGROUP GROUP g alice COUNT 20 STREAMS stream:mixed >",
        "XREADGROUP GROUP g bob COUNT 7 STREAMS stream:mixed >",
        "XACK stream:mixed g 1-1 1-2",
        "XGROUP CREATECONSUMER stream:mixed g carol",
        "XDEL stream:mixed 1-5",
    ] {
        assert_ne!(call(wire, line).kind(), b'-', "{line}");
    }
}

fn keys(wire: &mut Wire) -> Vec<String> {
    let keys = call(wire, "KEYS *").items().expect("an array");
    keys.iter().map(Frame::text).collect()
}

/// Copies a key to the other server, there under a name.
fn carry(from: &mut Wire, key: &str, to: &mut Wire, name: &str) {
    let dumped = from.call(&["DUMP", key]);
    let payload = dumped.bulk().unwrap_or_else(|| panic!("{key}: {dumped:?}"));
    let words = [b"RESTORE", name.as_bytes(), b"0", payload, b"REPLACE"];
    assert_eq!(to.call(&words).text(), "OK", "{key}");
}

/// What XINFO tells of a stream, but for the nodes that it is kept in.
fn stream_info(wire: &mut Wire, key: &str) -> Vec<Frame> {
    let full = wire.call(&["XINFO", "STREAM", key, "FULL", "COUNT", "0"]);
    let mut items = full.items().unwrap_or_else(|| panic!("{key}: {full:?}"));
    assert!(items[2].text().starts_with("radix") && items[4].text().starts_with("radix"));
    items.drain(2..6);
    items
}

/// Redis' digest of a value, which is that of its content.
fn digest(redis: &mut Wire, key: &str) -> String {
    redis.call(&["DEBUG", "DIGEST-VALUE", key]).items().expect("an array")[0].text()
}

#[test]
fn values_go_to_redis_and_come_back() {
    let Some((ours, redis)) = both() else { return };
    let (mut ours, mut redis) = (ours.wire(), redis.wire());
    make_values(&mut ours);
    let all = keys(&mut ours);
    assert_eq!(all.len(), 29, "{all:?}");
    for key in all {
        carry(&mut ours, &key, &mut redis, &key);
        if key.starts_with("stream") {
            assert_eq!(stream_info(&mut ours, &key), stream_info(&mut redis, &key), "{key}");
        }
        let before = ours.call(&["DUMP", &key]);
        carry(&mut redis, &key, &mut ours, &key);
        let is_ordered = !key.starts_with("set:") && !key.starts_with("hash:");
        assert!(!is_ordered || ours.call(&["DUMP", &key]) == before, "{key} came back as another");
        let encodings = [&mut ours, &mut redis].map(|w| w.call(&["OBJECT", "ENCODING", &key]));
        assert_eq!(encodings[0], encodings[1], "{key}");
    }
}

#[test]
fn values_of_redis_are_restored_and_go_back() {
    let Some((ours, redis)) = both() else { return };
    let (mut ours, mut redis) = (ours.wire(), redis.wire());
    make_values(&mut redis);
    for key in keys(&mut redis) {
        for compression in ["yes", "no"] {
            call(&mut redis, &format!("CONFIG SET rdbcompression {compression}"));
            carry(&mut redis, &key, &mut ours, &key);
            carry(&mut ours, &key, &mut redis, "back");
            assert_eq!(digest(&mut redis, &key), digest(&mut redis, "back"), "{key}");
            let encoding = ours.call(&["OBJECT", "ENCODING", &key]);
            assert_eq!(encoding, call(&mut redis, "OBJECT ENCODING back"), "{key}");
            if key.starts_with("stream") {
                assert_eq!(stream_info(&mut ours, &key), stream_info(&mut redis, &key), "{key}");
            }
        }
    }
}

/// Arguments of RESTORE behind the payload or in its place, each answered alike.
#[test]
fn what_restore_refuses_is_what_redis_refuses() {
    let Some((ours, redis)) = both() else { return };
    let (mut ours, mut redis) = (ours.wire(), redis.wire());
    call(&mut redis, "SET a 1");
    let dumped = redis.call(&["DUMP", "a"]);
    let good = dumped.bulk().expect("a payload");
    let mut unsealed = good.to_vec();
    let checksum = unsealed.len() - 8;
    unsealed[checksum..].fill(0);
    let (_, empty) = good.split_at(good.len());
    for (ttl, payload, options) in [
        ("0", good, ""),
        ("0", good, ""),
        ("-1", good, ""),
        ("-1", good, " REPLACE"),
        ("x", good, " REPLACE"),
        ("9223372036854775807", good, " REPLACE"),
        ("0", good, " REPLACE"),
        ("1", good, " REPLACE ABSTTL"),
        ("0", &unsealed, ""),
        ("0", empty, ""),
        ("0", &good[1..], ""),
        ("100000", good, " IDLETIME 5"),
        ("0", good, " IDLETIME"),
        ("0", good, " IDLETIME -1"),
        ("0", good, " IDLETIME x"),
        ("0", good, " FREQ 256"),
        ("0", good, " FREQ 1 IDLETIME 1"),
        ("0", good, " IDLETIME 1 FREQ 1"),
        ("0", good, " REPLACE FREQ 255"),
        ("0", good, " REPLACE WHAT"),
    ] {
        let mut words = vec![b"RESTORE", &b"k"[..], ttl.as_bytes(), payload];
        words.extend(options.split(' ').skip(1).map(str::as_bytes));
        let replies = [&mut ours, &mut redis].map(|wire| wire.call(&words));
        assert_eq!(replies[0], replies[1], "ttl {ttl}, options{options}");
        let replies = [&mut ours, &mut redis].map(|wire| call(wire, "EXISTS k"));
        assert_eq!(replies[0], replies[1], "after ttl {ttl}, options{options}");
    }
    assert_eq!(ours.call(&[&b"RESTORE"[..], b"i", b"0", good, b"IDLETIME", b"90"]).text(), "OK");
    assert!((90..100).contains(&call(&mut ours, "OBJECT IDLETIME i").as_int().expect("seconds")));
}

#[test]
fn keys_are_moved_both_ways_with_the_same_replies() {
    let Some((ours, redis)) = both() else { return };
    let tell = |from: &Server, to: &Server| {
        let (mut source, mut target) = (from.wire(), to.wire());
        let migrate = format!("MIGRATE 127.0.0.1 {}", to.port);
        let mut said = Vec::new();
        for line in [
            "MSET a 1 b 2 c 3",
            "PEXPIRE b 50000",
            "{} a 0 1000",
            "{} a 0 1000",
            "SET a 2",
            "{} a 0 1000",
            "{} a 0 1000 COPY REPLACE",
            "EXISTS a",
            "{} a 0 1000 REPLACE AUTH secret",
            "{} a 99 1000",
            "{} a 0 1000 REPLACE",
            "{}  0 1000 REPLACE KEYS a b c nosuch",
            "EXISTS a b c",
            "{} a 0 x",
            "{} a x 1000",
            "{} a 0 1000 AUTH",
            "{} a 0 1000 WHAT",
            "{} a 0 1000 KEYS b",
            "SET a 3",
            "MIGRATE 127.0.0.1 1 a 0 1000",
        ] {
            said.push(call(&mut source, &line.replace("{}", &migrate)));
        }
        said.extend(["GET a", "GET b", "GET c"].map(|line| call(&mut target, line)));
        assert!((1..=50_000).contains(&call(&mut target, "PTTL b").as_int().expect("a time")));
        for wire in [&mut source, &mut target] {
            call(wire, "FLUSHALL");
        }
        said
    };
    assert_eq!(tell(&ours, &redis), tell(&redis, &ours));
}

/// The other clients of the worker go on, and what is under way cannot be called back.
#[test]
fn a_server_that_does_not_answer_keeps_its_client_waiting_and_no_other() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let server = Server::start(&["--threads", "1"]);
    let (mut client, mut other) = (server.wire(), server.wire());
    call(&mut client, "SET a 1");
    let id = call(&mut client, "CLIENT ID").text();
    let started_ms = mono_ms();
    client.send(&request(&["MIGRATE", "127.0.0.1", &port.to_string(), "a", "0", "1500"]));
    wait_for("a client that waits", || (server.info_number("blocked_clients") == 1).then_some(()));
    assert_eq!(call(&mut other, "INCR a").text(), "2");
    assert_eq!(call(&mut other, &format!("CLIENT UNBLOCK {id}")).text(), "0");
    assert!(mono_ms() - started_ms < 1500, "others had to wait");
    assert_eq!(client.read().text(), "IOERR error or timeout reading to target instance");
    assert_eq!(call(&mut other, "GET a").text(), "2");
    let queued = ["MULTI", &format!("MIGRATE 127.0.0.1 {port} a 0 100"), "EXEC"];
    let replies = queued.map(|line| call(&mut other, line));
    assert_eq!(replies[2].items().expect("an array")[0].kind(), b'-');
}

/// A counter that is moved to and fro while it is written: no increment is lost.
#[test]
fn what_is_written_during_a_move_is_moved_or_stays() {
    let (here, there) = (Server::start(&[]), Server::start(&[]));
    let (mut mover, mut target) = (here.wire(), there.wire());
    let migrate = format!("MIGRATE 127.0.0.1 {} n 0 5000 REPLACE", there.port);
    let port = here.port;
    let writer = std::thread::spawn(move || {
        let mut wire = Wire::connect(port);
        for _ in 0..2000 {
            assert_eq!(call(&mut wire, "INCR n").kind(), b':');
        }
    });
    let mut moved = 0;
    while !writer.is_finished() {
        let reply = call(&mut mover, &migrate).text();
        let took = call(&mut target, "GETDEL n").text();
        match reply.as_str() {
            "OK" => moved += took.parse::<i64>().expect("a number"),
            // A copy of what is still here may have been there.
            "NOKEY" => {}
            other => assert!(other.starts_with("TRYAGAIN"), "{other}"),
        }
    }
    writer.join().expect("it wrote all");
    let left = call(&mut mover, "GET n");
    let left = left.bulk().map_or(0, |_| left.text().parse::<i64>().expect("a number"));
    assert_eq!(moved + left, 2000);
}

/// What is on its way counts as memory in use, and a large value goes in one piece with small ones.
#[test]
fn large_values_are_moved_and_count_until_they_are() {
    let (here, there) = (Server::start(&[]), Server::start(&[]));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let (mut mover, mut target) = (here.wire(), there.wire());
    let large = vec![b'x'; 8 << 20];
    assert_eq!(mover.call(&[&b"SET"[..], b"large", &large]).text(), "OK");
    fill(&mut mover, "MSET", (0..600).map(|i| format!("k{i}")));
    let before = here.info_number("used_memory");
    mover.send(&request(&["MIGRATE", "127.0.0.1", &port.to_string(), "large", "0", "1500"]));
    wait_for("a client that waits", || (here.info_number("blocked_clients") == 1).then_some(()));
    assert!(here.info_number("used_memory") >= before + large.len() as u64);
    assert_eq!(mover.read().kind(), b'-');
    assert!(here.info_number("used_memory") < before + (1 << 20));
    let names: String = (0..600).step_by(2).map(|i| format!(" k{i}")).collect();
    let migrate = format!("MIGRATE 127.0.0.1 {}  0 9000 KEYS large{names}", there.port);
    assert_eq!(call(&mut mover, &migrate).text(), "OK");
    assert_eq!(call(&mut mover, "DBSIZE").text(), "0");
    assert_eq!(call(&mut target, "DBSIZE").text(), "301");
    assert_eq!(call(&mut target, "GET large").bulk(), Some(&large[..]));
}

/// A key that arrived while a script has it is deleted when the script ends.
#[test]
fn a_move_ends_when_the_script_does_that_has_its_key() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = target.local_addr().expect("an address").port();
    let server = Server::start(&["--busy-reply-threshold", "20"]);
    let (mut client, mut script, mut other) = (server.wire(), server.wire(), server.wire());
    call(&mut client, "SET a 1");
    client.send(&request(&["MIGRATE", "127.0.0.1", &port.to_string(), "a", "0", "9000"]));
    let (mut peer, _) = target.accept().expect("a connection");
    let endless = "redis.call('GET', KEYS[1]) while true do end";
    script.send(&request(&["EVAL", endless, "1", "a"]));
    wait_for("a busy script", || {
        call(&mut other, "GET a").text().starts_with("BUSY").then_some(())
    });
    // To SELECT and RESTORE.
    peer.write_all(b"+OK\r\n+OK\r\n").expect("it reads");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(call(&mut other, "SCRIPT KILL").text(), "OK");
    assert_eq!(client.read().text(), "OK");
    assert_eq!(call(&mut other, "EXISTS a").text(), "0");
}
