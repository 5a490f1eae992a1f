//! One connection of a worker: its session, the rest of a request that is not complete, and output
//! that waits.
//!
//! **What an idle connection costs.** No buffer: requests are read into buffers of the back end, and
//! an output is borrowed from the worker's pool from the first reply of a turn until it is sent. Else,
//! in bytes, and where a test or an assertion keeps it so:
//!
//! | what | epoll | io_uring | where |
//! |---|---|---|---|
//! | what other workers see of it | 96 | 96 | `commands::client::Client`, in an `Arc` |
//! | its place in the list of clients | 8 | 8 | `commands::client::Clients` |
//! | what its worker knows of it | 64 | 64 | [`Connection`], in the chunks of [`Connections`] |
//! | what the back end knows of it | 24 | 52 | `io::epoll`, `io::uring` |
//! | sum | 192 | 220 | |
//!
//! What only few connections need (a transaction, subscriptions, names) is in boxes that are made when
//! they are first needed: `commands::session::Cold`, `commands::client::Cold`. The kernel's share,
//! some kilobytes for a socket, is not ours to choose.
//!
//! Measured over 9,000 connections, silent and after a GET: 192 and 193 bytes with epoll, 225 and 221
//! with io_uring (resident memory of the process, without huge pages).
//!
//! **Tried**: a box per connection, and what few need in a field each: 343 and 345 bytes with epoll,
//! 382 and 395 with io_uring.

use crate::io::Token;
use hypercache_commands::Session;
use hypercache_commands::client::Client;
use hypercache_protocol::parse::{self, Parser};
use hypercache_protocol::reply::Output;
use hypercache_stdx::chunks::Chunks;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// A request of which only a part is there.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// The bytes from the start of the request on.
    pub(crate) bytes: Vec<u8>,
    /// The arguments that are complete.
    pub(crate) args: Vec<parse::Range>,
    /// Progress.
    pub(crate) parser: Parser,
    /// A large argument is being received into a buffer of its own.
    pub(crate) is_filling: bool,
    /// Bytes of it that had arrived a second ago.
    pub(crate) filled_bytes: usize,
}

impl Partial {
    /// Bytes of the client's requests that wait.
    pub(crate) fn query_bytes(&self) -> usize {
        let owned = self.parser.owned.iter().map(|value| value.len()).sum::<usize>();
        self.bytes.len() + self.args.len() * size_of::<parse::Range>() + owned
    }

    /// Notes how many bytes of the large argument have arrived. Returns whether it is news.
    pub(crate) fn note_filled(&mut self, bytes: usize) -> bool {
        std::mem::replace(&mut self.filled_bytes, bytes) != bytes
    }
}

/// Units of [`Connection::soft_limit_since`] per second: 32 bits of them last for 13 years.
pub(crate) const SOFT_PER_SECOND: u64 = 10;

/// See the module's text. One line of the cache.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Connection {
    pub(crate) session: Session,
    pub(crate) partial: Option<Box<Partial>>,
    /// Replies that were not handed to the back end yet.
    pub(crate) out: Option<Box<Output>>,
    /// Bytes of partial request and output that count in the worker's sum of bytes.
    pub(crate) counted_bytes: usize,
    /// Since when the output is above its soft limit, in [`SOFT_PER_SECOND`] of the clock that never
    /// goes back; 0: it is not.
    pub(crate) soft_limit_since: u32,
    /// Whether an output is under way.
    pub(crate) is_sending: bool,
    /// Whether it is among those to flush at the end of the turn.
    pub(crate) is_dirty: bool,
    /// Whether its requests wait for the end of CLIENT PAUSE.
    pub(crate) is_paused: bool,
    /// Whether complete requests of it wait for its output to be sent.
    pub(crate) has_more: bool,
    /// The peer is gone or the connection must go, as soon as nothing of it is in use.
    pub(crate) is_dead: bool,
}

// The list keeps them without a box, so none must need a word beside it.
const _: () = assert!(size_of::<Option<Connection>>() == 64, "see the module's text");

impl Connection {
    pub(crate) fn new(session: Session) -> Self {
        Connection {
            session,
            partial: None,
            out: None,
            counted_bytes: 0,
            soft_limit_since: 0,
            is_sending: false,
            is_dirty: false,
            is_paused: false,
            has_more: false,
            is_dead: false,
        }
    }

    /// Bytes of replies that were not handed to the back end yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }
}

/// The connections of a worker by token.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Chunks<Option<Connection>>,
    free: Vec<Token>,
    /// Tokens freed in this turn: events of it may still name them.
    freed: Vec<Token>,
}

impl Connections {
    pub(crate) fn reserve(&mut self) -> Token {
        self.free.pop().unwrap_or_else(|| self.slots.push(None) as Token)
    }

    pub(crate) fn give_back(&mut self, token: Token) {
        self.free.push(token);
    }

    pub(crate) fn insert(&mut self, token: Token, connection: Connection) {
        connection.session.client.token.store(token, Relaxed);
        self.slots[token as usize] = Some(connection);
    }

    #[inline]
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        self.slots.get_mut(token as usize)?.as_mut()
    }

    /// The token of a client that is still connected.
    pub(crate) fn token_of(&self, client: &Client) -> Option<Token> {
        let token = client.token.load(Relaxed);
        let connection = self.slots.get(token as usize)?.as_ref()?;
        (connection.session.client.id == client.id).then_some(token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Connection> {
        let connection = self.slots[token as usize].take()?;
        self.freed.push(token);
        Some(connection)
    }

    /// Makes the tokens freed in this turn available.
    pub(crate) fn end_turn(&mut self) {
        self.free.append(&mut self.freed);
    }

    /// All tokens there are, those without a connection too. Not a list: with many connections it
    /// would be large, and it is asked for every second.
    pub(crate) fn tokens(&self) -> Range<Token> {
        0..self.slots.len() as Token
    }
}
