//! Scripts: EVAL and its forms, SCRIPT. What runs them is above this crate; see [`crate::scripts`].

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::scripts::{Call, Script, ScriptFlags, Vm, with_vm};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use crate::turn::Kind;
use hypercache_protocol::parse::Args;
use hypercache_stdx::{number, sha1};

pub(crate) const BASE: Command =
    Command { group: Group::Scripting, since: "2.6.0", acl: Acl::SCRIPTING, ..Command::DEFAULT };

/// Flags of all commands that run scripts.
pub(crate) const RUNS: Flags = Flags::NO_SCRIPT
    .or(Flags::STALE)
    .or(Flags::SKIP_MONITOR)
    .or(Flags::NO_MANDATORY_KEYS)
    .or(Flags::MOVABLE_KEYS);
/// Their keys: what is done with them is not known, so the worst is said.
pub(crate) const ANY_KEYS: Keys =
    Keys::Counted { count: 2, flags: KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE) };
pub(crate) const READ_KEYS: Keys =
    Keys::Counted { count: 2, flags: KeyFlags::RO.or(KeyFlags::ACCESS) };
const COMPLEXITY: &str = "That of the script";
const DIGEST_SYNTAX: &str = "sha1 numkeys [key [key ...]] [arg [arg ...]]";
const SCRIPT_SYNTAX: &str = "script numkeys [key [key ...]] [arg [arg ...]]";
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "EVAL",
        arity: -3,
        keys: ANY_KEYS,
        flags: RUNS,
        run: eval,
        summary: "Runs a Lua script.",
        complexity: COMPLEXITY,
        syntax: SCRIPT_SYNTAX,
        examples: "> EVAL \"return {KEYS[1], ARGV[1], 3.9}\" 1 k v\n1) \"k\"\n2) \"v\"\n3) (integer) 3\n> EVAL \"return redis.call('INCR', KEYS[1])\" 1 n\n(integer) 1\n> EVAL \"return redis.call('NOSUCH')\" 0\n(error) ERR Unknown Redis command called from script script: 7ae0187b9ac91447963709e3bfd83c5935fec648, on @user_script:1.",
        ..BASE
    },
    Command {
        name: "EVALSHA",
        arity: -3,
        keys: ANY_KEYS,
        flags: RUNS,
        run: evalsha,
        summary: "Runs a Lua script that the server knows, by its SHA1.",
        complexity: COMPLEXITY,
        syntax: DIGEST_SYNTAX,
        examples: "> EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0\n(error) NOSCRIPT No matching script. Please use EVAL.\n> SCRIPT LOAD \"return 1\"\n\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\"\n> EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0\n(integer) 1",
        ..BASE
    },
    Command {
        name: "EVAL_RO",
        since: "7.0.0",
        arity: -3,
        keys: READ_KEYS,
        flags: RUNS.or(Flags::READONLY),
        run: eval_ro,
        summary: "Runs a Lua script that must not write.",
        complexity: COMPLEXITY,
        syntax: SCRIPT_SYNTAX,
        examples: "> SET k v\nOK\n> EVAL_RO \"return redis.call('GET', KEYS[1])\" 1 k\n\"v\"",
        ..BASE
    },
    Command {
        name: "EVALSHA_RO",
        since: "7.0.0",
        arity: -3,
        keys: READ_KEYS,
        flags: RUNS.or(Flags::READONLY),
        run: evalsha_ro,
        summary: "Runs a Lua script that the server knows and that must not write, by its SHA1.",
        complexity: COMPLEXITY,
        syntax: DIGEST_SYNTAX,
        examples: "> EVALSHA_RO nosuch 0\n(error) NOSCRIPT No matching script. Please use EVAL.",
        ..BASE
    },
    Command {
        name: "SCRIPT",
        arity: -2,
        acl: Acl::NONE,
        summary: "Manages the cache of scripts.",
        complexity: "Depends on subcommand.",
        subcommands: SCRIPT,
        ..BASE
    },
];

