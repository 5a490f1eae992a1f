//! COMMAND: the table of commands, for clients.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::syntax::{self, Argument};
use crate::table::{Acl, Command, Entry, Flags, Group, KeyFlags, Keys, table};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::glob::glob_match;

const BASE: Command = Command {
    group: Group::Server,
    since: "2.8.13",
    flags: Flags::LOADING.or(Flags::STALE),
    acl: Acl::CONNECTION,
    ..Command::DEFAULT
};

const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "COMMAND",
    arity: -1,
    run: command,
    summary: "All commands: arity, flags, keys, ACL categories.",
    complexity: "O(N) in the number of commands",
    tips: UNORDERED,
    subcommands: COMMAND,
    ..BASE
}];

const COMMAND: &[Command] = &[
    Command {
        name: "COUNT",
        arity: 2,
        run: count,
        summary: "How many commands there are.",
        examples: "> COMMAND COUNT\n(integer) …",
        ..BASE
    },
    Command {
        name: "DOCS",
        since: "7.0.0",
        arity: -2,
        run: docs,
        summary: "Documentation of commands, all or those named.",
        complexity: "O(N) in the number of commands",
        syntax: "[command-name [command-name ...]]",
        tips: UNORDERED,
        examples: "> COMMAND DOCS GET\n1) \"get\"…\"summary\"…The value of a key…",
        ..BASE
    },
    Command {
        name: "GETKEYS",
        arity: -4,
        run: get_keys,
        summary: "Which arguments of a command are keys.",
        complexity: "O(N) in the number of arguments",
        syntax: "command [arg [arg ...]]",
        examples: "> COMMAND GETKEYS GET a\n1) \"a\"",
        ..BASE
    },
    Command {
        name: "GETKEYSANDFLAGS",
        since: "7.0.0",
        arity: -4,
        run: get_keys_and_flags,
        summary: "Which arguments of a command are keys, and what it does with each.",
        complexity: "O(N) in the number of arguments",
        syntax: "command [arg [arg ...]]",
        examples: "> COMMAND GETKEYSANDFLAGS GET a\n1) 1) \"a\"\n   2) 1) RO\n      2) access",
        ..BASE
    },
    Command {
        name: "HELP",
        since: "5.0.0",
        arity: 2,
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> COMMAND HELP\n…COMMAND <subcommand> …",
        ..BASE
    },
    Command {
        name: "INFO",
        arity: -2,
        run: info,
        summary: "Arity, flags, keys and ACL categories of commands, all or those named.",
        complexity: "O(N) in the number of commands",
        syntax: "[command-name [command-name ...]]",
        examples: "> COMMAND INFO nosuch\n1) (nil)",
        tips: UNORDERED,
        ..BASE
    },
    Command {
        name: "LIST",
        since: "7.0.0",
        arity: -2,
        run: list,
        summary: "Names of commands, all or those of a module, ACL category or pattern.",
        complexity: "O(N) in the number of commands",
        syntax: "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
        examples: "> COMMAND LIST FILTERBY PATTERN getse*\n1) \"getset\"",
        tips: UNORDERED,
        ..BASE
    },
];

fn command(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.array(table().commands().count());
    table().commands().for_each(|entry| write_info(&mut cx.reply, entry));
    Ok(())
}

fn count(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.int(table().commands().count() as i64);
    Ok(())
}

