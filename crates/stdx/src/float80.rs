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
use std::cmp::Ordering;

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
    /// The greatest finite number.
    pub const MAX: Float80 = Float80 {
        negative: false,
        magnitude: Magnitude::Finite { mantissa: u64::MAX, exponent: MAX_EXPONENT },
    };

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

    /// -1, 0 or 1, and what orders numbers of one sign: the mantissas of normal ones begin with a set
    /// bit, and those that do not have the least exponent.
    fn sign_and_size(&self) -> (i8, (i32, u64)) {
        let size = match self.magnitude {
            Magnitude::Finite { mantissa, exponent } => (exponent, mantissa),
            Magnitude::Infinite | Magnitude::Nan => (i32::MAX, 0),
        };
        match (self.magnitude == ZERO, self.negative) {
            (true, _) => (0, size),
            (false, true) => (-1, size),
            (false, false) => (1, size),
        }
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

impl std::ops::Neg for Float80 {
    type Output = Float80;

    fn neg(self) -> Float80 {
        Float80 { negative: !self.negative, ..self }
    }
}

impl PartialEq for Float80 {
    fn eq(&self, other: &Float80) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Float80 {
    /// As of the numbers; NaN is neither less nor more than any.
    fn partial_cmp(&self, other: &Float80) -> Option<Ordering> {
        if self.is_nan() || other.is_nan() {
            return None;
        }
        let (sign, size) = self.sign_and_size();
        let (other_sign, other_size) = other.sign_and_size();
        let by_size = if sign < 0 { other_size.cmp(&size) } else { size.cmp(&other_size) };
        Some(sign.cmp(&other_sign).then(by_size))
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
mod tests;
