//! What goes over the wire, and what it may cost: fragments, large values, slow readers, hostile
//! claims, expiry and the memory limit.

use hypercache_client::Reply;
use hypercache_tests::{Frame, Server, Wire, mono_ms, raise_open_files, request, wait_for};

const MB: usize = 1 << 20;

/// Sends requests in one pipeline and reads all replies.
fn pipeline(wire: &mut Wire, requests: &[Vec<u8>]) -> Vec<Frame> {
    wire.send(&requests.concat());
    requests.iter().map(|_| wire.read()).collect()
}

#[test]
fn claims_of_much_cost_little() {
    raise_open_files();
    let server = Server::start(&["--proto-max-bulk-len", "1gb"]);
    let claims: [&[u8]; 4] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1073741824\r\nbegin",
        b"*2\r\n$4\r\nECHO\r\n$1073741824\r\n",
        b"*1000000000\r\n$3\r\nSET\r\n",
        b"*1073741824\r\n$1073741824\r\nx",
    ];
    // One of each first, so that what is allocated once is not counted.
    let mut wires: Vec<Wire> = Vec::new();
    let mut before = 0;
    for i in 0..1004 {
        let mut wire = server.wire();
        wire.send(claims[i % claims.len()]);
        wires.push(wire);
        if i == 3 {
            assert_eq!(server.ask(&["PING"]), "PONG");
            before = server.rss();
        }
    }
    wait_for("all connections", || (server.info("connected_clients") == "1005").then_some(()));
    assert_eq!(server.ask(&["SET", "k", "v"]), "OK");
    let growth = server.rss().saturating_sub(before);
    assert!(growth < 30 * MB as u64, "grew by {} KiB", growth / 1024);
}

#[test]
fn a_pipeline_may_arrive_in_any_pieces() {
    let server = Server::start(&[]);
    let whole: Vec<Vec<u8>> = vec![
        request(&["SET", "k", "va\r\nlue"]),
        b"GET k\r\n".to_vec(),
        request(&["SET", "big", &"x".repeat(70_000)]),
        request(&["STRLEN", "big"]),
        b"\r\nECHO \"a b\"\n".to_vec(),
        request(&["MGET", "k", "none", "k"]),
    ];
    let expected = pipeline(&mut server.wire(), &whole);
    let bytes = whole.concat();
    for size in [61, 1000, 1447, 16 * 1024, 65_535, 65_537] {
        let mut wire = server.wire();
        for piece in bytes.chunks(size) {
            wire.send(piece);
        }
        for (i, frame) in expected.iter().enumerate() {
            assert_eq!(wire.read(), *frame, "reply {i} with pieces of {size}");
        }
    }
}

#[test]
fn a_large_value_costs_little_more_than_itself() {
    let server = Server::start(&["--threads", "2"]);
    let len = 100 * MB;
    let value = vec![b'v'; len];
    let before = server.rss();
    let mut connection = server.connect();
    let ok = connection.command(&[b"SET", &b"k"[..], &value]).expect("a reply");
    assert_eq!(ok, Reply::Simple(b"OK".to_vec()));
    for _ in 0..3 {
        let got = connection.command(&["GET", "k"]).expect("a reply");
        assert!(got.as_bytes() == Some(&value[..]), "the value changed");
    }
    let peak = server.peak_rss() - before;
    assert!(peak < len as u64 * 5 / 2, "took {} MiB for {} MiB", peak >> 20, len >> 20);
    assert_eq!(server.ask(&["DEL", "k"]), "1");
    // The allocator gives memory back while it is used.
    let mut wire = server.wire();
    wait_for("the memory of a deleted value", || {
        fill(&mut wire, 100);
        (server.rss() < before + 40 * MB as u64).then_some(())
    });
}

