//! How the server starts, takes its settings, and ends.

use hypercache_client::Reply;
use hypercache_tests::{Ended, Program, Server, Setup, binary, mono_ms, skipped, wait_for};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// A refusal to start is one sentence and exit status 1.
fn check_refusal(setup: &Setup, needles: &[&str]) {
    let ended = setup.run();
    assert_eq!(ended.code, Some(1), "{setup:?}: {}", ended.stderr);
    // What the log says before is not the reason.
    let reason = ended.stderr.lines().filter(|line| !line.contains(" INFO "));
    assert_eq!(reason.count(), 1, "{setup:?} says more than one line:\n{}", ended.stderr);
    for needle in needles {
        assert!(ended.stderr.contains(needle), "{setup:?}: no '{needle}' in: {}", ended.stderr);
    }
}

fn set(server: &Server, key: &str, value: &str) {
    assert_eq!(server.ask(&["SET", key, value]), "OK");
}

#[test]
fn no_arguments_in_an_empty_folder() {
    let server = Setup::new(&[]).env("HYPERCACHE_PORT", "{port}").start();
    assert_eq!(server.ask(&["PING"]), "PONG");
    let files = std::fs::read_dir(server.folder()).expect("a folder").count();
    assert_eq!(files, 0, "a server that persists nothing leaves nothing");
}

#[test]
fn sigterm_ends_it_well_while_clients_are_connected() {
    let mut server = Server::start(&[]);
    let _idle: Vec<_> = (0..20).map(|_| server.wire()).collect();
    let mut writer = server.wire();
    writer.send(&hypercache_tests::request(&["SET", "k", "v"]).repeat(100));
    wait_for("the write", || (server.ask(&["GET", "k"]) == "v").then_some(()));
    let big = "x".repeat(4 << 20);
    set(&server, "big", &big);
    let mut reader = server.wire();
    reader.send(b"GET big\r\n");
    // The reply is on its way, but does not fit into the buffers of the sockets.
    reader.stream().peek(&mut [0]).expect("the first byte");
    server.signal(Signal::TERM);
    assert_eq!(reader.read().0.len(), big.len() + "$4194304\r\n\r\n".len());
    for _ in 0..100 {
        assert_eq!(writer.read().0, b"+OK\r\n");
    }
    assert!(writer.is_closed() && reader.is_closed());
    let Ended { code, stderr } = server.wait();
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut server = Server::start(&[]);
    set(&server, "big", &"x".repeat(32 << 20));
    let mut reader = server.wire();
    reader.send(b"GET big\r\n");
    reader.stream().peek(&mut [0]).expect("the first byte");
    server.signal(Signal::TERM);
    wait_for("the log", || server.stderr().contains("signal received").then_some(()));
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("second signal"), "{}", ended.stderr);
}

#[test]
fn shutdown_ends_it_well() {
    for command in [&["SHUTDOWN"][..], &["SHUTDOWN", "NOSAVE"]] {
        let mut server = Server::start(&[]);
        let mut wire = server.wire();
        wire.send(&hypercache_tests::request(command));
        assert!(wire.is_closed());
        assert_eq!(server.wait().code, Some(0));
    }
}

#[test]
fn wrong_arguments_are_refused_in_one_sentence() {
    let on_port = |rest: &[&str]| Setup::new(&[&["--port", "{port}"], rest].concat());
    check_refusal(&on_port(&["--maxmemry", "1gb"]), &["--maxmemry", "did you mean 'maxmemory'?"]);
    check_refusal(&on_port(&["--maxclients", "zero"]), &["--maxclients"]);
    check_refusal(&on_port(&["--maxmemory-policy", "oldest"]), &["noeviction", "allkeys-random"]);
    check_refusal(&on_port(&["--timeout"]), &["needs a value"]);
    check_refusal(&Setup::new(&["h.conf", "stray"]).file("h.conf", ""), &["'stray' is no flag"]);
    check_refusal(&on_port(&["--dir", "/nowhere/at/all"]), &["dir", "/nowhere/at/all"]);
    check_refusal(&on_port(&["--logfile", "no/such/folder/log"]), &["logfile"]);
    check_refusal(&on_port(&["--pidfile", "no/such/folder/pid"]), &["pidfile"]);
    check_refusal(&on_port(&["--unixsocket", "no/such/folder/s"]), &["no/such/folder/s"]);
    check_refusal(&on_port(&["--bind", "example"]), &["example"]);
    check_refusal(&on_port(&["--bind", "0.0.0.0"]), &["0.0.0.0", "requirepass"]);
    check_refusal(&on_port(&["--bind", "*"]), &["requirepass"]);
    check_refusal(&Setup::new(&["--port", "0"]), &["nothing to listen on"]);
    check_refusal(&Setup::new(&["--port", "99999"]), &["--port"]);
    let environment = Setup::new(&[]).env("HYPERCACHE_PORT", "many");
    check_refusal(&environment, &["HYPERCACHE_PORT", "'port'"]);
}

