//! Counters of one worker. Each is written by its worker only (plain loads and stores, no locked
//! instruction) and summed by whoever reads.

use crate::memcached::ROWS;
use crate::table::table;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Executions.
    pub calls: Counter,
    /// Nanoseconds spent in it.
    pub nanos: Counter,
    /// Refused before it ran: arity, permissions, memory.
    pub rejected: Counter,
    /// Ended with an error.
    pub failed: Counter,
    /// Executions by time taken: bucket `i` counts those below `2^(10 + i)` nanoseconds that no
    /// lower bucket counts.
    pub latency: [Counter; LATENCY_BUCKETS],
}

/// Powers of two that latency is counted in: up to 2^40 ns, 18 minutes.
pub const LATENCY_BUCKETS: usize = 31;
/// The first bucket counts what took less than two to this power nanoseconds.
pub const LATENCY_FIRST_BITS: u32 = 10;

/// Error codes counted apart; replies with further ones count in the total only.
const ERROR_CODES_MAX: usize = 128;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// All counters of one worker, on lines of the cache of their own.
        #[derive(Debug)]
        #[repr(align(64))]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: Counter,)+
            /// Bytes of keyspace and buffers that this worker added less those it freed.
            bytes: AtomicIsize,
            /// Of these, bytes of buffers of its clients.
            client_bytes: AtomicIsize,
            /// Bytes that its interpreter of scripts takes.
            vm_bytes: AtomicU64,
            /// Error replies by code. Only looked at when there is an error.
            errors: Mutex<Vec<(Box<str>, u64)>>,
            /// By [`crate::table::Entry::id`].
            pub commands: Box<[CommandStats]>,
            /// Executions of memcached commands, by the number of the row.
            pub memcached_calls: Box<[Counter]>,
        }

        impl Default for WorkerStats {
            fn default() -> Self {
                let commands = table().entries().iter().map(|_| CommandStats::default());
                WorkerStats {
                    $($name: Counter::default(),)+
                    bytes: AtomicIsize::new(0),
                    client_bytes: AtomicIsize::new(0),
                    vm_bytes: AtomicU64::new(0),
                    errors: Mutex::default(),
                    commands: commands.collect(),
                    memcached_calls: ROWS.iter().map(|_| Counter::default()).collect(),
                }
            }
        }

        impl WorkerStats {
            /// CONFIG RESETSTAT.
            pub fn reset(&self) {
                $(self.$name.reset();)+
                self.errors.lock().clear();
                self.memcached_calls.iter().for_each(Counter::reset);
                for command in &self.commands {
                    command.calls.reset();
                    command.nanos.reset();
                    command.rejected.reset();
                    command.failed.reset();
                    command.latency.iter().for_each(Counter::reset);
                }
            }
        }
    };
}

counters! {
    /// Commands executed.
    commands_processed,
    /// Connections accepted.
    connections_received,
    /// Connections refused because of `maxclients`.
    connections_rejected,
    /// Reads that found the key.
    keyspace_hits,
    /// Reads that did not.
    keyspace_misses,
    /// Keys removed because their time was past.
    expired_keys,
    /// Keys removed because of `maxmemory`.
    evicted_keys,
    /// Clients closed because of `maxmemory-clients`.
    evicted_clients,
    /// Bytes received.
    net_input_bytes,
    /// Bytes sent.
    net_output_bytes,
    /// Error replies.
    error_replies,
    /// Logins that failed.
    acl_denied_logins,
    /// Commands that a user may not run.
    acl_denied_commands,
    /// Commands with a key that a user may not use so.
    acl_denied_keys,
    /// Commands with a channel that a user may not use.
    acl_denied_channels,
    /// Connections closed because their output went beyond its limit.
    output_limit_closed,
    /// Connections closed because their requests went beyond the limit.
    query_limit_closed,
    /// Turns of the event loop.
    loop_turns,
    /// Nanoseconds of expiry work.
    expire_nanos,
    /// Reads from sockets.
    reads,
    /// Writes to sockets.
    writes,
    /// Values that memcached clients read.
    memcached_get_hits,
    /// Values that they asked for and that were not there.
    memcached_get_misses,
    /// Values that they sent to be stored.
    memcached_sets,
    /// Keys that they gave another time to live.
    memcached_touch_hits,
    /// Those that were not there.
    memcached_touch_misses,
    /// Keys that they deleted.
    memcached_delete_hits,
    /// Those that were not there.
    memcached_delete_misses,
    /// Numbers that they added to.
    memcached_incr_hits,
    /// Those that were not there.
    memcached_incr_misses,
    /// Numbers that they subtracted from.
    memcached_decr_hits,
    /// Those that were not there.
    memcached_decr_misses,
    /// Values that they stored because nobody had changed them.
    memcached_cas_hits,
    /// Values that they did not store because somebody had.
    memcached_cas_badval,
    /// Those whose key was not there.
    memcached_cas_misses,
    /// Meta commands.
    memcached_meta,
}

