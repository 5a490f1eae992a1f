//! What the server promises, tested from outside: one module per kind of promise.

#[path = "main/acl.rs"]
mod acl;
#[path = "main/blocking.rs"]
mod blocking;
#[path = "main/bounds.rs"]
mod bounds;
#[path = "main/clients.rs"]
mod clients;
#[path = "main/cluster.rs"]
mod cluster;
#[path = "main/cluster_clients.rs"]
mod cluster_clients;
#[path = "main/compat.rs"]
mod compat;
#[path = "main/dump.rs"]
mod dump;
#[path = "main/generate.rs"]
mod generate;
#[path = "main/growth.rs"]
mod growth;
#[path = "main/interleavings.rs"]
mod interleavings;
#[path = "main/lifecycle.rs"]
mod lifecycle;
#[path = "main/malformed.rs"]
mod malformed;
#[path = "main/memcached.rs"]
mod memcached;
#[path = "main/memcached_compat.rs"]
mod memcached_compat;
#[path = "main/memory.rs"]
mod memory;
#[path = "main/protocol.rs"]
mod protocol;
#[path = "main/script_patterns.rs"]
mod script_patterns;
#[path = "main/scripts.rs"]
mod scripts;
#[path = "main/stampede.rs"]
mod stampede;
#[path = "main/surface.rs"]
mod surface;
#[path = "main/tracking.rs"]
mod tracking;