#[test]
fn wrong_files_are_refused_with_their_line() {
    let with = |text: &str| Setup::new(&["h.conf"]).file("h.conf", text);
    check_refusal(&Setup::new(&["missing.conf"]), &["missing.conf", "No such file"]);
    check_refusal(&Setup::new(&["."]), &["cannot read .", "directory"]);
    check_refusal(&with("port {port}\n\nmaxclient 10\n"), &["h.conf:3", "maxclients"]);
    check_refusal(&with("# c\nport many\n"), &["h.conf:2", "port"]);
    check_refusal(&with("requirepass \"open\n"), &["h.conf:1", "quotes"]);
    check_refusal(&with("include other.conf\n"), &["h.conf:1", "other.conf"]);
    check_refusal(&with("include h.conf\n"), &["include each other"]);
}

#[test]
fn a_busy_port_is_named() {
    let server = Server::start(&[]);
    let port = server.port.to_string();
    let second = Setup::new(&["--port", &port]);
    check_refusal(&second, &[&format!("127.0.0.1:{port}"), "in use", "--port"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "port {port}\nmaxclients 101\ntimeout 101\nslowlog-max-len 101\n";
    let server = Setup::new(&["h.conf", "--maxclients", "103"])
        .file("h.conf", file)
        .env("HYPERCACHE_MAXCLIENTS", "102")
        .env("HYPERCACHE_TIMEOUT", "102")
        .start();
    let mut connection = server.connect();
    for (name, value) in [("maxclients", "103"), ("timeout", "102"), ("slowlog-max-len", "101")] {
        let reply = connection.command(&["CONFIG", "GET", name]).expect("a reply");
        assert_eq!(reply, Reply::Array(vec![Reply::bulk(name), Reply::bulk(value)]));
    }
}

#[test]
fn an_unknown_environment_name_is_warned_of() {
    let server = Setup::new(&[])
        .env("HYPERCACHE_PORT", "{port}")
        .env("HYPERCACHE_PORTT", "1")
        .env("HYPERCACHE_SERVICE_HOST", "10.0.0.1")
        .start();
    let log = server.stderr();
    assert!(log.contains("HYPERCACHE_PORTT is ignored") && log.contains("'port'"), "{log}");
    assert!(!log.contains("SERVICE_HOST"), "{log}");
}

#[test]
fn config_rewrite_is_read_at_the_next_start() {
    let file = "# kept\nport {port}\nmaxclients 200\n";
    let server = Setup::new(&["h.conf"]).file("h.conf", file).start();
    for (name, value) in [("maxclients", "300"), ("requirepass", "a b\"c"), ("maxmemory", "64mb")] {
        let mut connection = server.connect();
        // The password counts from the moment it is set.
        let _refused = connection.command(&["AUTH", "a b\"c"]).expect("a reply");
        let reply = connection.command(&["CONFIG", "SET", name, value]).expect("a reply");
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{name}");
    }
    let mut connection = server.connect();
    connection.auth(None, "a b\"c").expect("the password is right");
    connection.command(&["CONFIG", "REWRITE"]).expect("a reply").into_result().expect("OK");
    let text = std::fs::read_to_string(server.folder().join("h.conf")).expect("the file");
    assert!(text.starts_with("# kept\n") && text.contains("maxclients 300"), "{text}");
    assert!(!text.contains("maxclients 200"), "{text}");
    let again = server.restart(&["h.conf"]);
    let mut connection = again.connect();
    connection.auth(None, "a b\"c").expect("the password was kept");
    let reply = connection.command(&["CONFIG", "GET", "maxmemory"]).expect("a reply");
    assert_eq!(reply.into_items().expect("an array")[1], Reply::bulk("67108864"));
}

#[test]
fn the_pidfile_is_there_while_the_server_is() {
    let mut server = Server::start(&["--pidfile", "h.pid"]);
    let path = server.folder().join("h.pid");
    let id = std::fs::read_to_string(&path).expect("a pidfile");
    assert_eq!(id.trim(), server.info("process_id"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code, Some(0));
    assert!(!path.exists(), "it goes with the server");
}

#[test]
fn the_log_goes_to_the_logfile() {
    let mut server = Server::start(&["--logfile", "h.log"]);
    server.signal(Signal::INT);
    let ended = server.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let log = std::fs::read_to_string(server.folder().join("h.log")).expect("a log");
    assert!(log.contains("listening on") && log.contains("stopped"), "{log}");
}

#[test]
fn a_unix_socket_with_its_permissions() {
    let server = Server::start(&["--unixsocket", "h.sock", "--unixsocketperm", "700"]);
    let path = server.folder().join("h.sock");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut connection = server.connect_unix(&path);
    assert_eq!(connection.command(&["PING"]).expect("a reply"), Reply::Simple(b"PONG".to_vec()));
    let text = path.to_str().expect("UTF-8");
    let second = Setup::new(&["--port", "0", "--unixsocket", text]);
    check_refusal(&second, &[text, "another server listens there"]);
    // A socket that a killed server left is no obstacle.
    let port = server.port.to_string();
    let again = server.restart(&["--port", &port, "--unixsocket", "h.sock"]);
    assert!(again.connect_unix(again.folder().join("h.sock")).command(&["PING"]).is_ok());
}

#[test]
fn a_file_in_the_place_of_the_socket_is_kept() {
    let setup = Setup::new(&["--port", "0", "--unixsocket", "precious"]);
    check_refusal(&setup.file("precious", "data"), &["precious", "no socket"]);
}

#[test]
fn both_io_back_ends_serve() {
    for io in ["epoll", "uring"] {
        let server = match Setup::new(&["--port", "{port}", "--io", io]).try_start() {
            Ok(server) => server,
            Err(why) if io == "uring" && why.contains("io_uring cannot be used here") => {
                skipped(why.trim());
                continue;
            }
            Err(why) => panic!("--io {io}: {why}"),
        };
        set(&server, "k", "v");
        assert_eq!(server.ask(&["GET", "k"]), "v", "--io {io}");
        let log = server.stderr();
        assert!(log.contains(io), "the log names the back end: {log}");
    }
}

#[test]
fn a_password_is_asked_for() {
    let server = Server::start(&["--requirepass", "secret"]);
    assert_eq!(server.ask(&["GET", "k"]), "NOAUTH Authentication required.");
    assert_eq!(
        server.ask(&["AUTH", "wrong"]),
        "WRONGPASS invalid username-password pair or user is disabled."
    );
    let mut connection = server.connect();
    connection.auth(None, "secret").expect("the password is right");
    assert_eq!(connection.command(&["GET", "k"]).expect("a reply"), Reply::Null);
    let mut connection = server.connect();
    connection.auth(Some("default"), "secret").expect("the user is right");
    let public = ["--bind", "0.0.0.0", "--requirepass", "secret"];
    assert!(Server::start(&public).ask(&["PING"]).starts_with("NOAUTH"));
}

#[test]
fn clients_beyond_maxclients_are_told() {
    let server = Server::start(&["--maxclients", "5"]);
    let connect = || {
        let mut wire = server.wire();
        let is_told = !wire.try_send(b"PING\r\n") || wire.try_read()?.kind() == b'-';
        (!is_told).then_some(wire)
    };
    // The connection that found the server ready may take a moment to go.
    let mut clients: Vec<_> = (0..5).map(|_| wait_for("a place", connect)).collect();
    for _ in 0..3 {
        let (said, is_closed) = server.wire().read_to_end(Duration::from_secs(5));
        assert_eq!(said, b"-ERR max number of clients reached\r\n");
        assert!(is_closed);
    }
    clients.pop();
    wait_for("the place that became free", connect);
    assert_eq!(clients[0].call(&["PING"]).0, b"+PONG\r\n");
}

#[test]
fn idle_clients_are_closed_after_the_timeout() {
    let server = Server::start(&["--timeout", "1"]);
    let (mut idle, mut busy, mut subscriber) = (server.wire(), server.wire(), server.wire());
    subscriber.call(&["SUBSCRIBE", "c"]);
    let started = mono_ms();
    idle.call(&["PING"]);
    idle.stream().set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    while !idle.is_closed() {
        assert_eq!(busy.call(&["PING"]).0, b"+PONG\r\n");
        assert!(mono_ms() - started < 10_000, "an idle client is still there");
    }
    assert!(mono_ms() - started >= 1000, "closed after {} ms", mono_ms() - started);
    assert_eq!(busy.call(&["PUBLISH", "c", "m"]).0, b":1\r\n");
    assert!(subscriber.read().0.ends_with(b"$1\r\nm\r\n"));
}

#[test]
fn after_kill_9_it_starts_on_the_same_port() {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    assert_eq!(wire.call(&["SET", "k", "v"]).0, b"+OK\r\n");
    let port = server.port.to_string();
    let again = server.restart(&["--port", &port]);
    assert!(wire.is_closed());
    assert_eq!(again.ask(&["EXISTS", "k"]), "0");
}

#[test]
fn help_and_version_need_no_server() {
    for words in [&["--help"][..], &["--version"], &["cli", "--help"], &["bench", "--help"]] {
        assert_eq!(Program::start(&binary(), words).wait().code, Some(0), "{words:?}");
    }
}
