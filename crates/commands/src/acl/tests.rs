//! Tests of users and their permissions.

use super::{Denied, User, merge_selectors};
use crate::config::Config;
use crate::session::Session;
use crate::shared::{Mailbox, Message};
use crate::table::table;
use crate::testing::Harness;
use hypercache_protocol::parse::{OwnedArgs, split_words};
use hypercache_protocol::reply::Version;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A user made by rules, which must be good ones.
fn user(rules: &str) -> User {
    let words = split_words(rules.as_bytes()).expect("quotes close");
    let mut user = User::new(false);
    for rule in merge_selectors(&words).expect("parentheses match") {
        user.apply(&rule, false).unwrap_or_else(|error| panic!("{rules}: {error:?}"));
    }
    user
}

fn check(user: &User, line: &str) -> Result<(), Denied> {
    let args = OwnedArgs::from_pieces(line.split(' '));
    let mut entry = table().get(args.as_args().get(0)).expect("a command");
    if !entry.subcommands.is_empty() {
        entry = entry.subcommand(args.as_args().get(1)).expect("a subcommand");
    }
    user.check(entry, args.as_args())
}

#[test]
fn what_rules_allow() {
    let (ok, command) = (Ok(()), Err(Denied::Command));
    for (rules, line, expected) in [
        ("", "GET a", command),
        ("", "AUTH a", ok),
        ("+get", "GET a", Err(Denied::Key(1))),
        ("+get ~a*", "GET ab", ok),
        ("+mget ~a*", "MGET a ab b", Err(Denied::Key(3))),
        ("+@all -get allkeys", "GET a", command),
        ("+@all -@dangerous allkeys", "CONFIG GET a", command),
        ("+config -config|get", "CONFIG GET a", command),
        ("+config -config|get", "CONFIG RESETSTAT", ok),
        ("+config|get", "CONFIG SET a b", command),
        ("+select|0", "SELECT 0", ok),
        ("+select|0", "SELECT 1", command),
        ("+select|0 -select", "SELECT 0", command),
        ("+@all %R~a", "GET a", ok),
        ("+@all %R~a", "SET a 1", Err(Denied::Key(1))),
        ("+@all %W~a", "SET a 1", ok),
        ("+@all %W~a", "SET a 1 GET", Err(Denied::Key(1))),
        ("+@all %W~a", "SET a GET", ok),
        ("+@all %W~a", "EXISTS a", ok),
        ("+@all %R~a %W~a", "SET a 1 GET", ok),
        ("+@all %R~a %W~b", "COPY a b", ok),
        ("+@all %R~a %W~b", "COPY b a", Err(Denied::Key(1))),
        ("+@all", "PUBLISH c m", Err(Denied::Channel(1))),
        ("+@all &c*", "PUBLISH cc m", ok),
        ("+@all &c*", "SUBSCRIBE ca d", Err(Denied::Channel(2))),
        ("+@all &c*", "PSUBSCRIBE c*", ok),
        ("+@all &c*", "PSUBSCRIBE ca*", Err(Denied::Channel(1))),
        ("+@all &c*", "UNSUBSCRIBE d", ok),
        ("+@all &c*", "SSUBSCRIBE c1", ok),
        ("+get ~a (+set ~b)", "SET b 1", ok),
        ("+get ~a (+set ~b)", "SET a 1", Err(Denied::Key(1))),
        ("+get ~a (+set ~b)", "GET b", Err(Denied::Key(1))),
        ("+get ~a (+set ~b)", "DEL a", command),
        ("+get ~a (+set ~b) clearselectors", "SET b 1", command),
    ] {
        assert_eq!(check(&user(rules), line), expected, "{rules}: {line}");
    }
}

#[test]
fn patterns_match_as_globs_do() {
    for pattern in ["a*", "*", "a", "a**", "a?", "[ab]*", "a\\*", "ab*", "\\**", ""] {
        let user = user(&format!("+get %RW~{pattern}"));
        for key in ["", "a", "ab", "abc", "b", "a*", "*", "*a"] {
            let entry = table().get(b"get").expect("a command");
            let args = OwnedArgs::from_pieces(["get", key]);
            let expected =
                hypercache_stdx::glob::glob_match(pattern.as_bytes(), key.as_bytes(), false);
            assert_eq!(user.check(entry, args.as_args()).is_ok(), expected, "{pattern} {key}");
        }
    }
}

