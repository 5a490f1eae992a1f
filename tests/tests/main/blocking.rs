//! Commands that wait: the same scenes are played on Redis and here, and must read the same.
//!
//! A scene is lines of a client's name and what it does: a command, whose reply is noted;
//! `... command`, which is sent and must make the client wait; `+ command`, which is only sent; or
//! nothing, which notes its next reply. `{a}` in a command is the number of client `a`.

use hypercache_tests::{Server, Wire, mono_ms, request, wait_for};
use std::collections::BTreeMap;

const SCENES: &[(&str, &str)] = &[
    (
        "an item goes to who waits before the pusher's next command",
        "b ... BLPOP k j 0\na RPUSH k x\na LLEN k\nb",
    ),
    (
        "first come, first served",
        "b ... BLPOP k 0\nc ... BRPOP k 0\nd ... BLMPOP 0 1 k LEFT COUNT 2\n\
      a RPUSH k 1 2 3 4 5\nb\nc\nd\na LRANGE k 0 -1",
    ),
    (
        "the key that was pushed to first",
        "b ... BLPOP k1 k2 0\na MULTI\na RPUSH k2 x\na RPUSH k1 y\na EXEC\nb\n\
      a LLEN k1\na LLEN k2",
    ),
    (
        "what came and went in a transaction was not there",
        "b ... BLPOP k 0\na MULTI\na RPUSH k x\na LPOP k\n\
      a EXEC\na RPUSH k y\nb",
    ),
    (
        "chains",
        "b ... BLMOVE s m LEFT RIGHT 0\nc ... BRPOPLPUSH m d 0\nd ... BLPOP d 0\na RPUSH s x\n\
      a EXISTS s m d\nb\nc\nd",
    ),
    (
        "a circle ends",
        "b ... BRPOPLPUSH x y 0\nc ... BRPOPLPUSH y x 0\na RPUSH x 1\na LRANGE x 0 -1\n\
      a LRANGE y 0 -1\nb\nc",
    ),
    ("a list that is turned", "b ... BLMOVE k k LEFT RIGHT 0\na RPUSH k 1 2\na LRANGE k 0 -1\nb"),
    ("a key named thrice", "b ... BLPOP k k k 0\na RPUSH k 1 2\na LRANGE k 0 -1\nb"),
    ("another type is waited through", "b ... BLPOP k 0\na SET k x\na DEL k\na RPUSH k y\nb"),
    (
        "a target of another type is an error, and the item stays",
        "b ... BLMOVE s d LEFT RIGHT 0\n\
      c ... BLPOP s 0\na SET d x\na RPUSH s 1\nb\nc\na EXISTS s",
    ),
    (
        "a key of another type at once is an error",
        "a SET k x\na BLPOP j k 0\na BLMOVE k j LEFT LEFT 0\na BLMPOP 0 1 k LEFT",
    ),
    ("RENAME makes ready", "b ... BLPOP k 0\na RPUSH o 1 2\na RENAME o k\na LRANGE k 0 -1\nb"),
    ("COPY makes ready", "b ... BLPOP k 0\na RPUSH o 1 2\na COPY o k\na LRANGE k 0 -1\nb"),
    ("MOVE makes ready", "b SELECT 3\nb ... BLPOP k 0\na RPUSH k 1\na MOVE k 3\nb\na EXISTS k"),
    (
        "SWAPDB makes ready",
        "b SELECT 4\nb ... BLPOP k 0\na RPUSH k 1 2\na SWAPDB 0 4\nb\na SELECT 4\na LRANGE k 0 -1",
    ),
    ("FLUSHALL ends no wait", "b ... BLPOP k 0\na FLUSHALL\na RPUSH k 1\nb"),
    (
        "time runs out",
        "b BLPOP k 0.05\nb BLMOVE k d LEFT LEFT 0.05\nb BRPOPLPUSH k d 0.05\nb BLMPOP 0.05 1 k LEFT\n\
      b ? HELLO 3\nb BLPOP k 0.0001\na RPUSH k 1\na LLEN k",
    ),
    (
        "timeouts that are none",
        "a BLPOP k x\na BLPOP k -1\na BLPOP k inf\na BLPOP k nan\na BLPOP k 1e300\n\
      a BLMPOP x 1 k LEFT\na LMPOP 1 k LEFT COUNT 0 x\n\
      a LMPOP 1 k LEFT COUNT 1 x\na BLMPOP x 0 k LEFT\na BLMOVE a b c LEFT 0",
    ),
    (
        "CLIENT UNBLOCK",
        "a CLIENT UNBLOCK {b}\nb ... BLPOP k 0\na CLIENT UNBLOCK {b}\nb\nb ... BRPOPLPUSH k d 0\n\
      a CLIENT UNBLOCK {b} ERROR\nb\nb ... BLPOP k 0\na CLIENT UNBLOCK {b} TIMEOUT\nb\n\
      a CLIENT UNBLOCK {b}\na CLIENT UNBLOCK x\na CLIENT UNBLOCK 1 FOO\n\
      a CLIENT UNBLOCK -1\na RPUSH k 1\na LLEN k",
    ),
    (
        "a transaction does not wait",
        "a MULTI\na BLPOP k 0\na BLMOVE k d LEFT LEFT 0\na BRPOPLPUSH k d 0\n\
      a BLMPOP 0 1 k LEFT\na RPUSH k 1\na BLPOP k 0\na EXEC",
    ),
    (
        "what follows waits too",
        "b + SET x 1\nb ... BLPOP k 0\nb + INCR x\nb + BLPOP k 0\nb + INCR x\nb\na GET x\n\
      a RPUSH k 1\nb\nb\na RPUSH k 2\nb\nb\na GET x",
    ),
    (
        "CLIENT KILL",
        "b ... BLPOP k 0\nc ... BLPOP k 0\na CLIENT KILL ID {b}\na RPUSH k 1 2\nc\na LRANGE k 0 -1",
    ),
    (
        "a watched key is changed though it comes and goes",
        "a WATCH k\nb ... BLPOP k 0\nc RPUSH k 1\nb\na MULTI\na PING\na EXEC",
    ),
    (
        "the one who waits may watch",
        "b WATCH k\nb ... BLPOP k 0\na RPUSH k 1\nb\nb MULTI\nb PING\nb EXEC",
    ),
    (
        "replies that are off stay off",
        "b + CLIENT REPLY OFF\nb ... BLPOP k 0\na RPUSH k 1\nb + CLIENT REPLY ON\nb\n\
      b + CLIENT REPLY SKIP\nb ... BLPOP k 0\na RPUSH k 2\nb PING",
    ),
    (
        "members go to who waits for them, first come first served",
        "b ... BZPOPMIN k 0\nc ... BZPOPMAX k 0\nd ... BZMPOP 0 1 k MAX COUNT 2\n\
      a ZADD k 1 a 2 b 3 c 4 d 5 e\nb\nc\nd\na ZRANGE k 0 -1",
    ),
    (
        "who waits for members waits through other types, and the other way round",
        "b ... BLPOP k 0\nc ... BZPOPMIN k 0\na ZADD k 1 a\nc\na RPUSH k x\nb",
    ),
    (
        "members come by other ways than ZADD",
        "b ... BZPOPMIN k 0\na ZADD o 1 a 2 b\na RENAME o k\nb\nb ... BZPOPMIN j 0\n\
      a ZUNIONSTORE j 1 k\nb\nb ... BZPOPMAX i 0\na GEOADD i 1 2 p\nb\nb ... BZPOPMAX i 0\n\
      a ZINCRBY i 2 p\nb\nb ... BZMPOP 0 2 h i MIN\na ZRANGESTORE h k 0 -1\nb",
    ),
    (
        "what cannot wait for members says so",
        "a SET k x\na BZPOPMIN j k 0\na BZMPOP 0 1 k MIN\na BZPOPMIN k x\na BZPOPMAX k -1\n\
      a BZMPOP x 1 k MIN\na BZMPOP x 0 k MIN\na BZMPOP 0 1 k MID\na BZMPOP 0 1 k MIN COUNT 0\n\
      a BZPOPMIN j 0.05\na BZMPOP 0.05 1 j MIN\na MULTI\na BZPOPMIN j 0\na BZMPOP 0 1 j MIN\na EXEC",
    ),
    (
        "a stream named twice is waited for once",
        "b ... XREAD BLOCK 0 STREAMS s s $ 5-0\na XADD s 7-1 f v\nb",
    ),
    (
        "a group has nothing left of a stream that is named twice",
        "a XGROUP CREATE s g $ MKSTREAM\na XADD s 7-1 f v\na XADD s 7-2 f v\n\
      a XREADGROUP GROUP g c COUNT 1 STREAMS s s s > > >\na XREADGROUP GROUP g c STREAMS s s > 0",
    ),
    (
        "CLIENT UNBLOCK within a transaction",
        "b ... BLPOP k 0\na MULTI\na RPUSH j x\na CLIENT UNBLOCK {b}\na EXEC\nb\na RPUSH k 1\na LLEN k",
    ),
    (
        "who waits as a consumer learns what became of the stream",
        "a XGROUP CREATE s g $ MKSTREAM\nb ... XREADGROUP GROUP g c BLOCK 0 STREAMS s >\na DEL s\nb\n\
      a XGROUP CREATE s g $ MKSTREAM\nb ... XREADGROUP GROUP g c BLOCK 0 STREAMS s >\na SET s x\nb\n\
      a DEL s\na XGROUP CREATE s g $ MKSTREAM\nb ... XREADGROUP GROUP g c BLOCK 0 STREAMS s >\n\
      a PEXPIRE s 1\nb\na XGROUP CREATE s g $ MKSTREAM\n\
      b ... XREADGROUP GROUP g c BLOCK 0 STREAMS s >\na XGROUP DESTROY s g\nb",
    ),
    (
        "a key whose time is past is told to have expired before it is written",
        "e PSUBSCRIBE __keyevent*\na DEBUG SET-ACTIVE-EXPIRE 0\na SET k 2 PX 1\n\
      a DEBUG SLEEP 0.01\na SET k 3\ne\ne\ne\ne\na DEBUG SET-ACTIVE-EXPIRE 1",
    ),
    (
        "what a transaction publishes comes after what it changed before",
        "e PSUBSCRIBE __keyevent* n*\ne\na MULTI\na SET k 1\na PUBLISH n 1\na SET j 1\na EXEC\ne\ne\ne",
    ),
    (
        "events",
        "e PSUBSCRIBE __keyevent*\nb ... BLMOVE k d LEFT RIGHT 0\na RPUSH k 1\nb\ne\ne\ne\ne",
    ),
];

