//! A selector: which commands, on which keys and channels. Every user has one of its own, the root,
//! and may have more, written in parentheses; a command must be allowed by one of them altogether.
//!
//! Commands are a bitmap over [`Entry::id`], changed rule by rule, so that the check is one bit
//! whatever the rules were. The rules themselves are kept as they were written, less those that a
//! later one makes void, because they are what an administrator wants to see and to save: Redis 7.0
//! reconstructs a text from its bitmap, Redis from 7.2 on keeps them as we do. Cost per selector: a
//! bit per command, the texts, and the patterns.

use crate::introspect::actual_flags;
use crate::table::{Acl, Command, Entry, Flags, KeyFlags, table};
use hypercache_protocol::parse::Args;
use hypercache_stdx::glob::glob_match;
use std::collections::BTreeMap;

/// Why a rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// No such command or category.
    Unknown,
    /// It is no rule.
    Syntax,
    /// A key pattern after `allkeys`.
    KeysAreAll,
    /// A channel pattern after `allchannels`.
    ChannelsAreAll,
    /// A first argument after a subcommand.
    FirstArgOfSubcommand,
    /// A password to remove that the user does not have.
    NoSuchPassword,
    /// A hash that is none.
    BadHash,
}

impl RuleError {
    /// What a client is told, in Redis' words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::KeysAreAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does \
                 not have any effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::ChannelsAreAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and \
                 does not have any effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::FirstArgOfSubcommand => {
                "Allowing first-arg of a subcommand is not supported"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase \
                 hexadecimal characters"
            }
        }
    }
}

/// What was denied, with the number of the argument at fault. Later ones weigh more: of several
/// selectors the one that came furthest says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// A key.
    Key(usize),
    /// A channel.
    Channel(usize),
}

/// What a key pattern allows: bits.
const READ: u8 = 1;
const WRITE: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Vec<u8>,
    access: u8,
    /// Bytes before the `*` of a pattern that is plain text and a `*` at its end, as most are: half
    /// the instructions of the whole check would otherwise go into matching those.
    prefix: Option<usize>,
}

impl KeyPattern {
    fn new(pattern: &[u8], access: u8) -> Self {
        let special = pattern.iter().position(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'));
        let prefix = special.filter(|at| pattern[*at..] == *b"*");
        KeyPattern { pattern: pattern.to_vec(), access, prefix }
    }

    fn matches(&self, key: &[u8]) -> bool {
        match self.prefix {
            // As in Redis, nothing is not matched by `*`.
            Some(len) => !key.is_empty() && key.starts_with(&self.pattern[..len]),
            None => glob_match(&self.pattern, key, false),
        }
    }
}

/// A rule about commands as it is shown: `+get`, `-@read`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandRule {
    allows: bool,
    /// In lower case.
    name: Vec<u8>,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// A bit per [`Entry::id`].
    commands: Vec<u64>,
    /// `+@all` with nothing taken away since: commands need no look at the bitmap.
    all_commands: bool,
    /// Whether the last of `+@all` and `-@all` was the former: what the rules are relative to.
    from_all: bool,
    rules: Vec<CommandRule>,
    /// First arguments with which a command that is otherwise denied is allowed.
    first_args: BTreeMap<usize, Vec<Vec<u8>>>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Vec<u8>>,
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Whether a text would not be one word of a line.
pub(crate) fn has_space(text: &[u8]) -> bool {
    text.iter().any(|b| b.is_ascii_whitespace() || matches!(b, 0 | 0x0b))
}

impl Selector {
    /// A selector that allows nothing, but all channels where `acl-pubsub-default` says so.
    #[must_use]
    pub fn new(all_channels: bool) -> Self {
        let commands = vec![0; table().entries().len().div_ceil(64)];
        Selector { commands, all_channels, ..Selector::default() }
    }

    /// Whether it allows everything.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels
    }

    /// Whether it allows all channels.
    #[must_use]
    pub fn allows_all_channels(&self) -> bool {
        self.all_channels
    }

