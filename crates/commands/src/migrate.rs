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
//! At most [`MIGRATIONS_MAX`] run at a time; a further one is refused. So is one whose payloads are more
//! than [`PAYLOADS_MAX`] together: they count as memory in use until they have arrived.

use crate::blocking::{Blocking, Waiter, answer, serve_ready};
use crate::charge::{Charge, heap};
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
/// Most bytes of payloads of one command. A larger value cannot arrive anyhow: no server takes an
/// argument of more than 512 MB, and names of keys can be shared out among commands.
const PAYLOADS_MAX: usize = 512 * 1024 * 1024;
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
#[derive(Debug, Default)]
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
    /// Whether it was sent before, as it was then.
    is_again: bool,
    /// Raised when the key changes here.
    flag: WatchFlag,
}

/// What is to be done at the other server for a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Errand<'a> {
    /// Nothing: its time was past before it was sent for the first time.
    Nothing,
    /// To delete it.
    Delete,
    /// To make it of this payload, with what is left of its time in ms, 0 for ever.
    Restore(&'a [u8], u64),
}

impl Parcel {
    /// What is to be done for it at this time, in ms since the epoch.
    #[must_use]
    pub fn errand(&self, now_ms: u64) -> Errand<'_> {
        let Some(payload) = &self.payload else { return Errand::Delete };
        match self.deadline {
            None => Errand::Restore(payload, 0),
            Some(at) if at >= now_ms => Errand::Restore(payload, (at - now_ms).max(1)),
            // What is there may be older and have no end.
            Some(_) if self.is_again => Errand::Delete,
            Some(_) => Errand::Nothing,
        }
    }

    fn payload_len(&self) -> usize {
        self.payload.as_ref().map_or(0, Vec::len)
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        let payload = self.payload.as_ref().map_or(0, Vec::capacity);
        size_of::<Parcel>() + heap(self.key.len()) + heap(payload)
    }
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
    /// Of the parcels.
    charge: Charge,
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
    let Some(parcels) = pack_all(&mut cx.keys, &keys, replaces, PAYLOADS_MAX) else {
        cx.shared.migrations.give_back();
        return Err(ReplyError::Text(TOO_LARGE));
    };
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

const TOO_LARGE: &str = "ERR the values are too large to be sent by one MIGRATE: 512 MB at most";

/// The parcels of keys, unless their payloads are more than `max` together.
fn pack_all(
    keys: &mut Held<'_>,
    names: &[&[u8]],
    replaces: bool,
    max: usize,
) -> Option<Vec<Parcel>> {
    let (mut parcels, mut left) = (Vec::with_capacity(names.len()), Some(max));
    for name in names {
        let parcel = pack(keys, name, replaces);
        left = left.and_then(|left| left.checked_sub(parcel.payload_len()));
        parcels.push(parcel);
        if left.is_none() {
            parcels.iter().for_each(|parcel| keys.unwatch(&parcel.key, &parcel.flag));
            return None;
        }
    }
    Some(parcels)
}

/// The parcel of a key, which is watched from now on.
fn pack(keys: &mut Held<'_>, key: &[u8], replaces: bool) -> Parcel {
    let flag = WatchFlag::default();
    keys.watch(key, &flag);
    let entry = keys.peek(key);
    let deadline = entry.and_then(|entry| entry.deadline());
    let payload = entry.map(payload_of);
    let (key, has_arrived, is_again) = (Box::from(key), false, false);
    Parcel { key, payload, deadline, has_arrived, replaces, is_again, flag }
}

