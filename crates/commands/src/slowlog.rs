//! The slow log: the last commands that took longer than `slowlog-log-slower-than`; and beside it those
//! with large requests and replies, which COMMANDLOG tells of as Valkey does.

use crate::client::Client;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::redact;
use crate::table::{Command, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::{clock, number};
use parking_lot::Mutex;
use std::collections::VecDeque;

pub(crate) const BASE: Command = Command {
    group: Group::Server,
    since: "2.2.12",
    flags: Flags::ADMIN.or(Flags::LOADING).or(Flags::STALE),
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "SLOWLOG",
    arity: -2,
    flags: Flags::NONE,
    summary: "Tells about commands that took long.",
    complexity: "That of the subcommand",
    subcommands: SLOWLOG,
    ..BASE
}];

const SLOWLOG: &[Command] = &[
    Command {
        name: "GET",
        arity: -2,
        run: get,
        summary: "The last slow commands, newest first: ten, or as many as asked for; -1 for all.",
        complexity: "O(N) in the number of entries returned",
        syntax: "[count]",
        examples: "> SLOWLOG GET\n(empty array)",
        tips: &["request_policy:all_nodes", "nondeterministic_output"],
        ..BASE
    },
    Command {
        name: "HELP",
        since: "6.2.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> SLOWLOG HELP\n…SLOWLOG <subcommand> …",
        ..BASE
    },
    Command {
        name: "LEN",
        arity: 2,
        run: len,
        summary: "How many entries the slow log has.",
        examples: "> SLOWLOG LEN\n(integer) 0",
        tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
        ..BASE
    },
    Command {
        name: "RESET",
        arity: 2,
        run: reset,
        summary: "Empties the slow log.",
        complexity: "O(N) in the number of entries",
        examples: "> SLOWLOG RESET\nOK",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..BASE
    },
];

/// Arguments kept of one command.
const ARGS_MAX: usize = 32;
/// Bytes kept of one argument.
const ARG_BYTES_MAX: usize = 128;
/// Entries that SLOWLOG GET shows when nothing is said.
const SHOWN_DEFAULT: i64 = 10;

/// One command.
#[derive(Clone, Debug)]
struct SlowEntry {
    id: u64,
    time_s: u64,
    /// Microseconds that it took, or bytes.
    measured: u64,
    /// Clipped, so that a huge value is not kept.
    args: Vec<Vec<u8>>,
    address: String,
    name: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Ring {
    next_id: u64,
    max: usize,
    /// Newest first.
    entries: VecDeque<SlowEntry>,
}

/// The last commands of all workers that were slow, or of which something was large.
#[derive(Debug, Default)]
pub struct SlowLog {
    ring: Mutex<Ring>,
}

impl SlowLog {
    /// Sets how many entries are kept; those beyond leave at once.
    pub fn set_max(&self, max: usize) {
        let mut ring = self.ring.lock();
        ring.max = max;
        ring.entries.truncate(max);
    }

