//! Rules that a simulation may break, one at a time, to show that it would notice.
//!
//! A test suite that never saw a broken protocol proves little: each rule of the protocol has a mutant
//! that leaves it out, and the simulator must find each within a budget of seeds. In a build without the
//! feature `mutants` the question "is this rule broken" is the constant `false`.

macro_rules! mutants {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A rule left out. The text says what the broken code does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[$doc])+ $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];
        }
    };
}

mutants! {
    /// Reads leave the primary without a look at its lease.
    ReadWithoutLease,
    /// The holder counts its lease from when the grant came, not from when it asked.
    LeaseFromArrival,
    /// A lease counts although its holder lags behind the metadata it was granted under.
    LeaseIgnoresMeta,
    /// A leader grants without asking a quorum whether it still leads.
    GrantUnconfirmed,
    /// A new leader takes nodes it has not heard of for unleased.
    LeaderForgetsLeases,
    /// A leader grants a lease to a node while it is taking a partition from it.
    GrantWhileCondemned,
    /// The granter counts leases half as long as the holder does.
    GranterCountsShort,
    /// Neither side allows for clocks of different rates.
    LeaseIgnoresDrift,
    /// A process that starts again keeps the generation of the one before it.
    RestartKeepsGeneration,
    /// A start of a process that registers late is taken for the newest.
    RegistersInAnyOrder,
    /// Failover picks any live node, in sync or not.
    FailoverToAny,
    /// Shrinking below `min_sync` is let through for live members.
    ShrinkBelowMinSync,
    /// Metadata commands are applied whatever epoch they expected.
    ApplyIgnoresEpoch,
    /// A member of an earlier generation is let into the set in sync.
    AddDeadGeneration,
    /// Loss is declared while a member in sync still lives.
    LossDeclaredEarly,
    /// The primary stops counting a slow replica on its own.
    DropsReplicaAlone,
    /// A joiner is proposed without being counted first.
    JoinerNotCounted,
    /// A joiner stops being counted after a while, although its joining may still be agreed.
    PendingTimesOut,
    /// A record counts as committed when any replica has it.
    CommitOnAny,
    /// Records commit although fewer than `min_sync` copies are in sync.
    CommitBelowMinSync,
    /// Commits go on at once although a removed replica may still answer reads.
    NoWaitAfterRemoval,
    /// A new primary commits at once although replicas of the one before may still answer reads.
    NoWaitOnActivation,
    /// The primary answers with values that are not committed.
    DirtyReadAtPrimary,
    /// A new primary takes all it has for committed.
    TailTakenForClean,
    /// The old primary answers reads after it proposed its successor.
    ServesAfterHandoff,
    /// A sync write is acknowledged before it is committed.
    AcksBeforeCommit,
    /// Replies that wait survive the end of the primacy they were given under.
    RepliesOutliveTerm,
    /// A primary without a lease of its own lets replicas answer reads.
    ReadLeaseWithoutLease,
    /// Learners are given leave to answer reads.
    ReadLeaseForLearners,
    /// A replica acknowledges all it has, compared with the primary's log or not.
    AcksUnverified,
    /// What a node acknowledged before it was removed counts when it is back.
    OldAcksCount,
    /// A replica follows a primary of an earlier epoch.
    FollowsOldEpoch,
    /// A replica answers reads of keys that are not committed.
    ReplicaReadsDirty,
    /// A replica answers reads without leave.
    ReplicaReadsWithoutLease,
    /// A copy that must start over drops what it has first, although it is counted as in sync.
    DropsBeforeCopy,
    /// A replica takes records without comparing what is before them.
    SkipsCompare,
    /// During a copy all records are sent on, also those of keys that are yet to be copied.
    StreamsBeyondCursor,
    /// During a copy no record is sent on.
    StreamsNothing,
    /// A learner takes the parts of a copy in whatever order they come.
    CopyIgnoresGaps,
    /// The primary takes writes whatever amount of records waits to be replicated.
    UnboundedBacklog,
    /// A copy in sync that differs waits to be removed instead of being copied anew.
    DifferingNeverCopied,
    /// A replica that was sealed for a failover stays so.
    SealedForEver,
}
