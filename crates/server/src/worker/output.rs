//! The output of connections: sent at the end of a turn, and accounted for.

use super::{POOL_MAX, UNSENT_MAX, Worker};
use crate::connection::SOFT_PER_SECOND;
use crate::io::{Driver, Token};
use hypercache_protocol::reply::Output;
use hypercache_stdx::clock;
use std::sync::atomic::Ordering::Relaxed;

impl<D: Driver> Worker<D> {
    pub(super) fn mark_dirty(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(token);
        }
    }

    /// Sends the output of all connections that have some.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            self.flush_one(token);
        }
        self.dirty = dirty;
    }

    fn flush_one(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.is_dirty = false;
        if !connection.is_sending
            && let Some(out) = connection.out.take()
        {
            if out.is_empty() {
                self.give_to_pool(out);
            } else {
                self.commands.stats.net_output_bytes.add(out.len() as u64);
                self.commands.stats.writes.add(1);
                match self.driver.send(token, out) {
                    Some(output) => self.give_to_pool(output),
                    None => connection.is_sending = true,
                }
            }
        }
        self.after_flush(token);
    }

    /// Accounts for what waits, and closes or stops reading where it is too much.
    fn after_flush(&mut self, token: Token) {
        let unsent = self.driver.unsent(token);
        let Some(connection) = self.connections.get(token) else { return };
        let output_bytes = unsent + connection.waiting_bytes() + self.gates.bytes(token);
        let client = &connection.session.client;
        let partial_bytes = connection.partial.as_ref().map_or(0, |partial| {
            let filled = if partial.is_filling { self.driver.filled_bytes(token) } else { 0 };
            partial.query_bytes() + filled
        });
        let query_bytes = partial_bytes + connection.session.queued_bytes();
        // Another worker may have counted messages in, which are gone now.
        let counted = connection.counted_bytes as u64 + client.output_bytes.load(Relaxed);
        if output_bytes + query_bytes > 0 || counted > 0 {
            client.output_bytes.store(output_bytes as u64, Relaxed);
            client.query_bytes.store(query_bytes.min(u32::MAX as usize) as u32, Relaxed);
            let now = output_bytes + query_bytes;
            let delta = now as isize - connection.counted_bytes as isize;
            self.commands.stats.add_client_bytes(delta);
            connection.counted_bytes = now;
        }
        if connection.is_dead || (connection.session.is_closing && output_bytes == 0) {
            return self.close(token);
        }
        if connection.has_more && output_bytes == 0 {
            connection.has_more = false;
            self.again.push(token);
        }
        let has_room = output_bytes <= UNSENT_MAX && !self.gates.is_full(token);
        let is_reading = has_room && !connection.is_paused && !connection.has_more;
        if output_bytes > UNSENT_MAX && self.is_beyond_limit(token, output_bytes as u64) {
            return self.close(token);
        }
        self.driver.set_reading(token, is_reading);
    }

    /// Whether a connection's output is more than its class may have; counts it if so.
    fn is_beyond_limit(&mut self, token: Token, bytes: u64) -> bool {
        let limits = *self.shared.config.hot.output_limits.read();
        let now = (clock::mono_ms() / (1000 / SOFT_PER_SECOND)) as u32;
        let Some(connection) = self.connections.get(token) else { return false };
        let is_pubsub = connection.session.is_subscribed();
        let limit = if is_pubsub { limits.pubsub } else { limits.normal };
        let mut is_beyond = limit.hard > 0 && bytes > limit.hard;
        if limit.soft > 0 && bytes > limit.soft {
            let since = &mut connection.soft_limit_since;
            *since = if *since == 0 { now.max(1) } else { *since };
            is_beyond |= u64::from(now.saturating_sub(*since)) >= limit.soft_s * SOFT_PER_SECOND;
        } else {
            connection.soft_limit_since = 0;
        }
        self.commands.stats.output_limit_closed.add(u64::from(is_beyond));
        is_beyond
    }

    pub(super) fn after_sent(&mut self, token: Token) {
        let now_s = (self.commands.now_ms / 1000) as u32;
        let Some(connection) = self.connections.get(token) else { return };
        connection.is_sending = false;
        connection.session.client.active_s.store(now_s, Relaxed);
        self.mark_dirty(token);
    }

    pub(super) fn give_to_pool(&mut self, output: Box<Output>) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(output);
        }
    }
}
