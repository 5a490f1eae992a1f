//! Leases of nodes: leave to answer reads and to acknowledge `async` writes, for a limited time.
//!
//! Both sides measure spans with their own clock and allow for rates that differ (Gray & Cheriton 1989).
//! The holder counts from when it *asked* and a little shorter, the granter from when it was *asked* and a
//! little longer, so the holder is always done first. What is written in a sync namespace needs no lease:
//! no clock can lose it.
//!
//! A lease says "nobody else is made primary of what you are primary of *as of this state of the
//! metadata*". So a grant names the state it was made under, and counts only for a holder that knows it:
//! without that rule, a node that lost a partition while it had no lease would take its next lease as
//! leave to go on with it.

use crate::ids::Member;
use crate::mutant::Mutant;
use crate::settings::Settings;
use std::collections::BTreeMap;

/// The holder's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldLease {
    until_us: u64,
}

/// What a leader answers a heartbeat with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose lease it is.
    pub to: Member,
    /// The holder's own time when it asked.
    pub asked_us: u64,
    /// How long it lasts.
    pub length_us: u64,
    /// State of the metadata that it was made under.
    pub meta_index: u64,
}

impl HeldLease {
    /// Takes a grant into account, unless the holder does not know the metadata that it was made under.
    pub fn take(&mut self, grant: &Grant, applied_index: u64, now_us: u64, settings: &Settings) {
        let is_behind = applied_index < grant.meta_index;
        if is_behind && !settings.breaks(Mutant::LeaseIgnoresMeta) {
            return;
        }
        let from_arrival = settings.breaks(Mutant::LeaseFromArrival);
        let from_us = if from_arrival { now_us } else { grant.asked_us };
        self.until_us = self.until_us.max(from_us + settings.shorter(grant.length_us));
    }

    /// Until when it is held: for a place that many threads read.
    #[must_use]
    pub fn until_us(&self) -> u64 {
        self.until_us
    }

    /// Whether it is held.
    #[must_use]
    pub fn is_held(&self, now_us: u64) -> bool {
        now_us < self.until_us
    }

    /// Gives it back: nothing is answered from here on.
    pub fn release(&mut self) {
        self.until_us = 0;
    }
}

/// The granter's side: until when each node may believe that it holds its lease.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    /// What holds for nodes that this leader granted nothing: an earlier leader may have.
    others_until_us: u64,
    until_us: BTreeMap<Member, u64>,
}

impl LeaseTable {
    /// That of a leader which begins now.
    #[must_use]
    pub fn new(now_us: u64, settings: &Settings) -> Self {
        let forgets = settings.breaks(Mutant::LeaderForgetsLeases);
        let wait_us = if forgets { 0 } else { Self::counted(settings) };
        LeaseTable { others_until_us: now_us + wait_us, until_us: BTreeMap::new() }
    }

    fn counted(settings: &Settings) -> u64 {
        let short = settings.breaks(Mutant::GranterCountsShort);
        if short { settings.lease_us / 2 } else { settings.longer(settings.lease_us) }
    }

    /// Notes a grant; called before it leaves.
    pub fn grant(&mut self, to: Member, asked_at_us: u64, settings: &Settings) {
        let until = self.until_us.entry(to).or_default();
        *until = (*until).max(asked_at_us + Self::counted(settings));
    }

    /// The member said that it holds its lease no more.
    pub fn release(&mut self, member: Member) {
        self.until_us.insert(member, 0);
    }

    /// Whether no lease of the member can still be held.
    #[must_use]
    pub fn has_ended(&self, member: Member, now_us: u64) -> bool {
        now_us >= self.until_us.get(&member).copied().unwrap_or(self.others_until_us)
    }

    /// Forgets members whose leases ended long ago and that `is_known` no more.
    pub fn forget(&mut self, is_known: impl Fn(Member) -> bool) {
        self.until_us.retain(|member, _| is_known(*member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, NodeId};

    const A: Member = Member { node: NodeId(1), generation: Generation(1) };

    #[test]
    fn the_holder_is_done_before_the_granter() {
        let settings = Settings::default();
        let mut table = LeaseTable::new(0, &settings);
        table.grant(A, 1_000_000, &settings);
        let mut held = HeldLease::default();
        let grant = Grant { to: A, asked_us: 999_000, length_us: settings.lease_us, meta_index: 5 };
        held.take(&grant, 4, 1_001_000, &settings);
        assert!(!held.is_held(1_001_000), "it lags behind the metadata");
        held.take(&grant, 5, 1_001_000, &settings);
        assert!(held.is_held(1_488_999) && !held.is_held(1_489_000));
        assert!(!table.has_ended(A, 1_509_999) && table.has_ended(A, 1_510_000));
    }

    #[test]
    fn a_new_leader_waits_out_what_others_may_have_granted() {
        let settings = Settings::default();
        let mut table = LeaseTable::new(100, &settings);
        assert!(!table.has_ended(A, 510_099) && table.has_ended(A, 510_100));
        table.release(A);
        assert!(table.has_ended(A, 100));
    }
}
