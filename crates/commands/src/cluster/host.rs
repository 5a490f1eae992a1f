//! What the node's runtime calls: metadata, leases and messages for this server's partitions.
//!
//! Each call takes the lock of the partition that it is about, and of one at a time. A partition that a
//! long script holds is not waited for: a message is dropped, since the protocol sends again what is not
//! acknowledged, and a configuration is kept until the partition is free.

use super::plane::Plane;
use crate::keyspace::{PARTITIONS, Shard};
use crate::shared::Shared;
use hypercache_cluster::host::Host;
use hypercache_cluster::ids::{Member, NodeId, PartitionId};
use hypercache_cluster::lease::HeldLease;
use hypercache_cluster::message::Message;
use hypercache_cluster::meta::MetaState;
use hypercache_cluster::partition::{Cx, Partition};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a partition is waited for.
const PATIENCE: Duration = Duration::from_millis(5);

/// Each call of [`Host::tick`] looks at one of so many shares of the partitions.
const SHARES: u16 = 2;

/// See the module's text.
#[derive(Debug)]
pub struct ServerHost {
    shared: Weak<Shared>,
    plane: Arc<Plane>,
    share: AtomicU16,
}

impl ServerHost {
    /// The host of a server whose data plane was begun.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, plane: &Arc<Plane>) -> Self {
        let (shared, plane) = (Arc::downgrade(shared), Arc::clone(plane));
        ServerHost { shared, plane, share: AtomicU16::new(0) }
    }

    /// Runs a step of a partition, after what was put off. Returns whether it was free.
    fn step(
        &self,
        shared: &Shared,
        number: u16,
        patience: Duration,
        f: impl FnOnce(&mut Partition, &mut Cx<'_>),
    ) -> bool {
        let Some(mut shard) = shared.keyspace.try_lock_for(number, patience) else { return false };
        self.catch_up(shared, number, &mut shard);
        shard.step(shared, number, f);
        true
    }

    fn catch_up(&self, shared: &Shared, number: u16, shard: &mut Shard) {
        while let Some(config) = self.plane.first_later(number) {
            shard.step(shared, number, |partition, cx| partition.configure(&config, cx));
            self.plane.done_later(number);
        }
    }

    /// Gives a partition its configuration, in order with those that were put off.
    fn configure(&self, shared: &Shared, meta: &MetaState, id: PartitionId) {
        let Some(config) = meta.partitions.get(&id) else { return };
        let Some(mut shard) = shared.keyspace.try_lock_for(id.0, PATIENCE) else {
            return self.plane.put_off(id.0, config.clone());
        };
        self.catch_up(shared, id.0, &mut shard);
        shard.step(shared, id.0, |partition, cx| partition.configure(config, cx));
    }
}

impl Host for ServerHost {
    fn registered(&self, me: Member) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.plane.set_me(me);
        for number in 0..PARTITIONS as u16 {
            shared.keyspace.lock(number).join(&self.plane, number, me);
        }
    }

    fn metadata(&self, meta: &Arc<MetaState>, changed: &[PartitionId]) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.plane.set_meta(meta);
        if let Some(me) = self.plane.me() {
            shared.cluster.publish(me, meta);
        }
        for id in changed {
            self.configure(&shared, meta, *id);
        }
    }

    fn lease(&self, lease: HeldLease) {
        self.plane.set_lease(lease.until_us());
    }

    fn receive(&self, _: NodeId, message: Message) {
        let Some(shared) = self.shared.upgrade() else { return };
        let number = message.partition().0;
        if usize::from(number) < PARTITIONS {
            // One that is held for long loses it: what matters is sent again.
            let _is_taken = self.step(&shared, number, PATIENCE, |partition, cx| {
                partition.receive(message, cx);
            });
        }
    }

    fn hand_over(&self, partition: PartitionId, to: Member) {
        let Some(shared) = self.shared.upgrade() else { return };
        if usize::from(partition.0) < PARTITIONS {
            // Nothing is promised, so it may be asked for again.
            let _is_begun = self.step(&shared, partition.0, PATIENCE, |partition, cx| {
                partition.hand_over(to, cx);
            });
        }
    }

    fn tick(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let first = self.share.fetch_add(1, Relaxed) % SHARES;
        for number in (first..PARTITIONS as u16).step_by(usize::from(SHARES)) {
            // What is held now is looked at the next time.
            let _is_done = self.step(&shared, number, Duration::ZERO, |partition, cx| {
                partition.tick(cx);
            });
        }
    }

    fn expelled(&self, why: &str) {
        tracing::error!("this process is no member of the cluster any more: {why}");
        self.plane.set_expelled(why);
        self.plane.set_lease(0);
        if let Some(shared) = self.shared.upgrade() {
            shared.stop();
        }
    }
}

/// Sends the records that were written since. Returns whether some are left for a moment, because their
/// partition is held.
pub fn flush_written(shared: &Shared, plane: &Plane) -> bool {
    let mut left = false;
    plane.take_written(|number| match shared.keyspace.try_lock(number) {
        Some(mut shard) => shard.step(shared, number, |partition, cx| partition.flush(cx)),
        None => {
            plane.note_written(number);
            left = true;
        }
    });
    if let Some(outside) = shared.cluster.outside() {
        outside.flush();
    }
    left
}