#[test]
fn passwords_come_and_go() {
    let mut ann = user("on >one >two <one");
    assert!(ann.admits(b"two") && !ann.admits(b"one") && !ann.admits(b""));
    ann.apply(b"off", false).expect("a rule");
    assert!(!ann.admits(b"two"));
    assert!(user("on nopass").admits(b"any"));
    assert!(!user("on nopass resetpass").admits(b"any"));
    // FIPS 180-2, "abc".
    let abc = "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(user(&format!("on {abc}")).admits(b"abc"));
    assert_eq!(user("on >abc").password_hashes().next(), Some(abc[1..].to_owned()));
}

/// Runs lines; each reply must begin as told.
fn run(h: &mut Harness, script: &[(&str, &str)]) {
    for (line, expected) in script {
        let reply = String::from_utf8_lossy(&h.run(line)).into_owned();
        assert!(reply.starts_with(expected), "{line}: {reply:?} for {expected:?}");
    }
}

const DENIED: &str = "-NOPERM this user has no permissions to ";

#[test]
fn sessions_notice_changes_with_their_next_command() {
    let mut h = Harness::default();
    run(&mut h, &[("ACL SETUSER ann on nopass +get +acl|whoami ~a", "+OK")]);
    let mut other = Harness::connect(&h.shared);
    std::mem::swap(&mut h.session, &mut other);
    run(
        &mut h,
        &[
            ("AUTH ann x", "+OK"),
            ("ACL WHOAMI", "$3\r\nann"),
            ("GET a", "$-1"),
            ("GET b", &format!("{DENIED}access one of the keys used as arguments")),
            ("SET a 1", &format!("{DENIED}run the 'set' command")),
            ("CONFIG GET x", &format!("{DENIED}run the 'config|get' command")),
        ],
    );
    std::mem::swap(&mut h.session, &mut other);
    run(&mut h, &[("ACL SETUSER ann +@all allkeys allchannels", "+OK")]);
    std::mem::swap(&mut h.session, &mut other);
    run(&mut h, &[("SET b 1", "+OK"), ("ACL SETUSER ann -get", "+OK"), ("GET b", "-NOPERM")]);
    assert_eq!(h.shared.sum(|s| s.acl_denied_commands.get()), 3);
    assert_eq!(h.shared.sum(|s| s.acl_denied_keys.get()), 1);
}

#[test]
fn exec_checks_again() {
    let mut h = Harness::default();
    run(
        &mut h,
        &[
            ("ACL SETUSER ann on nopass +@all ~a &c", "+OK"),
            ("AUTH ann x", "+OK"),
            ("MULTI", "+OK"),
            ("GET b", &format!("{DENIED}access one of the keys")),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
            ("MULTI", "+OK"),
            ("GET a", "+QUEUED"),
            ("ACL SETUSER ann resetkeys", "+QUEUED"),
            ("GET a", "+QUEUED"),
            (
                "EXEC",
                "*3\r\n$-1\r\n+OK\r\n-NOPERM ACLs rules changed between the moment the transaction \
                 was accumulated and the EXEC call. This command is no longer allowed for the \
                 following reason: no permission to touch the specified keys\r\n",
            ),
            ("ACL SETUSER ann -exec", "+OK"),
            ("MULTI", "+OK"),
            ("EXEC", "-EXECABORT Transaction discarded because of: NOPERM this user has no"),
        ],
    );
}

/// A server with mailboxes, and one more client.
fn two_clients() -> (Harness, Session) {
    let h = Harness::default();
    assert!(h.shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok());
    let other = Harness::connect(&h.shared);
    (h, other)
}

/// Ids of the clients that are to be closed.
fn killed(h: &Harness) -> Vec<u64> {
    let messages = h.shared.mailboxes.get().expect("set")[0].take().into_iter();
    let kills = messages.filter_map(|message| match message {
        Message::Kill(client) => Some(client.id),
        _ => None,
    });
    kills.collect()
}

