//! A partition's place in the cluster: the state machine that says who holds it, under the partition's
//! lock, and what a step of it means for keys and clients.

use super::copy::{EVERY_KEY, Loading, mark_of};
use super::{Keys, Keyspace, Shard};
use crate::blocking;
use crate::charge::Charge;
use crate::cluster::plane::Plane;
use crate::session::LastWrite;
use crate::shared::{Message, Shared};
use hypercache_cluster::gate::{Durability, Need};
use hypercache_cluster::host::Outside;
use hypercache_cluster::ids::{Lsn, Member, PartitionId};
use hypercache_cluster::partition::{Action, Cx, Moment, Partition, ReadRule, Refusal, RoleName};
use hypercache_stdx::clock;
use hypercache_store::Db;
use std::sync::Arc;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Replica {
    plane: Arc<Plane>,
    partition: Partition,
    loading: Loading,
    /// What a step asks for; empty between steps.
    actions: Vec<Action>,
    /// What replication holds.
    charge: Charge,
}

/// Why a command does not run on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another node has it, or nobody yet.
    Elsewhere,
    /// It is changing hands.
    HandingOver,
    /// This node holds no lease.
    NoLease,
    /// Too few copies are in sync.
    TooFew,
    /// Too much waits to be replicated.
    Overloaded,
}

/// What a command wants of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// It may write.
    pub(crate) is_write: bool,
    /// The client reads from copies.
    pub(crate) takes_copies: bool,
    /// How much may be lost of what it acknowledges.
    pub(crate) durability: Durability,
    /// The time of the turn, on the clock of leases.
    pub(crate) now_us: u64,
}

impl Shard {
    /// Makes a place in the cluster for the partition.
    pub(crate) fn join(&mut self, plane: &Arc<Plane>, number: u16, me: Member) {
        let (plane, partition) = (Arc::clone(plane), Partition::new(PartitionId(number), me));
        let (loading, actions) = Default::default();
        let charge = self.history.new_charge();
        let replica = Replica { plane, partition, loading, actions, charge };
        self.replica = Some(Box::new(replica));
    }

    /// From now on another node decides what is here, or this one.
    pub(crate) fn set_foreign(&mut self, is_foreign: bool) {
        self.is_foreign = is_foreign;
        self.dbs.iter_mut().for_each(|(_, db)| db.set_keeps_expired(is_foreign));
        self.history.set_copied(!is_foreign && self.replica.is_some());
    }

    /// Whether another node decides what is here.
    #[inline]
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Database `i`, as commands without keys see it: not a copy of another node's.
    #[must_use]
    pub(crate) fn own_db(&self, i: u8) -> Option<&Db> {
        self.db(i).filter(|_| !self.is_foreign)
    }

    /// Whether something may be removed here that no client asked to remove: not from another's copy,
    /// and not while the partition changes hands.
    #[inline]
    #[must_use]
    pub fn may_remove(&self) -> bool {
        let Some(replica) = &self.replica else { return !self.is_foreign };
        replica.partition.may_write(&replica.plane.settings).is_ok()
    }

