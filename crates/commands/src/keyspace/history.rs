//! What is told of every write of a partition: its log of effects, and those who observe its keys.

mod lease;

use super::tracked::{Stale, Totals, Tracked};
use super::{discard, expired};
use crate::blocking::Waiter;
use crate::charge::{Charge, Sum, heap, table};
use crate::client::Client;
use crate::leases::Lease;
use crate::table::Group;
use hypercache_journal::{Change, Effect, Log, record};
use hypercache_store::Removed;
use lease::LeaseNotes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Raised when a watched key changes; shared by the session and the shards it watches keys in.
pub type WatchFlag = Arc<AtomicBool>;

/// Counts records that are kept, so that those of one command on several partitions can be told in
/// the order they were made.
static STAMP: AtomicU64 = AtomicU64::new(0);

/// Who wants to know of changes of a key.
#[derive(Debug, Default)]
struct Observers {
    /// Of transactions that depend on it.
    flags: Vec<WatchFlag>,
    /// Clients that wait for it, in order of their numbers, with the family of their command.
    waiting: VecDeque<(u64, Group, Arc<Waiter>)>,
    /// That of who loads its value.
    lease: Option<Box<Lease>>,
}

impl Observers {
    fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.waiting.is_empty() && self.lease.is_none()
    }

    /// Bytes beside its place in the table.
    fn bytes(&self, key: &[u8]) -> usize {
        let waiting = self.waiting.capacity() * size_of::<(u64, Group, Arc<Waiter>)>();
        let lease = if self.lease.is_some() { heap(size_of::<Lease>()) } else { 0 };
        let flags = heap(self.flags.capacity() * size_of::<WatchFlag>());
        heap(key.len()) + flags + heap(waiting) + lease
    }
}

/// A key that clients wait for and that changed.
#[derive(Debug)]
pub struct Ready {
    /// When, in the order of the whole keyspace.
    stamp: u64,
    /// Logical database.
    pub db: u8,
    /// The key.
    pub key: Box<[u8]>,
}

/// What is told of every write of a partition: its log, and those who observe its keys. First what a
/// write looks at of which nobody reads.
#[derive(Debug, Default)]
#[repr(C)]
pub struct History {
    /// Whether there are observers or tracked keys, or news that were not taken.
    is_observed: bool,
    /// The partition's log of effects.
    pub log: Log,
    /// Number of the last record that became a notification.
    pub(super) notified: u64,
    /// When each of the records after that was made, in the order of the whole keyspace.
    pub(super) stamps: Vec<u64>,
    observers: HashMap<(u8, Box<[u8]>), Observers>,
    /// Bytes of `observers` beside its table.
    observers_bytes: usize,
    /// Bytes of `observers`.
    charge: Charge,
    /// Keys that clients keep copies of, if there are any.
    tracked: Option<Box<Tracked>>,
    /// Keys whose waiting clients are to be served, in order.
    ready: VecDeque<Ready>,
    /// What was done since copies on other nodes were last told, while this is what they follow.
    deed: Option<Deed>,
    /// What is noted while there are leases.
    leases: Option<Box<LeaseNotes>>,
}

/// A record in the making, for the copies of a partition on other nodes.
#[derive(Debug, Default)]
struct Deed {
    record: Vec<u8>,
    /// Whether there is more in it than names of events.
    is_change: bool,
}

/// A buffer larger than this is not kept for the next record.
const RECORD_KEPT_MAX: usize = 16 * 1024;

impl History {
    /// Of a partition of the keyspace where `registered` adds up what clients have registered.
    pub(super) fn new(registered: &Arc<Sum>) -> Self {
        History { charge: Charge::new(registered), ..History::default() }
    }

    /// Whether nobody reads of writes: neither the log nor an observer.
    #[inline]
    pub(super) fn is_unread(&self) -> bool {
        !self.log.is_kept() && !self.is_observed
    }

