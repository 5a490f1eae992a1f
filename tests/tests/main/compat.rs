//! The same commands to this server and to Redis 7.0, and the same replies from both.

use crate::generate::{Words, command};
use hypercache_stdx::rng::Rng;
use hypercache_tests::{Frame, Server, Wire, request};

/// The seed, unless the environment variable `TEST_SEED` is another.
const SEED: u64 = 7;
/// Commands per way of sending them and protocol.
const COMMANDS: usize = 3000;
/// Longest tail of commands that is tried to reproduce a difference.
const TAIL_MAX: usize = 256;

/// A connection to each server.
struct Pair {
    ours: Wire,
    redis: Wire,
    version: &'static str,
}

/// What both replied to one command.
type Replies = (Frame, Frame);

impl Pair {
    fn new(ours: &Server, redis: &Server, version: &'static str) -> Pair {
        let mut pair = Pair { ours: ours.wire(), redis: redis.wire(), version };
        pair.reset();
        pair
    }

    /// Brings both servers into the same, empty state.
    fn reset(&mut self) {
        for wire in [&mut self.ours, &mut self.redis] {
            for words in [&["RESET"][..], &["HELLO", self.version], &["FLUSHALL"]] {
                let reply = wire.call(words);
                assert_ne!(reply.kind(), b'-', "{reply:?}");
            }
        }
    }

    fn call(&mut self, words: &Words) -> Replies {
        let bytes = request(words);
        self.ours.send(&bytes);
        self.redis.send(&bytes);
        (self.ours.read(), self.redis.read())
    }

    /// Sends all at once, in pieces of random lengths.
    fn pipeline(&mut self, commands: &[Words], rng: &mut Rng) -> Vec<Replies> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| request(words)).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = 1 + rng.below(rest.len().min(400) as u64) as usize;
            let (piece, after) = rest.split_at(len);
            self.ours.send(piece);
            self.redis.send(piece);
            rest = after;
        }
        commands.iter().map(|_| (self.ours.read(), self.redis.read())).collect()
    }
}