    /// Applies one rule.
    ///
    /// # Errors
    /// What is wrong with it; the selector is as before.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            _ if is(rule, "allkeys") || rule == b"~*" => self.set_all_keys(true),
            _ if is(rule, "resetkeys") => self.set_all_keys(false),
            _ if is(rule, "allchannels") || rule == b"&*" => self.set_all_channels(true),
            _ if is(rule, "resetchannels") => self.set_all_channels(false),
            _ if is(rule, "allcommands") || is(rule, "+@all") => self.set_all_commands(true),
            _ if is(rule, "nocommands") || is(rule, "-@all") => self.set_all_commands(false),
            [b'~', pattern @ ..] => self.add_keys(pattern, READ | WRITE)?,
            [b'%', ..] if self.all_keys => return Err(RuleError::KeysAreAll),
            [b'%', rest @ ..] => {
                let (access, pattern) = split_access(rest)?;
                self.add_keys(pattern, access)?;
            }
            [b'&', pattern @ ..] => self.add_channels(pattern)?,
            [sign @ (b'+' | b'-'), b'@', name @ ..] => self.set_category(name, *sign == b'+')?,
            [b'+', name @ ..] => self.allow(name)?,
            [b'-', name @ ..] => {
                let entry = table().get_full(name).ok_or(RuleError::Unknown)?;
                self.set_command(entry, false);
                self.note_rule(entry.full_name.as_bytes(), false);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn set_all_keys(&mut self, on: bool) {
        self.all_keys = on;
        self.keys.clear();
    }

    pub(super) fn set_all_channels(&mut self, on: bool) {
        self.all_channels = on;
        self.channels.clear();
    }

    fn set_all_commands(&mut self, on: bool) {
        self.commands.fill(if on { u64::MAX } else { 0 });
        self.all_commands = on;
        self.from_all = on;
        self.rules.clear();
        self.first_args.clear();
    }

    fn add_keys(&mut self, pattern: &[u8], access: u8) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAreAll);
        }
        if has_space(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.access |= access,
            None => self.keys.push(KeyPattern::new(pattern, access)),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAreAll);
        }
        if has_space(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    /// A command, a subcommand, or a first argument of a command without subcommands.
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|&b| b == b'|') else {
            let entry = table().get(name).ok_or(RuleError::Unknown)?;
            self.set_command(entry, true);
            self.note_rule(entry.full_name.as_bytes(), true);
            return Ok(());
        };
        let (command, second) = (&name[..bar], &name[bar + 1..]);
        let entry = table().get_full(command).ok_or(RuleError::Unknown)?;
        if entry.full_name.contains('|') {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        // Redis takes a first argument with spaces, and then writes an ACL file that it refuses.
        if second.is_empty() || has_space(second) {
            return Err(RuleError::Syntax);
        }
        if entry.subcommands.is_empty() {
            let known = self.first_args.entry(entry.id).or_default();
            let second = second.to_ascii_lowercase();
            if !known.contains(&second) {
                known.push(second);
            }
        } else {
            self.set_command(entry.subcommand(second).ok_or(RuleError::Unknown)?, true);
        }
        self.note_rule(name, true);
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], allows: bool) -> Result<(), RuleError> {
        let known = Acl::NAMES.iter().find(|(_, known)| is(name, known));
        let (category, name) = known.ok_or(RuleError::Unknown)?;
        self.note_rule(format!("@{name}").as_bytes(), allows);
        let is_of = |entry: &&&'static Entry| entry.row.acl_all().has(*category);
        for entry in table().entries().iter().filter(is_of) {
            self.set_command(entry, allows);
        }
        Ok(())
    }

    /// Sets the bit of a command, and those of its subcommands.
    fn set_command(&mut self, entry: &Entry, allows: bool) {
        let (word, bit) = (entry.id / 64, 1 << (entry.id % 64));
        if allows {
            self.commands[word] |= bit;
        } else {
            self.commands[word] &= !bit;
            self.all_commands = false;
        }
        self.first_args.remove(&entry.id);
        entry.subcommands.iter().for_each(|sub| self.set_command(sub, allows));
    }

    /// Adds a rule to those that are shown, in the place of what it makes void: the rule of the
    /// same name and those of its subcommands or first arguments.
    fn note_rule(&mut self, name: &[u8], allows: bool) {
        let name = name.to_ascii_lowercase();
        self.rules.retain(|rule| {
            let after = rule.name.strip_prefix(&name[..]);
            !after.is_some_and(|after| after.is_empty() || after[0] == b'|')
        });
        self.rules.push(CommandRule { allows, name });
    }

    /// Whether a command may run with these arguments.
    ///
    /// # Errors
    /// What is denied.
    pub fn check(&self, entry: &Entry, args: Args<'_>) -> Result<(), Denied> {
        if !self.allows_command(entry, args) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            self.check_keys(entry, args)?;
        }
        if !self.all_channels {
            self.check_channels(entry, args)?;
        }
        Ok(())
    }

    /// Whether a command may run with these arguments and read whatever key it comes upon.
    pub fn allows_any_read(&self, entry: &Entry, args: Args<'_>) -> bool {
        let is_all = |known: &KeyPattern| known.pattern == b"*" && known.access & READ != 0;
        (self.all_keys || self.keys.iter().any(is_all)) && self.check(entry, args).is_ok()
    }

    fn allows_command(&self, entry: &Entry, args: Args<'_>) -> bool {
        let is_set = self.all_commands || self.commands[entry.id / 64] >> (entry.id % 64) & 1 == 1;
        is_set
            || entry.row.flags.has(Flags::NO_AUTH)
            || self.first_args.get(&entry.id).is_some_and(|known| {
                args.len() > 1 && known.iter().any(|arg| arg.eq_ignore_ascii_case(args.get(1)))
            })
    }

    fn check_keys(&self, entry: &Entry, args: Args<'_>) -> Result<(), Denied> {
        if entry.has_one_key && args.len() > 1 {
            let flags = actual_flags(entry, args, entry.row.keys.flags());
            let is_allowed = self.allows_key(args.get(1), access_of(flags));
            return if is_allowed { Ok(()) } else { Err(Denied::Key(1)) };
        }
        let mut denied = None;
        entry.row.keys.for_each(args, &mut |i, flags| {
            if denied.is_none() && !flags.has(KeyFlags::NOT_KEY) {
                let flags = actual_flags(entry, args, flags);
                let is_allowed = self.allows_key(args.get(i), access_of(flags));
                denied = (!is_allowed).then_some(Denied::Key(i));
            }
        });
        denied.map_or(Ok(()), Err)
    }

    fn allows_key(&self, key: &[u8], access: u8) -> bool {
        let mut usable = self.keys.iter().filter(|known| known.access & access == access);
        usable.any(|known| known.matches(key))
    }

    fn check_channels(&self, entry: &Entry, args: Args<'_>) -> Result<(), Denied> {
        let Some((last, is_pattern)) = channels_of(entry.row) else { return Ok(()) };
        let mut named = 1..=last.min(args.len() - 1);
        let denied = named.find(|i| !self.allows_channel(args.get(*i), is_pattern));
        denied.map_or(Ok(()), |i| Err(Denied::Channel(i)))
    }

    /// Whether a channel may be used. A pattern must be one of those allowed, letter by letter.
    #[must_use]
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_channels
            || self.channels.iter().any(|known| match is_pattern {
                true => known == channel,
                false => glob_match(known, channel, false),
            })
    }

    /// The rules that lead to this selector's commands.
    #[must_use]
    pub fn command_rules(&self) -> Vec<Vec<u8>> {
        let base = if self.from_all { b"+@all".to_vec() } else { b"-@all".to_vec() };
        let sign = |rule: &CommandRule| if rule.allows { &b"+"[..] } else { b"-" };
        let rules = self.rules.iter().map(|rule| [sign(rule), &rule.name].concat());
        [base].into_iter().chain(rules).collect()
    }

    /// The key patterns as rules.
    #[must_use]
    pub fn key_rules(&self) -> Vec<Vec<u8>> {
        if self.all_keys {
            return vec![b"~*".to_vec()];
        }
        let prefix = |known: &KeyPattern| match known.access {
            READ => &b"%R~"[..],
            WRITE => b"%W~",
            // `~*` would make the patterns after it errors.
            _ if known.pattern == b"*" => b"%RW~",
            _ => b"~",
        };
        self.keys.iter().map(|known| [prefix(known), &known.pattern].concat()).collect()
    }

    /// The channel patterns as rules.
    #[must_use]
    pub fn channel_rules(&self) -> Vec<Vec<u8>> {
        if self.all_channels {
            return vec![b"&*".to_vec()];
        }
        self.channels.iter().map(|known| [b"&", &known[..]].concat()).collect()
    }

    /// All rules, in ACL LIST's order: applied to a new selector they give this one.
    #[must_use]
    pub fn rules(&self) -> Vec<Vec<u8>> {
        let mut rules = self.key_rules();
        if !self.all_channels {
            rules.push(b"resetchannels".to_vec());
        }
        rules.extend(self.channel_rules());
        rules.extend(self.command_rules());
        rules
    }
}

