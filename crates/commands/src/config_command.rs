//! The CONFIG command, over the settings of [`crate::config`].

use crate::acl;
use crate::config::{self, ALIASES, SETTINGS};
use crate::config_file;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::glob::glob_match;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command {
    group: Group::Server,
    since: "2.0.0",
    flags: Flags::ADMIN.or(Flags::NO_SCRIPT).or(Flags::LOADING).or(Flags::STALE),
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "CONFIG",
    arity: -2,
    flags: Flags::NONE,
    summary: "Shows and changes settings.",
    complexity: "That of the subcommand",
    subcommands: CONFIG,
    ..BASE
}];

const CONFIG: &[Command] = &[
    Command {
        name: "GET",
        arity: -3,
        run: get,
        summary: "The values of the settings that match the patterns.",
        complexity: "O(N) in the number of patterns",
        syntax: "parameter [parameter ...]",
        examples: "> CONFIG GET maxmemory-p*\n1) \"maxmemory-policy\"\n2) \"noeviction\"",
        ..BASE
    },
    Command {
        name: "SET",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        arity: -4,
        keys: Keys::Each,
        run: set,
        summary: "Changes settings, all or none.",
        complexity: "O(N) in the number of settings",
        syntax: "parameter value [parameter value ...]",
        examples: "> CONFIG SET maxmemory 1gb\nOK\n> CONFIG SET port 1\n(error) ERR CONFIG SET \
                   failed (possibly related to argument 'port') - can't set immutable config",
        ..BASE
    },
    Command {
        name: "RESETSTAT",
        arity: 2,
        run: resetstat,
        summary: "Starts the counters of INFO again from zero.",
        examples: "> CONFIG RESETSTAT\nOK",
        ..BASE
    },
    Command {
        name: "REWRITE",
        since: "2.8.0",
        arity: 2,
        run: rewrite,
        summary: "Writes the settings in force to the file that was read at start.",
        examples: "> CONFIG REWRITE\n(error) ERR The server is running without a config file",
        ..BASE
    },
    Command {
        name: "HELP",
        since: "5.0.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "The subcommands.",
        examples: "> CONFIG HELP\n…CONFIG <subcommand> …",
        ..BASE
    },
];

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let is_asked =
        |name: &str| args.iter_from(2).any(|pattern| glob_match(pattern, name.as_bytes(), true));
    let names = SETTINGS.iter().map(|s| s.name).chain(ALIASES.iter().map(|(alias, _)| *alias));
    let shown: Vec<&str> = names.filter(|name| is_asked(name)).collect();
    cx.reply.map(shown.len());
    for name in shown {
        cx.reply.bulk(name.as_bytes());
        let value = cx.shared.config.get(name);
        // Whoever has it is a node of the cluster to the others.
        let is_hidden = name == "cluster-secret" && !value.is_empty();
        cx.reply.bulk(if is_hidden { b"(redacted)" } else { value.as_bytes() });
    }
    Ok(())
}

fn set(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return Err(ReplyError::Syntax);
    }
    let text = |i: usize| String::from_utf8_lossy(args.get(i)).into_owned();
    let pairs: Vec<_> = (2..args.len()).step_by(2).map(|i| (text(i), text(i + 1))).collect();
    let unknown = pairs.iter().find(|(name, _)| config::index_of(name).is_none());
    let error = match unknown {
        Some((name, _)) => {
            format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        }
        None => match set_all(cx, &pairs) {
            Ok(()) => {
                cx.reply.ok();
                return Ok(());
            }
            Err((name, why)) => {
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
            }
        },
    };
    cx.reply.error(error.as_bytes());
    Err(ReplyError::Written)
}

/// Changes the settings, and what the partitions do of logs and of the uses of keys where these ask for
/// it: under the locks that a transaction holds, or each partition's own.
fn set_all(cx: &mut Cx<'_>, pairs: &[(String, String)]) -> Result<(), (String, String)> {
    set_with_logs(cx, pairs)?;
    let (mode, now_s) = (cx.shared.keyspace.uses.mode(), cx.keys.now_s);
    if pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case("maxmemory-policy")) {
        cx.keys.each_shard(|_, shard| {
            shard.set_mode(mode, now_s);
            true
        });
    }
    Ok(())
}

