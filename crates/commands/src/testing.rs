//! Commands without sockets: for tests, fuzzing and the examples of the table.

pub mod fuzz;
pub mod replay;

use crate::client::Client;
use crate::config::Config;
use crate::context::Worker;
use crate::dispatch::{Executor, Request, Timer, look_up};
use crate::keyspace::PARTITIONS;
use crate::session::Session;
use crate::shared::Shared;
use crate::table::Recent;
use hypercache_protocol::parse::{OwnedArgs, split_words};
use hypercache_protocol::reply::Output;
use std::sync::Arc;

/// One worker with one client.
#[derive(Debug)]
pub struct Harness {
    /// What a server's workers would share.
    pub shared: Arc<Shared>,
    /// The worker. Its time stands still unless a test moves it.
    pub worker: Worker,
    /// The client's session.
    pub session: Session,
    timer: Timer,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Harness {
    /// A fresh server state under the given settings.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::over(Shared::new(config, 1))
    }

    /// As [`Self::new`], with a keyspace whose hash is keyed by `secret`: what it does is the same each time.
    #[must_use]
    pub fn with_secret(config: Config, secret: (u64, u64)) -> Self {
        Self::over(Shared::with_secret(config, 1, secret))
    }

    /// One more worker's worth of state over what others use too.
    #[must_use]
    pub fn beside(shared: &Arc<Shared>) -> Self {
        Self::over(Arc::clone(shared))
    }

    fn over(shared: Arc<Shared>) -> Self {
        let worker = Worker::new(&shared, 0);
        let session = Self::connect(&shared);
        Harness { shared, worker, session, timer: Timer::new() }
    }

    /// A session of one more client.
    #[must_use]
    pub fn connect(shared: &Shared) -> Session {
        let id = shared.clients.next_id();
        let now_s = (shared.started_ms / 1000) as u32;
        let client = Arc::new(Client::new(id, 0, -1, Default::default(), now_s));
        shared.clients.add(Arc::clone(&client));
        Session::new(client, shared.acl.lets_in())
    }

    /// Bytes of all partitions added up anew, which [`Shared::bytes_used`] must be without sockets.
    #[must_use]
    pub fn bytes_there(&self) -> u64 {
        let partitions = 0..PARTITIONS as u16;
        let held: u64 = partitions.map(|p| self.shared.keyspace.lock(p).bytes() as u64).sum();
        held + self.shared.keyspace.registered.bytes() as u64
    }

    /// Runs one command given as separate arguments and returns the reply's bytes.
    pub fn run_args<T: AsRef<[u8]>>(&mut self, args: impl IntoIterator<Item = T>) -> Vec<u8> {
        let args = OwnedArgs::from_pieces(args);
        let args = args.as_args();
        let (entry, located) = look_up(&self.shared, &mut Recent::default(), args, 0);
        let request = Request { args, entry, first_key: located.as_ref() };
        let mut out = Output::default();
        self.timer.begin(&self.shared);
        self.worker.note_room(&self.shared);
        let Harness { shared, worker, session, timer } = self;
        let mut executor = Executor::new(shared, worker, session, timer, &mut out);
        let plain = entry.filter(|entry| entry.is_plain_with(args.len()));
        match (plain, &located) {
            (Some(entry), Some(at))
                if executor.is_ordinary() && executor.allows(entry, || args) =>
            {
                executor.execute_plain(args, entry, at);
            }
            _ => executor.execute(&request),
        }
        drop(executor);
        timer.end(worker);
        out.flattened()
    }

    /// Runs one command given as a line with the shell's quoting.
    ///
    /// # Panics
    /// When the quotes do not close.
    pub fn run(&mut self, line: &str) -> Vec<u8> {
        self.run_args(split_words(line.as_bytes()).expect("quotes close"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_get_and_a_transaction() {
        let mut h = Harness::default();
        assert_eq!(h.run("SET a 1"), b"+OK\r\n");
        assert_eq!(h.run("get a"), b"$1\r\n1\r\n");
        assert_eq!(h.run("WATCH a"), b"+OK\r\n");
        assert_eq!(h.run("MULTI"), b"+OK\r\n");
        assert_eq!(h.run("SET a 2"), b"+QUEUED\r\n");
        assert_eq!(h.run("EXEC"), b"*1\r\n+OK\r\n");
        assert_eq!(
            h.run("nope x"),
            b"-ERR unknown command 'nope', with args beginning with: 'x' \r\n"
        );
        assert_eq!(h.run("GET"), b"-ERR wrong number of arguments for 'get' command\r\n");
    }

    #[test]
    fn a_large_value_is_kept_whole() {
        let mut h = Harness::default();
        let value = vec![b'v'; 100_000];
        assert_eq!(h.run_args([&b"SET"[..], b"k", &value]), b"+OK\r\n");
        let reply = h.run("GET k");
        assert_eq!(reply, [&b"$100000\r\n"[..], &value, b"\r\n"].concat());
    }
}