#[test]
fn inline_requests() {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    for (line, reply) in [
        ("SET key \"a value\"\r\n", "+OK\r\n"),
        ("get key\n", "$7\r\na value\r\n"),
        ("  EXISTS   key\tkey \r\n", ":2\r\n"),
        ("SET bin \"\\x00\\xff\\n\"\r\n", "+OK\r\n"),
        ("STRLEN bin\r\n", ":3\r\n"),
        ("SET q 'it\\'s'\r\n", "+OK\r\n"),
        ("GET q\r\n", "$4\r\nit's\r\n"),
    ] {
        wire.send(line.as_bytes());
        assert_eq!(wire.read().0, reply.as_bytes(), "{line}");
    }
}

#[test]
fn hello_changes_how_replies_are_written() {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    assert_eq!(wire.call(&["GET", "none"]).0, b"$-1\r\n");
    let hello = wire.call(&["HELLO", "3", "SETNAME", "me"]);
    assert!(hello.0.starts_with(b"%7\r\n$6\r\nserver\r\n"), "{hello:?}");
    assert!(hello.0.windows(10).any(|w| w == b"proto\r\n:3\r"), "{hello:?}");
    assert_eq!(wire.call(&["GET", "none"]).0, b"_\r\n");
    assert_eq!(wire.call(&["CLIENT", "GETNAME"]).0, b"$2\r\nme\r\n");
    assert!(wire.call(&["CONFIG", "GET", "maxclients"]).0.starts_with(b"%1\r\n"));
    assert!(wire.call(&["SUBSCRIBE", "c"]).0.starts_with(b">3\r\n"));
    // The message may come before or after the reply.
    let both = [wire.call(&["PUBLISH", "c", "m"]).kind(), wire.read().kind()];
    assert!(both.contains(&b'>') && both.contains(&b':'), "{both:?}");
    let back = wire.call(&["HELLO", "2"]);
    assert!(back.0.starts_with(b"*14\r\n"), "{back:?}");
    assert_eq!(wire.call(&["RESET"]).0, b"+RESET\r\n");
    assert_eq!(wire.call(&["GET", "none"]).0, b"$-1\r\n");
}

/// Asks for 200 MB in as many replies, and reads none.
fn read_nothing(server: &Server) -> Wire {
    let mut greedy = server.wire();
    assert_eq!(greedy.call(&["SET", "big", &"x".repeat(MB)]).0, b"+OK\r\n");
    for _ in 0..200 {
        if !greedy.try_send(&request(&["GET", "big"])) {
            break;
        }
        // Each is a turn of its own, so that the server can stop in between.
        assert_eq!(server.ask(&["PING"]), "PONG");
    }
    greedy
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let server = Server::start(&["--threads", "1"]);
    let before = server.rss();
    let mut greedy = read_nothing(&server);
    let held = server.rss().saturating_sub(before);
    assert!(held < 30 * MB as u64, "{} MiB wait for one client", held >> 20);
    assert_eq!(server.info_number("client_output_buffer_limit_disconnections"), 0);
    for i in 0..200 {
        assert_eq!(greedy.read().0.len(), MB + 12, "reply {i}");
    }
}

#[test]
fn who_does_not_read_is_closed_above_the_limit() {
    let limit = ["--threads", "1", "--client-output-buffer-limit", "normal 2mb 0 0"];
    let server = Server::start(&limit);
    let mut wire = server.wire();
    assert_eq!(wire.call(&["SET", "big", &"x".repeat(8 * MB)]).0, b"+OK\r\n");
    wire.send(&request(&["GET", "big"]).repeat(20));
    wait_for("the end of the connection", || {
        (server.info_number("client_output_buffer_limit_disconnections") == 1).then_some(())
    });
    assert!(wire.is_closed());
    assert_eq!(server.ask(&["STRLEN", "big"]), (8 * MB).to_string());
    wait_for("its place", || (server.info("connected_clients") == "1").then_some(()));
}