#[test]
fn clients_of_a_deleted_user_are_closed() {
    let (mut h, mut other) = two_clients();
    run(&mut h, &[("ACL SETUSER ann on nopass +@all allkeys allchannels", "+OK")]);
    std::mem::swap(&mut h.session, &mut other);
    run(&mut h, &[("AUTH ann x", "+OK"), ("GET a", "$-1")]);
    std::mem::swap(&mut h.session, &mut other);
    run(&mut h, &[("ACL DELUSER ann", ":1"), ("ACL USERS", "*1\r\n$7\r\ndefault")]);
    assert_eq!(killed(&h), [other.client.id]);
    std::mem::swap(&mut h.session, &mut other);
    run(&mut h, &[("GET a", "-NOPERM"), ("RESET", "+RESET"), ("GET a", "$-1")]);
}

#[test]
fn subscribers_that_lost_their_channel_are_closed() {
    for (subscribe, change, is_closed) in [
        ("SUBSCRIBE ca", "resetchannels &d", true),
        ("SUBSCRIBE ca", "resetchannels &ca", false),
        ("SUBSCRIBE ca", "allchannels", false),
        ("PSUBSCRIBE c*", "resetchannels &ca", true),
        ("PSUBSCRIBE c*", "resetchannels &c* &d", false),
        ("SSUBSCRIBE ca", "resetchannels", true),
        ("SSUBSCRIBE ca", "resetchannels (&c*)", false),
    ] {
        let (mut h, mut other) = two_clients();
        run(&mut h, &[("ACL SETUSER ann on nopass +@all &c*", "+OK")]);
        std::mem::swap(&mut h.session, &mut other);
        run(&mut h, &[("AUTH ann x", "+OK"), (subscribe, "*3")]);
        std::mem::swap(&mut h.session, &mut other);
        run(&mut h, &[("HELLO 3", "%"), ("SUBSCRIBE ca", ">3")]);
        run(&mut h, &[(&format!("ACL SETUSER ann allchannels {change}"), "+OK")]);
        let expected = if is_closed { vec![other.client.id] } else { vec![] };
        assert_eq!(killed(&h), expected, "{subscribe}, {change}");
    }
}

#[test]
fn a_client_that_deletes_its_own_user_gets_its_reply() {
    let mut h = Harness::default();
    h.run("ACL SETUSER ann on nopass +@all");
    h.run("AUTH ann x");
    run(&mut h, &[("ACL DELUSER ann", ":1")]);
    assert!(h.session.is_closing);
}

#[test]
fn the_log_counts_together_what_is_alike() {
    let mut h = Harness::default();
    h.session.set_version(Version::V2);
    let script = [
        ("ACL SETUSER ann on nopass +get", "+OK"),
        ("AUTH ann x", "+OK"),
        ("GET a", "-NOPERM"),
        ("SET a 1", "-NOPERM"),
        ("GET a", "-NOPERM"),
        ("AUTH bob x", "-WRONGPASS"),
        ("RESET", "+RESET"),
        ("ACL LOG 2", "*2\r\n*14\r\n$5\r\ncount\r\n:1\r\n$6\r\nreason\r\n$4\r\nauth\r\n"),
    ];
    run(&mut h, &script);
    let log = h.shared.acl.log.newest(10);
    let shown = log.iter().map(|d| (d.count, d.reason.word(), &d.object[..], &d.username[..]));
    let expected: [(u64, &str, &[u8], &[u8]); 3] =
        [(1, "auth", b"AUTH", b"bob"), (2, "key", b"a", b"ann"), (1, "command", b"set", b"ann")];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    run(&mut h, &[("CONFIG SET acllog-max-len 1", "+OK"), ("AUTH bob x", "-WRONGPASS")]);
    assert_eq!(h.shared.acl.log.newest(10).len(), 1);
    h.worker.now_ms += 60_001;
    run(&mut h, &[("AUTH bob x", "-WRONGPASS")]);
    assert_eq!(h.shared.acl.log.newest(10)[0].count, 1, "a minute later it is another entry");
}

