//! What nodes say to each other, through a relay that delays it, holds it back or cuts it off.
//!
//! Each node announces the relay's port for it and not its own. Who connects is found by looking which of
//! the nodes' processes has the socket (`/proc`), so that each direction of each pair can be treated by
//! itself. Held back is what a network that loses packets does to TCP: nothing arrives, and all of it does
//! once the link is mended.

use crate::mono_ms;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a held direction looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes that are relayed at once.
const PIECE_BYTES: usize = 64 << 10;

/// One direction of one pair of nodes.
#[derive(Debug, Default)]
struct Way {
    is_cut: AtomicBool,
    delay_ms: AtomicU64,
    /// Connections that began before this time are closed.
    broken_ms: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    nodes: usize,
    processes: Vec<AtomicU32>,
    /// By sender and receiver.
    ways: Vec<Way>,
    is_over: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Links {
    ports: Vec<u16>,
    state: Arc<State>,
}

impl Links {
    /// Relays for nodes that listen on these ports.
    pub fn start(buses: &[u16]) -> Links {
        let nodes = buses.len();
        let state = Arc::new(State {
            nodes,
            processes: (0..nodes).map(|_| AtomicU32::new(0)).collect(),
            ways: (0..nodes * nodes).map(|_| Way::default()).collect(),
            is_over: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let ports = buses.iter().enumerate().map(|(to, bus)| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            let (state, bus) = (Arc::clone(&state), *bus);
            thread::spawn(move || listen(&state, &listener, to, bus));
            port
        });
        let ports = ports.collect();
        Links { ports, state }
    }

    /// The port that node `i` announces.
    pub fn port(&self, i: usize) -> u16 {
        self.ports[i]
    }

    /// Says which process node `i` is.
    pub fn set_process(&self, i: usize, id: u32) {
        self.state.processes[i].store(id, SeqCst);
    }

    fn way(&self, from: usize, to: usize) -> &Way {
        &self.state.ways[from * self.state.nodes + to]
    }

    /// Holds back all that `from` says to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.way(from, to).is_cut.store(true, SeqCst);
    }

    /// Delays all that `from` says to `to`.
    pub fn delay(&self, from: usize, to: usize, ms: u64) {
        self.way(from, to).delay_ms.store(ms, SeqCst);
    }

    /// Closes all connections that `from` made to `to`.
    pub fn close(&self, from: usize, to: usize) {
        self.way(from, to).broken_ms.store(mono_ms(), SeqCst);
    }

    /// Mends everything.
    pub fn mend(&self) {
        for way in &self.state.ways {
            way.is_cut.store(false, SeqCst);
            way.delay_ms.store(0, SeqCst);
        }
    }

