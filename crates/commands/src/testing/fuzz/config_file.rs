//! Any text is read as a configuration file or refused line by line, and what is in force survives
//! being written and read again.

use crate::config::{Config, SETTINGS};
use crate::config_file::{apply, lines, rewritten, user_line};
use crate::shared::Shared;

/// The whole input is the file.
///
/// # Panics
/// When a refused line changes a value, a value in force would be refused, or CONFIG REWRITE writes
/// a file that means something else.
pub fn config_file(input: &[u8]) {
    let mut config = Config::default();
    let is_good = load(&mut config, input);
    check_values_again(&mut config);
    let old = if is_good { input } else { b"" };
    let users: Vec<_> = config.users.iter().map(|(name, rules)| user_line(name, rules)).collect();
    let written = rewritten(old, &|name| config.get(name), &users);
    let shown = || written.escape_ascii();
    let mut reread = Config::default();
    assert!(load(&mut reread, &written), "a bad file was written: {}", shown());
    assert_eq!(values(&reread), values(&config), "the file says something else: {}", shown());
    assert_eq!(reread.users, config.users, "the file has other users: {}", shown());
    let again = rewritten(&written, &|name| reread.get(name), &users);
    assert!(again == written, "written again: {}, before {}", again.escape_ascii(), shown());
    // A server starts with whatever was let through. That takes many times as long as the rest, so
    // only one input in eight is taken so far.
    if input.len().is_multiple_of(8) {
        let shared = Shared::new(config, 1);
        assert_eq!(values(&shared.config), values(&reread), "applying changes no value");
    }
}

fn values(config: &Config) -> Vec<String> {
    SETTINGS.iter().map(|setting| config.get(setting.name)).collect()
}

/// Applies the lines that can be; returns whether all could.
fn load(config: &mut Config, text: &[u8]) -> bool {
    let mut is_good = true;
    for line in lines(text) {
        let Ok(line) = line else {
            is_good = false;
            continue;
        };
        if line.name.eq_ignore_ascii_case("include") {
            continue;
        }
        let before = values(config);
        if let Err(why) = apply(config, &line.name, &line.values) {
            assert!(!why.is_empty(), "a refusal says why");
            assert_eq!(values(config), before, "a refused line changes nothing");
            is_good = false;
        }
    }
    is_good
}

/// A value as it is kept is a value that may be set, and setting it changes nothing.
fn check_values_again(config: &mut Config) {
    for (setting, value) in SETTINGS.iter().zip(values(config)) {
        let name = setting.name;
        if let Err(why) = config.set_at_start(name, &value) {
            panic!("the value of {name} is not one of its values: {why}");
        }
        assert_eq!(config.get(name), value, "{name} set to its own value");
    }
}
