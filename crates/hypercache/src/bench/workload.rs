//! What the requests of a run are.

use super::keys::{Distribution, KeyChooser};
use super::random::Random;
use super::request::{KeyFormat, RequestSource, Template, ValueSize, filler};
use crate::cli::split_arguments;
use std::sync::Arc;

/// A kind of load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Get,
    Set,
    /// Reads and writes in this proportion.
    Mix {
        reads: u64,
        writes: u64,
    },
    Incr,
    Ping,
    /// Commands with `__key__`, `__value__` and `__member__` in them, each used as often as the others.
    Custom(Vec<Vec<String>>),
}

impl Workload {
    /// Reads the words after `--workload`.
    pub(crate) fn parse(words: &[String]) -> Result<Workload, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["get"] => Ok(Workload::Get),
            ["set"] => Ok(Workload::Set),
            ["incr"] => Ok(Workload::Incr),
            ["ping"] => Ok(Workload::Ping),
            ["custom"] => Err("write the command in quotes after 'custom'".into()),
            ["custom", commands @ ..] => {
                let commands = commands.iter().map(|command| parse_custom(command));
                commands.collect::<Result<_, _>>().map(Workload::Custom)
            }
            ["mix"] => Ok(Workload::Mix { reads: 9, writes: 1 }),
            [mix] if mix.starts_with("mix:") => parse_mix(&mix[4..]),
            _ => Err("write get, set, mix, mix:9:1, incr, ping, or custom 'COMMAND ...'".into()),
        }
    }

    /// Whether the keys should hold values before the run.
    pub(crate) fn wants_loaded_keys(&self) -> bool {
        matches!(self, Workload::Get | Workload::Set | Workload::Mix { .. })
    }

    /// What keys begin with unless the user says otherwise; counters have keys of their own, so
    /// that INCR does not meet the values of other runs.
    pub(crate) fn default_prefix(&self) -> &'static str {
        if *self == Workload::Incr { "counter:" } else { "key:" }
    }

    /// The name in reports.
    pub(crate) fn name(&self) -> String {
        match self {
            Workload::Get => "get".into(),
            Workload::Set => "set".into(),
            Workload::Mix { reads, writes } => format!("mix:{reads}:{writes}"),
            Workload::Incr => "incr".into(),
            Workload::Ping => "ping".into(),
            Workload::Custom(commands) => {
                let commands: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
                format!("custom {}", commands.join(", "))
            }
        }
    }

    /// The commands, and how often each is used in proportion to the others.
    fn commands<'w>(&'w self) -> Vec<(Vec<&'w str>, u64)> {
        let get = vec!["GET", "__key__"];
        let set = vec!["SET", "__key__", "__value__"];
        match self {
            Workload::Get => vec![(get, 1)],
            Workload::Set => vec![(set, 1)],
            Workload::Mix { reads, writes } => vec![(get, *reads), (set, *writes)],
            Workload::Incr => vec![(vec!["INCR", "__key__"], 1)],
            Workload::Ping => vec![(vec!["PING"], 1)],
            Workload::Custom(commands) => {
                let words = |words: &'w Vec<String>| words.iter().map(String::as_str).collect();
                commands.iter().map(|command| (words(command), 1)).collect()
            }
        }
    }
}

fn parse_mix(ratio: &str) -> Result<Workload, String> {
    const MAX_WEIGHT: u64 = 1_000_000;
    let parts = ratio.split_once(':');
    let numbers = parts.and_then(|(reads, writes)| {
        Some((reads.parse::<u64>().ok()?, writes.parse::<u64>().ok()?))
    });
    match numbers {
        Some((reads, writes)) if reads + writes > 0 && reads.max(writes) <= MAX_WEIGHT => {
            Ok(Workload::Mix { reads, writes })
        }
        _ => Err("write the proportion of reads to writes as in mix:9:1".into()),
    }
}

