//! `maxmemory-policy`: which keys go when memory is full.
//!
//! A worker that needs room draws some keys of a partition at random, and keeps the best candidates of
//! earlier draws beside them ([`Pool`]). Those that are worth least go, if they still are what they were
//! when they were drawn. What a key is worth is the store's business ([`hypercache_store::evict`]); a policy
//! here says which keys may go, and in which order.
//!
//! Whether there is room is for [`crate::limit`] to say.

use crate::context::Worker;
use crate::keyspace::{Gone, PARTITIONS, partition_and_db};
use crate::shared::Shared;
use crate::tracking;
use hypercache_store::evict::{Mode, Order, Pool, Score, Whereabouts};
use hypercache_store::{BATCH_MAX, Choice};
use smallvec::SmallVec;
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

/// Makes a policy count. What is kept of the keys that are there changes with
/// [`crate::keyspace::Shard::set_mode`], by whoever may wait for their partitions.
pub(crate) fn set_policy(shared: &Shared, name: &str) {
    let number = NAMES.iter().position(|other| *other == name).unwrap_or_default();
    shared.config.hot.eviction.store(number as u8, Relaxed);
    shared.keyspace.uses.set_mode(POLICIES[number].mode);
}

/// A key that is to go, with the score that it was drawn with.
pub(crate) type Victim = (Score, Whereabouts);

/// Candidates of a worker, and the number of the policy that they were drawn for.
#[derive(Debug, Default)]
pub struct Candidates {
    pool: Pool<Whereabouts>,
    policy: u8,
}

/// Draws without a key that goes, at most.
const DRAWS_MAX: usize = 64;

/// Removes keys, `max` of them or a few more at most, until no more than `used_max` bytes are in use.
/// Returns whether that is so or could become so: not if nothing may go.
#[cold]
pub(crate) fn evict_to(shared: &Shared, worker: &mut Worker, used_max: u64, max: usize) -> bool {
    let number = shared.config.hot.eviction.load(Relaxed);
    let Some(choice) = POLICIES[number as usize % POLICIES.len()].choice else { return false };
    if worker.candidates.policy != number {
        worker.candidates = Candidates { policy: number, ..Candidates::default() };
    }
    let mut evicted = 0;
    // Still above after so many: the write goes on, and the next one evicts further.
    while evicted < max && shared.bytes_used() > used_max {
        match evict_some(shared, worker, choice) {
            0 => return false,
            some => evicted += some,
        }
    }
    true
}

/// Removes some keys; returns how many: 0 if there was none that may go.
fn evict_some(shared: &Shared, worker: &mut Worker, choice: Choice) -> usize {
    let plane = shared.cluster.plane();
    // Newcomers in copies of other nodes' partitions are for these to evict.
    let is_own = |at| plane.is_none_or(|plane| plane.is_served(partition_and_db(at).0));
    shared.keyspace.uses.take_newcomers(|at, score| {
        if is_own(at) {
            worker.candidates.pool.offer(score, at);
        }
    });
    for _ in 0..DRAWS_MAX {
        let wanted = draw(shared, worker, choice);
        let taken = worker.candidates.pool.take(wanted.clamp(1, BATCH_MAX));
        let mut victims: SmallVec<[Victim; BATCH_MAX]> = taken.collect();
        shared.keyspace.expect(&victims);
        let partition_of = |(_, at): &Victim| partition_and_db(*at).0;
        victims.sort_unstable_by_key(partition_of);
        let groups = victims.chunk_by(|a, b| partition_of(a) == partition_of(b));
        let gone = groups.map(|group| give_up(shared, worker, group, choice)).sum();
        if gone > 0 || wanted == 0 {
            return gone;
        }
    }
    0
}

/// Draws some candidates. Returns how many of all should go for that: 0 if there is nothing to draw
/// anywhere.
fn draw(shared: &Shared, worker: &mut Worker, choice: Choice) -> usize {
    let Worker { candidates, rng, now_ms, .. } = worker;
    let start = rng.below(PARTITIONS as u64) as usize;
    let mut partitions = (start..start + PARTITIONS).map(|p| (p % PARTITIONS) as u16);
    // The next one that has something to draw.
    let wanted = partitions.find_map(|partition| {
        // One that a long script holds is left alone.
        let shard = shared.keyspace.lock_or_busy(partition).filter(|s| s.may_remove())?;
        let wanted = shard.draw(choice, *now_ms, rng, &mut candidates.pool);
        (wanted > 0).then_some(wanted)
    });
    wanted.unwrap_or_default()
}

