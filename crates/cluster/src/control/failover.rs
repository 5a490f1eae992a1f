//! Giving a partition whose primary is gone to the member in sync that has most.
//!
//! Any member in sync will do for what was acknowledged to `sync` clients: all of them have it. The one
//! with most loses least of what `async` clients were told, and has others differ least.

use super::{At, ControlAction, Leader};
use crate::ids::{Epoch, Member, PartitionId, RecordId};
use crate::message::{Seal, SealAck};
use crate::meta::{Command, PartitionConfig};
use crate::mutant::Mutant;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Attempt {
    epoch: Epoch,
    primary: Member,
    since_us: u64,
    asked_us: Option<u64>,
    replies: BTreeMap<Member, RecordId>,
    proposed_us: Option<u64>,
}

/// The failovers under way.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    attempts: BTreeMap<PartitionId, Attempt>,
}

impl Failovers {
    /// Whether a partition is being taken from the member and the outcome is not known.
    pub(super) fn condemns(&self, member: Member) -> bool {
        self.attempts.values().any(|a| a.primary == member && a.proposed_us.is_some())
    }

    pub(super) fn on_seal_ack(&mut self, ack: &SealAck) {
        if let Some(attempt) = self.attempts.get_mut(&ack.partition)
            && attempt.epoch == ack.epoch
        {
            attempt.replies.insert(ack.from, ack.tail);
        }
    }
}

impl Leader {
    pub(super) fn fail_over(&mut self, now_us: u64, at: &At<'_>, out: &mut Vec<ControlAction>) {
        for (id, config) in &at.meta.partitions {
            let known = self.failovers.attempts.get(id);
            if known.is_some_and(|a| a.epoch != config.epoch) {
                self.failovers.attempts.remove(id);
            }
            let is_dead = !at.meta.is_alive(config.primary);
            let is_gone = is_dead || self.leases.has_ended(config.primary, now_us);
            let known = self.failovers.attempts.get(id);
            if is_gone || known.is_some_and(|a| a.proposed_us.is_some()) {
                self.attempt(*id, config, now_us, at, out);
            } else {
                self.failovers.attempts.remove(id);
            }
        }
    }

    fn attempt(
        &mut self,
        id: PartitionId,
        config: &PartitionConfig,
        now_us: u64,
        at: &At<'_>,
        out: &mut Vec<ControlAction>,
    ) {
        let candidates = candidates(config, at);
        if candidates.is_empty() {
            return self.declare_loss(id, config, now_us, at, out);
        }
        let attempt = self.failovers.attempts.entry(id).or_insert_with(|| Attempt {
            epoch: config.epoch,
            primary: config.primary,
            since_us: now_us,
            asked_us: None,
            replies: BTreeMap::new(),
            proposed_us: None,
        });
        attempt.step((id, &candidates), now_us, at, out);
    }

    /// Nobody is left: a node starts over, and says so. Not while the primary may still come back.
    fn declare_loss(
        &mut self,
        partition: PartitionId,
        config: &PartitionConfig,
        now_us: u64,
        at: &At<'_>,
        out: &mut Vec<ControlAction>,
    ) {
        let early = at.settings.breaks(Mutant::LossDeclaredEarly);
        if at.meta.is_alive(config.primary) && !early {
            return;
        }
        let mut live = (at.meta.nodes.keys())
            .filter_map(|node| at.meta.member(*node))
            .filter(|m| at.meta.is_alive(*m) && self.was_heard(*m, now_us, at.settings));
        let count = live.clone().count();
        if count == 0 {
            return;
        }
        if let Some(to) = live.nth(usize::from(partition.0) % count) {
            let epoch = config.epoch;
            out.push(ControlAction::Propose(Command::DeclareLoss { partition, epoch, to }));
        }
    }
}

/// Who may take over.
fn candidates(config: &PartitionConfig, at: &At<'_>) -> Vec<Member> {
    let of_isr = config.isr.iter().filter(|m| **m != config.primary && at.meta.is_alive(**m));
    let mut candidates: Vec<Member> = of_isr.copied().collect();
    if at.settings.breaks(Mutant::FailoverToAny) {
        candidates.extend(config.learners.iter().filter_map(|node| at.meta.member(*node)));
    }
    if at.settings.breaks(Mutant::LossDeclaredEarly) {
        candidates.clear();
    }
    candidates
}

impl Attempt {
    fn step(
        &mut self,
        (partition, candidates): (PartitionId, &[Member]),
        now_us: u64,
        at: &At<'_>,
        out: &mut Vec<ControlAction>,
    ) {
        let is_overdue = |last: Option<u64>| {
            last.is_none_or(|last| now_us >= last + at.settings.propose_again_us)
        };
        let is_complete = candidates.iter().all(|m| self.replies.contains_key(m));
        if !is_complete && is_overdue(self.asked_us) {
            self.asked_us = Some(now_us);
            for to in candidates.iter().filter(|m| !self.replies.contains_key(m)) {
                let seal = Seal { partition, epoch: self.epoch };
                out.push(ControlAction::Seal { to: *to, seal });
            }
        }
        let has_waited = now_us >= self.since_us + at.settings.seal_wait_us;
        let best = candidates
            .iter()
            .filter_map(|m| Some((self.replies.get(m)?, m)))
            .max_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(a.1)));
        if let Some((_, to)) = best
            && (is_complete || has_waited)
            && is_overdue(self.proposed_us)
        {
            self.proposed_us = Some(now_us);
            let (epoch, to) = (self.epoch, *to);
            out.push(ControlAction::Propose(Command::Failover { partition, epoch, to }));
        }
    }
}