const SCRIPT: &[Command] = &[
    Command {
        name: "DEBUG",
        since: "3.2.0",
        arity: 3,
        flags: Flags::NO_SCRIPT,
        run: debug,
        summary: "Would start the debugger of scripts, which is not there: only NO is taken.",
        syntax: "<YES | SYNC | NO>",
        examples: "> SCRIPT DEBUG NO\nOK",
        ..BASE
    },
    Command {
        name: "EXISTS",
        arity: -3,
        flags: Flags::NO_SCRIPT,
        run: exists,
        summary: "Which scripts the server knows, by their SHA1.",
        complexity: "O(N) in the number of scripts named",
        syntax: "sha1 [sha1 ...]",
        examples: "> SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db\n1) (integer) 0",
        tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
        ..BASE
    },
    Command {
        name: "FLUSH",
        arity: -2,
        flags: Flags::NO_SCRIPT,
        run: flush,
        summary: "Forgets all scripts.",
        complexity: "O(N) in the number of scripts",
        syntax: "[ASYNC | SYNC]",
        examples: "> SCRIPT FLUSH\nOK",
        tips: ALL_NODES,
        ..BASE
    },
    Command {
        name: "HELP",
        since: "5.0.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> SCRIPT HELP\n…SCRIPT <subcommand> …",
        ..BASE
    },
    Command {
        name: "KILL",
        arity: 2,
        flags: Flags::NO_SCRIPT.or(Flags::ALLOW_BUSY),
        run: kill,
        summary: "Ends the script that runs, if it has not written.",
        examples: "> SCRIPT KILL\n(error) NOTBUSY No scripts in execution right now.",
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..BASE
    },
    Command {
        name: "LOAD",
        arity: 3,
        flags: Flags::NO_SCRIPT.or(Flags::STALE),
        run: load,
        summary: "Takes a script for EVALSHA without running it, and gives its SHA1.",
        complexity: "O(N) in the length of the script",
        syntax: "script",
        examples: "> SCRIPT LOAD \"return 1\"\n\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\"\n> SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db\n1) (integer) 1",
        tips: ALL_NODES,
        ..BASE
    },
    Command {
        name: "SHOW",
        since: "8.0.0",
        arity: 3,
        flags: Flags::NO_SCRIPT,
        run: show,
        summary: "The text of a script that the server knows, by its SHA1.",
        syntax: "sha1",
        examples: "> SCRIPT LOAD \"return 1\"\n\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\"\n> SCRIPT SHOW e0e1f9fabfc9d4800c877a703b823ac0578ff8db\n\"return 1\"",
        ..BASE
    },
];

const NO_SCRIPT: ReplyError = ReplyError::Text("NOSCRIPT No matching script. Please use EVAL.");

/// Writes an error whose text was put together.
pub(crate) fn fail(cx: &mut Cx<'_>, text: &[u8]) -> ReplyError {
    cx.reply.error(text);
    ReplyError::Written
}

