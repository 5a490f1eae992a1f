//! MIGRATE: keys sent to another server and deleted here.
//!
//! **Who does what.** The command makes the payloads under the locks of its keys, watches the keys, and
//! has its client wait ([`crate::blocking`]), for no key. The worker of the client has a thread of its
//! own send the payloads ([`Message::Migrate`]), since that takes as long as the other server likes; what
//! came of it is for [`settle`] ([`Message::Migrated`]): keys that arrived are deleted.
//!
//! **Nothing written is lost.** Others may write a key while it is on its way. Its watch tells: then it
//! is sent once more as it is now, in the place of what arrived there (or is deleted there, if it was
//! deleted here), until it is deleted here in the very state that arrived. One that is written faster
//! than it can be sent stays here, and the reply says so.
//!
//! At most [`MIGRATIONS_MAX`] run at a time; a further one is refused.

use crate::blocking::{Blocking, Waiter, answer, serve_ready};
use crate::context::{Cx, Worker};
use crate::dispatch::release;
use crate::dump::payload_of;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::{Keys as Held, WatchFlag, partition_of};
use crate::session::Session;
use crate::shared::{Message, Shared};
use crate::table::{Acl, Command, Flags, KeyFlags, Keys};
use crate::tracking;
use hypercache_journal::Event;
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_protocol::reply::{Output, Reply};
use hypercache_stdx::number;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// Most at a time: each has a thread and a connection.
pub const MIGRATIONS_MAX: usize = 16;
/// How often a key that is written meanwhile is sent anew.
const ROUNDS_MAX: u32 = 16;
/// Where options begin.
const OPTIONS: usize = 6;
const TIMEOUT: Duration = Duration::from_secs(1);

const MOVED: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);

/// The specifications of the keys, as COMMAND INFO shows them.
pub(crate) const SPECS: &[Keys] = &[
    Keys::Range { first: 3, last: 3, step: 1, flags: MOVED },
    Keys::Rest { word: "KEYS", from: -2, flags: MOVED.or(KeyFlags::INCOMPLETE) },
];

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "MIGRATE",
    since: "2.6.0",
    tips: &["nondeterministic_output"],
    arity: -6,
    keys: Keys::Migrate,
    flags: Flags::WRITE.or(Flags::MOVABLE_KEYS),
    acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
    run: migrate,
    summary: "Moves keys to another server.",
    complexity: "O(N) in the bytes of the values",
    syntax: "host port key destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] [KEYS key [key ...]]",
    examples: "> MIGRATE 127.0.0.1 6380 nosuch 0 1000\nNOKEY\n> MIGRATE 127.0.0.1 6380 k 0 1000 KEYS k\n(error) ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
    ..Command::DEFAULT
}];

/// Keys on their way.
#[derive(Debug, Default)]
pub struct Migrations {
    under_way: AtomicUsize,
}

/// A key on its way.
#[derive(Debug)]
pub struct Parcel {
    /// The key.
    pub key: Box<[u8]>,
    /// What DUMP gives; `None` when the key was deleted after it had arrived: so it shall there.
    pub payload: Option<Vec<u8>>,
    /// When it expires, in ms since the epoch.
    pub deadline: Option<u64>,
    /// Whether the other server took it.
    pub has_arrived: bool,
    /// Whether it may take another's place there.
    pub replaces: bool,
    /// Raised when the key changes here.
    flag: WatchFlag,
}

/// The other server.
#[derive(Debug)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Number of the database, as it was given.
    pub db: i64,
    /// Longest time for each step.
    pub timeout: Duration,
    /// User name, if there is one, and password.
    pub auth: Vec<Vec<u8>>,
}

/// The keys of one command on their way.
#[derive(Debug)]
pub struct Migration {
    /// Where to.
    pub target: Target,
    /// What is to be sent.
    pub parcels: Vec<Parcel>,
    /// What went wrong, an error with its code; nothing of what had not arrived did.
    pub error: Option<Vec<u8>>,
    /// The database that the keys are in.
    db: u8,
    keeps: bool,
    round: u32,
    waiter: Arc<Waiter>,
}

impl Migration {
    /// The worker that is to know how it ended.
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.waiter.client().worker
    }
}

/// What the arguments say beside where to.
#[derive(Default)]
struct Options {
    keeps: bool,
    replaces: bool,
    auth: Vec<Vec<u8>>,
    /// Number of the first key, if KEYS was said.
    first_key: Option<usize>,
}

