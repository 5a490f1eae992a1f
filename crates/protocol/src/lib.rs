//! The Redis protocol without sockets: requests to borrowed arguments ([`parse`]), replies to
//! bytes ([`reply`]), and the rule that maps a key to its hash slot ([`slot`]). Knows no command.
#![forbid(unsafe_code)]

pub mod parse;
pub mod reply;
pub mod slot;
