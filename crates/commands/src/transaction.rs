//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! EXEC locks the partitions of all keys of all queued commands, and of the watched keys, in
//! ascending order, and runs the commands under those locks: all or none, and nothing in between.

use crate::acl::{self, Denied};
use crate::blocking::{Blocking, serve_ready};
use crate::client::ClientFlags;
use crate::cluster::serving;
use crate::commandlog;
use crate::context::Cx;
use crate::dispatch;
use crate::error::{Outcome, ReplyError};
use crate::session::{Multi, Session, Watch};
use crate::table::{Acl, Command, Entry, Flags, Group, KeyFlags, Keys};
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_stdx::clock;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

const BASE: Command =
    Command { group: Group::Transactions, acl: Acl::TRANSACTION, ..Command::DEFAULT };

const ALWAYS: Flags = Flags::NO_SCRIPT.or(Flags::LOADING).or(Flags::STALE);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "MULTI",
        since: "1.2.0",
        arity: 1,
        flags: ALWAYS.or(Flags::FAST).or(Flags::ALLOW_BUSY),
        run: multi,
        summary: "Begins a transaction: the commands that follow are queued.",
        examples: "> MULTI\nOK\n> SET a 1\nQUEUED\n> EXEC\n1) OK",
        ..BASE
    },
    Command {
        name: "EXEC",
        since: "1.2.0",
        arity: 1,
        flags: ALWAYS.or(Flags::SKIP_SLOWLOG),
        run: exec,
        summary: "Runs the queued commands, all or none.",
        complexity: "That of the queued commands",
        examples: "> EXEC\n(error) ERR EXEC without MULTI",
        ..BASE
    },
    Command {
        name: "DISCARD",
        since: "2.0.0",
        arity: 1,
        flags: ALWAYS.or(Flags::FAST).or(Flags::ALLOW_BUSY),
        run: discard,
        summary: "Forgets the queued commands and the watched keys.",
        complexity: "O(N) in the number of queued commands",
        examples: "> MULTI\nOK\n> DISCARD\nOK",
        ..BASE
    },
    Command {
        name: "WATCH",
        since: "2.2.0",
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RO },
        flags: ALWAYS.or(Flags::FAST).or(Flags::ALLOW_BUSY),
        run: watch,
        summary: "Makes the next EXEC depend on these keys not changing.",
        complexity: "O(1) for every key",
        syntax: "key [key ...]",
        examples: "> WATCH a b\nOK\n> UNWATCH\nOK",
        ..BASE
    },
    Command {
        name: "UNWATCH",
        since: "2.2.0",
        arity: 1,
        flags: ALWAYS.or(Flags::FAST).or(Flags::ALLOW_BUSY),
        run: unwatch,
        summary: "Forgets the watched keys.",
        examples: "> UNWATCH\nOK",
        ..BASE
    },
];

/// Whether a command runs although a transaction is being queued.
pub(crate) fn runs_at_once(entry: &Entry) -> bool {
    matches!(entry.row.name, "EXEC" | "DISCARD" | "MULTI" | "WATCH" | "QUIT" | "RESET")
}

/// Queues a command.
pub(crate) fn queue(session: &mut Session, entry: &'static Entry, args: Args<'_>) {
    let Some(multi) = session.multi_mut() else { return };
    if multi.is_aborted {
        // It will not run, so it need not be kept.
        return;
    }
    let args = OwnedArgs::copy_of(args);
    multi.bytes += (args.bytes_used() + size_of::<(&Entry, OwnedArgs)>()) as u64;
    multi.queue.push((entry, args));
    let count = multi.queue.len() as i32;
    session.client.set_queued(count);
}

fn multi(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    if cx.session.multi().is_some() {
        return Err(ReplyError::NestedMulti);
    }
    cx.session.make_cold().multi = Some(Box::<Multi>::default());
    cx.session.client.set_queued(0);
    cx.session.client.set_flag(ClientFlags::MULTI, true);
    cx.reply.ok();
    Ok(())
}

fn discard(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    if cx.session.multi().is_none() {
        return Err(ReplyError::DiscardWithoutMulti);
    }
    cx.session.discard_transaction(cx.shared);
    cx.reply.ok();
    Ok(())
}

fn watch(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if cx.session.multi().is_some() {
        return Err(ReplyError::WatchInMulti);
    }
    let registered = &cx.shared.keyspace.registered;
    let watch = &mut cx.session.make_cold().watch;
    let watch = watch.get_or_insert_with(|| Box::new(Watch::new(registered)));
    for key in args.iter_from(1) {
        if watch.insert(cx.keys.db, key) {
            cx.keys.watch(key, &watch.flag);
        }
    }
    cx.reply.ok();
    Ok(())
}

fn unwatch(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.session.unwatch(cx.shared);
    cx.reply.ok();
    Ok(())
}