/// How many arguments belong to an option; `None` of one that is none.
fn option_len(word: &[u8]) -> Option<usize> {
    match word.to_ascii_uppercase().as_slice() {
        b"COPY" | b"REPLACE" => Some(1),
        b"AUTH" => Some(2),
        b"AUTH2" => Some(3),
        _ => None,
    }
}

/// Number of the word KEYS, unless the key is named in front or an option cannot be read.
fn keys_word(args: Args<'_>) -> Option<usize> {
    let mut i = OPTIONS;
    while i < args.len() {
        if args.get(i).eq_ignore_ascii_case(b"KEYS") {
            return args.get(3).is_empty().then_some(i);
        }
        i += option_len(args.get(i))?;
    }
    None
}

/// Calls `f` with the number of every argument that is a key.
pub(crate) fn each_key(args: Args<'_>, f: &mut dyn FnMut(usize, KeyFlags)) {
    match keys_word(args) {
        Some(word) => (word + 1..args.len()).for_each(|i| f(i, MOVED)),
        None if args.len() > 3 => f(3, MOVED),
        None => {}
    }
}

/// Whether an argument is a user name or a password.
pub(crate) fn is_secret(args: Args<'_>, at: usize) -> bool {
    let mut i = OPTIONS;
    while i < at {
        let Some(len) = option_len(args.get(i)) else { return false };
        if at < i + len {
            return true;
        }
        i += len;
    }
    false
}

impl Options {
    fn read(args: Args<'_>) -> Result<Options, ReplyError> {
        let mut options = Options::default();
        let mut i = OPTIONS;
        while i < args.len() {
            let word = args.get(i).to_ascii_uppercase();
            if word == b"KEYS" {
                if !args.get(3).is_empty() {
                    return Err(ReplyError::Text(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the \
                         empty string",
                    ));
                }
                options.first_key = Some(i + 1);
                break;
            }
            let len = option_len(&word).filter(|len| i + len <= args.len());
            let len = len.ok_or(ReplyError::Syntax)?;
            match word.as_slice() {
                b"COPY" => options.keeps = true,
                b"REPLACE" => options.replaces = true,
                _ => options.auth = (i + 1..i + len).map(|n| args.get(n).to_vec()).collect(),
            }
            i += len;
        }
        Ok(options)
    }
}

fn migrate(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let Options { keeps, replaces, auth, first_key } = Options::read(args)?;
    let timeout_ms = number::parse_i64(args.get(5)).ok_or(ReplyError::NotAnInteger)?;
    let target_db = number::parse_i64(args.get(4)).ok_or(ReplyError::NotAnInteger)?;
    let named = first_key.map_or(3..4, |first| first..args.len());
    let mut keys: Vec<&[u8]> = named.map(|i| args.get(i)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| cx.keys.get(key).is_some());
    if keys.is_empty() {
        cx.reply.simple("NOKEY");
        return Ok(());
    }
    take_place(cx)?;
    let parcels = keys.into_iter().map(|key| pack(&mut cx.keys, key, replaces)).collect();
    let timeout = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0);
    let target = Target {
        host: String::from_utf8_lossy(args.get(1)).into_owned(),
        // What is no port is one that nobody listens on.
        port: std::str::from_utf8(args.get(2)).ok().and_then(|s| s.parse().ok()).unwrap_or(0),
        db: target_db,
        timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
        auth,
    };
    begin(cx, target, parcels, keeps)
}

/// Takes one of the places for what is under way, if the client may wait.
fn take_place(cx: &mut Cx<'_>) -> Outcome {
    let refused = match cx.blocking {
        Blocking::Denied | Blocking::Serving(_) => {
            "ERR MIGRATE waits for another server, so it cannot be part of a transaction or script"
        }
        // Without workers, as in tests, there is nobody to send it.
        Blocking::Allowed if cx.shared.mailboxes.get().is_none() => UNREACHABLE,
        Blocking::Allowed if cx.shared.migrations.take_place() => return Ok(()),
        Blocking::Allowed => "TRYAGAIN as many MIGRATE commands as may be are under way",
    };
    Err(ReplyError::Text(refused))
}

/// The parcel of a key, which is watched from now on.
fn pack(keys: &mut Held<'_>, key: &[u8], replaces: bool) -> Parcel {
    let flag = WatchFlag::default();
    keys.watch(key, &flag);
    let entry = keys.peek(key);
    let deadline = entry.and_then(|entry| entry.deadline());
    let payload = entry.map(payload_of);
    Parcel { key: Box::from(key), payload, deadline, has_arrived: false, replaces, flag }
}

