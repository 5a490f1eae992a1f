//! What fuzzing runs, one function per target: bytes in, a panic when a promise is broken.
//!
//! The functions live here rather than beside libFuzzer so that an ordinary test can replay the
//! corpus with them.

mod acl_rules;
mod command_sequence;
mod config_file;
mod dictionary;
mod frames;
mod memcached_parser;
mod resp_parser;
mod restore_payload;

pub use acl_rules::acl_rules;
pub use command_sequence::command_sequence;
pub use config_file::config_file;
pub use dictionary::dictionary;
pub use memcached_parser::memcached_parser;
pub use resp_parser::resp_parser;
pub use restore_payload::restore_payload;

/// How many replies of RESP2 the bytes are, if they are whole ones.
#[must_use]
pub fn count_replies(bytes: &[u8]) -> Option<usize> {
    let found = frames::frames(bytes, hypercache_protocol::reply::Version::V2);
    found.ok().map(|found| found.replies)
}

/// A target: it panics when the bytes break a promise.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of their corpus and dictionary.
pub const TARGETS: &[(&str, Target)] = &[
    ("resp_parser", resp_parser),
    ("memcached_parser", memcached_parser),
    ("command_sequence", command_sequence),
    ("config_file", config_file),
    ("acl_rules", acl_rules),
    ("restore_payload", restore_payload),
];
