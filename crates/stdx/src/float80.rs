//! Extended-precision floats in software, for `INCRBYFLOAT` and `HINCRBYFLOAT`.
//!
//! Redis adds these increments as C `long double`, which on x86 is the 80-bit format of the x87:
//! a sign, 15 bits of exponent and a 64-bit mantissa. Doubles would answer visibly different
//! digits (0.1 + 0.2 is `0.3` here), and so would any wider type, so the format is rebuilt here
//! in integers, giving the same answers on every machine.
//!
//! Source of the algorithms: the textbook ones. Parsing is the exact ratio of two integers,
//! rounded once to nearest-even; adding aligns in 128 bits with the lost bits folded into the
//! lowest one; printing is exact decimal rounded half-even to seventeen places.
//!
//! Cost: ordinary numbers (up to nineteen digits, up to eighteen places) are parsed, added and
//! printed in a few dozen integer operations without allocating. Others go through a small big
//! integer, whose size is bounded as texts longer than 5 kB and exponents beyond about 4950 are
//! settled without it: at worst a few hundred microseconds for a 5 kB text.

use crate::float_bits::{parse_exponent, parse_hex, round_to_bits, split_digits, split_sign};

const PRECISION_BITS: u32 = 64;
/// What the last bit of the least number is worth, as a power of two.
const MIN_EXPONENT: i32 = -16445;
/// What the last bit of the greatest finite number is worth, as a power of two.
const MAX_EXPONENT: i32 = 16320;

/// The longest text Redis reads as a `long double`.
const MAX_TEXT_BYTES: usize = 5 * 1024 - 1;

/// Numbers with more digits before the point than this overflow, whatever the digits.
const MAX_DIGITS_BEFORE_POINT: i64 = 4933;
/// Numbers whose first digit is further behind the point round to zero: half the least number,
/// 1.8e-4951, has this many.
const MIN_DIGITS_BEFORE_POINT: i64 = -4950;

/// Digits of a decimal that surely fit in 64 bits.
const MAX_SHORT_DIGITS: usize = 19;
/// The greatest power of ten the path without big integers divides or multiplies by.
const MAX_SHORT_POWER: i64 = 18;

/// Places printed behind the point, at most.
const FRACTION_DIGITS: usize = 17;
const FRACTION_SCALE: u128 = 100_000_000_000_000_000;

/// An 80-bit extended-precision number.
#[derive(Clone, Copy, Debug)]
pub struct Float80 {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    /// `mantissa * 2^exponent`. The mantissa's top bit is set unless the exponent is the least.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
    Nan,
}

const ZERO: Magnitude = Magnitude::Finite { mantissa: 0, exponent: MIN_EXPONENT };

impl Float80 {
    /// Zero, what `INCRBYFLOAT` adds to when the key is missing.
    pub const ZERO: Float80 = Float80 { negative: false, magnitude: ZERO };

