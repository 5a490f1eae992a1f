//! Consumer groups of a stream: what was delivered to whom, and not acknowledged yet.

use super::StreamId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Counted for a pending entry: its place in the map of the group and in the set of its consumer, whose
/// nodes are about two thirds full.
const PENDING_BYTES: usize = 112;
/// Counted for a consumer beside its name.
const CONSUMER_BYTES: usize = 160;

/// What a group's or consumer's name takes.
pub(super) fn name_bytes(name: &[u8]) -> usize {
    crate::mem::class_size(name.len().max(1)) + 32
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Who has it.
    pub consumer: Arc<[u8]>,
    /// When it was delivered last, in ms since the epoch.
    pub delivered_ms: u64,
    /// How often it was.
    pub deliveries: u64,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: Arc<[u8]>,
    /// When it last tried to read, in ms since the epoch.
    pub seen_ms: u64,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<[u8]> {
        &self.name
    }

    /// Its entries that are not acknowledged, in order.
    #[must_use]
    pub fn pending(&self) -> &BTreeSet<StreamId> {
        &self.pending
    }
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last id that was delivered.
    pub last_id: StreamId,
    /// How many entries of the stream were read, if that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: BTreeMap<Arc<[u8]>, Consumer>,
    bytes: usize,
}

impl Group {
    /// A group that goes on after `last_id`.
    #[must_use]
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        let (pending, consumers) = (BTreeMap::new(), BTreeMap::new());
        Group { last_id, entries_read, pending, consumers, bytes: size_of::<Group>() }
    }

    /// Bytes counted for it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is not acknowledged, in order of id.
    #[must_use]
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// Its consumers in order of name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.consumers.values()
    }

    /// A consumer.
    #[must_use]
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    pub(super) fn create_consumer(&mut self, name: &[u8], seen_ms: u64) -> bool {
        if self.consumers.contains_key(name) {
            return false;
        }
        let name: Arc<[u8]> = Arc::from(name);
        self.bytes += CONSUMER_BYTES + name_bytes(&name);
        let consumer = Consumer { name: Arc::clone(&name), seen_ms, pending: BTreeSet::new() };
        self.consumers.insert(name, consumer);
        true
    }

    pub(super) fn delete_consumer(&mut self, name: &[u8]) -> bool {
        let Some(consumer) = self.consumers.remove(name) else { return false };
        self.bytes -= CONSUMER_BYTES + name_bytes(name);
        for id in &consumer.pending {
            self.pending.remove(id);
            self.bytes -= PENDING_BYTES;
        }
        true
    }

    pub(super) fn see_consumer(&mut self, name: &[u8], seen_ms: u64) -> bool {
        let Some(consumer) = self.consumers.get_mut(name) else { return false };
        consumer.seen_ms = seen_ms;
        true
    }

    /// Gives an entry to a consumer, whoever had it.
    pub(super) fn assign(
        &mut self,
        id: StreamId,
        name: &[u8],
        delivered_ms: u64,
        deliveries: u64,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(name) else { return false };
        consumer.pending.insert(id);
        let consumer = Arc::clone(&consumer.name);
        let old = self.pending.insert(id, Pending { consumer, delivered_ms, deliveries });
        match old {
            None => self.bytes += PENDING_BYTES,
            Some(old) if &old.consumer[..] != name => {
                if let Some(had) = self.consumers.get_mut(&old.consumer) {
                    had.pending.remove(&id);
                }
            }
            Some(_) => {}
        }
        true
    }

    pub(super) fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&id) else { return false };
        if let Some(consumer) = self.consumers.get_mut(&pending.consumer) {
            consumer.pending.remove(&id);
        }
        self.bytes -= PENDING_BYTES;
        true
    }
}