fn info(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() == 2 {
        return command(cx, args);
    }
    cx.reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        match table().get_full(name) {
            Some(entry) => write_info(&mut cx.reply, entry),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

/// A set of simple strings.
fn write_names<T: std::fmt::Display>(reply: &mut Reply<'_>, names: impl Iterator<Item = T>) {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    reply.set(names.len());
    names.iter().for_each(|name| reply.simple(name));
}

fn write_info(reply: &mut Reply<'_>, entry: &Entry) {
    let row = entry.row;
    let specs = row.keys.specs();
    let (first, last, step) = legacy_range(&specs);
    reply.array(10);
    reply.bulk(entry.full_name.as_bytes());
    reply.int(i64::from(row.arity));
    // Redis 7.0 has no word for this one.
    let flags = Flags(row.flags.0 & !Flags::MAY_REPLICATE.0);
    write_names(reply, flags.names());
    reply.int(first as i64);
    reply.int(last as i64);
    reply.int(step as i64);
    write_names(reply, row.acl_all().names().map(|name| format!("@{name}")));
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(specs.len());
    specs.iter().for_each(|spec| write_key_spec(reply, *spec));
    reply.set(entry.subcommands.len());
    entry.subcommands.iter().for_each(|sub| write_info(reply, sub));
}

/// First and last key and the distance between keys, as clients knew them before there were
/// specifications; zeros when all keys are counted by an argument.
fn legacy_range(specs: &[Keys]) -> (usize, isize, usize) {
    let ranges = specs.iter().filter_map(|spec| match *spec {
        Keys::Range { first, last, step, .. } => Some((first, last, step)),
        _ => None,
    });
    let ranges = ranges.collect::<Vec<_>>();
    let first = ranges.iter().map(|range| range.0).min().unwrap_or(0);
    // A negative last key counts from the end, so it lies behind any other.
    let from_end = ranges.iter().map(|range| range.1).find(|last| *last < 0);
    let last = from_end.or(ranges.iter().map(|range| range.1).max()).unwrap_or(0);
    (first, last, ranges.first().map_or(0, |range| range.2))
}

/// One key specification; the last key of a range counts from the first one, or from the end.
fn write_key_spec(reply: &mut Reply<'_>, spec: Keys) {
    let (begin, kind, fields) = match spec {
        Keys::Range { first, last, step, .. } => {
            let last = if last < 0 { last } else { last - first as isize };
            (
                first as isize,
                "range",
                [("lastkey", last as i64), ("keystep", step as i64), ("limit", 0)],
            )
        }
        Keys::Counted { count, .. } => {
            (count as isize, "keynum", [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)])
        }
        Keys::CountedPairs { count, .. } => {
            (count as isize, "keynum", [("keynumidx", 0), ("firstkey", 1), ("keystep", 2)])
        }
        Keys::Streams { from, .. } => {
            (from as isize, "range", [("lastkey", -1), ("keystep", 1), ("limit", 2)])
        }
        Keys::Behind { from, .. } => {
            (from as isize, "range", [("lastkey", 0), ("keystep", 1), ("limit", 0)])
        }
        Keys::Rest { from, .. } => (from, "range", [("lastkey", -1), ("keystep", 1), ("limit", 0)]),
        Keys::Unknown { flags, note } => return write_unknown_spec(reply, flags, note),
        Keys::Two(..) | Keys::Sort { .. } | Keys::Migrate | Keys::None | Keys::All | Keys::Each => {
            return reply.null();
        }
    };
    reply.map(3);
    reply.bulk(b"flags");
    write_names(reply, spec.flags().names());
    reply.bulk(b"begin_search");
    write_begin(reply, spec, begin);
    reply.bulk(b"find_keys");
    reply.map(2);
    write_pair(reply, "type", kind);
    reply.bulk(b"spec");
    reply.map(3);
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.int(value);
    }
}

/// A specification of keys that only the command itself finds.
fn write_unknown_spec(reply: &mut Reply<'_>, flags: KeyFlags, note: &str) {
    reply.map(4);
    write_pair(reply, "notes", note);
    reply.bulk(b"flags");
    write_names(reply, flags.names());
    for name in ["begin_search", "find_keys"] {
        reply.bulk(name.as_bytes());
        reply.map(2);
        write_pair(reply, "type", "unknown");
        reply.bulk(b"spec");
        reply.map(0);
    }
}

/// Where the search for keys begins.
fn write_begin(reply: &mut Reply<'_>, spec: Keys, begin: isize) {
    reply.map(2);
    let word = match spec {
        Keys::Behind { words, .. } => words.first().copied(),
        Keys::Streams { .. } => Some("STREAMS"),
        Keys::Rest { word, .. } => Some(word),
        _ => None,
    };
    write_pair(reply, "type", if word.is_some() { "keyword" } else { "index" });
    reply.bulk(b"spec");
    match word {
        Some(word) => {
            reply.map(2);
            write_pair(reply, "keyword", word);
            reply.bulk(b"startfrom");
        }
        None => {
            reply.map(1);
            reply.bulk(b"index");
        }
    }
    reply.int(begin as i64);
}

