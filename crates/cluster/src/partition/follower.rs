//! A copy that follows a primary: replica in sync or learner.
//!
//! It acknowledges only what it has compared with the primary's log, by the running checksum of the
//! position before the records it gets. When the logs differ it holds records that were never committed,
//! from a primary that is gone. It never takes anything back: it asks for a full copy, which is loaded
//! *beside* what it has. So a member in sync keeps what was acknowledged until it has something that
//! contains it, whatever happens in between, and nothing has to be removed from the set in sync to heal.

use super::{Core, Cx};
use crate::data::BadPart;
use crate::ids::{Epoch, Lsn, Member};
use crate::log::Compared;
use crate::message::{Ack, Append, Copy, CopyAck, CopyPart, Message};
use crate::mutant::Mutant;
use crate::settings::Settings;
use std::sync::Arc;

/// A full copy that is being loaded.
#[derive(Debug)]
struct Loading {
    session: u64,
    next_seq: u32,
    /// Whether what was there before is still there.
    kept: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Follower {
    source: Member,
    term: Epoch,
    /// Up to where the log is that of the term's primary.
    verified: Option<Lsn>,
    wants_copy: bool,
    loading: Option<Loading>,
    /// The last copy that was loaded to its end.
    loaded: u64,
    read_until_us: u64,
    said_us: u64,
}

impl Follower {
    pub(super) fn new(source: Member) -> Self {
        Follower {
            source,
            term: Epoch(0),
            verified: None,
            wants_copy: false,
            loading: None,
            loaded: 0,
            read_until_us: 0,
            said_us: 0,
        }
    }

    pub(super) fn source(&self) -> Member {
        self.source
    }

    /// Whether it has something that it could take over with.
    pub(super) fn has_copy(&self) -> bool {
        self.loading.as_ref().is_none_or(|loading| loading.kept)
    }

    /// Drops what was loaded; what was there before, if it was kept, is the copy again.
    pub(super) fn stop_loading(&mut self, core: &mut Core, cx: &mut Cx<'_>) {
        let Some(loading) = self.loading.take() else { return };
        cx.data.load_abort();
        if !loading.kept {
            cx.data.clear();
            core.restart_at(Default::default(), Lsn(0));
        }
    }

    /// Turns to the primary of a message. Returns whether the message is to be followed.
    fn adopt(
        &mut self,
        from: Member,
        at: (Epoch, Epoch),
        core: &mut Core,
        cx: &mut Cx<'_>,
    ) -> bool {
        let (epoch, term) = at;
        let is_old = term < self.term && !cx.breaks(Mutant::FollowsOldEpoch);
        if is_old || core.refuses(epoch, cx) {
            return false;
        }
        core.promised = core.promised.max(epoch);
        if term > self.term {
            self.stop_loading(core, cx);
            (self.source, self.term) = (from, term);
            self.verified = None;
            self.wants_copy = false;
            self.read_until_us = 0;
        }
        true
    }

    pub(super) fn on_append(&mut self, m: Append, core: &mut Core, cx: &mut Cx<'_>) {
        if !self.adopt(m.from, (m.epoch, m.term), core, cx) {
            return;
        }
        if let Some(stamp_us) = m.read_stamp_us {
            let until_us = stamp_us + cx.settings.shorter(cx.settings.read_lease_us);
            self.read_until_us = self.read_until_us.max(until_us);
        }
        // Messages of a term keep their order, so the primary has given up the copy that it sent.
        self.stop_loading(core, cx);
        self.take(m, core, cx);
        self.acknowledge(core, cx);
    }

    fn take(&mut self, m: Append, core: &mut Core, cx: &mut Cx<'_>) {
        match core.log.compare(m.prev, core.commit) {
            Compared::Same => {}
            Compared::Beyond => return,
            Compared::Different if cx.breaks(Mutant::SkipsCompare) => {}
            Compared::Different => return self.differs(),
        }
        let mut last = m.prev.id.lsn;
        for record in m.records {
            if record.id.lsn != last.next() {
                return;
            }
            last = record.id.lsn;
            let tail = core.log.tail();
            let is_new = last > tail.id.lsn;
            let is_same = if is_new {
                tail.followed_by(record.id, Arc::clone(&record.body)).chain == record.chain
            } else {
                core.log.at(last).is_none_or(|point| point.id == record.id)
            };
            if !is_same && !cx.breaks(Mutant::SkipsCompare) {
                return self.differs();
            }
            if is_new {
                core.push(record, cx);
            }
        }
        self.verified = self.verified.max(Some(last));
        core.commit_up_to(m.commit.min(last));
    }

    fn differs(&mut self) {
        self.verified = None;
        self.wants_copy = true;
    }