fn begin(cx: &mut Cx<'_>, target: Target, parcels: Vec<Parcel>, keeps: bool) -> Outcome {
    cx.wait(std::iter::empty(), 0, OwnedArgs::default(), |_| {})?;
    let Some(waiter) = cx.session.blocked().map(Arc::clone) else { return Ok(()) };
    let db = cx.keys.db;
    let migration = Migration { target, parcels, error: None, db, keeps, round: 1, waiter };
    cx.shared.send(migration.worker(), Message::Migrate(Box::new(migration)));
    Ok(())
}

/// What Redis says when it cannot connect.
pub const UNREACHABLE: &str = "IOERR error or timeout connecting to the client";

impl Migrations {
    /// Takes one of the places; returns whether there was one.
    fn take_place(&self) -> bool {
        let more = |n: usize| (n < MIGRATIONS_MAX).then_some(n + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }
}

/// Goes on with keys that were sent: deletes what arrived and is still the same, has the others sent
/// anew, and answers the client when nothing is left.
pub fn settle(shared: &Shared, worker: &mut Worker, mut migration: Box<Migration>) {
    let waiter = Arc::clone(&migration.waiter);
    let mut session = Session::new(Arc::clone(waiter.client()), true);
    let mut scratch = Output::default();
    let stats = &shared.stats[worker.id];
    let keys = Held::new(&shared.keyspace, stats, migration.db, worker.now_ms);
    let reply = Reply::new(&mut scratch, session.version);
    let (session, blocking) = (&mut session, Blocking::Denied);
    let mut cx = Cx { shared, worker, session, keys, reply, entry: waiter.entry(), blocking };
    let parcels = std::mem::take(&mut migration.parcels);
    let mut partitions = parcels.iter().map(|parcel| partition_of(&parcel.key)).collect();
    if !cx.keys.hold_many(&mut partitions) {
        // A script has them for long; others are served until it ends.
        migration.parcels = parcels;
        return shared.send(migration.worker(), Message::Migrated(migration));
    }
    let again = parcels.into_iter().filter_map(|parcel| migration.settle(&mut cx.keys, &parcel));
    let again: Vec<Parcel> = again.collect();
    if cx.keys.has_ready() {
        // What is not served now is by a later turn.
        let _is_served = serve_ready(&mut cx);
    }
    release(shared, &mut cx.keys);
    let stale = std::mem::take(&mut cx.keys.stale);
    tracking::tell_without_client(shared, cx.worker, stale);
    if !again.is_empty() {
        migration.parcels = again;
        migration.round += 1;
        return shared.send(migration.worker(), Message::Migrate(migration));
    }
    shared.migrations.give_back();
    answer(shared, &waiter, |reply| match &migration.error {
        Some(text) => reply.error(text),
        None => reply.ok(),
    });
}

impl Migration {
    /// Ends the way of a parcel. Returns what is to be sent because the key changed meanwhile.
    fn settle(&mut self, keys: &mut Held<'_>, parcel: &Parcel) -> Option<Parcel> {
        keys.unwatch(&parcel.key, &parcel.flag);
        if !parcel.has_arrived || self.keeps {
            return None;
        }
        if !parcel.flag.load(Acquire) {
            keys.delete(&parcel.key, Event::Del);
            return None;
        }
        if self.round == ROUNDS_MAX {
            let text =
                b"TRYAGAIN a key is written faster than it can be moved, so it is still here";
            self.error.get_or_insert_with(|| text.to_vec());
            return None;
        }
        Some(pack(keys, &parcel.key, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(line: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let args = OwnedArgs::from_pieces(line.split(' '));
        each_key(args.as_args(), &mut |i, _| found.push(i));
        found
    }

    #[test]
    fn its_keys_are_found() {
        assert_eq!(keys("MIGRATE h 1 k 0 9"), [3]);
        assert_eq!(keys("MIGRATE h 1 k 0 9 COPY KEYS a"), [3]);
        assert_eq!(keys("MIGRATE h 1  0 9 REPLACE keys a b"), [8, 9]);
        assert_eq!(keys("MIGRATE h 1  0 9 AUTH keys KEYS a"), [9]);
        assert_eq!(keys("MIGRATE h 1  0 9 AUTH2 keys keys KEYS a"), [10]);
        assert_eq!(keys("MIGRATE h 1  0 9 what KEYS a"), [3]);
    }

    #[test]
    fn no_more_than_a_number_run_at_a_time() {
        let migrations = Migrations::default();
        assert!((0..MIGRATIONS_MAX).all(|_| migrations.take_place()));
        assert!(!migrations.take_place());
        migrations.give_back();
        assert!(migrations.take_place());
    }
}
