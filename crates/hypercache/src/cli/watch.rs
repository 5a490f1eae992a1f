//! `--stat`, `--latency` and `--latency-history`: tools that ask the same thing again and again.

use super::format::Format;
use super::session::Session;
use super::shell::Printer;
use hypercache_client::Connection;
use hypercache_stdx::clock;
use std::collections::HashMap;
use std::time::Duration;

/// Pause between two samples of the latency.
const SAMPLE_PAUSE: Duration = Duration::from_millis(10);
/// Samples of `--latency` on a terminal are shown this often.
const REFRESH: Duration = Duration::from_millis(100);
/// Seconds that a line of `--latency-history` covers.
const HISTORY_RANGE: Duration = Duration::from_secs(15);
/// Lines of `--stat` between two headers.
const LINES_PER_HEADER: u64 = 20;

const STAT_HEADER: &str = "\
------- data ------ --------------------- load -------------------- - child -
keys       mem      clients blocked requests            connections          
";

/// The round trips measured so far, in milliseconds.
#[derive(Debug)]
struct Latency {
    min: f64,
    max: f64,
    total: f64,
    samples: u64,
}

impl Latency {
    fn new() -> Latency {
        Latency { min: f64::INFINITY, max: 0.0, total: 0.0, samples: 0 }
    }

    fn add(&mut self, round_trip: Duration) {
        let milliseconds = round_trip.as_secs_f64() * 1e3;
        self.min = self.min.min(milliseconds);
        self.max = self.max.max(milliseconds);
        self.total += milliseconds;
        self.samples += 1;
    }

    fn sample(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let started = clock::instant();
        connection.command(&["PING"])?.into_result()?;
        self.add(started.elapsed());
        std::thread::sleep(SAMPLE_PAUSE);
        Ok(())
    }

    fn average(&self) -> f64 {
        self.total / self.samples.max(1) as f64
    }

    /// The line in the format asked for, without a line end.
    fn line(&self, format: Format) -> String {
        let (min, max, average, samples) = (self.min, self.max, self.average(), self.samples);
        match format {
            Format::Tty => {
                format!("min: {min:.2}, max: {max:.2}, avg: {average:.2} ({samples} samples)")
            }
            Format::Raw => format!("{min:.2} {max:.2} {average:.2} {samples}"),
            Format::Csv => format!("{min:.2},{max:.2},{average:.2},{samples}"),
            Format::Json => format!(
                "{{\"min\": {min:.3}, \"max\": {max:.3}, \"avg\": {average:.3}, \
                 \"count\": {samples}}}"
            ),
        }
    }
}

/// Measures the round trip: for ever on a terminal, otherwise for one interval.
pub(crate) fn latency(
    session: &mut Session,
    printer: &Printer,
    interval: Option<Duration>,
) -> anyhow::Result<()> {
    let connection = session.connected()?;
    let mut latency = Latency::new();
    let started = clock::instant();
    let mut shown = started;
    if printer.format != Format::Tty {
        let range = interval.unwrap_or(Duration::from_secs(1));
        while started.elapsed() < range || latency.samples == 0 {
            latency.sample(connection)?;
        }
        return Ok(printer.text(&format!("{}\n", latency.line(printer.format)))?);
    }
    loop {
        latency.sample(connection)?;
        if shown.elapsed() >= REFRESH {
            printer.text(&format!("\r\x1b[K{}", latency.line(Format::Tty)))?;
            shown = clock::instant();
        }
    }
}

/// Measures the round trip and prints a line for every interval; `lines` bounds how many.
pub(crate) fn latency_history(
    session: &mut Session,
    printer: &Printer,
    interval: Option<Duration>,
    lines: Option<u64>,
) -> anyhow::Result<()> {
    let range = interval.unwrap_or(HISTORY_RANGE);
    let connection = session.connected()?;
    for _ in 0..lines.unwrap_or(u64::MAX) {
        let mut latency = Latency::new();
        let started = clock::instant();
        while started.elapsed() < range || latency.samples == 0 {
            latency.sample(connection)?;
        }
        let tail = match printer.format {
            Format::Tty => {
                format!(" -- {:.2} seconds range", started.elapsed().as_secs_f64())
            }
            _ => String::new(),
        };
        printer.text(&format!("{}{tail}\n", latency.line(printer.format)))?;
    }
    Ok(())
}

