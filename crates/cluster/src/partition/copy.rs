//! A full copy on its way to a learner, without fork and without copy-on-write.
//!
//! The partition is read in hash order, piece by piece, while it changes. The cursor rule decides about
//! each change: of a key before the cursor it is sent on at once, behind the pieces that were read; of a
//! key beyond it, it is not, since the key will be read with the change in it. So each version of a key
//! reaches the learner once. When the cursor is at the end the learner has what the primary has, and goes
//! on with the log from there.
//!
//! What is sent and not acknowledged is kept, up to a bound: pieces wait for room, and a copy whose
//! changes alone go beyond twice the bound starts over when the learner has caught its breath. Memory is
//! three times that bound, and the largest entry in the form in which it travels.

use super::peer::Feeding;
use super::{Core, Cx};
use crate::data::{Cursor, Part};
use crate::ids::{Lsn, Member};
use crate::message::{Copy, CopyPart, Message};
use crate::mutant::Mutant;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct CopySession {
    /// Given when it begins.
    id: u64,
    cursor: Cursor,
    is_at_end: bool,
    unacked: VecDeque<CopyPart>,
    unacked_bytes: usize,
    /// Those of them that are changes of what was copied before.
    record_bytes: usize,
    /// Number of the first part in `unacked`.
    first_seq: u32,
    /// Number of the next part to be sent.
    next_seq: u32,
    progress_us: u64,
    /// What the learner has when it has everything.
    end: Lsn,
}

fn size(part: &CopyPart) -> usize {
    const OVERHEAD: usize = 64;
    match part {
        CopyPart::Chunk(bytes) | CopyPart::Record(bytes) => bytes.len() + OVERHEAD,
        CopyPart::End { .. } => OVERHEAD,
    }
}

fn record_size(part: &CopyPart) -> usize {
    if matches!(part, CopyPart::Record(_)) { size(part) } else { 0 }
}

impl CopySession {
    pub(super) fn needs_id(&self) -> bool {
        self.id == 0
    }

    pub(super) fn begin(&mut self, id: u64, now_us: u64) {
        (self.id, self.progress_us) = (id, now_us);
    }

    pub(super) fn bytes(&self) -> usize {
        self.unacked_bytes
    }

    fn push(&mut self, part: CopyPart) {
        self.unacked_bytes += size(&part);
        self.record_bytes += record_size(&part);
        self.unacked.push_back(part);
    }

    /// Tells the learner of a record, as far as it concerns what was copied. Returns `false` when the copy
    /// must start over.
    pub(super) fn forward(&mut self, body: &Arc<[u8]>, cx: &Cx<'_>) -> bool {
        if self.is_at_end || cx.breaks(Mutant::StreamsNothing) {
            return true;
        }
        let part = if cx.breaks(Mutant::StreamsBeyondCursor) {
            Part::All
        } else {
            cx.data.part_before(body, self.cursor)
        };
        match part {
            Part::Nothing => {}
            Part::All => self.push(CopyPart::Record(Arc::clone(body))),
            Part::Some(bytes) => self.push(CopyPart::Record(Arc::from(bytes))),
            Part::Unclear => return false,
        }
        self.record_bytes <= 2 * cx.settings.copy_window_bytes
    }

    /// Reads on while there is room, and sends what was not sent, or not acknowledged for long.
    pub(super) fn pump(&mut self, to: Member, at: &Feeding, core: &Core, cx: &mut Cx<'_>) {
        if !self.is_at_end && self.unacked_bytes < cx.settings.copy_window_bytes {
            self.read(core, cx);
        }
        if cx.now_us >= self.progress_us + cx.settings.resend_us {
            self.next_seq = self.first_seq;
            self.progress_us = cx.now_us;
        }
        let skip = (self.next_seq - self.first_seq) as usize;
        for part in self.unacked.iter().skip(skip) {
            let copy = Copy {
                partition: core.id,
                from: core.me,
                epoch: core.config.epoch,
                term: at.term,
                lineage: core.lineage,
                session: self.id,
                seq: self.next_seq,
                part: part.clone(),
            };
            self.next_seq += 1;
            cx.send(to.node, Message::Copy(copy));
        }
    }

    /// One piece per turn: a piece is what a partition's lock may be held for. One that a large entry made
    /// large travels in several parts.
    fn read(&mut self, core: &Core, cx: &mut Cx<'_>) {
        let chunk = cx.data.chunk(self.cursor, cx.settings.chunk_bytes);
        for part in chunk.bytes.chunks(cx.settings.copy_window_bytes) {
            self.push(CopyPart::Chunk(Arc::from(part)));
        }
        match chunk.next {
            Some(next) => self.cursor = next,
            None => {
                let tail = core.log.tail();
                self.is_at_end = true;
                self.end = tail.id.lsn;
                self.push(CopyPart::End { tail, commit: core.commit });
            }
        }
    }

    /// The learner waits for part `next_seq`.
    pub(super) fn on_ack(&mut self, session: u64, next_seq: u32, now_us: u64) -> Progress {
        if session != self.id || next_seq > self.next_seq {
            return Progress::Going;
        }
        if next_seq < self.first_seq {
            // It forgot what it had: it follows another, or started over.
            return Progress::Lost;
        }
        while self.first_seq < next_seq {
            let Some(part) = self.unacked.pop_front() else { break };
            self.unacked_bytes -= size(&part);
            self.record_bytes -= record_size(&part);
            self.first_seq += 1;
            self.progress_us = now_us;
        }
        let is_done = self.is_at_end && self.unacked.is_empty();
        if is_done { Progress::Done(self.end) } else { Progress::Going }
    }
}

pub(super) enum Progress {
    Going,
    Lost,
    /// The learner has everything up to here.
    Done(Lsn),
}
