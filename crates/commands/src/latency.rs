//! LATENCY: events that took longer than `latency-monitor-threshold`, and how long commands take.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::info::CommandSum;
use crate::stats::LATENCY_FIRST_BITS;
use crate::table::{Command, Entry, Flags, Group, table};
use hypercache_protocol::parse::Args;
use hypercache_stdx::clock;
use hypercache_store::growth;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command {
    group: Group::Server,
    since: "2.8.13",
    flags: Flags::ADMIN.or(Flags::NO_SCRIPT).or(Flags::LOADING).or(Flags::STALE),
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "LATENCY",
    arity: -2,
    flags: Flags::NONE,
    summary: "Tells about events that took long, and how long commands take.",
    complexity: "That of the subcommand",
    tips: &[],
    subcommands: LATENCY,
    ..BASE
}];

const LATENCY: &[Command] = &[
    Command {
        name: "DOCTOR",
        arity: 2,
        run: doctor,
        summary: "What was slow, in sentences.",
        examples: "> LATENCY DOCTOR\n\"…\"",
        ..BASE
    },
    Command {
        name: "GRAPH",
        arity: 3,
        run: graph,
        summary: "Draws the samples of an event.",
        syntax: "event",
        examples: "> LATENCY GRAPH command\n(error) ERR No samples available for event 'command'",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        tips: &[],
        examples: "> LATENCY HELP\n…LATENCY <subcommand> …",
        ..BASE
    },
    Command {
        name: "HISTOGRAM",
        since: "7.0.0",
        arity: -2,
        run: histogram,
        summary: "How long commands take, all or those named: calls by powers of two of time.",
        complexity: "O(N) in the number of commands",
        syntax: "[command [command ...]]",
        examples: "> LATENCY HISTOGRAM get\n(empty array)",
        ..BASE
    },
    Command {
        name: "HISTORY",
        arity: 3,
        run: history,
        summary: "The samples of an event: time and milliseconds.",
        syntax: "event",
        examples: "> LATENCY HISTORY command\n(empty array)",
        ..BASE
    },
    Command {
        name: "LATEST",
        arity: 2,
        run: latest,
        summary: "The last sample of every event, and its longest ever.",
        examples: "> LATENCY LATEST\n(empty array)",
        ..BASE
    },
    Command {
        name: "RESET",
        arity: -2,
        run: reset,
        summary: "Forgets events, all or those named; answers how many.",
        syntax: "[event [event ...]]",
        examples: "> LATENCY RESET\n(integer) 0",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..BASE
    },
];

/// Samples kept of one event.
const SAMPLES_MAX: usize = 160;

/// The longest occurrence of an event within one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    time_s: u64,
    millis: u64,
}

/// One event.
#[derive(Clone, Debug, Default)]
struct Series {
    /// Oldest first.
    samples: VecDeque<Sample>,
    max_millis: u64,
}

/// Events that took long. Their names are our own, so there are few.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl LatencyMonitor {
    /// Notes an event that took `millis`.
    pub fn add(&self, event: &'static str, millis: u64) {
        self.add_at(event, millis, clock::now_ms() / 1000);
    }

    fn add_at(&self, event: &'static str, millis: u64, time_s: u64) {
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.max_millis = series.max_millis.max(millis);
        match series.samples.back_mut() {
            Some(last) if last.time_s == time_s => last.millis = last.millis.max(millis),
            _ => series.samples.push_back(Sample { time_s, millis }),
        }
        if series.samples.len() > SAMPLES_MAX {
            series.samples.pop_front();
        }
    }

    /// Notes the longest growth step of a table since this was called last, if it took as long as
    /// `latency-monitor-threshold` says. One worker calls it at its ticks.
    pub fn note_growth(&self, threshold_ms: u64) {
        let millis = growth::take_recent_max_ns() / 1_000_000;
        if threshold_ms > 0 && millis >= threshold_ms {
            self.add("table-growth", millis);
        }
    }

    fn series(&self, event: &[u8]) -> Option<Series> {
        let events = self.events.lock();
        std::str::from_utf8(event).ok().and_then(|event| events.get(event)).cloned()
    }
}

fn latest(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let events = cx.shared.latency.events.lock();
    cx.reply.array(events.len());
    for (event, series) in events.iter() {
        let last = series.samples.back().copied().unwrap_or(Sample { time_s: 0, millis: 0 });
        cx.reply.array(4);
        cx.reply.bulk(event.as_bytes());
        cx.reply.int(last.time_s as i64);
        cx.reply.int(last.millis as i64);
        cx.reply.int(series.max_millis as i64);
    }
    Ok(())
}

fn history(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let series = cx.shared.latency.series(args.get(2)).unwrap_or_default();
    cx.reply.array(series.samples.len());
    for sample in &series.samples {
        cx.reply.array(2);
        cx.reply.int(sample.time_s as i64);
        cx.reply.int(sample.millis as i64);
    }
    Ok(())
}

fn reset(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut events = cx.shared.latency.events.lock();
    let before = events.len();
    if args.len() == 2 {
        events.clear();
    }
    for name in args.iter_from(2) {
        events.retain(|event, _| event.as_bytes() != name);
    }
    cx.reply.int((before - events.len()) as i64);
    Ok(())
}

