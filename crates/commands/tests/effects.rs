//! Replaying the log of effects into an empty store gives the same dataset: what a replica, a
//! backup and a restore will rest on.

use hypercache_commands::config::Config;
use hypercache_commands::keyspace::PARTITIONS;
use hypercache_commands::testing::Harness;
use hypercache_commands::testing::replay::{KEEP_ALL, dataset, replay};
use proptest::prelude::*;

fn logging_config() -> Config {
    let mut config = Config::default();
    for (name, value) in KEEP_ALL {
        config.set_at_start(name, value).expect("a valid setting");
    }
    config
}

/// Commands over few keys, so that they meet.
fn any_command() -> impl Strategy<Value = String> {
    let key = || (0u8..12).prop_map(|n| format!("k{n}"));
    let word = || prop_oneof![Just("1"), Just("-7"), Just("3.5"), Just("foobar"), Just("\"\"")];
    let db = || 0u8..4;
    let n = || -3i64..40;
    prop_oneof![
        8 => (key(), word()).prop_map(|(k, v)| format!("SET {k} {v}")),
        2 => (key(), word(), 1u16..500).prop_map(|(k, v, t)| format!("SET {k} {v} PX {t}")),
        2 => (key(), word()).prop_map(|(k, v)| format!("SET {k} {v} KEEPTTL GET")),
        2 => (key(), word(), word()).prop_map(|(k, v, w)| format!("SET {k} {v} IFNE {w} EX 9")),
        1 => (key(), word(), word()).prop_map(|(k, v, w)| format!("SET {k} {v} IFEQ {w} KEEPTTL")),
        1 => (key(), word()).prop_map(|(k, v)| format!("DELEX {k} IFEQ {v}")),
        1 => (key(), word()).prop_map(|(k, v)| format!("DELIFEQ {k} {v}")),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!("MSETEX 2 {a} {n} {b} x PX {n}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("MSETEX 2 {a} 1 {b} 2 XX KEEPTTL")),
        2 => (key(), n()).prop_map(|(k, n)| format!("INCREX {k} BYINT {n} UBOUND 30 PX 99 ENX")),
        1 => (key(), n()).prop_map(|(k, n)| format!("INCREX {k} LBOUND {n} SATURATE PERSIST")),
        1 => (key(), word()).prop_map(|(k, w)| format!("INCREX {k} BYFLOAT {w} PXAT 1")),
        2 => (key(), word()).prop_map(|(k, v)| format!("APPEND {k} {v}")),
        2 => (key(), n(), word()).prop_map(|(k, n, v)| format!("SETRANGE {k} {n} {v}")),
        2 => (key(), n()).prop_map(|(k, n)| format!("INCRBY {k} {n}")),
        1 => (key(), word()).prop_map(|(k, v)| format!("INCRBYFLOAT {k} {v}")),
        2 => (key(), 0u32..300, 0u8..2).prop_map(|(k, o, b)| format!("SETBIT {k} {o} {b}")),
        1 => (key(), n(), n()).prop_map(|(k, o, v)| format!(
            "BITFIELD {k} OVERFLOW FAIL SET u8 #{o} {v} INCRBY i5 {o} {v} GET u3 0"
        )),
        1 => (key(), key(), key()).prop_map(|(a, b, c)| format!("BITOP XOR {a} {b} {c}")),
        1 => (key(), key(), key(), 0usize..4).prop_map(|(a, b, c, i)| {
            format!("BITOP {} {a} {b} {c}", ["DIFF", "DIFF1", "ANDOR", "ONE"][i])
        }),
        1 => (key(), key(), word()).prop_map(|(a, b, v)| format!("MSET {a} {v} {b} x")),
        1 => (key(), key()).prop_map(|(a, b)| format!("MSETNX {a} 1 {b} 2")),
        2 => (key(), n()).prop_map(|(k, n)| format!("PEXPIRE {k} {n}")),
        1 => (key(), n()).prop_map(|(k, n)| format!("GETEX {k} PX {n}")),
        3 => (key(), word(), 0u8..3).prop_map(|(k, v, t)| format!("HC.SET {k} {v} TAGS {t} x{t}")),
        2 => (key(), word(), 1u16..500, 0u8..3).prop_map(|(k, v, ms, t)| format!(
            "HC.SET {k} {v} PX {ms} STALE {t} COST 7 TAGS {t}"
        )),
        1 => (key(), 1u16..500).prop_map(|(k, ms)| format!("HC.SET {k} \"\" NEGATIVE PX {ms}")),
        1 => (key(), n()).prop_map(|(k, n)| format!("HC.DEL {k} STALE {n}")),
        1 => key().prop_map(|k| format!("HC.GET {k}")),
        2 => (0u8..3).prop_map(|t| format!("HC.TAG.INVALIDATE {t}")),
        3 => (key(), word()).prop_map(|(k, v)| format!("RPUSH {k} {v} x {v}")),
        2 => (key(), word()).prop_map(|(k, v)| format!("LPUSH {k} {v}")),
        2 => (key(), n()).prop_map(|(k, n)| format!("LPOP {k} {n}")),
        1 => key().prop_map(|k| format!("RPOP {k}")),
        3 => (key(), n(), word()).prop_map(|(k, n, v)| format!("SADD {k} {n} {v} 7")),
        1 => (key(), n()).prop_map(|(k, n)| format!("SREM {k} {n} 7")),
        1 => (key(), n()).prop_map(|(k, n)| format!("SPOP {k} {n}")),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!("SMOVE {a} {b} {n}")),
        2 => (key(), key(), key(), 0usize..3).prop_map(|(a, b, c, i)| {
            format!("S{}STORE {a} {b} {c}", ["INTER", "UNION", "DIFF"][i])
        }),
        3 => (key(), n(), word()).prop_map(|(k, n, v)| format!("HSET {k} {n} {v} f 1")),
        1 => (key(), n(), word()).prop_map(|(k, n, v)| format!("HSETNX {k} {n} {v}")),
        1 => (key(), n()).prop_map(|(k, n)| format!("HDEL {k} {n} f")),
        1 => (key(), n()).prop_map(|(k, n)| format!("HINCRBY {k} f {n}")),
        1 => (key(), word()).prop_map(|(k, v)| format!("HINCRBYFLOAT {k} f {v}")),
        2 => (key(), n(), n()).prop_map(|(k, n, f)| format!("HPEXPIRE {k} {n} FIELDS 2 f {f}")),
        1 => (key(), n()).prop_map(|(k, n)| format!("HPERSIST {k} FIELDS 2 f {n}")),
        1 => (key(), n(), word()).prop_map(|(k, n, v)| format!(
            "HSETEX {k} PX {n} FIELDS 2 f {v} {n} x"
        )),
        1 => (key(), n()).prop_map(|(k, n)| format!("HGETEX {k} PX {n} FIELDS 1 f")),
        1 => (key(), n()).prop_map(|(k, n)| format!("HGETDEL {k} FIELDS 1 {n}")),
        3 => (key(), n(), word()).prop_map(|(k, n, v)| format!("ZADD {k} {n} {v} 1 x {n} {n}")),
        1 => (key(), n(), word()).prop_map(|(k, n, v)| format!("ZADD {k} GT CH {n} {v} 3 7")),
        1 => (key(), n(), word()).prop_map(|(k, n, v)| format!("ZINCRBY {k} {n} {v}")),
        1 => (key(), word()).prop_map(|(k, v)| format!("ZREM {k} {v} x")),
        1 => (key(), n()).prop_map(|(k, n)| format!("ZPOPMIN {k} {n}")),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!("ZMPOP 2 {a} {b} MAX COUNT {n}")),
        1 => (key(), n()).prop_map(|(k, n)| format!("ZREMRANGEBYRANK {k} {n} 4")),
        1 => (key(), n()).prop_map(|(k, n)| format!("ZREMRANGEBYSCORE {k} {n} 9")),
        1 => (key(), word()).prop_map(|(k, v)| format!("ZREMRANGEBYLEX {k} - ({v}")),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!("ZRANGESTORE {a} {b} {n} -1 REV")),
        2 => (key(), key(), key(), 0usize..3).prop_map(|(a, b, c, i)| {
            format!("Z{}STORE {a} 2 {b} {c}", ["INTER", "UNION", "DIFF"][i])
        }),
        1 => (key(), n(), n(), word()).prop_map(|(k, a, b, v)| format!("GEOADD {k} {a} {b} {v}")),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!(
            "GEOSEARCHSTORE {a} {b} FROMLONLAT {n} 1 BYBOX 4000 4000 km COUNT 2 STOREDIST"
        )),
        1 => (key(), key(), n()).prop_map(|(a, b, n)| format!(
            "GEORADIUS {b} {n} 1 4000 km STORE {a}"
        )),
        2 => (key(), key(), n()).prop_map(|(a, b, n)| format!(
            "SORT {b} ALPHA LIMIT 0 {n} GET k* GET # GET k*->f STORE {a}"
        )),
        1 => (key(), key()).prop_map(|(a, b)| format!("SORT {b} BY k* DESC STORE {a}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("SORT {b} BY none STORE {a}")),
        1 => Just("expire".to_owned()),
        2 => (key(), word(), n()).prop_map(|(k, v, n)| format!("PFADD {k} {v} {n}")),
        1 => key().prop_map(|k| format!("PFCOUNT {k}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("PFMERGE {a} {b}")),
        3 => (key(), 0u8..9, word()).prop_map(|(k, n, v)| format!("XADD {k} MAXLEN 5 {n}-* {v} {v}")),
        1 => (key(), 0u8..9).prop_map(|(k, n)| format!("XDEL {k} {n}-0 {n}-1")),
        1 => (key(), 0u8..9).prop_map(|(k, n)| format!("XTRIM {k} MINID {n}")),
        1 => key().prop_map(|k| format!("XSETID {k} 7-7 ENTRIESADDED 99 MAXDELETEDID 1-1")),
        2 => (key(), 0u8..9).prop_map(|(k, n)| format!("XGROUP CREATE {k} g {n}-0 MKSTREAM")),
        1 => key().prop_map(|k| format!("XGROUP DESTROY {k} g")),
        1 => key().prop_map(|k| format!("XGROUP SETID {k} g 0 ENTRIESREAD 1")),
        1 => (key(), 0u8..3).prop_map(|(k, c)| format!("XGROUP DELCONSUMER {k} g c{c}")),
        3 => (key(), 0u8..3).prop_map(|(k, c)| format!("XREADGROUP GROUP g c{c} COUNT 2 STREAMS {k} >")),
        1 => (key(), 0u8..3).prop_map(|(k, c)| format!("XREADGROUP GROUP g c{c} STREAMS {k} 0")),
        1 => (key(), 0u8..9).prop_map(|(k, n)| format!("XACK {k} g {n}-0 {n}-1")),
        1 => (key(), 0u8..9).prop_map(|(k, n)| format!("XCLAIM {k} g c1 0 {n}-0 {n}-1 FORCE")),
        1 => key().prop_map(|k| format!("XAUTOCLAIM {k} g c2 0 0 COUNT 2")),
        1 => (key(), 0u8..9, 0usize..3).prop_map(|(k, n, i)| {
            let references = ["KEEPREF", "DELREF", "ACKED"][i];
            format!("XDELEX {k} {references} IDS 2 {n}-0 {n}-1")
        }),
        1 => (key(), 0u8..9, 0usize..3).prop_map(|(k, n, i)| {
            let references = ["KEEPREF", "DELREF", "ACKED"][i];
            format!("XACKDEL {k} g {references} IDS 2 {n}-0 {n}-1")
        }),
        1 => (key(), 0u8..5).prop_map(|(k, n)| format!("XTRIM {k} MAXLEN {n} ACKED")),
        1 => (key(), 0u8..9).prop_map(|(k, n)| format!("XADD {k} DELREF MINID {n} {n}-* a b")),
        1 => key().prop_map(|k| format!("PERSIST {k}")),
        1 => key().prop_map(|k| format!("GETDEL {k}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("DEL {a} {b}")),
        2 => (key(), key()).prop_map(|(a, b)| format!("RENAME {a} {b}")),
        1 => (key(), key()).prop_map(|(a, b)| format!("RENAMENX {a} {b}")),
        2 => (key(), key(), db()).prop_map(|(a, b, d)| format!("COPY {a} {b} DB {d} REPLACE")),
        1 => (key(), db()).prop_map(|(k, d)| format!("MOVE {k} {d}")),
        3 => (key(), key(), 0u16..300).prop_map(|(a, b, ttl)| format!("restore {a} {b} {ttl}")),
        2 => db().prop_map(|d| format!("SELECT {d}")),
        1 => (db(), db()).prop_map(|(a, b)| format!("SWAPDB {a} {b}")),
        1 => Just("FLUSHDB".to_owned()),
        2 => Just("MULTI".to_owned()),
        4 => Just("EXEC".to_owned()),
        3 => key().prop_map(|k| format!("GET {k}")),
        3 => (1u32..100).prop_map(|ms| format!("pass {ms}")),
    ]
}

/// What the workers do of themselves.
fn expire(harness: &Harness) {
    for partition in 0..PARTITIONS as u16 {
        let mut shard = harness.shared.keyspace.lock(partition);
        shard.expire_due(harness.worker.now_ms, 2);
        harness.worker.stats.add_bytes(shard.take_bytes_delta());
    }
}

/// Has the payload of one key restored as another: `from to ttl`.
fn restore(harness: &mut Harness, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let reply = harness.run(&format!("DUMP {}", words[0]));
    let is_payload = reply.starts_with(b"$") && reply != b"$-1\r\n";
    let start = reply.iter().position(|byte| *byte == b'\n').filter(|_| is_payload);
    let Some(start) = start else { return };
    let payload = &reply[start + 1..reply.len() - 2];
    let (to, ttl) = (words[1].as_bytes(), words[2].as_bytes());
    let reply = harness.run_args([&b"RESTORE"[..], to, ttl, payload, b"REPLACE"]);
    assert!(matches!(&reply[..], b"+OK\r\n" | b"+QUEUED\r\n"), "{}", reply.escape_ascii());
}

/// A server that applied what happened on another.
fn follow(leader: &Harness) -> Harness {
    let follower = Harness::new(logging_config());
    for partition in 0..PARTITIONS as u16 {
        let shard = leader.shared.keyspace.lock(partition);
        let read = shard.history.log.read_from(1, &mut |effect| {
            follower.shared.keyspace.follow(partition, &effect, leader.worker.now_ms);
        });
        read.expect("the log was kept from the start");
    }
    follower
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn replaying_the_effects_gives_the_same_dataset(
        commands in proptest::collection::vec(any_command(), 1..300),
    ) {
        let mut harness = Harness::new(logging_config());
        for command in &commands {
            if let Some(line) = command.strip_prefix("restore ") {
                restore(&mut harness, line);
                continue;
            }
            match command.strip_prefix("pass ") {
                Some(ms) => harness.worker.now_ms += ms.parse::<u64>().expect("a number"),
                None if command == "expire" => expire(&harness),
                None => {
                    harness.run(command);
                }
            }
        }
        prop_assert_eq!(replay(&harness), dataset(&harness), "after {:#?}", commands);
        prop_assert_eq!(harness.shared.bytes_used(), harness.bytes_there());
        prop_assert_eq!(dataset(&follow(&harness)), dataset(&harness), "after {:#?}", commands);
    }
}
