//! The copy that takes writes.
//!
//! A record is committed when every member in sync has it, and every joiner that may be in sync already.
//! It is never enough that some have it: any member in sync may be the next primary. A member that does
//! not answer is proposed for removal, and counted until the removal is agreed and the member can answer
//! no more reads.

use super::copy::Progress;
use super::handoff::Handoff;
use super::peer::{Feed, Feeding, Peer, Place};
use super::{Action, Core, Cx};
use crate::ids::{Epoch, Lsn, Member, NodeId};
use crate::message::{Ack, CopyAck};
use crate::meta::{Command, PartitionConfig};
use crate::mutant::Mutant;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Primary {
    term: Epoch,
    peers: BTreeMap<NodeId, Peer>,
    /// Until then a replica that is counted no more may answer reads.
    no_commit_before_us: u64,
    pub(super) handoff: Option<Handoff>,
    ticked_us: u64,
    proposed_us: u64,
    copies_begun: u64,
}

impl Cx<'_> {
    pub(super) fn propose(&mut self, command: Command) {
        self.actions.push(Action::Propose(command));
    }
}

impl Primary {
    pub(super) fn new(core: &Core, cx: &Cx<'_>) -> Self {
        let mut primary = Primary {
            term: core.config.epoch,
            peers: BTreeMap::new(),
            no_commit_before_us: Self::activation_wait(core, cx),
            handoff: None,
            ticked_us: cx.now_us,
            proposed_us: 0,
            copies_begun: 0,
        };
        primary.admit_in_sync(core, cx);
        primary
    }

    /// The primary before may have let replicas answer reads that are no longer in sync, and nobody is
    /// left who knows until when.
    fn activation_wait(core: &Core, cx: &Cx<'_>) -> u64 {
        let none_out = core.config.is_handover || !core.config.replica_reads;
        if none_out || cx.breaks(Mutant::NoWaitOnActivation) {
            return 0;
        }
        Self::leave_of_before(core, cx)
    }

    /// Until when a member may answer reads by leave of an earlier primary.
    fn leave_of_before(core: &Core, cx: &Cx<'_>) -> u64 {
        let lease_us = if core.config.replica_reads { cx.settings.read_lease_us } else { 0 };
        cx.now_us + cx.settings.longer(lease_us)
    }

    pub(super) fn term(&self) -> Epoch {
        self.term
    }

    pub(super) fn no_commit_before_us(&self) -> u64 {
        self.no_commit_before_us
    }

    pub(super) fn replicas_with(&self, lsn: Lsn) -> usize {
        let has = |peer: &&Peer| peer.place == Place::InSync && peer.verified >= lsn;
        self.peers.values().filter(has).count()
    }

    pub(super) fn copy_bytes(&self) -> usize {
        let bytes = |peer: &Peer| match &peer.feed {
            Feed::Copy(session) => session.bytes(),
            Feed::Probe | Feed::Stream { .. } => 0,
        };
        self.peers.values().map(bytes).sum()
    }

    fn admit_in_sync(&mut self, core: &Core, cx: &Cx<'_>) {
        for member in core.config.isr.iter().filter(|m| **m != core.me) {
            let known = self.peers.get_mut(&member.node).filter(|p| p.member == *member);
            match known {
                Some(peer) => peer.place = Place::InSync,
                None => {
                    let mut peer = Peer::new(*member, Place::InSync, core.config.epoch, cx.now_us);
                    peer.read_until_us = Self::leave_of_before(core, cx);
                    self.peers.insert(member.node, peer);
                }
            }
        }
    }

    /// The configuration changed and this is still the primary.
    pub(super) fn reconfigure(
        &mut self,
        before: &PartitionConfig,
        core: &mut Core,
        cx: &mut Cx<'_>,
    ) {
        let config = &core.config;
        let removed =
            |peer: &&Peer| before.is_in_sync(peer.member) && !config.is_in_sync(peer.member);
        let leave_us = self.peers.values().filter(removed).map(|p| p.read_until_us).max();
        if !cx.breaks(Mutant::NoWaitAfterRemoval) {
            self.no_commit_before_us = self.no_commit_before_us.max(leave_us.unwrap_or(0));
        }
        // Whoever was pending is now in sync or certainly not: its proposal named the epoch before.
        self.peers.retain(|node, peer| {
            peer.place = Place::Learner;
            config.is_in_sync(peer.member) || config.learners.contains(node)
        });
        self.admit_in_sync(core, cx);
        self.handoff = None;
        self.proposed_us = 0;
        self.advance(core, cx);
        self.flush(core, cx);
    }

    fn feeding(&self) -> Feeding {
        Feeding { term: self.term, gives_leave: !self.has_proposed_successor() }
    }

    pub(super) fn flush(&mut self, core: &mut Core, cx: &mut Cx<'_>) {
        let at = self.feeding();
        self.peers.values_mut().for_each(|peer| peer.pump(&at, false, core, cx));
        self.advance(core, cx);
    }

    pub(super) fn forward_to_copies(&mut self, body: &Arc<[u8]>, cx: &Cx<'_>) {
        for peer in self.peers.values_mut() {
            if let Feed::Copy(session) = &mut peer.feed
                && !session.forward(body, cx)
            {
                peer.feed = Feed::Probe;
            }
        }
    }

