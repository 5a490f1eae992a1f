//! A histogram of latencies, small enough to have one per command and per thread.
//!
//! Buckets are log-linear, the layout HdrHistogram made known: every power of two is cut into
//! sixteen equal parts, and values below sixteen have a bucket each. A value is off by at most
//! half a bucket, that is by 1/32 of itself, over the whole range of 64 bits; nothing is clamped.
//!
//! Cost: recording is a count of leading zeros, a shift and three additions, and never
//! allocates. The size is fixed, below 8 KiB. Percentiles walk the 976 buckets, which is fine for
//! `INFO latencystats` and `LATENCY HISTOGRAM`. It is not shared: each thread records into its
//! own, and readers merge them.

/// Each power of two is cut into two to this power parts.
const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;
const BUCKETS: usize = (64 - PART_BITS as usize + 1) * PARTS;

/// The first limit of `LATENCY HISTOGRAM` is 1024 ns, as a power of two.
const FIRST_LIMIT_BITS: u32 = 10;
/// Its last limit is 2^30 ns: Redis counts what took longer as if it took a second.
const LAST_LIMIT_BITS: u32 = 30;

const _: () = assert!(size_of::<Histogram>() <= 8 * 1024);

/// Counts of values, in nanoseconds, by logarithmic buckets.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    max_ns: u64,
    sum_ns: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Histogram {
        Histogram { counts: [0; BUCKETS], count: 0, max_ns: 0, sum_ns: 0 }
    }

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        self.counts[bucket_of(value_ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(value_ns);
        self.sum_ns += u128::from(value_ns);
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns += other.sum_ns;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Histogram::new();
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The greatest value, exactly; zero if there is none.
    pub fn max(&self) -> u64 {
        self.max_ns
    }

    /// The mean of the values; zero if there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum_ns as f64 / self.count as f64
    }

    /// The value that `percent` of the values do not exceed, within 1/32 of it; zero if there are
    /// no values. At 100 it is the greatest, exactly.
    pub fn percentile(&self, percent: f64) -> u64 {
        // Rounded to the nearest rank, as Redis does. A NaN becomes the first.
        let rank = (percent / 100.0 * self.count as f64 + 0.5) as u64;
        if rank >= self.count {
            return self.max_ns;
        }
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return middle_of(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// The distribution `LATENCY HISTOGRAM` shows: limits in microseconds, twice the one before,
    /// each with the count of values below it. Limits that add nothing are left out.
    ///
    /// The limits are powers of two in nanoseconds, shown in whole microseconds as Redis shows
    /// them (1, 2, 4, 8, 16, 33, ... 1073741); the last holds all that is slower as well.
    pub fn buckets_pow2(&self) -> BucketsPow2<'_> {
        BucketsPow2 { histogram: self, limit_bits: FIRST_LIMIT_BITS, next_bucket: 0, below: 0 }
    }
}

/// Iterator over limits in microseconds and cumulative counts; see `Histogram::buckets_pow2`.
#[derive(Clone, Debug)]
pub struct BucketsPow2<'a> {
    histogram: &'a Histogram,
    limit_bits: u32,
    /// The first bucket not counted yet.
    next_bucket: usize,
    /// How many values are in the buckets before it.
    below: u64,
}

impl Iterator for BucketsPow2<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        while self.limit_bits <= LAST_LIMIT_BITS {
            let limit_bits = self.limit_bits;
            let is_last = limit_bits == LAST_LIMIT_BITS;
            let end = if is_last { BUCKETS } else { bucket_of(1 << limit_bits) };
            let added: u64 = self.histogram.counts[self.next_bucket..end].iter().sum();
            self.limit_bits += 1;
            self.next_bucket = end;
            self.below += added;
            if added > 0 {
                return Some((shown_limit_us(limit_bits), self.below));
            }
        }
        None
    }
}

/// How Redis shows the limit of 2^`limit_bits` ns.
///
/// It takes the end of the limit's own bucket, which is a 128th wide there, except for the last,
/// where its range ends.
fn shown_limit_us(limit_bits: u32) -> u64 {
    let limit_ns = 1u64 << limit_bits;
    if limit_bits == LAST_LIMIT_BITS {
        return limit_ns / 1000;
    }
    (limit_ns + limit_ns / 128 - 1) / 1000
}

