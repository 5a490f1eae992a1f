//! Whether a reply may leave now: the look at lease, role and commit between a turn's batch and its flush.

use super::Partition;
use crate::gate::{Need, Verdict};
use crate::ids::{Epoch, Lsn};
use crate::mutant::Mutant;
use crate::settings::Settings;

/// What a judgement is made at.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// This node's monotonic clock, read after everything was executed.
    pub now_us: u64,
    /// Whether the node holds its lease then.
    pub has_lease: bool,
    /// Times and bounds.
    pub settings: &'a Settings,
}

impl Partition {
    /// See the module's text. `need` is about this partition.
    #[must_use]
    pub fn judge(&self, need: &Need, at: Moment<'_>) -> Verdict {
        match *need {
            Need::Nothing => Verdict::Leave,
            Need::Leave { .. } => leave_if(self.has_leave(at.now_us, at.settings)),
            Need::Lease { term, .. } => self.judge_lease(term, at),
            Need::Bound { term, age_us, bytes, .. } => {
                let (bytes_behind, behind_us) = self.behind(at.now_us);
                let is_within = bytes_behind <= bytes && behind_us <= age_us;
                if is_within { self.judge_lease(term, at) } else { self.wait_in(term) }
            }
            Need::Commit { term, lsn, .. } => self.judge_commit(term, lsn, at),
            Need::CommitAndLease { term, lsn, .. } => match self.judge_commit(term, lsn, at) {
                Verdict::Leave => self.judge_lease(term, at),
                other => other,
            },
        }
    }

    fn judge_lease(&self, term: Epoch, at: Moment<'_>) -> Verdict {
        let has_lease = at.has_lease || at.settings.breaks(Mutant::ReadWithoutLease);
        leave_if(has_lease && self.serving_term(at.settings) == Some(term))
    }

    fn judge_commit(&self, term: Epoch, lsn: Lsn, at: Moment<'_>) -> Verdict {
        let is_early = at.settings.breaks(Mutant::AcksBeforeCommit);
        let outlives = at.settings.breaks(Mutant::RepliesOutliveTerm);
        let is_committed = self.commit() >= lsn || is_early;
        if is_committed && (outlives || self.term() == Some(term)) {
            return Verdict::Leave;
        }
        if outlives { Verdict::Wait } else { self.wait_in(term) }
    }

    fn wait_in(&self, term: Epoch) -> Verdict {
        if self.term() == Some(term) { Verdict::Wait } else { Verdict::Unknown }
    }
}

fn leave_if(may_leave: bool) -> Verdict {
    if may_leave { Verdict::Leave } else { Verdict::Unknown }
}