impl WorkerStats {
    /// Notes how many bytes its interpreter of scripts takes.
    pub fn set_vm_bytes(&self, bytes: usize) {
        self.vm_bytes.store(bytes as u64, Relaxed);
    }

    /// Bytes that its interpreter of scripts took after it last ran one.
    #[must_use]
    pub fn vm_bytes(&self) -> u64 {
        self.vm_bytes.load(Relaxed)
    }

    /// Counts an error reply whose text, code first, is `line`.
    #[cold]
    pub fn count_error(&self, line: &[u8]) {
        self.error_replies.add(1);
        let code = line[..line.len().min(32)].split(|&b| b == b' ').next().unwrap_or_default();
        // A text without a code, as Redis counts it.
        let code = if code.len() == line.len().min(32) { b"ERR" } else { code };
        let mut errors = self.errors.lock();
        if let Some((_, count)) = errors.iter_mut().find(|(known, _)| known.as_bytes() == code) {
            *count += 1;
        } else if errors.len() < ERROR_CODES_MAX {
            errors.push((String::from_utf8_lossy(code).into(), 1));
        }
    }

    /// Error replies by code.
    #[must_use]
    pub fn error_codes(&self) -> Vec<(Box<str>, u64)> {
        self.errors.lock().clone()
    }

    /// Counts a read of a key.
    #[inline]
    pub fn count_lookup(&self, hit: bool) {
        if hit { self.keyspace_hits.add(1) } else { self.keyspace_misses.add(1) }
    }

    /// Adds to the bytes in use.
    #[inline]
    pub fn add_bytes(&self, delta: isize) {
        if delta != 0 {
            self.bytes.store(self.bytes.load(Relaxed) + delta, Relaxed);
        }
    }

    /// Adds to the bytes in use, by buffers of clients.
    pub fn add_client_bytes(&self, delta: isize) {
        self.add_bytes(delta);
        self.client_bytes.store(self.client_bytes.load(Relaxed) + delta, Relaxed);
    }

    /// Bytes of buffers of this worker's clients.
    #[must_use]
    pub fn client_bytes(&self) -> u64 {
        self.client_bytes.load(Relaxed).max(0) as u64
    }

    /// This worker's part of the bytes in use; negative when it freed what others added.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> isize {
        self.bytes.load(Relaxed)
    }

    /// Counts executions of a command that took `nanos` each.
    #[inline]
    pub fn count_commands(&self, id: usize, calls: u64, nanos: u64, failed: u64) {
        let stats = &self.commands[id];
        stats.calls.add(calls);
        stats.nanos.add(calls * nanos);
        stats.failed.add(failed);
        let bucket = (u64::BITS - (nanos >> LATENCY_FIRST_BITS).leading_zeros()) as usize;
        stats.latency[bucket.min(LATENCY_BUCKETS - 1)].add(calls);
        self.commands_processed.add(calls);
    }
}
