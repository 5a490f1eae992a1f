//! Which key a request goes to.
//!
//! The Zipf sampler is rejection-inversion (Hörmann and Derflinger, 1996): it needs no table, so
//! a billion keys cost as little to set up as ten, and accepts nearly every first try. Key 0 is
//! the most popular; the server hashes keys, so popular ones need not be scattered here.

use super::random::Random;

/// A way to choose keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// Every key equally often.
    Uniform,
    /// The key of rank `r` in proportion to `r^-theta`.
    Zipf {
        /// The skew; 0.99 is the usual model of a cache.
        theta: f64,
    },
}

impl std::str::FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Distribution, String> {
        let (name, parameter) = text.split_once(':').unwrap_or((text, ""));
        match (name, parameter) {
            ("uniform", "") => Ok(Distribution::Uniform),
            ("zipf", "") => Ok(Distribution::Zipf { theta: 0.99 }),
            ("zipf", theta) => match theta.parse::<f64>() {
                Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Distribution::Zipf { theta }),
                _ => Err("the skew after zipf: is a number above 0 and at most 10".into()),
            },
            _ => Err("write uniform, zipf or zipf:0.99".into()),
        }
    }
}

/// Chooses keys from `0..keys`.
#[derive(Clone, Debug)]
pub(crate) enum KeyChooser {
    /// Every key equally often.
    Uniform {
        /// How many keys there are.
        keys: u64,
    },
    /// Some keys more often than others.
    Zipf(Zipf),
    /// Every key once, in order, for loading.
    Sequential {
        /// The next key.
        next: u64,
    },
}

impl KeyChooser {
    /// A chooser of one of `keys` keys.
    pub(crate) fn new(distribution: &Distribution, keys: u64) -> KeyChooser {
        match distribution {
            Distribution::Uniform => KeyChooser::Uniform { keys },
            Distribution::Zipf { theta } => KeyChooser::Zipf(Zipf::new(keys, *theta)),
        }
    }

    /// The index of the next key.
    pub(crate) fn next(&mut self, random: &mut Random) -> u64 {
        match self {
            KeyChooser::Uniform { keys } => random.below(*keys),
            KeyChooser::Zipf(zipf) => zipf.sample(random),
            KeyChooser::Sequential { next } => {
                *next += 1;
                *next - 1
            }
        }
    }
}

/// A sampler of ranks with probability in proportion to `rank^-theta`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    keys: f64,
    theta: f64,
    integral_at_first: f64,
    integral_at_last: f64,
    /// Distance from a rank within which a candidate is accepted without a closer look.
    shortcut: f64,
}

impl Zipf {
    fn new(keys: u64, theta: f64) -> Zipf {
        let keys = keys.max(1) as f64;
        let inverse = integral_inverse(integral(2.5, theta) - density(2.0, theta), theta);
        Zipf {
            keys,
            theta,
            integral_at_first: integral(1.5, theta) - 1.0,
            integral_at_last: integral(keys + 0.5, theta),
            shortcut: 2.0 - inverse,
        }
    }

    /// A rank, counted from zero.
    fn sample(&self, random: &mut Random) -> u64 {
        let span = self.integral_at_first - self.integral_at_last;
        loop {
            let area = self.integral_at_last + random.unit() * span;
            let x = integral_inverse(area, self.theta);
            let rank = x.round().clamp(1.0, self.keys);
            let bound = integral(rank + 0.5, self.theta) - density(rank, self.theta);
            if rank - x <= self.shortcut || area >= bound {
                return rank as u64 - 1;
            }
        }
    }
}

fn density(x: f64, theta: f64) -> f64 {
    (-theta * x.ln()).exp()
}

/// The integral of the density, written so that it also holds for a skew of exactly one.
fn integral(x: f64, theta: f64) -> f64 {
    let log = x.ln();
    let power = (1.0 - theta) * log;
    let factor = if power.abs() > 1e-8 { power.exp_m1() / power } else { 1.0 + power / 2.0 };
    factor * log
}

fn integral_inverse(area: f64, theta: f64) -> f64 {
    let power = (area * (1.0 - theta)).max(-1.0);
    let factor = if power.abs() > 1e-8 { power.ln_1p() / power } else { 1.0 - power / 2.0 };
    (factor * area).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: u64, theta: f64, samples: u32) -> Vec<u32> {
        let mut random = Random::new(42);
        let mut chooser = KeyChooser::new(&Distribution::Zipf { theta }, keys);
        let mut counts = vec![0; keys as usize];
        for _ in 0..samples {
            counts[chooser.next(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipf_has_the_right_frequencies() {
        for theta in [0.5, 0.99, 1.0, 1.5] {
            let counts = counts(100, theta, 400_000);
            let total: f64 = (1..=100).map(|rank| f64::from(rank).powf(-theta)).sum();
            for rank in [1_u32, 2, 3, 10, 50] {
                let expected = 400_000.0 * f64::from(rank).powf(-theta) / total;
                let seen = f64::from(counts[rank as usize - 1]);
                let tolerance = 5.0 * expected.sqrt();
                assert!((seen - expected).abs() < tolerance, "{theta} {rank} {seen} {expected}");
            }
        }
    }

    #[test]
    fn one_key_is_always_chosen() {
        assert_eq!(counts(1, 0.99, 100), [100]);
    }

    #[test]
    fn sequences_cover_every_key() {
        let mut chooser = KeyChooser::Sequential { next: 5 };
        let keys: Vec<u64> = (0..3).map(|_| chooser.next(&mut Random::new(0))).collect();
        assert_eq!(keys, [5, 6, 7]);
    }

    #[test]
    fn distributions_are_read() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf { theta: 1.2 }));
        for bad in ["zipf:0", "zipf:x", "normal", "uniform:1", "zipf:nan"] {
            assert!(bad.parse::<Distribution>().is_err(), "{bad}");
        }
    }
}
