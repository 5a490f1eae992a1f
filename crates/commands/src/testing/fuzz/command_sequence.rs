//! Any sequence of commands is answered: one well-formed reply each, and the bytes in use are
//! accounted for to the last one.
//!
//! An input is text, a command per line with the shell's quoting, so that corpus files can be read
//! and written by hand and stay what they are when the table grows. So that what a fuzzer makes of
//! them still means something:
//! - a name that is not in the table stands for one that is (with `?` before it, for itself);
//! - an argument of one byte above 127 stands for one of [`EDGES`], or one of the words of the
//!   command's own syntax.
//!
//! An input whose first line is `@log` is one whose effects are all kept: replayed into an empty
//! store, they must lead to the same dataset.
//!
//! `@client N` goes on as another client, `@wait MS` lets time pass, `@expire` removes what is due.

use super::frames::{Frames, frames};
use crate::blocking::{self, TimedOut};
use crate::client::ClientFlags;
use crate::config::Config;
use crate::keyspace::PARTITIONS;
use crate::session::{ReplyMode, Session};
use crate::shared::{Mailbox, Shared};
use crate::table::{Entry, table};
use crate::testing::Harness;
use crate::testing::replay::{KEEP_ALL, dataset, replay};
use hypercache_protocol::parse::split_words;
use hypercache_protocol::reply::Version;
use hypercache_stdx::rng::Rng;
use hypercache_stdx::{glob, number};
use std::sync::atomic::Ordering::Relaxed;

/// Arguments at the edges of what commands take.
pub(super) const EDGES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"2",
    b"7",
    b"8",
    b"15",
    b"16",
    b"100",
    b"+1",
    b"01",
    b"-0",
    b" 1",
    b"2147483647",
    b"2147483648",
    b"-2147483649",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"9223372036854775",
    b"1048575",
    b"1048576",
    b"8388607",
    b"0.1",
    b"-1.5",
    b"3.0e3",
    b"1e308",
    b"-1e308",
    b"1e4932",
    b"5e-324",
    b"inf",
    b"-inf",
    b"nan",
    b"0x1p3",
    b"a",
    b"b",
    b"key",
    b"{key}1",
    b"{key}2",
    b"*",
    b"k*",
    b"[a-",
    b"[^k]*",
    b"\\",
    b"u8",
    b"i64",
    b"u63",
    b"u64",
    b"i1",
    b"#1",
    b"\r\n",
    b"\0",
    b"\xff\xfe",
    b"yes",
    b"no",
    b"foobar",
    b"12345678901234567890123456789012345678901234",
    b"123456789012345678901234567890123456789012345",
    b"%D",
    b"string",
];

/// Bounds of one input, so that it is over soon: lines, words of a line, time that may pass.
const LINES_MAX: usize = 48;
const WORDS_MAX: usize = 16;
const WAIT_MS_MAX: u64 = 1 << 42;
const CLIENTS: usize = 3;

/// When the harness' clock starts: some day in 2023.
const START_MS: u64 = 1_700_000_000_000;

/// See the module's text.
///
/// # Panics
/// When a reply is missing or malformed, or the accounts do not balance.
pub fn command_sequence(input: &[u8]) {
    let mut run = Run::new(input.starts_with(b"@log\n"));
    for line in input.split(|&b| b == b'\n').take(LINES_MAX) {
        let words = split_words(line).unwrap_or_default();
        if !words.is_empty() && words.len() <= WORDS_MAX {
            run.line(words);
        }
    }
    run.finish();
}

/// The words in capitals of a command's syntax.
pub(super) fn options_of(entry: &Entry) -> impl Iterator<Item = &'static str> {
    let words = entry.row.syntax.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|w| w.len() > 1 && w.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'))
}

/// A server state with some clients.
struct Run {
    harness: Harness,
    /// The sessions of the clients that are not the current one.
    others: Vec<Session>,
    /// Whether all effects are kept.
    is_logged: bool,
}

impl Run {
    fn new(is_logged: bool) -> Self {
        let mut config = Config::default();
        let own = [("enable-debug-command", "yes"), ("proto-max-bulk-len", "1mb")];
        for (name, value) in own.iter().chain(if is_logged { KEEP_ALL } else { &[] }) {
            config.set_at_start(name, value).expect("a valid setting");
        }
        let mut harness = Harness::over(Shared::with_secret(config, 1, (1, 2)));
        let mailbox = Mailbox::new(Box::new(|| {}));
        assert!(harness.shared.mailboxes.set(vec![mailbox]).is_ok(), "mailboxes are set once");
        harness.worker.rng = Rng::new(3);
        harness.worker.now_ms = START_MS;
        let others = (1..CLIENTS).map(|_| Harness::connect(&harness.shared)).collect();
        Run { harness, others, is_logged }
    }

