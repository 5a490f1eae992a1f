//! From arguments to reply: the checks around a command, the locks it needs, and what is counted.
//! Hot path.

mod clustered;

use crate::acl::{self, Denied};
use crate::blocking::{Blocking, serve_ready};
use crate::client::ClientFlags;
use crate::cluster::plane::Plane;
use crate::cluster::{self, serving};
use crate::commandlog;
use crate::context::{Cx, Worker};
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{Keys as Held, Located, PARTITIONS};
use crate::limit::make_room;
use crate::session::{ReplyMode, Session};
use crate::shared::Shared;
use crate::table::{Entry, Flags, Keys, Recent};
use crate::tracking;
use hypercache_journal::Effect;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::{Output, Reply};
use hypercache_stdx::clock;
use std::sync::atomic::Ordering::Relaxed;

/// A request with what is known of it before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The arguments, the name first.
    pub args: Args<'a>,
    /// The row of the name, if there is one.
    pub entry: Option<&'static Entry>,
    /// Where the first key belongs, if the command has one key that was looked at.
    pub first_key: Option<&'a Located>,
}

/// Looks up the command of a request and locates its key, if it has exactly one, in a database. What
/// is looked at first for the key is on its way to the cache then.
#[inline(always)]
#[must_use]
pub fn look_up(
    shared: &Shared,
    recent: &mut Recent,
    args: Args<'_>,
    db: u8,
) -> (Option<&'static Entry>, Option<Located>) {
    let entry = recent.get(args);
    let Some(found) = entry.filter(|entry| entry.has_one_key && args.len() > 1) else {
        return (entry, None);
    };
    let mut at = shared.keyspace.locate(args.get(1), db);
    at.holds_object = found.holds_object;
    shared.keyspace.approach(&mut at, found.row.flags.has(Flags::WRITE));
    (entry, Some(at))
}

/// How time is measured in a batch of commands.
///
/// Reading the clock costs as much as a tenth of a short command. Commands that are quick by nature
/// (flag `fast`) therefore share the time of their batch, unless `slowlog-log-slower-than` is below
/// a millisecond; all others are timed one by one.
#[derive(Debug)]
pub struct Timer {
    last_ns: u64,
    times_each: bool,
    /// Fast commands since `last_ns`: number of the row, executions, failures.
    pending: Vec<(usize, u32, u32)>,
    pending_sum: u64,
}

/// Below this threshold of the slow log every command is timed by itself, in microseconds.
const TIME_EACH_BELOW_US: i64 = 1000;

impl Timer {
    /// A timer; [`Self::begin`] starts it.
    #[must_use]
    pub fn new() -> Self {
        Timer { last_ns: 0, times_each: true, pending: Vec::new(), pending_sum: 0 }
    }

    /// Starts a batch.
    #[inline]
    pub fn begin(&mut self, shared: &Shared) {
        let slowlog_us = shared.config.hot.slowlog_us.load(Relaxed);
        self.times_each = (0..TIME_EACH_BELOW_US).contains(&slowlog_us);
        self.last_ns = clock::mono_ns();
    }

    /// Ends a batch: the fast commands in it get their share of its time.
    #[inline]
    pub fn end(&mut self, worker: &Worker) {
        if self.pending.is_empty() {
            return;
        }
        let now = clock::mono_ns();
        let share = (now - self.last_ns) / self.pending_sum;
        for (id, calls, failed) in self.pending.drain(..) {
            worker.stats.count_commands(id, u64::from(calls), share, u64::from(failed));
        }
        self.pending_sum = 0;
        self.last_ns = now;
    }

    /// When a batch began or commands were last timed, on the clock of [`clock::mono_ms`].
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ns / 1_000_000
    }

    /// Notes executions of a fast command. Batches hold few different ones, mostly in runs.
    fn note(&mut self, id: usize, calls: u32, failed: u32) {
        self.pending_sum += u64::from(calls);
        match self.pending.last_mut() {
            Some((last, sum, failures)) if *last == id => {
                *sum += calls;
                *failures += failed;
            }
            _ => self.pending.push((id, calls, failed)),
        }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs requests of one connection. Made once for those of a turn.
#[derive(Debug)]
pub struct Executor<'a> {
    pub(crate) cx: Cx<'a>,
    timer: &'a mut Timer,
    /// Whether plain commands need no check but that of their arguments; see [`is_ordinary`].
    is_ordinary: bool,
    /// Whether the client's user may do everything.
    is_unrestricted: bool,
    /// On a node of a cluster, in which plain commands go their own way: see [`clustered`]. Only while it
    /// would be ordinary otherwise.
    plane: Option<&'a Plane>,
    /// Plain executions of the context's current command that are not noted yet, and how many of
    /// them failed.
    run: (u32, u32),
}

