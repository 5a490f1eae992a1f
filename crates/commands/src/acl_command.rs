//! The ACL command, over the users of [`crate::acl`].

use crate::acl::{self, Denial, Denied, Selector, merge_selectors};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Entry, Flags, Group, table};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number::{parse_i64, write_f64_resp3};
use std::path::PathBuf;

const ALWAYS: Flags = Flags::NO_SCRIPT.or(Flags::LOADING).or(Flags::STALE);

const BASE: Command = Command {
    group: Group::Server,
    since: "6.0.0",
    flags: ALWAYS.or(Flags::ADMIN),
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "ACL",
    arity: -2,
    flags: Flags::NONE,
    summary: "Manages users and what they may do.",
    complexity: "That of the subcommand",
    subcommands: ACL,
    ..BASE
}];

const ACL: &[Command] = &[
    Command {
        name: "CAT",
        arity: -2,
        flags: ALWAYS,
        run: cat,
        summary: "The categories of commands, or the commands of one.",
        complexity: "O(N) in the number of commands",
        syntax: "[category]",
        examples: "> ACL CAT transaction\n1) \"multi\"\n2) \"exec\"\n3) \"discard\"\n4) \"watch\"\n\
                   5) \"unwatch\"\n> ACL CAT nosuch\n(error) ERR Unknown category 'nosuch'",
        ..BASE
    },
    Command {
        name: "DELUSER",
        arity: -3,
        run: deluser,
        summary: "Deletes users and closes their connections; answers how many there were.",
        complexity: "O(N) in the number of connections",
        syntax: "username [username ...]",
        examples: "> ACL SETUSER ann\nOK\n> ACL DELUSER ann bob\n(integer) 1\n> ACL DELUSER default\n\
                   (error) ERR The 'default' user cannot be removed",
        ..BASE
    },
    Command {
        name: "DRYRUN",
        since: "7.0.0",
        arity: -4,
        run: dryrun,
        summary: "Whether a user may run a command, which is not run.",
        syntax: "username command [arg [arg ...]]",
        examples: "> ACL SETUSER ann +get ~a:*\nOK\n> ACL DRYRUN ann GET a:1\nOK\n\
                   > ACL DRYRUN ann GET b:1\n\
                   \"This user has no permissions to access the 'b:1' key\"",
        ..BASE
    },
    Command {
        name: "GENPASS",
        arity: -2,
        flags: ALWAYS,
        run: genpass,
        summary: "A password that nobody guesses, in hexadecimal digits.",
        syntax: "[bits]",
        examples: "> ACL GENPASS 0\n(error) ERR ACL GENPASS argument must be the number of bits for \
                   the output password, a positive number up to 4096",
        ..BASE
    },
    Command {
        name: "GETUSER",
        arity: 3,
        run: getuser,
        summary: "What a user may do, field by field.",
        complexity: "O(N) in the number of rules",
        syntax: "username",
        examples: "> ACL GETUSER nosuch\n(nil)",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> ACL HELP\n…ACL <subcommand> …",
        ..BASE
    },
    Command {
        name: "LIST",
        arity: 2,
        run: list,
        summary: "All users with their rules, as they stand in a file.",
        complexity: "O(N) in the number of users",
        examples: "> ACL LIST\n1) \"user default on nopass ~* &* +@all\"",
        ..BASE
    },
    Command {
        name: "LOAD",
        arity: 2,
        run: load,
        summary: "Reads the users from the ACL file anew, all or none.",
        complexity: "O(N) in the number of users",
        examples: "> ACL LOAD\n(error) ERR This Redis instance is not configured to use an ACL file. …",
        ..BASE
    },
    Command {
        name: "LOG",
        arity: -2,
        run: log,
        summary: "What was denied last, or forgets it.",
        complexity: "O(N) in the number of entries",
        syntax: "[count | RESET]",
        examples: "> ACL LOG\n(empty array)\n> ACL LOG RESET\nOK",
        ..BASE
    },
    Command {
        name: "SAVE",
        arity: 2,
        run: save,
        summary: "Writes the users to the ACL file.",
        complexity: "O(N) in the number of users",
        examples: "> ACL SAVE\n(error) ERR This Redis instance is not configured to use an ACL file. …",
        ..BASE
    },
    Command {
        name: "SETUSER",
        arity: -3,
        run: setuser,
        summary: "Makes or changes a user, by all rules or none.",
        complexity: "O(N) in the number of rules",
        syntax: "username [rule [rule ...]]",
        examples: "> ACL SETUSER ann on >secret ~a:* +@read\nOK\n> ACL SETUSER ann +nosuch\n\
                   (error) ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or \
                   category name in ACL",
        ..BASE
    },
    Command {
        name: "USERS",
        arity: 2,
        run: users,
        summary: "The names of all users.",
        complexity: "O(N) in the number of users",
        examples: "> ACL USERS\n1) \"default\"",
        ..BASE
    },
    Command {
        name: "WHOAMI",
        arity: 2,
        flags: ALWAYS,
        run: whoami,
        summary: "The user of this connection.",
        examples: "> ACL WHOAMI\n\"default\"",
        ..BASE
    },
];

