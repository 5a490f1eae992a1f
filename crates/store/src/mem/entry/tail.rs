//! What follows the value of few entries: the mark of the memcached protocol and the care, which says
//! how a value that was loaded from elsewhere may be used.
//!
//! ```text
//! tags u8 | [client_flags u32] | [cas u64] | [care…]     see crate::mark and crate::care
//! ```
//! An entry whose care decides whether the key is there has room for a deadline, in which a bit says so.

use super::{
    DEPENDS, EXPIRY, EXTERNAL, EntryPtr, HEADER, INLINE_MAX, KIND, MARKED, OwnedEntry, Shape,
};
use crate::care::{self, CareBytes};
use crate::mark::{self, Mark};
use crate::mem::entry::Blob;
use std::sync::Arc;

impl EntryPtr {
    #[inline]
    fn is_marked(self) -> bool {
        self.flags() & MARKED != 0
    }

    #[inline]
    fn mark_offset(self) -> usize {
        self.value_offset() + self.inline_len()
    }

    /// Bytes of the tail.
    #[inline]
    pub(super) fn mark_len(self) -> usize {
        if self.is_marked() { self.tail_len() } else { 0 }
    }

    fn tail_len(self) -> usize {
        let [tags] = self.read::<1>(self.mark_offset());
        mark::len_of(tags) + self.care_len(tags)
    }

    /// Bytes of the care behind a mark that begins with `tags`.
    fn care_len(self, tags: u8) -> usize {
        if !mark::has_care(tags) {
            return 0;
        }
        let [count] = self.read::<1>(self.mark_offset() + mark::len_of(tags) + care::COUNT_OFFSET);
        care::len_of(count)
    }

    /// What the memcached protocol keeps of it.
    #[inline]
    pub(crate) fn mark(self) -> Mark {
        if !self.is_marked() {
            return Mark::NONE;
        }
        Mark::decode(self.bytes(self.mark_offset(), self.mark_len()))
    }

    /// The care as it is kept; empty if there is none.
    #[inline]
    pub(crate) fn care<'a>(self) -> &'a [u8] {
        if self.is_marked() { self.care_behind_mark() } else { &[] }
    }

    fn care_behind_mark<'a>(self) -> &'a [u8] {
        let [tags] = self.read::<1>(self.mark_offset());
        self.bytes(self.mark_offset() + mark::len_of(tags), self.care_len(tags))
    }

    /// Changes the mark if the entry's size class stays the same.
    pub(crate) fn set_mark(self, mark: Mark) -> bool {
        let care = CareBytes::from_slice(self.care());
        self.set_tail(mark, &care)
    }

    /// Changes mark and care if the entry has room for them.
    pub(crate) fn set_tail(self, mark: Mark, care: &[u8]) -> bool {
        let shape = self.shape();
        let new = Shape { mark_len: tail_len(mark, care), ..shape };
        let fits = shape.class() == new.class() && (shape.expiry || !care::depends(care));
        if fits {
            self.write_tail(mark, care);
        }
        fits
    }

    /// Writes a tail that the allocation has room for.
    fn write_tail(self, mark: Mark, care: &[u8]) {
        let mut bytes = mark.encode();
        if !care.is_empty() {
            bytes[0] |= mark::HAS_CARE;
        }
        let (len, at) = (tail_len(mark, care), self.mark_offset());
        self.write(at, &bytes[..len - care.len()]);
        self.write(at + len - care.len(), care);
        self.set_flag(MARKED, len > 0);
        if self.has_deadline_slot() {
            let depends = if care::depends(care) { DEPENDS } else { 0 };
            self.write(HEADER, &(self.kept_deadline() & !DEPENDS | depends).to_ne_bytes());
        }
    }

    /// Writes a mark that the allocation has room for, where there is no care.
    #[inline]
    fn write_mark(self, mark: Mark) {
        let len = mark.len();
        if len > 0 {
            self.write(self.mark_offset(), &mark.encode()[..len]);
        }
        self.set_flag(MARKED, len > 0);
    }

    /// Writes the mark of a new entry, whose allocation has room for it.
    #[inline]
    pub(super) fn write_new_mark(self, mark: Mark) {
        if mark.len() > 0 {
            self.write_mark(mark);
        }
    }

    /// Overwrites value and mark, for which there is room; not if there is care, which belongs to the
    /// old value.
    #[inline]
    pub(super) fn overwrite_marked(self, value: &[u8], mark: Mark) -> bool {
        debug_assert!(value.len() <= INLINE_MAX && self.flags() & (EXTERNAL | KIND) == 0);
        if !self.care().is_empty() {
            return false;
        }
        self.write(4, &(value.len() as u16).to_ne_bytes());
        self.write(self.value_offset(), value);
        self.write_mark(mark);
        true
    }
}

/// Bytes of a tail: a care needs the tags of a mark before it.
fn tail_len(mark: Mark, care: &[u8]) -> usize {
    if care.is_empty() { mark.len() } else { mark.len().max(1) + care.len() }
}

impl OwnedEntry {
    /// A string with its whole tail and with room for a deadline: `blob`, or `inline` without one.
    pub(crate) fn with_tail(
        key: &[u8],
        inline: &[u8],
        blob: Option<Arc<Blob>>,
        mark: Mark,
        care: &[u8],
    ) -> Self {
        assert!(inline.len() <= INLINE_MAX);
        let len = if blob.is_some() { size_of::<usize>() } else { inline.len() };
        let entry = EntryPtr::allocate(Shape::new(key.len(), len, true, tail_len(mark, care)), key);
        debug_assert!(entry.flags() == EXPIRY, "it has nothing yet but room for a deadline");
        match blob {
            Some(blob) => {
                entry.write(entry.value_offset(), &[0; 8]);
                entry.put_blob(blob);
            }
            None => entry.write(entry.value_offset(), inline),
        }
        entry.write_tail(mark, care);
        OwnedEntry(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::care::Head;

    #[test]
    fn a_care_stays_with_the_mark_and_goes_with_the_value() {
        let head = Head { stale_ms: 5, cost_us: 6, is_negative: false };
        let care = head.encode(&[7, 8]);
        for blob in [None, Some(Arc::new(vec![1; INLINE_MAX + 1]))] {
            let owned = OwnedEntry::with_tail(b"key", b"value", blob, Mark::NONE, &care);
            let e = owned.entry();
            assert!(e.depends() && e.may_be_over(0), "its tags decide");
            assert_eq!((e.key(), e.deadline(), e.mark()), (&b"key"[..], None, Mark::NONE));
            e.set_deadline(Some(1000));
            assert!(e.depends() && e.deadline() == Some(1000));
            assert_eq!(e.care(), &care[..]);
            if e.set_mark(Mark::of_flags(9)) {
                assert_eq!((e.mark(), e.care()), (Mark::of_flags(9), &care[..]));
            }
            assert!(!e.overwrite(b"other", Mark::NONE), "a new value has no care");
        }
        let owned = OwnedEntry::with_tail(b"key", b"value", None, Mark::NONE, &head.encode(&[]));
        assert!(!owned.entry().depends() && !owned.entry().may_be_over(i64::MAX as u64));
    }
}