    /// Parses a number as Redis reads a `long double`: decimal or hexadecimal, `inf` or
    /// `infinity` in any case.
    ///
    /// Refused: the empty string, spaces, trailing bytes, NaN, texts of 5 kB and more, finite
    /// spellings that overflow, and nonzero spellings that round to zero.
    pub fn parse(text: &[u8]) -> Option<Float80> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let (negative, unsigned) = split_sign(text);
        let magnitude = match unsigned {
            [b'i' | b'I', ..] => parse_infinity(unsigned),
            [b'0', b'x' | b'X', ..] => parse_hex_magnitude(unsigned),
            _ => Decimal::parse(unsigned)?.to_magnitude(),
        }?;
        Some(Float80 { negative, magnitude })
    }

    /// Converts a double, which is always exact.
    pub fn from_f64(value: f64) -> Float80 {
        let negative = value.is_sign_negative();
        if !value.is_finite() {
            let magnitude = if value.is_nan() { Magnitude::Nan } else { Magnitude::Infinite };
            return Float80 { negative, magnitude };
        }
        let bits = value.to_bits();
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) = match (bits >> 52 & 0x7ff) as i64 {
            0 => (fraction, -1074),
            biased => (fraction | 1 << 52, biased - 1075),
        };
        Float80 { negative, magnitude: Magnitude::round(u128::from(mantissa), false, exponent) }
    }

    /// Converts an integer, which is always exact.
    pub fn from_i64(value: i64) -> Float80 {
        let magnitude = Magnitude::round(u128::from(value.unsigned_abs()), false, 0);
        Float80 { negative: value < 0, magnitude }
    }

    /// Whether this is not a number.
    pub fn is_nan(&self) -> bool {
        self.magnitude == Magnitude::Nan
    }

    /// Whether this is an infinity, of either sign.
    pub fn is_infinite(&self) -> bool {
        self.magnitude == Magnitude::Infinite
    }

    /// Appends the number as Redis answers it: plain decimal with at most seventeen places behind
    /// the point, without trailing zeros. What rounds to zero prints as `0`, never `-0`.
    ///
    /// The text has at most 4933 digits before the point.
    pub fn format_human(&self, out: &mut Vec<u8>) {
        let (mantissa, exponent) = match self.magnitude {
            Magnitude::Nan => return out.extend_from_slice(b"nan"),
            Magnitude::Infinite if self.negative => return out.extend_from_slice(b"-inf"),
            Magnitude::Infinite => return out.extend_from_slice(b"inf"),
            Magnitude::Finite { mantissa, exponent } => (mantissa, exponent),
        };
        if exponent >= 0 {
            if self.negative {
                out.push(b'-');
            }
            return write_integer(mantissa, exponent as u32, out);
        }
        let (integer, fraction) = split_at_point(mantissa, exponent.unsigned_abs());
        if self.negative && (integer, fraction) != (0, 0) {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        write_fraction(fraction, out);
    }
}

impl std::ops::Add for Float80 {
    type Output = Float80;

    /// Adds, rounding to nearest, ties to even. Infinities of opposite sign add up to NaN.
    fn add(self, other: Float80) -> Float80 {
        use Magnitude::{Finite, Infinite, Nan};
        match (self.magnitude, other.magnitude) {
            (Nan, _) => self,
            (_, Nan) => other,
            (Infinite, Infinite) if self.negative != other.negative => {
                Float80 { negative: false, magnitude: Nan }
            }
            (Infinite, _) => self,
            (_, Infinite) => other,
            (Finite { exponent: left, .. }, Finite { exponent: right, .. }) if left < right => {
                add_finite(other, self)
            }
            _ => add_finite(self, other),
        }
    }
}

/// Adds finite numbers, the first of which has the greater or the same exponent.
fn add_finite(high: Float80, low: Float80) -> Float80 {
    /// Room below the mantissa; the sum of two still stays below 2^127.
    const GUARD_BITS: i32 = 62;
    let (high_mantissa, high_exponent) = high.magnitude.parts();
    let (low_mantissa, low_exponent) = low.magnitude.parts();
    let high_wide = u128::from(high_mantissa) << GUARD_BITS;
    let low_wide = shift_right_jam(
        u128::from(low_mantissa) << GUARD_BITS,
        high_exponent.abs_diff(low_exponent),
    );
    let exponent = i64::from(high_exponent - GUARD_BITS);
    if high.negative == low.negative {
        let magnitude = Magnitude::round(high_wide + low_wide, false, exponent);
        return Float80 { negative: high.negative, magnitude };
    }
    if high_wide == low_wide {
        return Float80::ZERO;
    }
    let negative = if high_wide > low_wide { high.negative } else { low.negative };
    let magnitude = Magnitude::round(high_wide.abs_diff(low_wide), false, exponent);
    Float80 { negative, magnitude }
}