#[test]
fn a_subscriber_that_does_not_read_is_closed() {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 0 0"];
    let server = Server::start(&limit);
    let mut subscriber = server.wire();
    subscriber.call(&["SUBSCRIBE", "c"]);
    let mut publisher = server.wire();
    let message = request(&["PUBLISH", "c", &"m".repeat(MB)]);
    wait_for("the end of the subscriber", || {
        publisher.send(&message);
        (publisher.read().as_int() == Some(0)).then_some(())
    });
    assert!(subscriber.is_closed());
    assert_eq!(server.info_number("client_output_buffer_limit_disconnections"), 1);
}

#[test]
fn expired_keys_go_by_themselves_within_a_second() {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    for batch in 0..10 {
        let requests: Vec<_> = (0..10_000)
            .map(|i| request(&["SET", &format!("key:{batch}:{i}"), "v", "PX", "300"]))
            .collect();
        let replies = pipeline(&mut wire, &requests);
        assert!(replies.iter().all(|reply| reply.0 == b"+OK\r\n"));
    }
    let deadline = mono_ms() + 300;
    wait_for("the end of all keys", || (wire.call(&["DBSIZE"]).as_int() == Some(0)).then_some(()));
    let late = mono_ms().saturating_sub(deadline);
    assert!(late <= 1000, "the last went {late} ms after its deadline");
    assert_eq!(server.info_number("expired_keys"), 100_000);
}

/// Writes values of 1 KiB until one is refused or `count` are written.
fn fill(wire: &mut Wire, count: usize) -> Option<(usize, Frame)> {
    let value = "v".repeat(1024);
    for from in (0..count).step_by(100) {
        let requests: Vec<_> =
            (from..from + 100).map(|i| request(&["SET", &format!("key:{i}"), &value])).collect();
        let replies = pipeline(wire, &requests);
        if let Some(at) = replies.iter().position(|reply| reply.0 != b"+OK\r\n") {
            return Some((from + at, replies[at].clone()));
        }
    }
    None
}

#[test]
fn noeviction_refuses_writes_and_nothing_else() {
    let server = Server::start(&["--maxmemory", "24mb"]);
    let mut wire = server.wire();
    let (written, refusal) = fill(&mut wire, 40_000).expect("the limit was reached");
    assert!(written > 1000, "only {written} values in 24 MiB");
    let oom = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(refusal.0, oom);
    assert_eq!(wire.call(&["GET", "key:0"]).0.len(), 1024 + 9);
    assert_eq!(wire.call(&["DBSIZE"]).as_int(), Some(written as i64));
    // In a transaction nothing more is queued, and EXEC says why.
    assert_eq!(wire.call(&["MULTI"]).0, b"+OK\r\n");
    assert_eq!(wire.call(&["PING"]).0, oom);
    assert!(wire.call(&["EXEC"]).0.starts_with(b"-EXECABORT"));
    assert_eq!(server.info_number("evicted_keys"), 0);
    for i in 0..100 {
        assert_eq!(wire.call(&["DEL", &format!("key:{i}")]).as_int(), Some(1));
    }
    assert_eq!(wire.call(&["SET", "key", "v"]).0, b"+OK\r\n");
    assert_eq!(wire.call(&["CONFIG", "SET", "maxmemory", "0"]).0, b"+OK\r\n");
    assert_eq!(fill(&mut wire, 1000), None);
}

#[test]
fn allkeys_random_stays_under_the_limit() {
    let flags = ["--maxmemory", "24mb", "--maxmemory-policy", "allkeys-random"];
    let server = Server::start(&flags);
    let mut wire = server.wire();
    let limit = 24 * MB as u64;
    for round in 0..5 {
        assert_eq!(fill(&mut wire, 40_000), None, "round {round}");
        let used = server.info_number("used_memory");
        assert!(used <= limit + limit / 50, "round {round}: {used} of {limit} bytes");
    }
    let size = wire.call(&["DBSIZE"]).as_int().expect("a number");
    assert!(size > 1000, "only {size} keys are left");
    assert!(server.info_number("evicted_keys") > 10_000);
    let rss = server.rss();
    assert!(rss < 3 * limit, "{} MiB resident", rss >> 20);
}
