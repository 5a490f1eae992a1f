//! What the policy costs in the real table: a hit, and an eviction.

use hypercache_stdx::clock;
use hypercache_stdx::hash::KeyHasher;
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Mode, Order, Pool, Uses, Whereabouts};
use hypercache_store::{BATCH_MAX, Choice, CoreCell, Db, Key, Live, Payload, Ttl, expect};
use std::sync::Arc;

const KEYS: u64 = 1_000_000;
/// What is timed together, and how often; the least time counts, since others use the machine too.
const BATCH: usize = 8 * BATCH_MAX;
const ROUNDS: usize = 4000;
const NOW_MS: u64 = 1_000_000_000;
const NOW_S: u32 = (NOW_MS / 1000) as u32;
const CHOICE: Choice = Choice { is_volatile: false, order: Order::Use };

/// A database with keys that are hit and evicted.
struct Bench {
    db: Db,
    core: CoreCell,
    hasher: KeyHasher,
    rng: Rng,
    next: u64,
    pool: Pool<Whereabouts>,
}

impl Bench {
    fn new(mode: Mode) -> Bench {
        let (hasher, uses) = (KeyHasher::new((1, 2)), Arc::<Uses>::default());
        uses.set_mode(mode);
        let db = Db::with_uses(hasher, NOW_MS, uses, 0);
        let core = CoreCell::new();
        core.set(Some(db.core()));
        let mut bench =
            Bench { db, core, hasher, rng: Rng::new(1), next: 0, pool: Pool::default() };
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

    /// Evicts some keys, as the server does; returns how many.
    fn evict(&mut self) -> usize {
        let Bench { db, core, rng, pool, .. } = self;
        let wanted = db.draw(CHOICE, NOW_MS, rng, pool);
        let victims: Vec<_> = pool.take(wanted).collect();
        expect(victims.iter().map(|(_, at)| (at.hash(), core.hint())));
        let gone =
            victims.iter().filter_map(|(score, at)| db.give_up(*at, (CHOICE, *score), NOW_MS));
        gone.count()
    }

    /// Evicts [`BATCH`] keys.
    fn evict_batch(&mut self) {
        let mut evicted = 0;
        while evicted < BATCH {
            evicted += self.evict();
        }
    }
}

/// Quantiles of the time of one of a batch, in ns: the least, half of them, 99 in 100.
fn time(mut batch: impl FnMut()) -> [u64; 3] {
    let mut times: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let started = clock::mono_ns();
            batch();
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
        let mut bench = Bench::new(mode);
        let hit = time(|| (0..BATCH).for_each(|_| bench.hit()));
        let evict = time(|| bench.evict_batch());
        println!("| {mode:?} | {hit:?} | {evict:?} |");
    }
}