fn parse_custom(command: &str) -> Result<Vec<String>, String> {
    let words = split_arguments(command.as_bytes()).map_err(|_| "the quotes do not match")?;
    let words: Option<Vec<String>> =
        words.into_iter().map(|word| String::from_utf8(word).ok()).collect();
    match words {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err("the custom command is empty or not UTF-8".into()),
    }
}

/// Everything that decides the bytes of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) workload: Workload,
    pub(crate) keys: u64,
    /// How many different numbers stand for `__member__`.
    pub(crate) members: u64,
    pub(crate) prefix: String,
    pub(crate) distribution: Distribution,
    pub(crate) value_size: ValueSize,
    pub(crate) seed: u64,
    filler: Arc<[u8]>,
}

impl Recipe {
    /// A recipe whose values are made from `seed` as well.
    pub(crate) fn new(
        workload: Workload,
        (keys, members): (u64, u64),
        prefix: String,
        distribution: Distribution,
        value_size: ValueSize,
        seed: u64,
    ) -> Recipe {
        let filler = filler(value_size.max, &mut Random::new(seed));
        Recipe { workload, keys, members, prefix, distribution, value_size, seed, filler }
    }

    /// The requests of the run, different for every `thread`.
    pub(crate) fn source(&self, thread: u64) -> RequestSource {
        let chooser = KeyChooser::new(&self.distribution, self.keys);
        self.build(&self.workload, chooser, thread)
    }

    /// Requests that set every key from number `first` on.
    pub(crate) fn loading_source(&self, first: u64) -> RequestSource {
        self.build(&Workload::Set, KeyChooser::Sequential { next: first }, first)
    }

    fn build(&self, workload: &Workload, keys: KeyChooser, stream: u64) -> RequestSource {
        let format = KeyFormat::new(&self.prefix, self.keys);
        let format = KeyFormat { members: self.members, ..format };
        let templates = workload.commands().into_iter().map(|(command, weight)| {
            (Template::new(&command, &format, self.value_size, &self.filler), weight)
        });
        RequestSource {
            templates: templates.collect(),
            keys,
            // Streams that start close together in SplitMix64 are still unrelated.
            random: Random::new(Random::new(self.seed ^ stream.rotate_left(32)).next()),
            value_size: self.value_size,
            filler: Arc::clone(&self.filler),
            places: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Workload, String> {
        Workload::parse(&words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn workloads_are_read() {
        assert_eq!(parse(&["get"]), Ok(Workload::Get));
        assert_eq!(parse(&["mix"]), Ok(Workload::Mix { reads: 9, writes: 1 }));
        assert_eq!(parse(&["mix:1:3"]), Ok(Workload::Mix { reads: 1, writes: 3 }));
        let custom = parse(&["custom", "SET 'a b' __value__"]).unwrap();
        assert_eq!(custom.name(), "custom SET a b __value__");
        let custom = parse(&["custom", "LPUSH l 1", "LPOP l"]).unwrap();
        assert_eq!(
            (custom.name(), custom.commands().len()),
            ("custom LPUSH l 1, LPOP l".into(), 2)
        );
        for bad in [
            &["x"][..],
            &["get", "y"],
            &["custom"],
            &["custom", ""],
            &["custom", "'"],
            &["mix:0:0"],
            &["mix:1"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_seed_decides_the_requests() {
        let bytes = |seed, thread| {
            let workload = Workload::Mix { reads: 1, writes: 1 };
            let size = ValueSize { min: 1, max: 50 };
            let zipf = Distribution::Zipf { theta: 0.99 };
            let recipe = Recipe::new(workload, (1000, 1), "k".into(), zipf, size, seed);
            let mut source = recipe.source(thread);
            let mut out = Vec::new();
            (0..100).for_each(|_| source.append(&mut out));
            out
        };
        assert_eq!(bytes(1, 0), bytes(1, 0));
        assert_ne!(bytes(1, 0), bytes(2, 0));
        assert_ne!(bytes(1, 0), bytes(1, 1));
    }
}
