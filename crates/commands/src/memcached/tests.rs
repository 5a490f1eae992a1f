//! Examples of each command, and what memcached and Redis clients see of each other's writes.

use super::{ROWS, Request, locate};
use crate::config::Config;
use crate::dispatch::{Executor, Timer};
use crate::testing::Harness;
use crate::testing::replay::{KEEP_ALL, dataset, replay};
use hypercache_protocol::memcached::{Step, next};
use hypercache_protocol::parse::{Args, Parser};
use hypercache_protocol::reply::Output;
use hypercache_stdx::rng::Rng;

/// Runs all requests of a stream, and returns the replies with `\n` for line ends.
pub(crate) fn run(harness: &mut Harness, stream: &str) -> String {
    let stream = stream.replace('\n', "\r\n").into_bytes();
    let (mut parser, mut out, mut timer) = (Parser::default(), Output::default(), Timer::new());
    loop {
        let mut ranges = Vec::new();
        let refusal = match next(&mut parser, &stream, &mut ranges, 0, 1 << 20) {
            Step::Command => None,
            Step::Refused(refusal) => Some(refusal),
            Step::Incomplete | Step::TooLong => break,
        };
        let args = Args::new(&stream, &ranges, &[]);
        let located = locate(&harness.shared.keyspace, args);
        let Harness { shared, worker, session, .. } = harness;
        let mut executor = Executor::new(shared, worker, session, &mut timer, &mut out);
        executor.execute_memcached(&Request { args, refusal, first_key: located.as_ref() });
    }
    String::from_utf8_lossy(&out.flattened()).replace("\r\n", "\n")
}

/// The CAS unique that `gets` tells of a key.
fn unique(harness: &mut Harness, key: &str) -> u64 {
    let reply = run(harness, &format!("gets {key}\n"));
    let line = reply.lines().next().unwrap_or_default();
    line.split(' ').nth(4).and_then(|word| word.parse().ok()).expect("a CAS unique")
}

/// A command, and a stream whose replies are given, with all before it run in the same server.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("set", "set k 7 0 5\nhello\n", "STORED\n"),
    ("get", "get k nothing k\n", "VALUE k 7 5\nhello\nVALUE k 7 5\nhello\nEND\n"),
    ("add", "add k 0 0 1\nx\nadd new 0 0 1\nx\n", "NOT_STORED\nSTORED\n"),
    ("replace", "replace k 1 0 2\nhi\nreplace no 0 0 1\nx\n", "STORED\nNOT_STORED\n"),
    ("append", "append k 9 9 1\n!\nget k\n", "STORED\nVALUE k 1 3\nhi!\nEND\n"),
    ("prepend", "prepend k 9 9 1\n<\nget k\n", "STORED\nVALUE k 1 4\n<hi!\nEND\n"),
    ("cas", "cas k 0 0 1 1\nx\ncas no 0 0 1 1\nx\n", "EXISTS\nNOT_FOUND\n"),
    ("gets", "gets nothing\n", "END\n"),
    ("delete", "delete k\ndelete k\n", "DELETED\nNOT_FOUND\n"),
    ("incr", "set n 0 0 2\n99\nincr n 1\nincr no 1\n", "STORED\n100\nNOT_FOUND\n"),
    ("decr", "decr n 1\ndecr n 1000\nget n\n", "99\n0\nVALUE n 0 3\n0  \nEND\n"),
    ("touch", "touch n 100\ntouch no 100\n", "TOUCHED\nNOT_FOUND\n"),
    ("gat", "gat 0 n no\n", "VALUE n 0 3\n0  \nEND\n"),
    ("gats", "gats 0 no\n", "END\n"),
    ("ms", "ms m 3 T90 F5 k O9\nabc\n", "HD km O9\n"),
    (
        "mg",
        "mg m v t f s h k O1\nmg m h\nmg no v k\n",
        "VA 3 t90 f5 s3 h0 km O1\nabc\nHD h1\nEN km\n",
    ),
    ("md", "md m I T30\nmg m t\nmg m v\nmd m\nmd m\n", "HD\nHD t30 X W\nVA 3 Z X\nabc\nHD\nNF\n"),
    ("ma", "ma c N0 J13 v\nma c D2 v\nma c MD D50 v\n", "VA 2\n13\nVA 2\n15\nVA 1\n0\n"),
    ("mn", "mn\n", "MN\n"),
    ("me", "me no\n", "EN\n"),
    ("version", "version\n", "VERSION 1.6.18\n"),
    ("verbosity", "verbosity 0\n", "OK\n"),
    ("stats", "stats sizes\nstats reset\n", "STAT sizes_status disabled\nEND\nRESET\n"),
    ("shutdown", "shutdown\n", "ERROR: shutdown not enabled\n"),
    ("flush_all", "flush_all\nget n\n", "OK\nEND\n"),
    ("quit", "quit\n", ""),
];

