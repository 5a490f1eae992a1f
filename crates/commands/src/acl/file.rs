//! The text of an ACL file: a line `user NAME RULE...` per user, words separated by single spaces.

use super::User;
use super::selector::{RuleError, has_space};
use super::user::merge_selectors;
use std::collections::BTreeMap;

/// The users of a file.
///
/// # Errors
/// What is wrong with it, all lines together, in Redis' words; `path` is how they call the file.
pub(super) fn parse(
    text: &[u8],
    path: &str,
    all_channels: bool,
) -> Result<BTreeMap<Vec<u8>, User>, Vec<u8>> {
    let mut users = BTreeMap::new();
    let mut errors = Vec::new();
    for (n, line) in text.split(|&b| b == b'\n').enumerate() {
        let at = format!("{path}:{}", n + 1);
        let words: Vec<&[u8]> = trimmed(line, b" \t\r\n").split(|&b| b == b' ').collect();
        let (name, rules) = match &words[..] {
            [b""] => continue,
            [b"user", name, rules @ ..] => (name.to_vec(), rules),
            _ => {
                let text =
                    format!("{at} should start with user keyword followed by the username. ");
                errors.extend_from_slice(text.as_bytes());
                continue;
            }
        };
        if has_space(&name) {
            let name = String::from_utf8_lossy(&name).into_owned();
            // The quote that does not close is Redis'.
            let text = format!("'{at}: username '{name}' contains invalid characters. ");
            errors.extend_from_slice(text.as_bytes());
            continue;
        }
        if users.contains_key(&name) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let text = format!("WARNING: Duplicate user '{name}' found on line {}. ", n + 1);
            errors.extend_from_slice(text.as_bytes());
            continue;
        }
        users.insert(name, parse_rules(rules, &at, all_channels, &mut errors));
    }
    if errors.is_empty() {
        return Ok(users);
    }
    errors.extend_from_slice(
        b"WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    );
    Err(errors)
}

fn parse_rules(rules: &[&[u8]], at: &str, all_channels: bool, errors: &mut Vec<u8>) -> User {
    let mut user = User::new(all_channels);
    let Ok(rules) = merge_selectors(rules) else {
        let text = format!("{at}: Unmatched parenthesis in selector definition.");
        errors.extend_from_slice(text.as_bytes());
        return user;
    };
    let mut has_error = false;
    for rule in &rules {
        let Err(error) = user.apply(trimmed(rule, b"\t\r\n"), all_channels) else { continue };
        let text = error.text();
        if error == RuleError::Unknown {
            let rule = String::from_utf8_lossy(rule);
            let text = format!("{at}: Error in applying operation '{rule}': {text}. ");
            errors.extend_from_slice(text.as_bytes());
        } else if !std::mem::replace(&mut has_error, true) {
            // Another may follow from it.
            errors.extend_from_slice(format!("{at}: {text}. ").as_bytes());
        }
    }
    user
}

fn trimmed<'a>(mut text: &'a [u8], blanks: &[u8]) -> &'a [u8] {
    while let [first, rest @ ..] = text
        && blanks.contains(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && blanks.contains(last)
    {
        text = rest;
    }
    text
}
