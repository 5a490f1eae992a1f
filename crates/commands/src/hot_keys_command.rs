//! HOTKEYS, as Redis 8.6 documents it, over tables that are always on.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::hot_keys::{EVERY, Metric, Session, Totals};
use crate::table::{Acl, Command, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_stdx::{clock, number};

const BASE: Command = Command {
    group: Group::Server,
    flags: Flags::ADMIN.or(Flags::NO_SCRIPT),
    acl: Acl::ADMIN.or(Acl::DANGEROUS),
    since: "8.6.0",
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "HOTKEYS",
    arity: -2,
    flags: Flags::NONE,
    acl: Acl::SLOW,
    summary: "Tells which keys take the most calls, time and bytes.",
    complexity: "That of the subcommand",
    subcommands: HOTKEYS,
    ..BASE
}];

const HOTKEYS: &[Command] = &[
    Command {
        name: "START",
        arity: -4,
        run: start,
        summary: "Begins a session, which measures every request, or one in as many as SAMPLE says.",
        syntax: "METRICS count [CPU] [NET] [COUNT k] [DURATION seconds] [SAMPLE ratio] [SLOTS count slot [slot ...]]",
        examples: "> HOTKEYS START METRICS 2 CPU NET\nOK\n> HOTKEYS START METRICS 1 CPU\n(error) ERR hotkeys tracking session already in progress",
        ..BASE
    },
    Command {
        name: "STOP",
        arity: 2,
        run: stop,
        summary: "Ends the session; what it found stays.",
        examples: "> HOTKEYS STOP\n(nil)\n> HOTKEYS START METRICS 1 CPU\nOK\n> HOTKEYS STOP\nOK",
        ..BASE
    },
    Command {
        name: "GET",
        arity: 2,
        run: get,
        summary: "What the session found; without one, what is always measured, of the last minutes.",
        complexity: "O(K) in the number of keys returned",
        examples: "> HOTKEYS GET\n 1) \"tracking-active\"\n 2) (integer) 0\n\
                    \x203) \"sample-ratio\"\n 4) (integer) 64\n…",
        ..BASE
    },
    Command {
        name: "RESET",
        arity: 2,
        run: reset,
        summary: "Forgets what a session found that ended.",
        examples: "> HOTKEYS RESET\nOK",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        acl: Acl::NONE,
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> HOTKEYS HELP\n…HOTKEYS <subcommand> …",
        ..BASE
    },
];

/// Keys that are told if COUNT does not say how many.
const COUNT: usize = 10;
const COUNT_MAX: i64 = 64;
const SLOTS: i64 = 16384;

/// A whole number from `least` to `most` at argument `i`.
fn within(args: Args<'_>, i: usize, least: i64, most: i64) -> Result<i64, ReplyError> {
    if i >= args.len() {
        return Err(ReplyError::Syntax);
    }
    let n = number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger)?;
    let is_within = (least..=most).contains(&n);
    if is_within { Ok(n) } else { Err(ReplyError::Text("ERR value is out of range")) }
}

fn parse(cx: &Cx<'_>, args: Args<'_>) -> Result<Session, ReplyError> {
    let mut session = Session {
        is_active: true,
        by_time: false,
        by_bytes: false,
        count: COUNT,
        every: 1,
        slots: Vec::new(),
        until_ms: None,
        begun: Totals::of(cx.shared),
        ended: None,
    };
    if !args.get(2).eq_ignore_ascii_case(b"METRICS") {
        return Err(ReplyError::Syntax);
    }
    let metrics = within(args, 3, 1, 2)?;
    let mut i = 4;
    while i < args.len() {
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"CPU" => session.by_time = true,
            b"NET" => session.by_bytes = true,
            option => {
                i += 1;
                match option {
                    b"COUNT" => session.count = within(args, i, 1, COUNT_MAX)? as usize,
                    b"SAMPLE" => session.every = within(args, i, 1, 1 << 20)? as u32,
                    b"DURATION" => {
                        let ms = within(args, i, 1, 1_000_000)? as u64 * 1000;
                        session.until_ms = Some(clock::mono_ms() + ms);
                    }
                    b"SLOTS" => i = parse_slots(args, i, &mut session.slots)?,
                    _ => return Err(ReplyError::Syntax),
                }
            }
        }
        i += 1;
    }
    if metrics != i64::from(session.by_time) + i64::from(session.by_bytes) {
        return Err(ReplyError::Text("ERR METRICS count does not match the metrics that follow"));
    }
    Ok(session)
}

/// Reads a count and as many slots from argument `i` on. Returns the number of the last one.
fn parse_slots(args: Args<'_>, i: usize, slots: &mut Vec<u16>) -> Result<usize, ReplyError> {
    let count = within(args, i, 1, SLOTS)? as usize;
    for i in i + 1..=i + count {
        slots.push(within(args, i, 0, SLOTS - 1)? as u16);
    }
    Ok(i + count)
}

fn start(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let session = parse(cx, args)?;
    if cx.shared.hot_keys.session(cx.shared).is_some_and(|session| session.is_active) {
        return Err(ReplyError::Text("ERR hotkeys tracking session already in progress"));
    }
    cx.shared.hot_keys.start(session);
    cx.reply.ok();
    Ok(())
}