#[test]
fn every_command_has_an_example_that_holds() {
    let mut harness = Harness::default();
    for (name, stream, expected) in EXAMPLES {
        let expected =
            if *name == "mg" { expected.replace("EN km", "EN kno") } else { (*expected).into() };
        assert_eq!(run(&mut harness, stream), expected, "{name}");
    }
    assert!(harness.session.is_closing);
    for row in ROWS {
        assert!(EXAMPLES.iter().any(|(name, ..)| *name == row.name), "{} has none", row.name);
    }
}

/// `docs/memcached.md` is written by hand, but for this table.
#[test]
fn the_page_lists_the_rows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/memcached.md");
    let page = std::fs::read_to_string(path).expect("a page");
    for row in ROWS {
        let usage = format!("{} {}", row.name, row.syntax).trim_end().replace('|', "\\|");
        let line = format!("| `{usage}` | {} |\n", row.summary);
        assert!(page.contains(&line), "docs/memcached.md lacks: {line}");
    }
}

#[test]
fn redis_clients_see_items_and_their_writes_change_the_cas_unique() {
    let mut h = Harness::default();
    run(&mut h, "set k 7 100 1\n5\n");
    assert_eq!(h.run("GET k"), b"$1\r\n5\r\n");
    assert_eq!(h.run("TTL k"), b":100\r\n");
    let first = unique(&mut h, "k");
    assert_eq!(unique(&mut h, "k"), first);
    h.run("EXPIRE k 50");
    h.run("GET k");
    assert_eq!(unique(&mut h, "k"), first, "the value is the same");
    for write in ["INCR k", "APPEND k 1", "SETRANGE k 0 7", "SETBIT k 1 1", "SET k 1"] {
        let before = unique(&mut h, "k");
        h.run(write);
        let reply = run(&mut h, &format!("cas k 0 0 1 {before}\nx\n"));
        assert_eq!(reply, "EXISTS\n", "{write}");
    }
    let last = unique(&mut h, "k");
    assert_eq!(
        run(&mut h, &format!("cas k 3 0 1 {last}\nx\nget k\n")),
        "STORED\nVALUE k 3 1\nx\nEND\n"
    );
    h.run("APPEND k y");
    assert_eq!(run(&mut h, "get k\n"), "VALUE k 3 2\nxy\nEND\n");
    h.run("SET k z");
    assert_eq!(run(&mut h, "get k\n"), "VALUE k 0 1\nz\nEND\n");
}

#[test]
fn a_key_of_another_type_is_no_item_but_is_there() {
    let mut h = Harness::default();
    h.run("RPUSH l a");
    let stream = "get l\nadd l 0 0 1\nx\nappend l 0 0 1\nx\nreplace l 0 0 1\nx\ncas l 0 0 1 1\nx\n\
                  incr l 1\ntouch l 1\ndelete l\nmg l N30\nma l N30\nmd l\n";
    let expected = "END\nNOT_STORED\nNOT_STORED\nNOT_STORED\nNOT_FOUND\nNOT_FOUND\nNOT_FOUND\n\
                    NOT_FOUND\nEN\nNF\nNF\n";
    assert_eq!(run(&mut h, stream), expected);
    assert_eq!(h.run("LLEN l"), b":1\r\n");
    assert_eq!(run(&mut h, "set l 0 0 1\nx\nget l\n"), "STORED\nVALUE l 0 1\nx\nEND\n");
}

