//! One connection of a worker: its session, the rest of a request that is not complete, and output
//! that waits.
//!
//! Idle, it is about 100 bytes and holds no buffer: requests are read into buffers of the back end,
//! and an output is borrowed from the worker's pool from the first reply of a turn until it is sent.

use crate::io::Token;
use hypercache_commands::Session;
use hypercache_commands::client::Client;
use hypercache_protocol::parse::{Parser, Range};
use hypercache_protocol::reply::Output;
use hypercache_stdx::chunks::Chunks;
use std::sync::atomic::Ordering::Relaxed;

/// A request of which only a part is there.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// The bytes from the start of the request on.
    pub(crate) bytes: Vec<u8>,
    /// The arguments that are complete.
    pub(crate) args: Vec<Range>,
    /// Progress.
    pub(crate) parser: Parser,
    /// A large argument is being received into a buffer of its own.
    pub(crate) is_filling: bool,
}

impl Partial {
    /// Bytes of the client's requests that wait.
    pub(crate) fn query_bytes(&self) -> usize {
        let owned = self.parser.owned.iter().map(|value| value.len()).sum::<usize>();
        self.bytes.len() + self.args.len() * size_of::<Range>() + owned
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Session,
    pub(crate) partial: Option<Box<Partial>>,
    /// Replies that were not handed to the back end yet.
    pub(crate) out: Option<Box<Output>>,
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
    /// Since when the output is above its soft limit, on the clock that never goes back; 0: it is not.
    pub(crate) soft_limit_since_ms: u64,
    /// Bytes of a large argument that had arrived a second ago.
    pub(crate) filled_bytes: usize,
    /// Bytes of partial request and output that count in the worker's sum of bytes.
    pub(crate) counted_bytes: usize,
}

impl Connection {
    pub(crate) fn new(session: Session) -> Self {
        Connection {
            session,
            partial: None,
            out: None,
            is_sending: false,
            is_dirty: false,
            is_paused: false,
            has_more: false,
            is_dead: false,
            soft_limit_since_ms: 0,
            filled_bytes: 0,
            counted_bytes: 0,
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
    slots: Chunks<Option<Box<Connection>>>,
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
        self.slots[token as usize] = Some(Box::new(connection));
    }

    #[inline]
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        self.slots.get_mut(token as usize)?.as_deref_mut()
    }

    /// The token of a client that is still connected.
    pub(crate) fn token_of(&self, client: &Client) -> Option<Token> {
        let token = client.token.load(Relaxed);
        let connection = self.slots.get(token as usize)?.as_deref()?;
        (connection.session.client.id == client.id).then_some(token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Box<Connection>> {
        let connection = self.slots[token as usize].take()?;
        self.freed.push(token);
        Some(connection)
    }

    /// Makes the tokens freed in this turn available.
    pub(crate) fn end_turn(&mut self) {
        self.free.append(&mut self.freed);
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        (0..)
            .zip(self.slots.iter())
            .filter_map(|(token, slot)| slot.is_some().then_some(token))
            .collect()
    }
}
