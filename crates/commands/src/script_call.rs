//! A command on behalf of a script: the checks that Redis makes, in its order, and the locks.

use crate::acl::{self, Denied};
use crate::blocking::{Blocking, serve_ready_of};
use crate::cluster::{self, serving};
use crate::context::Cx;
use crate::dispatch;
use crate::scripts::{Call, ScriptFlags};
use crate::session::Session;
use crate::table::{Entry, Flags, table};
use hypercache_protocol::parse::Args;
use hypercache_stdx::clock;
use std::sync::atomic::Ordering::Relaxed;

/// Runs a command; its reply, which may be an error, is then in the output. The time of quick
/// commands is not measured: it counts as the script's alone.
///
/// # Errors
/// The text of the error for which it did not run.
pub fn call(
    cx: &mut Cx<'_>,
    caller: &Session,
    call: &Call<'_>,
    args: Args<'_>,
) -> Result<(), &'static str> {
    let entry = resolve(args)?;
    check(cx, caller, call, entry, args)?;
    if entry.row.flags.has(Flags::WRITE) {
        cx.shared.keyspace.turn.note_write();
    }
    hold(cx, entry, args);
    check_place(cx, caller, entry, args)?;
    cx.entry = entry;
    let started_ns = if entry.is_quick { 0 } else { clock::mono_ns() };
    let before = std::mem::replace(&mut cx.blocking, Blocking::Denied);
    let failed = dispatch::run(cx, args);
    cx.blocking = before;
    let nanos = if entry.is_quick { 0 } else { clock::mono_ns() - started_ns };
    cx.worker.stats.count_commands(entry.id, 1, nanos, u64::from(failed));
    // SELECT changes it for what follows.
    cx.keys.db = cx.session.db;
    if cx.shared.monitor_count.load(Relaxed) > 0 {
        crate::monitor::feed_monitors(cx.shared, cx.session, entry, args);
    }
    Ok(())
}

/// The row that will run: of a container, the subcommand's.
///
/// # Errors
/// The text of the error when there is none, or the number of arguments is another.
pub fn resolve(args: Args<'_>) -> Result<&'static Entry, &'static str> {
    const UNKNOWN: &str = "ERR Unknown Redis command called from script";
    let mut entry = table().get(args.get(0)).ok_or(UNKNOWN)?;
    if !entry.subcommands.is_empty() && args.len() > 1 {
        entry = entry.subcommand(args.get(1)).ok_or(UNKNOWN)?;
    }
    if !entry.row.accepts(args.len()) {
        return Err("ERR Wrong number of args calling Redis command from script");
    }
    Ok(entry)
}

/// Whether the caller may run a command; `None` when there is no such command.
pub fn may_run(cx: &mut Cx<'_>, caller: &Session, args: Args<'_>) -> Option<bool> {
    let mut entry = table().get(args.get(0))?;
    if !entry.subcommands.is_empty() && args.len() > 1 {
        entry = entry.subcommand(args.get(1))?;
    }
    Some(acl::check(cx.shared, cx.worker, caller, entry, args).is_ok())
}

fn check(
    cx: &mut Cx<'_>,
    caller: &Session,
    call: &Call<'_>,
    entry: &Entry,
    args: Args<'_>,
) -> Result<(), &'static str> {
    let flags = entry.row.flags;
    if flags.has(Flags::NO_SCRIPT) {
        return Err("ERR This Redis command is not allowed from script");
    }
    if let Err(denied) = acl::check(cx.shared, cx.worker, caller, entry, args) {
        acl::note(cx, caller, denied, "lua", entry, args);
        return Err(refusal(denied));
    }
    if cx.shared.cluster.is_enabled() {
        check_slot(cx, entry, args)?;
    }
    let may_write = !call.is_readonly && !call.flags.has(ScriptFlags::NO_WRITES);
    if flags.has(Flags::WRITE) && !may_write {
        return Err("ERR Write commands are not allowed from read-only scripts.");
    }
    // What has begun to write is not left half done for want of memory.
    let lacks_room = call.is_out_of_memory && !call.flags.has(ScriptFlags::ALLOW_OOM);
    if lacks_room && flags.has(Flags::DENY_OOM) && !cx.shared.keyspace.turn.has_written() {
        return Err(crate::ReplyError::OutOfMemory.text());
    }
    Ok(())
}

/// Whether this node serves the keys of a command, which are held.
fn check_place(
    cx: &Cx<'_>,
    caller: &Session,
    entry: &Entry,
    args: Args<'_>,
) -> Result<(), &'static str> {
    let Some(plane) = cx.shared.cluster.plane() else { return Ok(()) };
    let admitted = serving::admit(cx, plane, (entry, args), &caller.client);
    let is_write = entry.row.flags.has(Flags::WRITE);
    admitted.map_err(|refusal| refusal.script_text(is_write))
}

/// Whether the slot of a command's keys is that of the script's other keys.
fn check_slot(cx: &mut Cx<'_>, entry: &Entry, args: Args<'_>) -> Result<(), &'static str> {
    let crossing = "ERR Script attempted to access keys that do not hash to the same slot";
    let slot = cluster::slot_of_keys(entry, args).map_err(|_| crossing)?;
    let of_script = cx.worker.script_slot;
    if slot.is_some() && of_script.is_some() && slot != of_script {
        return Err(crossing);
    }
    cx.worker.script_slot = of_script.or(slot);
    Ok(())
}

/// What a script is told when its caller may not do what it asks for.
fn refusal(denied: Denied) -> &'static str {
    match denied {
        Denied::Command => "ERR The user executing the script can't run this command or subcommand",
        Denied::Key(_) => {
            "ERR The user executing the script can't access at least one of the keys mentioned in the \
             command arguments"
        }
        Denied::Channel(_) => {
            "ERR The user executing the script can't publish to the channel mentioned in the command"
        }
    }
}

/// Takes the partitions of the command's keys that the script does not hold yet.
fn hold(cx: &mut Cx<'_>, entry: &'static Entry, args: Args<'_>) {
    if entry.has_one_key && args.len() > 1 {
        let partition = crate::keyspace::partition_of(args.get(1));
        if !cx.keys.holds(partition) {
            hold_more(cx, &[partition]);
        }
        return;
    }
    let mut partitions = Vec::new();
    dispatch::add_partitions(cx.shared, entry, args, &mut partitions);
    partitions.sort_unstable();
    partitions.retain(|partition| !cx.keys.holds(*partition));
    partitions.dedup();
    if !partitions.is_empty() {
        hold_more(cx, &partitions);
    }
}

fn hold_more(cx: &mut Cx<'_>, partitions: &[u16]) {
    cx.keys.hold_more(partitions);
    if partitions.iter().any(|partition| cx.keys.is_ready(*partition)) {
        serve_ready_of(cx, partitions);
    }
}