/// Shifts right; if bits fall off, the lowest bit is set instead, so that rounding, which looks
/// at least two bits higher, still sees on which side of a tie the number lies.
fn shift_right_jam(value: u128, shift: u32) -> u128 {
    let Some(shifted) = value.checked_shr(shift) else { return u128::from(value != 0) };
    shifted | u128::from(shifted << shift != value)
}

impl Magnitude {
    /// The nearest number to `mantissa * 2^exponent`; see `round_to_bits` for the conditions.
    fn round(mantissa: u128, sticky: bool, exponent: i64) -> Magnitude {
        let (mantissa, exponent) =
            round_to_bits(mantissa, sticky, exponent, PRECISION_BITS, i64::from(MIN_EXPONENT));
        if mantissa == 0 {
            return ZERO;
        }
        let room = i64::from(mantissa.leading_zeros());
        let shift = room.min(exponent - i64::from(MIN_EXPONENT));
        let exponent = exponent - shift;
        if exponent > i64::from(MAX_EXPONENT) {
            return Magnitude::Infinite;
        }
        Magnitude::Finite { mantissa: mantissa << shift, exponent: exponent as i32 }
    }

    /// What a nonzero spelling that rounded to this means: `None` if it went out of range.
    fn in_range(self) -> Option<Magnitude> {
        (self != ZERO && self != Magnitude::Infinite).then_some(self)
    }

    /// The mantissa and exponent of a finite number; others count as zero.
    fn parts(self) -> (u64, i32) {
        match self {
            Magnitude::Finite { mantissa, exponent } => (mantissa, exponent),
            Magnitude::Infinite | Magnitude::Nan => (0, MIN_EXPONENT),
        }
    }
}

fn parse_infinity(text: &[u8]) -> Option<Magnitude> {
    let known = text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity");
    known.then_some(Magnitude::Infinite)
}

fn parse_hex_magnitude(text: &[u8]) -> Option<Magnitude> {
    let hex = parse_hex(text)?;
    if hex.mantissa == 0 {
        return Some(ZERO);
    }
    Magnitude::round(hex.mantissa, hex.sticky, hex.exponent).in_range()
}

/// An unsigned decimal as written: the digits before and behind the point, and the exponent.
struct Decimal<'a> {
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Decimal<'a>> {
        let (integer, rest) = split_digits(text);
        let (fraction, rest) = match rest {
            [b'.', behind @ ..] => split_digits(behind),
            _ => (&[][..], rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        Some(Decimal { integer, fraction, exponent: parse_exponent(rest, b'e')? })
    }

    /// The digits from the first one that is not zero.
    fn significant_digits(&self) -> impl Iterator<Item = u8> {
        let digits = self.integer.iter().chain(self.fraction).map(|byte| byte - b'0');
        digits.skip_while(|digit| *digit == 0)
    }

    /// The nearest number; `None` if that overflows, or is zero though the decimal is not.
    fn to_magnitude(&self) -> Option<Magnitude> {
        let count = self.significant_digits().count();
        if count == 0 {
            return Some(ZERO);
        }
        // The decimal is its digits, read as an integer, times ten to this power.
        let power = self.exponent - self.fraction.len() as i64;
        let before_point = count as i64 + power;
        if !(MIN_DIGITS_BEFORE_POINT..=MAX_DIGITS_BEFORE_POINT).contains(&before_point) {
            return None;
        }
        if count <= MAX_SHORT_DIGITS && power.abs() <= MAX_SHORT_POWER {
            let digits = self.significant_digits();
            let integer = digits.fold(0u64, |sum, digit| sum * 10 + u64::from(digit));
            return Some(round_short(integer, power as i32));
        }
        let integer = BigUint::from_digits(self.significant_digits());
        let rounded = if power < 0 {
            round_ratio(integer, power.unsigned_abs() as u32)
        } else {
            round_product(integer, power as u32)
        };
        rounded.in_range()
    }
}

