//! Reference policies that draw candidates at random or order all objects by a number: Redis' LRU and
//! LFU, LHD, GDSF and Belady's optimum. Our own code, after the papers named; Redis' after its
//! documentation.

use super::cache::{Cache, Residents, Setup};
use hypercache_stdx::rng::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Which of Redis' two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Redis {
    Lru,
    Lfu,
}

/// Samples and pool of Redis' defaults.
const REDIS_SAMPLES: usize = 5;
const REDIS_POOL: usize = 16;
/// Requests in a minute, by which counters decay.
const REQUESTS_PER_MINUTE: u64 = 60_000;

/// `allkeys-lru` and `allkeys-lfu`: a few are drawn, the best candidates seen so far stay in a pool. The
/// clock is exact, which is better than the original's.
pub(super) struct RedisLike {
    setup: Setup,
    kind: Redis,
    residents: Residents,
    pool: Vec<u32>,
    used_at: Vec<u64>,
    counter: Vec<u8>,
    rng: Rng,
}

impl RedisLike {
    pub(super) fn new(setup: Setup, kind: Redis) -> Self {
        let objects = setup.objects();
        let (residents, rng) = (Residents::new(objects), Rng::new(1));
        let (used_at, counter) = (vec![0; objects], vec![0; objects]);
        RedisLike { setup, kind, residents, pool: Vec::new(), used_at, counter, rng }
    }

    fn decayed(&self, id: u32, now: u64) -> u8 {
        let minutes = (now - self.used_at[id as usize]) / REQUESTS_PER_MINUTE;
        self.counter[id as usize].saturating_sub(minutes.min(255) as u8)
    }

    /// The greater, the sooner it should go.
    fn rank(&self, id: u32, now: u64) -> u64 {
        match self.kind {
            Redis::Lru => now - self.used_at[id as usize],
            Redis::Lfu => u64::from(255 - self.decayed(id, now)),
        }
    }

    fn touch(&mut self, id: u32, now: u64) {
        let counter = self.decayed(id, now);
        let above = f64::from(counter.saturating_sub(5));
        let rises = counter < 255 && self.rng.unit() < 1.0 / (above * 10.0 + 1.0);
        self.counter[id as usize] = counter + u8::from(rises);
        self.used_at[id as usize] = now;
    }

    fn evict(&mut self, now: u64) {
        for _ in 0..REDIS_SAMPLES {
            let id = self.residents.get(self.rng.below(self.residents.len() as u64) as usize);
            if !self.pool.contains(&id) {
                self.pool.push(id);
            }
        }
        let mut pool = std::mem::take(&mut self.pool);
        pool.retain(|&id| self.residents.has(id));
        pool.sort_by_key(|&id| Reverse(self.rank(id, now)));
        pool.truncate(REDIS_POOL);
        let victim = pool.remove(0);
        self.pool = pool;
        self.residents.remove(victim, self.setup.bytes(victim));
    }
}

impl Cache for RedisLike {
    fn request(&mut self, id: u32, at: usize) -> bool {
        let (now, bytes) = (at as u64, self.setup.bytes(id));
        if self.residents.has(id) {
            self.touch(id, now);
            return true;
        }
        if bytes > self.setup.capacity {
            return false;
        }
        while self.residents.bytes + bytes > self.setup.capacity {
            self.evict(now);
        }
        (self.counter[id as usize], self.used_at[id as usize]) = (5, now);
        self.residents.insert(id, bytes);
        false
    }
}

const LHD_CLASSES: usize = 16;
const LHD_AGES: usize = 1024;
const LHD_SAMPLES: usize = 64;

/// Beckmann, Chen and Cidon, "LHD: improving cache hit rate by maximizing hit density", NSDI 2018, with
/// classes by the sum of the last two ages.
pub(super) struct Lhd {
    setup: Setup,
    residents: Residents,
    used_at: Vec<u32>,
    last_age: Vec<u32>,
    older_age: Vec<u32>,
    hits: Box<[[f32; LHD_AGES]; LHD_CLASSES]>,
    gone: Box<[[f32; LHD_AGES]; LHD_CLASSES]>,
    density: Box<[[f32; LHD_AGES]; LHD_CLASSES]>,
    /// log2 of the requests per step of age.
    coarseness: u32,
    events: u64,
    rng: Rng,
}