fn histogram(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut entries: Vec<&Entry> = Vec::new();
    if args.len() == 2 {
        entries.extend(table().entries());
    }
    for entry in args.iter_from(2).filter_map(|name| table().get_full(name)) {
        entries.push(entry);
        entries.extend(&entry.subcommands);
    }
    let sums = entries.iter().map(|entry| (entry, CommandSum::of(cx.shared, entry)));
    let called: Vec<_> = sums.filter(|(_, sum)| sum.calls > 0).collect();
    cx.reply.map(called.len());
    for (entry, sum) in called {
        let shown = cumulative(&sum.latency);
        cx.reply.bulk(entry.full_name.as_bytes());
        cx.reply.map(2);
        cx.reply.bulk(b"calls");
        cx.reply.int(sum.calls as i64);
        cx.reply.bulk(b"histogram_usec");
        cx.reply.map(shown.len());
        for (limit_us, count) in shown {
            cx.reply.int(limit_us as i64);
            cx.reply.int(count as i64);
        }
    }
    Ok(())
}

/// Redis counts what took longer than 2^30 ns as if it took so long.
const LAST_BITS: u32 = 30;

/// Limits in microseconds with the count of calls below each, without those that add nothing.
fn cumulative(latency: &[u64]) -> Vec<(u64, u64)> {
    let mut shown: Vec<(u64, u64)> = Vec::new();
    let mut below = 0;
    for (i, count) in latency.iter().enumerate().filter(|(_, count)| **count > 0) {
        below += count;
        let limit_us = limit_us(LATENCY_FIRST_BITS + i as u32);
        match shown.last_mut() {
            Some((last, count)) if *last == limit_us => *count = below,
            _ => shown.push((limit_us, below)),
        }
    }
    shown
}

/// How Redis shows the limit of 2^`bits` ns: the end of a bucket that is a 128th wide, except for
/// the last one.
fn limit_us(bits: u32) -> u64 {
    let limit_ns = 1u64 << bits.min(LAST_BITS);
    if bits >= LAST_BITS { limit_ns / 1000 } else { (limit_ns + limit_ns / 128 - 1) / 1000 }
}

/// Columns and rows of a graph.
const GRAPH: (usize, usize) = (80, 4);

fn graph(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let Some(series) = cx.shared.latency.series(args.get(2)) else {
        let event = args.get(2);
        let text = [b"ERR No samples available for event '", event, b"'"].concat();
        cx.reply.error(&text);
        return Err(ReplyError::Written);
    };
    let text = drawing(&String::from_utf8_lossy(args.get(2)), &series, clock::now_ms() / 1000);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// A head and, for every 80 samples, columns with the age of each below.
fn drawing(event: &str, series: &Series, now_s: u64) -> String {
    let samples: Vec<Sample> = series.samples.iter().copied().collect();
    let high = samples.iter().map(|s| s.millis).max().unwrap_or(0);
    let low = samples.iter().map(|s| s.millis).min().unwrap_or(0);
    let mut text = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_millis,
        "-".repeat(GRAPH.0)
    );
    for (i, part) in samples.chunks(GRAPH.0).enumerate() {
        if i > 0 {
            text.push('\n');
        }
        draw_columns(part, (low, high), &mut text);
        draw_ages(part, now_s, &mut text);
    }
    text
}

/// Each row of a column has three heights; what is below the top is filled.
fn draw_columns(samples: &[Sample], (low, high): (u64, u64), text: &mut String) {
    const HEIGHTS: &[char] = &['_', 'o', '#'];
    let steps = (HEIGHTS.len() * GRAPH.1) as u64;
    for row in (0..GRAPH.1).rev() {
        let base = (row * HEIGHTS.len()) as u64;
        text.extend(samples.iter().map(|sample| {
            let step = (sample.millis - low) * steps / (high - low).max(1);
            match step.min(steps - 1).checked_sub(base) {
                None => ' ',
                Some(height) => *HEIGHTS.get(height as usize).unwrap_or(&'|'),
            }
        }));
        text.push('\n');
    }
}

/// The ages of samples, written downwards after an empty row.
fn draw_ages(samples: &[Sample], now_s: u64, text: &mut String) {
    let age = |sample: &Sample| match now_s.saturating_sub(sample.time_s) {
        s @ ..60 => format!("{s}s"),
        s @ ..3600 => format!("{}m", s / 60),
        s @ ..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    };
    let ages: Vec<String> = samples.iter().map(age).collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    text.push_str(&" ".repeat(samples.len()));
    text.push('\n');
    for row in 0..longest {
        text.extend(ages.iter().map(|age| age.chars().nth(row).unwrap_or(' ')));
        text.push('\n');
    }
}

