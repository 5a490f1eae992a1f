//! A user: whether it may log in, with what passwords, and its selectors. A value: a change makes a
//! new one, which [`super::Accounts`] puts in the place of the old.

use super::selector::{Denied, RuleError, Selector};
use crate::table::Entry;
use hypercache_protocol::parse::{Args, split_words};
use hypercache_stdx::quote::append_quoted;
use sha2::{Digest, Sha256};

/// The SHA-256 of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash([u8; 32]);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl Hash {
    fn of(password: &[u8]) -> Self {
        Hash(Sha256::digest(password).into())
    }

    /// From 64 hexadecimal digits in lower case.
    fn parse(text: &[u8]) -> Option<Self> {
        let digit = |b: &u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let digits: Vec<u8> = text.iter().map(digit).collect::<Option<_>>()?;
        let digits: [u8; 64] = digits.try_into().ok()?;
        Some(Hash(std::array::from_fn(|i| digits[2 * i] << 4 | digits[2 * i + 1])))
    }

    fn text(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Takes the same time wherever the two differ.
    fn is_same(self, other: Hash) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

/// Whether payloads of RESTORE are checked deeply. Kept for the text: there is no other way here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sanitize {
    #[default]
    Unsaid,
    Skip,
    Check,
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    is_on: bool,
    /// Any password will do.
    no_pass: bool,
    sanitize: Sanitize,
    passwords: Vec<Hash>,
    /// The first is the root.
    selectors: Vec<Selector>,
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

impl User {
    /// A new user: off, without passwords, allowed nothing but, if `all_channels`, all channels.
    #[must_use]
    pub fn new(all_channels: bool) -> Self {
        User {
            is_on: false,
            no_pass: false,
            sanitize: Sanitize::Unsaid,
            passwords: Vec::new(),
            selectors: vec![Selector::new(all_channels)],
        }
    }

    /// The default user where nothing else is said: on, no password, allowed everything.
    #[must_use]
    pub fn all_powerful() -> Self {
        let mut user = User { is_on: true, no_pass: true, ..User::new(true) };
        for rule in [&b"+@all"[..], b"~*"] {
            let applied = user.selectors[0].apply(rule);
            debug_assert!(applied.is_ok(), "these are rules");
        }
        user
    }

    /// Applies one rule.
    ///
    /// # Errors
    /// What is wrong with it; the user is as before.
    pub fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule {
            [] => {}
            _ if is(rule, "on") => self.is_on = true,
            _ if is(rule, "off") => self.is_on = false,
            _ if is(rule, "nopass") => self.set_no_pass(true),
            _ if is(rule, "resetpass") => self.set_no_pass(false),
            _ if is(rule, "skip-sanitize-payload") => self.sanitize = Sanitize::Skip,
            _ if is(rule, "sanitize-payload") => self.sanitize = Sanitize::Check,
            [b'>', password @ ..] => self.add_password(Hash::of(password)),
            [b'#', hash @ ..] => {
                self.add_password(Hash::parse(hash).ok_or(RuleError::BadHash)?);
            }
            [b'<', password @ ..] => self.remove_password(Hash::of(password))?,
            [b'!', hash @ ..] => {
                self.remove_password(Hash::parse(hash).ok_or(RuleError::BadHash)?)?;
            }
            [b'(', rules @ .., b')'] => self.add_selector(rules, all_channels)?,
            _ if is(rule, "clearselectors") => self.selectors.truncate(1),
            _ if is(rule, "reset") => {
                *self = User { sanitize: Sanitize::Check, ..User::new(all_channels) };
            }
            _ => self.selectors[0].apply(rule)?,
        }
        Ok(())
    }

    fn set_no_pass(&mut self, on: bool) {
        self.no_pass = on;
        self.passwords.clear();
    }

    fn add_password(&mut self, hash: Hash) {
        self.no_pass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    fn add_selector(&mut self, rules: &[u8], all_channels: bool) -> Result<(), RuleError> {
        let mut selector = Selector::new(all_channels);
        // As Redis: rules whose quotes do not close are none.
        for rule in split_words(rules).unwrap_or_default() {
            selector.apply(&rule)?;
        }
        self.selectors.push(selector);
        Ok(())
    }

    /// What `requirepass` does: this password and no other, or none when it is empty.
    pub fn set_only_password(&mut self, password: &[u8]) {
        self.set_no_pass(password.is_empty());
        if !password.is_empty() {
            self.add_password(Hash::of(password));
        }
    }

    /// Whether it may log in with this password.
    #[must_use]
    pub fn admits(&self, password: &[u8]) -> bool {
        let hash = Hash::of(password);
        let is_known = self.passwords.iter().fold(false, |known, p| known | p.is_same(hash));
        self.is_on && (self.no_pass || is_known)
    }

    /// Whether any password will do, were it on.
    #[must_use]
    pub fn has_no_pass(&self) -> bool {
        self.no_pass
    }

    /// Whether it may log in.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether it may run everything.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_unrestricted)
    }

    /// Whether one of the selectors allows a command with these arguments.
    ///
    /// # Errors
    /// What is denied, by the selector that came furthest.
    pub fn check(&self, entry: &Entry, args: Args<'_>) -> Result<(), Denied> {
        let mut furthest = Denied::Command;
        for selector in &self.selectors {
            match selector.check(entry, args) {
                Ok(()) => return Ok(()),
                Err(denied) => furthest = furthest.max(denied),
            }
        }
        Err(furthest)
    }

    /// Whether one of the selectors allows a channel or, letter by letter, a pattern of channels.
    #[must_use]
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors.iter().any(|selector| selector.allows_channel(channel, is_pattern))
    }

    /// Whether it may use all channels.
    #[must_use]
    pub fn allows_all_channels(&self) -> bool {
        self.selectors.iter().any(Selector::allows_all_channels)
    }

    /// The words of its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            (self.is_on, "on"),
            (!self.is_on, "off"),
            (self.no_pass, "nopass"),
            (self.sanitize == Sanitize::Skip, "skip-sanitize-payload"),
            (self.sanitize == Sanitize::Check, "sanitize-payload"),
        ];
        flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word)
    }

    /// The hashes of its passwords in hexadecimal digits.
    pub fn password_hashes(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(|hash| hash.text())
    }

    /// Its selectors, the root first.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Rules which make a new user into this one, in ACL LIST's order.
    #[must_use]
    pub fn rules(&self) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = self.flags().map(Vec::from).collect();
        words.extend(self.password_hashes().map(|hash| format!("#{hash}").into_bytes()));
        words.extend(self.selectors[0].rules());
        words.extend(self.selectors[1..].iter().map(in_parentheses));
        words
    }
}

