//! What all workers share: keyspace, settings, clients, subscriptions, statistics, and the
//! mailboxes by which workers reach each other.

use crate::acl::Accounts;
use crate::blocking::Blocked;
use crate::client::{Client, Clients};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::hot_keys::HotKeys;
use crate::key_sample::KeySample;
use crate::keyspace::Keyspace;
use crate::latency::LatencyMonitor;
use crate::leftover::Leftovers;
use crate::limit::Limit;
use crate::migrate::{Migration, Migrations};
use crate::pubsub::PubSub;
use crate::sampler::Sampler;
use crate::scripts::Scripts;
use crate::slowlog::SlowLog;
use crate::stats::WorkerStats;
use crate::tracking::{Notice, Tracking};
use hypercache_cluster::gate::Need;
use hypercache_protocol::reply::Output;
use hypercache_stdx::{clock, mailbox, rng};
use hypercache_store::growth;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

/// Something one worker tells another about one of the other's clients.
#[derive(Debug)]
pub enum Message {
    /// A message of a channel for a subscriber.
    Publish {
        /// The subscriber.
        client: Arc<Client>,
        /// What it is told.
        push: Push,
    },
    /// A line for a monitor.
    Monitor {
        /// The monitor.
        client: Arc<Client>,
        /// The line, without `+` and line end.
        line: Arc<[u8]>,
    },
    /// Something about the keys that a client keeps copies of.
    Invalidate {
        /// The client.
        client: Arc<Client>,
        /// What it is told.
        notice: Notice,
    },
    /// [`Client::is_killed`] became true.
    Kill(Arc<Client>),
    /// Clients may go on after CLIENT PAUSE.
    Resume,
    /// A client that waited is answered.
    Unblock {
        /// The client.
        client: Arc<Client>,
        /// Number of what it waited in.
        number: u64,
        /// Its reply.
        reply: Box<Output>,
        /// What must hold before it may leave.
        need: Need,
    },
    /// In a cluster: replies that wait may leave, or partitions are to be looked after.
    Look,
    /// Keys to send to another server, which takes long.
    Migrate(Box<Migration>),
    /// They were sent, or not.
    Migrated(Box<Migration>),
    /// CONFIG RESETSTAT: a worker's counters are written by itself only.
    ResetStats,
}

/// A message to a subscriber.
#[derive(Debug, Clone)]
pub struct Push {
    /// `message`, `pmessage` or `smessage`.
    pub kind: &'static str,
    /// The pattern that matched, of `pmessage`.
    pub pattern: Option<Arc<[u8]>>,
    /// The channel.
    pub channel: Arc<[u8]>,
    /// What was published.
    pub payload: Arc<[u8]>,
}

impl Push {
    /// Bytes that it takes on its way, roughly what it takes in the output.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let pattern = self.pattern.as_ref().map_or(0, |p| p.len());
        (self.payload.len() + self.channel.len() + pattern + 64) as u64
    }
}

/// The mailbox of a worker. Bounded by what its clients may have waiting: a publisher counts the
/// bytes on their way in [`Client::output_bytes`] and kills the client beyond its limit instead.
pub struct Mailbox {
    queue: mailbox::Mailbox<Message>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

impl Mailbox {
    /// A mailbox whose owner is woken by `wake`.
    #[must_use]
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Mailbox { queue: mailbox::Mailbox::new(), wake }
    }

    /// Delivers a message; wakes the owner if the mailbox was empty.
    pub fn send(&self, message: Message) {
        if self.queue.push(message) {
            (self.wake)();
        }
    }

    /// Takes all messages, if there are any.
    #[inline]
    pub fn take(&self) -> Vec<Message> {
        self.queue.take()
    }
}

/// CLIENT PAUSE.
#[derive(Debug, Default)]
pub struct Pause {
    /// Until when, in ms since the epoch; 0 when not paused.
    pub until_ms: AtomicU64,
    /// 1: writes only; 2: all commands.
    pub mode: AtomicU8,
}

