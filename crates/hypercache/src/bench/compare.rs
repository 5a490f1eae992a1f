//! Comparing two servers by ratios of pairs.
//!
//! A machine's speed drifts: clocks, neighbours, caches. Two long runs one after the other
//! compare moments as much as servers. So the servers take turns in short windows, each pair of
//! neighbouring windows gives one ratio, and the median over the pairs is reported: drift slower
//! than a pair cancels, and a disturbed pair does not move a median. Who goes first alternates,
//! so that going first is no advantage either.

use super::measure::Window;

/// A quantity compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Operations per second.
    Throughput,
    /// Median latency in microseconds.
    P50,
    /// 99th percentile of the latency in microseconds.
    P99,
    /// Processor time of the server per operation, in microseconds.
    Cpu,
}

impl Quantity {
    /// All of them, in the order they are reported.
    pub(crate) const ALL: [Quantity; 4] =
        [Quantity::Throughput, Quantity::P50, Quantity::P99, Quantity::Cpu];

    /// What it is called in the table, and in JSON.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Quantity::Throughput => ("throughput (op/s)", "throughput_ops"),
            Quantity::P50 => ("p50 latency (µs)", "p50_us"),
            Quantity::P99 => ("p99 latency (µs)", "p99_us"),
            Quantity::Cpu => ("server CPU (µs/op)", "cpu_us_per_op"),
        }
    }

    fn of(self, window: &Window) -> Option<f64> {
        match self {
            Quantity::Throughput => Some(window.tally.throughput()),
            Quantity::P50 => Some(window.tally.quantile_us(0.5)),
            Quantity::P99 => Some(window.tally.quantile_us(0.99)),
            Quantity::Cpu => window.cpu_us_per_op(),
        }
    }
}

/// How one quantity of two servers compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// The median for the first server.
    pub(crate) first: f64,
    /// The median for the second server.
    pub(crate) second: f64,
    /// The quartiles of the ratios first / second: lower, median, upper.
    pub(crate) ratio: [f64; 3],
}

/// Compares `quantity` over pairs of windows; `None` if it is not known for every one of them.
pub(crate) fn compare(pairs: &[(Window, Window)], quantity: Quantity) -> Option<Comparison> {
    let values: Option<Vec<(f64, f64)>> = pairs
        .iter()
        .map(|(first, second)| Some((quantity.of(first)?, quantity.of(second)?)))
        .collect();
    compare_values(&values?)
}

fn compare_values(values: &[(f64, f64)]) -> Option<Comparison> {
    let first = quartiles(values.iter().map(|pair| pair.0).collect())?[1];
    let second = quartiles(values.iter().map(|pair| pair.1).collect())?[1];
    let ratios = values.iter().map(|(first, second)| first / second);
    let ratio = quartiles(ratios.filter(|ratio| ratio.is_finite()).collect())?;
    Some(Comparison { first, second, ratio })
}

/// The quartiles of `values`, interpolated between neighbours.
fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some([0.25, 0.5, 0.75].map(|quantile| {
        let place = quantile * last as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        values[low] + (values[high] - values[low]) * place.fract()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(quartiles(vec![3.0, 1.0, 2.0]), Some([1.5, 2.0, 2.5]));
        assert_eq!(quartiles(vec![1.0, 2.0]), Some([1.25, 1.5, 1.75]));
        assert_eq!(quartiles(vec![7.0]), Some([7.0; 3]));
        assert_eq!(quartiles(vec![]), None);
    }

    #[test]
    fn ratios_are_of_pairs_and_not_of_medians() {
        // The machine gets slower all the time; the first server is always twice as fast.
        let pairs = [(200.0, 100.0), (20.0, 10.0), (2.0, 1.0)];
        let comparison = compare_values(&pairs).unwrap();
        assert_eq!(comparison.ratio, [2.0; 3]);
        assert_eq!((comparison.first, comparison.second), (20.0, 10.0));
        // Here the ratio of the medians would be 1.
        let crossed = [(1.0, 2.0), (2.0, 4.0), (4.0, 1.0)];
        assert_eq!(compare_values(&crossed).unwrap().ratio[1], 0.5);
    }

    #[test]
    fn nothing_compares_to_nothing() {
        assert_eq!(compare_values(&[]), None);
        assert_eq!(compare_values(&[(1.0, 0.0)]), None);
    }
}