fn exec(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let Some(multi) = cx.session.take_multi() else { return Err(ReplyError::ExecWithoutMulti) };
    if multi.is_aborted {
        cx.session.discard_transaction(cx.shared);
        return Err(ReplyError::ExecAbort);
    }
    if !hold_all_keys(cx, &multi) || cx.keys.has_ready() && !serve_ready(cx) {
        cx.keys.release(None);
        cx.session.discard_transaction(cx.shared);
        let text = cx.shared.keyspace.turn.busy_text();
        let text = text.strip_prefix("BUSY ").unwrap_or(text);
        cx.reply
            .error(format!("EXECABORT Transaction discarded because of: BUSY {text}").as_bytes());
        return Err(ReplyError::Written);
    }
    if !may_run_here(cx, &multi) {
        return Err(ReplyError::Written);
    }
    let is_untouched = watched_keys_are_untouched(cx);
    // The watch ends with the transaction either way. Its keys stay registered until the locks
    // are released, which harms nobody: the flag is no longer looked at.
    let watch = cx.session.take_watch();
    if is_untouched {
        let before = std::mem::replace(&mut cx.blocking, Blocking::Denied);
        run_queue(cx, &multi);
        cx.blocking = before;
    } else {
        cx.reply.null_array();
    }
    if cx.keys.has_ready() {
        // What a script keeps from being served now is served when it can be.
        let _is_served = serve_ready(cx);
    }
    if let Some(plane) = cx.shared.cluster.plane() {
        serving::note_needs_of_queue(cx, plane, &multi);
    }
    dispatch::release(cx.shared, &mut cx.keys);
    cx.session.make_cold().watch = watch;
    cx.session.discard_transaction(cx.shared);
    Ok(())
}

/// Whether this node serves the keys of a transaction, which are held; if not it is over.
fn may_run_here(cx: &mut Cx<'_>, multi: &Multi) -> bool {
    let Some(plane) = cx.shared.cluster.plane() else { return true };
    let Err(refusal) = serving::admit_queue(cx, plane, multi) else { return true };
    cx.keys.release(None);
    cx.session.discard_transaction(cx.shared);
    cx.reply.error(refusal.text(plane).as_bytes());
    false
}

/// Says whether it could: not when a script holds what is needed for too long.
fn hold_all_keys(cx: &mut Cx<'_>, multi: &Multi) -> bool {
    if multi.queue.iter().any(|(entry, _)| entry.runs_scripts) && !cx.keys.take_turn() {
        return false;
    }
    let mut partitions = Vec::new();
    for (entry, args) in &multi.queue {
        dispatch::add_partitions(cx.shared, entry, args.as_args(), &mut partitions);
    }
    let watched = cx.session.watch().into_iter().flat_map(|w| w.keys.keys());
    partitions.extend(watched.map(|(_, key)| crate::keyspace::partition_of(key)));
    cx.keys.hold_many(&mut partitions)
}

/// Whether no watched key changed. One whose time is past since it was watched has changed:
/// looking at it removes it, which raises the flag.
fn watched_keys_are_untouched(cx: &mut Cx<'_>) -> bool {
    let Some(watch) = cx.session.watch() else { return true };
    let db = cx.keys.db;
    for (watched_db, key) in watch.keys.keys() {
        cx.keys.db = *watched_db;
        cx.keys.exists(key);
    }
    cx.keys.db = db;
    !watch.flag.load(Acquire)
}

fn run_queue(cx: &mut Cx<'_>, multi: &Multi) {
    let exec = cx.entry;
    cx.reply.array(multi.queue.len());
    let mut last_ns = clock::mono_ns();
    for (entry, args) in &multi.queue {
        cx.entry = entry;
        let args_of = args.as_args();
        if let Err(denied) = acl::check(cx.shared, cx.worker, cx.session, entry, args_of) {
            deny(cx, denied, args_of);
            continue;
        }
        let before = commandlog::begin(cx);
        let failed = dispatch::run(cx, args_of);
        if let Some(before) = before {
            commandlog::end(cx, entry, args_of, before);
        }
        if cx.session.is_tracking() {
            crate::tracking::remember(cx, entry, args_of);
        }
        let now_ns = clock::mono_ns();
        let nanos = now_ns - last_ns;
        last_ns = now_ns;
        cx.worker.stats.count_commands(entry.id, 1, nanos, u64::from(failed));
        dispatch::note_slow(cx.shared, cx.session, entry, args.as_args(), nanos);
        if cx.shared.monitor_count.load(Relaxed) > 0 {
            crate::monitor::feed_monitors(cx.shared, cx.session, entry, args.as_args());
        }
    }
    cx.entry = exec;
}

/// Answers a queued command that the client's user may no longer run.
#[cold]
fn deny(cx: &mut Cx<'_>, denied: Denied, args: Args<'_>) {
    acl::note(cx, cx.session, denied, "multi", cx.entry, args);
    let why = match denied {
        Denied::Command => "execute the command or subcommand",
        Denied::Key(_) => "touch the specified keys",
        Denied::Channel(_) => "access one of the channels used as arguments",
    };
    let text = format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
         call. This command is no longer allowed for the following reason: no permission to {why}"
    );
    cx.reply.error(text.as_bytes());
    cx.worker.stats.count_error(text.as_bytes());
}
