//! A walk over a database in an order that stays the same while it grows and shrinks: how it is copied
//! while it changes.
//!
//! The order is that of the keys' hashes, their low 32 bits read from the last to the first. Linear hashing
//! keeps together what is next to each other in it: a group of buckets is one stretch, and where a table
//! grows a stretch becomes two. So a walk may stop anywhere, and whether it has passed a key is told by
//! comparing two numbers, whatever became of the table since.

use super::Db;
use crate::found::EntryRef;

impl Db {
    /// Where a key is in the order of [`Self::walk`], by its hash.
    #[must_use]
    pub fn place_of(hash: u64) -> u32 {
        (hash as u32).reverse_bits()
    }

    /// Calls `f` with the next entries at `from` or behind it, some 25 of them, and returns where the
    /// next call goes on; `None` after the last. What a tag made gone is left out.
    pub fn walk(&self, from: u32, mut f: impl FnMut(EntryRef<'_>)) -> Option<u32> {
        let hashes = self.table.hasher();
        let (next, is_there) = self.table.next_in_walk(from);
        if is_there {
            self.table.scan(from.reverse_bits(), |entry| {
                if Self::place_of(hashes.hash(entry.key())) >= from && !self.is_invalidated(entry) {
                    f(EntryRef::new(entry));
                }
            });
        }
        next
    }

    /// Has keys stay whose time is past, or go when they are looked at.
    pub fn set_keeps_expired(&mut self, keeps_expired: bool) {
        self.keeps_expired = keeps_expired;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Live, Payload, Ttl};
    use hypercache_stdx::hash::KeyHasher;
    use std::collections::BTreeMap;

    fn key(n: u32) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    fn set(db: &mut Db, n: u32) {
        let (bytes, hasher) = (key(n), KeyHasher::new((1, 2)));
        let key = Key::new(&bytes, hasher.hash(&bytes));
        drop(db.set(key, Payload::Slice(b"v"), Ttl::Clear, 0));
    }

    fn remove(db: &mut Db, n: u32) {
        let (bytes, hasher) = (key(n), KeyHasher::new((1, 2)));
        drop(db.remove(Key::new(&bytes, hasher.hash(&bytes))));
    }

    /// Walks over a table that `change` changes after each step; checks that all keys below `stable`
    /// are met once, and in order.
    fn check(start: u32, stable: u32, mut change: impl FnMut(&mut Db, u32)) {
        let hasher = KeyHasher::new((1, 2));
        let mut db = Db::new(hasher, 0);
        (0..start).for_each(|n| set(&mut db, n));
        let (mut met, mut from, mut step) = (BTreeMap::new(), Some(0), 0);
        while let Some(at) = from {
            from = db.walk(at, |entry| {
                let place = Db::place_of(hasher.hash(entry.key()));
                assert!(place >= at, "it was passed before");
                *met.entry(entry.key().to_vec()).or_insert(0) += 1;
            });
            assert!(from.is_none_or(|next| next > at), "a walk goes on");
            change(&mut db, step);
            step += 1;
        }
        for n in 0..stable {
            assert_eq!(met.get(&key(n)), Some(&1), "key {n}");
        }
    }

    #[test]
    fn a_walk_meets_each_key_once_whatever_the_table_does() {
        check(0, 0, |_, _| ());
        check(1, 1, |_, _| ());
        check(5000, 5000, |_, _| ());
        check(3000, 3000, |db, step| (0..100).for_each(|n| set(db, 10_000 + step * 100 + n)));
        check(20_000, 2000, |db, step| {
            (0..200).for_each(|n| remove(db, 19_999 - (step * 200 + n).min(17_999)));
        });
    }

    #[test]
    fn what_is_anothers_stays_though_its_time_is_past() {
        let hasher = KeyHasher::new((1, 2));
        let mut db = Db::new(hasher, 0);
        let key = Key::new(b"k", hasher.hash(b"k"));
        drop(db.set(key, Payload::Slice(b"v"), Ttl::At(10), 0));
        db.set_keeps_expired(true);
        assert!(matches!(db.get_live(key, 11, None), Live::Missing));
        assert_eq!(db.len(), 1);
        db.set_keeps_expired(false);
        assert!(matches!(db.get_live(key, 11, None), Live::Expired(_)));
    }
}
