//! The ordered history of writes of one partition: what a write changed ([`Effect`]), its byte
//! encoding ([`encode`], [`decode`]), how it is applied to a store ([`apply`]), and the bounded log
//! that readers follow ([`Log`]).
//!
//! Effects say *what happened*, not what was asked: deadlines are absolute, choices are resolved.
//! Replaying a log into an empty store gives the same dataset.
#![forbid(unsafe_code)]

mod effect;
mod event;
mod log;
pub mod record;

pub use effect::{Change, DecodeError, Effect, apply, decode, encode};
pub use event::{Class, Event};
pub use log::{Log, Lost};
