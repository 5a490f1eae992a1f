//! Which requests are measured for HOTKEYS: one of so many, at distances that vary, so that no pattern of
//! requests goes unseen. Hot path: two comparisons and a subtraction per window.

use super::{Window, Worker};
use crate::io::Driver;

/// How a worker samples.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// Requests until the next one that is measured.
    until: usize,
    /// Of so many one is.
    every: u32,
}

impl<D: Driver> Worker<D> {
    /// Marks the requests of a window that are measured.
    #[inline]
    pub(super) fn sample(&mut self, window: &mut Window) {
        let requests = window.parsed.len();
        let every = self.shared.hot_keys.every();
        if self.sampling.until < requests || self.sampling.every != every {
            self.mark_samples(window, every);
        }
        self.sampling.until -= requests;
    }

    #[cold]
    fn mark_samples(&mut self, window: &mut Window, every: u32) {
        let distance =
            |rng: &mut hypercache_stdx::rng::Rng| rng.below(2 * u64::from(every) - 1) as usize;
        let rng = &mut self.commands.rng;
        if self.sampling.every != every {
            self.sampling = Sampling { until: distance(rng), every };
        }
        for (i, parsed) in window.parsed.iter_mut().enumerate() {
            if i == self.sampling.until {
                parsed.is_sampled = true;
                // It takes the way on which it is measured.
                parsed.plain = None;
                self.sampling.until += 1 + distance(rng);
            }
        }
    }
}