/// Whether the client and the server are in their ordinary state: the client is authenticated,
/// neither subscribed nor queueing a transaction nor tracking keys, and gets its replies; and nobody
/// monitors, wants notifications or the time or size of each command, or paused the clients.
///
/// Only a command that is not plain can change the client's part. Where another client changes the
/// server's part it counts from the next turn on, as if its command had come that much later.
fn is_ordinary(shared: &Shared, session: &Session, timer: &Timer) -> bool {
    let hot = &shared.config.hot;
    !timer.times_each
        && session.is_authenticated
        && session.is_plain()
        && !session.is_tracking()
        && session.reply_mode == ReplyMode::On
        && shared.monitor_count.load(Relaxed) == 0
        && hot.notify.load(Relaxed) == 0
        && !hot.measures()
        && shared.pause.until_ms.load(Relaxed) == 0
}

/// Whether plain commands go the shortest way, or that of a node of a cluster with its data plane.
fn ordinary<'a>(shared: &'a Shared, session: &Session, timer: &Timer) -> (bool, Option<&'a Plane>) {
    let is_ordinary = is_ordinary(shared, session, timer);
    let plane = shared.cluster.plane().map(|plane| &**plane);
    (is_ordinary && plane.is_none(), plane.filter(|_| is_ordinary))
}

impl<'a> Executor<'a> {
    /// An executor for a connection whose replies go to `out`.
    #[inline]
    pub fn new(
        shared: &'a Shared,
        worker: &'a mut Worker,
        session: &'a mut Session,
        timer: &'a mut Timer,
        out: &'a mut Output,
    ) -> Self {
        let stats = &shared.stats[worker.id];
        let mut keys = Held::new(&shared.keyspace, stats, session.db, worker.now_ms);
        let reply = Reply::new(out, session.version);
        let entry = crate::table::unknown();
        keys.touch = !session.client.has(ClientFlags::NO_TOUCH);
        let (is_ordinary, plane) = ordinary(shared, session, timer);
        let is_unrestricted = acl::is_unrestricted(shared, session);
        let cx = Cx { shared, worker, session, keys, reply, entry, blocking: Blocking::Allowed };
        Executor { cx, timer, is_ordinary, is_unrestricted, plane, run: (0, 0) }
    }

    /// Whether requests may have to wait for the end of CLIENT PAUSE.
    #[inline]
    #[must_use]
    pub fn may_be_paused(&self) -> bool {
        !self.is_ordinary && self.cx.shared.pause.until_ms.load(Relaxed) != 0
    }

    /// The connection's session.
    #[inline]
    #[must_use]
    pub fn session(&mut self) -> &mut Session {
        self.cx.session
    }

    /// Bytes of replies that wait to be sent.
    #[inline]
    #[must_use]
    pub fn output_bytes(&mut self) -> usize {
        self.cx.reply.output().len()
    }

    /// Answers what is no request with an error, after which the connection closes.
    #[cold]
    pub fn fail(&mut self, text: &str) {
        self.cx.reply.error(text.as_bytes());
        self.cx.worker.stats.count_error(text.as_bytes());
        self.cx.session.is_closing = true;
    }