/// See the module's text.
#[derive(Debug)]
pub struct Shared {
    /// The data.
    pub keyspace: Keyspace,
    /// The settings.
    pub config: Config,
    /// Which keys take the most.
    pub hot_keys: HotKeys,
    /// What the keys are like.
    pub key_sample: KeySample,
    /// The users.
    pub acl: Accounts,
    /// The connections.
    pub clients: Clients,
    /// The subscriptions.
    pub pubsub: PubSub,
    /// Scripts and functions.
    pub scripts: Scripts,
    /// SLOWLOG.
    pub slowlog: SlowLog,
    /// Commands with large requests.
    pub large_requests: SlowLog,
    /// Commands with large replies.
    pub large_replies: SlowLog,
    /// LATENCY.
    pub latency: LatencyMonitor,
    /// Rates of some counters.
    pub sampler: Sampler,
    /// One per worker, same order as `mailboxes`; and one more for threads that are no workers.
    pub stats: Vec<Arc<WorkerStats>>,
    /// One per worker and one for the standby, set once the workers exist.
    pub mailboxes: OnceLock<Vec<Mailbox>>,
    /// Whether a worker beyond the others was started, for connections that come while a script
    /// takes long.
    pub has_standby: AtomicBool,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// Clients that see every command (MONITOR).
    pub monitors: Mutex<Vec<Arc<Client>>>,
    /// How many those are, to ask without the lock.
    pub monitor_count: AtomicUsize,
    /// When the server started, in ms since the epoch.
    pub started_ms: u64,
    /// Forty hexadecimal digits that name this run.
    pub run_id: String,
    /// Set by SHUTDOWN: workers stop.
    pub is_stopping: AtomicBool,
    /// What the event loops run on: `io_uring` or `epoll`.
    pub io_backend: OnceLock<&'static str>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub is_active_expire: AtomicBool,
    /// When a delayed `flush_all` of a memcached client is due, in ms since the epoch; 0: none is.
    pub memcached_flush_ms: AtomicU64,
    /// Highest sum of bytes seen.
    pub peak_bytes: AtomicU64,
    /// Clients that wait in commands that block.
    pub blocked: Blocked,
    /// Clients that keep copies of keys.
    pub tracking: Tracking,
    /// What cluster clients are told.
    pub cluster: Cluster,
    /// Keys on their way to other servers.
    pub migrations: Migrations,
    /// What could not be removed from partitions that were held.
    pub leftovers: Leftovers,
    /// How much memory is resident, and how much of it data may be.
    pub limit: Limit,
}

impl Shared {
    /// Shared state for `workers` workers under the given settings.
    #[must_use]
    pub fn new(config: Config, workers: usize) -> Arc<Self> {
        Self::with_secret(config, workers, (rng::entropy(), rng::entropy()))
    }

    /// As [`Self::new`], with a keyspace whose hash is keyed by `secret`.
    pub(crate) fn with_secret(config: Config, workers: usize, secret: (u64, u64)) -> Arc<Self> {
        let run_id =
            format!("{:016x}{:016x}{:08x}", rng::entropy(), rng::entropy(), rng::entropy() as u32);
        let cluster = Cluster::new(config.is_on("cluster-enabled"));
        let keyspace = Keyspace::new(secret);
        let blocked = Blocked::new(&keyspace.registered);
        let hot_keys = HotKeys::new(workers, &keyspace.registered);
        let key_sample = KeySample::new(&keyspace.registered);
        let shared = Arc::new(Shared {
            keyspace,
            hot_keys,
            key_sample,
            config,
            acl: Accounts::default(),
            clients: Clients::default(),
            pubsub: PubSub::default(),
            scripts: Scripts::default(),
            slowlog: SlowLog::default(),
            large_requests: SlowLog::default(),
            large_replies: SlowLog::default(),
            latency: LatencyMonitor::default(),
            sampler: Sampler::default(),
            stats: (0..=workers).map(|_| Arc::new(WorkerStats::default())).collect(),
            mailboxes: OnceLock::new(),
            has_standby: AtomicBool::new(false),
            pause: Pause::default(),
            monitors: Mutex::default(),
            monitor_count: AtomicUsize::new(0),
            started_ms: clock::now_ms(),
            run_id,
            is_stopping: AtomicBool::new(false),
            io_backend: OnceLock::new(),
            is_active_expire: AtomicBool::new(true),
            memcached_flush_ms: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            blocked,
            tracking: Tracking::default(),
            cluster,
            migrations: Migrations::default(),
            leftovers: Leftovers::default(),
            limit: Limit::default(),
        });
        crate::config::apply_all(&shared);
        shared
    }

