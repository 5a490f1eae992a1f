//! Three clients at once: the same random interleaving of their commands on Redis 7.0 and here, and every
//! client must be told the same, in the same order.
//!
//! A program is a list of steps, each a command of one client: transactions that depend on watched keys,
//! commands that wait, subscriptions, and writes that concern all of these. After each step both servers
//! come to rest: every client has the replies to what it sent, or waits on both. Replies and messages are
//! then compared byte for byte. A program that shows a difference is made as short as it can be.
//!
//! `TEST_INTERLEAVINGS_S` is how long to look, in seconds; `TEST_SEED` is the seed of the first program,
//! which is another one each time without it.

#[path = "interleavings/program.rs"]
mod program;

use hypercache_stdx::rng::{self, Rng};
use hypercache_tests::{Frame, Server, Wire, is_installed, mono_ms, request, skipped};
use program::{CLIENTS, Do, Step};
use std::collections::BTreeSet;
use std::time::Duration;

/// For how long programs are tried without `TEST_INTERLEAVINGS_S`.
const SECONDS: u64 = 60;
/// Longest that two servers may differ in who waits before it counts.
const PATIENCE_MS: u64 = 3000;
/// How long to look for a reply before looking whether the client waits.
const GLANCE: Duration = Duration::from_micros(500);
/// Longest that is spent on making a program shorter.
const SHRINK_MS: u64 = 60_000;
/// Has one reply in any state of a client, and changes none: nobody else uses this key.
const SENTINEL: &[&str] = &["WATCH", "sentinel"];

/// A client on one server.
struct Actor {
    wire: Wire,
    id: String,
    /// Replies that it has not got yet.
    missing: usize,
    is_waiting: bool,
    /// Whether it was asked for a sign of life in this step.
    is_asked: bool,
    frames: Vec<Frame>,
}

impl Actor {
    fn new(server: &Server, version: &str) -> Actor {
        let mut wire = server.wire();
        assert_ne!(wire.call(&["HELLO", version]).kind(), b'-');
        let id = wire.call(&["CLIENT", "ID"]).line();
        Actor { wire, id, missing: 0, is_waiting: false, is_asked: false, frames: Vec::new() }
    }

    fn send<A: AsRef<[u8]>>(&mut self, words: &[A], replies: usize) {
        self.missing += replies;
        self.wire.send(&request(words));
    }

    /// Asks it for a sign of life, once in a step, so that all messages before that are there.
    fn ask(&mut self) {
        if self.missing == 0 && !self.is_asked {
            self.is_asked = true;
            self.send(SENTINEL, 1);
        }
    }

    /// Reads what comes until it has all replies or nothing came for a moment.
    fn read(&mut self) {
        while self.missing > 0
            && let Some(frame) = self.wire.read_within(GLANCE)
        {
            self.missing -= usize::from(!is_message(&frame));
            self.frames.push(frame);
        }
    }

    fn is_at_rest(&self) -> bool {
        self.is_waiting || self.is_asked && self.missing == 0
    }
}

fn is_message(frame: &Frame) -> bool {
    let first = frame.items().and_then(|items| items.into_iter().next());
    let is_name = |frame: Frame| ["message", "pmessage", "smessage"].contains(&&*frame.text());
    first.is_some_and(is_name)
}

/// A server with its clients.
struct Side {
    control: Wire,
    actors: Vec<Actor>,
}

