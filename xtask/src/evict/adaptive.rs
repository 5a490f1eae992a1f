//! The server's own policy in a simulated cache: the same code as in its table, with objects in a row
//! for the keys in their buckets.

use super::cache::{Cache, Residents, Setup};
use hypercache_stdx::rng::Rng;
use hypercache_store::BATCH_MAX;
use hypercache_store::evict::{Ghosts, Policy, Pool, Score, State};

/// How the policy is used.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Keys in a bucket.
    pub(super) bucket: usize,
    /// Ghosts per key in the cache.
    pub(super) ghosts: usize,
}

/// Of a cache of fewer keys than this times the batch fewer go at once: where the server draws, a 1024th
/// of the keys is, of which 64 are wanted for each.
const KEYS_EACH: usize = 64 * 1024;

/// Keys that came since the last eviction and are candidates for it, by their hash as in the server.
const NEWCOMERS: usize = 16;

/// A candidate that is worth more than this beyond what it was has been used since.
const SLACK: Score = 64;

/// See the module's text.
pub(super) struct Adaptive {
    setup: Setup,
    shape: Shape,
    policy: Policy,
    ghosts: Ghosts,
    residents: Residents,
    states: Vec<State>,
    pool: Pool<u32>,
    newcomers: [Option<u32>; NEWCOMERS],
    rng: Rng,
}

impl Adaptive {
    pub(super) fn new(setup: Setup, shape: Shape) -> Self {
        let objects = setup.objects();
        Adaptive {
            setup,
            shape,
            policy: Policy::new(),
            ghosts: Ghosts::default(),
            residents: Residents::new(objects),
            states: vec![State::default(); objects],
            pool: Pool::default(),
            newcomers: [None; NEWCOMERS],
            rng: Rng::new(1),
        }
    }

    fn hash(id: u32) -> u64 {
        Rng::new(u64::from(id)).next_u64()
    }

    fn score(&self, id: u32) -> Score {
        let (bytes, now) = (self.setup.bytes(id) as u32, self.policy.now());
        self.policy.score(self.states[id as usize], bytes, now)
    }

    /// Evicts some. What of the pool was used since it was drawn, or is gone, is passed over.
    fn evict(&mut self) {
        for newcomer in std::mem::take(&mut self.newcomers).into_iter().flatten() {
            if self.residents.has(newcomer) {
                self.pool.offer(self.score(newcomer), newcomer);
            }
        }
        let batch = (1 + self.residents.len() / KEYS_EACH).min(BATCH_MAX);
        for _ in 0..(batch + 1) * self.shape.bucket {
            let id = self.residents.get(self.rng.below(self.residents.len() as u64) as usize);
            self.pool.offer(self.score(id), id);
        }
        let victims: Vec<_> = self.pool.take(batch).collect();
        for (before, id) in victims {
            if self.residents.has(id) && self.score(id) <= before + SLACK {
                self.residents.remove(id, self.setup.bytes(id));
                self.ghosts.fit(self.residents.len() * self.shape.ghosts);
                self.ghosts.put(Self::hash(id), self.states[id as usize], self.policy.now());
            }
        }
    }
}

impl Cache for Adaptive {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let bytes = self.setup.bytes(id);
        self.policy.advance(1);
        let (hash, now) = (Self::hash(id), self.policy.now());
        let is_hit = self.residents.has(id);
        let before = if is_hit { Some(self.states[id as usize]) } else { self.ghosts.take(hash) };
        let state = before.map_or_else(|| State::new(now), |state| state.used(now));
        self.policy.note(hash, state, || bytes as u32, now);
        if is_hit {
            self.states[id as usize] = state;
            return true;
        }
        if bytes > self.setup.capacity {
            return false;
        }
        self.states[id as usize] = state;
        self.residents.insert(id, bytes);
        self.policy.set_slots(self.residents.len());
        self.newcomers[hash as usize >> 4 & (NEWCOMERS - 1)] = Some(id);
        while self.residents.bytes > self.setup.capacity {
            self.evict();
        }
        false
    }
}
