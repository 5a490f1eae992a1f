//! Times and bounds of the protocol, in one place.

use crate::mutant::Mutant;

/// See the fields. Times are in microseconds of the node's own monotonic clock.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a node asks for its lease.
    pub heartbeat_us: u64,
    /// How long a node's lease lasts: what a crash costs at most before failover begins.
    pub lease_us: u64,
    /// How much a clock's rate may differ from another's, in thousandths.
    pub drift_permille: u64,
    /// How long a replica may answer reads without hearing from the primary.
    pub read_lease_us: u64,
    /// A replica that makes no progress for so long is proposed for removal.
    pub suspect_us: u64,
    /// What is not acknowledged for so long is sent again.
    pub resend_us: u64,
    /// How often the primary sends something to each replica.
    pub beacon_us: u64,
    /// How long a failover waits for further replicas to say what they have.
    pub seal_wait_us: u64,
    /// How long a sealed replica refuses the old epoch when no new one comes.
    pub seal_hold_us: u64,
    /// How often a proposal that shows no effect is made again.
    pub propose_again_us: u64,
    /// A hand-over that is not ready by then is given up.
    pub handoff_us: u64,
    /// A node that did not run for so long does not blame others for the silence.
    pub own_gap_us: u64,
    /// How often the leader looks for missing copies.
    pub repair_us: u64,
    /// Records in one message, in bytes; one record may be larger.
    pub append_bytes_max: usize,
    /// Records of a partition that are kept for replicas that come back.
    pub log_bytes_max: usize,
    /// Records of a partition that are not committed; beyond it writes are refused.
    pub uncommitted_bytes_max: usize,
    /// Size of a part of a full copy.
    pub chunk_bytes: usize,
    /// Parts of a full copy that are sent and not acknowledged.
    pub copy_window_bytes: usize,
    /// The rule that this run breaks.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat_us: 100_000,
            lease_us: 500_000,
            drift_permille: 20,
            read_lease_us: 100_000,
            suspect_us: 200_000,
            resend_us: 50_000,
            beacon_us: 20_000,
            seal_wait_us: 60_000,
            seal_hold_us: 300_000,
            propose_again_us: 100_000,
            handoff_us: 300_000,
            own_gap_us: 100_000,
            repair_us: 100_000,
            append_bytes_max: 1 << 20,
            log_bytes_max: 1 << 20,
            uncommitted_bytes_max: 4 << 20,
            chunk_bytes: 64 << 10,
            copy_window_bytes: 1 << 20,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl Settings {
    /// Whether this run breaks the rule. Always `false` in a server.
    #[inline]
    #[must_use]
    pub fn breaks(&self, rule: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutant == Some(rule);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = rule;
            false
        }
    }

    fn drift_of(&self, us: u64) -> u64 {
        if self.breaks(Mutant::LeaseIgnoresDrift) { 0 } else { us * self.drift_permille / 1000 }
    }

    /// A span as the side counts it that must stop in time.
    #[must_use]
    pub fn shorter(&self, us: u64) -> u64 {
        us - self.drift_of(us)
    }

    /// A span as the side counts it that must wait long enough.
    #[must_use]
    pub fn longer(&self, us: u64) -> u64 {
        us + self.drift_of(us)
    }
}