/// How many keys a call says it has.
pub(crate) fn key_count(args: Args<'_>, no_number: ReplyError) -> Result<usize, ReplyError> {
    let keys = number::parse_i64(args.get(2)).ok_or(no_number)?;
    if keys > args.len() as i64 - 3 {
        return Err(ReplyError::Text("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(keys).map_err(|_| ReplyError::Text("ERR Number of keys can't be negative"))
}

fn eval(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    eval_text(cx, args, false)
}

fn eval_ro(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    eval_text(cx, args, true)
}

fn evalsha(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    eval_digest(cx, args, false)
}

fn evalsha_ro(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    eval_digest(cx, args, true)
}

fn eval_text(cx: &mut Cx<'_>, args: Args<'_>, is_readonly: bool) -> Outcome {
    let keys = key_count(args, ReplyError::NotAnInteger)?;
    with_vm(cx, |cx, vm| {
        let text = args.get(1);
        let remembered = vm.digest_of(text);
        let digest = remembered.unwrap_or_else(|| sha1::digest(text));
        let script = match known(cx, vm, &digest) {
            Some(script) => script,
            None => take(cx, vm, digest, text, false).map_err(|text| fail(cx, &text))?,
        };
        if remembered.is_none() {
            vm.remember(&script);
        }
        run(cx, vm, &script, args, keys, is_readonly)
    })?
}

fn eval_digest(cx: &mut Cx<'_>, args: Args<'_>, is_readonly: bool) -> Outcome {
    let hex = args.get(1);
    if hex.len() != 40 {
        return Err(NO_SCRIPT);
    }
    let keys = key_count(args, ReplyError::NotAnInteger)?;
    let digest = sha1::from_hex(hex).ok_or(NO_SCRIPT)?;
    with_vm(cx, |cx, vm| {
        let script = known(cx, vm, &digest).ok_or(NO_SCRIPT)?;
        run(cx, vm, &script, args, keys, is_readonly)
    })?
}

type Shared = std::sync::Arc<Script>;

/// A script of the cache, compiled for this worker.
fn known(cx: &Cx<'_>, vm: &mut dyn Vm, digest: &sha1::Digest) -> Option<Shared> {
    if let Some(script) = vm.compiled(cx, digest) {
        return Some(script);
    }
    let script = cx.shared.scripts.get(digest)?;
    // It compiled elsewhere, so it does here, unless memory is short.
    vm.compile(cx, &script).ok()?;
    vm.keep(&script);
    Some(script)
}

/// Compiles a script and puts it into the cache.
fn take(
    cx: &Cx<'_>,
    vm: &mut dyn Vm,
    digest: sha1::Digest,
    body: &[u8],
    is_loaded: bool,
) -> Result<Shared, Vec<u8>> {
    let script = Script::new(digest, body)?;
    vm.compile(cx, &script)?;
    let script = cx.shared.scripts.add(script, is_loaded);
    vm.keep(&script);
    Ok(script)
}

fn run(
    cx: &mut Cx<'_>,
    vm: &mut dyn Vm,
    script: &Script,
    args: Args<'_>,
    keys: usize,
    is_readonly: bool,
) -> Outcome {
    let flags = script.flags;
    check_flags(cx, flags, is_readonly)?;
    cx.shared.scripts.note_run(script);
    let is_out_of_memory = cx.worker.lacks_room;
    cx.worker.script_slot = crate::cluster::slot_of_script(cx.shared, args, keys);
    let call = Call { args, keys, flags, is_readonly, is_out_of_memory };
    vm.run_script(cx, &script.digest, &call)
}

/// Whether a script that says how it may run may run now.
pub(crate) fn check_flags(cx: &Cx<'_>, flags: ScriptFlags, is_readonly: bool) -> Outcome {
    if flags.has(ScriptFlags::UNDECLARED) || flags.has(ScriptFlags::NO_WRITES) {
        return Ok(());
    }
    if is_readonly {
        let text = "ERR Can not execute a script with write flag using *_ro command.";
        return Err(ReplyError::Text(text));
    }
    if cx.worker.lacks_room && !flags.has(ScriptFlags::ALLOW_OOM) {
        let text = "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'";
        return Err(ReplyError::Text(text));
    }
    Ok(())
}

fn load(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let body = args.get(2);
    let digest = sha1::digest(body);
    let taken = with_vm(cx, |cx, vm| take(cx, vm, digest, body, true))?;
    taken.map_err(|text| fail(cx, &text))?;
    cx.reply.bulk(&sha1::to_hex(&digest));
    Ok(())
}

fn exists(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    cx.reply.array(args.len() - 2);
    for hex in args.iter_from(2) {
        let script = sha1::from_hex(hex).and_then(|digest| cx.shared.scripts.get(&digest));
        cx.reply.int(i64::from(script.is_some()));
    }
    Ok(())
}

fn show(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let script = sha1::from_hex(args.get(2)).and_then(|digest| cx.shared.scripts.get(&digest));
    cx.reply.bulk(&script.ok_or(NO_SCRIPT)?.body);
    Ok(())
}

/// Whether a FLUSH frees in the background; by default it does not.
pub(crate) fn is_async(args: Args<'_>, wrong: ReplyError) -> Result<bool, ReplyError> {
    match args.len() {
        2 => Ok(false),
        3 if args.get(2).eq_ignore_ascii_case(b"async") => Ok(true),
        3 if args.get(2).eq_ignore_ascii_case(b"sync") => Ok(false),
        _ => Err(wrong),
    }
}

fn flush(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let wrong = ReplyError::Text("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
    let is_async = is_async(args, wrong)?;
    let flushed = cx.shared.scripts.flush();
    if is_async {
        crate::shared::free_in_background(Box::new(flushed));
    }
    cx.reply.ok();
    Ok(())
}

fn kill(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    kill_running(cx, Kind::Script)
}

/// SCRIPT KILL and FUNCTION KILL.
pub(crate) fn kill_running(cx: &mut Cx<'_>, kind: Kind) -> Outcome {
    let turn = &cx.shared.keyspace.turn;
    let owed = turn.take_owed(cx.session.client.id);
    owed.unwrap_or_else(|| turn.kill(kind)).map_err(ReplyError::Text)?;
    cx.reply.ok();
    Ok(())
}

fn debug(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mode = args.get(2).to_ascii_lowercase();
    match mode.as_slice() {
        b"no" => cx.reply.ok(),
        b"yes" | b"sync" => {
            return Err(ReplyError::Text("ERR The debugger of scripts is not there"));
        }
        _ => return Err(ReplyError::Text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
    Ok(())
}
