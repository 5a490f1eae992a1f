//! What one client may take from the others: order, memory and time have bounds.

use hypercache_tests::{Server, request, wait_for};
use std::time::Duration;

fn on_each_back_end(check: impl Fn(&str)) {
    for io in ["epoll", "auto"] {
        check(io);
    }
}

/// Requests of a paused client, one of them in pieces on both sides of the pause's end, run once
/// and in order.
#[test]
fn a_paused_client_goes_on_where_it_was() {
    on_each_back_end(|io| {
        let server = Server::start(&["--io", io, "--threads", "1"]);
        let (mut paused, mut other) = (server.wire(), server.wire());
        paused.call(&["PING"]);
        other.call(&["CLIENT", "PAUSE", "100000", "WRITE"]);
        let (first, second, third) =
            (request(&["SET", "a", "1"]), request(&["SET", "b", "hello"]), request(&["PING"]));
        paused.send(&first);
        paused.send(&second[..second.len() - 5]);
        assert!(paused.read_within(Duration::from_millis(50)).is_none(), "it is paused");
        paused.send(&second[second.len() - 5..]);
        paused.send(&third);
        other.call(&["CLIENT", "UNPAUSE"]);
        let replies: Vec<String> = (0..3).map(|_| paused.read().line()).collect();
        assert_eq!(replies, ["OK", "OK", "PONG"], "{io}");
        assert_eq!(server.ask(&["GET", "b"]), "hello");
    });
}

#[test]
fn a_transaction_counts_while_it_is_queued() {
    let server = Server::start(&["--maxmemory", "20mb"]);
    let mut wire = server.wire();
    wire.call(&["MULTI"]);
    let value = "v".repeat(1 << 20);
    let replies: Vec<String> =
        (0..60).map(|i| wire.call(&["SET", &format!("k{i}"), &value]).text()).collect();
    let refused = replies.iter().filter(|reply| reply.contains("OOM")).count();
    assert!(refused > 20, "{refused} of 60 were refused");
    assert!(wire.call(&["EXEC"]).text().contains("EXECABORT"));
}

#[test]
fn an_upload_counts_while_it_arrives() {
    on_each_back_end(|io| {
        let server = Server::start(&["--io", io, "--threads", "1", "--maxmemory", "20mb"]);
        let mut upload = server.wire();
        upload.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\n");
        upload.send(&vec![b'v'; 50_000_000]);
        wait_for("the upload to be counted", || {
            (server.info_number("used_memory") > 40_000_000).then_some(())
        });
        assert!(server.wire().call(&["SET", "a", "1"]).text().contains("OOM"), "{io}");
    });
}

#[test]
fn eviction_that_finds_nothing_refuses_the_write() {
    let flags = ["--maxmemory", "20mb", "--maxmemory-policy", "allkeys-random"];
    let server = Server::start(&flags);
    let mut upload = server.wire();
    upload.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\n");
    upload.send(&vec![b'v'; 50_000_000]);
    wait_for("a refusal", || {
        server.wire().call(&["SET", "a", "1"]).text().contains("OOM").then_some(())
    });
}

/// Replies of a pipeline are made piece by piece as they can be sent.
#[test]
fn the_output_of_a_pipeline_stays_small() {
    on_each_back_end(|io| {
        let server = Server::start(&["--io", io, "--threads", "1"]);
        let mut wire = server.wire();
        wire.call(&["SET", "k", &"v".repeat(16_000)]);
        let before = server.rss();
        let count = 40_000;
        wire.send(&request(&["GET", "k"]).repeat(count));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.ask(&["PING"]), "PONG", "others are served");
        let grown = server.peak_rss().saturating_sub(before);
        assert!(grown < 60 << 20, "{io}: grew by {grown} bytes");
        for _ in 0..count {
            assert_eq!(wire.read_bytes(16_010).len(), 16_010);
        }
    });
}

/// Notifications of values larger than the log's bound, and of a transaction beyond it.
#[test]
fn large_writes_are_notified() {
    let server = Server::start(&["--notify-keyspace-events", "KEA"]);
    let mut listener = server.wire();
    listener.call(&["PSUBSCRIBE", "__keyspace*"]);
    let mut wire = server.wire();
    wire.call(&["SETEX", "k", "100", &"v".repeat(70_000)]);
    let mut events = |n: usize| -> Vec<String> {
        (0..n).map(|_| listener.read().items().expect("a message")[3].text()).collect()
    };
    assert_eq!(events(2), ["set", "expire"]);
    wire.call(&["MULTI"]);
    (0..8).for_each(|_| drop(wire.call(&["SET", "k", &"v".repeat(20_000)])));
    wire.call(&["EXEC"]);
    assert_eq!(events(8), ["set"; 8]);
}

#[test]
fn reads_after_no_touch_are_no_use() {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    wire.call(&["SET", "k", "v"]);
    wire.call(&["CLIENT", "NO-TOUCH", "ON"]);
    std::thread::sleep(Duration::from_millis(2100));
    wire.call(&["GET", "k"]);
    assert!(wire.call(&["OBJECT", "IDLETIME", "k"]).as_int() >= Some(1));
    wire.call(&["CLIENT", "NO-TOUCH", "OFF"]);
    wire.call(&["GET", "k"]);
    assert_eq!(wire.call(&["OBJECT", "IDLETIME", "k"]).as_int(), Some(0));
}

/// A client that sends slowly is not idle.
#[test]
fn a_slow_upload_outlives_the_timeout() {
    on_each_back_end(|io| {
        let server = Server::start(&["--io", io, "--threads", "1", "--timeout", "1"]);
        let mut wire = server.wire();
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n");
        for _ in 0..10 {
            wire.send(&vec![b'v'; 100_000]);
            std::thread::sleep(Duration::from_millis(400));
        }
        wire.send(b"\r\n");
        assert_eq!(wire.read().line(), "OK", "{io}");
    });
}

/// A request that comes in very many pieces costs what it is long, not its square.
#[test]
fn a_request_in_many_pieces_is_read_once() {
    let server = Server::start(&["--threads", "1"]);
    let mut wire = server.wire();
    let count = 400_000;
    wire.send(format!("*{}\r\n$3\r\nDEL\r\n", count + 1).as_bytes());
    let argument = b"$40\r\n0123456789012345678901234567890123456789\r\n";
    let pieces = argument.repeat(count);
    let started = hypercache_tests::mono_ms();
    for piece in pieces.chunks(16_000) {
        wire.send(piece);
    }
    assert_eq!(wire.read().as_int(), Some(0));
    let took_ms = hypercache_tests::mono_ms() - started;
    assert!(took_ms < 10_000, "{took_ms} ms");
}