/// The letters before `~` of a pattern for reading, writing, or both.
fn split_access(rest: &[u8]) -> Result<(u8, &[u8]), RuleError> {
    let mut access = 0;
    for (i, letter) in rest.iter().enumerate() {
        match letter.to_ascii_uppercase() {
            b'R' if access & READ == 0 => access |= READ,
            b'W' if access & WRITE == 0 => access |= WRITE,
            b'~' if access != 0 => return Ok((access, &rest[i + 1..])),
            _ => return Err(RuleError::Syntax),
        }
    }
    // As Redis: `%R` is `%R~`.
    if access == 0 { Err(RuleError::Syntax) } else { Ok((access, b"")) }
}

/// What a pattern must allow for a key that is used so.
fn access_of(flags: KeyFlags) -> u8 {
    let writes = [KeyFlags::INSERT, KeyFlags::DELETE, KeyFlags::UPDATE];
    let read = if flags.has(KeyFlags::ACCESS) { READ } else { 0 };
    read | if writes.iter().any(|flag| flags.has(*flag)) { WRITE } else { 0 }
}

/// Up to which argument, from the first, a command names channels, and whether they are patterns.
/// Leaving a channel needs no permission.
fn channels_of(row: &Command) -> Option<(usize, bool)> {
    match row.name {
        _ if !row.flags.has(Flags::PUBSUB) => None,
        "SUBSCRIBE" | "SSUBSCRIBE" => Some((usize::MAX, false)),
        "PSUBSCRIBE" => Some((usize::MAX, true)),
        "PUBLISH" | "SPUBLISH" => Some((1, false)),
        _ => None,
    }
}
