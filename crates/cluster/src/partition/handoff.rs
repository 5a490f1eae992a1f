//! Handing over to a member in sync, planned: a pause of about one round trip and one commit of the
//! metadata log.
//!
//! First new writes are held back until everything is committed, the successor has it and no replica
//! that was removed may still answer reads. Then the successor is proposed, and from that moment nothing
//! is answered: it may be primary already. What came of the proposal only a configuration of a higher
//! epoch tells. If none comes, the old primary proposes itself anew ([`Command::Reaffirm`]): of the two
//! proposals one takes effect, and either is an answer.

use super::primary::Primary;
use super::{Core, Cx};
use crate::ids::Member;
use crate::meta::Command;

#[derive(Clone, Copy, Debug)]
pub(super) struct Handoff {
    to: Member,
    since_us: u64,
    proposed_us: Option<u64>,
}

impl Primary {
    pub(super) fn is_handing_over(&self) -> bool {
        self.handoff.is_some()
    }

    pub(super) fn has_proposed_successor(&self) -> bool {
        self.handoff.is_some_and(|handoff| handoff.proposed_us.is_some())
    }

    pub(super) fn begin_handoff(&mut self, to: Member, core: &Core, cx: &mut Cx<'_>) {
        let may_begin = to != core.me && core.config.is_in_sync(to) && self.handoff.is_none();
        if may_begin {
            self.handoff = Some(Handoff { to, since_us: cx.now_us, proposed_us: None });
            self.step_handoff(core, cx);
        }
    }

    pub(super) fn step_handoff(&mut self, core: &Core, cx: &mut Cx<'_>) {
        let Some(mut handoff) = self.handoff else { return };
        let (partition, epoch) = (core.id, core.config.epoch);
        let is_late = cx.now_us >= handoff.since_us + cx.settings.handoff_us;
        if let Some(proposed_us) = handoff.proposed_us {
            if cx.now_us >= proposed_us + cx.settings.propose_again_us {
                handoff.proposed_us = Some(cx.now_us);
                let again = Command::SetPrimary { partition, epoch, to: handoff.to };
                let cancel = Command::Reaffirm { partition, epoch };
                cx.propose(if is_late { cancel } else { again });
            }
        } else if self.may_leave(core, cx) {
            handoff.proposed_us = Some(cx.now_us);
            cx.propose(Command::SetPrimary { partition, epoch, to: handoff.to });
        } else if is_late {
            self.handoff = None;
            return;
        }
        self.handoff = Some(handoff);
    }

    fn may_leave(&self, core: &Core, cx: &Cx<'_>) -> bool {
        let has_waited = cx.now_us >= self.no_commit_before_us();
        core.commit == core.log.tail().id.lsn && has_waited
    }
}
