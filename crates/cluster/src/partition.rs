//! One copy of one partition: what it holds, what it may do, and how it becomes something else.
//!
//! Primary and backups (PacificA; Lin et al. 2008): the primary orders all writes, a write is committed
//! when every member in sync has it, and who is in sync is decided by the metadata log alone. So any
//! member in sync may take over and has every committed record.
//!
//! ```text
//!            configuration names me primary
//!   Idle ------------> Follower <-----------------> Primary
//!    ^                    |   a higher epoch, or
//!    +--------------------+   another primary
//!      configuration without me: everything is dropped
//! ```
//! A follower is a replica in sync or a learner; which of the two only the configuration says, and what
//! it does is the same: it compares its log with the primary's, says up to where they agree, and gets
//! records or a full copy. Roles change by configurations of a higher epoch only, or by hearing of one.

mod copy;
mod dirty;
mod follower;
mod handoff;
mod judge;
mod peer;
mod primary;

pub use judge::Moment;

use crate::data::Data;
use crate::ids::{Epoch, Lsn, Member, NodeId, PartitionId, RecordId};
use crate::log::{Log, Point, Record};
use crate::message::{Message, Seal, SealAck};
use crate::meta::{Command, PartitionConfig};
use crate::mutant::Mutant;
use crate::settings::Settings;
use dirty::Dirty;
use follower::Follower;
use primary::Primary;
use std::sync::Arc;

/// What a step is given, and where its actions go.
pub struct Cx<'a> {
    /// This node's monotonic clock.
    pub now_us: u64,
    /// Whether the node holds its lease.
    pub has_lease: bool,
    /// Times and bounds.
    pub settings: &'a Settings,
    /// The partition's keys.
    pub data: &'a mut dyn Data,
    /// What is to be done.
    pub actions: &'a mut Vec<Action>,
}

impl std::fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cx(at {} us)", self.now_us)
    }
}

impl Cx<'_> {
    fn send(&mut self, to: NodeId, message: Message) {
        self.actions.push(Action::Send { to, message });
    }

    fn breaks(&self, rule: Mutant) -> bool {
        self.settings.breaks(rule)
    }
}

/// What a step asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to a node.
    Send {
        /// The node.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Propose this to the metadata log. Not answered: the next configuration is the answer.
    Propose(Command),
    /// What waits for records up to this may leave.
    Committed(Lsn),
    /// Answer the leader that asked.
    Sealed(SealAck),
    /// The primacy is over: what waits under it is of unknown outcome.
    Demoted,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// Nothing is here.
    Idle,
    /// Replica in sync or learner.
    Follower,
    /// Primary.
    Primary,
}

/// Why a write is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node is the primary.
    NotPrimary,
    /// A hand-over is under way: try again at once.
    HandingOver,
    /// Too much waits to be replicated.
    Overloaded,
}

/// When a read at the primary may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRule {
    /// As soon as the lease was looked at.
    Now,
    /// When this is committed, too.
    After(Lsn),
}

/// What every role has.
#[derive(Debug)]
struct Core {
    id: PartitionId,
    me: Member,
    config: PartitionConfig,
    log: Log,
    commit: Lsn,
    /// The highest epoch that this copy heard of; nothing of a lower one is followed.
    promised: Epoch,
    /// How often everything was declared lost before what is here began.
    lineage: u32,
    /// An epoch whose end was announced, and until when this copy refuses it.
    sealed: Option<(Epoch, u64)>,
    dirty: Dirty,
}

impl Core {
    /// Appends, applies and notes what is touched.
    fn push(&mut self, record: Record, cx: &mut Cx<'_>) {
        cx.data.apply(&record.body);
        self.note(record, cx);
    }

    fn note(&mut self, record: Record, cx: &mut Cx<'_>) {
        let (lsn, dirty) = (record.id.lsn, &mut self.dirty);
        cx.data.touched(&record.body, &mut |key| dirty.touch(key, lsn));
        self.log.append(record, cx.now_us);
        self.log.trim(cx.settings.log_bytes_max, self.commit);
    }

