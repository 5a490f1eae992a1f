//! The databases of a partition. Hot path.

use super::DATABASES;
use hypercache_store::Db;

/// The databases of a partition. Number 0, which most use alone, is in place: the lookup of a key
/// then reads the line after the lock and not one that its address is read from first.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Dbs {
    first: Option<Db>,
    /// Whether another one than the first was ever there.
    has_others: bool,
    others: [Option<Box<Db>>; DATABASES - 1],
}

impl Dbs {
    #[inline]
    pub(super) fn get(&self, i: u8) -> Option<&Db> {
        if i == 0 { self.first.as_ref() } else { self.others[i as usize - 1].as_deref() }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, i: u8) -> Option<&mut Db> {
        if i == 0 { self.first.as_mut() } else { self.others[i as usize - 1].as_deref_mut() }
    }

    #[inline(always)]
    pub(super) fn get_or_insert_with(&mut self, i: u8, make: impl FnOnce() -> Db) -> &mut Db {
        if i == 0 {
            // Not `get_or_insert_with`, which becomes a call.
            if self.first.is_none() {
                self.first = Some(make());
            }
            return self.first.as_mut().expect("it was just made");
        }
        self.has_others = true;
        self.others[i as usize - 1].get_or_insert_with(|| Box::new(make()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &Db)> {
        (0..DATABASES as u8).filter_map(|i| Some((i, self.get(i)?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u8, &mut Db)> {
        // Workers look for what is due in all partitions, mostly in vain: not at 15 more places each.
        let others = if self.has_others { &mut self.others[..] } else { &mut [] };
        let others = others.iter_mut().map(|db| db.as_deref_mut());
        let all = std::iter::once(self.first.as_mut()).chain(others);
        (0..).zip(all).filter_map(|(i, db)| Some((i, db?)))
    }

    #[inline]
    pub(super) fn bytes(&self) -> usize {
        if self.has_others {
            return self.iter().map(|(_, db)| db.bytes()).sum();
        }
        self.first.as_ref().map_or(0, Db::bytes)
    }

    pub(super) fn take(&mut self, i: u8) -> Option<Db> {
        if i == 0 { self.first.take() } else { self.others[i as usize - 1].take().map(|db| *db) }
    }

    pub(super) fn take_if_used(&mut self, i: u8) -> Option<Db> {
        if self.get(i)?.is_empty() { None } else { self.take(i) }
    }

    pub(super) fn put(&mut self, i: u8, db: Option<Db>) {
        if i == 0 {
            self.first = db;
        } else {
            self.has_others = true;
            self.others[i as usize - 1] = db.map(Box::new);
        }
    }

    pub(super) fn swap(&mut self, a: u8, b: u8) {
        let (in_a, in_b) = (self.take(a), self.take(b));
        self.put(a, in_b);
        self.put(b, in_a);
    }
}
