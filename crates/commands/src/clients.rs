//! The CLIENT command.

mod filter;

use crate::acl::{self, Account};
use crate::client::{Client, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::memcached::ROWS;
use crate::session::{ReplyMode, Session};
use crate::shared::Shared;
use crate::table::{Acl, Command, Entry, Flags, Group, table};
use filter::{Filter, capabilities, is_filter};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number::parse_i64;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const ALWAYS: Flags = Flags::NO_SCRIPT.or(Flags::LOADING).or(Flags::STALE);
const ADMIN: Flags = ALWAYS.or(Flags::ADMIN);

const BASE: Command =
    Command { group: Group::Connection, acl: Acl::CONNECTION, flags: ALWAYS, ..Command::DEFAULT };

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "CLIENT",
    since: "2.4.0",
    arity: -2,
    flags: Flags::NONE,
    acl: Acl::NONE,
    summary: "Tells about connections, and manages them.",
    complexity: "That of the subcommand",
    subcommands: CLIENT,
    ..BASE
}];

const CLIENT: &[Command] = &[
    crate::tracking::CACHING,
    Command {
        name: "CAPA",
        since: "8.0.0",
        arity: -3,
        flags: ALWAYS.or(Flags::ALLOW_BUSY),
        run: capa,
        summary: "Says what the client can do, as CLIENT LIST shows it: `redirect` goes where it is told.",
        syntax: "capability [capability ...]",
        examples: "> CLIENT CAPA redirect\nOK\n> CLIENT LIST CAPA r\n\"id=… capa=r\\n\"",
        ..BASE
    },
    Command {
        name: "GETNAME",
        since: "2.6.9",
        arity: 2,
        run: getname,
        summary: "The name that this connection was given.",
        examples: "> CLIENT GETNAME\n(nil)\n> CLIENT SETNAME worker-1\nOK\n> CLIENT GETNAME\n\
                   \"worker-1\"",
        ..BASE
    },
    crate::tracking::GETREDIR,
    Command {
        name: "HELP",
        since: "5.0.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> CLIENT HELP\n…CLIENT <subcommand> …",
        ..BASE
    },
    Command {
        name: "ID",
        since: "5.0.0",
        arity: 2,
        run: id,
        summary: "The number of this connection, which no other ever gets.",
        examples: "> CLIENT ID\n(integer) …",
        ..BASE
    },
    Command {
        name: "INFO",
        tips: &["nondeterministic_output"],
        since: "6.2.0",
        arity: 2,
        run: info,
        summary: "What CLIENT LIST shows of this connection.",
        examples: "> CLIENT INFO\n\"id=… addr=… db=0 …\"",
        ..BASE
    },
    Command {
        name: "KILL",
        since: "2.4.0",
        arity: -3,
        flags: ADMIN,
        run: kill,
        summary: "Closes the connections that match all filters; answers how many.",
        complexity: "O(N) in the number of connections",
        syntax: "<ip:port | [ID client-id [client-id ...]] [TYPE NORMAL | MASTER | SLAVE | REPLICA | PUBSUB] \
                 [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME YES | NO] [MAXAGE seconds] \
                 [IDLE seconds] [NAME name] [LIB-NAME libname] [LIB-VER libver] [FLAGS flags] \
                 [CAPA capa] [DB db] [IP ip] [NOT-ID client-id [client-id ...]] [NOT-TYPE type] \
                 [NOT-USER username] [NOT-ADDR ip:port] [NOT-LADDR ip:port] [NOT-NAME name] \
                 [NOT-LIB-NAME libname] [NOT-LIB-VER libver] [NOT-FLAGS flags] [NOT-CAPA capa] \
                 [NOT-DB db] [NOT-IP ip]>",
        examples: "> CLIENT KILL 192.0.2.1:1000\n(error) ERR No such client\n\
                   > CLIENT KILL TYPE pubsub\n(integer) 0\n> CLIENT KILL NAME worker-1 NOT-DB 0\n(integer) 0",
        ..BASE
    },
    Command {
        name: "LIST",
        tips: &["nondeterministic_output"],
        since: "2.4.0",
        arity: -2,
        flags: ADMIN,
        run: list,
        summary: "One line of fields for each connection.",
        complexity: "O(N) in the number of connections",
        syntax: "[ID client-id [client-id ...]] [TYPE NORMAL | MASTER | REPLICA | PUBSUB] \
                 [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME YES | NO] [MAXAGE seconds] \
                 [IDLE seconds] [NAME name] [LIB-NAME libname] [LIB-VER libver] [FLAGS flags] \
                 [CAPA capa] [DB db] [IP ip] [NOT-ID client-id [client-id ...]] [NOT-TYPE type] \
                 [NOT-USER username] [NOT-ADDR ip:port] [NOT-LADDR ip:port] [NOT-NAME name] \
                 [NOT-LIB-NAME libname] [NOT-LIB-VER libver] [NOT-FLAGS flags] [NOT-CAPA capa] \
                 [NOT-DB db] [NOT-IP ip]",
        examples: "> CLIENT LIST TYPE disk\n(error) ERR Unknown client type 'disk'\n\
                   > CLIENT LIST NAME nobody\n\"\"",
        ..BASE
    },
    Command {
        name: "NO-EVICT",
        since: "7.0.0",
        arity: 3,
        flags: ADMIN,
        run: no_evict,
        summary: "Whether this connection is spared when connections are closed to free memory.",
        syntax: "<ON | OFF>",
        examples: "> CLIENT NO-EVICT ON\nOK",
        ..BASE
    },
    Command {
        name: "NO-TOUCH",
        since: "7.2.0",
        arity: 3,
        run: no_touch,
        summary: "Whether reads of this connection leave the last use of a key as it was.",
        syntax: "<ON | OFF>",
        examples: "> CLIENT NO-TOUCH ON\nOK",
        ..BASE
    },
    Command {
        name: "PAUSE",
        since: "2.9.50",
        arity: -3,
        flags: ADMIN,
        run: pause,
        summary: "Makes all commands, or those that write, wait for some milliseconds.",
        syntax: "timeout [WRITE | ALL]",
        examples: "> CLIENT PAUSE 0\nOK\n> CLIENT PAUSE -1\n(error) ERR timeout is negative",
        ..BASE
    },
    Command {
        name: "REPLY",
        since: "3.2.0",
        arity: 3,
        run: reply,
        summary: "Whether commands are answered: all, none, or all but the next one.",
        syntax: "<ON | OFF | SKIP>",
        examples: "> CLIENT REPLY ON\nOK",
        ..BASE
    },
    Command {
        name: "SETINFO",
        since: "7.2.0",
        arity: 4,
        run: setinfo,
        summary: "Notes the name or version of the client's library.",
        syntax: "<LIB-NAME libname | LIB-VER libver>",
        examples: "> CLIENT SETINFO LIB-NAME redis-py\nOK",
        ..BASE
    },
    Command {
        name: "SETNAME",
        since: "2.6.9",
        arity: 3,
        run: setname,
        summary: "Gives this connection a name.",
        syntax: "connection-name",
        examples: "> CLIENT SETNAME worker-1\nOK\n> CLIENT SETNAME \"worker 1\"\n(error) ERR Client \
                   names cannot contain spaces, newlines or special characters.",
        ..BASE
    },
    crate::tracking::TRACKING,
    crate::tracking::TRACKINGINFO,
    Command {
        name: "UNBLOCK",
        since: "5.0.0",
        arity: -3,
        flags: ADMIN,
        run: unblock,
        summary: "Ends the wait of a connection in a blocking command; answers whether it waited.",
        syntax: "client-id [TIMEOUT | ERROR]",
        examples: "> CLIENT UNBLOCK 1000\n(integer) 0",
        ..BASE
    },
    Command {
        name: "UNPAUSE",
        since: "6.2.0",
        arity: 2,
        flags: ADMIN,
        run: unpause,
        summary: "Ends CLIENT PAUSE.",
        complexity: "O(N) in the number of connections that wait",
        examples: "> CLIENT UNPAUSE\nOK",
        ..BASE
    },
];

