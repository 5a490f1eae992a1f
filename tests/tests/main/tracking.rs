//! Client-side caching: who is told of what, compared with Redis 7.0 value by value and in order.

use hypercache_tests::{Frame, Server, Wire, request, wait_for};
use std::collections::BTreeMap;
use std::time::Duration;

const SCENARIOS: &str = include_str!("tracking.txt");

/// A client of a scenario.
struct Player {
    wire: Wire,
    id: String,
    /// Whether commands are queued, so that nothing may come between them.
    is_queueing: bool,
    /// Whether its commands are answered.
    is_answered: bool,
}

impl Player {
    fn connect(server: &Server, version: &str) -> Player {
        let mut wire = server.wire();
        let id = wire.call(&["CLIENT", "ID"]).line();
        wire.call(&["HELLO", version]);
        Player { wire, id, is_queueing: false, is_answered: true }
    }

    /// Reads what came before the answer to a command that changes nothing, after which all that the
    /// server had to tell has arrived.
    fn unasked(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.is_queueing || !self.is_answered {
            return frames;
        }
        self.wire.send(&request(&["CLIENT", "ID"]));
        loop {
            let frame = self.wire.read();
            let is_answer = frame.as_int().is_some_and(|id| id.to_string() == self.id)
                || frame.line().contains("'client|id'");
            if is_answer {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Sends commands at once and reads their answers and what comes between them.
    fn perform(&mut self, commands: &[Vec<String>]) -> Vec<Frame> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| request(words)).collect();
        self.wire.send(&bytes);
        let mut frames = Vec::new();
        for words in commands {
            self.note(words);
            if !self.is_answered || words.last().is_some_and(|word| word == "SKIP") {
                // The next one is not answered either.
                return self.unasked();
            }
            loop {
                let frame = self.wire.read();
                let is_answer = frame.kind() != b'>' || words[0].ends_with("SUBSCRIBE");
                frames.push(frame);
                if is_answer {
                    break;
                }
            }
        }
        frames.extend(self.unasked());
        frames
    }

    fn note(&mut self, words: &[String]) {
        match words[0].as_str() {
            "MULTI" => self.is_queueing = true,
            "EXEC" | "RESET" => self.is_queueing = false,
            "CLIENT" if words[1] == "REPLY" && words[2] != "SKIP" => {
                self.is_answered = words[2] == "ON";
            }
            _ => {}
        }
    }
}

/// What a frame says, without what differs from server to server.
fn told(frame: &Frame, ids: &BTreeMap<String, String>) -> String {
    let text = frame.text();
    let some = |keep: &dyn Fn(&&str) -> bool, words: &mut dyn Iterator<Item = &str>| {
        words.filter(keep).collect::<Vec<_>>().join(" ")
    };
    let mut told = if text.contains("tracking_") {
        some(&|line| line.starts_with("tracking_"), &mut text.lines())
    } else if text.contains("flags=") {
        let keep = |word: &&str| word.starts_with("flags=") || word.starts_with("redir=");
        some(&keep, &mut text.split_whitespace())
    } else if frame.0.windows(7).any(|part| part == b"version") {
        "HELLO".into()
    } else {
        format!("{frame:?}")
    };
    for (id, name) in ids {
        told = told.replace(&format!(":{id}\\r"), &format!(":@{name}\\r"));
        told = told.replace(&format!("redir={id}"), &format!("redir=@{name}"));
    }
    told
}

/// Plays a scenario; returns a line for each value that a client got.
fn play(server: &Server, lines: &[&str]) -> Vec<String> {
    let mut stage: BTreeMap<String, Player> = BTreeMap::new();
    let (mut ids, mut log) = (BTreeMap::new(), Vec::new());
    server.ask(&["FLUSHALL"]);
    server.ask(&["CONFIG", "SET", "tracking-table-max-keys", "1000000"]);
    wait_for("clients of before to go", || (server.info("tracking_clients") == "0").then_some(()));
    for line in lines {
        let (name, what) = line.split_once(' ').expect("a client and what it does");
        let mut note = |who: &str, frames: &[Frame], ids: &BTreeMap<_, _>| {
            log.extend(frames.iter().map(|f| format!("{line}: {who} {}", told(f, ids))));
        };
        if let Some(version) = what.strip_prefix("!open ") {
            let player = Player::connect(server, version);
            ids.insert(player.id.clone(), name.to_owned());
            stage.insert(name.to_owned(), player);
        } else if what == "!close" {
            let id = stage.remove(name).expect("a client").id;
            wait_for("a client to go", || {
                server.ask(&["CLIENT", "LIST", "ID", &id]).is_empty().then_some(())
            });
        } else if what == "!await" {
            let frame = stage.get_mut(name).expect("a client").wire.read();
            note(name, &[frame], &ids);
        } else if let Some(ms) = what.strip_prefix("!pause ") {
            std::thread::sleep(Duration::from_millis(ms.parse().expect("milliseconds")));
        } else {
            let number = |word: &str| {
                let player = word.strip_prefix('@').map(|name| stage[name].id.clone());
                player.unwrap_or_else(|| word.replace("\"\"", ""))
            };
            let words = |command: &str| command.split(' ').map(number).collect();
            let commands: Vec<Vec<String>> = what.split(" | ").map(words).collect();
            let frames = stage.get_mut(name).expect("a client").perform(&commands);
            note(name, &frames, &ids);
            for (other, player) in stage.iter_mut().filter(|(other, _)| *other != name) {
                note(other, &player.unasked(), &ids);
            }
        }
    }
    log
}

#[test]
fn clients_are_told_as_by_redis() {
    let ours = Server::start(&["--threads", "2", "--enable-debug-command", "yes"]);
    let redis = Server::redis(&[]);
    let scenarios: Vec<_> = SCENARIOS.split("\n\n# ").skip(1).collect();
    assert!(scenarios.len() >= 30, "{} scenarios", scenarios.len());
    for scenario in scenarios {
        let mut lines = scenario.lines();
        let name = lines.next().unwrap_or_default();
        let lines: Vec<&str> = lines.collect();
        let (got, expected) = (play(&ours, &lines), play(&redis, &lines));
        assert!(expected.len() >= 3, "{name} tells nothing");
        assert_eq!(got, expected, "{name}");
    }
}

/// Beyond the bound some keys are told of and forgotten, and no others.
#[test]
fn the_table_is_bounded() {
    let server = Server::start(&["--tracking-table-max-keys", "100"]);
    let mut wire = server.wire();
    wire.call(&["HELLO", "3"]);
    wire.call(&["CLIENT", "TRACKING", "ON"]);
    let mut forgotten = 0;
    for i in 0..1000 {
        wire.send(&request(&["GET", &format!("key:{i}")]));
        while wire.read().kind() == b'>' {
            forgotten += 1;
        }
    }
    wire.send(&request(&["PING"]));
    while wire.read().kind() == b'>' {
        forgotten += 1;
    }
    assert_eq!(forgotten, 900);
    assert_eq!(server.info("tracking_total_keys"), "100");
    server.ask(&["CONFIG", "SET", "tracking-table-max-keys", "10"]);
    wait_for("the table to shrink", || (server.info("tracking_total_items") == "10").then_some(()));
    for _ in 0..90 {
        assert_eq!(wire.read().kind(), b'>');
    }
    drop(wire);
    server.ask(&["FLUSHALL"]);
    assert_eq!(server.info("tracking_total_items"), "0");
}

/// A client that makes room for its own write does not know which key went.
#[test]
fn an_evicted_key_is_told_of() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-random"]);
    let mut wire = server.wire();
    wire.call(&["HELLO", "3"]);
    wire.call(&["SET", "k", "1"]);
    wire.call(&["CLIENT", "TRACKING", "ON", "NOLOOP"]);
    wire.call(&["GET", "k"]);
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    wire.send(&request(&["SET", "other", "1"]));
    let frames = [wire.read(), wire.read()];
    let push = frames.iter().find(|frame| frame.kind() == b'>').expect("a push");
    assert_eq!(push.0, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
}
