//! What can go wrong on the client's side, in sentences that say what to do about it.

use std::{fmt, io};

/// Why a client operation failed.
///
/// An error *reply* of the server is not one of these unless the caller asks for it with
/// [`crate::Reply::into_result`]: to a client library `-ERR ...` is an answer like any other.
#[derive(Debug)]
pub enum Error {
    /// Nothing could be reached at the address.
    Connect {
        /// Where the client tried to connect.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Reading or writing failed on an established connection.
    Io(io::Error),
    /// No complete reply arrived within the read timeout; the connection is still usable.
    TimedOut,
    /// The server closed the connection.
    Closed,
    /// The bytes received are not RESP, or exceed the client's limits.
    Protocol(&'static str),
    /// The server answered with an error reply.
    Server(String),
    /// An address or URL is not written in a form the client understands.
    Address(String),
}

impl Error {
    /// Whether the connection is gone, so that only connecting again can help.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Io(_) | Error::Closed | Error::Protocol(_) => true,
            Error::TimedOut | Error::Server(_) | Error::Address(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { address, source } => {
                write!(f, "Could not connect to {address}: {}", Reason(source))?;
                match source.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str(" (is a server running there?)")
                    }
                    io::ErrorKind::NotFound => f.write_str(" (is the path right?)"),
                    _ => Ok(()),
                }
            }
            Error::Io(source) => write!(f, "The connection failed: {}", Reason(source)),
            Error::TimedOut => {
                f.write_str("The server did not answer in time; it may be busy or stopped")
            }
            Error::Closed => f.write_str(
                "Server closed the connection; its log or its limit of clients may say why",
            ),
            Error::Protocol(what) => write!(
                f,
                "The server sent something that is not RESP ({what}); \
                 check that the port belongs to a Redis-compatible server"
            ),
            Error::Server(message) => f.write_str(message),
            Error::Address(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            // A read timeout shows up as either kind, depending on the platform.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::TimedOut,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::Io(source),
        }
    }
}

/// An operating system error without its number, which says nothing to a reader.
struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connection_reads_as_a_sentence() {
        let error = Error::Connect {
            address: "127.0.0.1:1".into(),
            source: io::Error::from_raw_os_error(111),
        };
        assert_eq!(
            error.to_string(),
            "Could not connect to 127.0.0.1:1: Connection refused (is a server running there?)"
        );
    }

    #[test]
    fn only_lost_connections_ask_for_a_new_one() {
        assert!(Error::Closed.is_connection_lost());
        assert!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_connection_lost());
        assert!(!Error::from(io::Error::from(io::ErrorKind::WouldBlock)).is_connection_lost());
        assert!(!Error::Server("ERR".into()).is_connection_lost());
    }
}
