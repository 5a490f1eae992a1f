//! Keys with a [`Care`]: tags that make them gone, and values that stand for nothing.
//!
//! Whether such a key is there is asked where deadlines are looked at, and costs others nothing (see
//! [`crate::mem::entry`]). Whoever reads sees no key whose tag was invalidated; a value that stands for
//! nothing is seen by [`Db::get_loaded`] only, and ends when anybody else looks for the key: so no
//! command can take it for a value.

use super::{Db, Key};
use crate::care::{self, Care};
use crate::found::{EntryRef, Live, Removed};
use crate::mem::entry::{EntryPtr, OwnedEntry};
use crate::table::Hint;
use crate::types::Kind;
use smallvec::SmallVec;

/// The ids of the tags of a key.
type Ids = SmallVec<[u32; 4]>;

fn ids_of(entry: EntryPtr) -> Ids {
    if entry.depends() { care::ids(entry.care()).collect() } else { Ids::new() }
}

/// Who looks at a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// One that takes what it finds for a value.
    ForValue,
    /// One that knows of values that stand for nothing.
    ForAnything,
}

impl Db {
    /// Whether a key for which [`EntryPtr::may_be_over`] holds is gone.
    #[cold]
    pub(super) fn is_over(&self, entry: EntryPtr, now_ms: u64) -> bool {
        self.is_gone(entry, now_ms, Looks::ForValue)
    }

    fn is_gone(&self, entry: EntryPtr, now_ms: u64, looks: Looks) -> bool {
        entry.deadline().is_some_and(|at| now_ms > at)
            || entry.depends() && self.is_barred(entry, looks)
    }

    fn is_barred(&self, entry: EntryPtr, looks: Looks) -> bool {
        let care = entry.care();
        let is_hidden = looks == Looks::ForValue && care::Head::decode(care).is_negative;
        is_hidden || care::ids(care).any(|id| self.tags.as_ref().is_some_and(|t| t.is_dead(id)))
    }

    /// Whether an entry is hidden from those who look at keys whose time may be past.
    #[inline]
    pub(super) fn is_hidden(&self, entry: EntryPtr) -> bool {
        entry.depends() && self.is_barred(entry, Looks::ForValue)
    }

