//! The server's own policy in a simulated cache: the same code as in its table, with objects in a row
//! for the keys in their buckets.

use super::cache::{Cache, Residents, Setup};
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Ghosts, Policy, State};

/// How the policy is used.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Keys that a victim is chosen among.
    pub(super) samples: usize,
    /// Ghosts per key in the cache.
    pub(super) ghosts: usize,
    /// Victims of one sample.
    pub(super) batch: usize,
}

/// Neighbours that are looked at together, as the keys of a bucket are.
const RUN: usize = 8;

/// See the module's text.
pub(super) struct Adaptive {
    setup: Setup,
    shape: Shape,
    policy: Policy,
    ghosts: Ghosts,
    residents: Residents,
    states: Vec<State>,
    /// Victims to come, the next one last.
    victims: Vec<u32>,
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
            victims: Vec::new(),
            rng: Rng::new(1),
        }
    }

    fn hash(id: u32) -> u64 {
        Rng::new(u64::from(id)).next_u64()
    }

    fn draw(&mut self, newcomer: u32) {
        let now = self.policy.now();
        let Adaptive { setup, shape, policy, residents, states, rng, victims, .. } = self;
        let runs = (shape.samples / RUN).max(1);
        let mut candidates: Vec<u32> = Vec::with_capacity(shape.samples + 1);
        if residents.len() <= shape.samples {
            candidates.extend((0..residents.len()).map(|place| residents.get(place)));
        } else {
            for _ in 0..runs {
                let start = rng.below(residents.len() as u64) as usize;
                candidates.extend((start..start + RUN).map(|place| residents.get(place)));
            }
            candidates.push(newcomer);
        }
        let score = |id: u32| policy.score(states[id as usize], setup.bytes(id) as u32, now);
        let mut scored: Vec<_> = candidates.into_iter().map(|id| (score(id), id)).collect();
        scored.sort_unstable();
        scored.dedup();
        scored.truncate(shape.batch);
        victims.extend(scored.into_iter().rev().map(|(_, id)| id));
    }

    fn evict(&mut self, newcomer: u32) {
        if self.victims.is_empty() {
            self.draw(newcomer);
        }
        let Some(id) = self.victims.pop() else { return };
        if !self.residents.has(id) {
            return;
        }
        self.residents.remove(id, self.setup.bytes(id));
        self.ghosts.fit(self.residents.len() * self.shape.ghosts);
        self.ghosts.put(Self::hash(id), self.states[id as usize], self.policy.now());
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
        self.policy.note(hash, state, bytes as u32, now);
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