#[test]
fn requirepass_is_the_password_of_the_default_user() {
    let mut h = Harness::default();
    run(
        &mut h,
        &[
            ("CONFIG SET requirepass one", "+OK"),
            ("AUTH two", "-WRONGPASS"),
            ("AUTH one", "+OK"),
            ("ACL SETUSER default >two", "+OK"),
            ("AUTH two", "+OK"),
            ("CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$3\r\none"),
            ("CONFIG SET requirepass ''", "+OK"),
            ("ACL LIST", "*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n"),
        ],
    );
}

#[test]
fn lines_of_the_settings_make_users() {
    let mut config = Config::default();
    let add = |config: &mut Config, name: &str, rules: &str| {
        let rules: Vec<String> = rules.split(' ').map(str::to_owned).collect();
        config.add_user(name, &rules)
    };
    assert_eq!(add(&mut config, "ann", "on (+get ~a)"), Ok(()));
    assert_eq!(add(&mut config, "default", "off"), Ok(()));
    for (name, rules, why) in [
        ("ann", "on", "Duplicate user found."),
        ("a b", "on", "Usernames can't contain spaces"),
        ("bob", "+nosuch", "Unknown command or category name in ACL"),
        ("bob", "(+get", "Unmatched parenthesis"),
    ] {
        let error = add(&mut config, name, rules).expect_err("must be refused");
        assert!(error.contains(why), "{error}");
    }
    let h = Harness::new(config);
    assert_eq!(super::load_at_start(&h.shared), Ok(()));
    assert!(!h.shared.acl.lets_in());
    let lines = super::config_lines(&h.shared).expect("UTF-8");
    let expected = [
        "user ann on resetchannels -@all \"(~a resetchannels -@all +get)\"",
        "user default off sanitize-payload resetchannels -@all",
    ];
    let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
    assert_eq!(shown, expected);
}

