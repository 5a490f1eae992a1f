//! Seeing to it that each partition has the copies it should have, where it should have them: what the
//! planner asks for becomes proposals. One change per partition and round, so that each is decided on what
//! the last one made of it.

use super::{At, ControlAction, Leader};
use crate::meta::Command;
use crate::plan::{Limits, Move, Step, plan};

impl Leader {
    pub(super) fn repair(&self, now_us: u64, at: &At<'_>, out: &mut Vec<ControlAction>) {
        out.extend(self.plan(now_us, at).into_iter().filter_map(|m| action(&m, at)));
    }

    /// What this leader would change next.
    #[must_use]
    pub fn plan(&self, now_us: u64, at: &At<'_>) -> Vec<Move> {
        let runs = |member| self.is_heard(member, now_us, at.settings);
        plan(at.meta, &runs, &|member| self.keeps_up(member, at), Limits::default())
    }
}

fn action(change: &Move, at: &At<'_>) -> Option<ControlAction> {
    let partition = change.partition;
    let epoch = at.meta.partitions.get(&partition)?.epoch;
    Some(ControlAction::Propose(match change.step {
        Step::Add(node) => Command::AddLearner { partition, epoch, node },
        Step::Drop(node) => Command::DropLearner { partition, epoch, node },
        Step::Remove(member) => Command::ShrinkIsr { partition, epoch, member },
        Step::HandOver { from, to } => {
            return Some(ControlAction::HandOver { partition, from, to });
        }
    }))
}
