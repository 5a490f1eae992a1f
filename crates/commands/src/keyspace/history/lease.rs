//! What a partition knows of the leases of its keys; see [`crate::leases`].

use super::History;
use crate::leases::Lease;
use hypercache_journal::{Change, Effect, Event};
use hypercache_store::Mark;
use std::collections::VecDeque;

/// What is noted while there are leases of keys of the partition.
#[derive(Debug, Default)]
pub(super) struct LeaseNotes {
    /// How many leases there are.
    leases: usize,
    /// Invalidations of tags so far.
    invalidations: u64,
    /// Number, database and tag of the last ones.
    recent: VecDeque<(u64, u8, u64)>,
}

/// So many invalidations are remembered for leases that began before them; a lease older than all that
/// are counts as one whose tags were invalidated.
const RECENT_MAX: usize = 256;

impl LeaseNotes {
    fn note(&mut self, db: u8, tag: u64) {
        self.invalidations += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((self.invalidations, db, tag));
    }

    /// Whether one of these tags was invalidated after invalidation number `after`.
    fn is_invalidated(&self, after: u64, db: u8, tags: &[u64]) -> bool {
        let is_remembered = self.recent.len() as u64 >= self.invalidations - after;
        let is_later = |entry: &&(u64, u8, u64)| entry.0 > after;
        let is_one = |(_, in_db, tag): &(u64, u8, u64)| *in_db == db && tags.contains(tag);
        !tags.is_empty() && (!is_remembered || self.recent.iter().filter(is_later).any(is_one))
    }
}

/// Whether an effect means that what was read from the source before it may be old. That a key's time is
/// over does not, nor that it had to make room.
fn outdates(effect: &Effect<'_>) -> bool {
    let is_timely = matches!(effect.event, Event::Expired | Event::Evicted);
    match effect.change {
        Change::Nothing | Change::Deadline(_) | Change::Care { .. } => false,
        // A value that was marked as stale; the other states do not concern the source.
        Change::Mark { state, .. } => state & (Mark::STALE | Mark::WON) == Mark::STALE,
        _ => !is_timely,
    }
}

impl History {
    /// The lease of a key, if there is one whose time is not over.
    pub(in crate::keyspace) fn lease(&self, db: u8, key: &[u8], now_ms: u64) -> Option<&Lease> {
        if !self.is_observed {
            return None;
        }
        let lease = self.observers.get(&(db, Box::from(key)))?.lease.as_deref()?;
        (lease.until_ms > now_ms).then_some(lease)
    }

    /// Invalidations of tags while there were leases.
    pub(in crate::keyspace) fn invalidations(&self) -> u64 {
        self.leases.as_ref().map_or(0, |notes| notes.invalidations)
    }

    /// Gives a key a lease in place of the one that it may have.
    pub(in crate::keyspace) fn put_lease(&mut self, db: u8, key: &[u8], lease: Lease) {
        self.end_lease(db, key, None);
        self.leases.get_or_insert_default().leases += 1;
        self.add_observer(db, key, |observers| observers.lease = Some(Box::new(lease)));
    }

    /// Ends the lease of a key, if it has one, and is it the one with `token` if that is given. Who waits
    /// for the key is tried again.
    pub(crate) fn end_lease(&mut self, db: u8, key: &[u8], token: Option<u64>) {
        if self.leases.is_none() {
            return;
        }
        let name = (db, Box::from(key));
        let Some(observers) = self.observers.get(&name) else { return };
        let is_it = |lease: &Lease| token.is_none_or(|token| token == lease.token);
        if !observers.lease.as_deref().is_some_and(is_it) {
            return;
        }
        if !observers.waiting.is_empty() {
            self.make_ready(db, name.1);
        }
        self.edit_observers(db, key, |observers| observers.lease = None);
        self.leases.take_if(|notes| {
            notes.leases -= 1;
            notes.leases == 0
        });
    }

    /// Ends the lease of a key that an effect changes, if the change matters to it.
    pub(super) fn end_outdated_lease(&mut self, effect: &Effect<'_>) {
        if self.leases.is_some() && outdates(effect) {
            self.end_lease(effect.db, effect.key, None);
        }
    }

    /// Ends the leases of keys for which `is_outdated` holds.
    pub(in crate::keyspace) fn end_leases_where(
        &mut self,
        mut is_outdated: impl FnMut(u8, &[u8]) -> bool,
    ) {
        if self.leases.is_none() {
            return;
        }
        let leased = self.observers.iter().filter(|(_, observers)| observers.lease.is_some());
        let outdated = leased.filter(|((db, key), _)| is_outdated(*db, key));
        let names: Vec<(u8, Box<[u8]>)> = outdated.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|(db, key)| self.end_lease(*db, key, None));
    }

    /// Notes that a tag was invalidated, for leases of keys that will have it.
    pub(in crate::keyspace) fn note_invalidated(&mut self, db: u8, tag: u64) {
        if let Some(notes) = &mut self.leases {
            notes.note(db, tag);
        }
    }

    /// Whether one of these tags was invalidated since a lease was given.
    pub(in crate::keyspace) fn is_outdated(&self, lease: &Lease, db: u8, tags: &[u64]) -> bool {
        let notes = self.leases.as_ref();
        notes.is_some_and(|notes| notes.is_invalidated(lease.invalidations, db, tags))
    }

    /// How many clients wait for a key.
    pub(in crate::keyspace) fn waiting_for(&self, db: u8, key: &[u8]) -> usize {
        self.observers.get(&(db, Box::from(key))).map_or(0, |observers| observers.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_remembered_counts_as_invalidated() {
        let mut notes = LeaseNotes::default();
        for tag in 0..300 {
            notes.note(0, tag);
            let after = notes.invalidations - 1;
            assert!(
                notes.is_invalidated(after, 0, &[5, tag])
                    && !notes.is_invalidated(after, 1, &[tag])
            );
            assert!(!notes.is_invalidated(notes.invalidations, 0, &[tag]));
        }
        assert!(!notes.is_invalidated(300 - RECENT_MAX as u64, 0, &[5]));
        assert!(notes.is_invalidated(300 - RECENT_MAX as u64 - 1, 0, &[500]), "who knows");
        assert!(!notes.is_invalidated(0, 0, &[]), "it has no tags");
    }
}