/// Rounds `integer * 10^power`, for powers up to `MAX_SHORT_POWER` either way, in 128 bits.
fn round_short(integer: u64, power: i32) -> Magnitude {
    let ten_to_power = 10u128.pow(power.unsigned_abs());
    if power >= 0 {
        // Below 2^64 times 2^60.
        return Magnitude::round(u128::from(integer) * ten_to_power, false, 0);
    }
    // With the dividend's top bit at 2^126 and a divisor below 2^60 the quotient has 66 bits.
    let shift = u128::from(integer).leading_zeros() - 1;
    let dividend = u128::from(integer) << shift;
    let sticky = dividend % ten_to_power != 0;
    Magnitude::round(dividend / ten_to_power, sticky, -i64::from(shift))
}

/// Rounds `integer * 10^power`.
fn round_product(mut integer: BigUint, power: u32) -> Magnitude {
    // Only the odd part is multiplied; the powers of two go to the exponent.
    integer.multiply_power_of_5(power);
    let (top, sticky, dropped_bits) = integer.top_bits();
    Magnitude::round(top, sticky, i64::from(power) + i64::from(dropped_bits))
}

/// Rounds `integer / 10^power` by long division, one bit at a time.
fn round_ratio(integer: BigUint, power: u32) -> Magnitude {
    /// Two more than the mantissa, and one that may turn out to be a leading zero.
    const QUOTIENT_BITS: u32 = PRECISION_BITS + 3;
    let mut divisor = BigUint::from_digits([1]);
    divisor.multiply_power_of_5(power);
    let mut remainder = integer;
    // Once both have the same length, the quotient lies between a half and two.
    let scale = i64::from(divisor.bits()) - i64::from(remainder.bits());
    let shift = scale.unsigned_abs() as u32;
    if scale > 0 {
        remainder.shift_left(shift)
    } else {
        divisor.shift_left(shift)
    }
    let mut quotient = 0u128;
    for _ in 0..QUOTIENT_BITS {
        quotient <<= 1;
        if remainder.subtract_if_not_less(&divisor) {
            quotient |= 1;
        }
        remainder.shift_left(1);
    }
    let exponent = -i64::from(power) - scale - i64::from(QUOTIENT_BITS - 1);
    Magnitude::round(quotient, !remainder.is_zero(), exponent)
}

/// Splits `mantissa / 2^places` into its integer and its fraction in units of 10^-17, the latter
/// rounded half-even (and carried over).
fn split_at_point(mantissa: u64, places: u32) -> (u64, u64) {
    let integer = mantissa.checked_shr(places).unwrap_or(0);
    let fraction = if places < 64 { mantissa & ((1 << places) - 1) } else { mantissa };
    // Below 2^64 times 2^57.
    let scaled = u128::from(fraction) * FRACTION_SCALE;
    if places > 127 {
        return (integer, 0);
    }
    let (mut units, dropped) = (scaled >> places, scaled & ((1 << places) - 1));
    let half = 1 << (places - 1);
    if dropped > half || (dropped == half && units & 1 == 1) {
        units += 1;
    }
    if units == FRACTION_SCALE {
        // No overflow: there was a fraction, so the integer has a bit less than the mantissa.
        return (integer + 1, 0);
    }
    (integer, units as u64)
}

/// Appends a point and the digits of a fraction in units of 10^-17, up to the last nonzero one.
fn write_fraction(mut units: u64, out: &mut Vec<u8>) {
    if units == 0 {
        return;
    }
    let mut digits = [b'0'; FRACTION_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (units % 10) as u8;
        units /= 10;
    }
    let len = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.push(b'.');
    out.extend_from_slice(&digits[..len]);
}