impl Lhd {
    pub(super) fn new(setup: Setup) -> Self {
        let objects = setup.objects();
        let grid = || Box::new([[0.0; LHD_AGES]; LHD_CLASSES]);
        let mut density = grid();
        for row in density.iter_mut() {
            row.iter_mut().enumerate().for_each(|(age, d)| *d = 1.0 / (age + 1) as f32);
        }
        let slots = (setup.capacity / setup.bytes_mean().max(1)).max(1);
        Lhd {
            residents: Residents::new(objects),
            used_at: vec![0; objects],
            last_age: vec![0; objects],
            older_age: vec![0; objects],
            hits: grid(),
            gone: grid(),
            density,
            // Ages up to 64 turnovers are told apart.
            coarseness: (slots * 64 / LHD_AGES as u64).max(1).ilog2(),
            events: 0,
            rng: Rng::new(1),
            setup,
        }
    }

    fn age(&self, id: u32, at: usize) -> usize {
        let age = (at as u32 - self.used_at[id as usize]) >> self.coarseness;
        (age as usize).min(LHD_AGES - 1)
    }

    fn class(&self, id: u32) -> usize {
        let id = id as usize;
        let ages =
            (u64::from(self.last_age[id]) + u64::from(self.older_age[id])) >> self.coarseness;
        if ages == 0 {
            return LHD_CLASSES - 1;
        }
        let greatest = 2 * LHD_AGES as u64;
        ((greatest / ages.min(greatest)).ilog2() as usize).min(LHD_CLASSES - 2)
    }

    fn rank(&self, id: u32, at: usize) -> f32 {
        self.density[self.class(id)][self.age(id, at)] / self.setup.bytes(id) as f32
    }

    fn count(&mut self) {
        self.events += 1;
        if !self.events.is_multiple_of((self.residents.len() as u64 / 4).max(2048)) {
            return;
        }
        for class in 0..LHD_CLASSES {
            let (mut hits, mut all, mut time) = (0.0, 0.0, 0.0);
            for age in (0..LHD_AGES).rev() {
                hits += self.hits[class][age];
                all += self.hits[class][age] + self.gone[class][age];
                time += all;
                self.density[class][age] = if time > 1e-3 { hits / time } else { 0.0 };
                self.hits[class][age] *= 0.9;
                self.gone[class][age] *= 0.9;
            }
        }
    }

    fn evict(&mut self, at: usize) {
        let draws = (0..LHD_SAMPLES).map(|_| self.rng.below(self.residents.len() as u64));
        let ids: Vec<u32> = draws.map(|place| self.residents.get(place as usize)).collect();
        let victim = ids.into_iter().min_by(|&a, &b| self.rank(a, at).total_cmp(&self.rank(b, at)));
        let victim = victim.expect("some were drawn");
        self.gone[self.class(victim)][self.age(victim, at)] += 1.0;
        self.count();
        self.residents.remove(victim, self.setup.bytes(victim));
    }
}

impl Cache for Lhd {
    fn request(&mut self, id: u32, at: usize) -> bool {
        let bytes = self.setup.bytes(id);
        let number = id as usize;
        if self.residents.has(id) {
            self.hits[self.class(id)][self.age(id, at)] += 1.0;
            self.count();
            self.older_age[number] = self.last_age[number];
            self.last_age[number] = at as u32 - self.used_at[number];
            self.used_at[number] = at as u32;
            return true;
        }
        if bytes > self.setup.capacity {
            return false;
        }
        while self.residents.bytes + bytes > self.setup.capacity {
            self.evict(at);
        }
        self.used_at[number] = at as u32;
        (self.last_age[number], self.older_age[number]) = (u32::MAX >> 1, u32::MAX >> 1);
        self.residents.insert(id, bytes);
        false
    }
}

/// Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy", 1998.
pub(super) struct Gdsf {
    setup: Setup,
    bytes: u64,
    /// Priorities in order; positive numbers sort as their bits do.
    order: BTreeSet<(u64, u32)>,
    priority: Vec<f64>,
    uses: Vec<u32>,
    inflation: f64,
}

impl Gdsf {
    pub(super) fn new(setup: Setup) -> Self {
        let objects = setup.objects();
        let (priority, uses) = (vec![0.0; objects], vec![0; objects]);
        Gdsf { setup, bytes: 0, order: BTreeSet::new(), priority, uses, inflation: 0.0 }
    }

    fn enter(&mut self, id: u32) {
        let worth = f64::from(self.uses[id as usize]) / self.setup.bytes(id) as f64;
        let priority = self.inflation + worth;
        self.priority[id as usize] = priority;
        self.order.insert((priority.to_bits(), id));
    }
}

impl Cache for Gdsf {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let number = id as usize;
        if self.uses[number] > 0 {
            self.order.remove(&(self.priority[number].to_bits(), id));
            self.uses[number] += 1;
            self.enter(id);
            return true;
        }
        let bytes = self.setup.bytes(id);
        if bytes > self.setup.capacity {
            return false;
        }
        while self.bytes + bytes > self.setup.capacity {
            let (priority, victim) = self.order.pop_first().expect("something takes the bytes");
            self.inflation = f64::from_bits(priority);
            self.uses[victim as usize] = 0;
            self.bytes -= self.setup.bytes(victim);
        }
        self.uses[number] = 1;
        self.bytes += bytes;
        self.enter(id);
        false
    }
}

/// Samples of the optimum where sizes differ.
const BELADY_SAMPLES: u64 = 128;

/// Belady, "A study of replacement algorithms for a virtual-storage computer", 1966: gives up what is
/// used latest. Exact where all objects have one size; else, of a sample, what has the greatest product
/// of size and time to its next use, which is no optimum but near.
pub(super) struct Belady {
    setup: Setup,
    residents: Residents,
    next: Vec<u32>,
    order: BinaryHeap<(u32, u32)>,
    rng: Rng,
}

impl Belady {
    pub(super) fn new(setup: Setup) -> Self {
        let objects = setup.objects();
        let (residents, next) = (Residents::new(objects), vec![0; objects]);
        Belady { setup, residents, next, order: BinaryHeap::new(), rng: Rng::new(1) }
    }

    fn victim(&mut self, at: usize) -> u32 {
        if self.setup.trace.has_sizes {
            let draws = (0..BELADY_SAMPLES).map(|_| self.rng.below(self.residents.len() as u64));
            let ids = draws.map(|place| self.residents.get(place as usize));
            let cost = |id: &u32| {
                let wait = u64::from(self.next[*id as usize]) - at as u64;
                u128::from(wait) * u128::from(self.setup.bytes(*id))
            };
            return ids.max_by_key(cost).expect("some were drawn");
        }
        loop {
            let (next, id) = self.order.pop().expect("something takes the bytes");
            if self.residents.has(id) && self.next[id as usize] == next {
                return id;
            }
        }
    }
}

impl Cache for Belady {
    fn request(&mut self, id: u32, at: usize) -> bool {
        let (next, bytes) = (self.setup.trace.next[at], self.setup.bytes(id));
        let is_hit = self.residents.has(id);
        self.next[id as usize] = next;
        if !is_hit && bytes <= self.setup.capacity {
            self.residents.insert(id, bytes);
        }
        if !self.setup.trace.has_sizes {
            self.order.push((next, id));
        }
        // The newcomer is a candidate, too.
        while self.residents.bytes > self.setup.capacity {
            let victim = self.victim(at);
            self.residents.remove(victim, self.setup.bytes(victim));
        }
        is_hit
    }
}