fn doctor(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let threshold_ms = cx.shared.config.hot.latency_ms.load(Relaxed);
    let slowlog_us = cx.shared.config.hot.slowlog_us.load(Relaxed);
    let text = diagnosis(&cx.shared.latency.events.lock(), threshold_ms, slowlog_us);
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn diagnosis(
    events: &BTreeMap<&'static str, Series>,
    threshold_ms: u64,
    slowlog_us: i64,
) -> String {
    if events.is_empty() && threshold_ms == 0 {
        return "Latency is not monitored. Turn it on with CONFIG SET latency-monitor-threshold \
                and a number of milliseconds.\n"
            .into();
    }
    if events.is_empty() {
        return format!("Nothing took {threshold_ms} ms or longer.\n");
    }
    let mut text = String::new();
    for (event, series) in events {
        let count = series.samples.len() as u64;
        let sum: u64 = series.samples.iter().map(|sample| sample.millis).sum();
        let mean = sum.checked_div(count).unwrap_or(0);
        let deviation: u64 = series.samples.iter().map(|s| s.millis.abs_diff(mean)).sum();
        let deviation = deviation.checked_div(count).unwrap_or(0);
        let max = series.max_millis;
        let _infallible = writeln!(
            text,
            "* {event}: {count} seconds with slow ones, {mean} ms on average (deviation \
             {deviation} ms), {max} ms at worst."
        );
    }
    text.push_str("\nSLOWLOG GET shows which commands they were.\n");
    let sees_less = slowlog_us < 0 || slowlog_us as u64 > threshold_ms * 1000;
    if sees_less && threshold_ms > 0 {
        let micros = threshold_ms * 1000;
        let _infallible = writeln!(
            text,
            "It misses some of them: CONFIG SET slowlog-log-slower-than {micros} has it log all."
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    fn text(h: &mut Harness, line: &str) -> String {
        String::from_utf8(h.run(line)).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn samples_are_kept_per_second_and_bounded() {
        let mut h = Harness::default();
        let monitor = &h.shared.latency;
        monitor.add_at("command", 5, 100);
        monitor.add_at("command", 9, 100);
        monitor.add_at("command", 7, 101);
        monitor.add_at("fast-command", 1, 101);
        assert_eq!(text(&mut h, "LATENCY HISTORY command"), "*2 *2 :100 :9 *2 :101 :7 ");
        let latest = "*2 *4 $7 command :101 :7 :9 *4 $12 fast-command :101 :1 :1 ";
        assert_eq!(text(&mut h, "LATENCY LATEST"), latest);
        for time_s in 200..400 {
            h.shared.latency.add_at("command", 1, time_s);
        }
        assert!(text(&mut h, "LATENCY HISTORY command").starts_with("*160 *2 :240 :1 "));
        assert_eq!(text(&mut h, "LATENCY RESET nosuch command"), ":1 ");
        assert_eq!(text(&mut h, "LATENCY RESET"), ":1 ");
        assert_eq!(text(&mut h, "LATENCY LATEST"), "*0 ");
        let none = "-ERR No samples available for event 'command' ";
        assert_eq!(text(&mut h, "LATENCY GRAPH command"), none);
    }

    #[test]
    fn a_graph_has_columns_and_ages() {
        let monitor = LatencyMonitor::default();
        for (millis, time_s) in [(10, 1000), (110, 4940), (60, 4995)] {
            monitor.add_at("command", millis, time_s);
        }
        let text = drawing("command", &monitor.series(b"command").expect("added"), 5000);
        let (head, rest) = text.split_once(&"-".repeat(80)).expect("a line");
        assert_eq!(head, "command - high 110 ms, low 10 ms (all time high 110 ms)\n");
        assert_eq!(rest, "\n # \n |_\n ||\n_||\n   \n115\nhms\n");
    }

    #[test]
    fn histograms_add_up_below_limits_of_redis() {
        let mut latency = [0; 31];
        for (i, count) in [(0, 2), (5, 1), (19, 1), (20, 1), (30, 3)] {
            latency[i] = count;
        }
        let expected = [(1, 2), (33, 3), (541_065, 4), (1_073_741, 8)];
        assert_eq!(cumulative(&latency), expected);
    }

    #[test]
    fn histograms_are_of_commands_that_ran() {
        let mut h = Harness::default();
        h.run("GET a");
        h.run("SLOWLOG LEN");
        let reply = text(&mut h, "LATENCY HISTOGRAM slowlog GET nosuch set");
        assert!(reply.starts_with("*4 $11 slowlog|len *4 $5 calls :1 $14 histogram_usec *2 :"));
        assert!(reply.contains("$3 get *4 $5 calls :1 "), "{reply}");
        assert!(text(&mut h, "LATENCY HISTOGRAM").starts_with("*6 $3 get "));
    }

    #[test]
    fn the_doctor_speaks() {
        let mut h = Harness::default();
        assert!(text(&mut h, "LATENCY DOCTOR").contains("not monitored"));
        h.shared.latency.add_at("command", 20, 1);
        h.shared.latency.add_at("command", 30, 2);
        let advice = diagnosis(&h.shared.latency.events.lock(), 5, 10_000);
        assert!(advice.contains("2 seconds with slow ones, 25 ms on average (deviation 5 ms)"));
        assert!(advice.contains("slowlog-log-slower-than 5000"));
    }
}
