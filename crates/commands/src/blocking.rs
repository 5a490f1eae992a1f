//! Commands that wait: BLPOP and its like.
//!
//! **How a command waits.** It looks for what it wants under the locks of its keys, as any command. Where
//! there is nothing it calls [`Cx::wait`] with its keys and returns; what it would do next is done for
//! it. While it is tried again for a client that waits ([`Blocking::Serving`]) only the key that became
//! ready counts ([`Cx::may_serve`]), a key of another type is passed over, and [`Cx::wait`] says that
//! there is still nothing. In a transaction or a script it never waits: [`Cx::wait`] answers as if the
//! time were over.
//!
//! **How it is served.** A partition knows who waits for which of its keys, in order of arrival
//! ([`crate::keyspace::History`]). A write that puts something into such a key notes the key as ready.
//! Before the locks of the command (of the transaction, of the script) that did so are released,
//! [`serve_ready`] runs the waiting commands on the ready keys, first come first served, until one
//! finds nothing. So nobody comes between a push and the pop of who waited for it. What they change
//! makes further keys ready, whose turn comes after those that are ready already. Their replies go to
//! the workers of their clients by message.
//!
//! **A command that moves an item** needs the lock of its target too, which comes out of order. If it
//! is free it is taken. Else the key stays ready, everything is released, and all is locked anew in
//! order; and whoever locks the partition meanwhile finds a key that is ready and does the very same
//! before its own command ([`serve_ready`] again). So also then nobody gets to see the item first, and
//! nobody waits for a lock out of order. A script, of which one runs at a time, just waits for it.
//! Expiry and eviction only note what is ready; the worker's next turn serves ([`serve_unserved`]),
//! if no command does before.
//!
//! What was tried: to serve after the release of the writer's locks, under those of the waiting
//! command. Any other client could take the item in between. And on paper: to lock the targets of all
//! who wait in a partition before each write to it. That is exact too, but a queue with a thousand
//! BLMOVEs to lists of their own would cost a thousand locks per push.
//!
//! **Who ends a wait** does so under [`Waiter::is_waiting`], which a server holds while it runs the
//! command: so it ends once. Under that lock none is waited for, hence it is held for the time of one
//! command. What is registered under the locks of keys goes when these are free
//! ([`crate::leftover`]): nobody waits for a partition to end a wait.
//!
//! A client waits in one command at a time, so it is in each key's list at most once, and the lists are
//! bounded by `maxclients` and by the arguments of the commands, which count as memory in use.

use crate::charge::{Charge, Sum, heap, shared, table};
use crate::client::{Client, ClientFlags};
use crate::cluster::wait::{Asked, count};
use crate::context::{Cx, Worker};
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{Keys, Ready, partition_of};
use crate::leftover::Leftover;
use crate::session::{ReplyMode, Session};
use crate::shared::{Message, Shared};
use crate::table::{Entry, Group};
use hypercache_cluster::gate::Need;
use hypercache_protocol::parse::OwnedArgs;
use hypercache_protocol::reply::{Output, Reply, Version};
use hypercache_stdx::{clock, number};
use hypercache_store::types::Kind;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Whether a command may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// It may.
    Allowed,
    /// It may not: it is part of a transaction or a script.
    Denied,
    /// It is tried again for a client that waits, because this key changed.
    Serving(Box<[u8]>),
}

