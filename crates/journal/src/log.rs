//! The bounded in-memory log of one partition.
//!
//! Records are numbered from 1 without gaps. The newest are kept, up to a bound in bytes, in
//! segments of some 16 KiB, so that dropping the oldest is dropping a segment and a record is
//! always one slice. A reader remembers the number it wants next; one that falls behind the bound
//! is told so and must start over from a full copy. With nobody to read, only the number is kept:
//! an append then costs one addition.

use crate::effect::{Effect, decode, encode};
use std::collections::VecDeque;

const SEGMENT_BYTES: usize = 16 * 1024;

struct Segment {
    first: u64,
    /// Where each record ends in `bytes`.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Segment {
    fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    fn record(&self, number: u64) -> &[u8] {
        let i = (number - self.first) as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }
}

/// The reader wants records that are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// See the module's text. First what each write looks at, also when none is kept.
#[derive(Default)]
#[repr(C)]
pub struct Log {
    last: u64,
    bytes_max: usize,
    bytes: usize,
    segments: VecDeque<Segment>,
    /// Records from this number on are kept whatever the bound; 0: none are.
    held_from: u64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log(last {}, {} bytes)", self.last, self.bytes)
    }
}

impl Log {
    /// Number of the newest record; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the bound. 0, the default, keeps nothing.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.trim();
    }

    /// Keeps the records from number `from` on, which somebody is about to read, beyond the bound.
    pub fn hold_from(&mut self, from: u64) {
        self.held_from = from;
        self.trim();
    }

    /// Whether records are kept.
    #[inline]
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.bytes_max > 0
    }

    /// Counts a record that is not kept, because none are.
    #[inline]
    pub fn pass(&mut self) {
        debug_assert!(!self.is_kept());
        self.last += 1;
    }

    /// Appends a record.
    #[inline]
    pub fn append(&mut self, effect: &Effect<'_>) {
        self.last += 1;
        if self.is_kept() {
            self.keep(effect);
        }
    }

    fn keep(&mut self, effect: &Effect<'_>) {
        let is_full = self.segments.back().is_none_or(|s| s.bytes.len() >= SEGMENT_BYTES);
        if is_full {
            let segment = Segment { first: self.last, ends: Vec::new(), bytes: Vec::new() };
            self.segments.push_back(segment);
        }
        let Some(segment) = self.segments.back_mut() else { return };
        let before = segment.size();
        encode(effect, &mut segment.bytes);
        segment.ends.push(segment.bytes.len() as u32);
        self.bytes += segment.size() - before;
        self.trim();
    }

    /// Drops the oldest segments beyond the bound, but neither the newest while records are kept, nor
    /// those that are held.
    fn trim(&mut self) {
        let newest = usize::from(self.is_kept());
        while self.bytes > self.bytes_max && self.segments.len() > newest {
            let next = self.segments.get(1).map_or(self.last + 1, |segment| segment.first);
            if self.is_kept() && (1..next).contains(&self.held_from) {
                return;
            }
            let Some(dropped) = self.segments.pop_front() else { return };
            self.bytes -= dropped.size();
        }
    }

    /// The record with a number, if it is kept.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Effect<'_>> {
        let after = self.segments.partition_point(|s| s.first <= number);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let is_there = number - segment.first < segment.ends.len() as u64;
        is_there.then(|| decode(segment.record(number)).expect("the log holds what `encode` wrote"))
    }

    /// Calls `f` with the records from number `from` to the newest.
    ///
    /// # Errors
    /// [`Lost`] when number `from` is no longer kept.
    pub fn read_from(&self, from: u64, f: &mut dyn FnMut(Effect<'_>)) -> Result<(), Lost> {
        if from > self.last {
            return Ok(());
        }
        let oldest = self.segments.front().map_or(self.last + 1, |s| s.first);
        if from < oldest {
            return Err(Lost);
        }
        for segment in &self.segments {
            let after = segment.first + segment.ends.len() as u64;
            for number in from.max(segment.first)..after {
                f(decode(segment.record(number)).expect("the log holds what `encode` wrote"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Event};

    fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Effect<'a> {
        let change = Change::Set { value, deadline: None };
        Effect { db: 0, key, change, event: Event::Set, is_new: false }
    }

    fn keys_from(log: &Log, from: u64) -> Result<Vec<Vec<u8>>, Lost> {
        let mut keys = Vec::new();
        log.read_from(from, &mut |effect| keys.push(effect.key.to_vec()))?;
        Ok(keys)
    }

    #[test]
    fn readers_get_what_follows_their_number() {
        let mut log = Log::default();
        log.append(&set(b"unread", b""));
        log.set_bytes_max(1 << 20);
        log.append(&set(b"a", b"1"));
        log.append(&set(b"b", b"2"));
        assert_eq!(keys_from(&log, 2), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(keys_from(&log, 3), Ok(vec![b"b".to_vec()]));
        assert_eq!(keys_from(&log, 4), Ok(vec![]));
        assert_eq!(keys_from(&log, 1), Err(Lost));
    }

    #[test]
    fn what_is_held_stays_beyond_the_bound() {
        let mut log = Log::default();
        log.set_bytes_max(1000);
        log.hold_from(1);
        let value = vec![b'v'; 10_000];
        (0..100).for_each(|_| log.append(&set(b"k", &value)));
        assert_eq!(keys_from(&log, 1).map(|k| k.len()), Ok(100));
        log.hold_from(101);
        assert_eq!(keys_from(&log, 1), Err(Lost));
        assert!(log.bytes() <= 1000 + 2 * SEGMENT_BYTES);
    }

    #[test]
    fn the_bound_holds_and_the_newest_stays() {
        let mut log = Log::default();
        log.set_bytes_max(100_000);
        let value = vec![b'v'; 1000];
        for _ in 0..1000 {
            log.append(&set(b"k", &value));
            assert!(log.bytes() <= 100_000 + 2 * SEGMENT_BYTES);
        }
        assert_eq!(keys_from(&log, 1), Err(Lost));
        assert_eq!(keys_from(&log, 1000).map(|k| k.len()), Ok(1));
        log.set_bytes_max(0);
        assert_eq!((log.bytes(), log.last()), (0, 1000));
    }
}