    /// Whether what is there is kept while a copy is loaded: unless it is known, as of the epoch of whom
    /// it comes from, that nobody counts on it. What this node knows of the metadata may be old: it may
    /// be in sync by now without having heard.
    fn must_keep(core: &Core, epoch: Epoch, cx: &Cx<'_>) -> bool {
        if cx.breaks(Mutant::DropsBeforeCopy) {
            return false;
        }
        core.is_in_sync() || core.config.epoch < epoch
    }

    pub(super) fn on_copy(&mut self, m: Copy, core: &mut Core, cx: &mut Cx<'_>) {
        let never = self.wants_copy && cx.breaks(Mutant::DifferingNeverCopied);
        if (never && core.is_in_sync()) || !self.adopt(m.from, (m.epoch, m.term), core, cx) {
            return;
        }
        let is_loading = self.loading.as_ref().is_some_and(|l| l.session == m.session);
        if m.session == self.loaded {
            return self.acknowledge_copy(&m, m.seq + 1, core, cx);
        }
        let takes_any = cx.breaks(Mutant::CopyIgnoresGaps);
        if !is_loading {
            if m.seq != 0 && !takes_any {
                return self.acknowledge_copy(&m, 0, core, cx);
            }
            self.begin_loading(&m, core, cx);
        }
        self.load(m, core, cx);
    }

    fn begin_loading(&mut self, m: &Copy, core: &mut Core, cx: &mut Cx<'_>) {
        self.stop_loading(core, cx);
        let kept = Self::must_keep(core, m.epoch, cx);
        cx.data.load_begin(kept);
        if !kept {
            core.restart_at(Default::default(), Lsn(0));
        }
        self.verified = None;
        self.loading = Some(Loading { session: m.session, next_seq: 0, kept });
    }

    fn load(&mut self, m: Copy, core: &mut Core, cx: &mut Cx<'_>) {
        let Some(loading) = &mut self.loading else { return };
        if m.seq == loading.next_seq || cx.breaks(Mutant::CopyIgnoresGaps) {
            let loaded = match &m.part {
                CopyPart::Chunk(bytes) => cx.data.load_chunk(bytes),
                CopyPart::Record(body) => {
                    cx.data.load_record(body);
                    Ok(())
                }
                CopyPart::End { .. } => Ok(()),
            };
            if loaded == Err(BadPart) {
                return self.stop_loading(core, cx);
            }
            loading.next_seq = m.seq + 1;
        }
        let next_seq = loading.next_seq;
        if let CopyPart::End { tail, commit } = m.part
            && next_seq == m.seq + 1
        {
            self.loading = None;
            self.loaded = m.session;
            cx.data.load_end();
            core.restart_at(tail, commit);
            self.verified = Some(tail.id.lsn);
            self.wants_copy = false;
        }
        self.acknowledge_copy(&m, next_seq, core, cx);
    }

    fn acknowledge_copy(&self, m: &Copy, next_seq: u32, core: &Core, cx: &mut Cx<'_>) {
        let (partition, from, session) = (core.id, core.me, m.session);
        let ack = CopyAck { partition, from, session, next_seq };
        cx.send(m.from.node, Message::CopyAck(ack));
    }

    /// Says what is here. Also how a learner makes itself known.
    pub(super) fn acknowledge(&mut self, core: &Core, cx: &mut Cx<'_>) {
        self.said_us = cx.now_us;
        let all = self.loading.is_none().then(|| core.log.tail().id.lsn);
        let verified = if cx.breaks(Mutant::AcksUnverified) { all } else { self.verified };
        let ack = Ack {
            partition: core.id,
            from: core.me,
            epoch: core.promised,
            term: self.term,
            verified,
            tail: core.log.tail(),
            wants_copy: self.wants_copy,
            stamp_us: cx.now_us,
        };
        cx.send(self.source.node, Message::Ack(ack));
    }

    pub(super) fn tick(&mut self, core: &Core, cx: &mut Cx<'_>) {
        let is_quiet = cx.now_us >= self.said_us + cx.settings.resend_us;
        let source = core.config.primary;
        if is_quiet && source != core.me {
            if core.config.epoch >= core.promised {
                self.source = source;
            }
            self.acknowledge(core, cx);
        }
    }

    /// Whether it may answer reads on its own: it is in sync, follows, and has leave.
    pub(super) fn may_answer(&self, core: &Core, now_us: u64, settings: &Settings) -> bool {
        let has_leave =
            now_us < self.read_until_us || settings.breaks(Mutant::ReplicaReadsWithoutLease);
        let is_counted = core.is_in_sync() || settings.breaks(Mutant::ReadLeaseForLearners);
        has_leave && is_counted && self.verified.is_some() && core.config.replica_reads
    }
}