/// Appends `mantissa * 2^exponent`.
fn write_integer(mantissa: u64, exponent: u32, out: &mut Vec<u8>) {
    if exponent <= 64 {
        let value = u128::from(mantissa) << exponent;
        return out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    let mut value = BigUint { limbs: vec![mantissa as u32, (mantissa >> 32) as u32] };
    value.shift_left(exponent);
    value.write_decimal(out);
}

/// Just enough of an unsigned big integer: 32-bit limbs, least first, the last one not zero.
struct BigUint {
    limbs: Vec<u32>,
}

/// Nine digits are the most that fit in a limb.
const LIMB_DIGITS: usize = 9;
const LIMB_POWER_OF_10: u32 = 1_000_000_000;
const LIMB_POWER_OF_5: u32 = 5u32.pow(13);
const LIMB_POWER_OF_5_EXPONENT: u32 = 13;

impl BigUint {
    fn from_digits(digits: impl IntoIterator<Item = u8>) -> BigUint {
        let mut value = BigUint { limbs: Vec::new() };
        let (mut chunk, mut scale) = (0, 1);
        for digit in digits {
            chunk = chunk * 10 + u32::from(digit);
            scale *= 10;
            if scale == LIMB_POWER_OF_10 {
                value.multiply_add(scale, chunk);
                (chunk, scale) = (0, 1);
            }
        }
        value.multiply_add(scale, chunk);
        value
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            let wide = u64::from(*limb) * u64::from(factor) + carry;
            *limb = wide as u32;
            carry = wide >> 32;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    fn multiply_power_of_5(&mut self, power: u32) {
        for _ in 0..power / LIMB_POWER_OF_5_EXPONENT {
            self.multiply_add(LIMB_POWER_OF_5, 0);
        }
        self.multiply_add(5u32.pow(power % LIMB_POWER_OF_5_EXPONENT), 0);
    }

    fn shift_left(&mut self, shift: u32) {
        let (limbs, bits) = ((shift / 32) as usize, shift % 32);
        if bits > 0 {
            self.multiply_add(1 << bits, 0);
        }
        if limbs > 0 {
            self.limbs.splice(..0, std::iter::repeat_n(0, limbs));
        }
    }

    /// Subtracts unless that would be negative; tells whether it did.
    fn subtract_if_not_less(&mut self, other: &BigUint) -> bool {
        let by_length = self.limbs.len().cmp(&other.limbs.len());
        let order = by_length.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()));
        if order.is_lt() {
            return false;
        }
        let mut borrow = false;
        for (index, limb) in self.limbs.iter_mut().enumerate() {
            let subtrahend = other.limbs.get(index).copied().unwrap_or(0);
            (*limb, borrow) = limb.borrowing_sub(subtrahend, borrow);
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
        true
    }

    fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    fn bits(&self) -> u32 {
        let Some(last) = self.limbs.last() else { return 0 };
        self.limbs.len() as u32 * 32 - last.leading_zeros()
    }

    /// The top three limbs, whether the others hold anything, and how many bits those have.
    fn top_bits(&self) -> (u128, bool, u32) {
        let (rest, top) = self.limbs.split_at(self.limbs.len().saturating_sub(3));
        let value = top.iter().rev().fold(0u128, |sum, limb| sum << 32 | u128::from(*limb));
        (value, rest.iter().any(|limb| *limb != 0), rest.len() as u32 * 32)
    }

    /// Divides by nine digits' worth and returns the remainder.
    fn divide_by_limb_power_of_10(&mut self) -> u32 {
        let mut remainder = 0u64;
        for limb in self.limbs.iter_mut().rev() {
            let wide = remainder << 32 | u64::from(*limb);
            *limb = (wide / u64::from(LIMB_POWER_OF_10)) as u32;
            remainder = wide % u64::from(LIMB_POWER_OF_10);
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
        remainder as u32
    }

    /// Appends the number in decimal, using it up.
    fn write_decimal(mut self, out: &mut Vec<u8>) {
        let mut chunks = Vec::new();
        while !self.is_zero() {
            chunks.push(self.divide_by_limb_power_of_10());
        }
        let mut chunks = chunks.into_iter().rev();
        out.extend_from_slice(itoa::Buffer::new().format(chunks.next().unwrap_or(0)).as_bytes());
        for chunk in chunks {
            let mut buffer = itoa::Buffer::new();
            let digits = buffer.format(chunk).as_bytes();
            out.extend(std::iter::repeat_n(b'0', LIMB_DIGITS - digits.len()));
            out.extend_from_slice(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn human(value: Float80) -> String {
        let mut out = Vec::new();
        value.format_human(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// What `INCRBYFLOAT` answers; nothing where it answers an error.
    fn incr_by_float(value: &str, increment: &str) -> Option<String> {
        let sum = Float80::parse(value.as_bytes())? + Float80::parse(increment.as_bytes())?;
        (!sum.is_nan() && !sum.is_infinite()).then(|| human(sum))
    }

    /// Value, increment and what Redis 7.0.15 (on x86-64) answered to `INCRBYFLOAT`.
    #[rustfmt::skip]
    const INCRBYFLOAT_ANSWERS: &[(&str, &str, Option<&str>)] = &[
        ("0.1", "0.2", Some("0.3")),
        ("10.50", "0.1", Some("10.6")),
        ("5.0e3", "2.0e2", Some("5200")),
        ("3.0e3", "200", Some("3200")),
        ("-0", "-0", Some("0")),
        ("-1e-30", "0", Some("0")),
        ("1", "-1", Some("0")),
        ("1.5", "-0x1.8p0", Some("0")),
        ("0x10", "0x1p-3", Some("16.125")),
        ("1e17", "0.1", Some("100000000000000000.1015625")),
        ("9223372036854775807", "1", Some("9223372036854775808")),
        ("18446744073709551615", "1", Some("18446744073709551616")),
        ("18446744073709551616", "1", Some("18446744073709551616")),
        ("18446744073709551616", "3", Some("18446744073709551620")),
        ("18446744073709551617", "0", Some("18446744073709551616")),
        ("18446744073709551617.0000000000000000000000000001", "0", Some("18446744073709551618")),
        ("18446744073709551616.9999999999999999999999999999", "0", Some("18446744073709551616")),
        ("18446744073709551616", "1.0000000001", Some("18446744073709551618")),
        ("9223372036854775808", "0.5", Some("9223372036854775808")),
        ("9223372036854775809", "0.5", Some("9223372036854775810")),
        ("-9223372036854775809", "-0.5", Some("-9223372036854775810")),
        ("0x1p-18", "0", Some("0.00000381469726562")),
        ("0x3p-18", "0", Some("0.00001144409179688")),
        ("0x5p-18", "0", Some("0.00001907348632812")),
        ("-0x1p-18", "0", Some("-0.00000381469726562")),
        ("0x1p-58", "0x1p-59", Some("0.00000000000000001")),
        ("5e-18", "0", Some("0")),
        ("4.99e-18", "0", Some("0")),
        ("5.01e-18", "0", Some("0.00000000000000001")),
        ("-4e-18", "0", Some("0")),
        ("0.99999999999999999", "0", Some("0.99999999999999999")),
        ("0.999999999999999995", "0", Some("1")),
        ("0.999999999999999996", "0", Some("1")),
        ("0x.ffffffffffffffffp0", "0", Some("1")),
        ("3.14159265358979323846", "2.71828182845904523536", Some("5.85987448204883847")),
        ("1e20", "-1e20", Some("0")),
        ("1e25", "1e-25", Some("10000000000000000000000000")),
        ("1e30", "1", Some("1000000000000000000024696061952")),
        ("123456789012345678901234567890", "-1", Some("123456789012345678899921813504")),
        ("1e40", "-0.5", Some("9999999999999999999783686092270256259072")),
        ("0x1p64", "-0x1p-1", Some("18446744073709551616")),
        ("0x1p64", "-0x1p0", Some("18446744073709551615")),
        ("0x1p63", "-0x1p-70", Some("9223372036854775808")),
        ("0x1.fffffffffffffffep63", "0x1p-1", Some("18446744073709551616")),
        ("1e-4950", "0", Some("0")),
        ("3.6e-4951", "0", Some("0")),
        ("1e-4951", "0", None),
        ("0x1.8p-16446", "0", Some("0")),
        ("0x1p-16446", "0", None),
        ("1e4932", "1e4932", None),
        ("1.2e4932", "0", None),
        ("1e4931", "-1e4931", Some("0")),
        ("inf", "1", None),
        ("-inf", "1", None),
        ("INFINITY", "0", None),
        ("inf", "-inf", None),
        ("nan", "0", None),
        ("", "1", None),
        ("1", "", None),
        (".", "1", None),
        ("1.", ".5", Some("1.5")),
        ("1e", "1", None),
        ("0x", "1", None),
        ("0x1p", "1", None),
        ("infx", "1", None),
        ("1,5", "1", None),
        ("1 ", "1", None),
        ("\t1", "1", None),
        ("0e99999999999", "2", Some("2")),
        ("1e99999999999999999999", "2", None),
        ("1e-99999999999999999999", "2", None),
        ("++1", "1", None),
        ("-63809740715.000000000016640", "3292.00000000000041279", Some("-63809737423")),
        ("57.0000000002", "218966853428.000000001549618", Some("218966853485")),
        ("910597494404.00000000000000000", "7205.00031543", Some("910597501609.00031542778015137")),
        ("-923860.0000000000026215591", "1096480031860.356468", Some("1096479108000.35646802186965942")),
        ("-1787901095708.000000000011167381", "-1589620.00037885", Some("-1787902685328.00037884712219238")),
        ("18.0883", "-2242325.183850766", Some("-2242307.09555076600008761")),
        ("3436.24606", "-9803040.0000000000000416263", Some("-9799603.75393999999960215")),
        ("-365509.0000000031", "-66425632833357.00180", Some("-66425633198866.001800537109375")),
        ("0.000000032670158", "3313821939552.000000000024993", Some("3313821939552")),
        ("86397981.0000000000006", "-7.260631782", Some("86397973.73936821799725294")),
        ("-0.008157", "7.00056", Some("6.992403")),
        ("-1.00039772036", "-2.074", Some("-3.07439772036")),
        ("1.000000002548", "-491.0000000000000054549", Some("-489.99999999745200546")),
        ("6134680.00930", "795640537928.0000047", Some("795646672608.0093047022819519")),
    ];

    #[test]
    fn sums_are_those_of_incrbyfloat() {
        for &(value, increment, expected) in INCRBYFLOAT_ANSWERS {
            let answer = incr_by_float(value, increment);
            assert_eq!(answer.as_deref(), expected, "{value} + {increment}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_those_of_incrbyfloat() {
        let max = incr_by_float("1.18973149535723176502e4932", "0").unwrap();
        assert_eq!(max.len(), 4933);
        assert!(max.starts_with("118973149535723176502126385303097020516906332229462420044032373"));
        assert_eq!(incr_by_float("0x1.fffffffffffffffep16383", "0").unwrap(), max);
        assert_eq!(incr_by_float("1.18973149535723176506e4932", "0"), None);
        let large = incr_by_float("1e4931", "0").unwrap();
        assert_eq!(large.len(), 4932);
        assert!(
            large.starts_with("100000000000000000000601894938796389132383777425453311477378504")
        );
        let half = incr_by_float("0x1p16383", "0").unwrap();
        assert!(
            half.starts_with("594865747678615882542879663314003565381722343548255118736337410")
        );
        assert_eq!(incr_by_float("0x1p16384", "0"), None);
    }

    #[test]
    fn long_texts_have_a_limit() {
        let zeros = "0".repeat(5118);
        assert_eq!(incr_by_float(&format!("{zeros}7"), "0").as_deref(), Some("7"));
        assert_eq!(incr_by_float(&format!("0{zeros}7"), "0"), None);
        assert_eq!(incr_by_float(&format!("1{}", &zeros[..5117]), "0"), None);
        assert_eq!(incr_by_float(&format!("0.{}1", &zeros[..5116]), "0"), None);
        let one = format!("0.{}1e5000", &zeros[..4999]);
        assert_eq!(incr_by_float(&one, "0").as_deref(), Some("1"));
    }

    #[test]
    fn what_is_not_finite_prints_as_c_does() {
        assert_eq!(human(Float80::from_f64(f64::INFINITY)), "inf");
        assert_eq!(human(Float80::from_f64(f64::NEG_INFINITY)), "-inf");
        assert_eq!(human(Float80::from_f64(f64::NAN)), "nan");
        let infinity = Float80::parse(b"inf").unwrap();
        assert!(infinity.is_infinite() && !infinity.is_nan());
        let sum = infinity + Float80::parse(b"-inf").unwrap();
        assert!(sum.is_nan() && !sum.is_infinite());
        assert!((sum + Float80::ZERO).is_nan() && (Float80::ZERO + sum).is_nan());
    }

    proptest! {
        #[test]
        fn integers_are_exact(left: i64, right: i64) {
            let sum = i128::from(left) + i128::from(right);
            let answer = human(Float80::from_i64(left) + Float80::from_i64(right));
            // Always fits: only the least integer added to itself reaches 2^64, one bit.
            prop_assert_eq!(answer, sum.to_string());
            let parsed = incr_by_float(&left.to_string(), &right.to_string());
            prop_assert_eq!(parsed, Some(sum.to_string()));
        }

        #[test]
        fn doubles_print_as_exact_decimals(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let exact = format!("{value:.17}");
            let trimmed = exact.trim_end_matches('0').trim_end_matches('.');
            let expected = if trimmed == "-0" { "0" } else { trimmed };
            prop_assert_eq!(human(Float80::from_f64(value)), expected);
        }

        #[test]
        fn short_doubles_print_as_exact_decimals(mantissa: i32, places in 0i32..70) {
            let value = f64::from(mantissa) / 2f64.powi(places);
            let exact = format!("{value:.17}");
            let trimmed = exact.trim_end_matches('0').trim_end_matches('.');
            let expected = if trimmed == "-0" { "0" } else { trimmed };
            prop_assert_eq!(human(Float80::from_f64(value)), expected);
        }

        #[test]
        fn the_short_path_agrees_with_big_integers(integer: u64, power in -18i32..=18) {
            prop_assume!(integer != 0);
            let digits = || BigUint::from_digits(integer.to_string().bytes().map(|byte| byte - b'0'));
            let long = match u32::try_from(power) {
                Ok(power) => round_product(digits(), power),
                Err(_) => round_ratio(digits(), power.unsigned_abs()),
            };
            prop_assert_eq!(round_short(integer, power), long);
        }

        #[test]
        fn sums_commute_and_opposites_cancel(left in decimal(), right in decimal()) {
            let sum = incr_by_float(&left, &right);
            prop_assert!(sum.is_some());
            prop_assert_eq!(&sum, &incr_by_float(&right, &left));
            let cancelled = incr_by_float(&left, &negated(&left)).unwrap();
            prop_assert_eq!(cancelled, "0");
            let mirrored = incr_by_float(&negated(&left), &negated(&right)).unwrap();
            let sum = sum.unwrap();
            prop_assert_eq!(mirrored, if sum == "0" { sum } else { negated(&sum) });
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(
            proptest::sample::select(&b"0123456789+-.eExXpPinfINFa \0"[..]), 0..40)
        ) {
            if let Some(value) = Float80::parse(&text) {
                let _ = human(value + value);
            }
        }
    }

    fn decimal() -> impl Strategy<Value = String> {
        "-?[1-9][0-9]{0,30}(\\.[0-9]{0,30})?(e-?[0-9]{1,3})?"
    }

    fn negated(text: &str) -> String {
        text.strip_prefix('-').map_or_else(|| format!("-{text}"), str::to_owned)
    }
}
