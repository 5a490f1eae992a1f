//! The server's own policy in a simulated cache: the same code as in its table, with objects in a row
//! for the keys in their buckets.

use super::cache::{Cache, Residents, Setup};
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Ghosts, Policy, Pool, Score, State};

/// How the policy is used.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Keys that a victim is chosen among.
    pub(super) samples: usize,
    /// Ghosts per key in the cache.
    pub(super) ghosts: usize,
}

/// Neighbours that are looked at together, as the keys of a bucket are.
const RUN: usize = 8;

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

    fn draw(&mut self) {
        for _ in 0..self.shape.samples.div_ceil(RUN) {
            let start = self.rng.below(self.residents.len() as u64) as usize;
            for place in start..start + RUN {
                let id = self.residents.get(place);
                self.pool.offer(self.score(id), id);
            }
        }
    }

    /// Gives one up. What of the pool was used since it was drawn, or is gone, is passed over.
    fn evict(&mut self, newcomer: u32) {
        self.pool.offer(self.score(newcomer), newcomer);
        loop {
            let victim = self.pool.take();
            let is_as_drawn = |(before, id): &(Score, u32)| {
                self.residents.has(*id) && self.score(*id) <= before + SLACK
            };
            let victim = victim.filter(is_as_drawn);
            if let Some((_, id)) = victim {
                self.residents.remove(id, self.setup.bytes(id));
                self.ghosts.fit(self.residents.len() * self.shape.ghosts);
                self.ghosts.put(Self::hash(id), self.states[id as usize], self.policy.now());
            }
            if self.residents.len() > 0 {
                self.draw();
            }
            if victim.is_some() {
                return;
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
        while self.residents.bytes > self.setup.capacity {
            self.evict(id);
        }
        false
    }
}
