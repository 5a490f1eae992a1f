//! The data plane of a node: what its partitions, its workers and the threads of the node's runtime share.
//!
//! What must be exact about a partition is under the partition's lock. Beside it stands a [`Mark`] per
//! partition, of which a worker reads at the end of a turn whether replies may leave, without any lock:
//! a mark is written under the lock after each step of the state machine, and what is read of it after a
//! command ran says what was so when the command ran.

use super::durability::Rules;
use hypercache_cluster::gate::{Durability, Need, Verdict};
use hypercache_cluster::ids::{Member, PARTITIONS, PartitionId};
use hypercache_cluster::meta::{MetaState, PartitionConfig};
use hypercache_cluster::partition::Partition;
use hypercache_cluster::settings::Settings;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64};
use std::sync::{Arc, OnceLock};

/// What may be read of a partition without its lock.
#[derive(Debug, Default)]
struct Mark {
    /// The term of the primary that is here; 0 if none is.
    term: AtomicU64,
    /// The same, while it may answer.
    serving: AtomicU64,
    /// What is committed.
    commit: AtomicU64,
}

/// A worker's interest in what is committed.
#[derive(Debug, Default)]
struct Waiting {
    /// Replies of its connections wait.
    has_any: AtomicBool,
    /// It was told, and has not looked yet.
    is_told: AtomicBool,
}

const WORDS: usize = PARTITIONS as usize / 64;

/// See the module's text.
#[derive(Debug)]
pub struct Plane {
    /// Times and bounds of the protocol.
    pub settings: Settings,
    me: OnceLock<Member>,
    meta: RwLock<Arc<MetaState>>,
    lease_until_us: AtomicU64,
    marks: Box<[Mark]>,
    /// Partitions with records that were not sent, a bit each.
    written: [AtomicU64; WORDS],
    waiting: Box<[Waiting]>,
    /// Bytes that threads which are no workers added to the keyspace, less those they freed.
    bytes: AtomicIsize,
    /// Configurations of partitions that were held too long by others, in order.
    later: Mutex<BTreeMap<u16, VecDeque<PartitionConfig>>>,
    has_later: AtomicBool,
    rules: RwLock<Arc<Rules>>,
    expelled: OnceLock<String>,
}

impl Plane {
    /// That of a node which has not registered yet, with so many workers.
    #[must_use]
    pub fn new(settings: Settings, workers: usize) -> Self {
        Plane {
            settings,
            me: OnceLock::new(),
            meta: RwLock::default(),
            lease_until_us: AtomicU64::new(0),
            marks: (0..PARTITIONS).map(|_| Mark::default()).collect(),
            written: [const { AtomicU64::new(0) }; WORDS],
            waiting: (0..=workers).map(|_| Waiting::default()).collect(),
            bytes: AtomicIsize::new(0),
            later: Mutex::default(),
            has_later: AtomicBool::new(false),
            rules: RwLock::default(),
            expelled: OnceLock::new(),
        }
    }

    /// This process, once it is registered.
    #[must_use]
    pub fn me(&self) -> Option<Member> {
        self.me.get().copied()
    }

    pub(super) fn set_me(&self, me: Member) {
        let is_first = self.me.set(me).is_ok();
        debug_assert!(is_first, "a process registers once");
    }

    /// What the cluster has agreed on.
    #[must_use]
    pub fn meta(&self) -> Arc<MetaState> {
        Arc::clone(&self.meta.read())
    }

    pub(super) fn set_meta(&self, meta: &Arc<MetaState>) {
        *self.meta.write() = Arc::clone(meta);
    }

    /// Whether the node holds its lease: not while a partition has yet to hear of a configuration, which
    /// the lease may have been given under.
    #[must_use]
    pub fn has_lease(&self, now_us: u64) -> bool {
        now_us < self.lease_until_us.load(Acquire) && !self.has_later.load(Acquire)
    }

    pub(super) fn set_lease(&self, until_us: u64) {
        self.lease_until_us.store(until_us, Release);
    }

    /// How much may be lost of what is under a key.
    #[must_use]
    pub fn durability_of(&self, key: &[u8]) -> Durability {
        self.rules.read().of(key)
    }

    /// The strictest that is in force for any key.
    #[must_use]
    pub fn strictest_durability(&self) -> Durability {
        self.rules.read().strictest()
    }

    /// Makes other rules count.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }

    /// Notes what a partition is after a step. Its lock is held.
    pub(crate) fn note(&self, number: u16, partition: &Partition) {
        let mark = &self.marks[usize::from(number)];
        let number_of = |epoch: Option<hypercache_cluster::ids::Epoch>| epoch.map_or(0, |e| e.0);
        // Whoever finds a record committed and then its term unchanged may believe the first.
        mark.term.store(number_of(partition.term()), Release);
        mark.serving.store(number_of(partition.serving_term(&self.settings)), Release);
        mark.commit.store(partition.commit().0, SeqCst);
    }

    /// Whether the primary of a partition is here and may answer.
    #[must_use]
    pub fn is_served(&self, partition: u16) -> bool {
        self.marks[usize::from(partition)].serving.load(Acquire) != 0
    }