fn begin(cx: &mut Cx<'_>, target: Target, parcels: Vec<Parcel>, keeps: bool) -> Outcome {
    cx.wait(std::iter::empty(), 0, OwnedArgs::default(), |_| {})?;
    let Some(waiter) = cx.session.blocked().map(Arc::clone) else { return Ok(()) };
    let (db, charge) = (cx.keys.db, Charge::new(&cx.shared.keyspace.registered));
    let migration = Migration { target, parcels, error: None, db, keeps, round: 1, waiter, charge };
    Box::new(migration).send(cx.shared);
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

/// Goes on with keys that were sent. While a script has one of them for long, others are served, and it
/// is left for [`settle_left`].
pub fn settle(shared: &Shared, worker: &mut Worker, migration: Box<Migration>) {
    if let Err(migration) = try_settle(shared, worker, migration) {
        worker.unsettled.push_back(migration);
    }
}

/// Goes on with keys that [`settle`] left, once a tick. Up to the first that has to be left again: each
/// try waits for a moment. Those behind it come first the next time.
pub fn settle_left(shared: &Shared, worker: &mut Worker) {
    while let Some(migration) = worker.unsettled.pop_front() {
        if let Err(migration) = try_settle(shared, worker, migration) {
            return worker.unsettled.push_back(migration);
        }
    }
}

/// Deletes what arrived and is still the same, has the others sent anew, and answers the client when
/// nothing is left; or gives all back because a script has one of the keys for long.
fn try_settle(
    shared: &Shared,
    worker: &mut Worker,
    mut migration: Box<Migration>,
) -> Result<(), Box<Migration>> {
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
        migration.parcels = parcels;
        return Err(migration);
    }
    let mut left = PAYLOADS_MAX;
    let settle = |parcel| migration.settle(&mut cx.keys, &parcel, &mut left);
    let again: Vec<Parcel> = parcels.into_iter().filter_map(settle).collect();
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
        migration.send(shared);
        return Ok(());
    }
    shared.migrations.give_back();
    answer(shared, &waiter, |reply| match &migration.error {
        Some(text) => reply.error(text),
        None => reply.ok(),
    });
    Ok(())
}

impl Migration {
    /// Has the parcels sent. What they take counts until the keys are settled.
    fn send(mut self: Box<Self>, shared: &Shared) {
        self.charge.set(self.parcels.iter().map(Parcel::bytes).sum());
        shared.send(self.worker(), Message::Migrate(self));
    }

    /// Ends the way of a parcel. Returns what is to be sent because the key changed meanwhile, if its
    /// payload is among the bytes that are left.
    fn settle(&mut self, keys: &mut Held<'_>, parcel: &Parcel, left: &mut usize) -> Option<Parcel> {
        keys.unwatch(&parcel.key, &parcel.flag);
        if !parcel.has_arrived || self.keeps {
            return None;
        }
        if !keys.may_remove(partition_of(&parcel.key)) {
            let text = b"TRYAGAIN a key's slot changed hands on its way, so it is still here";
            self.error.get_or_insert_with(|| text.to_vec());
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
        let parcel = Parcel { is_again: true, ..pack(keys, &parcel.key, true) };
        if let Some(rest) = left.checked_sub(parcel.payload_len()) {
            *left = rest;
            return Some(parcel);
        }
        keys.unwatch(&parcel.key, &parcel.flag);
        self.error.get_or_insert_with(|| TOO_LARGE.as_bytes().to_vec());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

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

    fn parcel(payload: Option<&[u8]>, deadline: Option<u64>, is_again: bool) -> Parcel {
        let payload = payload.map(<[u8]>::to_vec);
        Parcel { payload, deadline, is_again, ..Parcel::default() }
    }

    #[test]
    fn one_whose_time_is_past_does_not_stay_where_it_arrived_before() {
        let errands = [
            (parcel(Some(b"v"), None, false), Errand::Restore(b"v", 0)),
            (parcel(Some(b"v"), Some(105), false), Errand::Restore(b"v", 5)),
            (parcel(Some(b"v"), Some(100), true), Errand::Restore(b"v", 1)),
            (parcel(Some(b"v"), Some(99), false), Errand::Nothing),
            (parcel(Some(b"v"), Some(99), true), Errand::Delete),
            (parcel(None, None, true), Errand::Delete),
        ];
        for (parcel, errand) in errands {
            assert_eq!(parcel.errand(100), errand, "{parcel:?}");
        }
    }

    #[test]
    fn payloads_are_bounded_together() {
        let mut harness = Harness::default();
        harness.run("MSET a 12345678901234567890x b 12345678901234567890x");
        let shared = &harness.shared;
        let mut keys = Held::new(&shared.keyspace, &shared.stats[0], 0, 0);
        assert!(keys.hold_all());
        let names = [&b"a"[..], b"b"];
        let mut pack = |max| pack_all(&mut keys, &names, false, max);
        let payloads = |parcels: &[Parcel]| parcels.iter().map(Parcel::payload_len).sum::<usize>();
        let watches = || shared.keyspace.registered.bytes();
        let before = watches();
        assert!(pack(65).is_none() && pack(0).is_none());
        assert_eq!(watches(), before, "it is watched no longer");
        let parcels = pack(66).expect("two times 21 bytes with a type, a length and a footer");
        assert_eq!(payloads(&parcels), 66);
        assert!(parcels.iter().all(|parcel| parcel.bytes() >= 33 + 1 + size_of::<Parcel>()));
        assert!(watches() > before);
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