/// A selector as one rule. A word that would end the selector, or a quote, is quoted; Redis writes
/// it as it is and reads something else.
fn in_parentheses(selector: &Selector) -> Vec<u8> {
    let quoted = |word: Vec<u8>| {
        if !word.iter().any(|b| matches!(b, b'"' | b'\'' | b')')) {
            return word;
        }
        let mut text = Vec::new();
        append_quoted(&word, &mut text);
        text
    };
    let rules: Vec<_> = selector.rules().into_iter().map(quoted).collect();
    [b"(", &rules.join(&b' ')[..], b")"].concat()
}

/// Rules with those of a selector, which may be several words up to a `)`, put together. As in
/// Redis, a further word that opens a selector begins it anew.
///
/// # Errors
/// The place of the word that opens a selector which never closes.
pub fn merge_selectors<T: AsRef<[u8]>>(words: &[T]) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged: Vec<Vec<u8>> = Vec::with_capacity(words.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (i, word) in words.iter().enumerate() {
        let word = word.as_ref();
        let is_last = word.ends_with(b")");
        if word.starts_with(b"(") && !is_last {
            open = Some((i, word.to_vec()));
            continue;
        }
        let Some((_, selector)) = &mut open else {
            merged.push(word.to_vec());
            continue;
        };
        selector.push(b' ');
        selector.extend_from_slice(word);
        if is_last {
            merged.extend(open.take().map(|(_, selector)| selector));
        }
    }
    open.map_or(Ok(merged), |(at, _)| Err(at))
}