/// The clients of a scene on one server.
struct Stage<'s> {
    server: &'s Server,
    clients: BTreeMap<String, (Wire, String)>,
    notes: Vec<String>,
}

impl Stage<'_> {
    fn client(&mut self, name: &str) -> &mut Wire {
        let server = self.server;
        let entry = self.clients.entry(name.to_owned());
        &mut entry
            .or_insert_with(|| {
                let mut wire = server.wire();
                let id = wire.call(&["CLIENT", "ID"]).line();
                (wire, id)
            })
            .0
    }

    fn blocked(&self) -> u64 {
        self.server.info_number("blocked_clients")
    }

    fn step(&mut self, line: &str) {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.client(name);
        if let Some(target) = rest.split(['{', '}']).nth(1) {
            self.client(target);
        }
        let mut words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
        for (other, (_, id)) in &self.clients {
            words.iter_mut().for_each(|word| *word = word.replace(&format!("{{{other}}}"), id));
        }
        match words[0].as_str() {
            "" => {}
            "..." => {
                let before = self.blocked();
                self.client(name).send(&request(&words[1..]));
                return wait_for("the client to wait", || {
                    (self.blocked() == before + 1).then_some(())
                });
            }
            "?" => {
                self.client(name).call(&words[1..]);
                return;
            }
            "+" => return self.client(name).send(&request(&words[1..])),
            _ => self.client(name).send(&request(&words)),
        }
        let reply = self.client(name).read();
        self.notes.push(format!("{line}: {reply:?}"));
    }
}