impl Side {
    fn new(server: &Server, versions: &[&str]) -> Side {
        let mut control = server.wire();
        for words in [&["FLUSHALL"][..], &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]] {
            assert_eq!(control.call(words).0, b"+OK\r\n");
        }
        let actors = versions.iter().map(|version| Actor::new(server, version)).collect();
        Side { control, actors }
    }

    /// The words of a command on this server: `{n}` is the number of client `n`.
    fn words(&self, step: &Step) -> Vec<String> {
        let number = |word: &str| match word.strip_prefix('{') {
            Some(n) => self.actors[n[..1].parse::<usize>().expect("a client")].id.clone(),
            None => word.to_owned(),
        };
        step.words.iter().map(|word| number(word)).collect()
    }

    /// Asks who waits.
    fn look(&mut self) {
        let ids = self.actors.iter().map(|actor| &*actor.id);
        let words: Vec<&str> = ["CLIENT", "LIST", "ID"].into_iter().chain(ids).collect();
        let list = self.control.call(&words).text();
        for actor in &mut self.actors {
            let start = format!("id={} ", actor.id);
            let line = list.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
            let flags = line.split(" flags=").nth(1).and_then(|rest| rest.split(' ').next());
            actor.is_waiting = flags.is_some_and(|flags| flags.contains('b'));
        }
    }

    /// Has the step's client send its command, until it is answered or waits.
    fn play(&mut self, step: &Step) {
        let words = self.words(step);
        self.actors.iter_mut().for_each(|actor| actor.is_asked = false);
        self.actors[step.client].send(&words, step.replies());
        let deadline = mono_ms() + PATIENCE_MS;
        loop {
            self.actors[step.client].read();
            if self.actors[step.client].missing == 0 {
                break;
            }
            self.look();
            let waits = self.actors[step.client].is_waiting && step.doing != Do::TimeOut;
            if waits || mono_ms() > deadline {
                break;
            }
        }
        if step.doing == Do::Expire {
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    /// Looks at all keys, so that those go whose time is past.
    fn sweep(&mut self) {
        for db in ["1", "0"] {
            self.control.call(&["SELECT", db]);
            self.control.call(&[&["EXISTS"], program::KEYS].concat());
        }
    }

    /// Reads what is there. Returns whether each client has all that was sent to it, or waits.
    fn settle(&mut self) -> bool {
        self.look();
        for actor in self.actors.iter_mut().filter(|actor| !actor.is_waiting) {
            actor.read();
            actor.ask();
        }
        for actor in self.actors.iter_mut().filter(|actor| !actor.is_waiting) {
            actor.read();
        }
        self.actors.iter().all(Actor::is_at_rest)
    }

    fn waiting(&self) -> Vec<bool> {
        self.actors.iter().map(|actor| actor.is_waiting).collect()
    }

    fn take_frames(&mut self) -> Vec<Vec<Frame>> {
        self.actors.iter_mut().map(|actor| std::mem::take(&mut actor.frames)).collect()
    }
}

/// What is known of a client, from what Redis told it.
#[derive(Clone, Debug, Default)]
struct Known {
    is_in_transaction: bool,
    subscriptions: BTreeSet<(String, String)>,
}

impl Known {
    /// Whether a step can be compared. Redis writes messages into the midst of a reply to the same
    /// client, so one with subscriptions does nothing that has messages and is made of parts.
    fn allows(&self, step: &Step, version: &str) -> bool {
        let is_subscription = step.words[0].ends_with("SUBSCRIBE");
        let is_listening = version == "3" && !self.subscriptions.is_empty();
        !(is_subscription && self.is_in_transaction) && (!is_listening || step.is_about_messages())
    }

    fn note(&mut self, step: &Step, frames: &[Frame]) {
        let Some(reply) = frames.iter().find(|frame| !is_message(frame)) else { return };
        let name = &*step.words[0];
        if name == "MULTI" && reply.kind() == b'+' {
            self.is_in_transaction = true;
        } else if ["EXEC", "DISCARD"].contains(&name) && !reply.text().contains("Can't execute") {
            self.is_in_transaction = false;
        } else if name == "RESET" {
            *self = Known::default();
        } else if name.ends_with("SUBSCRIBE") && reply.kind() != b'-' {
            let kind = name.replace("UN", "");
            for channel in &step.words[1..] {
                let subscription = (kind.clone(), channel.clone());
                if kind == name {
                    self.subscriptions.insert(subscription);
                } else {
                    self.subscriptions.remove(&subscription);
                }
            }
        }
    }
}

/// Messages and replies by themselves: which of a client's own come first depends on Redis' command.
fn in_order(frames: &[Frame]) -> (Vec<&Frame>, Vec<&Frame>) {
    frames.iter().partition(|frame| is_message(frame))
}

/// How a program is played.
struct Cast {
    /// The clients' protocol versions.
    versions: Vec<&'static str>,
    /// Whether keys whose time is past are removed at once. Else nobody begins to watch any more when
    /// there may be such keys: WATCH removes them here, which Redis leaves to who looks at them next.
    sweeps: bool,
}

/// Where two servers differ.
struct Difference {
    /// Number of the step after which.
    step: usize,
    text: String,
}

/// Plays a program on both servers.
fn play(servers: (&Server, &Server), cast: &Cast, steps: &[Step]) -> Option<Difference> {
    let mut ours = Side::new(servers.0, &cast.versions);
    let mut redis = Side::new(servers.1, &cast.versions);
    let mut known = vec![Known::default(); CLIENTS];
    let mut has_expired = false;
    for (number, step) in steps.iter().enumerate() {
        // Who waits says nothing more.
        let client = step.client;
        let is_out = has_expired && !cast.sweeps && step.words[0] == "WATCH";
        let is_able = known[client].allows(step, cast.versions[client]);
        if redis.actors[client].is_waiting || is_out || !is_able {
            continue;
        }
        ours.play(step);
        redis.play(step);
        if step.doing == Do::Expire {
            has_expired = true;
            if cast.sweeps {
                ours.sweep();
                redis.sweep();
            }
        }
        let deadline = mono_ms() + PATIENCE_MS;
        let is_at_rest = loop {
            let (a, b) = (ours.settle(), redis.settle());
            if a && b && ours.waiting() == redis.waiting() {
                break true;
            }
            if mono_ms() > deadline {
                break false;
            }
        };
        let (a, b) = (ours.take_frames(), redis.take_frames());
        let is_same = a.iter().zip(&b).all(|(a, b)| in_order(a) == in_order(b));
        known[client].note(step, &b[client]);
        if !is_at_rest || !is_same {
            let waiting = (ours.waiting(), redis.waiting());
            let text = format!("  ours:  {a:?}\n  redis: {b:?}\n  waiting: {waiting:?}");
            return Some(Difference { step: number, text });
        }
    }
    None
}

/// Leaves out steps as long as there is a difference.
fn shrink(
    servers: (&Server, &Server),
    cast: &Cast,
    mut steps: Vec<Step>,
    mut found: Difference,
) -> (Vec<Step>, Difference) {
    let deadline = mono_ms() + SHRINK_MS;
    steps.truncate(found.step + 1);
    let mut len = (steps.len() / 2).max(1);
    loop {
        let mut at = 0;
        while at < steps.len() && mono_ms() < deadline {
            let fewer = [&steps[..at], &steps[(at + len).min(steps.len())..]].concat();
            match play(servers, cast, &fewer) {
                Some(difference) => {
                    steps = fewer[..=difference.step].to_vec();
                    found = difference;
                }
                None => at += len,
            }
        }
        if len == 1 || mono_ms() >= deadline {
            return (steps, found);
        }
        len /= 2;
    }
}

fn report(servers: (&Server, &Server), cast: &Cast, seed: u64, found: (Vec<Step>, Difference)) {
    let (steps, difference) = shrink(servers, cast, found.0, found.1);
    let lines: Vec<String> = steps.iter().map(Step::show).collect();
    panic!(
        "differs from Redis (TEST_SEED={seed}, protocols {:?}, sweeps: {}) after:\n  {}\n{}",
        cast.versions,
        cast.sweeps,
        lines.join("\n  "),
        difference.text,
    );
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn three_clients_are_told_what_redis_tells_them() {
    if !is_installed("redis-server") {
        return skipped("redis-server is not installed, so there is nothing to compare with");
    }
    const FLAGS: &[&str] = &["--notify-keyspace-events", "KEA"];
    let redis = Server::redis(FLAGS);
    let start = |threads| {
        let own = ["--enable-debug-command", "yes", "--threads", threads];
        Server::start(&[FLAGS, &own].concat())
    };
    let (one, two) = (start("1"), start("2"));
    let seconds = number_of("TEST_INTERLEAVINGS_S").unwrap_or(SECONDS);
    let mut seed = number_of("TEST_SEED").unwrap_or_else(|| rng::entropy() >> 16);
    let deadline = mono_ms() + seconds * 1000;
    while mono_ms() < deadline {
        let mut rng = Rng::new(seed);
        let versions = (0..CLIENTS).map(|_| if rng.below(2) == 0 { "2" } else { "3" }).collect();
        let cast = Cast { versions, sweeps: rng.below(2) == 0 };
        let ours = if rng.below(4) == 0 { &one } else { &two };
        let steps = program::program(&mut rng);
        if let Some(difference) = play((ours, &redis), &cast, &steps) {
            report((ours, &redis), &cast, seed, (steps, difference));
        }
        seed += 1;
    }
}