/// Writes an error made of pieces.
pub(crate) fn fail(cx: &mut Cx<'_>, pieces: &[&[u8]]) -> ReplyError {
    cx.reply.error(&pieces.concat());
    ReplyError::Written
}

/// The error of a subcommand that got more arguments than it takes.
fn too_many(cx: &mut Cx<'_>, args: Args<'_>) -> ReplyError {
    let (head, tail) = (b"ERR unknown subcommand or wrong number of arguments for '", b"'. Try ");
    fail(cx, &[head, args.get(1), tail, b"CLIENT HELP."])
}

pub(crate) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// `ON` or `OFF`.
pub(crate) fn on_off(word: &[u8]) -> Result<bool, ReplyError> {
    match word {
        _ if is(word, "ON") => Ok(true),
        _ if is(word, "OFF") => Ok(false),
        _ => Err(ReplyError::Syntax),
    }
}

/// Names must be printable, without spaces, so that CLIENT LIST can be taken apart again.
fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// Names a connection; an empty name takes the name away.
pub(crate) fn set_name(session: &Session, name: &[u8]) -> Outcome {
    if !is_printable(name) {
        return Err(ReplyError::Text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    session.client.rename(|names| names.name = Box::from(name));
    Ok(())
}

fn setname(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    set_name(cx.session, args.get(2))?;
    cx.reply.ok();
    Ok(())
}

fn getname(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let name = cx.session.client.names().name;
    if name.is_empty() {
        cx.reply.null()
    } else {
        cx.reply.bulk(&name)
    }
    Ok(())
}

fn setinfo(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (option, value) = (args.get(2), args.get(3));
    if !is(option, "LIB-NAME") && !is(option, "LIB-VER") {
        return Err(fail(cx, &[b"ERR Unrecognized option '", option, b"'"]));
    }
    if !is_printable(value) {
        let reason = b" cannot contain spaces, newlines or special characters.";
        return Err(fail(cx, &[b"ERR ", option, reason]));
    }
    cx.session.client.rename(|names| {
        let is_name = is(option, "LIB-NAME");
        *if is_name { &mut names.lib_name } else { &mut names.lib_version } = Box::from(value);
    });
    cx.reply.ok();
    Ok(())
}

fn id(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.int(cx.session.client.id as i64);
    Ok(())
}

fn set_flag(cx: &mut Cx<'_>, args: Args<'_>, flag: u32) -> Outcome {
    let on = on_off(args.get(2))?;
    cx.session.client.set_flag(flag, on);
    cx.reply.ok();
    Ok(())
}

fn no_evict(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    set_flag(cx, args, ClientFlags::NO_EVICT)
}

fn no_touch(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    set_flag(cx, args, ClientFlags::NO_TOUCH)
}

fn reply(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mode = &mut cx.session.reply_mode;
    if is(args.get(2), "SKIP") {
        if *mode != ReplyMode::Off {
            *mode = ReplyMode::SkipNext;
        }
        return Ok(());
    }
    *mode = if on_off(args.get(2))? { ReplyMode::On } else { ReplyMode::Off };
    if *mode == ReplyMode::On {
        cx.reply.ok();
    }
    Ok(())
}

fn unblock(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match args.len() {
        3 => {}
        4 if is(args.get(3), "TIMEOUT") || is(args.get(3), "ERROR") => {}
        4 => {
            let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
            return Err(ReplyError::Text(text));
        }
        _ => return Err(too_many(cx, args)),
    }
    let id = parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    let with_error = args.len() == 4 && is(args.get(3), "ERROR");
    let waited = crate::blocking::unblock(cx.shared, id as u64, with_error);
    cx.reply.int(i64::from(waited));
    Ok(())
}

/// Unknown words are for other servers.
fn capa(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.iter_from(2).any(|word| is(word, "redirect")) {
        cx.session.client.set_flag(ClientFlags::REDIRECT_CAPABLE, true);
    }
    cx.reply.ok();
    Ok(())
}

/// Values of [`crate::shared::Pause::mode`].
const PAUSE_WRITES: u8 = 1;
const PAUSE_ALL: u8 = 2;

/// A pause that goes on while another begins ends with the later of both, and is of the stricter
/// mode.
fn pause(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mode = match args.len() {
        3 => PAUSE_ALL,
        4 if is(args.get(3), "WRITE") => PAUSE_WRITES,
        4 if is(args.get(3), "ALL") => PAUSE_ALL,
        4 => return Err(ReplyError::Text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(too_many(cx, args)),
    };
    let Some(timeout_ms) = parse_i64(args.get(2)) else {
        return Err(ReplyError::Text("ERR timeout is not an integer or out of range"));
    };
    if timeout_ms < 0 {
        return Err(ReplyError::Text("ERR timeout is negative"));
    }
    let (pause, now_ms) = (&cx.shared.pause, cx.worker.now_ms);
    let Some(until_ms) = timeout_ms.checked_add_unsigned(now_ms) else {
        return Err(ReplyError::Text("ERR timeout is out of range"));
    };
    if pause.until_ms.load(Relaxed) <= now_ms {
        pause.mode.store(mode, Relaxed);
    } else {
        pause.mode.fetch_max(mode, Relaxed);
    }
    pause.until_ms.fetch_max(until_ms as u64, AcqRel);
    cx.reply.ok();
    Ok(())
}

fn unpause(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    if cx.shared.pause.until_ms.swap(0, AcqRel) != 0 {
        cx.shared.resume_all();
    }
    cx.reply.ok();
    Ok(())
}

/// Whether a request of a memcached client must wait for the end of CLIENT PAUSE.
#[must_use]
pub fn is_memcached_paused(shared: &Shared, now_ms: u64, args: Args<'_>) -> bool {
    let is_over = shared.pause.until_ms.load(Acquire) <= now_ms;
    !is_over && (shared.pause.mode.load(Relaxed) == PAUSE_ALL || crate::memcached::may_write(args))
}

/// Whether a request must wait for the end of CLIENT PAUSE. What would be refused does not wait;
/// neither do monitors.
pub fn is_paused(shared: &Shared, now_ms: u64, entry: Option<&Entry>, session: &Session) -> bool {
    let Some(entry) = entry else { return false };
    let is_over = shared.pause.until_ms.load(Acquire) <= now_ms;
    let is_asked = !session.is_authenticated && !shared.acl.lets_in();
    let is_refused = is_asked && !entry.row.flags.has(Flags::NO_AUTH)
        || session.is_subscribed() && !crate::pubsub::is_allowed(session, entry);
    if is_over || is_refused || session.client.has(ClientFlags::MONITOR) {
        return false;
    }
    shared.pause.mode.load(Relaxed) == PAUSE_ALL || may_write(entry, session)
}

/// Whether a command may change data or what replicas are told; EXEC does what is queued.
fn may_write(entry: &Entry, session: &Session) -> bool {
    let writes = |e: &Entry| e.row.flags.has(Flags::WRITE) || e.row.flags.has(Flags::MAY_REPLICATE);
    let queue = session.multi().into_iter().flat_map(|multi| &multi.queue);
    writes(entry) || entry.row.name == "EXEC" && queue.map(|(e, _)| e).any(|e| writes(e))
}

fn kill(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let filter = match args.len() {
        3 => Filter::by_address(args.get(2)),
        _ => Filter::parse(cx, args, true)?,
    };
    let (caller, now_s) = (cx.session.client.id, cx.worker.now_ms / 1000);
    let mut clients = cx.shared.clients.all();
    clients.retain(|client| filter.matches(client, cx.session, now_s));
    let mut killed = 0;
    for client in &clients {
        killed += 1;
        if client.id == caller {
            // It is to get its reply yet.
            cx.session.is_closing = true;
        } else {
            cx.shared.kill(client);
        }
    }
    match (args.len(), killed) {
        (3, 0) => return Err(ReplyError::Text("ERR No such client")),
        (3, _) => cx.reply.ok(),
        _ => cx.reply.int(killed),
    }
    Ok(())
}

fn info(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let mut text = Vec::new();
    write_line(cx, &cx.session.client, &mut text);
    cx.reply.verbatim("txt", &text);
    Ok(())
}

fn list(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut text = Vec::new();
    for client in clients_to_list(cx, args)? {
        write_line(cx, &client, &mut text);
    }
    cx.reply.verbatim("txt", &text);
    Ok(())
}

fn clients_to_list(cx: &mut Cx<'_>, args: Args<'_>) -> Result<Vec<Arc<Client>>, ReplyError> {
    let has_ids = args.len() > 3 && is(args.get(2), "ID");
    if has_ids && !args.iter_from(3).any(is_filter) {
        // As Redis 7.0: in the order given, and as often.
        let find = |text| match parse_i64(text) {
            Some(id) => Ok(cx.shared.clients.get(id as u64)),
            None => Err(ReplyError::Text("ERR Invalid client ID")),
        };
        return args.iter_from(3).filter_map(|text| find(text).transpose()).collect();
    }
    let filter = Filter::parse(cx, args, false)?;
    let mut clients = cx.shared.clients.all();
    let now_s = cx.worker.now_ms / 1000;
    clients.retain(|client| filter.matches(client, cx.session, now_s));
    Ok(clients)
}

/// The letters of a client's flags, in Redis' order.
fn flag_letters(client: &Client, session: &Session) -> String {
    let has = |flag| client.has(flag);
    let is_caller = client.id == session.client.id;
    let watch = session.watch().filter(|_| is_caller);
    let is_dirty = watch.is_some_and(|watch| watch.flag.load(Acquire));
    let letters = [
        ('O', has(ClientFlags::MONITOR)),
        ('P', has(ClientFlags::PUBSUB)),
        ('x', has(ClientFlags::MULTI)),
        ('b', has(ClientFlags::BLOCKED)),
        ('t', has(ClientFlags::TRACKING)),
        ('R', has(ClientFlags::BROKEN_REDIRECT)),
        ('B', has(ClientFlags::BROADCAST)),
        ('d', has(ClientFlags::DIRTY) || is_dirty),
        ('c', has(ClientFlags::CLOSING) || is_caller && session.is_closing),
        ('A', client.is_killed()),
        ('U', has(ClientFlags::UNIX)),
        ('r', has(ClientFlags::READS_COPIES)),
        ('e', has(ClientFlags::NO_EVICT)),
        ('T', has(ClientFlags::NO_TOUCH)),
    ];
    let set: String =
        letters.iter().filter(|(_, is_set)| *is_set).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}

/// The full name of a client's last command.
fn last_command(client: &Client) -> String {
    let number = usize::from(client.last_command.load(Relaxed));
    let Some(id) = number.checked_sub(1) else { return "NULL".into() };
    let entries = table().entries();
    match (entries.get(id), ROWS.get(id.wrapping_sub(entries.len()))) {
        (Some(entry), _) => entry.full_name.clone(),
        (None, Some(row)) => format!("memcached|{}", row.name),
        (None, None) => "NULL".into(),
    }
}

/// The name of a client's user.
fn user_name(account: Option<&Account>) -> &[u8] {
    account.map_or(acl::DEFAULT_USER, Account::name)
}

/// The line of CLIENT LIST of a client, without the line end.
pub(crate) fn line_of(cx: &Cx<'_>, client: &Client) -> Vec<u8> {
    let mut line = Vec::new();
    write_line(cx, client, &mut line);
    line.pop();
    line
}

/// One line of CLIENT LIST. Fields that say how Redis lays out its buffers are zero.
fn write_line(cx: &Cx<'_>, client: &Client, out: &mut Vec<u8>) {
    let now_s = cx.worker.now_ms / 1000;
    let seconds_since = |then_s: u32| now_s.saturating_sub(u64::from(then_s));
    let (names, cold, capa) = (client.names(), client.cold(), capabilities(client));
    let query_bytes = client.query_bytes.load(Relaxed);
    let output_bytes = client.output_bytes.load(Relaxed);
    let total = size_of::<Client>() as u64 + u64::from(query_bytes) + output_bytes;
    let mut line = String::with_capacity(400);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let written = write!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} \
         multi={} qbuf={query_bytes} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} \
         omem={output_bytes} tot-mem={total} events={} cmd={} user={} redir={} resp={} \
         lib-name={} lib-ver={}{}{}",
        client.id,
        client.peer(),
        client.local(),
        client.fd,
        text(&names.name),
        seconds_since(client.created_s),
        seconds_since(client.active_s.load(Relaxed)),
        flag_letters(client, cx.session),
        client.db(),
        cold.map_or(0, |cold| cold.channels.load(Relaxed)),
        cold.map_or(0, |cold| cold.patterns.load(Relaxed)),
        cold.map_or(0, |cold| cold.shard_channels.load(Relaxed)),
        cold.map_or(-1, |cold| cold.queued.load(Relaxed)),
        u8::from(output_bytes > 0),
        if output_bytes > 0 { "rw" } else { "r" },
        last_command(client),
        text(user_name(names.account.as_deref())),
        crate::tracking::redirect_id(client),
        match (client.has(ClientFlags::MEMCACHED), client.has(ClientFlags::RESP3)) {
            (true, _) => 0,
            (false, is_3) => 2 + u8::from(is_3),
        },
        text(&names.lib_name),
        text(&names.lib_version),
        if capa.is_empty() { "" } else { " capa=" },
        capa,
    );
    debug_assert!(written.is_ok(), "a string takes all that is written to it");
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
