//! How far the server's miss-ratio curve is from the exact one.

use super::trace::Trace;
use hypercache_stdx::rng::Rng;
use hypercache_store::mrc::Curve;

/// Sizes at which the curves are compared, evenly from none to all objects.
const SIZES: usize = 1000;

/// Mean of the absolute difference of the hit ratios by the curve and in truth.
pub(super) fn error(trace: &Trace) -> f64 {
    let mut curve = Curve::default();
    for &id in &trace.ids {
        curve.see(Rng::new(u64::from(id)).next_u64());
    }
    let objects = trace.sizes.len();
    let exact = exact_hits(trace);
    let uses = trace.ids.len() as u64;
    let difference = |step: usize| {
        let size = objects * step / SIZES;
        let truth = exact[size] as f64 / uses as f64;
        (curve.hit_ratio(size as f64, uses) - truth).abs()
    };
    (1..=SIZES).map(difference).sum::<f64>() / SIZES as f64
}

/// Hits of a least-recently-used cache of each size, from 0 to all objects.
fn exact_hits(trace: &Trace) -> Vec<u64> {
    let mut tree = vec![0u32; trace.ids.len() + 1];
    let mut last = vec![0usize; trace.sizes.len()];
    let mut hits = vec![0u64; trace.sizes.len() + 1];
    let up_to = |tree: &[u32], mut at: usize| {
        let mut sum = 0;
        while at > 0 {
            sum += tree[at];
            at &= at - 1;
        }
        sum
    };
    let add = |tree: &mut [u32], mut at: usize, by: u32| {
        while at < tree.len() {
            tree[at] = tree[at].wrapping_add(by);
            at += at & at.wrapping_neg();
        }
    };
    for (at, &id) in (1..).zip(&trace.ids) {
        let before = std::mem::replace(&mut last[id as usize], at);
        if before > 0 {
            let between = up_to(&tree, at - 1) - up_to(&tree, before);
            hits[between as usize + 1] += 1;
            add(&mut tree, before, u32::MAX);
        }
        add(&mut tree, at, 1);
    }
    for size in 1..hits.len() {
        hits[size] += hits[size - 1];
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects by a power law that is moved on from time to time, more of them than are sampled.
    fn skewed() -> Trace {
        let (mut rng, objects) = (Rng::new(5), 60_000u32);
        let id = |n: u32, rng: &mut Rng| {
            let rank = (f64::from(objects)).powf(rng.unit()) as u32;
            (rank + n / 100_000 * 500) % objects
        };
        let ids: Vec<u32> = (0..600_000).map(|n| id(n, &mut rng)).collect();
        let (sizes, next) = (vec![1; objects as usize], Vec::new());
        Trace { name: "skewed".to_owned(), ids, sizes, has_sizes: false, next }
    }

    #[test]
    fn exact_hits_are_those_of_a_list() {
        let ids = vec![0, 1, 0, 2, 1, 1, 0];
        let trace = Trace { ids, sizes: vec![1; 3], ..skewed() };
        assert_eq!(exact_hits(&trace), [0, 1, 2, 4]);
    }

    #[test]
    fn the_curve_is_near_the_exact_one() {
        let error = error(&skewed());
        assert!(error < 0.01, "{error}");
    }
}
