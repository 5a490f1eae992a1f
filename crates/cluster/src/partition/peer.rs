//! What a primary knows of one replica or learner.

use super::copy::CopySession;
use super::{Core, Cx};
use crate::ids::{Epoch, Lsn, Member};
use crate::log::{Point, Record};
use crate::message::{Ack, Append, Message};
use crate::mutant::Mutant;

/// Whether commits wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In sync by the configuration: they do.
    InSync,
    /// About to be proposed, or proposed, as in sync: they do, since nobody knows whether it is already.
    Pending,
    /// They do not.
    Learner,
}

/// What is sent to it.
#[derive(Debug)]
pub(super) enum Feed {
    /// Nothing but a question where it stands.
    Probe,
    /// Records from here on.
    Stream {
        /// The next to be sent.
        next: Lsn,
    },
    /// A full copy.
    Copy(CopySession),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) place: Place,
    /// The configuration that brought it here. What it said before it heard of that may be void: it may
    /// have been removed in between, and dropped its copy.
    since: Epoch,
    pub(super) feed: Feed,
    /// Up to where it has this primary's log for certain.
    pub(super) verified: Lsn,
    /// When it last made progress, or had everything.
    pub(super) good_us: u64,
    /// Since when it may answer reads no more, at the latest.
    pub(super) read_until_us: u64,
    stamp: Option<Stamp>,
    sent_us: u64,
    progress_us: u64,
}

/// A replica's own time, and when it came here.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    theirs_us: u64,
    came_us: u64,
}

impl Peer {
    pub(super) fn new(member: Member, place: Place, since: Epoch, now_us: u64) -> Self {
        Peer {
            member,
            place,
            since,
            feed: Feed::Probe,
            verified: Lsn(0),
            good_us: now_us,
            read_until_us: 0,
            stamp: None,
            sent_us: 0,
            progress_us: now_us,
        }
    }

    pub(super) fn counts(&self) -> bool {
        self.place != Place::Learner
    }

    /// What an acknowledgement says of its copy. Of an earlier configuration it says nothing.
    pub(super) fn on_ack(&mut self, ack: &Ack, term: Epoch, core: &Core, cx: &Cx<'_>) {
        let now_us = cx.now_us;
        self.stamp = Some(Stamp { theirs_us: ack.stamp_us, came_us: now_us });
        let is_of_before = ack.epoch < self.since && !cx.breaks(Mutant::OldAcksCount);
        if ack.term != term || is_of_before {
            return self.locate(ack, core);
        }
        let Some(verified) = ack.verified else { return self.locate(ack, core) };
        let is_further = verified > self.verified;
        if is_further {
            self.verified = verified;
            self.progress_us = now_us;
        }
        if is_further || verified >= core.log.tail().id.lsn {
            self.good_us = now_us;
        }
        if matches!(self.feed, Feed::Probe) {
            // What it needs next may be gone from the log.
            self.feed = match core.log.at(verified) {
                Some(_) => Feed::Stream { next: verified.next() },
                None => Feed::Copy(CopySession::default()),
            };
        }
    }

    /// It does not follow yet: finds where in the log it stands, or that it needs a full copy.
    fn locate(&mut self, ack: &Ack, core: &Core) {
        if matches!(self.feed, Feed::Copy(_)) {
            return;
        }
        let is_here = core.log.at(ack.tail.id.lsn) == Some(ack.tail);
        if ack.wants_copy || !is_here {
            self.feed = Feed::Copy(CopySession::default());
        } else if matches!(self.feed, Feed::Probe) {
            self.feed = Feed::Stream { next: ack.tail.id.lsn.next() };
        }
    }

    /// Sends what is new, and at least a sign of life when `must` be.
    pub(super) fn pump(&mut self, at: &Feeding, must: bool, core: &Core, cx: &mut Cx<'_>) {
        if let Feed::Copy(session) = &mut self.feed {
            session.pump(self.member, at, core, cx);
            return;
        }
        let (prev, records) = self.next_records(core, cx);
        let is_overdue = cx.now_us >= self.sent_us + cx.settings.beacon_us;
        if records.is_empty() && !(must && is_overdue) {
            return;
        }
        self.sent_us = cx.now_us;
        let append = Append {
            partition: core.id,
            from: core.me,
            epoch: core.config.epoch,
            term: at.term,
            lineage: core.lineage,
            prev,
            commit: core.commit,
            read_stamp_us: self.leave_to_read(at, core, cx),
            records,
        };
        cx.send(self.member.node, Message::Append(append));
    }

    /// The records to be sent now, with what comes before them. What was sent and shows no effect for
    /// long was lost: the replica is asked again where it stands.
    fn next_records(&mut self, core: &Core, cx: &Cx<'_>) -> (Point, Vec<Record>) {
        let nothing = (core.log.tail(), Vec::new());
        let Feed::Stream { next } = &mut self.feed else { return nothing };
        let all_arrived = *next <= self.verified.next();
        if all_arrived {
            self.progress_us = cx.now_us;
        }
        let is_lost = cx.now_us >= self.progress_us + cx.settings.resend_us;
        let prev = core.log.at(next.before()).filter(|_| !is_lost);
        let Some(prev) = prev else {
            self.feed = Feed::Probe;
            self.progress_us = cx.now_us;
            return nothing;
        };
        let records = core.log.records_from(*next, cx.settings.append_bytes_max);
        *next = Lsn(next.0 + records.len() as u64);
        (prev, records)
    }

    /// Leave to answer reads for a while, counted by the replica from its own stamp, here from when the
    /// stamp came. Only a primary that holds its lease gives it: one that was replaced does not know of
    /// it, and its successor waits for leave given before, not for leave given for ever.
    fn leave_to_read(&mut self, at: &Feeding, core: &Core, cx: &Cx<'_>) -> Option<u64> {
        let is_given = core.config.replica_reads && at.gives_leave;
        let has_lease = cx.has_lease || cx.breaks(Mutant::ReadLeaseWithoutLease);
        let is_counted = self.place == Place::InSync || cx.breaks(Mutant::ReadLeaseForLearners);
        if !(is_given && has_lease && is_counted) {
            return None;
        }
        let stamp = self.stamp?;
        let until_us = stamp.came_us + cx.settings.longer(cx.settings.read_lease_us);
        self.read_until_us = self.read_until_us.max(until_us);
        Some(stamp.theirs_us)
    }
}

/// What the primary adds to what it sends.
#[derive(Debug)]
pub(super) struct Feeding {
    pub(super) term: Epoch,
    /// Whether replicas may be let answer reads.
    pub(super) gives_leave: bool,
}