    /// As [`Db::get_live`], for who knows of values that stand for nothing.
    pub fn get_loaded(&mut self, key: Key<'_>, now_ms: u64, touch: Option<u32>) -> Live<'_> {
        let Some(place) = self.table.find(key) else { return Live::Missing };
        let entry = place.entry();
        if self.is_gone(entry, now_ms, Looks::ForAnything) {
            return Live::Expired(self.remove_place(key.hash, place));
        }
        if let Some(seconds) = touch {
            self.note_use(key.hash, entry, seconds);
        }
        Live::Is(EntryRef::new(entry))
    }

    /// The care of a key, if it is there and has one.
    #[must_use]
    pub fn care(&self, key: Key<'_>) -> Option<Care> {
        self.care_of(EntryRef::new(self.table.find(key)?.entry()))
    }

    /// The care of an entry of this database, if it has one.
    #[must_use]
    pub fn care_of(&self, entry: EntryRef<'_>) -> Option<Care> {
        let bytes = entry.entry.care();
        if bytes.is_empty() {
            return None;
        }
        let care::Head { stale_ms, cost_us, is_negative } = care::Head::decode(bytes);
        let tags = care::ids(bytes).filter_map(|id| Some(self.tags.as_ref()?.tag_of(id)));
        Some(Care { stale_ms, cost_us, is_negative, tags: tags.collect() })
    }

    /// Changes the care of a string that is there, whatever it was. Returns whether there is one.
    pub fn set_care(&mut self, key: Key<'_>, care: &Care) -> bool {
        let Some(place) = self.table.find(key) else { return false };
        let entry = place.entry();
        if entry.kind() != Kind::String {
            return false;
        }
        let before = self.tags_bytes();
        let (old, new) = (ids_of(entry), self.ids_for(&care.tags));
        let bytes = if care.is_none() { SmallVec::new() } else { care.head().encode(&new) };
        if entry.set_tail(entry.mark(), &bytes) {
            self.add_refs(new.len());
            self.drop_refs(old.len());
        } else {
            let deadline = entry.deadline();
            let copy = self.take_apart_with(key, entry, &bytes);
            self.swap_entry(key.hash, place, copy, deadline);
        }
        if let Some(tags) = &mut self.tags {
            new.iter().filter(|id| !old.contains(id)).for_each(|id| tags.add_hint(*id, key.hash));
        }
        self.renew_tags();
        self.entry_bytes = self.entry_bytes + self.tags_bytes() - before;
        true
    }

    fn ids_for(&mut self, tags: &[u64]) -> Ids {
        if tags.is_empty() {
            return Ids::new();
        }
        let known = self.tags.get_or_insert_default();
        tags.iter().take(care::TAGS_MAX).map(|tag| known.id_of(*tag)).collect()
    }

    fn tags_bytes(&self) -> usize {
        self.tags.as_ref().map_or(0, |tags| tags.bytes())
    }

    fn add_refs(&mut self, refs: usize) {
        if let Some(tags) = &mut self.tags {
            tags.refs += refs;
        }
    }

    fn drop_refs(&mut self, refs: usize) {
        if let Some(tags) = &mut self.tags {
            tags.refs -= refs;
        }
    }

    /// Notes that an entry came or went, if it has tags.
    #[inline]
    pub(super) fn count_tags(&mut self, entry: EntryPtr, is_there: bool) {
        if entry.depends() {
            let refs = care::ids(entry.care()).count();
            if is_there { self.add_refs(refs) } else { self.drop_refs(refs) }
        }
    }

    /// As [`Db::take_apart`], with another care.
    pub(super) fn take_apart_with(
        &mut self,
        key: Key<'_>,
        entry: EntryPtr,
        care: &[u8],
    ) -> OwnedEntry {
        let before = entry.bytes_used();
        let mark = entry.mark();
        let blob = entry.take_blob();
        let inline = if blob.is_some() { &[][..] } else { entry.value() };
        let copy = OwnedEntry::with_tail(key.bytes, inline, blob, mark, care);
        self.entry_bytes -= before - entry.bytes_used();
        copy.entry().set_raw(entry.is_raw());
        copy.entry().set_access(entry.access());
        copy.entry().set_fetched(entry.is_fetched());
        copy
    }

    /// Makes all keys with a tag gone, in O(1). Returns how many there are, or some more.
    pub fn invalidate_tag(&mut self, tag: u64) -> usize {
        let before = self.tags_bytes();
        let keys = self.tags.as_mut().map_or(0, |tags| tags.invalidate(tag));
        self.entry_bytes = self.entry_bytes + self.tags_bytes() - before;
        keys
    }

    /// How many keys have a tag, or some more.
    #[must_use]
    pub fn keys_of_tag(&self, tag: u64) -> usize {
        self.tags.as_ref().map_or(0, |tags| tags.hints_of(tag))
    }

    /// Whether a key is gone with its tags, and not removed yet.
    #[must_use]
    pub fn is_invalidated_key(&self, key: Key<'_>) -> bool {
        self.table.find(key).is_some_and(|place| self.is_invalidated(place.entry()))
    }

    /// Whether an entry is gone with its tags, and not removed yet.
    pub(super) fn is_invalidated(&self, entry: EntryPtr) -> bool {
        entry.depends() && self.is_barred(entry, Looks::ForAnything)
    }

    /// Whether [`Self::purge`] has anything to do.
    #[must_use]
    pub fn needs_purge(&self) -> bool {
        self.tags.as_ref().is_some_and(|tags| tags.has_dead() || tags.is_worn())
    }

    /// Removes up to `max` keys that are gone with their tags, handing each to `f`. Returns how many
    /// hints were looked at: none means that nothing is left to do.
    pub fn purge(&mut self, max: usize, f: &mut dyn FnMut(Removed)) -> usize {
        let Some(tags) = &mut self.tags else { return 0 };
        let (before, mut hashes) = (tags.bytes(), Vec::new());
        tags.take_dead(max, &mut hashes);
        self.approach(&hashes);
        hashes.iter().for_each(|hash| self.remove_invalidated(*hash, f));
        if hashes.is_empty() {
            self.renew_tags();
        }
        self.entry_bytes = self.entry_bytes + self.tags_bytes() - before;
        hashes.len()
    }

    /// Brings entries towards the cache.
    fn approach(&self, hashes: &[u64]) {
        let mut hints: Vec<_> = hashes.iter().map(|&hash| (hash, Hint::new(self.core()))).collect();
        hints.iter_mut().for_each(|(hash, hint)| hint.find_block(*hash));
        hints.iter_mut().for_each(|(_, hint)| hint.find_bucket());
        for (hash, hint) in &mut hints {
            hint.find_entry(*hash);
        }
    }

    fn remove_invalidated(&mut self, hash: u64, f: &mut dyn FnMut(Removed)) {
        // Removing one may move another, so look again.
        while let Some(place) = self
            .table
            .find_tagged(hash)
            .into_iter()
            .find(|place| self.is_invalidated(place.entry()))
        {
            f(self.remove_place(hash, place));
        }
    }

    /// Makes the lists of hints anew when most lead to nothing.
    fn renew_tags(&mut self) {
        let Some(mut tags) = self.tags.take_if(|tags| tags.is_worn()) else { return };
        let has_id = |entry: EntryPtr, id| care::ids(entry.care()).any(|other| other == id);
        tags.renew(|hash, id| {
            self.table.find_tagged(hash).iter().any(|place| has_id(place.entry(), id))
        });
        self.tags = Some(tags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Payload, Ttl};
    use hypercache_stdx::hash::KeyHasher;
    use hypercache_stdx::rng::Rng;
    use std::collections::{BTreeMap, BTreeSet};

    fn care(tags: &[u64]) -> Care {
        Care { tags: tags.iter().copied().collect(), ..Care::default() }
    }

    /// What must be there, with the tags of each key.
    type Model = BTreeMap<Vec<u8>, BTreeSet<u64>>;

    fn check(db: &mut Db, model: &Model, key: &[u8]) {
        let hashed = Key::new(key, db.table.hasher().hash(key));
        let is_there = matches!(db.get_live(hashed, 0, None), Live::Is(_));
        assert_eq!(is_there, model.contains_key(key));
        let tags = db.care(hashed).unwrap_or_default().tags;
        let expected = model.get(key).cloned().unwrap_or_default();
        assert_eq!(tags.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    /// The account of bytes and of tags, made anew.
    fn check_account(db: &Db) {
        let (mut bytes, mut refs) = (db.tags_bytes(), 0);
        db.table.for_each(|entry| {
            bytes += entry.bytes_used();
            refs += ids_of(entry).len();
        });
        assert_eq!(db.entry_bytes, bytes);
        assert_eq!(db.tags.as_ref().map_or(0, |tags| tags.refs), refs);
    }

    #[test]
    fn keys_go_with_their_tags_and_all_memory_comes_back() {
        let hasher = KeyHasher::new((1, 2));
        let (mut db, mut model, mut rng) = (Db::new(hasher, 0), Model::new(), Rng::new(7));
        for round in 0..40_000 {
            let key = format!("key{}", rng.below(200)).into_bytes();
            let hashed = Key::new(&key, hasher.hash(&key));
            match rng.below(20) {
                0..8 => {
                    let tags: Vec<u64> = (0..rng.below(4)).map(|_| rng.below(30)).collect();
                    let mut care = care(&[]);
                    tags.iter().for_each(|tag| assert!(care.add_tag(*tag)));
                    let value = vec![0; rng.below(40_000) as usize >> rng.below(16)];
                    db.set(hashed, Payload::Slice(&value), Ttl::Clear, 0);
                    assert!(db.set_care(hashed, &care));
                    model.insert(key.clone(), tags.into_iter().collect());
                }
                8..10 => {
                    let tag = rng.below(30);
                    db.invalidate_tag(tag);
                    model.retain(|_, tags| !tags.contains(&tag));
                }
                10..12 => {
                    db.remove(hashed);
                    model.remove(&key);
                }
                12 => drop(db.purge(rng.below(20) as usize, &mut |_| {})),
                13 => {
                    if matches!(db.get_live(hashed, 0, None), Live::Is(_)) {
                        db.set_ttl(hashed, Ttl::At(99));
                        db.edit(hashed, 1 + rng.below(50) as usize, 0, |value| value[0] = 1);
                    }
                }
                14 => {
                    db.set(hashed, Payload::Slice(b"plain"), Ttl::Clear, 0);
                    model.insert(key.clone(), BTreeSet::new());
                }
                _ => check(&mut db, &model, &key),
            }
            if round % 100 == 0 {
                check_account(&db);
                let seen = std::cell::Cell::new(0);
                db.for_each(|_| seen.set(seen.get() + 1));
                assert_eq!(seen.get(), model.len());
            }
        }
        (0..30).for_each(|tag| assert!(db.invalidate_tag(tag) < 40_000));
        while db.purge(100, &mut |_| {}) > 0 {}
        model.retain(|_, tags| tags.is_empty());
        assert_eq!(db.len(), model.len());
        model.keys().for_each(|key| check(&mut db, &model, key));
        let tags = db.tags.as_ref().expect("there were some");
        assert_eq!((tags.refs, tags.has_dead(), tags.is_worn()), (0, false, false));
        check_account(&db);
    }

    #[test]
    fn what_stands_for_nothing_is_no_value() {
        let hasher = KeyHasher::new((1, 2));
        let mut db = Db::new(hasher, 0);
        let key = Key::new(b"k", hasher.hash(b"k"));
        db.set(key, Payload::Slice(b""), Ttl::At(50), 0);
        db.set_care(key, &Care { is_negative: true, ..Care::default() });
        assert!(matches!(db.get_loaded(key, 50, None), Live::Is(entry) if entry.is_negative()));
        assert!(db.get(key).is_none() && db.len() == 1);
        assert!(matches!(db.get_live(key, 10, None), Live::Expired(_)), "asking for it ends it");
        assert!(matches!(db.get_loaded(key, 10, None), Live::Missing));
    }
}