#[test]
fn a_file_is_saved_and_loaded() {
    let folder = std::env::temp_dir().join(format!("hypercache-acl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("users.acl");
    let mut config = Config::default();
    config.set_at_start("aclfile", &path.display().to_string()).expect("any text");
    let mut h = Harness::new(config);
    run(&mut h, &[("ACL SETUSER ann on >x ~a (+get ~b)", "+OK"), ("ACL SAVE", "+OK")]);
    let list = h.run("ACL LIST");
    run(&mut h, &[("ACL DELUSER ann", ":1"), ("ACL SETUSER bob", "+OK"), ("ACL LOAD", "+OK")]);
    assert_eq!(h.run("ACL LIST"), list);
    std::fs::write(&path, "user a on\nuser a off\nuser b +x -y\n# c\nuser d\te\nuser d (+get\n")
        .expect("written");
    let reply =
        String::from_utf8_lossy(&h.run("ACL LOAD")).replace(&path.display().to_string(), "F");
    assert_eq!(
        reply,
        "-ERR WARNING: Duplicate user 'a' found on line 2. F:3: Error in applying operation '+x': \
         Unknown command or category name in ACL. F:3: Error in applying operation '-y': Unknown \
         command or category name in ACL. F:4 should start with user keyword followed by the \
         username. 'F:5: username 'd\te' contains invalid characters. F:6: Unmatched parenthesis in \
         selector definition.WARNING: ACL errors detected, no change to the previously active ACL \
         rules was performed\r\n"
    );
    assert_eq!(h.run("ACL LIST"), list);
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// What a sequence of rules about commands, keys and channels comes to, by sets.
#[derive(Default)]
struct Model {
    commands: BTreeSet<&'static str>,
    keys: BTreeMap<String, (bool, bool)>,
    all_keys: bool,
    channels: BTreeSet<String>,
    all_channels: bool,
}

impl Model {
    /// Whether the rule was a good one.
    fn apply(&mut self, rule: &str) -> bool {
        let entries = || table().entries().iter().copied();
        match rule {
            "+@all" => self.commands = entries().map(|e| e.full_name.as_str()).collect(),
            "-@all" => self.commands.clear(),
            "allkeys" | "resetkeys" => {
                self.keys.clear();
                self.all_keys = rule == "allkeys";
            }
            "allchannels" | "resetchannels" => {
                self.channels.clear();
                self.all_channels = rule == "allchannels";
            }
            _ if rule.starts_with('&') => {
                if !self.all_channels {
                    self.channels.insert(rule[1..].to_owned());
                }
                return !self.all_channels;
            }
            _ if rule.starts_with(['~', '%']) => {
                let (head, pattern) = rule.split_once('~').expect("a pattern");
                let (reads, writes) = (head != "%W", head != "%R");
                if !self.all_keys {
                    let access = self.keys.entry(pattern.to_owned()).or_default();
                    *access = (access.0 | reads, access.1 | writes);
                }
                return !self.all_keys;
            }
            _ => self.apply_to_commands(rule),
        }
        true
    }

    fn apply_to_commands(&mut self, rule: &str) {
        let (sign, name) = rule.split_at(1);
        for entry in table().entries() {
            let parent = entry.full_name.split('|').next().expect("a word");
            let parent_row = table().get(parent.as_bytes()).expect("a command").row;
            let is_meant = match name.strip_prefix('@') {
                Some(category) => {
                    let has =
                        |row: &crate::table::Command| row.acl_all().names().any(|n| n == category);
                    has(entry.row) || has(parent_row)
                }
                None => entry.full_name == name || parent == name,
            };
            match sign {
                _ if !is_meant => {}
                "+" => drop(self.commands.insert(entry.full_name.as_str())),
                _ => drop(self.commands.remove(entry.full_name.as_str())),
            }
        }
    }

    fn allows_key(&self, key: &str, reads: bool, writes: bool) -> bool {
        self.all_keys
            || self.keys.iter().any(|(pattern, access)| {
                let matches =
                    pattern == "*" || pattern == key || *pattern == format!("{}*", &key[..1]);
                matches && (!reads || access.0) && (!writes || access.1)
            })
    }
}

fn rule() -> impl Strategy<Value = String> {
    let names = table().entries().iter().map(|entry| entry.full_name.as_str());
    let names: Vec<_> = names.collect();
    let categories: Vec<_> = crate::table::Acl::NAMES.iter().map(|(_, name)| *name).collect();
    let signed = |names: Vec<&'static str>, mark: &'static str| {
        let sign = prop_oneof![Just("+"), Just("-")];
        (sign, prop::sample::select(names)).prop_map(move |(s, name)| format!("{s}{mark}{name}"))
    };
    let words = vec!["+@all", "-@all", "allkeys", "resetkeys", "allchannels", "resetchannels"];
    let pattern = prop::sample::select(vec!["a", "ab", "a*", "b*", "*"]);
    let kind = prop::sample::select(vec!["~", "%R~", "%W~", "%RW~", "&"]);
    prop_oneof![
        4 => signed(names, ""),
        3 => signed(categories, "@"),
        2 => prop::sample::select(words).prop_map(str::to_owned),
        // `~*` is another word for allkeys.
        4 => (kind, pattern).prop_map(|(kind, pattern)| match (kind, pattern) {
            ("~", "*") => "allkeys".to_owned(),
            ("&", "*") => "allchannels".to_owned(),
            _ => format!("{kind}{pattern}"),
        }),
    ]
}

/// Whether two users may do the same, as far as a set of probes tells.
fn allow_the_same(a: &User, b: &User) -> Result<(), TestCaseError> {
    for entry in table().entries() {
        for key in ["a", "ab", "b"] {
            let len = entry.row.arity.unsigned_abs() as usize + 1;
            let words = std::iter::repeat_n(key, len.max(2));
            let args = OwnedArgs::from_pieces(words);
            let (x, y) = (a.check(entry, args.as_args()), b.check(entry, args.as_args()));
            prop_assert_eq!(x, y, "{} {}", entry.full_name, key);
        }
    }
    Ok(())
}

fn applied(rules: &[Vec<u8>]) -> User {
    let mut user = User::new(false);
    for rule in rules {
        // What is refused must change nothing.
        let before = user.clone();
        if user.apply(rule, false).is_err() {
            assert_eq!(user, before);
        }
    }
    user
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rules_do_what_the_model_says(rules in prop::collection::vec(rule(), 0..24)) {
        let mut user = User::new(false);
        let mut model = Model::default();
        for rule in &rules {
            let is_good = user.apply(rule.as_bytes(), false).is_ok();
            prop_assert_eq!(is_good, model.apply(rule), "{}", rule);
        }
        let ping = table().entries().iter();
        for entry in ping.filter(|entry| entry.row.keys == crate::table::Keys::None) {
            let args = OwnedArgs::from_pieces(["x", "y"]);
            let is_command = user.check(entry, args.as_args()) != Err(Denied::Command);
            let is_free = entry.row.flags.has(crate::table::Flags::NO_AUTH);
            let expected = is_free || model.commands.contains(entry.full_name.as_str());
            prop_assert_eq!(is_command, expected, "{}", &entry.full_name);
        }
        for (line, reads, writes) in [("GET", true, false), ("DEL", false, true), ("GETSET", true, true)] {
            for key in ["a", "ab", "b", "c"] {
                let result = check(&user, &format!("{line} {key} 1"));
                let expected = match model.commands.contains(&line.to_ascii_lowercase()[..]) {
                    false => Err(Denied::Command),
                    true if model.allows_key(key, reads, writes) => Ok(()),
                    true => Err(Denied::Key(1)),
                };
                // Of DEL the number is a key, too.
                prop_assert!(result == expected || line == "DEL" && result == Err(Denied::Key(2)));
            }
        }
        for channel in ["a", "ab", "b", "c"] {
            let expected = model.all_channels || model.channels.iter().any(|pattern| {
                pattern == "*" || pattern == channel || *pattern == format!("{}*", &channel[..1])
            });
            prop_assert_eq!(user.allows_channel(channel.as_bytes(), false), expected);
            prop_assert_eq!(
                user.allows_channel(channel.as_bytes(), true),
                model.all_channels || model.channels.contains(channel)
            );
        }
    }

    #[test]
    fn what_is_shown_makes_the_same_user(
        root in prop::collection::vec(rule(), 0..16),
        inner in prop::collection::vec(rule(), 0..8),
        odd in prop::collection::vec("[-~%&+(\"'|)RWa*\\\\]{0,8}", 0..4),
        quoted in "[\"'()a*\\\\]{0,5}",
    ) {
        let bytes = |rules: &[String]| rules.iter().map(|r| r.clone().into_bytes()).collect::<Vec<_>>();
        let mut rules = bytes(&root);
        rules.push(format!("({})", inner.join(" ")).into_bytes());
        let mut text = Vec::new();
        hypercache_stdx::quote::append_quoted(format!("~{quoted}").as_bytes(), &mut text);
        rules.push([b"(+@all ", &text[..], b")"].concat());
        rules.extend(bytes(&odd));
        rules.extend([b">secret".to_vec(), b"on".to_vec()]);
        let made = applied(&rules);
        let shown = made.rules().join(&b' ');
        let words: Vec<&[u8]> = shown.split(|&b| b == b' ').collect();
        let merged = merge_selectors(&words).expect("parentheses match");
        let mut again = User::new(false);
        for rule in &merged {
            let result = again.apply(rule, false);
            prop_assert!(result.is_ok(), "{}: {result:?}", shown.escape_ascii());
        }
        allow_the_same(&made, &again)?;
        prop_assert_eq!(again.rules().join(&b' '), shown);
    }
}

#[test]
fn sort_reads_other_keys_for_those_who_may_read_any() {
    let mut h = Harness::new(Config::default());
    run(&mut h, &[("ACL SETUSER some on nopass ~k +@all", "+OK"), ("RPUSH k 1", ":1")]);
    run(&mut h, &[("ACL SETUSER any on nopass %R~* ~k +@all", "+OK"), ("AUTH some x", "+OK")]);
    let denied = "option of SORT denied due to insufficient ACL permissions.";
    let (by, get) = (format!("-ERR BY {denied}"), format!("-ERR GET {denied}"));
    run(&mut h, &[("SORT k BY w*", by.as_str()), ("SORT_RO k GET w*", get.as_str())]);
    run(&mut h, &[("SORT k BY none STORE k", ":1"), ("AUTH any x", "+OK")]);
    run(&mut h, &[("SORT k BY w* GET w* STORE k", ":1")]);
}