fn play(server: &Server, scene: &str) -> Vec<String> {
    server.ask(&["FLUSHALL"]);
    let mut stage = Stage { server, clients: BTreeMap::new(), notes: Vec::new() };
    scene.lines().for_each(|line| stage.step(line.trim()));
    let notes = std::mem::take(&mut stage.notes);
    drop(stage);
    wait_for("nobody to wait", || (server.info_number("blocked_clients") == 0).then_some(()));
    notes
}

#[test]
fn waiting_is_as_in_redis() {
    const EVENTS: &[&str] = &["--notify-keyspace-events", "KEA"];
    let redis = Server::redis(EVENTS);
    const DEBUG: &[&str] = &["--enable-debug-command", "yes"];
    let one = Server::start(&[EVENTS, DEBUG, &["--threads", "1", "--io", "epoll"]].concat());
    let two = Server::start(&[EVENTS, DEBUG, &["--threads", "2"]].concat());
    for (title, scene) in SCENES {
        let expected = play(&redis, scene);
        assert_eq!(play(&one, scene), expected, "{title}, one worker");
        assert_eq!(play(&two, scene), expected, "{title}, two workers");
    }
}

#[test]
fn time_runs_out_when_it_should() {
    let server = Server::start(&["--threads", "2"]);
    let mut wires: Vec<(Wire, u64)> = (1..=4).map(|n| (server.wire(), n * 60)).collect();
    let started = mono_ms();
    for (wire, ms) in wires.iter_mut().rev() {
        wire.send(&request(&["BLPOP", "k", &format!("{}", *ms as f64 / 1000.0)]));
    }
    for (wire, ms) in &mut wires {
        assert_eq!(wire.read().0, b"*-1\r\n");
        let took = mono_ms() - started;
        assert!(took >= *ms - 1, "{took} instead of {ms} ms");
        assert!(took < *ms + 1000, "{took} instead of {ms} ms");
    }
}