fn set_with_logs(cx: &mut Cx<'_>, pairs: &[(String, String)]) -> Result<(), (String, String)> {
    let shared = cx.shared;
    let hot = &shared.config.hot;
    if !pairs.iter().any(|(name, _)| config::is_of_logs(name)) {
        return config::set_live(shared, pairs);
    }
    if hot.notify.load(Relaxed) != 0 {
        // What a transaction wrote so far is told as the old setting says.
        cx.keys.each_shard(|_, shard| {
            shard.take_notifications(&mut |effect| crate::pubsub::notify(shared, &effect));
            true
        });
    }
    config::set_live(shared, pairs)?;
    let log_bytes = hot.log_bytes();
    cx.keys.each_shard(|_, shard| {
        shard.start_log(log_bytes);
        true
    });
    Ok(())
}

fn resetstat(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.shared.reset_stats(cx.worker.id);
    cx.reply.ok();
    Ok(())
}

fn rewrite(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let Some(path) = cx.shared.config.file.as_deref() else {
        return Err(ReplyError::Text("ERR The server is running without a config file"));
    };
    let users = match acl::config_lines(cx.shared) {
        Ok(users) => users,
        Err(why) => {
            cx.reply.error(format!("ERR Rewriting config file: {why}").as_bytes());
            return Err(ReplyError::Written);
        }
    };
    let value_of = |name: &str| cx.shared.config.get(name);
    let written = std::fs::read(path)
        .map(|old| config_file::rewritten(&old, &value_of, &users))
        .and_then(|text| replace_file(path, &text));
    if let Err(error) = written {
        cx.reply.error(format!("ERR Rewriting config file: {error}").as_bytes());
        return Err(ReplyError::Written);
    }
    cx.reply.ok();
    Ok(())
}

/// The file is either the old or the new one whatever happens.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&name);
    let write = || {
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    };
    write().inspect_err(|_| {
        // What is left of the attempt helps nobody.
        let _never_made = std::fs::remove_file(temporary);
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    fn check_bytes(harness: &Harness) {
        assert_eq!(harness.shared.bytes_used(), harness.bytes_there());
    }

    #[test]
    fn a_setting_may_have_two_names() {
        let mut h = Harness::default();
        assert_eq!(h.run("CONFIG SET commandlog-execution-slower-than 7"), b"+OK\r\n");
        for name in ["slowlog-log-slower-than", "commandlog-execution-slower-than"] {
            let expected = format!("*2\r\n${}\r\n{name}\r\n$1\r\n7\r\n", name.len());
            assert_eq!(h.run(&format!("CONFIG GET {name}")), expected.as_bytes());
        }
        let twice = "CONFIG SET slowlog-max-len 1 commandlog-slow-execution-max-len 2";
        assert!(h.run(twice).starts_with(b"-ERR CONFIG SET failed"));
    }

    #[test]
    fn logs_are_resized_within_a_transaction() {
        let mut harness = Harness::default();
        for line in ["MULTI", "SET a 1", "CONFIG SET notify-keyspace-events KEA", "SET b 2"] {
            harness.run(line);
        }
        assert_eq!(harness.run("EXEC"), b"*3\r\n+OK\r\n+OK\r\n+OK\r\n");
        check_bytes(&harness);
    }

    #[test]
    fn bytes_of_a_log_that_is_dropped_are_given_back() {
        let mut harness = Harness::default();
        harness.run("CONFIG SET notify-keyspace-events KEA");
        harness.run("SET a 1");
        check_bytes(&harness);
        harness.run("CONFIG SET notify-keyspace-events ''");
        check_bytes(&harness);
    }

    #[test]
    fn bytes_of_logs_that_only_swapdb_wrote_to_are_counted() {
        let mut harness = Harness::default();
        harness.run("CONFIG SET notify-keyspace-events KEA");
        harness.run("SWAPDB 0 1");
        check_bytes(&harness);
    }
}