    /// Whether client and server are in their ordinary state, in which a plain command (see
    /// [`Entry::is_plain_with`]) may be given to [`Self::execute_plain`].
    #[inline]
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.is_ordinary
    }

    /// Whether the client's user may run a command with these arguments. A plain one that it may not
    /// is for [`Self::execute`] to refuse.
    #[inline(always)]
    pub fn allows<'b>(&mut self, entry: &Entry, args: impl FnOnce() -> Args<'b>) -> bool {
        self.is_unrestricted || self.allows_restricted(entry, args())
    }

    #[inline(never)]
    fn allows_restricted(&mut self, entry: &Entry, args: Args<'_>) -> bool {
        let cx = &mut self.cx;
        acl::check(cx.shared, cx.worker, cx.session, entry, args).is_ok()
    }

    /// Runs a plain command, whose key is at `at`, in ordinary state: what remains of
    /// [`Self::execute`] then. It leaves the state as it is.
    #[inline(always)]
    pub fn execute_plain(&mut self, args: Args<'_>, entry: &'static Entry, at: &'a Located) {
        if !std::ptr::eq(self.cx.entry, entry) {
            self.end_run();
            self.cx.entry = entry;
        }
        if !self.cx.worker.has_room() && !self.has_room_for(entry) {
            return;
        }
        if !self.cx.keys.hold_one(at) {
            return refuse_busy(&mut self.cx, entry);
        }
        if self.cx.keys.is_one_unserved() && !serve_ready(&mut self.cx) {
            refuse_busy(&mut self.cx, entry);
            // Some may have been served before.
            return tracking::tell_stale(&mut self.cx);
        }
        let failed = run(&mut self.cx, args);
        if self.cx.keys.is_one_alone() {
            self.cx.keys.release_one();
        } else {
            tell_observers(&mut self.cx);
        }
        self.run.0 += 1;
        self.run.1 += u32::from(failed);
    }

    /// Whether there is memory for a plain command to run, if it needs any; it is refused if not.
    #[cold]
    fn has_room_for(&mut self, entry: &'static Entry) -> bool {
        let cx = &mut self.cx;
        if !entry.row.flags.has(Flags::DENY_OOM) || make_room(cx.shared, cx.worker) {
            return true;
        }
        cx.worker.stats.commands[entry.id].rejected.add(1);
        refuse(cx, Some(entry), ReplyError::OutOfMemory.text().as_bytes());
        false
    }

    /// Notes the plain executions so far.
    fn end_run(&mut self) {
        let (calls, failed) = std::mem::take(&mut self.run);
        if calls > 0 {
            let id = self.cx.entry.id;
            self.cx.session.client.last_command.store(id as u16 + 1, Relaxed);
            self.timer.note(id, calls, failed);
        }
    }

    /// Runs one request and appends the reply.
    #[inline(never)]
    pub fn execute(&mut self, request: &Request<'a>) {
        if self.plane.is_some()
            && let (Some(entry), Some(at)) = (request.entry, request.first_key)
            && entry.is_plain_with(request.args.len())
            && self.allows(entry, || request.args)
        {
            return self.execute_plain_in_cluster(request.args, entry, at);
        }
        self.end_run();
        let mark = self.cx.reply.output().mark();
        let resolved = resolve(request);
        let resolved_entry = match &resolved {
            Ok(entry) => Some(*entry),
            Err(unresolved) => unresolved.entry,
        };
        let result = match resolved {
            Ok(entry) => checked(&mut self.cx, self.timer, request, entry),
            Err(_) if is_http(request) => {
                hang_up(&mut self.cx);
                Ok(())
            }
            Err(Unresolved { entry, text }) => {
                if let Some(entry) = entry {
                    self.cx.worker.stats.commands[entry.id].rejected.add(1);
                }
                refuse(&mut self.cx, entry, &text);
                Ok(())
            }
        };
        if let Err(error) = result {
            refuse(&mut self.cx, request.entry, error.text().as_bytes());
        }
        if self.cx.session.reply_mode != ReplyMode::On {
            finish_reply_mode(self.cx.session, self.cx.reply.output(), mark);
        }
        // After the reply, and although it may have been taken back.
        if self.cx.session.is_tracking() {
            tracking::after_command(&mut self.cx, resolved_entry);
        }
        if self.cx.keys.has_stale() {
            tracking::tell_stale(&mut self.cx);
        }
        // SELECT, HELLO and RESET change these for what follows.
        self.cx.keys.db = self.cx.session.db;
        self.cx.reply.set_version(self.cx.session.version);
        self.cx.keys.touch = !self.cx.session.client.has(ClientFlags::NO_TOUCH);
        self.cx.worker.note_limit(self.cx.shared);
        (self.is_ordinary, self.plane) = ordinary(self.cx.shared, self.cx.session, self.timer);
        self.is_unrestricted = acl::is_unrestricted(self.cx.shared, self.cx.session);
    }
}