#[test]
fn two_hundred_who_wait_are_served_in_order() {
    let server = Server::start(&["--threads", "2"]);
    let mut wires: Vec<Wire> = (0..200).map(|_| server.wire()).collect();
    for (i, wire) in wires.iter_mut().enumerate() {
        wire.send(&request(&["BLPOP", "k", "0"]));
        // Until it waits: its worker may be another than that of the one before.
        let waiting = || server.info_number("blocked_clients") == i as u64 + 1;
        wait_for("the client to wait", || waiting().then_some(()));
    }
    let mut pusher = server.wire();
    let pushes: Vec<u8> = (0..200).flat_map(|i| request(&["RPUSH", "k", &i.to_string()])).collect();
    pusher.send(&pushes);
    for (i, wire) in wires.iter_mut().enumerate() {
        let items = wire.read().items().expect("a key and an item");
        assert_eq!(items[1].text(), i.to_string());
    }
    assert_eq!(server.ask(&["EXISTS", "k"]), "0");
}

#[test]
fn who_went_leaves_nothing_behind() {
    let server = Server::start(&["--threads", "2"]);
    for _ in 0..20 {
        let mut wire = server.wire();
        wire.send(&request(&["BLPOP", "k", "j", "0"]));
    }
    wait_for("nobody to wait", || (server.info_number("blocked_clients") == 0).then_some(()));
    assert_eq!(server.ask(&["RPUSH", "k", "1"]), "1");
    assert_eq!(server.ask(&["LLEN", "k"]), "1");
}

const ITEMS: usize = 3000;
const KEYS: usize = 5;

/// Pushers and those who wait, over several keys and through a chain: each item arrives once.
#[test]
fn no_item_is_lost_or_comes_twice() {
    let server = Server::start(&["--threads", "2"]);
    let port = server.port;
    let pushers: Vec<_> = (0..4)
        .map(|p| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port);
                for i in 0..ITEMS / 4 {
                    let (key, item) = (format!("k{}", (i * 7 + p) % KEYS), format!("{p}-{i}"));
                    match i % 3 {
                        0 => drop(wire.call(&["RPUSH", &key, &item])),
                        1 => drop(wire.call(&["LPUSH", &key, &item])),
                        _ => {
                            wire.send(&request(&["MULTI"]));
                            wire.send(&request(&["RPUSH", "source", &item]));
                            wire.send(&request(&["EXEC"]));
                            (0..3).for_each(|_| drop(wire.read()));
                        }
                    }
                }
            })
        })
        .collect();
    let movers: Vec<_> = (0..2)
        .map(|m| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port);
                let target = format!("k{m}");
                while wire.call(&["BLMOVE", "source", &target, "LEFT", "RIGHT", "0.5"]).kind()
                    == b'$'
                {}
            })
        })
        .collect();
    let poppers: Vec<_> = (0..6)
        .map(|p: usize| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port);
                let keys: Vec<String> = (0..KEYS).map(|k| format!("k{}", (k + p) % KEYS)).collect();
                let mut words = vec![if p.is_multiple_of(2) { "BLPOP" } else { "BRPOP" }];
                words.extend(keys.iter().map(String::as_str));
                words.push("1");
                let mut got = Vec::new();
                while let Some(items) = wire.call(&words).items() {
                    got.push(items[1].text());
                }
                got
            })
        })
        .collect();
    pushers.into_iter().chain(movers).for_each(|thread| thread.join().expect("no failure"));
    let mut got: Vec<String> =
        poppers.into_iter().flat_map(|thread| thread.join().expect("no failure")).collect();
    assert_eq!(got.len(), ITEMS, "{} left", server.ask(&["DBSIZE"]));
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), ITEMS, "none came twice");
    assert_eq!(server.info_number("blocked_clients"), 0);
}
