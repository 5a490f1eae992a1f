//! COMMANDLOG, as Valkey 8.1 has it: commands that took long, and those whose requests or replies were
//! large. The slow ones are those of SLOWLOG.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::session::Session;
use crate::shared::Shared;
use crate::slowlog::{BASE as SLOWLOG_BASE, SlowLog};
use crate::table::{Command, Entry, Flags};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command { since: "8.1.0", ..SLOWLOG_BASE };

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "COMMANDLOG",
    arity: -2,
    flags: Flags::NONE,
    summary: "Tells about commands that took long, and those with large requests or replies.",
    complexity: "That of the subcommand",
    subcommands: COMMANDLOG,
    ..BASE
}];

const COMMANDLOG: &[Command] = &[
    Command {
        name: "GET",
        arity: 4,
        run: get,
        summary: "The last commands of one log, newest first: as many as asked for; -1 for all.",
        complexity: "O(N) in the number of entries returned",
        syntax: "count <SLOW | LARGE-REQUEST | LARGE-REPLY>",
        examples: "> COMMANDLOG GET 10 large-reply\n(empty array)",
        tips: &["request_policy:all_nodes", "nondeterministic_output"],
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> COMMANDLOG HELP\n…COMMANDLOG <subcommand> …",
        ..BASE
    },
    Command {
        name: "LEN",
        arity: 3,
        run: len,
        summary: "How many entries a log has.",
        syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
        examples: "> CONFIG SET commandlog-request-larger-than 100\nOK\n> GETRANGE a 0 9\n\"\"\n\
                   > COMMANDLOG LEN large-request\n(integer) 0",
        tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
        ..BASE
    },
    Command {
        name: "RESET",
        arity: 3,
        run: reset,
        summary: "Empties a log.",
        complexity: "O(N) in the number of entries",
        syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
        examples: "> COMMANDLOG RESET slow\nOK",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..BASE
    },
];

/// The log that a word names.
fn log_of<'s>(shared: &'s Shared, word: &[u8]) -> Result<&'s SlowLog, ReplyError> {
    match word.to_ascii_uppercase().as_slice() {
        b"SLOW" => Ok(&shared.slowlog),
        b"LARGE-REQUEST" => Ok(&shared.large_requests),
        b"LARGE-REPLY" => Ok(&shared.large_replies),
        _ => Err(ReplyError::Text(
            "ERR type should be one of the following: slow, large-request, large-reply",
        )),
    }
}

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let count = number::parse_i64(args.get(2));
    log_of(cx.shared, args.get(3))?.reply(&mut cx.reply, count)
}

fn len(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = log_of(cx.shared, args.get(2))?.len();
    cx.reply.int(len as i64);
    Ok(())
}

fn reset(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    log_of(cx.shared, args.get(2))?.clear();
    cx.reply.ok();
    Ok(())
}

/// Bytes of a request as clients send it.
fn request_bytes(args: Args<'_>) -> u64 {
    let line = |n: usize| 3 + n.checked_ilog10().map_or(1, |log| log as usize + 1);
    let bytes = args.iter().map(|arg| line(arg.len()) + arg.len() + 2).sum::<usize>();
    (line(args.len()) + bytes) as u64
}

/// How long the output was before a command, if its reply is to be measured.
#[inline]
pub(crate) fn begin(cx: &mut Cx<'_>) -> Option<usize> {
    if cx.shared.config.hot.measures() { Some(cx.reply.output().len()) } else { None }
}

/// Notes a command whose request or reply was large.
#[cold]
pub(crate) fn end(cx: &mut Cx<'_>, entry: &Entry, args: Args<'_>, before: usize) {
    let reply_bytes = cx.reply.output().len().saturating_sub(before) as u64;
    note(cx.shared, cx.session, entry, args, reply_bytes);
}

fn note(shared: &Shared, session: &Session, entry: &Entry, args: Args<'_>, reply_bytes: u64) {
    if entry.row.flags.has(Flags::SKIP_SLOWLOG) {
        return;
    }
    let hot = &shared.config.hot;
    let is_large = |bytes: u64, from: i64| u64::try_from(from).is_ok_and(|from| bytes >= from);
    let request_bytes = request_bytes(args);
    if is_large(request_bytes, hot.large_request_bytes.load(Relaxed)) {
        shared.large_requests.add(&session.client, args, request_bytes);
    }
    if is_large(reply_bytes, hot.large_reply_bytes.load(Relaxed)) {
        shared.large_replies.add(&session.client, args, reply_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;
    use hypercache_protocol::parse::OwnedArgs;

    #[test]
    fn requests_have_the_bytes_that_are_sent() {
        let args = OwnedArgs::from_pieces(["SET", "a", "0123456789", ""]);
        let sent = "*4\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n0123456789\r\n$0\r\n\r\n";
        assert_eq!(request_bytes(args.as_args()), sent.len() as u64);
    }

    #[test]
    fn large_requests_and_replies_are_kept() {
        let mut h = Harness::default();
        for line in [
            "CONFIG SET commandlog-request-larger-than 100 commandlog-reply-larger-than 100",
            "CONFIG SET commandlog-large-reply-max-len 2",
            "COMMANDLOG RESET large-request",
        ] {
            assert_eq!(h.run(line), b"+OK\r\n", "{line}");
        }
        let value = "v".repeat(93);
        // "*3", "$3", "SET", "$1", "a", "$93": 4 + 4 + 5 + 4 + 3 + 5 + 95 = 120 bytes.
        h.run(&format!("SET a {value}"));
        for line in ["GET a", "GET none", "GETRANGE a 0 91", "MULTI", "GET a", "PING", "EXEC"] {
            h.run(line);
        }
        assert_eq!(h.run("COMMANDLOG LEN large-request"), b":1\r\n");
        assert_eq!(h.run("COMMANDLOG LEN LARGE-reply"), b":2\r\n");
        let text = |reply: Vec<u8>| String::from_utf8(reply).expect("text").replace("\r\n", " ");
        let replies = text(h.run("COMMANDLOG GET 1 large-reply"));
        // That within the transaction; EXEC itself is never noted.
        assert!(replies.contains(" :100 *2 $3 GET "), "{replies}");
        let requests = text(h.run("COMMANDLOG GET -1 large-request"));
        assert!(requests.starts_with("*1 *6 :0 :") && requests.contains(" :120 *3 $3 SET "));
    }

    #[test]
    fn words_are_checked() {
        let mut h = Harness::default();
        let wrong =
            b"-ERR type should be one of the following: slow, large-request, large-reply\r\n";
        for line in ["COMMANDLOG LEN x", "COMMANDLOG GET 1 x", "COMMANDLOG RESET x"] {
            assert_eq!(h.run(line), wrong, "{line}");
        }
        let wrong = b"-ERR count should be greater than or equal to -1\r\n";
        assert_eq!(h.run("COMMANDLOG GET x slow"), wrong);
        assert_eq!(h.run("COMMANDLOG GET 1 slow"), b"*0\r\n");
    }
}
