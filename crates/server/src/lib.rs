//! The machine room: sockets, event loops, connections, and the wiring of everything else.
//!
//! [`serve`] runs a server until it is told to stop. `unsafe` lives in `io` only.

mod clustered;
mod connection;
mod io;
mod listen;
mod migrate;
mod serve;
mod standby;
mod worker;

pub use serve::serve;
