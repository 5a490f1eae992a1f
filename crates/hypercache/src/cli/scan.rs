//! `--scan`, `--bigkeys` and `--memkeys`: tools that walk the keyspace with SCAN.
//!
//! The walk holds one batch of keys at a time. Sizes are asked for in pipelines, one round trip
//! for the types of a batch and one for its sizes.

use super::format::Format;
use super::quoting::quoted;
use super::session::Session;
use super::shell::{Printer, write_out};
use anyhow::{Context, bail};
use hypercache_client::{Connection, Reply};
use std::collections::BTreeMap;
use std::time::Duration;

/// COUNT of the tools that look at every key anyway.
const SAMPLING_COUNT: u32 = 100;

/// Which keys to walk over, and how fast.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) pattern: Option<String>,
    pub(crate) count: Option<u32>,
    pub(crate) key_type: Option<String>,
    /// Pause after every SCAN.
    pub(crate) pause: Duration,
}

/// What makes a key big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Its elements, or bytes if it is a string.
    Elements,
    /// The memory it takes.
    Memory,
}

impl Walk {
    /// The arguments of the SCAN that continues at `cursor`.
    fn command(&self, cursor: &[u8]) -> Vec<Vec<u8>> {
        let mut arguments = vec![b"SCAN".to_vec(), cursor.to_vec()];
        let mut option = |name: &str, value: String| {
            arguments.extend([name.as_bytes().to_vec(), value.into_bytes()]);
        };
        if let Some(pattern) = &self.pattern {
            option("MATCH", pattern.clone());
        }
        if let Some(count) = self.count {
            option("COUNT", count.to_string());
        }
        if let Some(key_type) = &self.key_type {
            option("TYPE", key_type.clone());
        }
        arguments
    }

    /// Calls `each` with every batch of keys.
    fn batches(
        &self,
        connection: &mut Connection,
        mut each: impl FnMut(&mut Connection, Vec<Vec<u8>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cursor = b"0".to_vec();
        loop {
            let reply = connection.command(&self.command(&cursor))?.into_result()?;
            let keys;
            (cursor, keys) = read_batch(reply).context("The reply to SCAN makes no sense")?;
            each(connection, keys)?;
            if cursor == b"0" {
                return Ok(());
            }
            std::thread::sleep(self.pause);
        }
    }
}

/// The next cursor and the keys of a reply to SCAN.
fn read_batch(reply: Reply) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let [cursor, keys] = <[Reply; 2]>::try_from(reply.into_items()?).ok()?;
    let keys = keys.into_items()?.into_iter().map(|key| key.as_bytes().map(<[u8]>::to_vec));
    Some((cursor.as_bytes()?.to_vec(), keys.collect::<Option<_>>()?))
}

/// Prints every key.
pub(crate) fn print_keys(
    session: &mut Session,
    walk: &Walk,
    printer: &Printer,
) -> anyhow::Result<()> {
    walk.batches(session.connected()?, |_, keys| {
        let mut out = Vec::new();
        for key in keys {
            let shown = Reply::Bulk(key);
            printer.format.render(&shown, &printer.delimiter, &mut out);
        }
        Ok(write_out(&out)?)
    })
}

/// What is known about the keys of one type.
#[derive(Debug, Default)]
struct TypeSummary {
    keys: u64,
    total: u64,
    /// The biggest key and its size.
    biggest: Option<(Vec<u8>, u64)>,
}

/// What is known about all keys.
#[derive(Debug, Default)]
struct Summary {
    keys: u64,
    key_bytes: u64,
    types: BTreeMap<String, TypeSummary>,
}

impl Summary {
    /// Counts one key; returns whether it is the biggest of its type so far.
    fn add(&mut self, key: &[u8], key_type: &str, size: u64) -> bool {
        self.keys += 1;
        self.key_bytes += key.len() as u64;
        let summary = self.types.entry(key_type.to_owned()).or_default();
        summary.keys += 1;
        summary.total += size;
        let is_biggest = summary.biggest.as_ref().is_none_or(|(_, biggest)| size > *biggest);
        if is_biggest {
            summary.biggest = Some((key.to_vec(), size));
        }
        is_biggest
    }