/// Writes an error made of pieces.
fn fail(cx: &mut Cx<'_>, pieces: &[&[u8]]) -> Outcome {
    cx.reply.error(&pieces.concat());
    Err(ReplyError::Written)
}

fn write_all<T: AsRef<[u8]>>(reply: &mut Reply<'_>, texts: &[T]) {
    reply.array(texts.len());
    texts.iter().for_each(|text| reply.bulk(text.as_ref()));
}

fn cat(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let names: Vec<&str> = match args.len() {
        2 => Acl::NAMES.iter().map(|(_, name)| *name).collect(),
        3 => {
            let wanted = args.get(2);
            let is_it = |name: &str| wanted.eq_ignore_ascii_case(name.as_bytes());
            let Some((category, _)) = Acl::NAMES.iter().find(|(_, name)| is_it(name)) else {
                let shown = &wanted[..wanted.len().min(128)];
                return fail(cx, &[b"ERR Unknown category '", shown, b"'"]);
            };
            let entries = table().entries().iter();
            let has = entries.filter(|entry| entry.row.acl_all().has(*category));
            has.map(|entry| entry.full_name.as_str()).collect()
        }
        _ => return Err(cx.subcommand_syntax(args)),
    };
    write_all(&mut cx.reply, &names);
    Ok(())
}

fn deluser(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.iter_from(2).any(|name| name == acl::DEFAULT_USER) {
        return Err(ReplyError::Text("ERR The 'default' user cannot be removed"));
    }
    let deleted = args.iter_from(2).filter(|name| acl::delete_user(cx, name)).count();
    cx.reply.int(deleted as i64);
    Ok(())
}

