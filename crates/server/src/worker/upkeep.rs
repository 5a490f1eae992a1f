//! What a worker does beside requests: messages from other workers, timers, expiry.

use super::Worker;
use crate::io::Driver;
use hypercache_cluster::gate::Need;
use hypercache_commands::blocking::{TimedOut, serve_unserved, time_out};
use hypercache_commands::client::{Client, ClientFlags};
use hypercache_commands::keyspace::PARTITIONS;
use hypercache_commands::leases::end_due;
use hypercache_commands::leftover::clear_some;
use hypercache_commands::limit;
use hypercache_commands::migrate::{settle, settle_left};
use hypercache_commands::pubsub::write_push;
use hypercache_commands::shared::Message;
use hypercache_commands::tracking::{self, write_notice};
use hypercache_journal::Effect;
use hypercache_protocol::reply::{Output, Version};
use hypercache_stdx::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Timers run this often, in ms.
pub(super) const TICK_MS: u64 = 100;
const TICKS_PER_SECOND: u64 = 1000 / TICK_MS;
/// Longest stretch of expiry work between two turns, in microseconds.
const EXPIRE_SLICE_US: u64 = 1000;
/// Waits whose time is over that end in one turn: some 1 ms of work.
const TIMEOUTS_PER_TURN: usize = 256;
/// Hints looked at under one lock of a partition.
const EXPIRE_BATCH: usize = 128;

impl<D: Driver> Worker<D> {
    pub(super) fn take_messages(&mut self) {
        tracking::broadcast(&self.shared, &mut self.commands);
        let Some(mailboxes) = self.shared.mailboxes.get() else { return };
        for message in mailboxes[self.commands.id].take() {
            match message {
                Message::Publish { client, push } => {
                    self.write_to(&client, |version, out| write_push(&push, version, out));
                }
                Message::Monitor { client, line } => {
                    self.write_to(&client, |_, out| {
                        out.bytes.push(b'+');
                        out.bytes.extend_from_slice(&line);
                        out.bytes.extend_from_slice(b"\r\n");
                    });
                }
                Message::Invalidate { client, notice } => {
                    let is_subscribed = client.has(ClientFlags::PUBSUB);
                    self.write_to(&client, |version, out| {
                        write_notice(&notice, version, is_subscribed, out);
                    });
                }
                Message::Kill(client) => self.kill(&client),
                Message::Unblock { client, number, reply, need } => {
                    self.unblock(&client, number, (reply, need));
                }
                Message::Migrate(migration) => crate::migrate::start(&self.shared, migration),
                Message::Migrated(migration) => {
                    settle(&self.shared, &mut self.commands, migration);
                }
                Message::Resume => self.is_resuming = true,
                Message::Look => self.gates.begin_look(self.commands.id),
                Message::ResetStats => self.commands.stats.reset(),
            }
        }
    }

    /// Answers a client that waited, and has it go on.
    fn unblock(&mut self, client: &Client, number: u64, (reply, need): (Box<Output>, Need)) {
        let Some(token) = self.connections.token_of(client) else { return };
        let Some(connection) = self.connections.get(token) else { return };
        if connection.session.blocked().is_none_or(|waiter| waiter.number() != number) {
            return;
        }
        let Some(waiter) = connection.session.end_wait() else { return };
        if let Some(at) = waiter.deadline_ms() {
            self.timeouts.remove(&(at, number, token));
        }
        match &mut connection.out {
            _ if waiter.is_silent() => {}
            Some(out) => out.append(&reply),
            None => connection.out = Some(reply),
        }
        self.gates.add(token, &mut vec![need]);
        self.again.push(token);
        self.mark_dirty(token);
    }

    /// Ends waits whose time is over, not too many in one turn.
    pub(super) fn time_out(&mut self) {
        if self.timeouts.is_empty() {
            return;
        }
        let (now_ms, mut served) = (clock::mono_ms(), Vec::new());
        for _ in 0..TIMEOUTS_PER_TURN {
            let Some(&(at, number, token)) = self.timeouts.first().filter(|(at, ..)| *at <= now_ms)
            else {
                break;
            };
            self.timeouts.pop_first();
            let Some(connection) = self.connections.get(token) else { continue };
            let waiter = connection.session.blocked().filter(|waiter| waiter.number() == number);
            let Some(waiter) = waiter.map(Arc::clone) else { continue };
            let client = Arc::clone(&connection.session.client);
            match time_out(&self.shared, &waiter) {
                TimedOut::Now(reply) => self.unblock(&client, number, (reply, Need::Nothing)),
                // It waits on in a moment, or is answered: the next turn knows.
                TimedOut::NotYet => served.push((at, number, token)),
                TimedOut::Before => {}
            }
        }
        self.timeouts.extend(served);
    }

    /// Does what could not be done, or was too much, in another's place or another time.
    pub(super) fn catch_up(&mut self) {
        end_due(&self.shared);
        serve_unserved(&self.shared, &mut self.commands);
        self.is_behind = clear_some(&self.shared);
    }

    fn write_to(&mut self, client: &Client, write: impl FnOnce(Version, &mut Output)) {
        let Some(token) = self.connections.token_of(client) else { return };
        let spare = self.pool.pop();
        let Some(connection) = self.connections.get(token) else { return };
        let out = connection.out.get_or_insert_with(|| spare.unwrap_or_default());
        write(connection.session.version, out);
        self.mark_dirty(token);
    }

    fn kill(&mut self, client: &Client) {
        let Some(token) = self.connections.token_of(client) else { return };
        self.end(token);
    }