fn stop(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    if cx.shared.hot_keys.stop(cx.shared) {
        cx.reply.ok();
    } else {
        cx.reply.null();
    }
    Ok(())
}

fn reset(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    if cx.shared.hot_keys.session(cx.shared).is_some_and(|session| session.is_active) {
        return Err(ReplyError::Text("ERR hotkeys tracking session in progress, stop it first"));
    }
    cx.shared.hot_keys.forget_session();
    cx.reply.ok();
    Ok(())
}

fn get(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let found = cx.shared.hot_keys.session(cx.shared);
    let is_of_session = found.is_some();
    let session = found.unwrap_or_else(|| Session {
        is_active: false,
        by_time: true,
        by_bytes: true,
        count: COUNT,
        every: EVERY,
        slots: Vec::new(),
        until_ms: None,
        begun: Totals { now_ms: cx.shared.started_ms, ..Totals::default() },
        ended: None,
    });
    let now = session.ended.unwrap_or_else(|| Totals::of(cx.shared));
    let (by_time, by_bytes) = (session.by_time, session.by_bytes);
    let Totals { now_ms, commands_us, net_bytes, user_ms, system_ms } = session.begun;
    let fields =
        7 + usize::from(!is_of_session) + 3 * usize::from(by_time) + 2 * usize::from(by_bytes);
    cx.reply.map(fields);
    number_field(cx, "tracking-active", u64::from(session.is_active));
    number_field(cx, "sample-ratio", u64::from(session.every));
    cx.reply.bulk(b"selected-slots");
    cx.reply.array(session.slots.len());
    session.slots.iter().for_each(|slot| cx.reply.int(i64::from(*slot)));
    number_field(cx, "all-commands-all-slots-us", now.commands_us.saturating_sub(commands_us));
    let all_bytes = now.net_bytes.saturating_sub(net_bytes);
    number_field(cx, "net-bytes-all-commands-all-slots", all_bytes);
    number_field(cx, "collection-start-time-unix-ms", now_ms);
    number_field(cx, "collection-duration-ms", now.now_ms.saturating_sub(now_ms));
    if by_time {
        number_field(cx, "total-cpu-time-user-ms", now.user_ms.saturating_sub(user_ms));
        number_field(cx, "total-cpu-time-sys-ms", now.system_ms.saturating_sub(system_ms));
    }
    if by_bytes {
        number_field(cx, "total-net-bytes", all_bytes);
    }
    let mut tell = |name: &str, metric, unit| {
        let top = cx.shared.hot_keys.top(metric, is_of_session, session.count);
        cx.reply.bulk(name.as_bytes());
        cx.reply.array(2 * top.len());
        for ((_, key), weight) in top {
            cx.reply.bulk(&key);
            cx.reply.int((weight / unit) as i64);
        }
    };
    if !is_of_session {
        tell("by-calls", Metric::Calls, 1);
    }
    if by_time {
        tell("by-cpu-time-us", Metric::Time, 1000);
    }
    if by_bytes {
        tell("by-net-bytes", Metric::Bytes, 1);
    }
    Ok(())
}

fn number_field(cx: &mut Cx<'_>, name: &str, number: u64) {
    cx.reply.bulk(name.as_bytes());
    cx.reply.int(number as i64);
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn a_session_counts_from_its_start_and_stays_when_it_ends() {
        let mut h = Harness::default();
        let hot_keys = || h.shared.hot_keys.every();
        assert_eq!(hot_keys(), 64);
        h.run("HOTKEYS START METRICS 1 NET COUNT 5 SAMPLE 1 SLOTS 1 15495");
        assert_eq!(h.shared.hot_keys.every(), 1);
        for (key, bytes) in [("a", 100), ("b", 900), ("a", 50)] {
            h.shared.hot_keys.note(0, 0, &[key.as_bytes()], 10, bytes);
        }
        let reply = String::from_utf8(h.run("HOTKEYS GET")).unwrap();
        assert!(reply.ends_with("by-net-bytes\r\n*2\r\n$1\r\na\r\n:150\r\n"), "{reply}");
        assert!(h.run("HOTKEYS RESET").starts_with(b"-ERR"));
        assert_eq!(h.run("HOTKEYS STOP"), b"+OK\r\n");
        h.shared.hot_keys.note(0, 0, &[b"a"], 10, 5);
        let reply = String::from_utf8(h.run("HOTKEYS GET")).unwrap();
        assert!(reply.ends_with("$1\r\na\r\n:150\r\n"), "{reply}");
        assert_eq!(h.run("HOTKEYS RESET"), b"+OK\r\n");
        let reply = String::from_utf8(h.run("HOTKEYS GET")).unwrap();
        assert!(
            reply.contains("b\r\n:900\r\n")
                && reply.contains("by-calls")
                && reply.contains("by-cpu-time-us"),
            "{reply}"
        );
        for wrong in [
            "METRICS 1",
            "METRICS 2 CPU",
            "COUNT 5 x",
            "METRICS 1 CPU SLOTS 2 1",
            "METRICS 1 CPU COUNT",
        ] {
            assert!(h.run(&format!("HOTKEYS START {wrong}")).starts_with(b"-ERR"), "{wrong}");
        }
    }
}
