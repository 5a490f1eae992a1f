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
//! ([`crate::keyspace::History`]). A write that puts something into such a key notes the key as ready;
//! when the locks of the command (of the transaction, of the script) that did so are released, and before
//! the next one of its client runs, [`serve_ready`] runs the waiting commands on the ready keys, first
//! come first served, each under the locks of its own keys, until one finds nothing. Their replies go to
//! the workers of their clients by message. What they change makes further keys ready.
//!
//! **Who ends a wait.** Its state is taken from `WAITING` by whoever ends it: a server, the clock of the
//! client's worker, CLIENT UNBLOCK, or the end of the connection; so it ends once. A server that finds
//! nothing gives it back, and tries again if another came by meanwhile.
//!
//! A client waits in one command at a time, so it is in each key's list at most once, and the lists are
//! bounded by `maxclients`. Between the release of a writer's locks and the service another worker may
//! take what was put: then the client waits on, in its place.

use crate::client::{Client, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{Keys, Ready, partition_of};
use crate::session::{ReplyMode, Session};
use crate::shared::{Message, Shared};
use crate::table::{Entry, Group};
use hypercache_protocol::parse::OwnedArgs;
use hypercache_protocol::reply::{Output, Reply, Version};
use hypercache_stdx::{clock, number};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

/// Whether a command may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking<'a> {
    /// It may.
    Allowed,
    /// It may not: it is part of a transaction or a script.
    Denied,
    /// It is tried again for a client that waits, because this key changed.
    Serving(&'a [u8]),
}

const WAITING: u8 = 0;
/// Somebody runs the command for the client.
const SERVING: u8 = 1;
/// The same, and another key became ready meanwhile.
const SERVING_AGAIN: u8 = 2;
const DONE: u8 = 3;

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
    /// When the wait is over, on the clock that never goes back, in ms.
    deadline_ms: Option<u64>,
    /// Whether CLIENT REPLY takes its reply away.
    is_silent: bool,
    state: AtomicU8,
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

    /// Takes the right to end the wait. `notes` has who serves it at the moment try once more.
    fn claim(&self, notes: bool) -> bool {
        loop {
            let taken = self.state.compare_exchange(WAITING, SERVING, Acquire, Acquire);
            match taken {
                Ok(_) => return true,
                Err(SERVING) if notes => {
                    let noted =
                        self.state.compare_exchange(SERVING, SERVING_AGAIN, Release, Relaxed);
                    if noted.is_ok() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Gives the right back. Returns false if the command must be tried once more instead.
    fn give_back(&self) -> bool {
        if self.state.compare_exchange(SERVING, WAITING, Release, Relaxed).is_ok() {
            return true;
        }
        self.state.store(SERVING, Release);
        false
    }

    fn finish(&self) {
        self.state.store(DONE, Release);
    }
}

/// The clients that wait, by their ids.
#[derive(Debug, Default)]
pub struct Blocked(Mutex<HashMap<u64, Arc<Waiter>>>);

impl Blocked {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Waits of the process so far.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl<'a> Cx<'a> {
    /// Whether a command that may wait for several keys is to look at this one now.
    #[must_use]
    pub fn may_serve(&self, key: &[u8]) -> bool {
        match self.blocking {
            Blocking::Serving(ready) => ready == key,
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
        let deadline_ms = (timeout_ms > 0).then(|| clock::mono_ms().saturating_add(timeout_ms));
        let waiter = Arc::new(Waiter {
            // Under the locks of the keys, so that the numbers in a key's list ascend.
            number: NUMBER.fetch_add(1, Relaxed),
            client: Arc::clone(&self.session.client),
            db: self.keys.db,
            version: self.session.version,
            entry: self.entry,
            args,
            keys: names,
            deadline_ms,
            is_silent: self.session.reply_mode != ReplyMode::On,
            state: AtomicU8::new(WAITING),
        });
        for key in &waiter.keys {
            self.keys.wait_for(key, &waiter);
        }
        self.shared.blocked.0.lock().insert(waiter.client.id, Arc::clone(&waiter));
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

/// Serves the clients that wait for keys which the context's command made ready. No lock is held.
#[cold]
pub(crate) fn serve_ready(cx: &mut Cx<'_>) {
    let mut ready = VecDeque::from(std::mem::take(&mut cx.keys.news.ready));
    while let Some(key) = ready.pop_front() {
        serve_key(cx, &key, &mut ready);
    }
}

fn serve_key(cx: &mut Cx<'_>, key: &Ready, ready: &mut VecDeque<Ready>) {
    let partition = partition_of(&key.key);
    // What one of these families does not find, no other of it will.
    let (mut after, mut done) = (0, Vec::new());
    loop {
        let shard = cx.shared.keyspace.lock(partition);
        let Some(waiter) = shard.history.next_waiter(key, after, &done) else { return };
        drop(shard);
        after = waiter.number;
        if !waiter.claim(true) {
            continue;
        }
        let is_served = serve(cx, &waiter, &key.key, ready);
        if !is_served && waiter.group() != Group::Stream {
            done.push(waiter.group());
        }
    }
}

/// Runs the command of a client that waits, which was claimed. Returns whether it was answered.
fn serve(cx: &mut Cx<'_>, waiter: &Arc<Waiter>, key: &[u8], ready: &mut VecDeque<Ready>) -> bool {
    if serve_from(cx, waiter, key, ready) {
        return true;
    }
    while !waiter.give_back() {
        // Another of its keys became ready meanwhile; which one is not known.
        if waiter.keys.iter().any(|key| serve_from(cx, waiter, key, ready)) {
            return true;
        }
    }
    false
}

/// Runs the command of a client that waits on one key. Returns whether it was answered.
fn serve_from(
    cx: &mut Cx<'_>,
    waiter: &Arc<Waiter>,
    key: &[u8],
    ready: &mut VecDeque<Ready>,
) -> bool {
    let mut reply = Box::<Output>::default();
    match try_again(cx, waiter, key, &mut reply, ready) {
        Err(ReplyError::WouldBlock) => return false,
        Err(ReplyError::Written) | Ok(()) => {}
        Err(error) => Reply::new(&mut reply, waiter.version).error(error.text().as_bytes()),
    }
    end(cx.shared, waiter, reply);
    true
}

fn try_again(
    cx: &mut Cx<'_>,
    waiter: &Waiter,
    key: &[u8],
    reply: &mut Output,
    ready: &mut VecDeque<Ready>,
) -> Outcome {
    let shared = cx.shared;
    let mut session = Session::new(Arc::clone(&waiter.client), true);
    (session.db, session.version) = (waiter.db, waiter.version);
    let stats = &shared.stats[cx.worker.id];
    let mut partitions = Vec::new();
    crate::dispatch::add_partitions(shared, waiter.entry, waiter.args.as_args(), &mut partitions);
    let mut keys = Keys::new(&shared.keyspace, stats, waiter.db, cx.worker.now_ms);
    // A long script ends some time; what is ready stays ready until then.
    while !keys.hold_many(&mut partitions) {}
    let mut again = Cx {
        shared,
        worker: cx.worker,
        session: &mut session,
        keys,
        reply: Reply::new(reply, waiter.version),
        entry: waiter.entry,
        blocking: Blocking::Serving(key),
    };
    let outcome = (waiter.entry.row.run)(&mut again, waiter.args.as_args());
    crate::dispatch::release(shared, &mut again.keys);
    let news = std::mem::take(&mut again.keys.news);
    ready.extend(news.ready);
    cx.keys.news.stale.extend(news.stale);
    outcome
}

/// Ends a wait that was claimed, with a reply.
fn end(shared: &Shared, waiter: &Arc<Waiter>, reply: Box<Output>) {
    forget(shared, waiter);
    let client = Arc::clone(&waiter.client);
    if let Some(mailboxes) = shared.mailboxes.get() {
        let number = waiter.number;
        mailboxes[client.worker as usize].send(Message::Unblock { client, number, reply });
    }
}

/// Removes a wait that was claimed from all lists. No lock may be held.
fn forget(shared: &Shared, waiter: &Arc<Waiter>) {
    waiter.finish();
    for key in &waiter.keys {
        let mut shard = shared.keyspace.lock(partition_of(key));
        shard.history.remove_waiter(waiter.db, key, waiter.number);
    }
    let mut blocked = shared.blocked.0.lock();
    if blocked.get(&waiter.client.id).is_some_and(|other| other.number == waiter.number) {
        blocked.remove(&waiter.client.id);
    }
}

/// Ends the wait of a session whose time is over. Returns the reply, or `None` while it is being
/// served, or was.
pub fn time_out(shared: &Shared, waiter: &Arc<Waiter>) -> Option<Box<Output>> {
    if !waiter.claim(false) {
        return None;
    }
    forget(shared, waiter);
    let mut reply = Box::<Output>::default();
    Reply::new(&mut reply, waiter.version).null_array();
    Some(reply)
}

/// Answers a client that waits for something else than keys, if it still does.
pub(crate) fn answer(shared: &Shared, waiter: &Arc<Waiter>, write: impl FnOnce(&mut Reply<'_>)) {
    if waiter.claim(false) {
        let mut reply = Box::<Output>::default();
        write(&mut Reply::new(&mut reply, waiter.version));
        end(shared, waiter, reply);
    }
}

/// Ends the wait of a client from another connection. Returns whether it waited for keys: what is under
/// way elsewhere cannot be called back.
pub(crate) fn unblock(shared: &Shared, id: u64, with_error: bool) -> bool {
    let Some(waiter) = shared.blocked.0.lock().get(&id).map(Arc::clone) else { return false };
    if waiter.keys.is_empty() || !waiter.claim(false) {
        return false;
    }
    let mut output = Box::<Output>::default();
    let mut reply = Reply::new(&mut output, waiter.version);
    if with_error {
        reply.error(b"UNBLOCKED client unblocked via CLIENT UNBLOCK");
    } else {
        reply.null_array();
    }
    end(shared, &waiter, output);
    true
}

/// Ends the wait of a session whose connection ends. No lock may be held.
pub(crate) fn abandon(shared: &Shared, session: &mut Session) {
    let Some(waiter) = session.end_wait() else { return };
    // Whoever serves it at this moment is about to be done.
    while waiter.state.load(Acquire) != DONE {
        if waiter.claim(false) {
            return forget(shared, &waiter);
        }
        std::thread::yield_now();
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
