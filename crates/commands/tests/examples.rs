//! The examples of the command table are run as written: what the reference shows is what happens.
//! `…` in a reply stands for what differs from run to run, or is too long to show.

use hypercache_commands::config::Config;
use hypercache_commands::table::{Command, FAMILIES, table};
use hypercache_commands::testing::Harness;

/// A reply as the shell shows it.
fn show(reply: &[u8]) -> String {
    let (text, rest) = show_one(reply, 0);
    assert!(rest.is_empty(), "more than one reply: {}", reply.escape_ascii());
    text
}

/// Shows the first reply of `bytes`, nested at `indent` columns, and gives what follows it.
fn show_one(bytes: &[u8], indent: usize) -> (String, &[u8]) {
    let end = bytes.windows(2).position(|w| w == b"\r\n").expect("a line");
    let line = std::str::from_utf8(&bytes[1..end]).expect("text");
    let rest = &bytes[end + 2..];
    match bytes[0] {
        b'+' => (line.to_owned(), rest),
        b'-' => (format!("(error) {line}"), rest),
        b':' => (format!("(integer) {line}"), rest),
        b'$' | b'*' if line == "-1" => ("(nil)".to_owned(), rest),
        b'$' => {
            let len: usize = line.parse().expect("a length");
            (quote(&rest[..len]), &rest[len + 2..])
        }
        b'*' if line == "0" => ("(empty array)".to_owned(), rest),
        b'*' => show_array(line.parse().expect("a length"), rest, indent),
        other => panic!("a RESP2 reply does not begin with {other}"),
    }
}

fn show_array(len: usize, mut rest: &[u8], indent: usize) -> (String, &[u8]) {
    let width = len.to_string().len() + 2;
    let mut lines = Vec::new();
    for n in 1..=len {
        let (text, after) = show_one(rest, indent + width);
        let margin = if n == 1 { 0 } else { indent };
        let number = format!("{n})");
        lines.push(format!("{:margin$}{number:>w$} {text}", "", w = width - 1));
        rest = after;
    }
    (lines.join("\n"), rest)
}

fn quote(bytes: &[u8]) -> String {
    let escape = |b: &u8| match b {
        b'"' => "\\\"".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b'\n' => "\\n".to_owned(),
        0x20..=0x7e => char::from(*b).to_string(),
        _ => format!("\\x{b:02x}"),
    };
    format!("\"{}\"", bytes.iter().map(escape).collect::<String>())
}

/// Whether a reply is as an example shows it, where `…` may be any text.
fn is_like(shown: &str, example: &str) -> bool {
    let mut pieces = example.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = shown.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn only_what_is_left_out_may_differ() {
    for (example, is_true) in [
        ("ab", false),
        ("abc", true),
        ("a…c", true),
        ("…b…", true),
        ("a…d", false),
        ("…c…b…", false),
    ] {
        assert_eq!(is_like("abc", example), is_true, "{example}");
    }
    assert!(!is_like("(error) ERR no", "(integer) …"));
}

/// Runs the examples of a command; notes each reply that is another.
fn check(name: &str, examples: &str, problems: &mut Vec<String>) {
    let mut harness = Harness::new(Config::default());
    harness.shared.scripts.install(Box::new(hypercache_scripting::Engine));
    let mut expected = examples.split("\n> ");
    let first = expected.next().unwrap_or_default();
    let first = first.strip_prefix("> ").unwrap_or_else(|| panic!("{name}: begins with `> `"));
    for step in std::iter::once(first).chain(expected) {
        let (command, reply) = step.split_once('\n').unwrap_or((step, ""));
        let shown = show(&harness.run(command));
        if !is_like(&shown, reply) {
            problems.push(format!("{name}: `{command}` replies\n{shown}\nand not\n{reply}\n"));
        }
    }
}

fn check_row(prefix: &str, row: &Command, problems: &mut Vec<String>) {
    let name = format!("{prefix}{}", row.name);
    if !row.examples.is_empty() {
        check(&name, row.examples, problems);
    }
    assert!(!row.summary.is_empty(), "{name} has no summary");
    row.subcommands.iter().for_each(|sub| check_row(&format!("{name} "), sub, problems));
}

#[test]
fn the_examples_of_every_command_are_true() {
    let mut problems = Vec::new();
    FAMILIES.iter().copied().flatten().for_each(|row| check_row("", row, &mut problems));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_command_is_found_by_its_name_in_any_case() {
    for entry in table().entries() {
        for name in [entry.full_name.to_uppercase(), entry.full_name.to_lowercase()] {
            let found = table().get_full(name.as_bytes()).expect("it is in the table");
            assert_eq!(found.full_name, entry.full_name);
        }
    }
}

/// A transaction holds the partitions that its commands declare, and whoever looks at one that is not
/// held, or locks one that is, has not declared enough.
#[test]
fn every_command_declares_what_it_touches() {
    for cluster in ["no", "yes"] {
        for line in FAMILIES.iter().flat_map(|family| *family).flat_map(lines_of) {
            let mut config = Config::default();
            config.set_at_start("cluster-enabled", cluster).expect("a setting");
            config.set_at_start("enable-debug-command", "yes").expect("a setting");
            let mut h = Harness::new(config);
            for line in ["MULTI", "SET a 1", &line, "EXEC"] {
                h.run(line);
            }
        }
    }
}

/// The commands of a row's examples and of its subcommands'.
fn lines_of(row: &'static Command) -> Vec<String> {
    let own = row.examples.lines().filter_map(|line| line.strip_prefix("> "));
    let own = own.map(str::to_owned);
    // SHUTDOWN and what makes the process wait or crash on purpose does just that.
    let is_harmless = |line: &String| !line.starts_with("SHUTDOWN") && !line.starts_with("DEBUG");
    own.chain(row.subcommands.iter().flat_map(lines_of)).filter(is_harmless).collect()
}
