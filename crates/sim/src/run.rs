//! One seed from beginning to verdict.

use crate::checks::check_end;
use crate::env::Stats;
use crate::faults::Plan;
use crate::node::index_of;
use crate::wgl::{first_contradiction, is_linearizable};
use crate::world::World;
use hypercache_cluster::gate::Durability;
use hypercache_cluster::mutant::Mutant;
use hypercache_cluster::settings::Settings;
use hypercache_stdx::rng::Rng;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Equal for equal runs.
    pub trace: u64,
    /// Counts.
    pub stats: Stats,
    /// Broken promises; empty when all were kept.
    pub violations: Vec<String>,
    /// Virtual time.
    pub lasted_us: u64,
}

/// Every so many seeds the real store and commands take the place of registers. They are slower.
const REAL_EVERY: u64 = 10;

fn draw_settings(rng: &mut Rng, mutant: Option<Mutant>) -> Settings {
    Settings {
        chunk_bytes: 24 * (1 + rng.below(3) as usize),
        copy_window_bytes: 128 << rng.below(3),
        log_bytes_max: 500 << rng.below(5),
        uncommitted_bytes_max: 300 << rng.below(5),
        read_lease_us: [100_000, 100_000, 400_000][rng.below(3) as usize],
        suspect_us: [200_000, 100_000][rng.below(2) as usize],
        append_bytes_max: 200 << rng.below(5),
        mutant,
        ..Settings::default()
    }
}

/// Runs a seed, with a rule broken or none.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Verdict {
    run_telling(seed, mutant, false).0
}

/// Runs a seed and tells what happened.
#[must_use]
pub fn tell(seed: u64, mutant: Option<Mutant>) -> (Verdict, Vec<String>) {
    run_telling(seed, mutant, true)
}

fn run_telling(seed: u64, mutant: Option<Mutant>, tells: bool) -> (Verdict, Vec<String>) {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::draw(&mut rng);
    plan.is_real = seed.is_multiple_of(REAL_EVERY);
    let mut settings = draw_settings(&mut rng, mutant);
    if plan.is_real {
        // Records of real commands are longer.
        settings.chunk_bytes *= 8;
        settings.copy_window_bytes *= 16;
        settings.log_bytes_max *= 8;
        settings.uncommitted_bytes_max *= 8;
    }
    let is_sync = plan.durability == Durability::Sync;
    let mut world = World::new(rng, plan, settings);
    world.env.story = tells.then(Vec::new);
    world.run();
    let World { mut env, nodes, voters, mut clients, .. } = world;
    if env.violations.is_empty() {
        check_end(&nodes, &voters.truth, &clients.last_write_us, &mut env);
    }
    if env.violations.is_empty() && is_sync {
        clients.finish();
        for (id, config) in &voters.truth.partitions {
            let copies = config
                .isr
                .iter()
                .filter_map(|m| nodes[index_of(m.node)].slots.get(usize::from(id.0)));
            let copies: Vec<_> = copies.collect();
            let (keys, partitions) = (env.plan.keys, u64::from(env.plan.partitions));
            let own = (0..keys).filter(|key| key % partitions == u64::from(id.0));
            for key in own.flat_map(|key| [key, key + keys * partitions]) {
                copies.iter().for_each(|s| clients.read_at_end(key, s.data.get(key)));
            }
        }
        for (key, calls) in &clients.history {
            if !is_linearizable(calls) {
                env.violate(format!("history of key {key} is not linearizable ({})", calls.len()));
                let around = first_contradiction(calls).unwrap_or_default();
                around.iter().for_each(|call| env.tell(|| format!("key {key}: {call:?}")));
            }
        }
    }
    let (trace, stats, lasted_us) = (env.trace, env.stats, env.now_us);
    let verdict = Verdict { seed, trace, stats, violations: env.violations, lasted_us };
    (verdict, env.story.unwrap_or_default())
}
