//! What the two float parsers share: hexadecimal floats and rounding to a number of bits.
//!
//! Both work on a value written as `mantissa * 2^exponent`, plus a `sticky` flag that says some
//! lower, nonzero digits were left out. Mantissa and flag together decide every
//! round-to-nearest-even exactly, as long as the mantissa keeps a bit more than the result (the
//! usual guard and sticky bits of hardware adders). Cost: one pass over the text, and a handful
//! of shifts for the rounding.

/// Exponents are clamped to this magnitude: beyond it every result overflows or vanishes, and
/// sums with text lengths stay far from the ends of `i64`.
const EXPONENT_CLAMP: i64 = 1 << 40;

/// A hexadecimal float as written: `mantissa * 2^exponent`, and a bit more when `sticky`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HexFloat {
    pub(crate) mantissa: u128,
    pub(crate) sticky: bool,
    pub(crate) exponent: i64,
}

/// Takes a leading `+` or `-` off; true means negative.
pub(crate) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Takes the run of ASCII digits off the front.
pub(crate) fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads what may follow a mantissa: nothing (0), or `marker`, a sign and at least one digit.
///
/// `marker` is the lower-case letter; both cases are accepted.
pub(crate) fn parse_exponent(text: &[u8], marker: u8) -> Option<i64> {
    let [first, rest @ ..] = text else { return Some(0) };
    if first.to_ascii_lowercase() != marker {
        return None;
    }
    let (negative, unsigned) = split_sign(rest);
    let (digits, garbage) = split_digits(unsigned);
    if digits.is_empty() || !garbage.is_empty() {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |sum, byte| {
        (sum.saturating_mul(10).saturating_add(i64::from(byte - b'0'))).min(EXPONENT_CLAMP)
    });
    Some(if negative { -magnitude } else { magnitude })
}

/// Parses an unsigned C99 hexadecimal float, `0x1.8p3`; the exponent part is optional.
pub(crate) fn parse_hex(text: &[u8]) -> Option<HexFloat> {
    let [b'0', b'x' | b'X', body @ ..] = text else { return None };
    let mut value = HexFloat { mantissa: 0, sticky: false, exponent: 0 };
    let mut digits_seen = false;
    let mut after_point = false;
    let mut used = 0;
    for &byte in body {
        if byte == b'.' && !after_point {
            after_point = true;
            used += 1;
            continue;
        }
        let Some(digit) = char::from(byte).to_digit(16) else { break };
        digits_seen = true;
        used += 1;
        value.push_digit(digit, after_point);
    }
    if !digits_seen {
        return None;
    }
    value.exponent += parse_exponent(&body[used..], b'p')?;
    Some(value)
}

impl HexFloat {
    /// Appends a digit; once the mantissa is full, lower digits only count as `sticky`.
    fn push_digit(&mut self, digit: u32, after_point: bool) {
        let full = self.mantissa >> 120 != 0;
        if full {
            self.sticky |= digit != 0;
        } else {
            self.mantissa = self.mantissa << 4 | u128::from(digit);
        }
        match (full, after_point) {
            (false, true) => self.exponent -= 4,
            (true, false) => self.exponent += 4,
            _ => {}
        }
    }
}

/// Rounds `mantissa * 2^exponent` to the nearest value, ties to even, that has at most
/// `precision` bits and whose last bit is worth at least `2^min_exponent`.
///
/// The mantissa must be below 2^127, and have more than `precision` bits when `sticky` is set.
/// The result is not normalised: a short mantissa stays short.
pub(crate) fn round_to_bits(
    mantissa: u128,
    sticky: bool,
    exponent: i64,
    precision: u32,
    min_exponent: i64,
) -> (u64, i64) {
    debug_assert!(mantissa >> 127 == 0 && precision <= 64);
    let bits = 128 - mantissa.leading_zeros();
    let shift = (i64::from(bits) - i64::from(precision)).max(min_exponent - exponent);
    if mantissa == 0 || shift > 127 {
        // Below 2^127 and shifted by more than 127: less than half of the last place.
        return (0, min_exponent);
    }
    if shift <= 0 {
        debug_assert!(!sticky);
        return (mantissa as u64, exponent);
    }
    let kept = mantissa >> shift;
    let dropped = mantissa & ((1 << shift) - 1);
    let half = 1 << (shift - 1);
    let up = dropped > half || (dropped == half && (sticky || kept & 1 == 1));
    let rounded = kept + u128::from(up);
    let exponent = exponent + shift;
    if rounded >> precision != 0 {
        // The carry ran through every bit, so the bit dropped here is a zero.
        return ((rounded >> 1) as u64, exponent + 1);
    }
    (rounded as u64, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_unless_sticky() {
        assert_eq!(round_to_bits(0b1010, false, 0, 3, -100), (0b101, 1));
        assert_eq!(round_to_bits(0b10010, false, 0, 4, -100), (0b1001, 1));
        assert_eq!(round_to_bits(0b10011, false, 0, 4, -100), (0b1010, 1));
        assert_eq!(round_to_bits(0b10001, false, 0, 4, -100), (0b1000, 1));
        assert_eq!(round_to_bits(0b100010, true, 0, 4, -100), (0b1001, 2));
        assert_eq!(round_to_bits(0b11111, false, 0, 4, -100), (0b1000, 2));
    }

    #[test]
    fn the_least_exponent_wins_over_the_precision() {
        assert_eq!(round_to_bits(0b1000, false, -10, 53, -8), (0b10, -8));
        assert_eq!(round_to_bits(0b0110, false, -10, 53, -8), (0b10, -8));
        assert_eq!(round_to_bits(0b0010, false, -10, 53, -8), (0, -8));
        assert_eq!(round_to_bits(1, false, -1_000_000, 53, -8), (0, -8));
    }

    #[test]
    fn hex_digits_past_the_mantissa_are_sticky() {
        let long = format!("0x1{}1p-4", "0".repeat(40));
        let value = parse_hex(long.as_bytes()).unwrap();
        assert_eq!((value.sticky, value.mantissa), (true, 1 << 120));
        assert_eq!(value.exponent, 44 - 4);
        let value = parse_hex(b"0x.0018p4").unwrap();
        assert_eq!((value.mantissa, value.exponent, value.sticky), (0x18, -12, false));
    }
}
