//! What the policy costs in the real table: a hit, and an eviction.

use hypercache_stdx::clock;
use hypercache_stdx::hash::KeyHasher;
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Mode, Order, Pool, Uses, Whereabouts};
use hypercache_store::{Ahead, Choice, Db, Key, Live, Payload, Ttl};
use std::sync::Arc;

const KEYS: u64 = 1_000_000;
/// What is timed together, and how often; the least time counts, since others use the machine too.
const BATCH: usize = 64;
const ROUNDS: usize = 4000;
const NOW_MS: u64 = 1_000_000_000;
const NOW_S: u32 = (NOW_MS / 1000) as u32;
const CHOICE: Choice = Choice { is_volatile: false, order: Order::Use };

/// A database with keys that are hit and evicted.
struct Bench {
    db: Db,
    hasher: KeyHasher,
    rng: Rng,
    next: u64,
    ahead: Ahead,
}

impl Bench {
    fn new(mode: Mode) -> Bench {
        let (hasher, uses) = (KeyHasher::new((1, 2)), Arc::<Uses>::default());
        uses.set_mode(mode);
        let db = Db::with_uses(hasher, NOW_MS, uses, 0);
        let mut bench = Bench { db, hasher, rng: Rng::new(1), next: 0, ahead: Ahead::default() };
        (0..KEYS).for_each(|_| bench.insert());
        (0..4 * KEYS).for_each(|_| bench.hit());
        bench
    }

    fn insert(&mut self) {
        let key = format!("key:{:012}", self.next);
        self.next += 1;
        let key = Key::new(key.as_bytes(), self.hasher.hash(key.as_bytes()));
        self.db.set(key, Payload::Slice(&[7; 64]), Ttl::Clear, NOW_S);
    }

    fn hit(&mut self) {
        let number = self.next - 1 - self.rng.below(KEYS);
        let key = format!("key:{number:012}");
        let key = Key::new(key.as_bytes(), self.hasher.hash(key.as_bytes()));
        if let Live::Is(entry) = self.db.get_live(key, NOW_MS, Some(NOW_S)) {
            std::hint::black_box(entry.use_bits());
        }
    }

    fn evict(&mut self, pool: &mut Pool<Whereabouts>) {
        loop {
            let Bench { db, rng, ahead, .. } = self;
            let victim = pool.take();
            let gone = victim.and_then(|(score, at)| db.give_up(at, (CHOICE, score), NOW_MS));
            db.draw(
                CHOICE,
                NOW_MS,
                ahead,
                |n| rng.below(n),
                |score, at| {
                    if pool.wants(score) {
                        pool.offer(score, at());
                    }
                },
            );
            if let Some(worst) = pool.worst() {
                db.expect(*worst);
            }
            if gone.is_some() {
                return;
            }
        }
    }
}

/// Quantiles of the time of one of a batch, in ns: the least, half of them, 99 in 100.
fn time(mut once: impl FnMut()) -> [u64; 3] {
    let mut times: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let started = clock::mono_ns();
            (0..BATCH).for_each(|_| once());
            (clock::mono_ns() - started) / BATCH as u64
        })
        .collect();
    times.sort_unstable();
    [times[0], times[ROUNDS / 2], times[ROUNDS * 99 / 100]]
}

/// Prints times per mode.
pub(super) fn print() {
    println!(
        "| what is kept of uses | hit, ns: least, median, p99 | eviction, ns: least, median, p99 |"
    );
    println!("|---|---|---|");
    for mode in [Mode::Time, Mode::Frequency, Mode::Learned] {
        let (mut bench, mut pool) = (Bench::new(mode), Pool::default());
        let hit = time(|| bench.hit());
        let evict = time(|| bench.evict(&mut pool));
        println!("| {mode:?} | {hit:?} | {evict:?} |");
    }
}