    /// Notes a command with what was measured of it, in place of the oldest one if the log is full.
    pub fn add(&self, client: &Client, args: Args<'_>, measured: u64) {
        let mut entry = SlowEntry {
            id: 0,
            time_s: clock::now_ms() / 1000,
            measured,
            args: clip(args),
            address: client.peer().to_string(),
            name: client.names().name,
        };
        let mut ring = self.ring.lock();
        entry.id = ring.next_id;
        ring.next_id += 1;
        ring.entries.push_front(entry);
        let max = ring.max;
        ring.entries.truncate(max);
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.lock().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest `max` entries.
    fn newest(&self, max: usize) -> Vec<SlowEntry> {
        self.ring.lock().entries.iter().take(max).cloned().collect()
    }

    /// Forgets all entries.
    pub(crate) fn clear(&self) {
        self.ring.lock().entries.clear();
    }

    /// Writes the newest entries, as many as `count` says.
    ///
    /// # Errors
    /// If it is no count.
    pub(crate) fn reply(&self, reply: &mut Reply<'_>, count: Option<i64>) -> Outcome {
        let Some(count) = count.filter(|count| *count >= -1) else {
            return Err(ReplyError::Text("ERR count should be greater than or equal to -1"));
        };
        // Only -1 is negative here: all of them.
        let entries = self.newest(usize::try_from(count).unwrap_or(usize::MAX));
        reply.array(entries.len());
        for entry in &entries {
            reply.array(6);
            reply.int(entry.id as i64);
            reply.int(entry.time_s as i64);
            reply.int(entry.measured as i64);
            reply.array(entry.args.len());
            entry.args.iter().for_each(|arg| reply.bulk(arg));
            reply.bulk(entry.address.as_bytes());
            reply.bulk(&entry.name);
        }
        Ok(())
    }
}

/// The arguments as they are kept: at most 32, the last of which says how many more there were.
fn clip(args: Args<'_>) -> Vec<Vec<u8>> {
    let is_clipped = args.len() > ARGS_MAX;
    let whole = if is_clipped { ARGS_MAX - 1 } else { args.len() };
    let mut clipped: Vec<_> = (0..whole).map(|i| clip_one(redact::shown(args, i))).collect();
    if is_clipped {
        clipped.push(format!("... ({} more arguments)", args.len() - whole).into_bytes());
    }
    clipped
}

fn clip_one(arg: &[u8]) -> Vec<u8> {
    let mut clipped = arg[..arg.len().min(ARG_BYTES_MAX)].to_vec();
    if arg.len() > ARG_BYTES_MAX {
        let more = arg.len() - ARG_BYTES_MAX;
        clipped.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
    }
    clipped
}

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 3 {
        return Err(cx.subcommand_syntax(args));
    }
    let count = if args.len() == 3 { number::parse_i64(args.get(2)) } else { Some(SHOWN_DEFAULT) };
    cx.shared.slowlog.reply(&mut cx.reply, count)
}

fn len(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.int(cx.shared.slowlog.len() as i64);
    Ok(())
}

fn reset(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.shared.slowlog.clear();
    cx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;
    use hypercache_protocol::parse::OwnedArgs;

    fn add(h: &Harness, args: &[&[u8]]) {
        let args = OwnedArgs::from_pieces(args);
        h.shared.slowlog.add(&h.session.client, args.as_args(), 7);
    }

    #[test]
    fn long_commands_are_clipped() {
        let long = [b'x'; 130];
        let mut pieces: Vec<&[u8]> = vec![b"SET", &long];
        pieces.resize(40, b"a");
        let args = OwnedArgs::from_pieces(pieces);
        let clipped = clip(args.as_args());
        assert_eq!(clipped.len(), 32);
        assert_eq!(clipped[1], [&long[..128], b"... (2 more bytes)"].concat());
        assert_eq!(clipped[31], b"... (9 more arguments)");
        let exact = OwnedArgs::from_pieces(std::iter::repeat_n("a", 32));
        assert_eq!(clip(exact.as_args())[31], b"a");
    }

    #[test]
    fn the_newest_entries_stay_and_numbers_go_on() {
        let mut h = Harness::default();
        h.shared.slowlog.set_max(2);
        [&b"a"[..], b"b", b"c"].iter().for_each(|name| add(&h, &[name]));
        assert_eq!(h.run("SLOWLOG LEN"), b":2\r\n");
        let newest = h.shared.slowlog.newest(usize::MAX);
        assert_eq!((newest[0].id, newest[1].id), (2, 1));
        assert_eq!(h.run("SLOWLOG RESET"), b"+OK\r\n");
        assert_eq!(h.run("SLOWLOG GET -1"), b"*0\r\n");
        add(&h, &[b"AUTH", b"secret"]);
        let reply = h.run("slowlog get 1");
        assert!(reply.starts_with(b"*1\r\n*6\r\n:3\r\n:"));
        let end = b":7\r\n*2\r\n$4\r\nAUTH\r\n$10\r\n(redacted)\r\n$3\r\n?:0\r\n$0\r\n\r\n";
        assert!(reply.ends_with(end), "{}", String::from_utf8_lossy(&reply));
    }

    #[test]
    fn counts_are_checked() {
        let mut h = Harness::default();
        let wrong = b"-ERR count should be greater than or equal to -1\r\n";
        for line in ["SLOWLOG GET abc", "SLOWLOG GET -2", "SLOWLOG GET 99999999999999999999"] {
            assert_eq!(h.run(line), wrong);
        }
        let text =
            "-ERR unknown subcommand or wrong number of arguments for 'Get'. Try SLOWLOG HELP.\r\n";
        assert_eq!(h.run("slowlog Get 1 2"), text.as_bytes());
    }
}
