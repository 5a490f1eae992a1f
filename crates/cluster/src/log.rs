//! The records of one copy of a partition that are kept: those that are not committed, and the newest of
//! the others, so that a replica that comes back needs what it missed and no full copy.
//!
//! Each record carries a running checksum over all before it. Two copies that agree on the checksum of a
//! position agree on everything up to it, so one comparison is enough to follow (the log matching of
//! Raft, with bytes in place of terms). About 72 bytes per record beside its body.

use crate::ids::{Lsn, RecordId};
use hypercache_stdx::crc32c::crc32c;
use std::collections::VecDeque;
use std::sync::Arc;

/// The effects of one command, transaction or script on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its identity.
    pub id: RecordId,
    /// Checksum over this and all records before it.
    pub chain: u32,
    /// Effects, opaque here.
    pub body: Arc<[u8]>,
}

/// What a record costs beside its body.
pub const RECORD_OVERHEAD_BYTES: usize = 72;

impl Record {
    fn size(&self) -> usize {
        self.body.len() + RECORD_OVERHEAD_BYTES
    }
}

/// A position in a log with the checksum up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The record there.
    pub id: RecordId,
    /// Checksum over all up to it.
    pub chain: u32,
}

impl Point {
    /// The record that follows with this body.
    #[must_use]
    pub fn followed_by(&self, id: RecordId, body: Arc<[u8]>) -> Record {
        let head = [self.chain.into(), id.epoch.0, id.lsn.0].map(u64::to_le_bytes);
        let chain = crc32c(crc32c(0, head.as_flattened()), &body);
        Record { id, chain, body }
    }
}

/// How a position of the primary compares with this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It is the same here.
    Same,
    /// It is beyond what is here.
    Beyond,
    /// Here is something else.
    Different,
}

#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    at_us: u64,
    /// Bytes of all records up to this one, those included that are no longer kept.
    end: u64,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What comes before the first record that is kept.
    base: Point,
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Bytes of all records so far.
    end: u64,
}

impl Log {
    /// The newest record.
    #[must_use]
    pub fn tail(&self) -> Point {
        self.kept.back().map_or(self.base, |k| Point { id: k.record.id, chain: k.record.chain })
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is at a position; `None` when that is not kept.
    #[must_use]
    pub fn at(&self, lsn: Lsn) -> Option<Point> {
        if lsn == self.base.id.lsn {
            return Some(self.base);
        }
        let kept = self.kept.get(self.place(lsn)?)?;
        Some(Point { id: kept.record.id, chain: kept.record.chain })
    }

    fn place(&self, lsn: Lsn) -> Option<usize> {
        Some(lsn.0.checked_sub(self.base.id.lsn.0 + 1)? as usize)
    }

    /// Compares a position of the primary. What is not kept was committed and is the same everywhere.
    #[must_use]
    pub fn compare(&self, there: Point, committed: Lsn) -> Compared {
        if there.id.lsn > self.tail().id.lsn {
            return Compared::Beyond;
        }
        let is_same = match self.at(there.id.lsn) {
            Some(here) => here == there,
            None => there.id.lsn <= committed,
        };
        if is_same { Compared::Same } else { Compared::Different }
    }

    /// Appends the record after the newest.
    ///
    /// # Panics
    /// When it is another.
    pub fn append(&mut self, record: Record, now_us: u64) {
        assert_eq!(record.id.lsn, self.tail().id.lsn.next(), "a log has no gaps");
        self.bytes += record.size();
        self.end += record.size() as u64;
        self.kept.push_back(Kept { record, at_us: now_us, end: self.end });
    }

    /// Records from a position on, until `bytes_max` are there; at least one if there is one.
    #[must_use]
    pub fn records_from(&self, lsn: Lsn, bytes_max: usize) -> Vec<Record> {
        let Some(start) = self.place(lsn) else { return Vec::new() };
        let mut left = bytes_max;
        let mut taken = Vec::new();
        for kept in self.kept.iter().skip(start) {
            let size = kept.record.size();
            if size > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            taken.push(kept.record.clone());
        }
        taken
    }

    /// Drops the oldest records beyond `bytes_max`, but none after `committed`.
    pub fn trim(&mut self, bytes_max: usize, committed: Lsn) {
        while self.bytes > bytes_max {
            let is_committed = self.kept.front().is_some_and(|k| k.record.id.lsn <= committed);
            if !is_committed {
                return;
            }
            let Some(Kept { record, .. }) = self.kept.pop_front() else { return };
            self.bytes -= record.size();
            self.base = Point { id: record.id, chain: record.chain };
        }
    }

    /// Forgets all records: what is here now ends with `tail`.
    pub fn reset(&mut self, tail: Point) {
        *self = Log { base: tail, ..Log::default() };
    }

    /// The records after a position: their bodies in order.
    pub fn bodies_after(&self, lsn: Lsn) -> impl Iterator<Item = (Lsn, &[u8])> {
        let start = self.place(lsn.next()).unwrap_or(0);
        self.kept.iter().skip(start).map(|k| (k.record.id.lsn, &*k.record.body))
    }

    /// Bytes of the records after a position, and when the first of them was appended. Asked before
    /// every write, so it looks at one record however many there are.
    #[must_use]
    pub fn behind(&self, lsn: Lsn) -> (usize, Option<u64>) {
        let start = self.place(lsn.next()).unwrap_or(0);
        let Some(first) = self.kept.get(start) else { return (0, None) };
        let before = first.end - first.record.size() as u64;
        ((self.end - before) as usize, Some(first.at_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn log(bodies: &[&[u8]]) -> Log {
        let mut log = Log::default();
        for (i, body) in bodies.iter().enumerate() {
            let id = RecordId { epoch: Epoch(1), lsn: Lsn(i as u64 + 1) };
            log.append(log.tail().followed_by(id, Arc::from(*body)), i as u64);
        }
        log
    }

    #[test]
    fn logs_are_compared_at_a_position() {
        let (a, b) = (log(&[b"x", b"y"]), log(&[b"x", b"z", b"y"]));
        let at = |log: &Log, lsn| log.at(Lsn(lsn)).expect("it is kept");
        assert_eq!(a.compare(at(&b, 1), Lsn(0)), Compared::Same);
        assert_eq!(a.compare(at(&b, 2), Lsn(0)), Compared::Different);
        assert_eq!(a.compare(at(&b, 3), Lsn(0)), Compared::Beyond);
        assert_eq!(a.compare(Point::default(), Lsn(0)), Compared::Same);
    }

    #[test]
    fn the_oldest_go_unless_they_are_uncommitted() {
        let mut log = log(&[b"1", b"2", b"3", b"4"]);
        log.trim(0, Lsn(2));
        assert_eq!((log.at(Lsn(1)), log.at(Lsn(2)).is_some()), (None, true));
        assert_eq!(log.records_from(Lsn(3), 1).len(), 1);
        assert_eq!(log.records_from(Lsn(3), 1 << 20).len(), 2);
        assert!(log.records_from(Lsn(2), 1 << 20).is_empty(), "it is no longer there");
        assert_eq!(log.behind(Lsn(3)), (RECORD_OVERHEAD_BYTES + 1, Some(3)));
        assert_eq!(log.bytes(), 2 * (RECORD_OVERHEAD_BYTES + 1));
        let gone = Point { id: RecordId { epoch: Epoch(1), lsn: Lsn(1) }, chain: 0 };
        assert_eq!(log.compare(gone, Lsn(2)), Compared::Same);
        assert_eq!(log.compare(gone, Lsn(0)), Compared::Different);
    }
}