fn show(words: &Words) -> String {
    let quote = |word: &Vec<u8>| format!("\"{}\"", word.escape_ascii());
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Whether two replies to a command mean the same. What is not compared byte by byte is named here.
fn is_same(words: &Words, (ours, redis): &Replies) -> bool {
    if ours == redis {
        return true;
    }
    let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
    let within = |tolerance: i64| match (ours.as_int(), redis.as_int()) {
        (Some(a), Some(b)) => a >= 0 && b >= 0 && (a - b).abs() <= tolerance,
        _ => false,
    };
    match name.as_str() {
        // Time goes on between the two.
        "TTL" | "EXPIRETIME" => within(2),
        "PTTL" | "PEXPIRETIME" => within(2000),
        // Counts keys that are past their time until something removes them; KEYS does not.
        "DBSIZE" => ours.kind() == redis.kind(),
        // Any key will do, and any order.
        "RANDOMKEY" => ours.kind() == redis.kind(),
        "KEYS" => sorted(ours) == sorted(redis),
        // Cursors and slices differ; that all keys are met is a test of its own.
        "SCAN" => ours.kind() == b'*' && redis.kind() == b'*',
        // There are fewer encodings here, and no shared objects.
        "OBJECT" => ours.kind() == redis.kind(),
        _ => false,
    }
}

fn sorted(frame: &Frame) -> Option<Vec<Frame>> {
    let mut items = frame.items()?;
    items.sort_by(|a, b| a.0.cmp(&b.0));
    Some(items)
}

/// Compares replies in turn. EXEC's are compared as those of the commands it ran.
fn check(pair: &mut Pair, history: &mut Vec<Words>, batch: &[Words], replies: &[Replies]) {
    let mut queue: Vec<&Words> = Vec::new();
    for (words, reply) in batch.iter().zip(replies) {
        history.push(words.clone());
        if reply.0.0 == b"+QUEUED\r\n" {
            queue.push(words);
        }
        let is_same = match words[0].as_slice() {
            b"EXEC" => is_same_exec(&std::mem::take(&mut queue), reply),
            b"DISCARD" => {
                queue.clear();
                is_same(words, reply)
            }
            _ => is_same(words, reply),
        };
        if !is_same {
            report(pair, history, words, reply);
        }
    }
}

fn is_same_exec(queue: &[&Words], reply: &Replies) -> bool {
    let (Some(ours), Some(redis)) = (reply.0.items(), reply.1.items()) else {
        return reply.0 == reply.1;
    };
    ours.len() == redis.len()
        && ours.len() == queue.len()
        && queue.iter().zip(ours.into_iter().zip(redis)).all(|(words, pair)| is_same(words, &pair))
}

/// Panics with the shortest tail of the history that shows a difference again.
fn report(pair: &mut Pair, history: &[Words], words: &Words, (ours, redis): &Replies) {
    let lengths = 1..=history.len().min(TAIL_MAX);
    let tails = lengths.map(|len| &history[history.len() - len..]);
    let found = tails.into_iter().find(|tail| {
        pair.reset();
        let replies: Vec<Replies> = tail.iter().map(|words| pair.call(words)).collect();
        replies.last().is_some_and(|reply| !is_same(words, reply))
    });
    let tail = found.unwrap_or(&history[history.len() - history.len().min(20)..]);
    let steps: Vec<String> = tail.iter().map(show).collect();
    panic!(
        "differs from Redis (RESP{}, TEST_SEED={}, reproduced alone: {}):\n  {}\n  ours:  {ours:?}\n  redis: {redis:?}",
        pair.version,
        seed(),
        found.is_some(),
        steps.join("\n  "),
    );
}

pub(crate) fn seed() -> u64 {
    std::env::var("TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

/// Runs `play` under both protocols against fresh servers.
fn against_redis(play: impl Fn(&mut Pair, &mut Rng)) {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    for version in ["2", "3"] {
        play(&mut Pair::new(&ours, &redis, version), &mut Rng::new(seed()));
    }
}

#[test]
fn random_commands_one_by_one() {
    against_redis(|pair, rng| {
        let mut history = Vec::new();
        for _ in 0..COMMANDS {
            let words = command(rng);
            let reply = pair.call(&words);
            check(pair, &mut history, &[words], &[reply]);
        }
    });
}

#[test]
fn random_commands_in_pipelines_of_random_pieces() {
    against_redis(|pair, rng| {
        let mut history = Vec::new();
        for _ in 0..COMMANDS / 50 {
            let batch: Vec<Words> = (0..50).map(|_| command(rng)).collect();
            let replies = pair.pipeline(&batch, rng);
            check(pair, &mut history, &batch, &replies);
        }
    });
}

/// MULTI, some commands, EXEC or now and then DISCARD; sometimes with a WATCH before.
fn transaction(rng: &mut Rng) -> Vec<Words> {
    let word = |text: &str| vec![text.as_bytes().to_vec()];
    let mut batch = Vec::new();
    if rng.below(3) == 0 {
        batch.push(vec![b"WATCH".to_vec(), b"a".to_vec(), b"b".to_vec()]);
        if rng.below(2) == 0 {
            batch.push(command(rng));
        }
    }
    batch.push(word("MULTI"));
    batch.extend((0..rng.below(8)).map(|_| command(rng)));
    match rng.below(12) {
        0 => batch.push(word("MULTI")),
        1 => batch.push(vec![b"WATCH".to_vec(), b"a".to_vec()]),
        _ => {}
    }
    batch.push(word(if rng.below(8) == 0 { "DISCARD" } else { "EXEC" }));
    batch
}

#[test]
fn random_commands_in_transactions() {
    against_redis(|pair, rng| {
        let mut history = Vec::new();
        let mut count = 0;
        while count < COMMANDS {
            let batch = transaction(rng);
            count += batch.len();
            let replies = if rng.below(2) == 0 {
                pair.pipeline(&batch, rng)
            } else {
                batch.iter().map(|words| pair.call(words)).collect()
            };
            check(pair, &mut history, &batch, &replies);
        }
    });
}