/// The bucket a value is counted in.
#[inline]
fn bucket_of(value: u64) -> usize {
    let Some(log2) = value.checked_ilog2() else { return 0 };
    // The value's top bits, the highest of which is always set from sixteen on, so that each
    // power of two starts where the one before ended.
    let shift = log2.saturating_sub(PART_BITS);
    shift as usize * PARTS + (value >> shift) as usize
}

/// The value in the middle of a bucket.
fn middle_of(bucket: usize) -> u64 {
    if bucket < 2 * PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    let start = ((bucket % PARTS + PARTS) as u64) << shift;
    start + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
        for log2 in 1..64 {
            let power = 1u64 << log2;
            assert_eq!(bucket_of(power), bucket_of(power - 1) + 1);
        }
    }

    #[test]
    fn an_empty_histogram_is_all_zeros() {
        let empty = Histogram::new();
        assert_eq!((empty.count(), empty.max(), empty.percentile(50.0)), (0, 0, 0));
        assert_eq!(empty.mean(), 0.0);
        assert_eq!(empty.buckets_pow2().count(), 0);
    }

    #[test]
    fn odd_percentages_have_an_answer() {
        let histogram = of(1..=10);
        assert_eq!(histogram.percentile(f64::NAN), 1);
        assert_eq!(histogram.percentile(-5.0), 1);
        assert_eq!(histogram.percentile(500.0), 10);
        assert_eq!(histogram.percentile(f64::INFINITY), 10);
        assert_eq!(histogram.percentile(50.0), 5);
    }

    /// The limits, and which of them takes the slow ones, are as Redis 7.0.15 shows them.
    #[test]
    fn limits_are_those_of_latency_histogram() {
        let histogram = of([
            500,
            1000,
            1500,
            3_000,
            5_000,
            9_000,
            20_000,
            40_000,
            1_500_000,
            3_500_000,
            600_000_000,
            1_500_000_000,
        ]);
        let shown: Vec<_> = histogram.buckets_pow2().collect();
        let expected = [
            (1, 2),
            (2, 3),
            (4, 4),
            (8, 5),
            (16, 6),
            (33, 7),
            (66, 8),
            (2113, 9),
            (4227, 10),
            (1_073_741, 12),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn clearing_forgets_everything() {
        let mut histogram = of([1, u64::MAX, u64::MAX]);
        assert_eq!((histogram.count(), histogram.max()), (3, u64::MAX));
        histogram.clear();
        assert_eq!((histogram.count(), histogram.max(), histogram.mean()), (0, 0, 0.0));
        assert_eq!(histogram.buckets_pow2().count(), 0);
    }

    fn latencies() -> impl Strategy<Value = Vec<u64>> {
        let latency = (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift);
        proptest::collection::vec(latency, 1..200)
    }

    proptest! {
        #[test]
        fn percentiles_are_within_a_32nd(mut values in latencies(), percent in 0.0..=100.0) {
            let histogram = of(values.iter().copied());
            values.sort_unstable();
            let rank = (percent / 100.0 * values.len() as f64 + 0.5) as usize;
            let exact = values[rank.max(1) - 1];
            prop_assert!(histogram.percentile(percent).abs_diff(exact) <= exact / 32);
            prop_assert_eq!(histogram.percentile(100.0), values[values.len() - 1]);
        }

        #[test]
        fn merging_is_recording_both(left in latencies(), right in latencies()) {
            let mut merged = of(left.iter().copied());
            merged.merge(&of(right.iter().copied()));
            let both = of(left.into_iter().chain(right));
            prop_assert_eq!(merged.counts, both.counts);
            prop_assert_eq!((merged.count(), merged.max()), (both.count(), both.max()));
            prop_assert_eq!(merged.mean(), both.mean());
        }

        #[test]
        fn limits_count_what_is_below_them(values in latencies()) {
            let histogram = of(values.iter().copied());
            let mut last = 0;
            for (limit_us, below) in histogram.buckets_pow2() {
                // What is shown is less than a microsecond below the limit, and a little above.
                let limit_ns = 1u64 << (limit_us * 1000 + 999).ilog2();
                let is_last = limit_us == 1_073_741;
                let expected = values.iter().filter(|value| is_last || **value < limit_ns).count();
                prop_assert_eq!(below, expected as u64);
                prop_assert!(below > last);
                last = below;
            }
            prop_assert_eq!(last, histogram.count());
        }
    }
}
