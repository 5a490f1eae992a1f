//! What memcached clients are promised beside the replies of memcached.

use hypercache_tests::{Server, Setup, Wire, free_port, serve_memcached, wait_for};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program that must end well.
fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Sends a stream, and returns what comes up to `end`.
fn ask(wire: &mut Wire, stream: &[u8], end: &[u8]) -> String {
    wire.send(stream);
    let reply = wire.read_until(end).unwrap_or_else(|| panic!("no {}", end.escape_ascii()));
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn pymemcache_works() {
    let (_server, port) = serve_memcached(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/pymemcache_smoke.py");
    run("python3", &[&script.to_string_lossy(), &port.to_string()]);
}

#[test]
fn memccapable_finds_nothing_wrong() {
    let (_server, port) = serve_memcached(&["--threads", "1"]);
    let text = run("memccapable", &["-h", "127.0.0.1", "-p", &port.to_string(), "-a"]);
    assert!(text.contains("All tests passed") && !text.contains("[fail]"), "{text}");
}

#[test]
fn large_values_go_both_ways() {
    for io in ["epoll", "auto"] {
        let (server, port) = serve_memcached(&["--io", io]);
        let mut wire = Wire::connect(port);
        for len in [16_384, 16_385, 65_535, 65_536, 200_000, 1 << 20] {
            let value = vec![b'v'; len];
            let set =
                [format!("set k 5 0 {len}\r\n").as_bytes(), &value, b"\r\nget k\r\n"].concat();
            let expected = format!("STORED\r\nVALUE k 5 {len}\r\n");
            let reply = ask(&mut wire, &set, b"END\r\n");
            assert!(
                reply.starts_with(&expected) && reply.len() == expected.len() + len + 7,
                "{len}"
            );
            assert_eq!(server.ask(&["STRLEN", "k"]), len.to_string());
        }
        let over = [&b"set k 5 0 1048577\r\n"[..], &vec![b'v'; 1_048_577], b"\r\n"].concat();
        assert_eq!(ask(&mut wire, &over, b"\n"), "SERVER_ERROR object too large for cache\r\n");
        assert_eq!(ask(&mut wire, b"get k\r\n", b"\n"), "END\r\n", "the old value is gone");
    }
}

#[test]
fn what_is_not_wanted_takes_no_memory() {
    let (server, port) = serve_memcached(&["--threads", "1"]);
    let mut wire = Wire::connect(port);
    wire.send(b"set k 0 0 300000000\r\n");
    let before = server.rss();
    let chunk = vec![b'x'; 1_000_000];
    (0..300).for_each(|_| wire.send(&chunk));
    assert_eq!(ask(&mut wire, b"\r\n", b"\n"), "SERVER_ERROR object too large for cache\r\n");
    let grown = server.peak_rss().saturating_sub(before);
    assert!(grown < 20_000_000, "{grown} bytes for a value that is too large");
}

#[test]
fn such_connections_are_shown_and_bounded() {
    let (server, port) = serve_memcached(&["--maxclients", "3", "--threads", "1"]);
    let mut first = Wire::connect(port);
    assert_eq!(ask(&mut first, b"set k 0 0 1\r\nx\r\n", b"\n"), "STORED\r\n");
    let list = server.ask(&["CLIENT", "LIST"]);
    assert!(list.contains("cmd=memcached|set") && list.contains("resp=0"), "{list}");
    assert_eq!(server.info_number("memcached_clients"), 1);
    assert_eq!(server.info("memcached_port"), port.to_string());
    let _second = Wire::connect(port);
    let _third = Wire::connect(port);
    wait_for("the limit of clients", || {
        let (text, is_closed) = Wire::connect(port).read_to_end(Duration::from_millis(100));
        (text == b"ERROR Too many open connections\r\n" && is_closed).then_some(())
    });
}

#[test]
fn clients_wait_while_they_are_paused() {
    let (server, port) = serve_memcached(&["--threads", "1"]);
    let mut wire = Wire::connect(port);
    assert_eq!(ask(&mut wire, b"set k 0 0 1\r\nx\r\n", b"\n"), "STORED\r\n");
    server.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    assert_eq!(ask(&mut wire, b"mg k v\r\n", b"x\r\n"), "VA 1\r\nx\r\n", "reads go on");
    let value = vec![b'y'; 100_000];
    wire.send(&[&b"set k 0 0 100000\r\n"[..], &value, b"\r\nmn\r\n"].concat());
    assert!(wire.read_within(Duration::from_millis(150)).is_none());
    server.ask(&["CLIENT", "UNPAUSE"]);
    assert_eq!(ask(&mut wire, b"", b"MN\r\n"), "STORED\r\nMN\r\n");
    assert_eq!(server.ask(&["STRLEN", "k"]), "100000");
}

#[test]
fn idle_clients_are_closed_and_monitors_see_requests() {
    let (server, port) = serve_memcached(&["--timeout", "1", "--threads", "1"]);
    let mut wire = Wire::connect(port);
    let mut monitor = server.wire();
    monitor.call(&["MONITOR"]);
    assert_eq!(ask(&mut wire, b"get k\r\n", b"\n"), "END\r\n");
    assert!(monitor.read().text().contains("\"get\" \"k\""));
    assert!(wire.is_closed());
}

#[test]
fn a_password_keeps_memcached_clients_out() {
    let port = free_port().to_string();
    let flags = ["--port", "{port}", "--memcached-port", &port, "--requirepass", "x"];
    let ended = Setup::new(&flags).run();
    assert!(ended.stderr.contains("memcached clients cannot give the password"), "{ended:?}");
    let (_server, port) =
        serve_memcached(&["--requirepass", "x", "--memcached-unauthenticated", "yes"]);
    assert_eq!(ask(&mut Wire::connect(port), b"mn\r\n", b"\n"), "MN\r\n");
    let (server, port) = serve_memcached(&[]);
    server.ask(&["CONFIG", "SET", "requirepass", "x"]);
    let (text, is_closed) = Wire::connect(port).read_to_end(Duration::from_millis(200));
    assert_eq!((&text[..], is_closed), (&b"CLIENT_ERROR unauthenticated\r\n"[..], true));
}

#[test]
fn shutdown_needs_to_be_allowed() {
    let (mut server, port) = serve_memcached(&["--memcached-shutdown", "yes"]);
    Wire::connect(port).send(b"shutdown\r\n");
    assert_eq!(server.wait().code, Some(0));
    let server = Server::start(&[]);
    assert_eq!(server.info("memcached_port"), "0");
}

#[test]
fn clients_that_keep_copies_are_told_what_memcached_clients_change() {
    let (server, port) = serve_memcached(&["--threads", "2"]);
    let mut redis = server.wire();
    redis.call(&["HELLO", "3"]);
    redis.call(&["CLIENT", "TRACKING", "ON"]);
    let mut wire = Wire::connect(port);
    for (change, answer) in
        [("set k 0 0 1\r\nx\r\n", "STORED\r\n"), ("append k 0 0 1\r\ny\r\n", "STORED\r\n")]
    {
        redis.call(&["GET", "k"]);
        assert_eq!(ask(&mut wire, change.as_bytes(), b"\n"), answer);
        assert_eq!(redis.read().0, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "{change}");
    }
    redis.call(&["GET", "k"]);
    assert_eq!(ask(&mut wire, b"flush_all\r\n", b"\n"), "OK\r\n");
    assert_eq!(redis.read().0, b">2\r\n$10\r\ninvalidate\r\n_\r\n");
}