    /// Whether effects are written down as a whole, with what was written.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        self.log.is_kept() || self.deed.is_some()
    }

    /// Whether somebody observes keys, or is to be told or served.
    #[inline]
    pub(super) fn is_observed(&self) -> bool {
        self.is_observed
    }

    /// Finds out whether there is still anybody to tell.
    fn note_observed(&mut self) {
        self.tracked.take_if(|tracked| tracked.is_empty());
        self.is_observed = !self.observers.is_empty()
            || !self.ready.is_empty()
            || self.tracked.is_some()
            || self.deed.is_some();
    }

    /// From now on copies on other nodes are told of what is done here, or no longer.
    pub(super) fn set_copied(&mut self, is_copied: bool) {
        self.deed = is_copied.then(Deed::default);
        self.note_observed();
    }

    /// Whether something was done that copies have not been told of.
    #[inline]
    pub(super) fn has_deed(&self) -> bool {
        self.deed.as_ref().is_some_and(|deed| deed.is_change)
    }

    /// Takes the record of what was done since the last one; `None` if nothing was.
    pub(super) fn take_deed(&mut self) -> Option<Arc<[u8]>> {
        let deed = self.deed.as_mut()?;
        let record = std::mem::take(&mut deed.is_change).then(|| Arc::from(&deed.record[..]));
        deed.record.clear();
        if deed.record.capacity() > RECORD_KEPT_MAX {
            deed.record = Vec::new();
        }
        record
    }

    /// Records an effect. The one place through which writes are told.
    #[inline]
    pub(super) fn record(&mut self, effect: &Effect<'_>) {
        // A key that goes matters to some who wait, too: a consumer group goes with its stream.
        let wakes = !matches!(effect.change, Change::Deadline(_) | Change::Nothing);
        self.append(effect, wakes);
    }

    /// Records an effect that nobody who waits can want.
    #[inline]
    pub(super) fn record_quietly(&mut self, effect: &Effect<'_>) {
        self.append(effect, false);
    }

    #[inline]
    fn append(&mut self, effect: &Effect<'_>, wakes: bool) {
        self.log.append(effect);
        if self.log.is_kept() {
            self.stamps.push(STAMP.fetch_add(1, Ordering::Relaxed));
        }
        if self.is_observed {
            self.tell_observers(effect, wakes);
        }
    }

    /// Records that the time of a key was past, and frees it.
    #[cold]
    pub(super) fn record_expired(&mut self, db: u8, removed: Removed) {
        self.record(&expired(db, removed.key()));
        discard(removed);
    }

    #[cold]
    fn tell_observers(&mut self, effect: &Effect<'_>, wakes: bool) {
        if let Some(deed) = &mut self.deed {
            record::add(effect, &mut deed.record);
            deed.is_change |= effect.change != Change::Nothing;
        }
        if let Some(tracked) = &mut self.tracked {
            tracked.note(effect);
        }
        if self.observers.is_empty() {
            return;
        }
        let (db, key) = (effect.db, Box::from(effect.key));
        let Some(observers) = self.observers.get(&(db, key)) else { return };
        raise(&observers.flags);
        let wakes = wakes && !observers.waiting.is_empty();
        if wakes {
            self.make_ready(db, Box::from(effect.key));
        }
        self.end_outdated_lease(effect);
    }

    fn make_ready(&mut self, db: u8, key: Box<[u8]>) {
        if !self.ready.iter().any(|ready| ready.db == db && ready.key == key) {
            let stamp = STAMP.fetch_add(1, Ordering::Relaxed);
            self.ready.push_back(Ready { stamp, db, key });
        }
    }

    /// Raises the flags of watched keys for which `is_touched` holds.
    pub(super) fn touch_where(&self, mut is_touched: impl FnMut(u8, &[u8]) -> bool) {
        let touched = self.observers.iter().filter(|((db, key), _)| is_touched(*db, key));
        touched.for_each(|(_, observers)| raise(&observers.flags));
    }

    /// Has those served who wait for keys of some databases, which are others now.
    pub(super) fn make_ready_where(&mut self, mut is_changed: impl FnMut(u8) -> bool) {
        let waiting = self.observers.iter().filter(|(_, observers)| !observers.waiting.is_empty());
        let keys: Vec<(u8, Box<[u8]>)> =
            waiting.filter(|((db, _), _)| is_changed(*db)).map(|(name, _)| name.clone()).collect();
        keys.into_iter().for_each(|(db, key)| self.make_ready(db, key));
    }

    /// Whether clients wait for a key that changed.
    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the first key that is ready became so.
    pub(super) fn first_ready(&self) -> Option<u64> {
        Some(self.ready.front()?.stamp)
    }

    /// Takes the key that became ready first.
    pub(super) fn take_ready(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front();
        self.note_observed();
        ready
    }

    /// Takes all keys that are ready.
    pub(super) fn set_ready_aside(&mut self) -> VecDeque<Ready> {
        std::mem::take(&mut self.ready)
    }

    /// Gives keys back that were taken, before those that became ready since.
    pub(super) fn put_ready_back(&mut self, mut before: VecDeque<Ready>) {
        for Ready { db, key, .. } in std::mem::take(&mut self.ready) {
            if !before.iter().any(|ready| ready.db == db && ready.key == key) {
                let stamp = STAMP.fetch_add(1, Ordering::Relaxed);
                before.push_back(Ready { stamp, db, key });
            }
        }
        self.ready = before;
        self.note_observed();
    }

    /// Moves what clients keep copies of and that changed to `stale`.
    #[inline]
    pub(super) fn take_stale(&mut self, stale: &mut Vec<(u64, Stale)>) {
        if let Some(tracked) = &mut self.tracked {
            tracked.take_stale(stale);
            self.note_observed();
        }
    }

    /// Notes that a client that keeps copies read a key.
    pub(super) fn remember(&mut self, key: &[u8], client: &Arc<Client>, totals: &Arc<Totals>) {
        self.make_tracked(totals).remember(key, client);
    }

    /// Notes that a database is empty now; `is_first`: of this partition before all others.
    pub(super) fn forget_tracked(&mut self, is_first: bool, totals: &Arc<Totals>) {
        if is_first || self.tracked.is_some() {
            self.make_tracked(totals).note_flush(is_first);
        }
    }

    /// Notes that all there is was replaced, or is looked after elsewhere from now on: who watches a key
    /// or keeps a copy of it knows nothing any more.
    pub(super) fn note_replaced(&mut self) {
        self.touch_where(|_, _| true);
        if let Some(tracked) = &mut self.tracked {
            tracked.note_all();
        }
    }

    /// Whether somebody is to be told of something, or served.
    pub(super) fn has_news(&self) -> bool {
        let is_stale = self.tracked.as_ref().is_some_and(|tracked| tracked.has_stale());
        is_stale || self.has_ready() || self.log.is_kept() && self.log.last() != self.notified
    }

    /// A charge of what is registered with the keyspace.
    pub(super) fn new_charge(&self) -> Charge {
        self.charge.another()
    }

    /// The clients that wait for keys, each once.
    pub(super) fn waiters(&self) -> Vec<Arc<Waiter>> {
        let waiting = self.observers.values().flat_map(|observers| &observers.waiting);
        let by_number: BTreeMap<u64, &Arc<Waiter>> =
            waiting.map(|(number, _, waiter)| (*number, waiter)).collect();
        by_number.into_values().map(Arc::clone).collect()
    }

    /// Forgets some key that clients keep copies of, and has them told. Returns whether there was one.
    pub(super) fn forget_one_tracked(&mut self, random: impl FnOnce(u64) -> u64) -> bool {
        self.tracked.as_mut().is_some_and(|tracked| tracked.forget_one(random))
    }

    /// Notes whether some client wants to know of all keys with a prefix.
    pub(crate) fn set_broadcast(&mut self, is_broadcast: bool, totals: &Arc<Totals>) {
        self.make_tracked(totals).is_broadcast = is_broadcast;
        self.note_observed();
    }

    /// Whether all that changes is noted for clients that want to know of keys with a prefix.
    pub(crate) fn is_broadcast(&self) -> bool {
        self.tracked.as_ref().is_some_and(|tracked| tracked.is_broadcast)
    }

    fn make_tracked(&mut self, totals: &Arc<Totals>) -> &mut Tracked {
        self.is_observed = true;
        let charge = &self.charge;
        self.tracked.get_or_insert_with(|| Box::new(Tracked::new(totals, charge.another())))
    }

    /// Adds a watcher of a key.
    pub fn watch(&mut self, db: u8, key: &[u8], flag: &WatchFlag) {
        self.add_observer(db, key, |observers| observers.flags.push(Arc::clone(flag)));
    }

    /// Removes a watcher of a key.
    pub fn unwatch(&mut self, db: u8, key: &[u8], flag: &WatchFlag) {
        self.edit_observers(db, key, |observers| {
            observers.flags.retain(|other| !Arc::ptr_eq(other, flag));
        });
    }

    /// Adds a client that waits for a key.
    pub(crate) fn add_waiter(&mut self, db: u8, key: &[u8], waiter: &Arc<Waiter>) {
        let place = (waiter.number(), waiter.group(), Arc::clone(waiter));
        self.add_observer(db, key, |observers| observers.waiting.push_back(place));
    }

    /// Removes a client that waited for a key.
    pub(crate) fn remove_waiter(&mut self, db: u8, key: &[u8], number: u64) {
        self.edit_observers(db, key, |observers| {
            let at = observers.waiting.binary_search_by_key(&number, |(number, ..)| *number);
            at.ok().and_then(|at| observers.waiting.remove(at));
        });
    }

    fn add_observer(&mut self, db: u8, key: &[u8], add: impl FnOnce(&mut Observers)) {
        self.is_observed = true;
        let observers = self.observers.entry((db, Box::from(key))).or_default();
        let before = if observers.is_empty() { 0 } else { observers.bytes(key) };
        add(observers);
        self.observers_bytes += observers.bytes(key) - before;
        self.charge.set(table(&self.observers) + self.observers_bytes);
    }

    fn edit_observers(&mut self, db: u8, key: &[u8], edit: impl FnOnce(&mut Observers)) {
        let name = (db, Box::from(key));
        let Some(observers) = self.observers.get_mut(&name) else { return };
        let before = observers.bytes(key);
        edit(observers);
        if observers.is_empty() {
            self.observers_bytes -= before;
            self.observers.remove(&name);
            if self.observers.is_empty() {
                self.observers = HashMap::new();
            }
            self.note_observed();
        } else {
            let after = observers.bytes(key);
            self.observers_bytes = self.observers_bytes + after - before;
        }
        self.charge.set(table(&self.observers) + self.observers_bytes);
    }

    /// The first client that waits for a key and came after number `after`, of commands of families
    /// that are not in `done`.
    pub(crate) fn next_waiter(
        &self,
        ready: &Ready,
        after: u64,
        done: &[Group],
    ) -> Option<Arc<Waiter>> {
        let waiting = &self.observers.get(&(ready.db, ready.key.clone()))?.waiting;
        let start = waiting.partition_point(|(number, ..)| *number <= after);
        let next = waiting.range(start..).find(|(_, group, _)| !done.contains(group));
        next.map(|(.., waiter)| Arc::clone(waiter))
    }

    /// Calls `f` with the records that no notification was made of yet.
    pub(super) fn take_notifications(&mut self, f: &mut dyn FnMut(Effect<'_>)) {
        self.stamps.clear();
        if self.log.last() == self.notified {
            return;
        }
        // Those that are not yet notified are held, so none is lost while notifications are wanted.
        let _none_when_lost = self.log.read_from(self.notified + 1, f);
        self.notified = self.log.last();
        self.log.hold_from(self.notified + 1);
    }
}

fn raise(flags: &[WatchFlag]) {
    flags.iter().for_each(|flag| flag.store(true, Ordering::Release));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The charge, and what it must be.
    fn bytes(history: &History, registered: &Sum) -> (usize, usize) {
        let each = history.observers.iter().map(|((_, key), observers)| observers.bytes(key));
        (registered.bytes(), table(&history.observers) + each.sum::<usize>())
    }

    #[test]
    fn what_is_watched_is_counted() {
        let registered = Arc::default();
        let mut history = History::new(&registered);
        let flags: Vec<WatchFlag> = (0..5).map(|_| WatchFlag::default()).collect();
        let keys: Vec<Vec<u8>> = (0..200).map(|n| vec![b'k'; n]).collect();
        for key in &keys {
            flags.iter().for_each(|flag| history.watch(3, key, flag));
            let (is, must_be) = bytes(&history, &registered);
            assert_eq!(is, must_be);
        }
        assert!(registered.bytes() > 200 * 100 + 1000 * 8);
        for key in &keys {
            flags.iter().for_each(|flag| history.unwatch(3, key, flag));
            let (is, must_be) = bytes(&history, &registered);
            assert_eq!(is, must_be);
        }
        assert_eq!(registered.bytes(), 0);
    }
}