fn write_pair(reply: &mut Reply<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn docs(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let entries: Vec<&Entry> = if args.len() == 2 {
        table().commands().collect()
    } else {
        args.iter_from(2).filter_map(|name| table().get_full(name)).collect()
    };
    cx.reply.map(entries.len());
    entries.iter().for_each(|entry| write_docs(&mut cx.reply, entry));
    Ok(())
}

fn write_docs(reply: &mut Reply<'_>, entry: &Entry) {
    let row = entry.row;
    let arguments = syntax::parse(row.syntax).unwrap_or_default();
    let fields =
        4 + usize::from(!arguments.is_empty()) + usize::from(!entry.subcommands.is_empty());
    reply.bulk(entry.full_name.as_bytes());
    reply.map(fields);
    write_pair(reply, "summary", row.summary);
    write_pair(reply, "since", row.since);
    write_pair(reply, "group", row.group.name());
    write_pair(reply, "complexity", row.complexity);
    if !arguments.is_empty() {
        let specs = row.keys.specs();
        let is_named = |spec: &Keys| matches!(spec, Keys::Unknown { .. });
        let named = specs.iter().position(is_named);
        let mut keys = KeyNumbers { specs: specs.len(), next: 0, named };
        write_arguments(reply, &arguments, &mut keys);
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(entry.subcommands.len());
        entry.subcommands.iter().for_each(|sub| write_docs(reply, sub));
    }
}

/// Which key specification the next argument that is a key belongs to.
struct KeyNumbers {
    specs: usize,
    next: usize,
    /// The specification of keys that patterns name.
    named: Option<usize>,
}

impl KeyNumbers {
    fn take(&mut self) -> Option<usize> {
        let number = self.next.min(self.specs.checked_sub(1)?);
        self.next += 1;
        Some(number)
    }

    /// The specification of an argument that is a pattern, which the next key is behind.
    fn take_named(&mut self) -> Option<usize> {
        self.next = self.named? + 1;
        self.named
    }
}

fn write_arguments(reply: &mut Reply<'_>, arguments: &[Argument], keys: &mut KeyNumbers) {
    reply.bulk(b"arguments");
    reply.array(arguments.len());
    arguments.iter().for_each(|argument| write_argument(reply, argument, keys));
}

fn write_argument(reply: &mut Reply<'_>, argument: &Argument, keys: &mut KeyNumbers) {
    let flags = [
        (argument.is_optional, "optional"),
        (argument.is_multiple, "multiple"),
        (argument.is_multiple_token, "multiple_token"),
    ];
    let flags: Vec<_> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    let is_key = argument.kind == "key";
    let spec = match argument.kind {
        "key" => keys.take(),
        "pattern" => keys.take_named(),
        _ => None,
    };
    // Without a specification it is a name like any other.
    let kind = if is_key && spec.is_none() { "string" } else { argument.kind };
    let fields = 2
        + usize::from(spec.is_some())
        + usize::from(argument.token.is_some())
        + usize::from(!flags.is_empty())
        + usize::from(!argument.inner.is_empty());
    reply.map(fields);
    write_pair(reply, "name", &argument.name);
    write_pair(reply, "type", kind);
    if let Some(spec) = spec {
        reply.bulk(b"key_spec_index");
        reply.int(spec as i64);
    }
    if let Some(token) = &argument.token {
        write_pair(reply, "token", token);
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        write_names(reply, flags.into_iter());
    }
    if !argument.inner.is_empty() {
        write_arguments(reply, &argument.inner, keys);
    }
}

/// The keys of the command that begins at argument 2, each with its flags.
fn keys_of<'a>(args: Args<'a>) -> Result<Vec<(&'a [u8], KeyFlags)>, ReplyError> {
    let entry = table().get(args.get(2)).and_then(|entry| {
        if entry.subcommands.is_empty() || args.len() == 3 {
            Some(entry)
        } else {
            entry.subcommand(args.get(3))
        }
    });
    let Some(entry) = entry else { return Err(ReplyError::Text("ERR Invalid command specified")) };
    let is_key = |flags: KeyFlags| !flags.has(KeyFlags::NOT_KEY);
    if !entry.row.keys.specs().iter().any(|spec| is_key(spec.flags())) {
        return Err(ReplyError::Text("ERR The command has no key arguments"));
    }
    let command = args.tail(2);
    if !entry.row.accepts(command.len()) {
        let text = "ERR Invalid number of arguments specified for command";
        return Err(ReplyError::Text(text));
    }
    let mut keys = Vec::new();
    entry.row.keys.for_each(command, &mut |i, flags| {
        if is_key(flags) {
            keys.push((command.get(i), actual_flags(entry, command, flags)));
        }
    });
    if keys.is_empty() && !entry.row.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(ReplyError::Text("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
}

/// What a command whose row says `variable_flags` does with its key under these arguments.
pub(crate) fn actual_flags(entry: &Entry, args: Args<'_>, flags: KeyFlags) -> KeyFlags {
    if !flags.has(KeyFlags::VARIABLE_FLAGS) {
        return flags;
    }
    let has_from = |from, word: &[u8]| args.iter_from(from).any(|a| a.eq_ignore_ascii_case(word));
    let has = |word: &[u8]| has_from(2, word);
    // What a write depends on is as good as read.
    let is_conditional = |from| crate::compare::WORDS.iter().any(|word| has_from(from, word));
    match entry.full_name.as_str() {
        "set" if !has_from(3, b"GET") && !is_conditional(3) => KeyFlags::OW | KeyFlags::UPDATE,
        "delex" if !is_conditional(2) => KeyFlags::RM | KeyFlags::DELETE,
        "delex" => KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::DELETE,
        "bitfield" if !has(b"SET") && !has(b"INCRBY") => KeyFlags::RO | KeyFlags::ACCESS,
        _ => KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE,
    }
}

fn get_keys(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let keys = keys_of(args)?;
    cx.reply.array(keys.len());
    keys.iter().for_each(|(key, _)| cx.reply.bulk(key));
    Ok(())
}

fn get_keys_and_flags(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let keys = keys_of(args)?;
    cx.reply.array(keys.len());
    for (key, flags) in keys {
        cx.reply.array(2);
        cx.reply.bulk(key);
        write_names(&mut cx.reply, flags.names());
    }
    Ok(())
}

fn list(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let is = |i: usize, word: &str| args.get(i).eq_ignore_ascii_case(word.as_bytes());
    let names: Vec<&str> = match args.len() {
        2 => names_where(|_| true),
        5 if is(2, "FILTERBY") && is(3, "MODULE") => Vec::new(),
        5 if is(2, "FILTERBY") && is(3, "ACLCAT") => {
            let known = |(_, name): &&(Acl, &str)| is(4, name);
            let category = Acl::NAMES.iter().find(known).map(|(acl, _)| *acl);
            names_where(|entry| category.is_some_and(|acl| entry.row.acl_all().has(acl)))
        }
        5 if is(2, "FILTERBY") && is(3, "PATTERN") => {
            names_where(|entry| glob_match(args.get(4), entry.full_name.as_bytes(), true))
        }
        _ => return Err(ReplyError::Syntax),
    };
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

/// Names of commands and subcommands that fulfil a condition.
fn names_where(condition: impl Fn(&Entry) -> bool) -> Vec<&'static str> {
    let entries = table().entries().iter().filter(|entry| condition(entry));
    entries.map(|entry| entry.full_name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;
    use hypercache_protocol::reply::Version;

    fn text(h: &mut Harness, line: &str) -> String {
        String::from_utf8(h.run(line)).expect("text").replace("\r\n", " ")
    }

    const GET_SPEC_V2: &str = "*6 $5 flags *2 +RO +access $12 begin_search *4 $4 type $5 index \
        $4 spec *2 $5 index :1 $9 find_keys *4 $4 type $5 range $4 spec \
        *6 $7 lastkey :0 $7 keystep :1 $5 limit :0 ";

    #[test]
    fn info_has_the_shape_of_redis() {
        let mut h = Harness::default();
        let get = "*10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 ";
        let expected = format!("*2 {get}*1 {GET_SPEC_V2}*0 $-1 ");
        assert_eq!(text(&mut h, "COMMAND INFO GET nosuch"), expected);
        h.session.set_version(Version::V3);
        let v3 = text(&mut h, "COMMAND INFO GET nosuch");
        let head = "*2 *10 $3 get :2 ~2 +readonly +fast :1 :1 :1 ~3 +@read +@string +@fast ~0 ";
        assert!(v3.starts_with(&format!("{head}~1 %3 $5 flags ~2 +RO +access ")), "{v3}");
        assert!(v3.ends_with("%3 $7 lastkey :0 $7 keystep :1 $5 limit :0 ~0 _ "), "{v3}");
    }

    #[test]
    fn all_commands_are_listed_by_all_forms() {
        let mut h = Harness::default();
        let count = table().commands().count();
        assert_eq!(text(&mut h, "COMMAND COUNT"), format!(":{count} "));
        assert!(text(&mut h, "COMMAND").starts_with(&format!("*{count} *10 ")));
        assert_eq!(h.run("COMMAND INFO"), h.run("COMMAND"));
        let names = table().entries().len();
        assert!(text(&mut h, "COMMAND LIST").starts_with(&format!("*{names} $")));
        assert!(text(&mut h, "COMMAND DOCS").starts_with(&format!("*{} $", 2 * count)));
    }

    #[test]
    fn docs_tell_arguments_and_subcommands() {
        let mut h = Harness::default();
        h.session.set_version(Version::V3);
        let docs = text(&mut h, "COMMAND DOCS GET nosuch");
        assert!(docs.starts_with("%1 $3 get %5 $7 summary "), "{docs}");
        let argument = "$9 arguments *1 %3 $4 name $3 key $4 type $3 key $14 key_spec_index :0 ";
        assert!(docs.ends_with(argument), "{docs}");
        let docs = text(&mut h, "COMMAND DOCS SLOWLOG|GET slowlog");
        assert!(docs.starts_with("%2 $11 slowlog|get %5 "), "{docs}");
        let count = "$4 name $5 count $4 type $7 integer $5 flags ~1 +optional ";
        assert!(docs.contains(count), "{docs}");
        assert!(docs.contains("$11 subcommands %4 $11 slowlog|get "), "{docs}");
    }

    #[test]
    fn keys_of_commands_are_told() {
        let mut h = Harness::default();
        for (line, reply) in [
            ("COMMAND GETKEYS get a", "*1 $1 a "),
            ("COMMAND GETKEYS watch a b", "*2 $1 a $1 b "),
            ("COMMAND GETKEYSANDFLAGS set a b", "*1 *2 $1 a *2 +OW +update "),
            ("COMMAND GETKEYSANDFLAGS bitfield a", "*1 *2 $1 a *2 +RO +access "),
            ("COMMAND GETKEYS nosuch a", "-ERR Invalid command specified "),
            ("COMMAND GETKEYS slowlog nosuch", "-ERR Invalid command specified "),
            ("COMMAND GETKEYS slowlog len", "-ERR The command has no key arguments "),
            ("COMMAND GETKEYS info a", "-ERR The command has no key arguments "),
            ("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command "),
        ] {
            assert_eq!(text(&mut h, line), reply, "{line}");
        }
    }

    #[test]
    fn lists_can_be_filtered() {
        let mut h = Harness::default();
        for (line, reply) in [
            ("COMMAND LIST FILTERBY MODULE x", "*0 "),
            ("COMMAND LIST FILTERBY ACLCAT nosuch", "*0 "),
            ("COMMAND LIST filterby pattern SLOWLOG|G*", "*1 $11 slowlog|get "),
            ("COMMAND LIST FILTERBY PATTERN", "-ERR syntax error "),
            ("COMMAND LIST FILTERBY other x", "-ERR syntax error "),
            ("COMMAND LIST x", "-ERR syntax error "),
        ] {
            assert_eq!(text(&mut h, line), reply, "{line}");
        }
        let transaction = text(&mut h, "COMMAND LIST FILTERBY ACLCAT Transaction");
        assert!(transaction.starts_with("*5 "), "{transaction}");
    }
}
