//! From how keys of each class were used to how much it is worth to keep one.
//!
//! The *hazard* of a class at an age is the probability that a key which was not used up to that age is
//! used while it lasts (estimated as Kaplan and Meier do, 1958: those that dropped out of sight count as
//! present for as long as they were watched). The *index* is the best rate of hits that keeping the key
//! can still give,
//!
//! ```text
//! index(age) = max over T of P(used within T | idle for age) / E[time until then, at most T]
//! ```
//!
//! as in Gittins' "Bandit processes and dynamic allocation indices" (1979). All of a class' indices come
//! from one pass from the greatest age to the least, with a stack of stretches of time that are best
//! waited through together, so a computation takes classes times bins steps. (Tried: each maximum by
//! itself, which takes milliseconds.)

use super::state::{BINS, CLASSES, Class, FAMILIES, bin_width};

/// How much weight, in observations, what is known of related classes has.
const PRIOR_WEIGHT: f32 = 8.0;

/// One number per class and step of age.
pub(super) type Grid = Box<[[f32; BINS]; CLASSES]>;

/// An empty grid.
pub(super) fn grid() -> Grid {
    let rows: Box<[[f32; BINS]]> = vec![[0.0; BINS]; CLASSES].into_boxed_slice();
    rows.try_into().expect("it has as many rows")
}

/// Counts of what happened to keys at each age.
#[derive(Clone, Debug)]
struct Counts {
    /// Used again.
    hits: [f32; BINS],
    /// Used again, or lost from sight.
    all: [f32; BINS],
}

impl Counts {
    const ZERO: Counts = Counts { hits: [0.0; BINS], all: [0.0; BINS] };

    fn add(&mut self, hits: &[f32; BINS], lost: &[f32; BINS]) {
        for bin in 0..BINS {
            self.hits[bin] += hits[bin];
            self.all[bin] += hits[bin] + lost[bin];
        }
    }

    /// The hazard per bin, where `prior` gives what to expect of a bin with its weight.
    fn hazard(&self, prior: impl Fn(usize) -> (f32, f32)) -> [f32; BINS] {
        let (mut hazard, mut at_risk) = ([0.0; BINS], 0.0);
        for bin in (0..BINS).rev() {
            at_risk += self.all[bin];
            let (expected, weight) = prior(bin);
            hazard[bin] = (self.hits[bin] + expected * weight) / (at_risk + weight);
        }
        hazard
    }
}

/// Calls `f` with each class and its indices, given what was counted.
pub(super) fn indices(hits: &Grid, lost: &Grid, mut f: impl FnMut(usize, &[f32; BINS])) {
    let mut families = vec![Counts::ZERO; FAMILIES];
    for (class, (hits, lost)) in hits.iter().zip(lost.iter()).enumerate() {
        families[Class::family_of(class)].add(hits, lost);
    }
    let mut everything = Counts::ZERO;
    for family in &families {
        let lost: [f32; BINS] = std::array::from_fn(|bin| family.all[bin] - family.hits[bin]);
        everything.add(&family.hits, &lost);
    }
    let of_all = everything.hazard(|_| (0.05, 1.0));
    let of_family: Vec<_> =
        families.iter().map(|counts| counts.hazard(|bin| (of_all[bin], PRIOR_WEIGHT))).collect();
    for class in 0..CLASSES {
        let mut counts = Counts::ZERO;
        counts.add(&hits[class], &lost[class]);
        let prior = &of_family[Class::family_of(class)];
        f(class, &index_of(&counts.hazard(|bin| (prior[bin], PRIOR_WEIGHT))));
    }
}

/// A stretch of time that is best waited through as one: hits to expect of it, time to expect, and the
/// probability to be unused after it.
#[derive(Clone, Copy)]
struct Stretch {
    hits: f32,
    time: f32,
    survives: f32,
}

impl Stretch {
    fn rate(self) -> f32 {
        self.hits / self.time
    }

    fn then(self, later: Stretch) -> Stretch {
        Stretch {
            hits: self.hits + self.survives * later.hits,
            time: self.time + self.survives * later.time,
            survives: self.survives * later.survives,
        }
    }
}

/// The index at every age, from the hazard at every age.
fn index_of(hazard: &[f32; BINS]) -> [f32; BINS] {
    let mut index = [0.0; BINS];
    let mut later: [Stretch; BINS] = [Stretch { hits: 0.0, time: 1.0, survives: 1.0 }; BINS];
    let mut depth = 0;
    for bin in (0..BINS).rev() {
        let hits = hazard[bin];
        let time = bin_width(bin) * (1.0 - hits / 2.0);
        let mut here = Stretch { hits, time, survives: 1.0 - hits };
        while depth > 0 && later[depth - 1].rate() > here.rate() {
            depth -= 1;
            here = here.then(later[depth]);
        }
        later[depth] = here;
        depth += 1;
        index[bin] = here.rate();
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum as it is defined.
    fn index_by_definition(hazard: &[f32; BINS], from: usize) -> f32 {
        let (mut hits, mut time, mut survives, mut best) = (0.0, 0.0, 1.0, 0.0f32);
        for (bin, chance) in hazard.iter().enumerate().skip(from) {
            hits += survives * chance;
            time += survives * bin_width(bin) * (1.0 - chance / 2.0);
            survives *= 1.0 - chance;
            best = best.max(hits / time);
        }
        best
    }

    #[test]
    fn one_pass_gives_the_maximum() {
        let mut state = 7u32;
        for _ in 0..50 {
            let hazard: [f32; BINS] = std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as f32 / 65536.0 * 0.9
            });
            let index = index_of(&hazard);
            for (bin, got) in index.iter().enumerate() {
                let want = index_by_definition(&hazard, bin);
                assert!((got - want).abs() <= want * 1e-3, "bin {bin}: {got} {want}");
            }
        }
    }

    #[test]
    fn a_class_that_is_used_at_one_age_is_worth_more_the_nearer_it_is() {
        let (mut hits, lost) = (grid(), grid());
        hits[20][30] = 1000.0;
        let mut index = [0.0; BINS];
        indices(&hits, &lost, |class, of| {
            if class == 20 {
                index = *of;
            }
        });
        assert!((1..=30).all(|bin| index[bin] > index[bin - 1]), "{index:?}");
        assert!(index[31] < index[0] / 2.0, "past that age it is not used: {index:?}");
    }
}