    fn commit_up_to(&mut self, lsn: Lsn) -> bool {
        if lsn <= self.commit {
            return false;
        }
        assert!(lsn <= self.log.tail().id.lsn, "what is committed is here");
        self.commit = lsn;
        self.dirty.clean(lsn);
        true
    }

    /// This copy now ends with `tail`, of which all up to `commit` is known to be committed.
    fn restart_at(&mut self, tail: Point, commit: Lsn) {
        self.log.reset(tail);
        self.commit = commit.min(tail.id.lsn);
        self.dirty = Dirty::all_up_to(tail.id.lsn);
        self.dirty.clean(self.commit);
    }

    fn refuses(&self, epoch: Epoch, cx: &Cx<'_>) -> bool {
        if cx.breaks(Mutant::FollowsOldEpoch) {
            return false;
        }
        let is_sealed = self.sealed.is_some_and(|(sealed, until_us)| {
            epoch <= sealed && (cx.now_us < until_us || cx.breaks(Mutant::SealedForEver))
        });
        epoch < self.promised || is_sealed
    }

    /// Whether the configuration, as far as it is known here, counts on this copy.
    fn is_in_sync(&self) -> bool {
        self.config.is_in_sync(self.me)
    }
}

#[derive(Debug)]
enum Role {
    Idle,
    Follower(Follower),
    Primary(Box<Primary>),
}

/// See the module's text.
#[derive(Debug)]
pub struct Partition {
    core: Core,
    role: Role,
}

impl Partition {
    /// An empty place for a partition on a node.
    #[must_use]
    pub fn new(id: PartitionId, me: Member) -> Self {
        let core = Core {
            id,
            me,
            config: PartitionConfig::default(),
            log: Log::default(),
            commit: Lsn(0),
            promised: Epoch(0),
            lineage: 0,
            sealed: None,
            dirty: Dirty::default(),
        };
        Partition { core, role: Role::Idle }
    }

    /// Takes a configuration into account. They come in order; one may be skipped by a node that was given
    /// the metadata as a whole, and then what this copy was in between is not known.
    pub fn configure(&mut self, config: &PartitionConfig, cx: &mut Cx<'_>) {
        if config.epoch <= self.core.config.epoch {
            return;
        }
        let is_next = config.epoch == self.core.config.epoch.next();
        self.begin_lineage(config.losses, cx);
        let before = std::mem::replace(&mut self.core.config, config.clone());
        if config.epoch < self.core.promised {
            return;
        }
        self.core.promised = config.epoch;
        match &mut self.role {
            Role::Primary(primary) if config.primary == self.core.me && is_next => {
                primary.reconfigure(&before, &mut self.core, cx);
            }
            _ if config.primary == self.core.me => self.activate(cx),
            _ if config.is_on(self.core.me.node) => self.follow(config.primary, cx),
            _ => self.retire(cx),
        }
    }

    /// All copies were lost and that was declared: whatever is here of before is void.
    fn begin_lineage(&mut self, lineage: u32, cx: &mut Cx<'_>) {
        if lineage > self.core.lineage {
            self.core.lineage = lineage;
            self.retire(cx);
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        self.leave_role(cx);
        cx.data.clear();
        self.core.restart_at(Point::default(), Lsn(0));
    }

    /// Ends what the role holds beyond the copy itself.
    fn leave_role(&mut self, cx: &mut Cx<'_>) {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Idle => {}
            Role::Follower(mut follower) => follower.stop_loading(&mut self.core, cx),
            Role::Primary(_) => cx.actions.push(Action::Demoted),
        }
    }

    fn activate(&mut self, cx: &mut Cx<'_>) {
        self.leave_role(cx);
        if cx.breaks(Mutant::TailTakenForClean) {
            self.core.dirty.clean(self.core.log.tail().id.lsn);
        }
        self.role = Role::Primary(Box::new(Primary::new(&self.core, cx)));
        self.tick(cx);
    }

    fn follow(&mut self, primary: Member, cx: &mut Cx<'_>) {
        let follows = matches!(&self.role, Role::Follower(f) if f.source() == primary);
        if !follows {
            self.leave_role(cx);
            self.role = Role::Follower(Follower::new(primary));
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.acknowledge(&self.core, cx);
        }
    }