    /// The state machine, if the partition has a place in the cluster.
    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.replica.as_ref().map(|replica| &replica.partition)
    }

    /// How a reply's need stands that only this partition can tell.
    #[must_use]
    pub fn judge(&self, need: &Need, at: Moment<'_>) -> hypercache_cluster::gate::Verdict {
        use hypercache_cluster::gate::Verdict;
        self.partition().map_or(Verdict::Unknown, |partition| partition.judge(need, at))
    }

    /// Runs a step of the state machine and does what it asks for.
    pub(crate) fn step(
        &mut self,
        shared: &Shared,
        number: u16,
        f: impl FnOnce(&mut Partition, &mut Cx<'_>),
    ) {
        let Some(mut replica) = self.replica.take() else { return };
        let Replica { plane, partition, loading, actions, .. } = &mut *replica;
        let now_us = clock::boot_us();
        let (has_lease, settings) = (plane.has_lease(now_us), &plane.settings);
        let mut data = shared.keyspace.copy((number, self), loading, clock::now_ms());
        f(partition, &mut Cx { now_us, has_lease, settings, data: &mut data, actions });
        self.replica = Some(replica);
        self.settle(shared, number);
    }

    /// Draws the conclusions of a step.
    fn settle(&mut self, shared: &Shared, number: u16) {
        let Some(replica) = &mut self.replica else { return };
        replica.charge.set(replica.partition.replication_bytes() + replica.loading.bytes());
        replica.plane.note(number, &replica.partition);
        let is_foreign = replica.partition.role() != RoleName::Primary;
        let (plane, actions) = (Arc::clone(&replica.plane), std::mem::take(&mut replica.actions));
        if is_foreign != self.is_foreign {
            self.change_hands(shared, is_foreign);
        }
        plane.add_bytes(self.take_bytes_delta());
        // Who is to be told of what happened, and who can be served, is seen to by a worker.
        if self.history.has_news() {
            shared.keyspace.leave_unserved(number);
            plane.tell(0, |worker| look(shared, worker));
        }
        let actions = perform(shared, &plane, actions);
        if let Some(replica) = &mut self.replica {
            replica.actions = actions;
        }
    }

    fn change_hands(&mut self, shared: &Shared, is_foreign: bool) {
        self.set_foreign(is_foreign);
        self.history.note_replaced();
        if is_foreign {
            for waiter in self.history.waiters() {
                let history = &mut self.history;
                blocking::force_unblock(shared, &waiter, |db, key, number| {
                    history.remove_waiter(db, key, number);
                });
            }
        }
    }

    /// Ends the record of what was done since the last one, if anything was. Before every unlocking.
    #[inline]
    pub(super) fn end_record(&mut self, keyspace: &Keyspace, number: u16) {
        if self.history.has_deed() {
            self.append_record(keyspace, number);
        }
    }

    #[inline(never)]
    fn append_record(&mut self, keyspace: &Keyspace, number: u16) {
        let Some(body) = self.history.take_deed() else { return };
        let Some(mut replica) = self.replica.take() else { return };
        let Replica { plane, partition, loading, actions, .. } = &mut *replica;
        let (now_us, settings) = (clock::boot_us(), &plane.settings);
        let mut data = keyspace.copy((number, self), loading, 0);
        // Whether the lease is held matters to what is sent, and nothing is now.
        let has_lease = false;
        partition.append(body, &mut Cx { now_us, has_lease, settings, data: &mut data, actions });
        plane.note_written(number);
        self.replica = Some(replica);
    }

    /// The record that what was done just now will be, if anything was.
    pub(crate) fn last_write(&self, number: u16) -> Option<LastWrite> {
        let partition = self.partition().filter(|_| self.history.has_deed())?;
        Some(LastWrite { partition: number, lsn: partition.tail().lsn.next() })
    }

    /// Whether a command may run here.
    pub(crate) fn admit(
        &self,
        wish: &Wish,
        is_clean: impl FnOnce(&Partition, &Plane) -> bool,
    ) -> Result<(), Refused> {
        let Some(replica) = &self.replica else { return Err(Refused::NoLease) };
        let Replica { plane, partition, .. } = &**replica;
        if partition.role() != RoleName::Primary {
            let is_here = wish.takes_copies && !wish.is_write && is_clean(partition, plane);
            return if is_here { Ok(()) } else { Err(Refused::Elsewhere) };
        }
        if partition.serving_term(&plane.settings).is_none() {
            return Err(Refused::HandingOver);
        }
        let is_sync = wish.durability == Durability::Sync;
        // No clock can lose a write that all copies in sync have.
        let needs_lease = !(wish.is_write && is_sync);
        if needs_lease && !plane.has_lease(wish.now_us) {
            return Err(Refused::NoLease);
        }
        if !wish.is_write {
            return Ok(());
        }
        let config = partition.config();
        if config.isr.len() < usize::from(config.min_sync) {
            return Err(Refused::TooFew);
        }
        partition.may_write(&plane.settings).map_err(|refusal| match refusal {
            Refusal::NotPrimary => Refused::Elsewhere,
            Refusal::HandingOver => Refused::HandingOver,
            Refusal::Overloaded => Refused::Overloaded,
        })
    }

    /// What the reply to a command needs that just ran here; `reads` are the keys that it may have shown.
    pub(crate) fn need(
        &self,
        number: u16,
        durability: Durability,
        reads: impl FnOnce(&Partition, &Plane) -> ReadRule,
    ) -> Need {
        let Some(replica) = &self.replica else { return Need::Nothing };
        let (partition, plane) = (&replica.partition, &replica.plane);
        let id = PartitionId(number);
        let Some(term) = partition.term() else { return Need::Leave { partition: id } };
        if self.history.has_deed() {
            return Need::of_write(durability, id, term, partition.tail().lsn.next());
        }
        match durability {
            Durability::Async | Durability::Bounded { .. } => Need::Lease { partition: id, term },
            Durability::Sync => match reads(partition, plane) {
                ReadRule::Now => Need::Lease { partition: id, term },
                ReadRule::After(lsn) => Need::CommitAndLease { partition: id, term, lsn },
            },
        }
    }
}

