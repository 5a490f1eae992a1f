//! Rates: how fast some counters grow, over the last 1.6 seconds.

use crate::shared::Shared;
use parking_lot::Mutex;

/// Samples that a rate is the mean of.
const SAMPLES: usize = 16;

/// What is sampled, as totals or per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Commands executed.
    pub commands: u64,
    /// Bytes received.
    pub input_bytes: u64,
    /// Bytes sent.
    pub output_bytes: u64,
}

impl Sampled {
    fn map2(self, other: Sampled, f: impl Fn(u64, u64) -> u64) -> Sampled {
        Sampled {
            commands: f(self.commands, other.commands),
            input_bytes: f(self.input_bytes, other.input_bytes),
            output_bytes: f(self.output_bytes, other.output_bytes),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    last_ms: u64,
    last: Sampled,
    /// Per second.
    rates: [Sampled; SAMPLES],
    next: usize,
}

/// See the module's text. One worker calls [`Sampler::sample`] at its ticks.
#[derive(Debug, Default)]
pub struct Sampler {
    state: Mutex<State>,
}

impl Sampler {
    /// Takes a sample of the counters of all workers.
    pub fn sample(&self, shared: &Shared, now_ms: u64) {
        let totals = Sampled {
            commands: shared.sum(|s| s.commands_processed.get()),
            input_bytes: shared.sum(|s| s.net_input_bytes.get()),
            output_bytes: shared.sum(|s| s.net_output_bytes.get()),
        };
        self.add(totals, now_ms);
        // Asking for the bytes notes their peak.
        let _used = shared.bytes_used();
    }

    fn add(&self, totals: Sampled, now_ms: u64) {
        let mut state = self.state.lock();
        let elapsed_ms = now_ms.saturating_sub(state.last_ms);
        if state.last_ms != 0 && elapsed_ms > 0 {
            // A counter that was reset grew by nothing.
            let rate = |new: u64, old: u64| new.saturating_sub(old) * 1000 / elapsed_ms;
            let next = state.next;
            state.rates[next] = totals.map2(state.last, rate);
            state.next = (next + 1) % SAMPLES;
        }
        (state.last_ms, state.last) = (now_ms, totals);
    }

    /// The mean of the last samples.
    #[must_use]
    pub fn per_second(&self) -> Sampled {
        let state = self.state.lock();
        let sum = state.rates.iter().fold(Sampled::default(), |a, b| a.map2(*b, u64::wrapping_add));
        sum.map2(sum, |n, _| n / SAMPLES as u64)
    }

    /// Forgets all samples, for CONFIG RESETSTAT.
    pub fn reset(&self) {
        *self.state.lock() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_counter_has_its_rate() {
        let sampler = Sampler::default();
        for i in 0..40 {
            let totals = Sampled { commands: 50 * i, input_bytes: 7, output_bytes: 1000 * i };
            sampler.add(totals, 1_000_000 + 100 * i);
        }
        let expected = Sampled { commands: 500, input_bytes: 0, output_bytes: 10_000 };
        assert_eq!(sampler.per_second(), expected);
        sampler.add(Sampled::default(), 2_000_000);
        assert!(sampler.per_second().commands < 500, "a reset counter is no growth");
    }

    #[test]
    fn time_that_stands_still_or_jumps_back_is_survived() {
        let sampler = Sampler::default();
        for now_ms in [5, 5, 3, 0, 9] {
            sampler.add(Sampled { commands: 1, input_bytes: 1, output_bytes: 1 }, now_ms);
        }
        assert_eq!(sampler.per_second(), Sampled::default());
    }
}