    pub(super) fn on_ack(&mut self, ack: &Ack, core: &mut Core, cx: &mut Cx<'_>) {
        if !self.knows(ack.from, core, cx) {
            return;
        }
        let (at, term) = (self.feeding(), self.term);
        let Some(peer) = self.peers.get_mut(&ack.from.node) else { return };
        peer.on_ack(ack, term, core, cx);
        if let Feed::Copy(session) = &mut peer.feed
            && session.needs_id()
        {
            self.copies_begun += 1;
            session.begin((self.term.0 << 24) + self.copies_begun, cx.now_us);
        }
        peer.pump(&at, false, core, cx);
        self.advance(core, cx);
        self.step_handoff(core, cx);
    }

    /// Whether the configuration gives the sender a copy; a later start of a learner is taken in.
    fn knows(&mut self, from: Member, core: &Core, cx: &Cx<'_>) -> bool {
        let is_newer = self.peers.get(&from.node).is_none_or(|peer| {
            peer.place == Place::Learner && from.generation > peer.member.generation
        });
        let is_learner = core.config.learners.contains(&from.node);
        if is_newer && is_learner {
            let peer = Peer::new(from, Place::Learner, core.config.epoch, cx.now_us);
            self.peers.insert(from.node, peer);
        }
        // An earlier start of a learner's node may still be listed as in sync: it counts until it is
        // removed, and the new start waits.
        self.peers.get(&from.node).is_some_and(|peer| peer.member == from)
    }

    pub(super) fn on_copy_ack(&mut self, ack: CopyAck, core: &mut Core, cx: &mut Cx<'_>) {
        let at = self.feeding();
        let Some(peer) = self.peers.get_mut(&ack.from.node) else { return };
        let Feed::Copy(session) = &mut peer.feed else { return };
        if peer.member != ack.from {
            return;
        }
        match session.on_ack(ack.session, ack.next_seq, cx.now_us) {
            Progress::Going => {}
            Progress::Lost => peer.feed = Feed::Probe,
            Progress::Done(end) => {
                peer.verified = peer.verified.max(end);
                peer.feed = Feed::Stream { next: end.next() };
            }
        }
        // A member in sync that needs a copy holds up commits: it is suspected meanwhile.
        if peer.place != Place::InSync {
            peer.good_us = cx.now_us;
        }
        peer.pump(&at, false, core, cx);
        self.advance(core, cx);
    }

    /// Commits what all that count have.
    fn advance(&mut self, core: &mut Core, cx: &mut Cx<'_>) {
        let has_enough = core.config.isr.len() >= usize::from(core.config.min_sync)
            || cx.breaks(Mutant::CommitBelowMinSync);
        if !has_enough || cx.now_us < self.no_commit_before_us {
            return;
        }
        let drops = cx.breaks(Mutant::DropsReplicaAlone);
        let suspect_us = cx.settings.suspect_us;
        let counted = (self.peers.values())
            .filter(|peer| peer.counts() && !(drops && cx.now_us >= peer.good_us + suspect_us));
        let verified = counted.map(|peer| peer.verified);
        let any = cx.breaks(Mutant::CommitOnAny);
        let floor = if any { verified.max() } else { verified.min() };
        let tail = core.log.tail().id.lsn;
        if core.commit_up_to(floor.unwrap_or(tail).min(tail)) {
            cx.actions.push(Action::Committed(core.commit));
        }
    }

    pub(super) fn tick(&mut self, core: &mut Core, cx: &mut Cx<'_>) {
        self.forgive_own_gap(cx);
        self.advance(core, cx);
        self.step_handoff(core, cx);
        if cx.now_us >= self.proposed_us + cx.settings.propose_again_us {
            self.propose_changes(core, cx);
        }
        let at = self.feeding();
        self.peers.values_mut().for_each(|peer| peer.pump(&at, true, core, cx));
    }

    /// Whoever did not run for a while has heard nobody, and must not blame them for it.
    fn forgive_own_gap(&mut self, cx: &Cx<'_>) {
        if cx.now_us >= self.ticked_us + cx.settings.own_gap_us {
            self.peers.values_mut().for_each(|peer| peer.good_us = cx.now_us);
        }
        self.ticked_us = cx.now_us;
    }

    fn propose_changes(&mut self, core: &Core, cx: &mut Cx<'_>) {
        let (partition, epoch) = (core.id, core.config.epoch);
        for peer in self.peers.values_mut() {
            let is_slow = cx.now_us >= peer.good_us + cx.settings.suspect_us;
            let member = peer.member;
            let command = match peer.place {
                Place::InSync if is_slow => Command::ShrinkIsr { partition, epoch, member },
                Place::Pending if is_slow => {
                    if cx.breaks(Mutant::PendingTimesOut) {
                        peer.place = Place::Learner;
                    }
                    Command::DropLearner { partition, epoch, node: member.node }
                }
                Place::Pending => Command::AddIsr { partition, epoch, member },
                Place::Learner if Self::is_ready(peer, core) => {
                    if !cx.breaks(Mutant::JoinerNotCounted) {
                        peer.place = Place::Pending;
                    }
                    peer.good_us = cx.now_us;
                    Command::AddIsr { partition, epoch, member }
                }
                Place::InSync | Place::Learner => continue,
            };
            self.proposed_us = cx.now_us;
            cx.propose(command);
        }
    }

    /// A learner that has all that is committed may be counted: from then on commits wait for it.
    fn is_ready(peer: &Peer, core: &Core) -> bool {
        let follows = matches!(peer.feed, Feed::Stream { .. });
        follows && peer.verified >= core.commit && peer.verified > Lsn(0)
            || (follows && core.log.tail().id.lsn == Lsn(0))
    }
}