impl Drop for Executor<'_> {
    fn drop(&mut self) {
        self.end_run();
    }
}

/// CLIENT REPLY OFF and SKIP take back what was written.
#[cold]
fn finish_reply_mode(session: &mut Session, out: &mut Output, mark: (usize, usize)) {
    match session.reply_mode {
        ReplyMode::On => return,
        ReplyMode::Off => {}
        ReplyMode::Skip => session.reply_mode = ReplyMode::On,
        // CLIENT REPLY SKIP itself: it is the next command that goes unanswered.
        ReplyMode::SkipNext => session.reply_mode = ReplyMode::Skip,
    }
    out.truncate(mark);
}

/// Whether a request that is no command comes from an HTTP client. A web page can make a browser
/// send one here, with commands in its body.
fn is_http(request: &Request<'_>) -> bool {
    let name = request.args.get(0);
    request.entry.is_none()
        && (name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:"))
}

/// Closes a connection whose client is not one of ours, before what follows can run.
#[cold]
fn hang_up(cx: &mut Cx<'_>) {
    let peer = cx.session.client.peer();
    tracing::warn!("possible attack: POST or Host: was sent by {peer}; connection closed");
    cx.session.is_closing = true;
}

/// Answers a request that did not run; a transaction that is being queued will not run either.
#[cold]
fn refuse(cx: &mut Cx<'_>, entry: Option<&Entry>, text: &[u8]) {
    if entry.is_some_and(|entry| entry.row.name == "EXEC") {
        return refuse_exec(cx, text);
    }
    cx.reply.error(text);
    cx.worker.stats.count_error(text);
    if let Some(multi) = cx.session.multi_mut() {
        multi.is_aborted = true;
    }
}

/// An EXEC that cannot run ends its transaction.
#[cold]
fn refuse_exec(cx: &mut Cx<'_>, text: &[u8]) {
    cx.session.discard_transaction(cx.shared);
    let why = text.strip_prefix(b"ERR ").unwrap_or(text);
    let text = [b"EXECABORT Transaction discarded because of: ", why].concat();
    cx.reply.error(&text);
    cx.worker.stats.count_error(&text);
}

/// Why no row will run.
struct Unresolved {
    /// The row whose number of arguments is another, if that is why.
    entry: Option<&'static Entry>,
    text: Vec<u8>,
}

/// The row that will run: of a container, the subcommand's. Checks names and number of arguments.
#[inline]
fn resolve(request: &Request<'_>) -> Result<&'static Entry, Unresolved> {
    let Some(mut entry) = request.entry else {
        return Err(Unresolved { entry: None, text: unknown_command(request.args) });
    };
    if !entry.subcommands.is_empty() && request.args.len() > 1 {
        entry = match entry.subcommand(request.args.get(1)) {
            Some(sub) => sub,
            None => {
                let text = unknown_subcommand(entry, request.args.get(1));
                return Err(Unresolved { entry: None, text });
            }
        };
    }
    if !entry.row.accepts(request.args.len()) {
        let name = &entry.full_name;
        let text = format!("ERR wrong number of arguments for '{name}' command").into_bytes();
        return Err(Unresolved { entry: Some(entry), text });
    }
    Ok(entry)
}

/// Redis shows at most this much of an unknown name, and of the arguments after it.
const SHOWN_MAX: usize = 128;

#[cold]
fn unknown_command(args: Args<'_>) -> Vec<u8> {
    let shown = |bytes: &[u8], max: usize| bytes[..bytes.len().min(max)].to_vec();
    let mut list = Vec::new();
    for arg in args.iter_from(1) {
        if list.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - list.len();
        list.extend_from_slice(b"'");
        list.extend_from_slice(&shown(arg, room));
        list.extend_from_slice(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(&shown(args.get(0), SHOWN_MAX));
    text.extend_from_slice(b"', with args beginning with: ");
    text.extend_from_slice(&list);
    text
}

#[cold]
fn unknown_subcommand(container: &Entry, name: &[u8]) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(&name[..name.len().min(SHOWN_MAX)]);
    text.extend_from_slice(format!("'. Try {} HELP.", container.row.name).as_bytes());
    text
}

/// The checks that need state, in Redis' order; then the command, or its place in the queue.
#[inline]
fn checked<'a>(
    cx: &mut Cx<'a>,
    timer: &mut Timer,
    request: &Request<'a>,
    entry: &'static Entry,
) -> Outcome {
    let flags = entry.row.flags;
    // Whether it will run or not, as Redis has it.
    cx.session.client.last_command.store(entry.id as u16 + 1, Relaxed);
    let is_asked = !cx.session.is_authenticated && !cx.shared.acl.lets_in();
    if is_asked && !flags.has(Flags::NO_AUTH) {
        return reject(cx, entry, ReplyError::NoAuth);
    }
    if let Err(denied) = acl::check(cx.shared, cx.worker, cx.session, entry, request.args) {
        deny(cx, denied, request, entry);
        return Ok(());
    }
    if cx.shared.cluster.is_enabled() && cluster::crosses_slots(cx.session, entry, request.args) {
        refuse_crossing(cx, entry);
        return Ok(());
    }
    if !check_slot(cx, entry, request.args) {
        return Ok(());
    }
    let needs_room = flags.has(Flags::DENY_OOM)
        || cx.session.multi().is_some_and(|multi| multi.needs_room(entry));
    if needs_room && !make_room(cx.shared, cx.worker) {
        return reject(cx, entry, ReplyError::OutOfMemory);
    }
    if entry.runs_scripts || cx.session.multi().is_some() {
        cx.worker.lacks_room = !make_room(cx.shared, cx.worker);
    }
    let is_monitored = cx.shared.monitor_count.load(Relaxed) > 0;
    if is_monitored && !crate::monitor::may_run(&cx.session.client, entry) {
        let error = ReplyError::Text("ERR Replica can't interact with the keyspace");
        return reject(cx, entry, error);
    }
    if !cx.session.is_plain()
        && let Some(outcome) = in_special_state(cx, request, entry)
    {
        return outcome;
    }
    timed(cx, timer, request, entry);
    if is_monitored {
        crate::monitor::feed_monitors(cx.shared, cx.session, entry, request.args);
    }
    Ok(())
}

/// Refuses a command that the client's user may not run.
#[cold]
fn deny(cx: &mut Cx<'_>, denied: Denied, request: &Request<'_>, entry: &Entry) {
    let context = if cx.session.multi().is_some() { "multi" } else { "toplevel" };
    acl::note(cx, cx.session, denied, context, entry, request.args);
    let what = match denied {
        Denied::Command => format!("run the '{}' command", entry.full_name),
        Denied::Key(_) => "access one of the keys used as arguments".to_owned(),
        Denied::Channel(_) => "access one of the channels used as arguments".to_owned(),
    };
    cx.worker.stats.commands[entry.id].rejected.add(1);
    let text = format!("NOPERM this user has no permissions to {what}");
    refuse(cx, Some(entry), text.as_bytes());
}

/// Refuses a command whose keys are of several slots. A transaction of such commands is over.
#[cold]
fn refuse_crossing(cx: &mut Cx<'_>, entry: &Entry) {
    cx.worker.stats.commands[entry.id].rejected.add(1);
    if entry.row.name == "EXEC" {
        cx.session.discard_transaction(cx.shared);
    }
    refuse(cx, None, ReplyError::CrossSlot.text().as_bytes());
}

/// Refuses a command whose keys are not for this node to serve now.
#[cold]
fn refuse_to_serve(cx: &mut Cx<'_>, entry: &Entry, text: &str) {
    cx.worker.stats.commands[entry.id].rejected.add(1);
    refuse(cx, Some(entry), text.as_bytes());
}

/// Refuses what is to be queued, or to subscribe to channels of a slot, and is another node's.
fn check_slot(cx: &mut Cx<'_>, entry: &Entry, args: Args<'_>) -> bool {
    let is_queued = cx.session.multi().is_some() && !crate::transaction::runs_at_once(entry);
    let Some(plane) = cx.shared.cluster.plane().filter(|_| is_queued || !entry.locks_keys) else {
        return true;
    };
    let Err(refusal) = serving::admit_unlocked(cx, plane, entry, args) else { return true };
    refuse_to_serve(cx, entry, &refusal.text(plane));
    false
}

#[cold]
fn reject(cx: &mut Cx<'_>, entry: &Entry, error: ReplyError) -> Outcome {
    cx.worker.stats.commands[entry.id].rejected.add(1);
    Err(error)
}

/// What happens to a command of a client that subscribed or queues a transaction; `None` when it
/// runs as usual.
#[cold]
fn in_special_state(
    cx: &mut Cx<'_>,
    request: &Request<'_>,
    entry: &'static Entry,
) -> Option<Outcome> {
    if cx.session.is_subscribed() && !crate::pubsub::is_allowed(cx.session, entry) {
        refuse(cx, Some(entry), crate::pubsub::refusal(entry).as_bytes());
        cx.worker.stats.commands[entry.id].rejected.add(1);
        return Some(Ok(()));
    }
    if cx.session.multi().is_none() || crate::transaction::runs_at_once(entry) {
        return None;
    }
    if entry.row.flags.has(Flags::NO_MULTI) {
        let error = ReplyError::Text("ERR Command not allowed inside a transaction");
        return Some(reject(cx, entry, error));
    }
    let limit = cx.shared.config.hot.query_bytes_max.load(Relaxed);
    crate::transaction::queue(cx.session, entry, request.args);
    if cx.session.queued_bytes() as u64 > limit {
        // As Redis, which counts the queue as requests that wait.
        cx.worker.stats.query_limit_closed.add(1);
        cx.session.is_closing = true;
    }
    cx.reply.simple("QUEUED");
    Some(Ok(()))
}

/// Runs the command and counts it and its time.
#[inline]
fn timed<'a>(cx: &mut Cx<'a>, timer: &mut Timer, request: &Request<'a>, entry: &'static Entry) {
    let is_timed = timer.times_each || !entry.is_quick;
    if is_timed {
        timer.end(cx.worker);
    }
    if !hold(&mut cx.keys, cx.shared, request, entry) {
        return refuse_busy(cx, entry);
    }
    let plane = cx.shared.cluster.plane();
    if let Some(plane) = plane
        && let Err(refusal) = serving::admit(cx, plane, (entry, request.args), &cx.session.client)
    {
        cx.keys.release(None);
        return refuse_to_serve(cx, entry, &refusal.text(plane));
    }
    cx.entry = entry;
    let before = commandlog::begin(cx);
    let Some(failed) = run_and_serve(cx, request.args) else { return refuse_busy(cx, entry) };
    if let Some(before) = before {
        commandlog::end(cx, entry, request.args, before);
    }
    if let Some(plane) = plane {
        serving::note_needs(cx, plane, entry, request.args);
    }
    release(cx.shared, &mut cx.keys);
    if !is_timed {
        return timer.note(entry.id, 1, u32::from(failed));
    }
    let now = clock::mono_ns();
    let nanos = now - timer.last_ns;
    timer.last_ns = now;
    cx.worker.stats.count_commands(entry.id, 1, nanos, u64::from(failed));
    note_slow(cx.shared, cx.session, entry, request.args, nanos);
}

/// Serves and tells those who observe the keys that a plain command changed, and ends its hold.
#[cold]
fn tell_observers(cx: &mut Cx<'_>) {
    if cx.keys.has_ready() {
        // What a script keeps from being served now is served when it can be.
        let _is_served = serve_ready(cx);
    }
    release(cx.shared, &mut cx.keys);
    if cx.keys.has_stale() {
        tracking::tell_stale(cx);
    }
}

/// Runs the context's command under its locks. Who waits for a key that is ready comes before it, and
/// who waits for a key that it makes ready before its locks are released. Returns whether it failed;
/// `None` if it could not run because of a script.
#[inline]
fn run_and_serve(cx: &mut Cx<'_>, args: Args<'_>) -> Option<bool> {
    if cx.keys.has_ready() && !serve_ready(cx) {
        return None;
    }
    let failed = run(cx, args);
    if cx.session.is_tracking() {
        tracking::remember(cx, cx.entry, args);
    }
    if cx.keys.has_ready() {
        // What a script keeps from being served now is served when it can be.
        let _is_served = serve_ready(cx);
    }
    Some(failed)
}

/// Calls the command's function; writes the error if it returned one. Returns whether it failed.
#[inline]
pub(crate) fn run(cx: &mut Cx<'_>, args: Args<'_>) -> bool {
    match (cx.entry.row.run)(cx, args) {
        Ok(()) => false,
        Err(error) => write_error(cx, error),
    }
}

/// Writes and counts the error that a command returned; always true.
#[cold]
fn write_error(cx: &mut Cx<'_>, error: ReplyError) -> bool {
    if error == ReplyError::Written {
        cx.worker.stats.count_error(last_error(&cx.reply.output().bytes));
    } else {
        cx.reply.error(error.text().as_bytes());
        cx.worker.stats.count_error(error.text().as_bytes());
    }
    true
}

/// The text of the error that an output ends with.
#[cold]
fn last_error(output: &[u8]) -> &[u8] {
    let line = output.strip_suffix(b"\r\n").unwrap_or(output);
    let start = memchr::memrchr(b'\n', line).map_or(0, |at| at + 1);
    line[start..].strip_prefix(b"-").unwrap_or_default()
}

/// Ends a command's hold on its partitions; notifications leave in the order of the effects.
#[inline]
pub(crate) fn release(shared: &Shared, keys: &mut Held<'_>) {
    if shared.config.hot.notify.load(Relaxed) == 0 {
        return keys.release(None);
    }
    let mut notify = |effect: Effect<'_>| crate::pubsub::notify(shared, &effect);
    keys.release(Some(&mut notify));
}

/// Has notifications leave of what a transaction or a script did so far: before it publishes.
pub(crate) fn notify_so_far(cx: &mut Cx<'_>) {
    let shared = cx.shared;
    if cx.blocking == Blocking::Denied && shared.config.hot.notify.load(Relaxed) != 0 {
        cx.keys.notify(&mut |effect| crate::pubsub::notify(shared, &effect));
    }
}

/// Locks what the command declared; says whether it could.
#[inline]
fn hold<'a>(
    keys: &mut Held<'a>,
    shared: &Shared,
    request: &Request<'a>,
    entry: &'static Entry,
) -> bool {
    if let Some(at) = request.first_key {
        return keys.hold_one(at);
    }
    if entry.runs_scripts && !keys.take_turn() {
        return false;
    }
    match entry.row.keys {
        Keys::None => true,
        // It takes each lock by itself, and would wait for that of a script.
        Keys::Each => !shared.keyspace.turn.is_busy(),
        Keys::All => keys.hold_all(),
        _ if !entry.locks_keys => true,
        _ => {
            let mut partitions = Vec::with_capacity(8);
            add_partitions(shared, entry, request.args, &mut partitions);
            let holds = keys.hold_many(&mut partitions);
            if !holds {
                keys.release(None);
            }
            holds
        }
    }
}