/// What a client that waits is answered when the time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Late {
    /// What this writes.
    Reply(fn(&mut Reply<'_>)),
    /// How many copies have what it asked for in WAIT.
    Count(Asked),
}

impl Late {
    fn write(self, shared: &Shared, reply: &mut Reply<'_>) {
        match self {
            Late::Reply(write) => write(reply),
            Late::Count(asked) => reply.int(count(shared, &asked).unwrap_or(0)),
        }
    }
}

/// A client that waits in a command.
#[derive(Debug)]
pub struct Waiter {
    /// Unique, in order of arrival.
    number: u64,
    client: Arc<Client>,
    db: u8,
    version: Version,
    entry: &'static Entry,
    args: OwnedArgs,
    keys: Vec<Box<[u8]>>,
    /// Partitions that its command needs beside that of the key that is ready.
    targets: Vec<u16>,
    /// When the wait is over, on the clock that never goes back, in ms.
    deadline_ms: Option<u64>,
    /// Whether CLIENT REPLY takes its reply away.
    is_silent: bool,
    /// What it is answered when the time is over.
    late: Late,
    is_waiting: Mutex<bool>,
    /// Bytes of all this, until the last one who knows of it is gone.
    _charge: Charge,
}

impl Waiter {
    /// Unique, in order of arrival.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Who waits.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The row of its command.
    pub(crate) fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// The family of its command.
    #[must_use]
    pub fn group(&self) -> Group {
        self.entry.row.group
    }

    /// When the wait is over, on the clock that never goes back, in ms; `None`: never.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Whether its reply is not sent, as CLIENT REPLY said when the wait began.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether the wait has not ended.
    pub(crate) fn is_waiting(&self) -> bool {
        *self.is_waiting.lock()
    }

    /// What it waits for instead of keys, in WAIT.
    #[must_use]
    pub fn asked(&self) -> Option<Asked> {
        match self.late {
            Late::Count(asked) => Some(asked),
            Late::Reply(_) => None,
        }
    }

    /// Its database and the keys that it is registered with.
    pub(crate) fn keys(&self) -> (u8, &[Box<[u8]>]) {
        (self.db, &self.keys)
    }

    /// Whether its command can do something with what its key holds now. One that waits for a stream
    /// may have to be told that this is gone.
    fn accepts(&self, kind: Option<Kind>) -> bool {
        match self.group() {
            Group::List => kind == Some(Kind::List),
            Group::SortedSet => kind == Some(Kind::SortedSet),
            _ => true,
        }
    }
}

/// The clients that wait, by their ids.
#[derive(Debug)]
pub struct Blocked(Mutex<(HashMap<u64, Arc<Waiter>>, Charge)>);

impl Blocked {
    /// None yet.
    #[must_use]
    pub fn new(registered: &Arc<Sum>) -> Self {
        Blocked(Mutex::new((HashMap::new(), Charge::new(registered))))
    }

    fn insert(&self, waiter: &Arc<Waiter>) {
        let (waiters, charge) = &mut *self.0.lock();
        waiters.insert(waiter.client.id, Arc::clone(waiter));
        charge.set(table(waiters));
    }

    fn get(&self, id: u64) -> Option<Arc<Waiter>> {
        self.0.lock().0.get(&id).map(Arc::clone)
    }

    fn remove(&self, waiter: &Waiter) {
        let (waiters, charge) = &mut *self.0.lock();
        if waiters.get(&waiter.client.id).is_some_and(|other| other.number == waiter.number) {
            waiters.remove(&waiter.client.id);
        }
        if waiters.is_empty() {
            *waiters = HashMap::new();
        }
        charge.set(table(waiters));
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().0.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Waits of the process so far.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Cx<'_> {
    /// Whether a command that may wait for several keys is to look at this one now.
    #[must_use]
    pub fn may_serve(&self, key: &[u8]) -> bool {
        match &self.blocking {
            Blocking::Serving(ready) => **ready == *key,
            Blocking::Allowed | Blocking::Denied => true,
        }
    }

    /// Whether the command is tried again for a client that waits.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(self.blocking, Blocking::Serving(_))
    }

    /// Has the client wait until one of `keys`, which must be held, changes, for `timeout_ms` at most (0:
    /// for ever). Then the command runs again, with `args`. Where it may not wait it is answered by
    /// `denied`, as if the time were over.
    ///
    /// # Errors
    /// [`ReplyError::WouldBlock`] when it was tried again and there is still nothing.
    pub fn wait<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        timeout_ms: u64,
        args: OwnedArgs,
        denied: impl FnOnce(&mut Reply<'_>),
    ) -> Outcome {
        self.wait_or(keys, (timeout_ms, args), denied, Late::Reply(|reply| reply.null_array()))
    }

    /// As [`Self::wait`], with another answer when the time is over.
    ///
    /// # Errors
    /// As that.
    pub(crate) fn wait_or<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        (timeout_ms, args): (u64, OwnedArgs),
        denied: impl FnOnce(&mut Reply<'_>),
        late: Late,
    ) -> Outcome {
        match self.blocking {
            Blocking::Serving(_) => return Err(ReplyError::WouldBlock),
            Blocking::Denied => {
                denied(&mut self.reply);
                return Ok(());
            }
            Blocking::Allowed => {}
        }
        let mut names: Vec<Box<[u8]>> = keys.map(Box::from).collect();
        names.sort_unstable();
        names.dedup();
        let mut targets = Vec::new();
        self.entry.row.keys.for_each(args.as_args(), &mut |i, _| {
            let key = args.as_args().get(i);
            if names.binary_search_by(|name| (**name).cmp(key)).is_err() {
                targets.push(partition_of(key));
            }
        });
        let deadline_ms = (timeout_ms > 0).then(|| clock::mono_ms().saturating_add(timeout_ms));
        let mut charge = Charge::new(&self.shared.keyspace.registered);
        let names_bytes: usize = names.iter().map(|name| heap(name.len())).sum();
        let lists = heap(size_of_val(&names[..])) + heap(size_of_val(&targets[..]));
        charge.set(shared::<Waiter>() + args.bytes_used() + names_bytes + lists);
        let waiter = Arc::new(Waiter {
            // Under the locks of the keys, so that the numbers in a key's list ascend.
            number: NUMBER.fetch_add(1, Relaxed),
            client: Arc::clone(&self.session.client),
            db: self.keys.db,
            version: self.session.version,
            entry: self.entry,
            args,
            keys: names,
            targets,
            deadline_ms,
            is_silent: self.session.reply_mode != ReplyMode::On,
            late,
            is_waiting: Mutex::new(true),
            _charge: charge,
        });
        for key in &waiter.keys {
            self.keys.wait_for(key, &waiter);
        }
        self.shared.blocked.insert(&waiter);
        self.session.client.set_flag(ClientFlags::BLOCKED, true);
        self.session.make_cold().blocked = Some(waiter);
        Ok(())
    }
}

/// Reads a timeout in seconds, which may have a fraction; answers ms, 0 for ever.
///
/// # Errors
/// If it is no number, negative, or too large.
pub(crate) fn parse_timeout_s(text: &[u8]) -> Result<u64, ReplyError> {
    let not_a_number = ReplyError::Text("ERR timeout is not a float or out of range");
    let seconds = number::parse_f64(text).filter(|s| !s.is_nan()).ok_or(not_a_number)?;
    let ms = (seconds * 1000.0).ceil();
    // Redis' conversion of what is too large wraps to a negative number.
    timeout_ms(if ms > i64::MAX as f64 { -1.0 } else { ms })
}

/// Reads a timeout in milliseconds; 0 for ever.
///
/// # Errors
/// If it is no whole number, negative, or too large.
pub(crate) fn parse_timeout_ms(text: &[u8]) -> Result<u64, ReplyError> {
    let not_a_number = ReplyError::Text("ERR timeout is not an integer or out of range");
    timeout_ms(number::parse_i64(text).ok_or(not_a_number)? as f64)
}

fn timeout_ms(ms: f64) -> Result<u64, ReplyError> {
    if ms < 0.0 {
        return Err(ReplyError::Text("ERR timeout is negative"));
    }
    if ms > (i64::MAX - clock::now_ms() as i64) as f64 {
        return Err(ReplyError::Text("ERR timeout is out of range"));
    }
    Ok(ms as u64)
}

/// Serves the clients that wait for keys that are ready, of the partitions that are held. Before a
/// command runs, and again before its locks are released. Returns whether as much is held as before:
/// not when a script keeps one of the partitions for too long.
#[cold]
pub(crate) fn serve_ready(cx: &mut Cx<'_>) -> bool {
    let mut partitions = cx.keys.held();
    while let Err(targets) = serve(cx) {
        partitions.extend(targets);
        crate::dispatch::release(cx.shared, &mut cx.keys);
        if !cx.keys.hold_many(&mut partitions) {
            return false;
        }
    }
    true
}

/// As [`serve_ready`], for a script that locked these further partitions: what it made ready itself
/// is served when it ends.
#[cold]
pub(crate) fn serve_ready_of(cx: &mut Cx<'_>, partitions: &[u16]) {
    let aside = cx.keys.set_ready_aside(partitions);
    let is_served = serve(cx).is_ok();
    debug_assert!(is_served, "a script waits for every partition that it needs");
    cx.keys.bring_ready_back(aside);
}

/// Serves the clients that wait for keys of partitions that were left unserved, as far as these are
/// free. Once a turn of each worker; no lock is held.
#[inline]
pub fn serve_unserved(shared: &Shared, worker: &mut Worker) {
    let mut last = None;
    while let Some(partition) = shared.keyspace.take_unserved(last) {
        last = Some(partition);
        serve_partition(shared, worker, partition);
    }
}

#[cold]
fn serve_partition(shared: &Shared, worker: &mut Worker, partition: u16) {
    let client = Arc::new(Client::new(0, worker.id as u16, -1, Default::default(), 0));
    let (mut session, mut out) = (Session::new(client, true), Output::default());
    let mut keys = Keys::new(&shared.keyspace, &shared.stats[worker.id], 0, worker.now_ms);
    if !keys.reach(partition) {
        return shared.keyspace.leave_unserved(partition);
    }
    let stale = {
        let (reply, entry) = (Reply::new(&mut out, Version::V2), crate::table::unknown());
        let (session, blocking) = (&mut session, Blocking::Denied);
        let mut cx = Cx { shared, worker, session, keys, reply, entry, blocking };
        if cx.keys.may_serve(partition) {
            // What lacks a target is left for the next turn.
            let _left = serve(&mut cx);
        }
        crate::dispatch::release(shared, &mut cx.keys);
        cx.keys.stale
    };
    crate::tracking::tell_without_client(shared, worker, stale);
}

/// Serves the clients that wait for keys that are ready, of the partitions that are held.
///
/// # Errors
/// Further partitions that must be held first. What was not served stays ready.
fn serve(cx: &mut Cx<'_>) -> Result<(), Vec<u16>> {
    let db = cx.keys.db;
    let mut result = Ok(());
    while result.is_ok()
        && let Some(mut ready) = cx.keys.take_ready()
    {
        cx.keys.db = ready.db;
        result = serve_key(cx, &mut ready);
        if result.is_err() {
            cx.keys.put_ready_back(ready);
        }
    }
    cx.keys.db = db;
    result
}

fn serve_key(cx: &mut Cx<'_>, ready: &mut Ready) -> Result<(), Vec<u16>> {
    // What one of these families does not find, no other of it will.
    let (mut after, mut done) = (0, Vec::new());
    while let Some(waiter) = cx.keys.next_waiter(ready, after, &done) {
        after = waiter.number;
        if !waiter.accepts(cx.keys.kind_of(&ready.key)) {
            done.push(waiter.group());
            continue;
        }
        if !waiter.targets.iter().all(|target| cx.keys.reach(*target)) {
            return Err(waiter.targets.clone());
        }
        let mut is_waiting = waiter.is_waiting.lock();
        let reply = if *is_waiting { try_again(cx, &waiter, ready) } else { None };
        let Some(reply) = reply else {
            if !*is_waiting {
                // Its wait was ended while its partition was held.
                cx.keys.remove_waiter(ready.db, &ready.key, waiter.number);
            } else if waiter.group() != Group::Stream {
                done.push(waiter.group());
            }
            continue;
        };
        *is_waiting = false;
        drop(is_waiting);
        forget(cx.shared, &waiter, |key| cx.keys.remove_waiter(waiter.db, key, waiter.number));
        // What it was served may not be committed yet.
        let need = crate::cluster::serving::need_of_served(cx, &ready.key);
        send(cx.shared, &waiter, reply, need);
    }
    Ok(())
}

/// Runs the command of a client that waits, on the key that is ready, under the locks that are held.
/// Returns its reply, or `None` when there is still nothing.
fn try_again(cx: &mut Cx<'_>, waiter: &Waiter, ready: &mut Ready) -> Option<Box<Output>> {
    let mut session = Session::new(Arc::clone(&waiter.client), true);
    (session.db, session.version) = (waiter.db, waiter.version);
    std::mem::swap(cx.session, &mut session);
    let entry = std::mem::replace(&mut cx.entry, waiter.entry);
    let serving = Blocking::Serving(std::mem::take(&mut ready.key));
    let blocking = std::mem::replace(&mut cx.blocking, serving);
    let version = cx.reply.version();
    cx.reply.set_version(waiter.version);
    let others = std::mem::take(cx.reply.output());

    let outcome = (waiter.entry.row.run)(cx, waiter.args.as_args());
    if let Err(error) = &outcome
        && !matches!(error, ReplyError::WouldBlock | ReplyError::Written)
    {
        cx.reply.error(error.text().as_bytes());
    }

    let reply = std::mem::replace(cx.reply.output(), others);
    cx.reply.set_version(version);
    if let Blocking::Serving(key) = std::mem::replace(&mut cx.blocking, blocking) {
        ready.key = key;
    }
    cx.entry = entry;
    std::mem::swap(cx.session, &mut session);
    (outcome != Err(ReplyError::WouldBlock)).then(|| Box::new(reply))
}

/// Hands the reply of a wait that was ended to the worker of its client.
fn send(shared: &Shared, waiter: &Waiter, reply: Box<Output>, need: Need) {
    let client = Arc::clone(&waiter.client);
    let (worker, number) = (client.worker, waiter.number);
    shared.send(worker, Message::Unblock { client, number, reply, need });
}

/// Keys that a wait is taken from at once when it ends; of further ones it is later on, while there is
/// room.
const FORGET_MAX: usize = 64;

/// Removes a wait that was ended from all lists, as far as `remove` can for a key.
fn forget(shared: &Shared, waiter: &Arc<Waiter>, mut remove: impl FnMut(&[u8]) -> bool) {
    let keys = (0..).zip(&waiter.keys);
    let max = if shared.leftovers.is_full() { usize::MAX } else { FORGET_MAX };
    let left: VecDeque<u32> =
        keys.filter(|(i, key)| *i as usize >= max || !remove(key)).map(|(i, _)| i).collect();
    if !left.is_empty() {
        shared.leftovers.add(Leftover::Wait { waiter: Arc::clone(waiter), left });
    }
    shared.blocked.remove(waiter);
}

/// Removes a wait that was ended from all lists that are free.
fn forget_free(shared: &Shared, waiter: &Arc<Waiter>) {
    forget(shared, waiter, |key| {
        let shard = shared.keyspace.try_lock(partition_of(key));
        shard.map(|mut shard| shard.history.remove_waiter(waiter.db, key, waiter.number)).is_some()
    });
}

/// What became of a wait whose time is over.
#[derive(Debug)]
pub enum TimedOut {
    /// It ends with this reply.
    Now(Box<Output>),
    /// It is being served at this moment.
    NotYet,
    /// It was ended before: its reply is on its way.
    Before,
}

/// Ends the wait of a session whose time is over. Waits for nothing.
pub fn time_out(shared: &Shared, waiter: &Arc<Waiter>) -> TimedOut {
    let Some(mut is_waiting) = waiter.is_waiting.try_lock() else { return TimedOut::NotYet };
    if !std::mem::take(&mut *is_waiting) {
        return TimedOut::Before;
    }
    drop(is_waiting);
    forget_free(shared, waiter);
    let mut output = Box::<Output>::default();
    waiter.late.write(shared, &mut Reply::new(&mut output, waiter.version));
    TimedOut::Now(output)
}

/// Answers a client that waits for something else than keys, if it still does.
pub(crate) fn answer(shared: &Shared, waiter: &Arc<Waiter>, write: impl FnOnce(&mut Reply<'_>)) {
    if !std::mem::take(&mut *waiter.is_waiting.lock()) {
        return;
    }
    forget_free(shared, waiter);
    let mut reply = Box::<Output>::default();
    write(&mut Reply::new(&mut reply, waiter.version));
    send(shared, waiter, reply, Need::Nothing);
}

/// Ends a wait because another node looks after its keys now. Their partition is held; `remove` takes the
/// wait from a key's list.
pub(crate) fn force_unblock(
    shared: &Shared,
    waiter: &Arc<Waiter>,
    mut remove: impl FnMut(u8, &[u8], u64),
) {
    if !std::mem::take(&mut *waiter.is_waiting.lock()) {
        return;
    }
    forget(shared, waiter, |key| {
        remove(waiter.db, key, waiter.number);
        true
    });
    let mut reply = Box::<Output>::default();
    Reply::new(&mut reply, waiter.version).error(FORCED.as_bytes());
    send(shared, waiter, reply, Need::Nothing);
}

/// What a client is told whose wait ends so.
const FORCED: &str = "UNBLOCKED force unblock from blocking operation, instance state changed \
                      (master -> replica?)";

/// Ends the wait of a client from another connection. Returns whether it waited for keys: what is under
/// way elsewhere cannot be called back.
pub(crate) fn unblock(shared: &Shared, id: u64, with_error: bool) -> bool {
    let Some(waiter) = shared.blocked.get(id) else { return false };
    if waiter.keys.is_empty() || !std::mem::take(&mut *waiter.is_waiting.lock()) {
        return false;
    }
    forget_free(shared, &waiter);
    let mut output = Box::<Output>::default();
    let mut reply = Reply::new(&mut output, waiter.version);
    if with_error {
        reply.error(b"UNBLOCKED client unblocked via CLIENT UNBLOCK");
    } else {
        waiter.late.write(shared, &mut reply);
    }
    send(shared, &waiter, output, Need::Nothing);
    true
}

/// Ends the wait of a session whose connection ends.
pub(crate) fn abandon(shared: &Shared, session: &mut Session) {
    let Some(waiter) = session.end_wait() else { return };
    if std::mem::take(&mut *waiter.is_waiting.lock()) {
        forget_free(shared, &waiter);
    }
}

impl Session {
    /// The client waits no longer. Returns what it waited in.
    pub fn end_wait(&mut self) -> Option<Arc<Waiter>> {
        self.blocked()?;
        self.client.set_flag(ClientFlags::BLOCKED, false);
        self.make_cold().blocked.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Mailbox;
    use crate::testing::Harness;
    use crate::turn;

    /// Has another client run a command, and answers its reply.
    fn run_as(h: &mut Harness, session: &mut Session, command: &str) -> Vec<u8> {
        std::mem::swap(&mut h.session, session);
        let reply = h.run(command);
        std::mem::swap(&mut h.session, session);
        reply
    }

    #[test]
    fn what_is_served_is_told_though_the_command_is_refused() {
        let mut h = Harness::default();
        assert!(h.shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok(), "set once");
        let mut clients: Vec<Session> = (0..4).map(|_| Harness::connect(&h.shared)).collect();
        for (client, command) in clients.iter_mut().zip([
            "BLMOVE s t LEFT LEFT 0",
            "BLPOP s 0",
            "BLMOVE s t LEFT LEFT 0",
            "HELLO 3",
        ]) {
            run_as(&mut h, client, command);
        }
        run_as(&mut h, &mut clients[3], "CLIENT TRACKING ON BCAST");

        let shared = Arc::clone(&h.shared);
        let mut script = Keys::new(&shared.keyspace, &shared.stats[0], 0, 0);
        assert!(script.take_turn() && script.hold_many(&mut vec![partition_of(b"t")]));
        shared.keyspace.turn.begin(turn::Kind::Script, 0, None);
        shared.keyspace.turn.note_busy(0, 0);
        assert_eq!(h.run("RPUSH s 1 2"), b":2\r\n");
        clients[0].close(&shared);
        crate::tracking::broadcast(&shared, &mut h.worker);
        let mailbox = &shared.mailboxes.get().expect("they were set")[0];
        mailbox.take();

        assert!(h.run("GET {s}").starts_with(b"-BUSY"), "the second who moves is first now");
        crate::tracking::broadcast(&shared, &mut h.worker);
        let told = mailbox.take();
        let is_told = |is: fn(&Message) -> bool| told.iter().any(is);
        assert!(is_told(|message| matches!(message, Message::Unblock { .. })));
        assert!(is_told(|message| matches!(message, Message::Invalidate { .. })));
        shared.keyspace.turn.end();
        script.release(None);
    }
}