    /// Lets clients go on after CLIENT PAUSE.
    pub(super) fn resume_paused(&mut self) {
        for token in self.connections.tokens() {
            let Some(connection) = self.connections.get(token) else { continue };
            if std::mem::take(&mut connection.is_paused) {
                self.feed(token, None, None);
                self.mark_dirty(token);
            }
        }
    }

    pub(super) fn run_timers(&mut self) {
        if self.turn_ended_ms >= self.next_keep_ms {
            self.is_keeping = limit::keep(&self.shared, &mut self.commands);
            self.next_keep_ms = self.turn_ended_ms + if self.is_keeping { 1 } else { TICK_MS };
        }
        let is_due = self.turn_ended_ms >= self.next_tick_ms;
        if !is_due && self.expiring.is_none() {
            return;
        }
        let now_ms = clock::now_ms();
        if is_due {
            self.next_tick_ms = self.turn_ended_ms + TICK_MS;
            self.ticks += 1;
            self.tick(now_ms);
        }
        self.expire(now_ms);
    }

    fn tick(&mut self, now_ms: u64) {
        hypercache_store::give_back_unused();
        if self.commands.id == 0 {
            self.shared.limit.measure(&self.shared);
            self.shared.sampler.sample(&self.shared, now_ms);
            self.shared.hot_keys.tick(&self.shared, now_ms);
            let threshold_ms = self.shared.config.hot.latency_ms.load(Relaxed);
            self.shared.latency.note_growth(threshold_ms);
            hypercache_commands::memcached::flush_if_due(&self.shared, &mut self.commands, now_ms);
            tracking::forget_surplus(&self.shared, &mut self.commands, None);
        }
        if self.expiring.is_none() && self.shared.is_active_expire.load(Relaxed) {
            self.expiring = Some(0);
        }
        let until = self.shared.pause.until_ms.load(Relaxed);
        let pause = &self.shared.pause.until_ms;
        // Unless it was prolonged just now; and only one worker tells of its end.
        let is_over = until != 0 && now_ms >= until;
        if is_over && pause.compare_exchange(until, 0, Relaxed, Relaxed).is_ok() {
            self.shared.resume_all();
        }
        settle_left(&self.shared, &mut self.commands);
        self.shared.key_sample.draw(&self.shared, &mut self.commands);
        self.close_overdue(now_ms);
    }

    /// Closes connections that idle beyond `timeout` or whose output stays above its soft limit.
    fn close_overdue(&mut self, now_ms: u64) {
        let timeout_s = self.shared.config.hot.timeout_s.load(Relaxed);
        if !self.ticks.is_multiple_of(TICKS_PER_SECOND) {
            return;
        }
        for token in self.connections.tokens() {
            let Some(connection) = self.connections.get(token) else { continue };
            let client = &connection.session.client;
            let filling = connection.partial.as_mut().filter(|partial| partial.is_filling);
            if filling.is_some_and(|partial| partial.note_filled(self.driver.filled_bytes(token))) {
                client.active_s.store((now_ms / 1000) as u32, Relaxed);
                self.mark_dirty(token);
                continue;
            }
            let idle_s = (now_ms / 1000).saturating_sub(u64::from(client.active_s.load(Relaxed)));
            let is_idle = timeout_s > 0
                && idle_s > timeout_s
                && !connection.is_paused
                && connection.session.blocked().is_none()
                && !connection.session.is_subscribed()
                && !client.has(ClientFlags::MONITOR);
            let is_above_soft = connection.soft_limit_since != 0;
            if is_idle {
                self.end(token);
            } else if is_above_soft {
                self.mark_dirty(token);
            }
        }
    }

    /// Removes keys whose time is past from this worker's share of the partitions, in slices.
    fn expire(&mut self, now_ms: u64) {
        let Some(mut partition) = self.expiring else { return };
        let started = clock::mono_ns();
        let workers = self.shared.workers();
        while partition < PARTITIONS {
            if partition % workers == self.commands.id {
                let (looked, gone) = self.expire_partition(partition as u16, now_ms);
                self.commands.stats.expired_keys.add(gone as u64);
                if looked < EXPIRE_BATCH {
                    partition += 1;
                }
            } else {
                partition += 1;
            }
            if clock::mono_ns() - started > EXPIRE_SLICE_US * 1000 {
                break;
            }
        }
        tracking::broadcast(&self.shared, &mut self.commands);
        self.catch_up();
        self.expiring = (partition < PARTITIONS).then_some(partition);
        self.commands.stats.expire_nanos.add(clock::mono_ns() - started);
    }

    fn expire_partition(&mut self, partition: u16, now_ms: u64) -> (usize, usize) {
        let shared = &self.shared;
        // What is held, perhaps by a long script, is looked at in the next round.
        let Some(mut shard) = shared.keyspace.try_lock(partition) else { return (0, 0) };
        if !shard.may_remove() {
            return (0, 0);
        }
        let result = shard.expire_due(now_ms, EXPIRE_BATCH);
        if result.0 > 0 {
            if shared.config.hot.notify.load(Relaxed) != 0 {
                let mut notify =
                    |effect: Effect<'_>| hypercache_commands::pubsub::notify(shared, &effect);
                shard.take_notifications(&mut notify);
            }
            self.commands.stats.add_bytes(shard.take_bytes_delta());
        }
        let stale = shard.take_stale();
        shard.leave_ready(&shared.keyspace, partition);
        tracking::end_broadcast(shared, &mut shard);
        drop(shard);
        tracking::tell_without_client(shared, &mut self.commands, stale);
        result
    }
}