    fn line(&mut self, words: Vec<Vec<u8>>) {
        let number = |i: usize| words.get(i).and_then(|word| number::parse_i64(word)).unwrap_or(1);
        match words[0].as_slice() {
            b"@client" => {
                let other = number(1).unsigned_abs() as usize % self.others.len();
                std::mem::swap(&mut self.harness.session, &mut self.others[other]);
            }
            b"@wait" => {
                let end_ms = self.harness.worker.now_ms.saturating_add(number(1).unsigned_abs());
                self.harness.worker.now_ms = end_ms.min(START_MS + WAIT_MS_MAX);
            }
            b"@expire" => self.expire(),
            b"@log" => {}
            _ => {
                let (entry, args) = resolve(words);
                if !entry.is_some_and(|entry| self.is_left_out(entry, &args)) {
                    self.command(entry, &args);
                }
            }
        }
    }

    /// What would end the process, take long by design, or lift the bounds of this test.
    fn is_left_out(&self, entry: &Entry, args: &[Vec<u8>]) -> bool {
        let exceeds = |i: usize, max: i64| {
            args.get(i).and_then(|arg| number::parse_i64(arg)).is_some_and(|n| n > max)
        };
        let names =
            |pattern: &[u8]| args[2..].iter().any(|arg| glob::glob_match(pattern, arg, true));
        match entry.full_name.as_str() {
            "shutdown" | "debug|sleep" => true,
            // Half a gigabyte of repetitions is allowed, and takes longer than a run may.
            "srandmember" | "hrandfield" | "zrandmember" => args
                .get(2)
                .is_some_and(|arg| number::parse_i64(arg).is_some_and(|n| n < -REPETITIONS_MAX)),
            "debug|populate" => exceeds(2, POPULATE_MAX) || exceeds(4, TEXT_MAX),
            "debug|stringmatch-len" => exceeds(2, TEXT_MAX),
            "config|set" => {
                let resizes_logs = names(b"notify-keyspace-events") || names(b"partition-log-size");
                names(b"proto-max-bulk-len") || self.is_logged && resizes_logs
            }
            _ => false,
        }
    }

    /// What a worker does now and then.
    fn expire(&mut self) {
        let now_ms = self.harness.worker.now_ms;
        for partition in 0..PARTITIONS as u16 {
            let mut shard = self.harness.shared.keyspace.lock(partition);
            shard.expire_due(now_ms, 1000);
            self.harness.worker.stats.add_bytes(shard.take_bytes_delta());
        }
    }

    fn command(&mut self, entry: Option<&'static Entry>, args: &[Vec<u8>]) {
        self.end_wait();
        let before = State::of(&self.harness.session);
        let reply = self.harness.run_args(args);
        // Replies to clients that waited, and what others are told.
        self.harness.shared.mailboxes.get().into_iter().flatten().for_each(|mailbox| {
            mailbox.take();
        });
        if self.harness.session.blocked().is_some() {
            return assert!(reply.is_empty(), "a client that waits has its reply");
        }
        let after = State::of(&self.harness.session);
        check_reply(entry, args, &reply, before, after);
        let session = &mut self.harness.session;
        if session.is_closing || session.client.is_killed() {
            session.close(&self.harness.shared);
            *session = Harness::connect(&self.harness.shared);
        }
    }

    /// A client that waits sends nothing more: its time is over before it does.
    fn end_wait(&mut self) {
        let Harness { shared, session, .. } = &mut self.harness;
        if let Some(waiter) = session.blocked().cloned() {
            let ended = blocking::time_out(shared, &waiter);
            assert!(!matches!(ended, TimedOut::NotYet), "nobody serves it at this moment");
            session.end_wait();
        }
    }

    /// The clients leave, and what remains must add up.
    fn finish(mut self) {
        let Harness { shared, session, .. } = &mut self.harness;
        for session in self.others.iter_mut().chain([session]) {
            session.close(shared);
        }
        assert!(shared.clients.is_empty(), "clients are left");
        assert_eq!(shared.pubsub.counts(), (0, 0, 0), "subscriptions are left");
        assert_eq!(shared.monitor_count.load(Relaxed), 0, "monitors are left");
        let counted = shared.stats.iter().map(|stats| stats.bytes()).sum::<isize>();
        assert_eq!(counted as u64, self.harness.bytes_there(), "bytes counted and bytes there");
        if self.is_logged {
            assert_eq!(replay(&self.harness), dataset(&self.harness), "effects replayed");
        }
    }
}

/// What of a session decides the form of a reply.
#[derive(Clone, Copy, Debug)]
struct State {
    version: Version,
    mode: ReplyMode,
    /// Whether the transaction being queued has commands whose replies are of another form, or
    /// change it.
    queues_others: bool,
    /// Whether it monitors: a second MONITOR goes unanswered, as in Redis.
    is_monitor: bool,
}

