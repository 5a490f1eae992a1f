//! Tests of the CLIENT command.

use super::*;
use crate::client::Address;
use crate::testing::Harness;

fn text(h: &mut Harness, line: &str) -> String {
    String::from_utf8_lossy(&h.run(line)).into_owned()
}

/// Runs lines; each reply must begin as told.
fn check(h: &mut Harness, script: &[(&str, &str)]) {
    for (line, expected) in script {
        let reply = text(h, line);
        assert!(reply.starts_with(expected), "{line}: {reply:?} for {expected:?}");
    }
}

fn waits(h: &Harness, command: &str) -> bool {
    is_paused(&h.shared, h.worker.now_ms, table().get(command.as_bytes()), &h.session)
}

#[test]
fn names_are_printable() {
    check(
        &mut Harness::default(),
        &[
            ("CLIENT SETNAME 'a b'", "-ERR Client names cannot contain spaces"),
            ("CLIENT SETNAME me", "+OK\r\n"),
            ("CLIENT GETNAME", "$2\r\nme\r\n"),
            ("CLIENT SETINFO lib-name redis-py", "+OK\r\n"),
            ("CLIENT SETINFO LIB-VER 'a b'", "-ERR LIB-VER cannot contain spaces"),
            ("CLIENT SETINFO color red", "-ERR Unrecognized option 'color'\r\n"),
            ("CLIENT SETNAME ''", "+OK\r\n"),
            ("CLIENT GETNAME", "$-1\r\n"),
        ],
    );
}

