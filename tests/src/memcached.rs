//! Servers for memcached clients: the one under test, and the one it is compared with.

use crate::{Program, Server, Setup, Wire, free_port, wait_for};
use std::path::Path;

/// Ports tried until one stays free.
const TRIES: usize = 20;

/// Starts the binary under test with a port for memcached clients; returns that, too.
pub fn serve_memcached(flags: &[&str]) -> (Server, u16) {
    let mut said = String::new();
    for _ in 0..TRIES {
        let port = free_port();
        let text = port.to_string();
        let own = ["--port", "{port}", "--memcached-port", &text];
        match Setup::new(&[&own[..], flags].concat()).try_start() {
            Ok(server) => return (server, port),
            Err(why) if why.contains("in use") => said = why,
            Err(why) => panic!("it did not start: {why}"),
        }
    }
    panic!("no port was free: {said}")
}

/// The memcached of this machine, and its port. Without its background thread, which now and then
/// holds an item so that counting makes a new one instead of changing it.
pub fn start_memcached() -> (Program, u16) {
    for _ in 0..TRIES {
        let port = free_port();
        let text = port.to_string();
        let args = ["-u", "root", "-l", "127.0.0.1", "-t", "1", "-o", "no_modern", "-p", &text];
        let mut program = Program::start(Path::new("memcached"), &args);
        let is_up = wait_for("memcached", || match program.ended() {
            Some(_) => Some(false),
            None => Wire::try_connect(port).map(|_| true),
        });
        if is_up {
            return (program, port);
        }
    }
    panic!("memcached does not start")
}
