//! In a cluster: replies that wait until they may leave.
//!
//! A worker never waits for other nodes. It executes, and notes with each connection what its replies of
//! this turn need; at the end of the turn what was written is sent to the copies, the clock is read once,
//! and the replies leave whose needs are met. Those of one connection keep their order: what comes later
//! waits behind them, messages of channels and the like among it. When something is committed the worker
//! is woken ([`hypercache_commands::shared::Message::Look`]) and looks again.
//!
//! Replies whose needs can never be met are dropped with their connection: nobody knows what came of the
//! commands. A connection with [`WAITING_MAX`] turns of replies that wait is not read, nor one with as many
//! bytes of them as may be unsent.

use super::Worker;
use crate::io::{Driver, Token};
use hypercache_cluster::gate::{Gate, Need, Verdict};
use hypercache_cluster::partition::Moment;
use hypercache_commands::Shared;
use hypercache_commands::blocking::Waiter;
use hypercache_commands::cluster::host::flush_written;
use hypercache_commands::cluster::plane::Plane;
use hypercache_commands::cluster::{serving, wait};
use hypercache_protocol::reply::Output;
use hypercache_stdx::clock;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Needs of a connection that wait at most before it is read no further.
const WAITING_MAX: usize = 4096;
/// How often is looked at what nobody tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What waits of one connection.
#[derive(Debug, Default)]
struct Waiting {
    /// What the replies of this turn need.
    needs: Vec<Need>,
    /// Replies of earlier turns.
    gate: Gate<Option<Box<Output>>>,
    /// Bytes of these.
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gates {
    plane: Option<Arc<Plane>>,
    waiting: HashMap<Token, Waiting>,
    /// Clients in WAIT.
    asking: Vec<Arc<Waiter>>,
    /// Whether this worker is told of what is committed.
    is_listening: bool,
    /// Whether something is to be tried again soon that nobody tells of.
    is_behind: bool,
}

/// What is looked at at the end of a turn.
struct Look<'a> {
    shared: &'a Shared,
    plane: &'a Plane,
    now_us: u64,
    /// Whether a partition was held that had to be asked.
    was_held: Cell<bool>,
}

impl Look<'_> {
    fn judge(&self, need: &Need) -> Verdict {
        self.plane.judge(need, self.now_us).unwrap_or_else(|| self.judge_locked(need))
    }

    #[cold]
    fn judge_locked(&self, need: &Need) -> Verdict {
        let Some(partition) = need.partition() else { return Verdict::Leave };
        let Some(shard) = self.shared.keyspace.try_lock(partition.0) else {
            self.was_held.set(true);
            return Verdict::Wait;
        };
        let (now_us, has_lease) = (self.now_us, self.plane.has_lease(self.now_us));
        shard.judge(need, Moment { now_us, has_lease, settings: &self.plane.settings })
    }
}

impl Gates {
    pub(super) fn new(shared: &Shared) -> Self {
        Gates {
            plane: shared.cluster.plane().map(Arc::clone),
            waiting: HashMap::new(),
            asking: Vec::new(),
            is_listening: false,
            is_behind: false,
        }
    }

    /// Whether the node is one of a cluster.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.plane.is_some()
    }

    /// Whether no reply waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of a connection's replies that wait.
    #[inline]
    pub(super) fn bytes(&self, token: Token) -> usize {
        if self.waiting.is_empty() {
            return 0;
        }
        self.waiting.get(&token).map_or(0, |waiting| waiting.bytes)
    }

    /// Whether so much of a connection waits that it is not to be read.
    #[inline]
    pub(super) fn is_full(&self, token: Token) -> bool {
        !self.waiting.is_empty()
            && self.waiting.get(&token).is_some_and(|waiting| waiting.gate.len() >= WAITING_MAX)
    }

    /// Notes what the replies need that were just written to a connection's output.
    #[inline]
    pub(super) fn add(&mut self, token: Token, needs: &mut Vec<Need>) {
        if needs.is_empty() {
            return;
        }
        let all = &mut self.waiting.entry(token).or_default().needs;
        needs.drain(..).for_each(|need| serving::add(all, need));
    }

    /// Looks after a client in WAIT.
    pub(super) fn watch(&mut self, waiter: &Arc<Waiter>) {
        if waiter.asked().is_some() {
            self.asking.push(Arc::clone(waiter));
        }
    }

    pub(super) fn remove(&mut self, token: Token) {
        self.waiting.remove(&token);
    }

    pub(super) fn begin_look(&self, worker: usize) {
        self.plane.iter().for_each(|plane| plane.begin_look(worker));
    }

    /// How long the next turn may be waited for, if there is something that nobody tells of.
    pub(super) fn wait_time(&self) -> Option<Duration> {
        let plane = self.plane.as_ref()?;
        if plane.has_written() && !self.is_behind {
            return Some(Duration::ZERO);
        }
        (self.is_behind || !self.asking.is_empty()).then_some(LOOK_AGAIN)
    }
}

