//! How much output may wait for a client.

/// When a client's output is too much: hard bytes, soft bytes, seconds above soft; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Close at once above this many bytes.
    pub hard: u64,
    /// Close above this many bytes …
    pub soft: u64,
    /// … for this many seconds.
    pub soft_s: u64,
}

/// The limits of each class of client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    /// Ordinary clients.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients in subscribe mode.
    pub pubsub: OutputLimit,
}