    fn report(&self, measure: Measure) -> String {
        let mut text = format!(
            "\n-------- summary -------\n\nSampled {} keys in the keyspace!\n\
             Total key length in bytes is {} (avg len {:.2})\n\n",
            self.keys,
            self.key_bytes,
            ratio(self.key_bytes, self.keys)
        );
        for (name, summary) in &self.types {
            if let Some((key, size)) = &summary.biggest {
                let (key, unit) = (quoted(key), unit(name, measure));
                text.push_str(&format!("Biggest {name:>6} found {key} has {size} {unit}\n"));
            }
        }
        text.push('\n');
        for (name, TypeSummary { keys, total, .. }) in &self.types {
            text.push_str(&format!(
                "{keys} {name}s with {total} {} ({:.2}% of keys, avg size {:.2})\n",
                unit(name, measure),
                100.0 * ratio(*keys, self.keys),
                ratio(*total, *keys)
            ));
        }
        text
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The command that tells the size of a key of a type, and what it counts.
fn size_of(key_type: &str) -> Option<(&'static str, &'static str)> {
    Some(match key_type {
        "string" => ("STRLEN", "bytes"),
        "list" => ("LLEN", "items"),
        "set" => ("SCARD", "members"),
        "hash" => ("HLEN", "fields"),
        "zset" => ("ZCARD", "members"),
        "stream" => ("XLEN", "entries"),
        _ => return None,
    })
}

fn unit(key_type: &str, measure: Measure) -> &'static str {
    match measure {
        Measure::Memory => "bytes",
        Measure::Elements => size_of(key_type).map_or("?", |(_, unit)| unit),
    }
}

/// Finds the biggest key of each type and prints it with a summary.
pub(crate) fn print_big_keys(
    session: &mut Session,
    mut walk: Walk,
    measure: Measure,
    printer: &Printer,
) -> anyhow::Result<()> {
    walk.count = walk.count.or(Some(SAMPLING_COUNT));
    let connection = session.connected()?;
    let expected = connection.command(&["DBSIZE"])?.into_result()?.as_int().unwrap_or(0).max(0);
    printer.text("\n# Scanning the keyspace for the biggest keys of each type.\n\n")?;
    let mut summary = Summary::default();
    walk.batches(connection, |connection, keys| {
        let types = ask_types(connection, &keys)?;
        let sizes = ask_sizes(connection, &keys, &types, measure)?;
        for ((key, key_type), size) in keys.iter().zip(&types).zip(sizes) {
            // A key that expired in the meantime has neither type nor size.
            let Some(size) = size else { continue };
            if summary.add(key, key_type, size) && printer.format == Format::Tty {
                let done = (100.0 * ratio(summary.keys, expected as u64)).min(100.0);
                let (key, unit) = (quoted(key), unit(key_type, measure));
                printer.text(&format!(
                    "[{done:05.2}%] Biggest {key_type:<6} found so far {key} with {size} {unit}\n"
                ))?;
            }
        }
        Ok(())
    })?;
    Ok(printer.text(&summary.report(measure))?)
}

fn ask_types(connection: &mut Connection, keys: &[Vec<u8>]) -> anyhow::Result<Vec<String>> {
    for key in keys {
        connection.send(&[&b"TYPE"[..], key])?;
    }
    connection.flush()?;
    let mut types = Vec::with_capacity(keys.len());
    for _ in keys {
        let reply = connection.read_reply()?.into_result()?;
        types.push(reply.as_text().unwrap_or_default().into_owned());
    }
    Ok(types)
}

/// The size of each key, or `None` where there is none to tell.
fn ask_sizes(
    connection: &mut Connection,
    keys: &[Vec<u8>],
    types: &[String],
    measure: Measure,
) -> anyhow::Result<Vec<Option<u64>>> {
    for (key, key_type) in keys.iter().zip(types) {
        match (measure, size_of(key_type)) {
            (Measure::Memory, _) => connection.send(&[&b"MEMORY"[..], b"USAGE", key])?,
            (Measure::Elements, Some((command, _))) => {
                connection.send(&[command.as_bytes(), key])?;
            }
            (Measure::Elements, None) => {}
        }
    }
    connection.flush()?;
    let mut sizes = Vec::with_capacity(keys.len());
    for key_type in types {
        if measure == Measure::Elements && size_of(key_type).is_none() {
            sizes.push(None);
            continue;
        }
        match connection.read_reply()? {
            Reply::Error(message) if measure == Measure::Memory => {
                bail!("MEMORY USAGE failed: {}", String::from_utf8_lossy(&message))
            }
            reply => sizes.push(reply.as_int().and_then(|size| u64::try_from(size).ok())),
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments() {
        let walk = Walk {
            pattern: Some("a*".into()),
            count: Some(7),
            key_type: Some("hash".into()),
            pause: Duration::ZERO,
        };
        let text = walk.command(b"0").join(&b' ');
        assert_eq!(text, b"SCAN 0 MATCH a* COUNT 7 TYPE hash");
        assert_eq!(Walk::default().command(b"12").join(&b' '), b"SCAN 12");
    }

    #[test]
    fn batches_are_checked() {
        let keys = Reply::Array(vec![Reply::bulk("k")]);
        let good = Reply::Array(vec![Reply::bulk("5"), keys.clone()]);
        assert_eq!(read_batch(good), Some((b"5".to_vec(), vec![b"k".to_vec()])));
        assert_eq!(read_batch(Reply::Array(vec![keys])), None);
        let odd = Reply::Array(vec![Reply::bulk("0"), Reply::Array(vec![Reply::Null])]);
        assert_eq!(read_batch(odd), None);
    }

    #[test]
    fn the_summary_names_the_biggest() {
        let mut summary = Summary::default();
        assert!(summary.add(b"a", "string", 3));
        assert!(!summary.add(b"b", "string", 3));
        assert!(summary.add(b"cc", "list", 10));
        let report = summary.report(Measure::Elements);
        assert!(report.contains("Sampled 3 keys in the keyspace!"), "{report}");
        assert!(report.contains("Biggest   list found \"cc\" has 10 items"), "{report}");
        assert!(report.contains("2 strings with 6 bytes (66.67% of keys, avg size 3.00)"));
        assert!(Summary::default().report(Measure::Memory).contains("Sampled 0 keys"));
    }
}