/// The row of a command that is only looked up: of a container its own if no second word is there.
fn look_up(command: Args<'_>) -> Option<&'static Entry> {
    let entry = table().get(command.get(0))?;
    if entry.subcommands.is_empty() || command.len() == 1 {
        return Some(entry);
    }
    entry.subcommand(command.get(1))
}

fn dryrun(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let command = args.tail(3);
    let Some(account) = cx.shared.acl.get(args.get(2)) else {
        return fail(cx, &[b"ERR User '", args.get(2), b"' not found"]);
    };
    let Some(entry) = look_up(command) else {
        return fail(cx, &[b"ERR Command '", args.get(3), b"' not found"]);
    };
    let name = entry.full_name.as_bytes();
    if !entry.row.accepts(command.len()) {
        return fail(cx, &[b"ERR wrong number of arguments for '", name, b"' command"]);
    }
    let (verb, object, kind): (&str, _, &str) = match account.user().check(entry, command) {
        Ok(()) => {
            cx.reply.ok();
            return Ok(());
        }
        Err(Denied::Command) => ("run", name, "command"),
        Err(Denied::Key(i)) => ("access", command.get(i), "key"),
        Err(Denied::Channel(i)) => ("access", command.get(i), "channel"),
    };
    let head = format!("This user has no permissions to {verb} the '");
    cx.reply.bulk(&[head.as_bytes(), object, b"' ", kind.as_bytes()].concat());
    Ok(())
}

const PASSWORD_BITS_MAX: i64 = 4096;
const PASSWORD_BITS: i64 = 256;

fn genpass(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let bits = match args.len() {
        2 => PASSWORD_BITS,
        3 => parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?,
        _ => return Err(cx.subcommand_syntax(args)),
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(ReplyError::Text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    if let Err(error) = getrandom::fill(&mut bytes) {
        return fail(cx, &[format!("ERR no random numbers: {error}").as_bytes()]);
    }
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    cx.reply.bulk(&text.as_bytes()[..digits]);
    Ok(())
}

fn getuser(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let Some(account) = cx.shared.acl.get(args.get(2)) else {
        cx.reply.null();
        return Ok(());
    };
    let user = account.user();
    let reply = &mut cx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags: Vec<_> = user.flags().collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    write_all(reply, &user.password_hashes().collect::<Vec<_>>());
    let (root, others) = user.selectors().split_first().ok_or(ReplyError::Syntax)?;
    write_selector(reply, root);
    reply.bulk(b"selectors");
    reply.array(others.len());
    for selector in others {
        reply.map(3);
        write_selector(reply, selector);
    }
    Ok(())
}

/// The three fields of a selector.
fn write_selector(reply: &mut Reply<'_>, selector: &Selector) {
    for (name, rules) in [
        ("commands", selector.command_rules()),
        ("keys", selector.key_rules()),
        ("channels", selector.channel_rules()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(&rules.join(&b' '));
    }
}

fn list(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let all = cx.shared.acl.all();
    let lines: Vec<_> = all.iter().map(|account| acl::line_of(account)).collect();
    write_all(&mut cx.reply, &lines);
    Ok(())
}

fn users(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let all = cx.shared.acl.all();
    let names: Vec<_> = all.iter().map(|account| account.name()).collect();
    write_all(&mut cx.reply, &names);
    Ok(())
}

fn whoami(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.bulk(acl::account_of(cx.shared, cx.session).name());
    Ok(())
}

fn setuser(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let name = args.get(2);
    if acl::has_space(name) {
        return Err(ReplyError::Text("ERR Usernames can't contain spaces or null characters"));
    }
    let words: Vec<&[u8]> = args.iter_from(3).collect();
    let rules = match merge_selectors(&words) {
        Ok(rules) => rules,
        Err(at) => {
            let head = b"ERR Unmatched parenthesis in acl selector starting at '";
            return fail(cx, &[head, words[at], b"'."]);
        }
    };
    if let Err((rule, error)) = acl::set_user(cx, name, &rules) {
        let (head, text) = (b"ERR Error in ACL SETUSER modifier '", error.text().as_bytes());
        return fail(cx, &[head, &rule, b"': ", text]);
    }
    cx.reply.ok();
    Ok(())
}

/// Entries that ACL LOG shows when no number is given.
const LOG_SHOWN: i64 = 10;

fn log(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let count = match args.len() {
        2 => LOG_SHOWN,
        3 if args.get(2).eq_ignore_ascii_case(b"RESET") => {
            cx.shared.acl.log.clear();
            cx.reply.ok();
            return Ok(());
        }
        3 => parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?,
        _ => return Err(cx.subcommand_syntax(args)),
    };
    let denials = cx.shared.acl.log.newest(usize::try_from(count).unwrap_or(0));
    let now_ms = cx.worker.now_ms;
    cx.reply.array(denials.len());
    denials.iter().for_each(|denial| write_denial(&mut cx.reply, denial, now_ms));
    Ok(())
}

fn write_denial(reply: &mut Reply<'_>, denial: &Denial, now_ms: u64) {
    let mut age = Vec::new();
    write_f64_resp3(now_ms.saturating_sub(denial.at_ms) as f64 / 1000.0, &mut age);
    reply.map(7);
    reply.bulk(b"count");
    reply.int(denial.count as i64);
    for (name, text) in [
        ("reason", denial.reason.word().as_bytes()),
        ("context", denial.context.as_bytes()),
        ("object", &denial.object),
        ("username", &denial.username),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text);
    }
    reply.bulk(b"age-seconds");
    reply.double_text(&age);
    reply.bulk(b"client-info");
    reply.bulk(&denial.client);
}

/// The path of the ACL file.
fn acl_file(cx: &Cx<'_>) -> Result<PathBuf, ReplyError> {
    let path = cx.shared.config.get("aclfile");
    if path.is_empty() {
        return Err(ReplyError::Text(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify \
             users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a \
             Redis configuration file set) in order to store users in the Redis configuration.",
        ));
    }
    Ok(path.into())
}

fn load(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let path = acl_file(cx)?;
    if let Err(text) = acl::load(cx, &path) {
        return fail(cx, &[b"ERR ", &text]);
    }
    cx.reply.ok();
    Ok(())
}

fn save(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let path = acl_file(cx)?;
    if let Err(error) = acl::save(cx.shared, &path) {
        tracing::warn!("cannot save the ACLs to {}: {error}", path.display());
        return Err(ReplyError::Text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more \
             information",
        ));
    }
    cx.reply.ok();
    Ok(())
}