    /// Whether a reply may leave; `None` when only the partition's lock can tell.
    #[must_use]
    pub fn judge(&self, need: &Need, now_us: u64) -> Option<Verdict> {
        match *need {
            Need::Nothing => Some(Verdict::Leave),
            Need::Lease { partition, term } => Some(self.judge_lease(partition, term.0, now_us)),
            Need::Commit { partition, term, lsn } => {
                Some(self.judge_commit(partition, term.0, lsn.0))
            }
            Need::CommitAndLease { partition, term, lsn } => {
                match self.judge_commit(partition, term.0, lsn.0) {
                    Verdict::Leave => Some(self.judge_lease(partition, term.0, now_us)),
                    other => Some(other),
                }
            }
            Need::Leave { .. } | Need::Bound { .. } => None,
        }
    }

    fn judge_lease(&self, partition: PartitionId, term: u64, now_us: u64) -> Verdict {
        let serving = self.marks[usize::from(partition.0)].serving.load(Acquire);
        if self.has_lease(now_us) && serving == term { Verdict::Leave } else { Verdict::Unknown }
    }

    fn judge_commit(&self, partition: PartitionId, term: u64, lsn: u64) -> Verdict {
        let mark = &self.marks[usize::from(partition.0)];
        let is_committed = mark.commit.load(SeqCst) >= lsn;
        if mark.term.load(Acquire) != term {
            return Verdict::Unknown;
        }
        if is_committed { Verdict::Leave } else { Verdict::Wait }
    }

    /// Notes that a partition has records to be sent.
    pub(crate) fn note_written(&self, partition: u16) {
        let (word, bit) = (&self.written[usize::from(partition) / 64], 1 << (partition % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, AcqRel);
        }
    }

    /// Whether some partition has records to be sent.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.written.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Takes the partitions with records to be sent.
    pub(super) fn take_written(&self, mut f: impl FnMut(u16)) {
        for (i, word) in (0u16..).zip(&self.written) {
            if word.load(Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, AcqRel);
            while bits != 0 {
                f(i * 64 + bits.trailing_zeros() as u16);
                bits &= bits - 1;
            }
        }
    }

    /// Notes whether replies of a worker's connections wait. What is committed after that it is told.
    pub fn note_waiting(&self, worker: usize, has_any: bool) {
        self.waiting[worker].has_any.store(has_any, SeqCst);
    }

    /// Notes that a worker looks at what waits.
    pub fn begin_look(&self, worker: usize) {
        self.waiting[worker].is_told.store(false, SeqCst);
    }

    /// Calls `tell` with each worker that is to look at what waits.
    pub(crate) fn tell_waiting(&self, mut tell: impl FnMut(usize)) {
        for (worker, waiting) in self.waiting.iter().enumerate() {
            if waiting.has_any.load(SeqCst) {
                self.tell(worker, &mut tell);
            }
        }
    }

    /// Calls `tell` with a worker, unless it was told and has not looked yet.
    pub(crate) fn tell(&self, worker: usize, tell: impl FnOnce(usize)) {
        if !self.waiting[worker].is_told.swap(true, SeqCst) {
            tell(worker);
        }
    }

    /// Adds to the bytes in use, on behalf of a thread that is no worker.
    pub(crate) fn add_bytes(&self, delta: isize) {
        if delta != 0 {
            self.bytes.fetch_add(delta, Relaxed);
        }
    }

    /// What was added so.
    #[must_use]
    pub fn bytes(&self) -> isize {
        self.bytes.load(Relaxed)
    }

    /// Keeps a configuration of a partition that is held by somebody for long.
    pub(super) fn put_off(&self, partition: u16, config: PartitionConfig) {
        let mut later = self.later.lock();
        later.entry(partition).or_default().push_back(config);
        self.has_later.store(true, Release);
    }

    /// The configuration of a partition, whose lock is held, that was put off first. It stays until
    /// [`Plane::done_later`] says that the partition knows it: until then the lease does not count.
    pub(super) fn first_later(&self, partition: u16) -> Option<PartitionConfig> {
        if !self.has_later.load(Acquire) {
            return None;
        }
        self.later.lock().get(&partition)?.front().cloned()
    }

    /// The partition, whose lock is held, has heard of the configuration that was put off first.
    pub(super) fn done_later(&self, partition: u16) {
        let mut later = self.later.lock();
        if let Some(configs) = later.get_mut(&partition) {
            configs.pop_front();
            if configs.is_empty() {
                later.remove(&partition);
            }
        }
        self.has_later.store(!later.is_empty(), Release);
    }

    /// Notes that this process is no member any more.
    pub(super) fn set_expelled(&self, why: &str) {
        // A further reason changes nothing.
        let _first = self.expelled.set(why.to_owned());
    }

    /// Why this process is no member any more.
    #[must_use]
    pub fn expelled(&self) -> Option<&str> {
        self.expelled.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_cluster::ids::Epoch;

    #[test]
    fn the_lease_counts_when_all_partitions_know_what_was_put_off() {
        let plane = Plane::new(Settings::default(), 1);
        plane.set_lease(10);
        let config = |epoch| PartitionConfig { epoch: Epoch(epoch), ..PartitionConfig::default() };
        plane.put_off(1, config(1));
        plane.put_off(1, config(2));
        plane.put_off(2, config(1));
        for (partition, epoch) in [(1, 1), (2, 1), (1, 2)] {
            assert_eq!(plane.first_later(partition), Some(config(epoch)));
            assert!(!plane.has_lease(5), "a partition has yet to hear of it");
            plane.done_later(partition);
        }
        assert_eq!(plane.first_later(1), None);
        assert!(plane.has_lease(5) && !plane.has_lease(10));
    }
}