/// Prints a line about the server's load every interval; `lines` bounds how many.
pub(crate) fn stat(
    session: &mut Session,
    printer: &Printer,
    interval: Option<Duration>,
    lines: Option<u64>,
) -> anyhow::Result<()> {
    let mut previous = None;
    for line in 0..lines.unwrap_or(u64::MAX) {
        if line > 0 {
            std::thread::sleep(interval.unwrap_or(Duration::from_secs(1)));
        }
        let reply = session.connected()?.command(&["INFO"])?.into_result()?;
        let info = parse_info(&reply.as_text().unwrap_or_default());
        if line % LINES_PER_HEADER == 0 {
            printer.text(STAT_HEADER)?;
        }
        printer.text(&stat_line(&info, previous))?;
        previous = Some(number(&info, "total_commands_processed"));
    }
    Ok(())
}

/// The fields of a reply to INFO.
pub(crate) fn parse_info(text: &str) -> HashMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn number(info: &HashMap<String, String>, name: &str) -> u64 {
    info.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The keys of all databases, from fields such as `db0:keys=3,expires=0`.
fn count_keys(info: &HashMap<String, String>) -> u64 {
    let databases = info.iter().filter(|(name, _)| {
        name.strip_prefix("db").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let keys = databases.filter_map(|(_, value)| {
        value.split(',').find_map(|part| part.strip_prefix("keys="))?.parse::<u64>().ok()
    });
    keys.sum()
}

fn stat_line(info: &HashMap<String, String>, previous_requests: Option<u64>) -> String {
    let requests = number(info, "total_commands_processed");
    let gained = requests.saturating_sub(previous_requests.unwrap_or(requests));
    let children = [
        ("bgsave_in_progress", "SAVE"),
        ("rdb_bgsave_in_progress", "SAVE"),
        ("aof_rewrite_in_progress", "AOF"),
        ("loading", "LOAD"),
    ];
    let child = children.iter().find(|(field, _)| number(info, field) == 1);
    format!(
        "{:<10} {:<8} {:<7} {:<7} {:<19} {:<12} {}\n",
        count_keys(info),
        shown_bytes(number(info, "used_memory")),
        number(info, "connected_clients"),
        number(info, "blocked_clients"),
        format!("{requests} (+{gained})"),
        number(info, "total_connections_received"),
        child.map_or("", |(_, name)| name),
    )
}

/// A number of bytes in the largest unit that keeps it above one.
fn shown_bytes(bytes: u64) -> String {
    let units = [(1_u64 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, name)) => format!("{:.2}{name}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_becomes_a_line() {
        let info = parse_info(
            "# Server\r\nused_memory:1048576\r\nconnected_clients:2\r\n\
             total_commands_processed:15\r\ndb0:keys=3,expires=0\r\ndb12:keys=4\r\ndbx:keys=9\r\n",
        );
        let line = stat_line(&info, Some(10));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["7", "1.00M", "2", "0", "15", "(+5)", "0"]);
    }

    #[test]
    fn bytes_are_shown_in_a_fitting_unit() {
        assert_eq!(shown_bytes(12), "12B");
        assert_eq!(shown_bytes(2048), "2.00K");
        assert_eq!(shown_bytes(3 << 30), "3.00G");
    }

    #[test]
    fn latency_lines() {
        let mut latency = Latency::new();
        latency.add(Duration::from_millis(1));
        latency.add(Duration::from_millis(3));
        assert_eq!(latency.line(Format::Raw), "1.00 3.00 2.00 2");
        assert_eq!(latency.line(Format::Csv), "1.00,3.00,2.00,2");
        assert_eq!(latency.line(Format::Tty), "min: 1.00, max: 3.00, avg: 2.00 (2 samples)");
        assert!(serde_json::from_str::<serde_json::Value>(&latency.line(Format::Json)).is_ok());
    }
}
