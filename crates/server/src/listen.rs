//! Listening sockets and the options of connections.

use hypercache_commands::config::Config;
use hypercache_stdx::clock;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Why the server cannot listen: one sentence for the operator.
pub(crate) type Refusal = String;

/// How long a busy address is waited for, in ms. The sockets of a process that used io_uring are
/// given up by the kernel a moment after its end, so whoever starts it again at once finds them
/// busy; 10 ms were measured after a SIGKILL on an idle machine.
const BUSY_MS: u64 = 1000;

/// A listening socket.
pub(crate) struct Listener {
    pub(crate) fd: OwnedFd,
    pub(crate) is_unix: bool,
    /// How it is called in the log.
    pub(crate) name: String,
}

/// Opens all sockets that the settings ask for.
pub(crate) fn open_all(config: &Config) -> Result<Vec<Listener>, Refusal> {
    let mut listeners = Vec::new();
    for setting in ["port", "memcached-port"] {
        let port = config.get_int(setting) as u16;
        let bind = config.get("bind");
        for word in bind.split_whitespace().filter(|_| port != 0) {
            listeners.extend(open_tcp(config, word, port)?);
        }
    }
    let path = config.get("unixsocket");
    if !path.is_empty() {
        listeners.push(open_unix(config, &path)?);
    }
    if listeners.is_empty() {
        return Err("nothing to listen on: give a port or a unixsocket".into());
    }
    Ok(listeners)
}

/// Opens one address of `bind`; one marked with `-` is skipped when the machine lacks it.
fn open_tcp(config: &Config, word: &str, port: u16) -> Result<Option<Listener>, Refusal> {
    let is_optional = word.starts_with('-');
    let ip = ip_of(word)?;
    let address = SocketAddr::new(ip, port);
    match once_free(|| bind_tcp(config, address)) {
        Ok(fd) => Ok(Some(Listener { fd, is_unix: false, name: address.to_string() })),
        Err(error) if is_optional && error != Errno::ADDRINUSE => Ok(None),
        Err(Errno::ADDRINUSE) => Err(format!(
            "cannot listen on {address}: the port is in use; stop the other server or choose \
             another with --port or --memcached-port"
        )),
        Err(error) => Err(format!("cannot listen on {address}: {error}")),
    }
}

/// The address that a word of `bind` means.
pub(crate) fn ip_of(word: &str) -> Result<IpAddr, Refusal> {
    match word.trim_start_matches('-') {
        "*" => Ok(IpAddr::from([0, 0, 0, 0])),
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        text => text.parse().map_err(|_| format!("'bind': '{text}' is no IP address")),
    }
}

/// Tries again for a moment while the address is busy.
fn once_free<T>(attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let deadline = clock::mono_ms() + BUSY_MS;
    loop {
        match attempt() {
            Err(Errno::ADDRINUSE) if clock::mono_ms() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn bind_tcp(config: &Config, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    net::bind(&fd, &address)?;
    net::listen(&fd, config.get_int("tcp-backlog") as i32)?;
    Ok(fd)
}

fn open_unix(config: &Config, path: &str) -> Result<Listener, Refusal> {
    let fail = |error: Errno| format!("cannot listen on {path}: {error}");
    let address = net::SocketAddrUnix::new(path).map_err(fail)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd =
        net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
    remove_stale(path, &address)?;
    net::bind(&fd, &address).map_err(fail)?;
    net::listen(&fd, config.get_int("tcp-backlog") as i32).map_err(fail)?;
    let mode = u32::from_str_radix(&config.get("unixsocketperm"), 8).unwrap_or(0);
    if mode != 0 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| format!("cannot set the permissions of {path}: {error}"))?;
    }
    Ok(Listener { fd, is_unix: true, name: path.to_owned() })
}

/// Removes a socket that a dead server left; one that answers belongs to a live one, and anything
/// that is no socket is not ours to remove.
fn remove_stale(path: &str, address: &net::SocketAddrUnix) -> Result<(), Refusal> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(meta) = std::fs::symlink_metadata(Path::new(path)) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(format!("cannot listen on {path}: the file exists and is no socket"));
    }
    if let Err(error) = once_free(|| check_dead(address)) {
        return Err(match error {
            Errno::ADDRINUSE => format!("cannot listen on {path}: another server listens there"),
            _ => format!("cannot listen on {path}: {error}"),
        });
    }
    std::fs::remove_file(path).map_err(|error| format!("cannot remove the old {path}: {error}"))
}

/// Whether nobody listens at the address any more.
fn check_dead(address: &net::SocketAddrUnix) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let probe = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if net::connect(&probe, address).is_ok() { Err(Errno::ADDRINUSE) } else { Ok(()) }
}

/// Sets the options of a TCP connection. A peer that is gone already makes them fail; its end is
/// noticed when it is read.
pub(crate) fn tune(fd: impl AsFd, keepalive_s: u64) {
    let fd = fd.as_fd();
    let _fails_if_gone = sockopt::set_tcp_nodelay(fd, true);
    if keepalive_s == 0 {
        return;
    }
    let third = Duration::from_secs((keepalive_s / 3).max(1));
    let _fails_if_gone = sockopt::set_socket_keepalive(fd, true);
    let _fails_if_gone = sockopt::set_tcp_keepidle(fd, Duration::from_secs(keepalive_s));
    let _fails_if_gone = sockopt::set_tcp_keepintvl(fd, third);
    let _fails_if_gone = sockopt::set_tcp_keepcnt(fd, 3);
}
