//! The thread that tells the server what was agreed: one call at a time, in order.
//!
//! The server takes the locks of partitions for these calls and may be held up by them, so they have a
//! thread of their own: elections and heartbeats go on meanwhile. If the server is held up for long,
//! grants are not taken and the node loses its lease, as it should.

use crate::bus::Bus;
use hypercache_cluster::host::Host;
use hypercache_cluster::ids::{Member, NodeId, PartitionId};
use hypercache_cluster::lease::{Grant, HeldLease};
use hypercache_cluster::message::{Message, Seal};
use hypercache_cluster::meta::MetaState;
use hypercache_cluster::settings::Settings;
use hypercache_stdx::clock::boot_us;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

/// What the server is to be told.
#[derive(Debug)]
pub(crate) enum Call {
    Registered(Member),
    Metadata(Arc<MetaState>, Vec<PartitionId>),
    Grant(Grant),
    HandOver(PartitionId, Member),
    /// The leader is this node itself.
    Seal(Seal),
    /// The lease is given back; the answer says that the server knows.
    Release(SyncSender<()>),
    Expelled(String),
}

/// Calls that wait; beyond, whoever agrees waits, and grants are dropped.
pub(crate) const CALLS_MAX: usize = 4096;

/// Grants that wait for the server to know their state: as many as come while the longest lasts.
const EARLY_MAX: usize = 8;

/// Whether the server may be called.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

const NOT_YET: u8 = 0;
const RUNS: u8 = 1;
const OVER: u8 = 2;

impl Phase {
    /// The process has its generation and was not expelled.
    pub(crate) fn runs(&self) -> bool {
        self.0.load(Ordering::Acquire) == RUNS
    }

    fn begin(&self) {
        let _over = self.0.compare_exchange(NOT_YET, RUNS, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn end(&self) {
        self.0.store(OVER, Ordering::Release);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Applier {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) settings: Settings,
    pub(crate) phase: Arc<Phase>,
    /// The leader that asked last what is here.
    pub(crate) asked_by: Arc<AtomicU64>,
    pub(crate) member: Option<Member>,
    pub(crate) lease: HeldLease,
    pub(crate) applied: u64,
    /// The same for other threads.
    pub(crate) told: Arc<AtomicU64>,
    /// Grants under states that the server does not know yet, the oldest first: a node that lags by more
    /// than a heartbeat takes each when it has come so far.
    pub(crate) early: VecDeque<Grant>,
}

impl Applier {
    /// The thread.
    pub(crate) fn run(mut self, calls: &Receiver<Call>) {
        while let Ok(call) = calls.recv() {
            match call {
                Call::Registered(member) => {
                    self.member = Some(member);
                    self.host.registered(member);
                    self.phase.begin();
                }
                Call::Metadata(meta, changed) => {
                    self.host.metadata(&meta, &changed);
                    self.applied = meta.index;
                    self.told.store(meta.index, Ordering::Relaxed);
                    self.bus.flush();
                    let applied = self.applied;
                    let is_due = |grant: &Grant| grant.meta_index <= applied;
                    while let Some(grant) = self.early.pop_front_if(|grant| is_due(grant)) {
                        self.take(grant);
                    }
                }
                Call::Grant(grant) => self.take(grant),
                Call::HandOver(partition, to) => {
                    self.host.hand_over(partition, to);
                    self.bus.flush();
                }
                Call::Seal(seal) => {
                    self.asked_by.store(self.bus.me.0, Ordering::Relaxed);
                    self.host.receive(self.bus.me, Message::Seal(seal));
                }
                Call::Release(told) => {
                    self.member = None;
                    self.lease.release();
                    self.host.lease(self.lease);
                    let _gave_up = told.try_send(());
                }
                Call::Expelled(why) => {
                    self.phase.end();
                    self.lease.release();
                    self.host.lease(self.lease);
                    self.host.expelled(&why);
                    return;
                }
            }
        }
    }

    fn take(&mut self, grant: Grant) {
        if self.member != Some(grant.to) {
            return;
        }
        if self.applied < grant.meta_index {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back(grant);
            return;
        }
        let before = self.lease.until_us();
        self.lease.take(&grant, self.applied, boot_us(), &self.settings);
        if self.lease.until_us() != before {
            self.host.lease(self.lease);
        }
    }
}

/// Whom an answer to a seal goes to.
pub(crate) fn asker(asked_by: &AtomicU64) -> NodeId {
    NodeId(asked_by.load(Ordering::Relaxed))
}
