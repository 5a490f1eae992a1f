//! The settings that the request path needs, parsed.

use super::bytes;
use super::limits::{ClientsBudget, OutputLimit, OutputLimits};
use parking_lot::RwLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64};

/// Request-path settings, parsed.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the parsed value of the setting of its name")]
pub struct Hot {
    pub maxclients: AtomicU64,
    pub timeout_s: AtomicU64,
    pub keepalive_s: AtomicU64,
    pub query_bytes_max: AtomicU64,
    pub bulk_bytes_max: AtomicU64,
    pub memcached_item_bytes_max: AtomicU64,
    pub maxmemory: AtomicU64,
    /// Of `maxmemory-clients`; what is in force is [`Hot::clients_bytes_max`].
    pub clients_bytes: AtomicU64,
    pub clients_percent: AtomicU8,
    /// The number of `maxmemory-policy` among its values.
    pub eviction: AtomicU8,
    pub slowlog_us: AtomicI64,
    /// Of `commandlog-request-larger-than`.
    pub large_request_bytes: AtomicI64,
    /// Of `commandlog-reply-larger-than`.
    pub large_reply_bytes: AtomicI64,
    pub latency_ms: AtomicU64,
    pub busy_ms: AtomicU64,
    pub hll_sparse_bytes_max: AtomicU64,
    pub latency_tracking: AtomicBool,
    pub tracked_keys_max: AtomicU64,
    /// Of `lease-max`.
    pub leases_max: AtomicU64,
    pub lease_waiters_max: AtomicU64,
    pub refresh_ahead_percent: AtomicU64,
    /// Of a GiB for a month, in millionths of a dollar.
    pub memory_price: AtomicU64,
    /// Of a million misses, in millionths of a dollar.
    pub miss_price: AtomicU64,
    pub output_limits: RwLock<OutputLimits>,
    /// Of `partition-log-size`; what is in force is [`Hot::log_bytes`].
    pub log_bytes_max: AtomicU64,
    /// Bits of `notify-keyspace-events`; see [`crate::pubsub`].
    pub notify: AtomicU32,
}

impl Default for Hot {
    fn default() -> Self {
        Hot {
            maxclients: AtomicU64::new(0),
            timeout_s: AtomicU64::new(0),
            keepalive_s: AtomicU64::new(0),
            query_bytes_max: AtomicU64::new(0),
            bulk_bytes_max: AtomicU64::new(0),
            memcached_item_bytes_max: AtomicU64::new(0),
            maxmemory: AtomicU64::new(0),
            clients_bytes: AtomicU64::new(0),
            clients_percent: AtomicU8::new(0),
            eviction: AtomicU8::new(0),
            slowlog_us: AtomicI64::new(-1),
            large_request_bytes: AtomicI64::new(-1),
            large_reply_bytes: AtomicI64::new(-1),
            latency_ms: AtomicU64::new(0),
            busy_ms: AtomicU64::new(0),
            hll_sparse_bytes_max: AtomicU64::new(0),
            latency_tracking: AtomicBool::new(true),
            tracked_keys_max: AtomicU64::new(0),
            leases_max: AtomicU64::new(0),
            lease_waiters_max: AtomicU64::new(0),
            refresh_ahead_percent: AtomicU64::new(0),
            memory_price: AtomicU64::new(0),
            miss_price: AtomicU64::new(0),
            output_limits: RwLock::default(),
            log_bytes_max: AtomicU64::new(0),
            notify: AtomicU32::new(0),
        }
    }
}

impl Hot {
    /// Whether requests or replies are measured, for those that are large to be noted.
    #[inline]
    #[must_use]
    pub fn measures(&self) -> bool {
        self.large_request_bytes.load(Relaxed) >= 0 || self.large_reply_bytes.load(Relaxed) >= 0
    }

    /// Bytes that a partition's log may take: none while nothing reads it.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        let is_read = self.notify.load(Relaxed) != 0;
        if is_read { self.log_bytes_max.load(Relaxed) as usize } else { 0 }
    }

    /// Bytes that the buffers of all clients may take; 0: they have no budget of their own.
    #[inline]
    #[must_use]
    pub fn clients_bytes_max(&self) -> u64 {
        let percent = u64::from(self.clients_percent.load(Relaxed));
        if percent == 0 {
            return self.clients_bytes.load(Relaxed);
        }
        self.maxmemory.load(Relaxed) / 100 * percent
    }

    pub(super) fn set_clients_budget(&self, text: &str) {
        let (bytes, percent) = match ClientsBudget::parse(text).unwrap_or_default() {
            ClientsBudget::None => (0, 0),
            ClientsBudget::Bytes(bytes) => (bytes, 0),
            ClientsBudget::Percent(percent) => (0, percent),
        };
        self.clients_bytes.store(bytes, Relaxed);
        self.clients_percent.store(percent, Relaxed);
    }

    pub(super) fn set_output_limits(&self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut limits = self.output_limits.write();
        for class in words.chunks_exact(4) {
            let limit = OutputLimit {
                hard: bytes(class[1]),
                soft: bytes(class[2]),
                soft_s: class[3].parse().unwrap_or(0),
            };
            match class[0] {
                "normal" => limits.normal = limit,
                "pubsub" => limits.pubsub = limit,
                _ => limits.replica = limit,
            }
        }
    }
}