/// Gives up keys of one partition that were drawn, and has everybody told who is to know. Returns how many
/// went.
fn give_up(shared: &Shared, worker: &mut Worker, victims: &[Victim], choice: Choice) -> usize {
    let (partition, _) = partition_and_db(victims[0].1);
    let Some(mut shard) = shared.keyspace.lock_or_busy(partition) else { return 0 };
    if !shard.may_remove() {
        return 0;
    }
    let mut gone = 0;
    for &(score, at) in victims {
        let how = shard.give_up(at, (choice, score), worker.now_ms);
        gone += usize::from(how.is_some());
        match how {
            Some(Gone::Evicted) => worker.stats.evicted_keys.add(1),
            Some(Gone::Expired) => worker.stats.expired_keys.add(1),
            None => {}
        }
    }
    if shared.config.hot.notify.load(Relaxed) != 0 {
        shard.take_notifications(&mut |effect| crate::pubsub::notify(shared, &effect));
    }
    let stale = shard.take_stale();
    shard.leave_ready(&shared.keyspace, partition);
    worker.stats.add_bytes(shard.take_bytes_delta());
    drop(shard);
    tracking::tell_without_client(shared, worker, stale);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::bytes_until_full;
    use crate::testing::Harness;
    use hypercache_stdx::clock;

    /// A server whose memory is full with `keys` keys under a policy, of which those with a number that
    /// is no multiple of `deadline` have a deadline.
    fn full(policy: &str, keys: usize, deadline: usize) -> Harness {
        let mut h = Harness::default();
        h.worker.now_ms = clock::now_ms();
        h.run(&format!("CONFIG SET maxmemory-policy {policy}"));
        for n in 0..keys {
            let line = format!("SET {} {}", key(n), "v".repeat(100));
            let with = if n % deadline == 0 { String::new() } else { format!(" EX {}", 100 + n) };
            assert_eq!(h.run(&(line + &with)), b"+OK\r\n");
        }
        limit(&mut h);
        h
    }

    /// Key number `n`. All are of eight partitions, so that what each of these takes counts little.
    fn key(n: usize) -> String {
        format!("{{{}}}key:{n}", n % 8)
    }

    fn limit(h: &mut Harness) {
        let used = h.shared.bytes_used();
        assert_eq!(h.run(&format!("CONFIG SET maxmemory {used}")), b"+OK\r\n");
    }

    fn write(h: &mut Harness, keys: usize) {
        for n in 0..keys {
            let reply = h.run(&format!("SET {} {}", key(10_000 + n), "w".repeat(100)));
            assert_eq!(reply, b"+OK\r\n", "write {n}");
        }
    }

    fn read(h: &mut Harness, keys: std::ops::Range<usize>) {
        keys.for_each(|n| assert_ne!(h.run(&format!("GET {}", key(n))), b""));
    }

    fn kept(h: &mut Harness, keys: impl Iterator<Item = usize>) -> usize {
        // TYPE looks at a key without using it.
        keys.filter(|&n| h.run(&format!("TYPE {}", key(n))) != b"+none\r\n").count()
    }

    #[test]
    fn all_policies_keep_to_the_limit_and_to_the_account() {
        for policy in NAMES.iter().skip(1) {
            let mut h = full(policy, 2000, 2);
            let limit = h.shared.config.hot.maxmemory.load(Relaxed);
            for n in 0..600 {
                let line = format!("SET {} {}", key(10_000 + n), "w".repeat(100));
                assert_eq!(h.run(&line), b"+OK\r\n");
                // Room is made before a write, which then may go beyond by what it is.
                assert!(h.shared.bytes_used() <= limit + 8192, "{policy} at {n}");
            }
            assert!(h.shared.stats[0].evicted_keys.get() > 400, "{policy}");
            let learned = h.shared.keyspace.uses.bytes() as u64;
            assert_eq!(h.shared.bytes_used(), h.bytes_there() + learned, "{policy}");
        }
    }

    #[test]
    fn without_eviction_writes_are_refused() {
        let mut h = full("noeviction", 100, 1);
        h.run("CONFIG SET maxmemory 1");
        assert!(h.run("SET a 1").starts_with(b"-OOM"));
        assert!(h.run("SET a 1 EX 9").starts_with(b"-OOM"), "one that is not plain");
        assert!(h.run(&format!("GET {}", key(3))).starts_with(b"$100\r\n"), "reads go on");
        h.run("CONFIG SET maxmemory-policy volatile-lru");
        assert!(h.run("SET a 1").starts_with(b"-OOM"), "no key has a deadline");
        assert_eq!(h.run("DBSIZE"), b":100\r\n");
    }

    #[test]
    fn workers_share_the_room() {
        let h = Harness::beside(&Shared::new(crate::config::Config::default(), 4));
        assert_eq!(bytes_until_full(&h.shared, 100), isize::MAX, "there is no limit");
        h.shared.config.hot.maxmemory.store(h.shared.bytes_used() + (4 << 30), Relaxed);
        let room = bytes_until_full(&h.shared, 100);
        assert!(room > 100 && room < 2 << 30, "{room}: each has its share");
        h.shared.stats[3].add_bytes(5 << 30);
        assert!(bytes_until_full(&h.shared, 100) < 100, "what is too much is too much for all");
    }

    #[test]
    fn volatile_policies_leave_keys_without_a_deadline() {
        for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
            let mut h = full(policy, 1000, 2);
            write(&mut h, 200);
            assert_eq!(kept(&mut h, (0..1000).step_by(2)), 500, "{policy}");
            assert!(kept(&mut h, (1..1000).step_by(2)) < 400, "{policy}");
        }
    }

    #[test]
    fn the_nearest_deadlines_go_first() {
        let mut h = full("volatile-ttl", 1000, 2);
        write(&mut h, 200);
        let (near, far) = (kept(&mut h, (1..300).step_by(2)), kept(&mut h, (701..1000).step_by(2)));
        assert!(near + 30 < far, "{near} of the nearest, {far} of the farthest");
    }

    #[test]
    fn what_was_not_used_longest_goes_first() {
        let mut h = full("allkeys-lru", 1000, 1);
        h.worker.now_ms += 5000;
        read(&mut h, 0..500);
        assert_eq!(h.run(&format!("OBJECT IDLETIME {}", key(3))), b":0\r\n");
        assert_eq!(h.run(&format!("OBJECT IDLETIME {}", key(800))), b":5\r\n");
        write(&mut h, 200);
        let (used, unused) = (kept(&mut h, 0..500), kept(&mut h, 500..1000));
        assert!(used > 470 && unused < 330, "{used} {unused}");
    }

    #[test]
    fn what_is_used_rarely_goes_first() {
        let mut h = full("allkeys-lfu", 600, 1);
        for _ in 0..12 {
            read(&mut h, 0..300);
        }
        assert_eq!(h.run(&format!("OBJECT FREQ {}", key(500))), b":5\r\n");
        let often = String::from_utf8(h.run(&format!("OBJECT FREQ {}", key(1)))).unwrap();
        let often: u32 = often.trim().trim_start_matches(':').parse().unwrap();
        assert!((6..=12).contains(&often), "{often}");
        assert!(h.run(&format!("OBJECT IDLETIME {}", key(1))).starts_with(b"-ERR An LFU"));
        write(&mut h, 100);
        let (often, rarely) = (kept(&mut h, 0..300), kept(&mut h, 300..600));
        assert!(often > 295 && rarely < 220, "{often} {rarely}");
        h.worker.now_ms += 60_000 * 3;
        assert_eq!(
            h.run(&format!("OBJECT FREQ {}", key(10_099))),
            b":2\r\n",
            "it falls by one a minute"
        );
    }

    #[test]
    fn the_adaptive_policy_keeps_what_is_used_again() {
        let mut h = full("adaptive", 2000, 1);
        for round in 0..40 {
            read(&mut h, 0..500);
            for n in 0..200 {
                let line = format!("SET {} {}", key(10_000 + round * 200 + n), "w".repeat(100));
                assert_eq!(h.run(&line), b"+OK\r\n");
            }
        }
        assert!(kept(&mut h, 0..500) > 480, "they are used again and again");
    }

    #[test]
    fn idle_times_outlive_a_change_of_policy() {
        let mut h = Harness::default();
        h.worker.now_ms = clock::now_ms();
        h.run("SET a 1");
        h.worker.now_ms += 60_000;
        h.run("SET b 1");
        for policy in ["adaptive", "allkeys-lru", "noeviction"] {
            h.run(&format!("CONFIG SET maxmemory-policy {policy}"));
            h.run("SET b 2");
            h.worker.now_ms += 7000;
            assert_eq!(h.run("OBJECT IDLETIME b"), b":7\r\n", "{policy}");
        }
        let idle = String::from_utf8(h.run("OBJECT IDLETIME a")).unwrap();
        let idle: u32 = idle.trim().trim_start_matches(':').parse().unwrap();
        assert!((60..=90).contains(&idle), "{idle}");
    }
}
