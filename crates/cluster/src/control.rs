//! What the leader of the metadata log does: leases, failover, repair.
//!
//! A lease leaves only after a quorum confirmed, since the node asked, that this is the leader; a leader
//! that was deposed without noticing grants nothing. Failover of a partition begins when its primary is
//! dead (a later start of its node registered) or its lease has ended here; then the members in sync are
//! asked what they have, and the one with most is proposed. From that proposal until its outcome is known
//! the old primary gets no lease: it might not know of the outcome yet when the lease arrives.
//!
//! `tick` looks at every partition. With 1024 of them that is some 20 us, 50 times a second.

mod failover;
mod repair;

use crate::ids::{Member, PartitionId};
use crate::lease::{Grant, LeaseTable};
use crate::message::{Seal, SealAck};
use crate::meta::{Command, MetaState};
use crate::mutant::Mutant;
use crate::settings::Settings;
use failover::Failovers;
use std::collections::BTreeMap;

/// A node says that it runs, and asks for its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub from: Member,
    /// Its own time.
    pub stamp_us: u64,
    /// Commands of the metadata log that it applied.
    pub meta_index: u64,
    /// It stops and answers nothing more: its lease may be taken for ended.
    pub is_leaving: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAction {
    /// Ask a quorum whether this is still the leader ([`crate::meta::MetaLog::confirm`]).
    Confirm(u64),
    /// Send this to its holder.
    Grant(Grant),
    /// Send this to a member.
    Seal {
        /// The member.
        to: Member,
        /// The message.
        seal: Seal,
    },
    /// Propose this.
    Propose(Command),
    /// Ask the primary of a partition to hand over.
    HandOver {
        /// The partition.
        partition: PartitionId,
        /// Its primary.
        from: Member,
        /// Its successor.
        to: Member,
    },
}

/// A heartbeat whose answer waits for a quorum.
#[derive(Clone, Copy, Debug)]
struct Asked {
    heartbeat: Heartbeat,
    came_us: u64,
}

/// A leader in office. A node that is elected makes one; one that is deposed drops it.
#[derive(Debug)]
pub struct Leader {
    leases: LeaseTable,
    asked: BTreeMap<u64, Asked>,
    last_token: u64,
    failovers: Failovers,
    /// When each member was heard last.
    heard_us: BTreeMap<Member, u64>,
    /// What of the metadata each knew then.
    knew: BTreeMap<Member, u64>,
    since_us: u64,
    repaired_us: u64,
}

/// A member that does not know of so many commands lags.
const LAG_MAX: u64 = 256;

/// Heartbeats that wait for a quorum; older ones are forgotten, and their nodes ask again.
const ASKED_MAX: usize = 4096;

impl Leader {
    /// Takes office, with everything applied that was committed before.
    #[must_use]
    pub fn new(now_us: u64, settings: &Settings) -> Self {
        Leader {
            leases: LeaseTable::new(now_us, settings),
            asked: BTreeMap::new(),
            last_token: 0,
            failovers: Failovers::default(),
            heard_us: BTreeMap::new(),
            knew: BTreeMap::new(),
            since_us: now_us,
            repaired_us: now_us,
        }
    }

    /// A node asks for its lease.
    pub fn on_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        now_us: u64,
        at: &At<'_>,
        out: &mut Vec<ControlAction>,
    ) {
        let from = heartbeat.from;
        if !at.meta.is_alive(from) {
            return;
        }
        self.heard_us.insert(from, now_us);
        self.knew.insert(from, heartbeat.meta_index);
        if heartbeat.is_leaving {
            return self.leases.release(from);
        }
        let asked = Asked { heartbeat, came_us: now_us };
        if at.settings.breaks(Mutant::GrantUnconfirmed) {
            return self.grant(asked, at, out);
        }
        self.last_token += 1;
        self.asked.insert(self.last_token, asked);
        if self.asked.len() > ASKED_MAX {
            self.asked.pop_first();
        }
        out.push(ControlAction::Confirm(self.last_token));
    }

    /// A quorum agreed, after the question with this token was asked, that this is the leader.
    pub fn on_confirmed(&mut self, token: u64, at: &At<'_>, out: &mut Vec<ControlAction>) {
        // All that asked before are confirmed with it.
        let later = self.asked.split_off(&(token + 1));
        for asked in std::mem::replace(&mut self.asked, later).into_values() {
            self.grant(asked, at, out);
        }
    }

    fn grant(&mut self, asked: Asked, at: &At<'_>, out: &mut Vec<ControlAction>) {
        let to = asked.heartbeat.from;
        let is_condemned =
            self.failovers.condemns(to) && !at.settings.breaks(Mutant::GrantWhileCondemned);
        if is_condemned || !at.meta.is_alive(to) {
            return;
        }
        self.leases.grant(to, asked.came_us, at.settings);
        out.push(ControlAction::Grant(Grant {
            to,
            asked_us: asked.heartbeat.stamp_us,
            length_us: at.settings.lease_us,
            meta_index: at.meta.index,
        }));
    }

    /// A member in sync said what it has.
    pub fn on_seal_ack(&mut self, ack: &SealAck) {
        self.failovers.on_seal_ack(ack);
    }

    /// To be called every few milliseconds.
    pub fn tick(&mut self, now_us: u64, at: &At<'_>, out: &mut Vec<ControlAction>) {
        self.fail_over(now_us, at, out);
        if now_us >= self.repaired_us + at.settings.repair_us {
            self.repaired_us = now_us;
            self.repair(now_us, at, out);
            self.leases.forget(|member| at.meta.is_alive(member));
            self.heard_us.retain(|member, _| at.meta.is_alive(*member));
            self.knew.retain(|member, _| at.meta.is_alive(*member));
        }
    }

    /// For how long nothing was heard of a member.
    #[must_use]
    pub fn silent_us(&self, member: Member, now_us: u64) -> u64 {
        let last = self.heard_us.get(&member).copied().unwrap_or(self.since_us);
        now_us.saturating_sub(last)
    }

    /// Whether the member knows of nearly all that was agreed.
    fn keeps_up(&self, member: Member, at: &At<'_>) -> bool {
        self.knew.get(&member).is_none_or(|index| index + LAG_MAX >= at.meta.index)
    }

    /// Whether the member was heard lately. Unlike [`Leader::is_heard`] this gives a new leader no time to
    /// hear of members that ran before it: one that does not may be a start that is over.
    fn was_heard(&self, member: Member, now_us: u64, settings: &Settings) -> bool {
        self.heard_us.contains_key(&member) && self.is_heard(member, now_us, settings)
    }

    /// Whether the member runs as far as is known here.
    fn is_heard(&self, member: Member, now_us: u64, settings: &Settings) -> bool {
        self.silent_us(member, now_us) < 2 * settings.lease_us
    }
}

/// The agreed state that a leader acts on, and the times it goes by.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Everything committed that this node knows.
    pub meta: &'a MetaState,
    /// Times and bounds.
    pub settings: &'a Settings,
}
