//! The protocols without sockets: of Redis, requests to borrowed arguments ([`parse`]), replies to
//! bytes ([`reply`]) and the rule that maps a key to its hash slot ([`slot`]); and that of memcached
//! ([`memcached`]). Knows no command.
#![forbid(unsafe_code)]

pub mod memcached;
pub mod parse;
pub mod reply;
pub mod slot;
