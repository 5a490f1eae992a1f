//! The short way of a plain command on a node of a cluster. Hot path.

use super::{Executor, refuse_busy, refuse_to_serve, run, tell_observers};
use crate::blocking::serve_ready;
use crate::cluster::serving;
use crate::keyspace::Located;
use crate::table::Entry;
use crate::tracking;
use hypercache_protocol::parse::Args;

impl<'a> Executor<'a> {
    /// As [`Self::execute_plain`], if this node serves the key; and what the reply needs is noted.
    #[inline(never)]
    pub(super) fn execute_plain_in_cluster(
        &mut self,
        args: Args<'_>,
        entry: &'static Entry,
        at: &'a Located,
    ) {
        let Some(plane) = self.plane else { return };
        if !std::ptr::eq(self.cx.entry, entry) {
            self.end_run();
            self.cx.entry = entry;
        }
        if !self.cx.worker.has_room() && !self.has_room_for(entry) {
            return;
        }
        let cx = &mut self.cx;
        if !cx.keys.hold_one(at) {
            return refuse_busy(cx, entry);
        }
        if let Err(refusal) = serving::admit_one(cx, plane, entry, (args.get(1), at)) {
            cx.keys.release(None);
            return refuse_to_serve(cx, entry, &refusal.text(plane));
        }
        if cx.keys.is_one_unserved() && !serve_ready(cx) {
            refuse_busy(cx, entry);
            return tracking::tell_stale(cx);
        }
        let failed = run(cx, args);
        serving::note_need_of_one(cx, plane, (args.get(1), at));
        if cx.keys.is_one_alone() {
            cx.keys.release_one();
        } else {
            tell_observers(cx);
        }
        self.run.0 += 1;
        self.run.1 += u32::from(failed);
    }
}
