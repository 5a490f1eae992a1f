//! Keys whose newest change is not committed yet: what may not be shown, since failover could undo it.
//!
//! Only changes in flight are in here, so it is small, and empty when everything is committed. About 40
//! bytes per change. A copy that was just loaded does not know which keys its uncommitted records
//! touched; until they are committed all keys count.

use crate::ids::Lsn;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Dirty {
    newest: BTreeMap<u64, Lsn>,
    order: VecDeque<(Lsn, u64)>,
    all_up_to: Lsn,
}

impl Dirty {
    pub(super) fn all_up_to(lsn: Lsn) -> Self {
        Dirty { all_up_to: lsn, ..Dirty::default() }
    }

    pub(super) fn touch(&mut self, key: u64, lsn: Lsn) {
        self.newest.insert(key, lsn);
        self.order.push_back((lsn, key));
    }

    /// Everything up to `lsn` is committed.
    pub(super) fn clean(&mut self, lsn: Lsn) {
        if self.all_up_to <= lsn {
            self.all_up_to = Lsn(0);
        }
        while let Some((at, key)) = self.order.front().copied() {
            if at > lsn {
                return;
            }
            self.order.pop_front();
            if self.newest.get(&key) == Some(&at) {
                self.newest.remove(&key);
            }
        }
    }

    /// The record to wait for before the key's value may be shown.
    pub(super) fn last_of(&self, key: u64) -> Option<Lsn> {
        let of_all = (self.all_up_to > Lsn(0)).then_some(self.all_up_to);
        self.newest.get(&key).copied().max(of_all)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_clean_when_its_newest_change_is_committed() {
        let mut dirty = Dirty::default();
        dirty.touch(7, Lsn(1));
        dirty.touch(8, Lsn(2));
        dirty.touch(7, Lsn(3));
        dirty.clean(Lsn(2));
        assert_eq!((dirty.last_of(7), dirty.last_of(8)), (Some(Lsn(3)), None));
        dirty.clean(Lsn(3));
        assert_eq!((dirty.last_of(7), dirty.len()), (None, 0));
    }

    #[test]
    fn after_a_copy_all_keys_wait() {
        let mut dirty = Dirty::all_up_to(Lsn(5));
        dirty.clean(Lsn(4));
        assert_eq!(dirty.last_of(1), Some(Lsn(5)));
        dirty.clean(Lsn(5));
        assert_eq!(dirty.last_of(1), None);
    }
}
