//! The commands: one table row each beside its function, one file per family, and all state that
//! commands share. Synchronous, never blocks, never touches a socket.
//!
//! Where a command lives: `ZADD` is of the sorted-set family, so `zset.rs`; the first screen of the
//! file is the family's table. The families are listed in [`table::FAMILIES`].
#![forbid(unsafe_code)]

pub mod acl;
mod acl_command;
mod advice;
pub mod blocking;
pub mod charge;
pub mod client;
pub mod client_memory;
pub mod cluster;
pub mod config;
mod config_command;
pub mod config_file;
pub mod context;
pub mod dispatch;
pub mod error;
pub mod evict;
pub mod hot_keys;
mod hot_keys_command;
pub mod key_sample;
pub mod keyspace;
pub mod leases;
pub mod leftover;
pub mod limit;
pub mod memcached;
pub mod pubsub;
pub mod script_call;
pub mod scripts;
pub mod session;
pub mod shared;
pub mod stats;
pub mod table;
mod tag;
pub mod testing;
pub mod tracking;
pub mod turn;

mod bitfield;
mod bitmap;
pub mod clients;
mod cluster_admin;
mod cluster_command;
mod commandlog;
mod compare;
mod connection;
mod counter;
mod database;
mod debug;
mod dump;
mod expire;
pub mod exposure;
pub mod function;
mod generic;
mod geo;
mod geo_search;
mod geohash;
mod hash;
mod hash_expire;
mod help;
mod hyperloglog;
mod increx;
mod info;
mod introspect;
pub mod latency;
mod lcs;
mod list;
mod list_pop;
mod load;
mod memory;
pub mod migrate;
mod miss_ratio;
pub mod monitor;
mod random;
mod redact;
mod resident;
pub mod sampler;
mod script;
mod server;
mod set;
mod set_algebra;
pub mod slowlog;
mod sort;
mod stream;
mod stream_delete;
mod stream_group;
mod stream_info;
mod stream_read;
mod string;
mod syntax;
mod system;
mod transaction;
mod zset;
mod zset_algebra;
mod zset_pop;
mod zset_range;

pub use context::{Cx, Worker};
pub use error::{Outcome, ReplyError};
pub use session::Session;
pub use shared::Shared;

/// The version of Redis whose commands these are, told to clients that choose by it.
pub const REDIS_VERSION: &str = "7.4.0";
