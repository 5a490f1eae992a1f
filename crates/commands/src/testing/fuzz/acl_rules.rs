//! Any rules are applied or refused one by one, and the user that they make survives being shown
//! and read again: by ACL SETUSER, as a line of an ACL file, and as a line of the settings' file.

use crate::acl::{RuleError, User, merge_selectors};
use crate::config::Config;
use crate::config_file;
use crate::table::table;
use hypercache_protocol::parse::{OwnedArgs, split_words};

/// Every line of the input is a word of the rules of one user.
///
/// # Panics
/// When a refused rule changes something, what is shown is refused, or it makes another user.
pub fn acl_rules(input: &[u8]) {
    let words: Vec<&[u8]> = input.split(|&b| b == b'\n').collect();
    let Ok(rules) = merge_selectors(&words) else { return };
    let mut user = User::new(false);
    for rule in &rules {
        let before = user.clone();
        if let Err(error) = user.apply(rule, false) {
            assert!(!error.text().is_empty(), "a refusal says why");
            assert!(user == before, "a refused rule changes nothing: {}", rule.escape_ascii());
        }
    }
    let shown = user.rules();
    let text = shown.join(&b' ');
    let words: Vec<&[u8]> = text.split(|&b| b == b' ').collect();
    check_again(&user, &words);
    let line = config_file::user_line(b"name", &shown);
    if text.is_ascii() {
        check_line(&user, &line);
    }
}

/// Words that were shown make the same user.
fn check_again(user: &User, words: &[&[u8]]) {
    let shown = || words.join(&b' ').escape_ascii().to_string();
    let rules = merge_selectors(words).unwrap_or_else(|_| panic!("parentheses: {}", shown()));
    let mut again = User::new(false);
    for rule in &rules {
        let result: Result<(), RuleError> = again.apply(rule, false);
        assert!(result.is_ok(), "what was shown is refused: {}: {result:?}", shown());
    }
    assert!(again.rules() == user.rules(), "shown otherwise: {}", shown());
    for (name, key) in [("get", "a"), ("set", "ab"), ("publish", "b"), ("select", "0")] {
        let entry = table().get(name.as_bytes()).expect("a command");
        let args = OwnedArgs::from_pieces([name, key, "x"]);
        let allowed = (user.check(entry, args.as_args()), again.check(entry, args.as_args()));
        assert!(allowed.0 == allowed.1, "{name} {key}: {allowed:?}: {}", shown());
    }
}

/// The line of the settings' file is read as the user that it was written for.
fn check_line(user: &User, line: &[u8]) {
    let words = split_words(line).expect("quotes close");
    let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
    let words = words.expect("it is ASCII");
    let mut config = Config::default();
    let added = config_file::apply(&mut config, &words[0], &words[1..]);
    assert_eq!(added, Ok(()), "{}", line.escape_ascii());
    let rules: Vec<&[u8]> = config.users[0].1.iter().map(|rule| &rule[..]).collect();
    check_again(user, &rules);
}
