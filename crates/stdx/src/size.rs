//! Memory sizes as `redis.conf` and `CONFIG SET` write them, and as `INFO` shows them.
//!
//! A bare unit letter is decimal, the same letter with a `b` is binary: `1k` is a thousand bytes,
//! `1kb` is 1024. This is where Redis is stricter and looser than most parsers: no fractions, no
//! spaces, no sign, no unit above the gigabyte, any case. Two spellings that Redis lets through
//! are refused here because they are surely mistakes: no digits at all (which would mean zero,
//! that is, no limit) and sizes past 64 bits (which would be cut off or wrap around).

const UNITS: [(&[u8], u64); 8] = [
    (b"", 1),
    (b"b", 1),
    (b"k", 1000),
    (b"kb", 1 << 10),
    (b"m", 1_000_000),
    (b"mb", 1 << 20),
    (b"g", 1_000_000_000),
    (b"gb", 1 << 30),
];

/// Units of `human_bytes`, each 1024 times the one before.
const HUMAN_UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// Parses a size with an optional unit into bytes.
pub fn parse_bytes(text: &[u8]) -> Option<u64> {
    let digits_end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return None;
    }
    let (_, bytes_per_unit) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let count = digits
        .iter()
        .try_fold(0u64, |sum, byte| sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')))?;
    count.checked_mul(*bytes_per_unit)
}

/// Prints a size with two decimals in the largest binary unit it fills, as `used_memory_human`.
///
/// Below a kilobyte, and from an exabyte on, where the units end, it is a plain count: `512B`.
pub fn human_bytes(bytes: u64) -> String {
    // The index of the last unit reached: each takes ten bits.
    let unit = bytes.checked_ilog2().map_or(0, |log2| log2 / 10);
    let Some(name) = unit.checked_sub(1).and_then(|index| HUMAN_UNITS.get(index as usize)) else {
        return format!("{bytes}B");
    };
    format!("{:.2}{name}", bytes as f64 / (1u64 << (10 * unit)) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_config_set() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1b", 1),
            ("1B", 1),
            ("1k", 1000),
            ("1kb", 1024),
            ("1Kb", 1024),
            ("2m", 2_000_000),
            ("2mB", 2 << 20),
            ("3g", 3_000_000_000),
            ("3GB", 3 << 30),
            ("007kb", 7 << 10),
            ("17179869183gb", 17179869183 << 30),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text.as_bytes()), Some(bytes), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "kb",
            "1t",
            "1.5m",
            " 1",
            "1 ",
            "1 mb",
            "+1",
            "-1",
            "1kbb",
            "1bk",
            "1\0",
            "17179869184gb",
            "18446744073709551616",
            "99999999999999999999999999999999k",
        ] {
            assert_eq!(parse_bytes(text.as_bytes()), None, "{text:?}");
        }
    }

    /// The texts are `maxmemory_human` of Redis 7.0.15.
    #[test]
    fn sizes_print_as_info_shows_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1152, "1.12K"),
            (1536, "1.50K"),
            ((1 << 20) - 1, "1024.00K"),
            (1 << 20, "1.00M"),
            ((1 << 30) - 1, "1024.00M"),
            (1 << 30, "1.00G"),
            (1_476_395_008, "1.38G"),
            ((1 << 40) - 1, "1024.00G"),
            (1 << 40, "1.00T"),
            (1 << 50, "1.00P"),
            ((1 << 60) - 1, "1024.00P"),
            (1 << 60, "1152921504606846976B"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn plain_counts_round_trip(bytes: u64) {
            prop_assert_eq!(parse_bytes(bytes.to_string().as_bytes()), Some(bytes));
        }

        #[test]
        fn human_sizes_are_within_a_hundredth(bytes in 1024u64..1 << 60) {
            let text = human_bytes(bytes);
            let (count, unit) = text.split_at(text.len() - 1);
            let scale = match unit { "K" => 10, "M" => 20, "G" => 30, "T" => 40, _ => 50 };
            let expected = bytes as f64 / (1u64 << scale) as f64;
            prop_assert!((count.parse::<f64>().unwrap() - expected).abs() <= 0.005_001);
        }
    }
}