#[test]
fn writes_are_effects_that_watchers_and_limits_see() {
    let mut h = Harness::default();
    h.run("SET k 1");
    h.run("WATCH k");
    run(&mut h, "incr k 1\n");
    h.run("MULTI");
    assert_eq!(h.run("EXEC"), b"*-1\r\n");
    h.run("CONFIG SET maxmemory 1");
    let full = "SERVER_ERROR out of memory storing object\n";
    assert_eq!(run(&mut h, "add a 0 0 1\nx\nms a 1\nx\n"), [full, full].concat());
    assert_eq!(
        run(&mut h, "incr k 1\nget k\n"),
        "SERVER_ERROR out of memory\nVALUE k 0 1\n2\nEND\n"
    );
    assert_eq!(
        run(&mut h, "set k 0 0 1\nx\nget k\n"),
        [full, "END\n"].concat(),
        "not the old value"
    );
}

#[test]
fn a_delayed_flush_happens_when_it_is_due() {
    let mut h = Harness::default();
    assert_eq!(
        run(&mut h, "set k 0 0 1\nx\nflush_all 10\nget k\n"),
        "STORED\nOK\nVALUE k 0 1\nx\nEND\n"
    );
    h.worker.now_ms += 9_000;
    let now_ms = h.worker.now_ms;
    super::flush_if_due(&h.shared, &mut h.worker, now_ms);
    assert_eq!(run(&mut h, "get k\n"), "VALUE k 0 1\nx\nEND\n");
    h.worker.now_ms += 1_000;
    let now_ms = h.worker.now_ms;
    super::flush_if_due(&h.shared, &mut h.worker, now_ms);
    assert_eq!(run(&mut h, "get k\n"), "END\n");
    run(&mut h, "set k 0 0 1\nx\n");
    let now_ms = h.worker.now_ms + 60_000;
    super::flush_if_due(&h.shared, &mut h.worker, now_ms);
    assert_eq!(run(&mut h, "get k\n"), "VALUE k 0 1\nx\nEND\n", "once");
}

#[test]
fn a_client_may_choose_the_cas_unique_and_remove_a_value() {
    let mut h = Harness::default();
    assert_eq!(run(&mut h, "ms k 1 E77 c F3\nx\ngets k\n"), "HD c77\nVALUE k 3 1 77\nx\nEND\n");
    assert_eq!(run(&mut h, "md k x\nmg k v f\n"), "HD\nVA 0 f0\n\n");
    assert_eq!(
        run(&mut h, "ms log 1 MA N30\na\nms log 1 MA\nb\nmg log v t\n"),
        "HD\nHD\nVA 2 t30\nab\n"
    );
}

/// Client flags and states are in the log of effects as values are.
#[test]
fn replaying_the_effects_gives_the_same_items() {
    let mut config = Config::default();
    for (name, value) in KEEP_ALL {
        config.set_at_start(name, value).expect("a valid setting");
    }
    let requests = [
        "set k F 0 2\n10\n",
        "set k F 100 3\nabc\n",
        "add k F 0 1\nx\n",
        "append k 0 0 2\nyy\n",
        "prepend k 0 0 1\nz\n",
        "incr k 5\n",
        "decr k 5\n",
        "delete k\n",
        "md k I\n",
        "mg k N30 v\n",
        "gets k\n",
        "touch k 50\n",
        "ma k N0 J5\n",
        "ms k 2 FF T9\n20\n",
        "flush_all\n",
        "md k x\n",
    ];
    let mut h = Harness::new(config);
    let mut rng = Rng::new(3);
    for _ in 0..3000 {
        let request = requests[rng.below(requests.len() as u64) as usize];
        let (key, flags) = (format!(" k{}", rng.below(6)), rng.below(3).to_string());
        let request = request.replacen(" k", &key, 1);
        run(
            &mut h,
            &request.replacen(" FF", &format!(" F{flags}"), 1).replacen(
                " F ",
                &format!(" {flags} "),
                1,
            ),
        );
        h.worker.now_ms += rng.below(3000);
        if rng.below(20) == 0 {
            h.run(&format!("SET{key} 7"));
        }
    }
    assert_eq!(replay(&h), dataset(&h));
}