#[test]
fn a_line_has_all_fields_in_order() {
    let mut h = Harness::default();
    for line in ["CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME py", "SELECT 3", "HELLO 3"] {
        h.run(line);
    }
    h.run("CLIENT NO-EVICT ON");
    let line = text(&mut h, "CLIENT INFO");
    let fields: Vec<&str> = line.lines().nth(1).unwrap_or_default().split(' ').collect();
    let names: Vec<&str> = fields.iter().filter_map(|f| f.split('=').next()).collect();
    let expected = "txt:id addr laddr fd name age idle flags db sub psub ssub multi qbuf \
                    qbuf-free argv-mem multi-mem rbs rbp obl oll omem tot-mem events cmd user \
                    redir resp lib-name lib-ver";
    assert_eq!(names.join(" "), expected);
    for field in ["addr=?:0", "name=me", "flags=e", "db=3", "resp=3", "lib-name=py"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    assert!(fields.contains(&"cmd=client|info") && fields.contains(&"lib-ver="));
}

#[test]
fn list_filters() {
    let mut h = Harness::default();
    let other = Harness::connect(&h.shared);
    let lines = |h: &mut Harness, line: &str| text(h, line).matches("id=").count();
    assert_eq!(lines(&mut h, "CLIENT LIST"), 2);
    assert_eq!(lines(&mut h, "CLIENT LIST TYPE normal"), 2);
    assert_eq!(lines(&mut h, "CLIENT LIST TYPE replica"), 0);
    let twice = format!("CLIENT LIST ID {0} 99 {0}", other.client.id);
    assert_eq!(lines(&mut h, &twice), 2);
    check(
        &mut h,
        &[
            ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
            ("CLIENT LIST TYPE x", "-ERR Unknown client type 'x'\r\n"),
            ("CLIENT LIST TYPE normal x", "-ERR syntax error\r\n"),
        ],
    );
}

#[test]
fn filters_look_at_all_that_is_shown() {
    let mut h = Harness::default();
    let id = h.shared.clients.next_id();
    let ends = (Address::Ip("[::1]:5".parse().expect("valid")), Address::Unknown);
    let other = Arc::new(Client::new(id, 0, -1, ends, (h.shared.started_ms / 1000) as u32));
    h.shared.clients.add(Arc::clone(&other));
    other.set_db(3);
    other.set_flag(ClientFlags::TRACKING, true);
    other.set_flag(ClientFlags::REDIRECT_CAPABLE, true);
    other.rename(|names| {
        names.name = Box::from(&b"one"[..]);
        names.lib_name = Box::from(&b"py"[..]);
        names.lib_version = Box::from(&b"5"[..]);
    });
    h.worker.now_ms += 20_000;
    for filter in [
        "NAME one",
        "LIB-NAME py LIB-VER 5",
        "FLAGS t",
        "NOT-FLAGS N",
        "DB 3",
        "NOT-DB 0 CAPA r",
        "IP ::1",
        "IDLE 10 NAME one",
        "SKIPME yes",
        "ID 2 3 9 NAME one",
        "NOT-ID 1 9 SKIPME no",
        "NAME two NAME one",
        "USER default NOT-CAPA \"\" SKIPME no NOT-NAME \"\"",
    ] {
        let list = text(&mut h, &format!("CLIENT LIST {filter}"));
        let is_one = list.matches("id=").count() == 1 && list.contains("name=one");
        assert!(is_one != filter.contains("NOT-CAPA"), "{filter}: {list}");
    }
    check(
        &mut h,
        &[
            ("CLIENT LIST DB 16", "-ERR DB number should be between 0 and 15\r\n"),
            ("CLIENT LIST DB x", "-ERR DB is not an integer or out of range\r\n"),
            ("CLIENT KILL ID 9 x", "-ERR syntax error\r\n"),
            ("CLIENT LIST IDLE x", "-ERR idle is not an integer or out of range\r\n"),
            ("CLIENT LIST IDLE 0", "-ERR idle should be greater than 0\r\n"),
            ("CLIENT LIST FLAGS Nq", "-ERR Unknown flags found in the provided filter: Nq\r\n"),
            ("CLIENT LIST CAPA x", "-ERR Unknown capa found in the provided filter: x\r\n"),
            ("CLIENT LIST NOT-IDLE 1", "-ERR syntax error\r\n"),
            ("CLIENT LIST NOT-MAXAGE 1", "-ERR syntax error\r\n"),
            ("CLIENT LIST ID 1 NAME", "-ERR syntax error\r\n"),
            ("CLIENT KILL NAME two DB 3", ":0\r\n"),
            ("CLIENT KILL NOT-NAME two DB 3", ":1\r\n"),
        ],
    );
    assert!(other.is_killed() && !h.session.is_closing);
}

#[test]
fn kill_spares_the_caller_unless_told() {
    let mut h = Harness::default();
    let id = h.shared.clients.next_id();
    let ends = (Address::Ip("10.0.0.1:5".parse().expect("valid")), Address::Unknown);
    let other = Arc::new(Client::new(id, 0, -1, ends, (h.shared.started_ms / 1000) as u32));
    h.shared.clients.add(Arc::clone(&other));
    check(
        &mut h,
        &[
            ("CLIENT KILL ID 99", ":0\r\n"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL MAXAGE 0", "-ERR maxage should be greater than 0\r\n"),
            ("CLIENT KILL MAXAGE 100", ":0\r\n"),
            ("CLIENT KILL USER alice", "-ERR No such user 'alice'\r\n"),
            ("CLIENT KILL SKIPME maybe", "-ERR syntax error\r\n"),
            ("CLIENT KILL ID 1 SKIPME", "-ERR syntax error\r\n"),
            ("CLIENT KILL 10.0.0.1:6", "-ERR No such client\r\n"),
            ("CLIENT KILL ADDR 10.0.0.1:5 TYPE pubsub", ":0\r\n"),
        ],
    );
    assert!(!other.is_killed());
    check(&mut h, &[("CLIENT KILL TYPE normal", ":1\r\n")]);
    assert!(other.is_killed() && !h.session.is_closing);
    check(&mut h, &[("CLIENT KILL 10.0.0.1:5", "+OK\r\n")]);
    check(&mut h, &[("CLIENT KILL USER default SKIPME no", ":2\r\n")]);
    assert!(h.session.is_closing);
}

#[test]
fn replies_are_skipped_as_told() {
    check(
        &mut Harness::default(),
        &[
            ("CLIENT REPLY maybe", "-ERR syntax error\r\n"),
            ("CLIENT REPLY SKIP", ""),
            ("PING", ""),
            ("PING", "+PONG\r\n"),
            ("CLIENT REPLY OFF", ""),
            ("CLIENT REPLY SKIP", ""),
            ("CLIENT REPLY maybe", ""),
            ("CLIENT REPLY ON", "+OK\r\n"),
            ("PING", "+PONG\r\n"),
        ],
    );
    let mut h = Harness::default();
    assert_eq!(h.run("CLIENT REPLY OFF"), b"");
    assert_eq!(h.run("PING"), b"");
    assert_eq!(h.run("RESET"), b"+RESET\r\n");
}

#[test]
fn writes_wait_for_the_end_of_a_pause() {
    let mut h = Harness::default();
    h.run("CLIENT PAUSE 1000 WRITE");
    assert!(waits(&h, "SET") && waits(&h, "PUBLISH"));
    assert!(!waits(&h, "GET") && !waits(&h, "EXEC") && !waits(&h, "NOSUCH"));
    h.worker.now_ms += 1000;
    assert!(!waits(&h, "SET"));
    h.run("MULTI");
    h.run("SET a 1");
    h.worker.now_ms -= 1000;
    assert!(waits(&h, "EXEC"));
    h.run("DISCARD");
    h.run("CLIENT UNPAUSE");
    assert!(!waits(&h, "SET"));
}

#[test]
fn a_second_pause_can_only_prolong_and_tighten() {
    let mut h = Harness::default();
    h.run("CLIENT PAUSE 1000 ALL");
    h.run("CLIENT PAUSE 10 WRITE");
    h.worker.now_ms += 999;
    assert!(waits(&h, "GET"));
    h.worker.now_ms += 1;
    h.run("CLIENT PAUSE 10 WRITE");
    assert!(waits(&h, "SET") && !waits(&h, "GET"));
    check(
        &mut h,
        &[
            ("CLIENT PAUSE x y", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
            ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range\r\n"),
            ("CLIENT PAUSE 9223372036854775807", "-ERR timeout is out of range\r\n"),
            ("CLIENT PAUSE 1 ALL x", "-ERR unknown subcommand or wrong number of arguments"),
        ],
    );
}

#[test]
fn what_is_refused_does_not_wait() {
    let mut h = Harness::default();
    h.run("CLIENT PAUSE 1000 ALL");
    h.run("CONFIG SET requirepass secret");
    h.session.is_authenticated = false;
    assert!(!waits(&h, "GET") && waits(&h, "AUTH"));
}

#[test]
fn nobody_is_blocked() {
    check(
        &mut Harness::default(),
        &[
            ("CLIENT UNBLOCK 1", ":0\r\n"),
            ("CLIENT UNBLOCK x x", "-ERR CLIENT UNBLOCK reason should be"),
            ("CLIENT UNBLOCK x", "-ERR value is not an integer or out of range\r\n"),
            ("CLIENT UNBLOCK 1 ERROR x", "-ERR unknown subcommand or wrong number of"),
        ],
    );
}
