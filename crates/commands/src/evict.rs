//! `maxmemory-policy`: which keys go when memory is full.
//!
//! A worker that needs room draws a few keys of a partition at random, and keeps the best candidates of
//! earlier draws beside them ([`Pool`]). The one that is worth least goes, if it still is what it was
//! when it was drawn. What a key is worth is the store's business ([`hypercache_store::evict`]); a policy
//! here says which keys may go, and in which order.

use crate::context::Worker;
use crate::keyspace::{Gone, PARTITIONS, partition_and_db};
use crate::shared::Shared;
use crate::tracking;
use hypercache_stdx::clock;
use hypercache_store::Choice;
use hypercache_store::evict::{Mode, Order, Pool, Score, Whereabouts};
use std::sync::atomic::Ordering::Relaxed;

/// One value of `maxmemory-policy`.
#[derive(Debug)]
pub(crate) struct Policy {
    /// As in `redis.conf`.
    name: &'static str,
    /// What is kept of uses.
    mode: Mode,
    /// What goes; `None`: writes are refused.
    choice: Option<Choice>,
}

const fn policy(name: &'static str, mode: Mode, is_volatile: bool, order: Order) -> Policy {
    Policy { name, mode, choice: Some(Choice { is_volatile, order }) }
}

const POLICIES: [Policy; 9] = [
    Policy { name: "noeviction", mode: Mode::Time, choice: None },
    policy("adaptive", Mode::Learned, false, Order::Use),
    policy("allkeys-lru", Mode::Time, false, Order::Use),
    policy("allkeys-lfu", Mode::Frequency, false, Order::Use),
    policy("allkeys-random", Mode::Time, false, Order::Random),
    policy("volatile-lru", Mode::Time, true, Order::Use),
    policy("volatile-lfu", Mode::Frequency, true, Order::Use),
    policy("volatile-random", Mode::Time, true, Order::Random),
    policy("volatile-ttl", Mode::Time, true, Order::Deadline),
];

/// The values of `maxmemory-policy`.
pub(crate) const NAMES: [&str; POLICIES.len()] = {
    let mut names = [""; POLICIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = POLICIES[i].name;
        i += 1;
    }
    names
};

/// Makes a policy count.
pub(crate) fn set_policy(shared: &Shared, name: &str) {
    let number = NAMES.iter().position(|other| *other == name).unwrap_or_default();
    shared.config.hot.eviction.store(number as u8, Relaxed);
    shared.keyspace.set_mode(POLICIES[number].mode, (clock::now_ms() / 1000) as u32);
}

/// Candidates of a worker, and the number of the policy that they were drawn for.
#[derive(Debug, Default)]
pub struct Candidates {
    pool: Pool<Whereabouts>,
    policy: u8,
}

/// Keys evicted at most for one command, so that a limit lowered far does not stall it.
const EVICTIONS_MAX: usize = 1024;
/// Draws for one eviction at most.
const DRAWS_MAX: usize = 64;

/// Whether a write may go on: memory is below the limit, or could be brought there.
#[inline]
pub(crate) fn make_room(shared: &Shared, worker: &mut Worker) -> bool {
    let limit = shared.config.hot.maxmemory.load(Relaxed);
    limit == 0 || shared.bytes_used() <= limit || evict(shared, worker, limit)
}

/// Removes keys until memory is below the limit.
#[cold]
fn evict(shared: &Shared, worker: &mut Worker, limit: u64) -> bool {
    let number = shared.config.hot.eviction.load(Relaxed);
    let Some(choice) = POLICIES[number as usize % POLICIES.len()].choice else { return false };
    if worker.candidates.policy != number {
        worker.candidates = Candidates { policy: number, ..Candidates::default() };
    }
    for _ in 0..EVICTIONS_MAX {
        if shared.bytes_used() <= limit {
            return true;
        }
        if !evict_one(shared, worker, choice) {
            return false;
        }
    }
    // Still above: the write goes on, and the next one evicts further.
    true
}

/// Removes a key; returns whether there was one that may go.
fn evict_one(shared: &Shared, worker: &mut Worker, choice: Choice) -> bool {
    for _ in 0..DRAWS_MAX {
        if !draw(shared, worker, choice) {
            return false;
        }
        while let Some((score, at)) = worker.candidates.pool.take() {
            if give_up(shared, worker, at, (choice, score)) {
                return true;
            }
        }
    }
    false
}

/// Draws from a partition at random, or the next one that has something to draw.
fn draw(shared: &Shared, worker: &mut Worker, choice: Choice) -> bool {
    let Worker { candidates: Candidates { pool, .. }, rng, now_ms, .. } = worker;
    shared.keyspace.uses.take_newcomers(|at, score| pool.offer(score, at));
    let start = rng.below(PARTITIONS as u64) as usize;
    let mut partitions = (start..start + PARTITIONS).map(|p| (p % PARTITIONS) as u16);
    partitions.any(|partition| {
        // One that a long script holds is left alone.
        let shard = shared.keyspace.lock_or_busy(partition);
        shard.is_some_and(|shard| shard.draw(choice, *now_ms, rng, pool))
    })
}

/// Gives up a key that was drawn, and has everybody told who is to know. Returns whether it went.
fn give_up(
    shared: &Shared,
    worker: &mut Worker,
    at: Whereabouts,
    drawn: (Choice, Score),
) -> bool {
    let (partition, _) = partition_and_db(at);
    let Some(mut shard) = shared.keyspace.lock_or_busy(partition) else { return false };
    let Some(gone) = shard.give_up(at, drawn, worker.now_ms) else { return false };
    if shared.config.hot.notify.load(Relaxed) != 0 {
        shard.take_notifications(&mut |effect| crate::pubsub::notify(shared, &effect));
    }
    let stale = shard.take_stale();
    worker.stats.add_bytes(shard.take_bytes_delta());
    drop(shard);
    tracking::tell_without_client(shared, worker, stale);
    match gone {
        Gone::Evicted => worker.stats.evicted_keys.add(1),
        Gone::Expired => worker.stats.expired_keys.add(1),
    }
    true
}
