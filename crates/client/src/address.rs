//! Where a server is: a TCP host and port or the path of a Unix socket, and `redis://` URLs.

use crate::Error;
use std::{fmt, path::PathBuf, str::FromStr};

/// The port assumed when none is written.
const DEFAULT_PORT: u16 = 6379;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// Name or IP address; IPv6 without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address `host:port`.
    pub fn tcp(host: impl Into<String>, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    /// Whether the server can only be on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `host`, `host:port`, `[ipv6]:port`, `unix:/path` or `/path`.
    fn from_str(text: &str) -> Result<Address, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        if text.starts_with('/') {
            return Ok(Address::Unix(PathBuf::from(text)));
        }
        parse_host_and_port(text)
    }
}

/// Reads `host`, `host:port` or `[ipv6]:port`.
fn parse_host_and_port(text: &str) -> Result<Address, Error> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(Error::Address(format!("'{text}' has no closing bracket")));
        };
        let port = match after.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if after.is_empty() => DEFAULT_PORT,
            None => return Err(Error::Address(format!("'{text}' is not HOST:PORT"))),
        };
        return non_empty_host(host, port);
    }
    // More than one colon without brackets can only be a bare IPv6 address.
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => non_empty_host(text, DEFAULT_PORT),
        Some((host, port)) => non_empty_host(host, parse_port(port)?),
        None => non_empty_host(text, DEFAULT_PORT),
    }
}

fn non_empty_host(host: &str, port: u16) -> Result<Address, Error> {
    if host.is_empty() {
        return Err(Error::Address("The host name is empty; write HOST:PORT".into()));
    }
    Ok(Address::tcp(host, port))
}

fn parse_port(text: &str) -> Result<u16, Error> {
    text.parse()
        .map_err(|_| Error::Address(format!("'{text}' is not a port number from 0 to 65535")))
}

/// Everything a `redis://` URL can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the server is.
    pub address: Address,
    /// The user to authenticate as; `None` is the default user.
    pub user: Option<String>,
    /// The password to authenticate with.
    pub password: Option<String>,
    /// The database to select.
    pub database: Option<u32>,
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads `redis://[[user:]password@][host][:port][/database]`.
    fn from_str(url: &str) -> Result<Endpoint, Error> {
        let Some(rest) = url.strip_prefix("redis://") else {
            let hint = if url.starts_with("rediss://") {
                "TLS is not supported by this client; use redis://"
            } else {
                "A URL starts with redis://"
            };
            return Err(Error::Address(hint.into()));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, authority),
        };
        let (user, password) = parse_credentials(credentials)?;
        let address = match place {
            "" => Address::tcp("127.0.0.1", DEFAULT_PORT),
            _ if place.starts_with(':') => Address::tcp("127.0.0.1", parse_port(&place[1..])?),
            _ => parse_host_and_port(place)?,
        };
        Ok(Endpoint { address, user, password, database: parse_database(path)? })
    }
}

/// Splits `user:password`, where a lone word is a password.
fn parse_credentials(text: Option<&str>) -> Result<(Option<String>, Option<String>), Error> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    let user = if user.is_empty() { None } else { Some(percent_decode(user)?) };
    Ok((user, Some(percent_decode(password)?)))
}

fn parse_database(path: &str) -> Result<Option<u32>, Error> {
    let number = path.split('?').next().unwrap_or(path);
    if number.is_empty() {
        return Ok(None);
    }
    number.parse().map(Some).map_err(|_| {
        Error::Address(format!("'{number}' is not a database number; end the URL with /0, /1, ..."))
    })
}

/// Undoes `%41` escapes; credentials in a URL need them for `@`, `:` and `/`.
fn percent_decode(text: &str) -> Result<String, Error> {
    let bad = || Error::Address("A % in the URL must be followed by two hex digits".into());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad)?;
        let low = rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad)?;
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| Error::Address("The URL is not valid UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn addresses_in_every_form() {
        let cases = [
            ("localhost", Address::tcp("localhost", 6379)),
            ("10.0.0.1:7000", Address::tcp("10.0.0.1", 7000)),
            ("[::1]:7000", Address::tcp("::1", 7000)),
            ("[::1]", Address::tcp("::1", 6379)),
            ("::1", Address::tcp("::1", 6379)),
            ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("/run/x.sock", Address::Unix("/run/x.sock".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Address>().unwrap(), expected, "{text}");
        }
        for bad in ["", ":1", "host:port", "host:70000", "[::1", "[::1]7"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_print_as_they_are_read() {
        for text in ["localhost:6379", "[::1]:7000", "/run/x.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn loopback_and_sockets_are_local() {
        for local in ["localhost:1", "127.0.0.2:1", "[::1]:1", "/x"] {
            assert!(local.parse::<Address>().unwrap().is_local(), "{local}");
        }
        assert!(!"10.0.0.1:1".parse::<Address>().unwrap().is_local());
    }

    #[test]
    fn urls_with_and_without_each_part() {
        let plain = endpoint("redis://");
        assert_eq!(plain.address, Address::tcp("127.0.0.1", 6379));
        assert_eq!((plain.user, plain.password, plain.database), (None, None, None));

        let full = endpoint("redis://ann:p%40ss@cache:7001/3");
        assert_eq!(full.address, Address::tcp("cache", 7001));
        assert_eq!(full.user.as_deref(), Some("ann"));
        assert_eq!(full.password.as_deref(), Some("p@ss"));
        assert_eq!(full.database, Some(3));

        assert_eq!(endpoint("redis://secret@h").password.as_deref(), Some("secret"));
        assert_eq!(endpoint("redis://:secret@h").user, None);
        assert_eq!(endpoint("redis://:7000").address, Address::tcp("127.0.0.1", 7000));
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (url, needle) in [
            ("http://h", "redis://"),
            ("rediss://h", "TLS"),
            ("redis://h/x", "database"),
            ("redis://%4@h", "hex"),
            ("redis://h:x", "port"),
        ] {
            let error = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(needle), "{url}: {error}");
        }
    }
}
