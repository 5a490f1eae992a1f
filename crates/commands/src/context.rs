//! What a command's function is handed.

use crate::blocking::Blocking;
use crate::error::ReplyError;
use crate::evict::Candidates;
use crate::keyspace::Keys;
use crate::limit::bytes_until_full;
use crate::migrate::Migration;
use crate::scripts::Vm;
use crate::session::Session;
use crate::shared::Shared;
use crate::stats::WorkerStats;
use crate::table::Entry;
use crate::tracking::Broadcast;
use hypercache_cluster::gate::Need;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::{clock, rng::Rng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The state of one worker that commands use.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub id: usize,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// The user whose permissions it looked up last.
    pub recent_user: Option<crate::acl::Recent>,
    /// Its random numbers.
    pub rng: Rng,
    /// The time of this loop turn, in ms since the epoch.
    pub now_ms: u64,
    /// The interpreter of scripts, once there is one and while none runs.
    pub vm: Option<Box<dyn Vm>>,
    /// For scripts: memory was above `maxmemory` when the command began, and stayed there.
    pub lacks_room: bool,
    /// Keys that were changed in this turn and that clients want to know of by their prefix.
    pub broadcast: Broadcast,
    /// Keys that may go when memory is full.
    pub candidates: Candidates,
    /// In a cluster: what the replies of the connection need that was executed last. The server takes it.
    pub needs: Vec<Need>,
    /// In a cluster: the slot of the keys of the script that runs, once it is known.
    pub script_slot: Option<u16>,
    /// See [`bytes_until_full`], and the limit that it was computed for.
    bytes_until_full: isize,
    limit: u64,
    /// What was sent by MIGRATE and waits for a script to end; no more than run at a time.
    pub unsettled: VecDeque<Box<Migration>>,
}

impl Worker {
    /// The state of worker number `id`.
    #[must_use]
    pub fn new(shared: &Shared, id: usize) -> Self {
        let stats = Arc::clone(&shared.stats[id]);
        let (rng, now_ms) = (Rng::from_entropy(), clock::now_ms());
        Worker {
            id,
            stats,
            recent_user: None,
            rng,
            now_ms,
            vm: None,
            lacks_room: false,
            broadcast: Broadcast::default(),
            candidates: Candidates::default(),
            needs: Vec::new(),
            script_slot: None,
            bytes_until_full: bytes_until_full(shared, 0),
            limit: shared.config.hot.maxmemory.load(Relaxed),
            unsettled: VecDeque::new(),
        }
    }

    /// Reads the clock for a new turn, and once a millisecond how much room there is: that is a line of
    /// the cache from each worker.
    #[inline]
    pub fn begin_turn(&mut self, shared: &Shared) {
        let now_ms = clock::now_ms();
        if now_ms != self.now_ms {
            self.now_ms = now_ms;
            self.note_room(shared);
        }
    }

    /// Notes how much memory there is for writes.
    pub(crate) fn note_room(&mut self, shared: &Shared) {
        self.limit = shared.config.hot.maxmemory.load(Relaxed);
        self.bytes_until_full = bytes_until_full(shared, self.stats.bytes());
    }

    /// Notes the limit, if it is another one now.
    #[inline]
    pub(crate) fn note_limit(&mut self, shared: &Shared) {
        if self.limit != shared.config.hot.maxmemory.load(Relaxed) {
            self.note_room(shared);
        }
    }

    /// Whether there is surely memory for a write.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.stats.bytes() <= self.bytes_until_full
    }
}

/// See the module's text. The fields are separate so that a reply can be written while a value is
/// borrowed from the keys.
#[derive(Debug)]
pub struct Cx<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// The worker that runs the command.
    pub worker: &'a mut Worker,
    /// The connection it came from.
    pub session: &'a mut Session,
    /// The keyspace, as far as the command may touch it.
    pub keys: Keys<'a>,
    /// Where the reply goes.
    pub reply: Reply<'a>,
    /// The command's row; of a subcommand, the subcommand's.
    pub entry: &'static Entry,
    /// Whether the command may wait.
    pub blocking: Blocking,
}

impl Cx<'_> {
    /// The error of a subcommand whose arguments no form of it takes.
    #[cold]
    pub fn subcommand_syntax(&mut self, args: Args<'_>) -> ReplyError {
        let container = String::from_utf8_lossy(args.get(0)).to_ascii_uppercase();
        let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
        text.extend_from_slice(&args.get(1)[..args.get(1).len().min(128)]);
        text.extend_from_slice(format!("'. Try {container} HELP.").as_bytes());
        self.reply.error(&text);
        ReplyError::Written
    }
}
