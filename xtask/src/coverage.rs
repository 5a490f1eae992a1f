//! How much of Redis is there: the command table, as its reference shows it, beside the list of what
//! Redis has.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The commands of Redis; what its columns are stands at its head.
const LIST: &str = "xtask/data/redis-commands.tsv";
/// What the table is known by here. That it is up to date is a check of its own.
const REFERENCE: &str = "docs/commands.md";

/// A command of the list.
#[derive(Debug)]
struct Listed<'a> {
    name: &'a str,
    /// Why it need not be there.
    exception: Option<&'a str>,
    /// Who brought it, if Redis 7.0 does not have it.
    newer: Option<&'a str>,
}

/// The list, and the least share of it that must be there, in per cent.
fn parse_list(text: &str) -> Result<(f64, Vec<Listed<'_>>)> {
    let (mut percent_min, mut listed) = (None, Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(percent) = line.strip_prefix("percent-min ") {
            percent_min = Some(percent.parse()?);
            continue;
        }
        let columns: Vec<&str> = line.split('\t').collect();
        listed.push(match columns[..] {
            [name] => Listed { name, exception: None, newer: None },
            [name, "+", newer] => Listed { name, exception: None, newer: Some(newer) },
            [name, why] => Listed { name, exception: Some(why), newer: None },
            _ => bail!("{LIST}: not a row: {line}"),
        });
    }
    Ok((percent_min.context("no line `percent-min`")?, listed))
}

/// Whether the reference shows an example, by lower-case name. Containers are shown by what they contain.
fn parse_reference(text: &str) -> BTreeMap<String, bool> {
    let sections = text.split("\n### ").skip(1);
    let mut rows: BTreeMap<String, bool> = sections
        .map(|section| {
            let name = section.lines().next().unwrap_or_default().to_ascii_lowercase();
            (name, section.contains("\n```\n> "))
        })
        .collect();
    let shown: Vec<String> = rows
        .keys()
        .filter(|name| {
            let within: Vec<bool> = rows
                .iter()
                .filter(|(sub, _)| {
                    sub.strip_prefix(name.as_str()).is_some_and(|s| s.starts_with(' '))
                })
                .map(|(_, has_example)| *has_example)
                .collect();
            !within.is_empty() && within.iter().all(|has_example| *has_example)
        })
        .cloned()
        .collect();
    rows.extend(shown.into_iter().map(|name| (name, true)));
    rows
}

/// What there is of a list.
#[derive(Debug, Default)]
struct Part<'a> {
    shown: usize,
    without_example: Vec<&'a str>,
    missing: Vec<&'a str>,
}

impl<'a> Part<'a> {
    fn of(listed: impl Iterator<Item = &'a Listed<'a>>, rows: &BTreeMap<String, bool>) -> Self {
        let mut part = Part::default();
        for command in listed {
            match rows.get(command.name) {
                Some(true) => part.shown += 1,
                Some(false) => part.without_example.push(command.name),
                None => part.missing.push(command.name),
            }
        }
        part
    }

    fn len(&self) -> usize {
        self.shown + self.without_example.len() + self.missing.len()
    }

    fn percent(&self) -> f64 {
        100.0 * (self.shown + self.without_example.len()) as f64 / self.len().max(1) as f64
    }

    fn report(&self, out: &mut String) -> std::fmt::Result {
        let there = self.len() - self.missing.len();
        writeln!(out, "  {there} of {} are there: {:.1} %", self.len(), self.percent())?;
        writeln!(out, "  with at least one example: {}", self.shown)?;
        for (what, names) in
            [("without example", &self.without_example), ("missing", &self.missing)]
        {
            if !names.is_empty() {
                writeln!(out, "  {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// The report, and what is wrong.
fn compare(list: &str, reference: &str) -> Result<(String, Vec<String>)> {
    let (percent_min, listed) = parse_list(list)?;
    let rows = parse_reference(reference);
    let asked = listed.iter().filter(|c| c.newer.is_none() && c.exception.is_none());
    let (asked, newer) = (
        Part::of(asked, &rows),
        Part::of(listed.iter().filter(|command| command.newer.is_some()), &rows),
    );
    let mut excepted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for command in &listed {
        if let Some(why) = command.exception {
            excepted.entry(why).or_default().push(command.name);
        }
    }
    let mut report = String::from("Redis 7.0.15:\n");
    asked.report(&mut report)?;
    for (why, names) in &excepted {
        writeln!(report, "  excepted, {why}: {}", names.join(", "))?;
    }
    report.push_str("newer commands of Redis 8 and Valkey, beside that:\n");
    newer.report(&mut report)?;

    let mut problems = Vec::new();
    if asked.percent() < percent_min {
        problems.push(format!("{:.1} % are there, below {percent_min} %", asked.percent()));
    }
    let unshown = asked.without_example.iter().chain(&newer.without_example);
    problems.extend(unshown.map(|name| format!("{name} has no example")));
    let stale = excepted.values().flatten().filter(|name| rows.contains_key(**name));
    problems.extend(stale.map(|name| format!("{name} is there: it needs no exception")));
    Ok((report, problems))
}

/// Prints what is there and what is not; fails when too little is, or a row has no example.
pub(crate) fn coverage() -> Result<()> {
    let read = |path| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let (report, problems) = compare(&read(LIST)?, &read(REFERENCE)?)?;
    print!("{report}");
    if problems.is_empty() {
        return Ok(());
    }
    bail!("command coverage:\n  {}", problems.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# A remark.\npercent-min 60\nget\nobject\nobject help\nsync\treplication\n\
                        dump\nhttl\t+\tredis 7.4.0\n";

    fn reference(rows: &[(&str, bool)]) -> String {
        let section = |(name, has_example): &(&str, bool)| {
            let example = if *has_example { "\n```\n> GET a\n(nil)\n```\n" } else { "" };
            format!("\n### {name}\n\nWhat it does.\n{example}")
        };
        rows.iter().map(section).collect()
    }

    #[test]
    fn what_is_there_is_counted() {
        let rows = [("GET", true), ("OBJECT", false), ("OBJECT HELP", true), ("HTTL", true)];
        let (report, problems) = compare(LIST, &reference(&rows)).expect("a list");
        assert_eq!(problems, [""; 0]);
        assert!(report.contains("3 of 4 are there: 75.0 %"), "{report}");
        assert!(report.contains("missing: dump\n  excepted, replication: sync"), "{report}");
        assert!(report.contains("1 of 1 are there: 100.0 %"), "{report}");
    }

    #[test]
    fn what_lacks_is_named() {
        let rows = [("GET", false), ("HTTL", false), ("SYNC", true)];
        let (_, problems) = compare(LIST, &reference(&rows)).expect("a list");
        let expected = [
            "25.0 % are there, below 60 %",
            "get has no example",
            "httl has no example",
            "sync is there: it needs no exception",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn lists_are_checked() {
        assert!(compare("get\n", "").is_err());
        assert!(compare("percent-min 1\nget\ta\tb\tc\n", "").is_err());
    }

    #[test]
    fn the_bar_is_met() {
        std::env::set_current_dir(crate::root()).expect("the workspace");
        coverage().expect("enough commands, each with an example");
    }
}