impl<D: Driver> Worker<D> {
    /// Sends what was written to the copies, and decides which replies may leave.
    pub(super) fn end_turn_in_cluster(&mut self) {
        let Some(plane) = self.gates.plane.as_ref().map(Arc::clone) else { return };
        self.gates.is_behind = flush_written(&self.shared, &plane);
        let asking = std::mem::take(&mut self.gates.asking);
        let still = asking.into_iter().filter(|waiter| wait::look(&self.shared, waiter));
        self.gates.asking = still.collect();
        self.close_gates(&plane);
        self.release(&plane);
        let must_listen = !self.gates.waiting.is_empty() || !self.gates.asking.is_empty();
        if must_listen != self.gates.is_listening {
            self.gates.is_listening = must_listen;
            plane.note_waiting(self.commands.id, must_listen);
            // Something may have been committed before that was noted.
            self.release(&plane);
        }
    }

    /// Has the output of this turn wait, of each connection where it must not leave at once.
    fn close_gates(&mut self, plane: &Plane) {
        let Worker { shared, gates, connections, dirty, .. } = self;
        let (now_us, was_held) = (clock::boot_us(), Cell::new(false));
        let look = Look { shared, plane, now_us, was_held };
        for token in &*dirty {
            let Some(waiting) = gates.waiting.get_mut(token) else { continue };
            let may_leave = waiting.gate.is_empty()
                && waiting.needs.iter().all(|need| look.judge(need) == Verdict::Leave);
            if may_leave {
                gates.waiting.remove(token);
                continue;
            }
            let out = connections.get(*token).and_then(|connection| connection.out.take());
            waiting.bytes += out.as_ref().map_or(0, |out| out.len());
            for need in waiting.needs.drain(..) {
                waiting.gate.push(need, None);
            }
            if out.is_some() {
                waiting.gate.push(Need::Nothing, out);
            }
        }
    }

    /// Has replies leave whose needs are met, and connections go where they never will be.
    fn release(&mut self, plane: &Plane) {
        if self.gates.waiting.is_empty() {
            return;
        }
        let (now_us, was_held) = (clock::boot_us(), Cell::new(false));
        let shared = Arc::clone(&self.shared);
        let look = Look { shared: &shared, plane, now_us, was_held };
        let (mut ready, mut closed) = (Vec::new(), Vec::new());
        self.gates.waiting.retain(|token, waiting| {
            let before = waiting.gate.len();
            let bytes = &mut waiting.bytes;
            let released = waiting.gate.release(&mut |need| look.judge(need), &mut |out| {
                if let Some(out) = out {
                    *bytes -= out.len();
                    ready.push((*token, out));
                }
            });
            if released.is_err() {
                closed.push(*token);
                return false;
            }
            debug_assert!(waiting.gate.len() <= before, "replies leave");
            !waiting.gate.is_empty()
        });
        for (token, out) in ready {
            let Some(connection) = self.connections.get(token) else { continue };
            match &mut connection.out {
                Some(before) => before.append(&out),
                None => connection.out = Some(out),
            }
            self.mark_dirty(token);
        }
        for token in closed {
            if let Some(connection) = self.connections.get(token) {
                // What was written in this turn is of commands behind those.
                connection.out = None;
            }
            self.end(token);
        }
        self.gates.is_behind |= look.was_held.get();
    }
}