    /// Takes a message of another node.
    pub fn receive(&mut self, message: Message, cx: &mut Cx<'_>) {
        match message {
            Message::Seal(seal) => self.seal(seal, cx),
            Message::Append(m) => {
                self.prepare_for(m.epoch, m.lineage, m.from, cx);
                if let Role::Follower(follower) = &mut self.role {
                    follower.on_append(m, &mut self.core, cx);
                }
            }
            Message::Copy(m) => {
                self.prepare_for(m.epoch, m.lineage, m.from, cx);
                if let Role::Follower(follower) = &mut self.role {
                    follower.on_copy(m, &mut self.core, cx);
                }
            }
            Message::Ack(m) => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_ack(&m, &mut self.core, cx);
                }
            }
            Message::CopyAck(m) => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_copy_ack(m, &mut self.core, cx);
                }
            }
            // For the leader of the metadata log, not for a copy.
            Message::SealAck(_) => {}
        }
    }

    /// A primary that hears from one of a higher epoch is none any more; and a message may bring the news
    /// of a declared loss before the metadata does.
    fn prepare_for(&mut self, epoch: Epoch, lineage: u32, from: Member, cx: &mut Cx<'_>) {
        let is_newer = epoch > self.core.promised;
        let steps_down = matches!(self.role, Role::Primary(_)) && is_newer;
        let starts_over = lineage > self.core.lineage && is_newer;
        if steps_down || (starts_over && !matches!(self.role, Role::Idle)) {
            self.core.promised = epoch;
            self.begin_lineage(lineage, cx);
            self.leave_role(cx);
            self.role = Role::Follower(Follower::new(from));
        }
    }

    /// Says what is here, and refuses the old epoch for a while, so that what was said stays true. Safety
    /// does not rest on it: any member in sync has all that is committed.
    fn seal(&mut self, seal: Seal, cx: &mut Cx<'_>) {
        let is_old = seal.epoch < self.core.promised;
        let has_copy = match &self.role {
            Role::Follower(follower) => follower.has_copy(),
            Role::Idle | Role::Primary(_) => true,
        };
        if is_old || !has_copy {
            return;
        }
        self.core.sealed = Some((seal.epoch, cx.now_us + cx.settings.seal_hold_us));
        let (from, tail) = (self.core.me, self.core.log.tail().id);
        let ack = SealAck { partition: seal.partition, from, epoch: seal.epoch, tail };
        cx.actions.push(Action::Sealed(ack));
    }

    /// To be called every few milliseconds.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        match &mut self.role {
            Role::Idle => {}
            Role::Follower(follower) => follower.tick(&self.core, cx),
            Role::Primary(primary) => primary.tick(&mut self.core, cx),
        }
    }

    /// To be called at the end of a turn: one message per replica with all records of the turn.
    pub fn flush(&mut self, cx: &mut Cx<'_>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.flush(&mut self.core, cx);
        }
    }

    /// Whether a write may be executed now.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn may_write(&self, settings: &Settings) -> Result<(), Refusal> {
        let Role::Primary(primary) = &self.role else { return Err(Refusal::NotPrimary) };
        if primary.is_handing_over() {
            return Err(Refusal::HandingOver);
        }
        let (bytes, _) = self.core.log.behind(self.core.commit);
        let is_full = bytes >= settings.uncommitted_bytes_max;
        if is_full && !settings.breaks(Mutant::UnboundedBacklog) {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Appends the record of what was executed. Only after [`Partition::may_write`] said yes, under the
    /// same lock.
    ///
    /// # Panics
    /// When this is no primary.
    pub fn append(&mut self, body: Arc<[u8]>, cx: &mut Cx<'_>) -> RecordId {
        let Role::Primary(primary) = &mut self.role else { panic!("only a primary writes") };
        let tail = self.core.log.tail();
        let id = RecordId { epoch: self.core.config.epoch, lsn: tail.id.lsn.next() };
        primary.forward_to_copies(&body, cx);
        self.core.note(tail.followed_by(id, body), cx);
        id
    }

    /// The term of this primary, while it may answer. Reads stop when a successor was proposed.
    #[must_use]
    pub fn serving_term(&self, settings: &Settings) -> Option<Epoch> {
        let Role::Primary(primary) = &self.role else { return None };
        let is_over = primary.has_proposed_successor();
        (!is_over || settings.breaks(Mutant::ServesAfterHandoff)).then(|| primary.term())
    }

    /// The term of this primary, whether it may answer or not.
    #[must_use]
    pub fn term(&self) -> Option<Epoch> {
        let Role::Primary(primary) = &self.role else { return None };
        Some(primary.term())
    }

    /// When the value of a key may be shown by the primary.
    #[must_use]
    pub fn read_rule(&self, key: u64, settings: &Settings) -> ReadRule {
        match self.core.dirty.last_of(key) {
            Some(lsn) if !settings.breaks(Mutant::DirtyReadAtPrimary) => ReadRule::After(lsn),
            _ => ReadRule::Now,
        }
    }

    /// Whether a replica may answer a read of the key on its own.
    #[must_use]
    pub fn may_read_at_replica(&self, key: u64, now_us: u64, settings: &Settings) -> bool {
        let Role::Follower(follower) = &self.role else { return false };
        let is_clean = self.core.dirty.last_of(key).is_none();
        let is_clean = is_clean || settings.breaks(Mutant::ReplicaReadsDirty);
        is_clean && follower.may_answer(&self.core, now_us, settings)
    }

    /// Whether a replica has leave to answer reads.
    #[must_use]
    pub fn has_leave(&self, now_us: u64, settings: &Settings) -> bool {
        let Role::Follower(follower) = &self.role else { return false };
        follower.may_answer(&self.core, now_us, settings)
    }

    /// Bytes of records that are not committed, and the age of the oldest: what `bounded` looks at.
    #[must_use]
    pub fn behind(&self, now_us: u64) -> (usize, u64) {
        let (bytes, since_us) = self.core.log.behind(self.core.commit);
        (bytes, since_us.map_or(0, |since| now_us.saturating_sub(since)))
    }

    /// Starts to hand over to a member in sync. Nothing is promised: the next configuration tells.
    pub fn hand_over(&mut self, to: Member, cx: &mut Cx<'_>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.begin_handoff(to, &self.core, cx);
        }
    }

    /// What this copy is.
    #[must_use]
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Idle => RoleName::Idle,
            Role::Follower(_) => RoleName::Follower,
            Role::Primary(_) => RoleName::Primary,
        }
    }

    /// The configuration that this copy knows.
    #[must_use]
    pub fn config(&self) -> &PartitionConfig {
        &self.core.config
    }

    /// What is known here to be committed.
    #[must_use]
    pub fn commit(&self) -> Lsn {
        self.core.commit
    }

    /// The newest record.
    #[must_use]
    pub fn tail(&self) -> RecordId {
        self.core.log.tail().id
    }

    /// Whether the record is in this copy, as far as that can still be told.
    #[must_use]
    pub fn contains(&self, id: RecordId) -> bool {
        let here = self.core.log.at(id.lsn);
        id.lsn <= self.core.log.tail().id.lsn && here.is_none_or(|point| point.id == id)
    }

    /// Bytes that replication holds: log, and parts of copies on their way.
    #[must_use]
    pub fn replication_bytes(&self) -> usize {
        let copies = match &self.role {
            Role::Primary(primary) => primary.copy_bytes(),
            Role::Idle | Role::Follower(_) => 0,
        };
        self.core.log.bytes() + copies
    }

    /// How many replicas in sync are known to have everything up to a record.
    #[must_use]
    pub fn replicas_with(&self, lsn: Lsn) -> usize {
        let Role::Primary(primary) = &self.role else { return 0 };
        primary.replicas_with(lsn)
    }

    /// Keys whose newest change is not committed.
    #[must_use]
    pub fn dirty_keys(&self) -> usize {
        self.core.dirty.len()
    }
}
