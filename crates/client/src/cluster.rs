//! A client of a cluster: it knows who has which slot, follows redirections, and tells what certainly did
//! not happen from what may have happened.
//!
//! That difference is the point. A request that was redirected, refused because the cluster is down, or
//! never sent is tried again until the caller's patience ends, and then it certainly had no effect. One
//! whose connection broke after it was sent, or that was not answered in time, may have had its effect or
//! may have it later: it is not tried again, for a second effect would be worse than the doubt.

use crate::{Address, Connection, Error, Reply};
use hypercache_protocol::slot::{SLOTS, slot_of};
use hypercache_stdx::clock::mono_ms;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a reply.
    pub reply: Duration,
    /// For a request to be taken by somebody, all attempts together.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Patience { connect: seconds(1), reply: seconds(2), request: seconds(10) }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Failure {
    /// The request certainly had no effect and will have none.
    NotDone(Error),
    /// It may have had its effect, or have it later.
    Unknown(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotDone(error) => write!(f, "not done: {error}"),
            Failure::Unknown(error) => write!(f, "nobody knows whether it was done: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);
/// The slots are asked for at most so often.
const ASK_AGAIN_MS: u64 = 100;

/// A blocking client of a cluster, with one connection per node.
#[derive(Debug)]
pub struct Cluster {
    seeds: Vec<Address>,
    patience: Patience,
    /// Index in `nodes` per slot; `nodes.len()` and above where nobody is known.
    slots: Vec<u16>,
    nodes: Vec<Address>,
    connections: HashMap<String, Connection>,
    asked_ms: Option<u64>,
    redirections: u64,
}

/// What came of one attempt.
enum Attempt {
    Done(Reply),
    /// Somebody else may know better.
    Again(Error),
    /// Another node has the slot.
    Moved(Address, Error),
    Unknown(Error),
}

impl Cluster {
    /// A client that asks the nodes at these addresses who is there. Nothing is sent before the first
    /// request.
    #[must_use]
    pub fn new(seeds: Vec<Address>, patience: Patience) -> Cluster {
        Cluster {
            seeds,
            patience,
            slots: vec![u16::MAX; usize::from(SLOTS)],
            nodes: Vec::new(),
            connections: HashMap::new(),
            asked_ms: None,
            redirections: 0,
        }
    }

    /// How often a node said that another has the slot.
    #[must_use]
    pub fn redirections(&self) -> u64 {
        self.redirections
    }

    /// The nodes that have slots, as far as is known.
    #[must_use]
    pub fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    /// Sends a request about one key to whoever has it, and waits for the reply.
    ///
    /// # Errors
    /// See [`Failure`]. An error reply that says something about the request itself is a reply.
    pub fn command<A: AsRef<[u8]>>(&mut self, key: &[u8], words: &[A]) -> Result<Reply, Failure> {
        let slot = usize::from(slot_of(key));
        let deadline_ms = mono_ms() + self.patience.request.as_millis() as u64;
        let mut turn = 0;
        loop {
            let error = match self.attempt(slot, turn, words) {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Unknown(error) => return Err(Failure::Unknown(error)),
                Attempt::Moved(address, error) => {
                    self.redirections += 1;
                    self.slots[slot] = self.index_of(address);
                    self.ask_for_slots(turn);
                    error
                }
                Attempt::Again(error) => {
                    std::thread::sleep(PAUSE);
                    self.ask_for_slots(turn);
                    error
                }
            };
            turn += 1;
            if mono_ms() >= deadline_ms {
                return Err(Failure::NotDone(error));
            }
        }
    }

    fn attempt<A: AsRef<[u8]>>(&mut self, slot: usize, turn: usize, words: &[A]) -> Attempt {
        if self.nodes.is_empty() {
            self.ask_for_slots(turn);
        }
        let known = self.nodes.get(usize::from(self.slots[slot])).cloned();
        let any = || self.seeds.get(turn % self.seeds.len().max(1)).cloned();
        let Some(address) = known.or_else(any) else {
            return Attempt::Again(Error::Address("there is no address to connect to".into()));
        };
        let name = address.to_string();
        let (patience, sent) = (self.patience, self.connection(&address));
        let connection = match sent {
            Ok(connection) => connection,
            Err(error) => return Attempt::Again(error),
        };
        let reply = connection
            .set_read_timeout(Some(patience.reply))
            .and_then(|()| connection.command(words));
        match reply {
            Ok(Reply::Error(text)) => judge(&text, &address),
            Ok(reply) => Attempt::Done(reply),
            Err(error) => {
                // A late reply must not be taken for that of the next request.
                self.connections.remove(&name);
                Attempt::Unknown(error)
            }
        }
    }

    fn connection(&mut self, address: &Address) -> Result<&mut Connection, Error> {
        let name = address.to_string();
        if !self.connections.contains_key(&name) {
            let connection = Connection::connect(address, self.patience.connect)?;
            self.connections.insert(name.clone(), connection);
        }
        self.connections.get_mut(&name).ok_or(Error::Closed)
    }

    fn index_of(&mut self, address: Address) -> u16 {
        let known = self.nodes.iter().position(|node| *node == address);
        known.unwrap_or_else(|| {
            self.nodes.push(address);
            self.nodes.len() - 1
        }) as u16
    }

    /// Asks one of the nodes who has which slots; another one each turn.
    fn ask_for_slots(&mut self, turn: usize) {
        let now_ms = mono_ms();
        if self.asked_ms.is_some_and(|at| now_ms < at + ASK_AGAIN_MS) {
            return;
        }
        self.asked_ms = Some(now_ms);
        let mut places: Vec<Address> = self.nodes.clone();
        places.extend(self.seeds.iter().filter(|seed| !self.nodes.contains(seed)).cloned());
        let first = turn % places.len().max(1);
        places.rotate_left(first);
        for place in places {
            let Some(reply) = self.ask(&place) else { continue };
            let ranges = read_ranges(reply, &place);
            if !ranges.is_empty() {
                return self.learn(ranges);
            }
        }
    }

    fn ask(&mut self, place: &Address) -> Option<Reply> {
        let patience = self.patience;
        let connection = self.connection(place).ok()?;
        connection.set_read_timeout(Some(patience.connect)).ok()?;
        let reply = connection.command(&["CLUSTER", "SLOTS"]);
        if reply.is_err() {
            self.connections.remove(&place.to_string());
        }
        reply.ok().filter(|reply| !reply.is_error())
    }

    fn learn(&mut self, ranges: Vec<Range>) {
        self.nodes.clear();
        self.slots.fill(u16::MAX);
        for range in ranges {
            let index = self.index_of(range.primary);
            self.slots[range.first..=range.last].fill(index);
        }
        let is_known = |name: &String| {
            let known = self.nodes.iter().chain(&self.seeds);
            known.map(ToString::to_string).any(|known| known == *name)
        };
        self.connections.retain(|name, _| is_known(name));
    }
}

/// What an error reply says about the request.
fn judge(text: &[u8], asked: &Address) -> Attempt {
    let text = String::from_utf8_lossy(text).into_owned();
    let error = Error::Server(text.clone());
    let mut words = text.split(' ');
    match words.next().unwrap_or_default() {
        "MOVED" | "ASK" => match words.nth(1).and_then(|place| address_of(place, asked)) {
            Some(address) => Attempt::Moved(address, error),
            None => Attempt::Again(error),
        },
        // What each of these means is: not now, and nothing was done.
        "CLUSTERDOWN" | "TRYAGAIN" | "LOADING" | "NOREPLICAS" | "READONLY" | "MASTERDOWN" => {
            Attempt::Again(error)
        }
        _ => Attempt::Done(Reply::Error(text.into_bytes())),
    }
}

/// `host:port`, where no host means that of whoever said so.
fn address_of(place: &str, asked: &Address) -> Option<Address> {
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match asked {
        Address::Tcp { host: same, .. } if host.is_empty() => {
            Some(Address::tcp(same.clone(), port))
        }
        _ => Some(Address::tcp(host, port)),
    }
}

struct Range {
    first: usize,
    last: usize,
    primary: Address,
}

fn read_ranges(reply: Reply, asked: &Address) -> Vec<Range> {
    let rows = reply.into_items().unwrap_or_default();
    rows.into_iter().filter_map(|row| read_range(row, asked)).collect()
}

fn read_range(row: Reply, asked: &Address) -> Option<Range> {
    let mut row = row.into_items()?.into_iter();
    let mut slot = || usize::try_from(row.next()?.as_int()?).ok();
    let (first, last) = (slot()?, slot()?);
    let node = row.next()?.into_items()?;
    let (host, port) = (node.first()?.as_text().unwrap_or_default(), node.get(1)?.as_int()?);
    let primary = address_of(&format!("{host}:{port}"), asked)?;
    (first <= last && last < usize::from(SLOTS)).then_some(Range { first, last, primary })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that answers each request with what `answer` makes of it, or closes.
    fn serve(
        listener: TcpListener,
        answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Address {
        let port = listener.local_addr().expect("an address").port();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    let (mut socket, mut buffer) = (socket.expect("a client"), [0; 4096]);
                    while let Ok(n @ 1..) = socket.read(&mut buffer) {
                        let request = String::from_utf8_lossy(&buffer[..n]).into_owned();
                        let Some(reply) = answer(&request) else { return };
                        socket.write_all(reply.as_bytes()).expect("it is there");
                    }
                });
            }
        });
        Address::tcp("127.0.0.1", port)
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a port")
    }

    fn slots(port: u16) -> String {
        format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:{port}\r\n")
    }

    fn client(seed: Address) -> Cluster {
        let ms = Duration::from_millis;
        Cluster::new(vec![seed], Patience { connect: ms(500), reply: ms(200), request: ms(600) })
    }

    #[test]
    fn redirections_are_followed_and_remembered() {
        let second = serve(listener(), |_| Some("+OK\r\n".into()));
        let Address::Tcp { port, .. } = second else { panic!("it is TCP") };
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let first = listener();
        let own = first.local_addr().expect("an address").port();
        let first = serve(first, move |request| {
            if request.contains("SLOTS") {
                // What it says is out of date, the first time.
                let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
                return Some(slots(if is_first { own } else { port }));
            }
            Some(format!("-MOVED 15495 127.0.0.1:{port}\r\n"))
        });
        let mut client = client(first);
        for _ in 0..3 {
            let reply = client.command(b"a", &["SET", "a", "1"]).expect("a reply");
            assert_eq!(reply, Reply::Simple(b"OK".to_vec()));
        }
        assert_eq!(client.redirections(), 1);
    }

    #[test]
    fn what_was_refused_is_certain_and_what_was_cut_off_is_not() {
        let listener = listener();
        let port = listener.local_addr().expect("an address").port();
        let seed = serve(listener, move |request| match request {
            _ if request.contains("SLOTS") => Some(slots(port)),
            _ if request.contains("down") => Some("-CLUSTERDOWN no quorum\r\n".into()),
            _ if request.contains("wrong") => Some("-ERR no such thing\r\n".into()),
            _ => None,
        });
        let mut client = client(seed);
        let down = client.command(b"down", &["GET", "down"]);
        assert!(matches!(down, Err(Failure::NotDone(Error::Server(_)))), "{down:?}");
        let wrong = client.command(b"wrong", &["GET", "wrong"]);
        assert!(matches!(wrong, Ok(Reply::Error(_))), "{wrong:?}");
        let cut = client.command(b"cut", &["SET", "cut", "1"]);
        assert!(matches!(cut, Err(Failure::Unknown(Error::Closed))), "{cut:?}");
    }

    #[test]
    fn nobody_there_is_certain() {
        let port = listener().local_addr().expect("an address").port();
        let failed = client(Address::tcp("127.0.0.1", port)).command(b"a", &["GET", "a"]);
        assert!(matches!(failed, Err(Failure::NotDone(Error::Connect { .. }))), "{failed:?}");
    }
}
