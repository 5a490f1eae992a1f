//! A small blocking RESP client for the command line, the load generator and the tests.
//!
//! One [`Connection`] is one socket, one output buffer and one [`Decoder`]; there is no pool, no
//! thread and no retry in it, so that a caller can tell exactly what went over the wire and
//! when. A [`Cluster`] is several of them and knows who has which slot. The crate shares no code
//! with the server's own parser and encoder on purpose: a mistake made in one of them must not be
//! invisible to the other.
//!
//! ```no_run
//! # fn main() -> Result<(), hypercache_client::Error> {
//! use hypercache_client::{Address, Connection};
//! let address: Address = "127.0.0.1:6379".parse()?;
//! let mut connection = Connection::connect(&address, std::time::Duration::from_secs(5))?;
//! connection.command(&["SET", "greeting", "hello"])?.into_result()?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod address;
mod cluster;
mod connection;
mod decode;
mod error;
mod reply;
mod request;

pub use address::{Address, Endpoint};
pub use cluster::{Cluster, Failure, Patience};
pub use connection::{Connection, Stream};
pub use decode::{Decoder, Limits};
pub use error::Error;
pub use reply::Reply;
pub use request::encode_command;
