//! A whole cluster in one thread: the code of `crates/cluster` under virtual time, with faults drawn from
//! one seeded generator and triggered by what the protocol does, and with every promise checked.
//!
//! One seed is one history: [`run::run`] gives the same events, the same trace hash and the same verdict
//! each time. What stands for the world outside is small and wrong on purpose: clocks drift, links delay,
//! lose and hold messages or work in one direction only, processes stop for a while or for good, and the
//! consensus log loses its leader, who does not know.
//!
//! - [`world`]: the queue of events; [`net`], [`node`], [`voters`], [`client`]: who acts.
//! - [`machine`], [`store`]: what a partition holds: registers, or the real store and commands.
//! - [`faults`]: what goes wrong, at random and at the worst moment.
//! - [`checks`]: invariants looked at while it runs; [`wgl`]: whether what clients saw is linearizable.
//! - [`campaign`]: many seeds, and mutants: broken rules that the checks must notice.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod checks;
pub mod client;
pub mod env;
pub mod faults;
pub mod machine;
pub mod net;
pub mod node;
pub mod run;
pub mod store;
pub mod voters;
pub mod wgl;
pub mod world;
