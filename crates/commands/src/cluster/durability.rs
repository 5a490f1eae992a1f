//! How much of what is acknowledged may be lost at a failover: for all keys, and by prefixes of keys.

use crate::config::Config;
use crate::shared::Shared;
use hypercache_cluster::gate::Durability;

/// The rules in force. A key is under the rule with the longest prefix that it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    default: Durability,
    /// Prefixes, the longest first.
    by_prefix: Vec<(Box<[u8]>, Durability)>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { default: Durability::Async, by_prefix: Vec::new() }
    }
}

/// What `bounded` means.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// Age of the oldest record that is not replicated.
    pub age_ms: u64,
    /// Bytes that are not replicated.
    pub bytes: usize,
}

/// Names of the modes, as in the settings.
pub const MODES: &[&str] = &["async", "bounded", "sync"];

fn mode(name: &str, lag: Lag) -> Option<Durability> {
    match name {
        "async" => Some(Durability::Async),
        "bounded" => Some(Durability::Bounded { age_us: lag.age_ms * 1000, bytes: lag.bytes }),
        "sync" => Some(Durability::Sync),
        _ => None,
    }
}

fn strictness(durability: Durability) -> u8 {
    match durability {
        Durability::Async => 0,
        Durability::Bounded { .. } => 1,
        Durability::Sync => 2,
    }
}

/// The stricter of two.
pub(crate) fn stricter(a: Durability, b: Durability) -> Durability {
    if strictness(b) > strictness(a) { b } else { a }
}

/// The rules that the settings say.
pub(crate) fn rules(config: &Config) -> Rules {
    let number = |name: &str| config.get(name).parse().unwrap_or_default();
    let lag = Lag {
        age_ms: number("durability-max-lag-ms"),
        bytes: number("durability-max-lag-bytes") as usize,
    };
    // They were checked one by one.
    Rules::parse(&config.get("durability"), &config.get("durability-rules"), lag)
        .unwrap_or_default()
}

/// Makes changed settings count.
pub(crate) fn apply(shared: &Shared, _: &str) {
    if let Some(plane) = shared.cluster.plane() {
        plane.set_rules(rules(&shared.config));
    }
}

/// Checks the setting `durability-rules`.
pub(crate) fn check(text: &str) -> Result<String, String> {
    Rules::parse("async", text, Lag { age_ms: 0, bytes: 0 }).map(|_| text.to_owned())
}

impl Rules {
    /// Reads a mode for all keys and `PREFIX=MODE` words for some.
    ///
    /// # Errors
    /// One sentence that says what is no rule.
    pub fn parse(default: &str, words: &str, lag: Lag) -> Result<Rules, String> {
        let modes = MODES.join(", ");
        let read = |name: &str| mode(name, lag).ok_or(format!("the modes are {modes}"));
        let mut by_prefix = Vec::new();
        for word in words.split_ascii_whitespace() {
            let (prefix, name) = word
                .rsplit_once('=')
                .filter(|(prefix, _)| !prefix.is_empty())
                .ok_or(format!("a rule is PREFIX=MODE, and '{word}' is none"))?;
            by_prefix.push((Box::from(prefix.as_bytes()), read(name)?));
        }
        by_prefix.sort_by_key(|(prefix, _): &(Box<[u8]>, _)| std::cmp::Reverse(prefix.len()));
        Ok(Rules { default: read(default)?, by_prefix })
    }

    /// The rule that a key is under.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> Durability {
        let found = self.by_prefix.iter().find(|(prefix, _)| key.starts_with(prefix));
        found.map_or(self.default, |(_, durability)| *durability)
    }

    /// The strictest rule.
    #[must_use]
    pub fn strictest(&self) -> Durability {
        self.by_prefix.iter().fold(self.default, |a, (_, b)| stricter(a, *b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Lag = Lag { age_ms: 5, bytes: 100 };
    const BOUNDED: Durability = Durability::Bounded { age_us: 5000, bytes: 100 };

    #[test]
    fn the_longest_prefix_counts() {
        let rules = Rules::parse("bounded", "a=async ab:=sync a=b=async", LAG).expect("rules");
        let expected: [(&[u8], Durability); 5] = [
            (b"", BOUNDED),
            (b"b", BOUNDED),
            (b"ab", Durability::Async),
            (b"ab:1", Durability::Sync),
            (b"a=b", Durability::Async),
        ];
        for (key, durability) in expected {
            assert_eq!(rules.of(key), durability, "{key:?}");
        }
        assert_eq!(rules.strictest(), Durability::Sync);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (default, words) in
            [("sometimes", ""), ("async", "x"), ("async", "=sync"), ("sync", "a=b")]
        {
            assert!(Rules::parse(default, words, LAG).is_err(), "{default} {words}");
        }
        assert_eq!(Rules::parse("async", " ", LAG), Ok(Rules::default()));
    }
}