    /// Bytes in use: of the keyspace, of what clients have registered, and of connection buffers.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        let by_workers: isize = self.stats.iter().map(|s| s.bytes()).sum();
        let sum = by_workers + self.cluster.plane().map_or(0, |plane| plane.bytes());
        let used = sum.max(0) as u64
            + self.keyspace.registered.bytes() as u64
            + self.keyspace.uses.bytes() as u64;
        // Writes ask often, and all workers write to the peak.
        if used > self.peak_bytes.load(Ordering::Relaxed) {
            self.peak_bytes.fetch_max(used, Ordering::Relaxed);
        }
        used
    }

    /// Sends a message to the worker of its client.
    pub fn send(&self, worker: u16, message: Message) {
        if let Some(mailbox) = self.mailboxes.get().and_then(|m| m.get(worker as usize)) {
            mailbox.send(message);
        }
    }

    /// Kills a client: its worker closes the connection at its next turn.
    pub fn kill(&self, client: &Arc<Client>) {
        if !client.kill() {
            self.send(client.worker, Message::Kill(Arc::clone(client)));
        }
    }

    /// Kills a client whose output went beyond its limit.
    pub fn kill_for_output(&self, client: &Arc<Client>) {
        if !client.is_killed() {
            self.stats[client.worker as usize].output_limit_closed.add(1);
        }
        self.kill(client);
    }

    /// Starts all counters again from zero: those of worker `own` now, the others' at their next
    /// turn.
    pub fn reset_stats(&self, own: usize) {
        self.sampler.reset();
        growth::reset();
        for (i, stats) in self.stats.iter().enumerate() {
            let is_worker = self.mailboxes.get().is_some() && i < self.workers();
            if i == own || !is_worker {
                stats.reset();
            } else {
                self.send(i as u16, Message::ResetStats);
            }
        }
    }

    /// Tells all workers to stop, and wakes them. Returns whether they were told before.
    pub fn stop(&self) -> bool {
        let was_stopping = self.is_stopping.swap(true, Ordering::AcqRel);
        self.keyspace.turn.stop();
        self.resume_all();
        was_stopping
    }

    /// Has all workers look at what they left waiting.
    pub fn resume_all(&self) {
        let Some(mailboxes) = self.mailboxes.get() else { return };
        let standby = usize::from(self.has_standby.load(Ordering::Acquire));
        let there = mailboxes.iter().take(self.workers() + standby);
        there.for_each(|mailbox| mailbox.send(Message::Resume));
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.stats.len() - 1
    }

    /// The sum over all workers of a counter.
    pub fn sum(&self, counter: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.stats.iter().map(|s| counter(s)).sum()
    }
}

/// Values waiting to be freed in the background; beyond this many they are freed where they are.
const FREE_QUEUE_MAX: usize = 1024;

/// Drops a value on the background thread, so that freeing a huge one stalls nobody.
pub fn free_in_background(value: Box<dyn Any + Send>) {
    static QUEUE: OnceLock<Option<mpsc::SyncSender<Box<dyn Any + Send>>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<Box<dyn Any + Send>>(FREE_QUEUE_MAX);
        let thread = std::thread::Builder::new().name("hc-free".into());
        let spawned = thread.spawn(move || {
            for value in receiver {
                drop(value);
                // What it keeps of what it freed would keep whole regions.
                hypercache_store::give_back_kept();
            }
        });
        spawned.is_ok().then_some(sender)
    });
    // A full queue or a missing thread gives the value back in the error, which drops it here.
    if let Some(queue) = queue {
        drop(queue.try_send(value));
    }
}