impl State {
    fn of(session: &Session) -> Self {
        let queue = session.multi().into_iter().flat_map(|multi| &multi.queue);
        State {
            version: session.version,
            is_monitor: session.client.has(ClientFlags::MONITOR),
            mode: session.reply_mode,
            queues_others: queue.into_iter().any(|(entry, _)| changes_form(entry)),
        }
    }
}

fn check_reply(
    entry: Option<&'static Entry>,
    args: &[Vec<u8>],
    reply: &[u8],
    before: State,
    after: State,
) {
    let shown = || {
        let words: Vec<_> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
        format!("{words:.100?}")
    };
    let is_silent = before.mode != ReplyMode::On || after.mode != ReplyMode::On;
    if before.queues_others && entry.is_some_and(|entry| entry.row.name == "EXEC") {
        return assert!(is_silent || !reply.is_empty(), "{}: no reply", shown());
    }
    let found = frames(reply, after.version).unwrap_or_else(|why| panic!("{}: {why}", shown()));
    if is_silent {
        assert!(found.replies + found.pushes <= 1 || entry.is_some_and(is_subscription));
        return;
    }
    if before.is_monitor && reply.is_empty() {
        return assert!(entry.is_some_and(|entry| entry.row.name == "MONITOR"), "{}", shown());
    }
    let is_refused = reply.first() == Some(&b'-') || reply == b"+QUEUED\r\n";
    if entry.is_some_and(is_subscription) && !is_refused {
        let count = found.replies + found.pushes;
        let least = 1.max(args.len() - 1);
        let is_right = if args.len() > 1 { count == least } else { count >= least };
        assert!(is_right, "{}: {count} replies", shown());
    } else {
        let pushes = if entry.is_some_and(is_sample) { found.pushes } else { 0 };
        let one = Frames { replies: 1, pushes };
        assert_eq!(found, one, "{}: {}", shown(), reply.escape_ascii());
    }
}

fn is_subscription(entry: &Entry) -> bool {
    entry.row.name.ends_with("SUBSCRIBE")
}

/// Whether a transaction with this command has a reply of another form. CLIENT REPLY OFF leaves out
/// elements that were announced, as in Redis.
fn changes_form(entry: &Entry) -> bool {
    let names = ["hello", "client|reply"];
    names.contains(&entry.full_name.as_str()) || is_subscription(entry) || is_sample(entry)
}

/// Whether a reply may be any type of the protocol.
fn is_sample(entry: &Entry) -> bool {
    entry.full_name == "debug|protocol"
}

/// Gives the words the meaning that the module's text describes.
fn resolve(mut words: Vec<Vec<u8>>) -> (Option<&'static Entry>, Vec<Vec<u8>>) {
    let Some(mut entry) = named(&mut words[0], None) else { return (None, words) };
    if words.len() > 1
        && !entry.subcommands.is_empty()
        && let Some(sub) = named(&mut words[1], Some(entry))
    {
        entry = sub;
    }
    let options: Vec<&str> = options_of(entry).collect();
    for word in &mut words[1..] {
        let &[byte] = word.as_slice() else { continue };
        if byte < 0x80 {
            continue;
        }
        let number = usize::from(byte & 0x3f);
        *word = match options.get(number % options.len().max(1)) {
            Some(option) if byte >= 0xc0 => option.as_bytes().to_vec(),
            _ => EDGES[number % EDGES.len()].to_vec(),
        };
    }
    (Some(entry), words)
}

/// The row that a name stands for, among the commands or a container's subcommands.
fn named(word: &mut Vec<u8>, container: Option<&'static Entry>) -> Option<&'static Entry> {
    let known = match container {
        None => table().get(word),
        Some(container) => container.subcommand(word),
    };
    if known.is_some() {
        return known;
    }
    if word.first() == Some(&b'?') {
        word.remove(0);
        return None;
    }
    let choices: Vec<&'static Entry> = match container {
        None => table().commands().collect(),
        Some(container) => container.subcommands.clone(),
    };
    let hash = word.iter().fold(17usize, |hash, &b| hash.wrapping_mul(31) + usize::from(b));
    let entry = choices[hash % choices.len()];
    *word = entry.row.name.as_bytes().to_vec();
    Some(entry)
}

/// Repetitions that a reply may have in this test.
const REPETITIONS_MAX: i64 = 100_000;
/// Keys and bytes that DEBUG POPULATE may make, and the text that DEBUG STRINGMATCH-LEN may take.
const POPULATE_MAX: i64 = 200;
const TEXT_MAX: i64 = 4096;