/// When a key may be shown, by its hash.
pub(crate) fn read_rule(partition: &Partition, plane: &Plane, db: u8, hash: u64) -> ReadRule {
    let of = |mark| match partition.read_rule(mark, &plane.settings) {
        ReadRule::Now => Lsn(0),
        ReadRule::After(lsn) => lsn,
    };
    match of(EVERY_KEY).max(of(mark_of(db, hash))) {
        Lsn(0) => ReadRule::Now,
        lsn => ReadRule::After(lsn),
    }
}

/// When anything of a partition may be shown.
pub(crate) fn read_rule_of_all(partition: &Partition) -> ReadRule {
    let tail = partition.tail().lsn;
    if partition.commit() >= tail { ReadRule::Now } else { ReadRule::After(tail) }
}

/// Whether a copy may show a key.
pub(crate) fn is_clean(
    partition: &Partition,
    plane: &Plane,
    (db, hash): (u8, u64),
    now_us: u64,
) -> bool {
    let is_clean = |mark| partition.may_read_at_replica(mark, now_us, &plane.settings);
    is_clean(EVERY_KEY) && is_clean(mark_of(db, hash))
}

/// Does what a step asks for; returns the emptied list.
fn perform(shared: &Shared, plane: &Plane, mut actions: Vec<Action>) -> Vec<Action> {
    if actions.is_empty() {
        return actions;
    }
    // Before the node's runtime is there nobody can be told, and everything is asked again.
    let outside: Option<&dyn Outside> = shared.cluster.outside().map(|outside| &**outside);
    let mut has_news = false;
    for action in actions.drain(..) {
        match (action, outside) {
            (Action::Send { to, message }, Some(outside)) => outside.send(to, &message),
            (Action::Propose(command), Some(outside)) => outside.propose(command),
            (Action::Sealed(ack), Some(outside)) => outside.sealed(ack),
            (Action::Committed(_) | Action::Demoted, _) => has_news = true,
            (_, None) => {}
        }
    }
    if has_news {
        plane.tell_waiting(|worker| look(shared, worker));
    }
    actions
}

fn look(shared: &Shared, worker: usize) {
    shared.send(worker as u16, Message::Look);
}

impl<'a> Keys<'a> {
    /// Calls `f` with the partitions that are held.
    pub(crate) fn each_held(&self, mut f: impl FnMut(u16, &Shard)) {
        if let Some(one) = &self.one {
            f(one.at.partition, &one.shard);
        }
        self.many.iter().for_each(|(partition, shard)| f(*partition, shard));
    }

    /// Whether something may be removed from a partition that is held and that no client asked to remove.
    pub(crate) fn may_remove(&self, partition: u16) -> bool {
        self.seen_shard(partition).is_some_and(Shard::may_remove)
    }

    /// Whether those may be served now who wait for keys of a partition that is held: not while it changes
    /// hands. Of another node's they only wait to read, and are shown what is committed.
    pub(crate) fn may_serve(&self, partition: u16) -> bool {
        self.seen_shard(partition).is_some_and(|shard| {
            let is_committed = |p: &Partition| p.commit() >= p.tail().lsn;
            shard.may_remove() || shard.is_foreign && shard.partition().is_none_or(is_committed)
        })
    }

    /// A partition that is held.
    pub(crate) fn held_one(&self, partition: u16) -> Option<&Shard> {
        self.seen_shard(partition)
    }

    /// The whole keyspace.
    pub(crate) fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }
}