    /// Bytes that `from` said to `to`.
    pub fn bytes(&self, from: usize, to: usize) -> u64 {
        self.way(from, to).bytes.load(SeqCst)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.state.is_over.store(true, SeqCst);
        // Wakes those who wait in `accept` and in `read`.
        for port in &self.ports {
            drop(TcpStream::connect(("127.0.0.1", *port)));
        }
        let sockets = self.state.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

fn listen(state: &Arc<State>, listener: &TcpListener, to: usize, bus: u16) {
    for socket in listener.incoming() {
        if state.is_over.load(SeqCst) {
            return;
        }
        let (Ok(socket), state) = (socket, Arc::clone(state)) else { continue };
        thread::spawn(move || {
            let from = socket.peer_addr().ok().and_then(|peer| state.owner(peer));
            // Somebody who is no node: the relay is for nodes.
            let Some(from) = from else { return };
            let Ok(target) = TcpStream::connect(("127.0.0.1", bus)) else { return };
            relay(&state, socket, target, (from, to));
        });
    }
}

/// Starts both directions of a connection.
fn relay(state: &Arc<State>, near: TcpStream, far: TcpStream, (from, to): (usize, usize)) {
    let (Ok(near_back), Ok(far_back)) = (near.try_clone(), far.try_clone()) else { return };
    for socket in [&near, &far] {
        // Small frames must not wait for each other more than they are told to.
        let _refused = socket.set_nodelay(true);
        let mut sockets = state.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.extend(socket.try_clone());
    }
    let began_ms = mono_ms();
    let back = Arc::clone(state);
    thread::spawn(move || back.pump(far_back, near_back, (to, from), began_ms));
    state.pump(near, far, (from, to), began_ms);
}

impl State {
    /// Moves bytes in one direction until either side ends or the way is broken.
    fn pump(
        &self,
        mut source: TcpStream,
        mut target: TcpStream,
        (from, to): (usize, usize),
        began_ms: u64,
    ) {
        let way = &self.ways[from * self.nodes + to];
        let mut piece = vec![0; PIECE_BYTES];
        // Looks now and then whether it is to be closed.
        let _refused = source.set_read_timeout(Some(Duration::from_millis(20)));
        let is_over = || self.is_over.load(SeqCst) || way.broken_ms.load(SeqCst) > began_ms;
        while !is_over() {
            let n = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            thread::sleep(Duration::from_millis(way.delay_ms.load(SeqCst)));
            while way.is_cut.load(SeqCst) && !is_over() {
                thread::sleep(LOOK);
            }
            if is_over() || target.write_all(&piece[..n]).is_err() {
                break;
            }
            way.bytes.fetch_add(n as u64, SeqCst);
        }
        // The other direction sees it.
        let _gone = source.shutdown(Shutdown::Both);
        let _gone = target.shutdown(Shutdown::Both);
    }

    /// The node whose process has the socket with this local address.
    fn owner(&self, peer: SocketAddr) -> Option<usize> {
        let inode = inode_of(peer)?;
        let wanted = format!("socket:[{inode}]");
        self.processes.iter().position(|id| {
            let folder = format!("/proc/{}/fd", id.load(SeqCst));
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            links.any(|link| link.as_os_str() == wanted.as_str())
        })
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The kernel's number of the socket with a local address, from its table of connections.
fn inode_of(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{ip:08X}:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&wanted.as_str()))?;
    row.get(9).map(|inode| (*inode).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay to a listener of this process, which is node 0 and node 1.
    fn linked() -> (Links, TcpStream, TcpStream) {
        let bus = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = bus.local_addr().expect("an address").port();
        let links = Links::start(&[port, port]);
        links.set_process(0, std::process::id());
        let near = TcpStream::connect(("127.0.0.1", links.port(1))).expect("the relay listens");
        let (far, _) = bus.accept().expect("the relay connects");
        far.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
        (links, near, far)
    }

    fn hears(far: &mut TcpStream, text: &[u8]) -> bool {
        let mut bytes = vec![0; text.len()];
        far.read_exact(&mut bytes).is_ok() && bytes == text
    }

    #[test]
    fn a_cut_holds_back_and_a_mended_link_delivers() {
        let (links, mut near, mut far) = linked();
        near.write_all(b"one").expect("written");
        assert!(hears(&mut far, b"one"));
        links.cut(0, 1);
        near.write_all(b"two").expect("written");
        assert!(!hears(&mut far, b"two"));
        far.write_all(b"back").expect("written");
        near.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        assert!(hears(&mut near, b"back"), "the other direction is whole");
        links.mend();
        far.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        assert!(hears(&mut far, b"two"));
        assert_eq!(links.bytes(0, 1), 6);
    }

    #[test]
    fn a_broken_link_ends_its_connections() {
        let (links, mut near, mut far) = linked();
        near.write_all(b"one").expect("written");
        assert!(hears(&mut far, b"one"));
        thread::sleep(Duration::from_millis(5));
        links.close(0, 1);
        near.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        assert_eq!(near.read(&mut [0; 8]).expect("an end"), 0);
    }
}