/// Answers a command that needs what a script holds for too long.
#[cold]
pub(crate) fn refuse_busy(cx: &mut Cx<'_>, entry: &Entry) {
    let text = cx.shared.keyspace.turn.busy_text();
    cx.worker.stats.commands[entry.id].rejected.add(1);
    refuse(cx, Some(entry), text.as_bytes());
}

/// Adds the partitions of all keys of a command.
pub(crate) fn add_partitions(
    _: &Shared,
    entry: &'static Entry,
    args: Args<'_>,
    partitions: &mut Vec<u16>,
) {
    match entry.row.keys {
        Keys::All | Keys::Each => partitions.extend(0..PARTITIONS as u16),
        Keys::Sort { .. } if crate::sort::reads_others(args) => {
            partitions.extend(0..PARTITIONS as u16);
        }
        _ if !entry.locks_keys => {}
        keys => keys.for_each(args, &mut |i, _| {
            partitions.push(crate::keyspace::partition_of(args.get(i)));
        }),
    }
}

#[inline]
pub(crate) fn note_slow(
    shared: &Shared,
    session: &Session,
    entry: &Entry,
    args: Args<'_>,
    nanos: u64,
) {
    let micros = nanos / 1000;
    let hot = &shared.config.hot;
    let threshold = hot.slowlog_us.load(Relaxed);
    if threshold >= 0 && micros as i64 >= threshold && !entry.row.flags.has(Flags::SKIP_SLOWLOG) {
        shared.slowlog.add(&session.client, args, micros);
    }
    let latency_ms = hot.latency_ms.load(Relaxed);
    if latency_ms > 0 && micros / 1000 >= latency_ms {
        let event = if entry.row.flags.has(Flags::FAST) { "fast-command" } else { "command" };
        shared.latency.add(event, micros / 1000);
    }
}
