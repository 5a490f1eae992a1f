//! Numbers as Redis reads and writes them in commands and replies.
//!
//! A cache sees integers as text far more often than as numbers, so whether `"+5"` or `"007"` is
//! an integer decides both what `INCR` answers and how a value is stored. The rules here are
//! those Redis 7.0 shows on the wire: a signed integer has exactly one spelling (printing what
//! was parsed gives the same bytes back), while floats are read as loosely as C's `strtod` does,
//! minus spaces, NaN and everything out of range.
//!
//! Cost: integers are one pass without overflow checks in the loop (nineteen digits always fit
//! in 64 bits). Decimal floats go through the standard library, which rounds correctly.
//! Printing a float needs seventeen correctly rounded digits, unless it is a whole number, which
//! is the usual case for scores and counters and is printed as an integer.

use std::fmt::{self, Write};

use crate::float_bits::{parse_hex, round_to_bits, split_digits, split_sign};

/// The most digits an `i64` or `u64` below 10^19 has.
const MAX_I64_DIGITS: usize = 19;

/// Significant digits of a printed double: enough to read the same double back.
const F64_DIGITS: i32 = 17;

const F64_PRECISION_BITS: u32 = 53;
/// What the last bit of the least double is worth, as a power of two.
const F64_MIN_EXPONENT: i64 = -1074;
/// Doubles are below two to this power.
const F64_LIMIT_EXPONENT: i64 = 1024;

/// Parses an integer in its canonical spelling, the only one Redis takes for an integer.
///
/// Refused: the empty string, `+`, leading zeros, `-0`, spaces, anything out of range.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let first = *digits.first()?;
    if first == b'0' {
        return (text.len() == 1).then_some(0);
    }
    if digits.len() > MAX_I64_DIGITS {
        return None;
    }
    let mut magnitude = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        return 0i64.checked_sub_unsigned(magnitude);
    }
    i64::try_from(magnitude).ok()
}

/// Parses an unsigned integer as stream identifiers need it.
///
/// A canonical integer must not be negative. Any other spelling is read like C's `strtoull`:
/// leading white space, a sign and leading zeros are fine, and a sign that got this far (as in
/// `-01`) negates modulo 2^64.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if let Some(value) = parse_i64(text) {
        return u64::try_from(value).ok();
    }
    let start = text.iter().position(|byte| !is_c_space(*byte))?;
    let (negative, unsigned) = split_sign(&text[start..]);
    let (digits, garbage) = split_digits(unsigned);
    if digits.is_empty() || !garbage.is_empty() {
        return None;
    }
    let magnitude = digits
        .iter()
        .try_fold(0u64, |sum, byte| sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')))?;
    Some(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// What C's `isspace` calls a space; unlike Rust's ASCII rule it includes the vertical tab.
fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Parses a double: decimal or C99 hexadecimal, `inf` or `infinity` in any case.
///
/// Refused: the empty string, spaces, trailing bytes, NaN, finite spellings that overflow, and
/// nonzero spellings that round to zero.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    // The standard library's grammar is strtod's, but for hexadecimal floats.
    let Ok(value) = std::str::from_utf8(text).ok()?.parse::<f64>() else {
        return parse_hex_f64(text);
    };
    if value.is_infinite() && text.iter().any(u8::is_ascii_digit) {
        return None;
    }
    if value == 0.0 && has_nonzero_digit(text) {
        return None;
    }
    (!value.is_nan()).then_some(value)
}

/// Whether the mantissa of a decimal float has a digit other than zero.
fn has_nonzero_digit(text: &[u8]) -> bool {
    let mut mantissa = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    mantissa.any(|byte| matches!(byte, b'1'..=b'9'))
}

fn parse_hex_f64(text: &[u8]) -> Option<f64> {
    let (negative, unsigned) = split_sign(text);
    let hex = parse_hex(unsigned)?;
    let sign = if negative { -1.0 } else { 1.0 };
    if hex.mantissa == 0 {
        return Some(0.0f64.copysign(sign));
    }
    let (mantissa, exponent) =
        round_to_bits(hex.mantissa, hex.sticky, hex.exponent, F64_PRECISION_BITS, F64_MIN_EXPONENT);
    if mantissa == 0 {
        return None;
    }
    Some(f64_from_parts(mantissa, exponent)?.copysign(sign))
}

/// Builds `mantissa * 2^exponent`, which must be exact, from its fields; `None` is an overflow.
fn f64_from_parts(mantissa: u64, exponent: i64) -> Option<f64> {
    let bits = 64 - i64::from(mantissa.leading_zeros());
    if exponent + bits > F64_LIMIT_EXPONENT {
        return None;
    }
    let room = i64::from(F64_PRECISION_BITS) - bits;
    let shift = room.min(exponent - F64_MIN_EXPONENT);
    let (mantissa, exponent) = (mantissa << shift, exponent - shift);
    let implicit_bit = 1 << (F64_PRECISION_BITS - 1);
    if mantissa < implicit_bit {
        return Some(f64::from_bits(mantissa));
    }
    let biased = (exponent - F64_MIN_EXPONENT + 1) as u64;
    Some(f64::from_bits(biased << (F64_PRECISION_BITS - 1) | (mantissa ^ implicit_bit)))
}

/// Appends an integer in decimal.
#[inline]
pub fn write_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an unsigned integer in decimal.
#[inline]
pub fn write_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double as Redis 7.0 sends it, in RESP3 (`,` replies) and RESP2 (bulk) alike:
/// seventeen significant digits without trailing zeros, as C's `%.17g` prints them.
pub fn write_f64_resp3(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    }
    // Whole numbers that need no exponent; a negative zero keeps its sign, so is not one.
    if value.abs() < 1e17 && value.trunc() == value && (value != 0.0 || value.is_sign_positive()) {
        return write_i64(value as i64, out);
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let mut text = StackText::default();
    // Cannot fail: one digit, the point, sixteen digits and an exponent of at most five bytes.
    let _ = write!(text, "{:.*e}", (F64_DIGITS - 1) as usize, value.abs());
    write_general(text.as_bytes(), out);
}

/// Rewrites `d.ddde-x`, Rust's scientific notation, into C's general notation.
fn write_general(scientific: &[u8], out: &mut Vec<u8>) {
    let marker = scientific.iter().position(|byte| *byte == b'e').unwrap_or(scientific.len());
    let exponent = scientific.get(marker + 1..).and_then(parse_i64).unwrap_or(0) as i32;
    let mut digits = [b'0'; F64_DIGITS as usize];
    let mut count = 0;
    for &byte in scientific[..marker].iter().filter(|byte| **byte != b'.') {
        digits[count] = byte;
        count += 1;
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    if !(-4..F64_DIGITS).contains(&exponent) {
        write_with_point(&digits[..count], 1, out);
        write_exponent(exponent, out);
        return;
    }
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-1 - exponent) as usize));
        return out.extend_from_slice(&digits[..count]);
    }
    let whole = exponent as usize + 1;
    write_with_point(&digits[..count.max(whole)], whole, out);
}

/// Appends digits with a point after the first `whole` of them, or none if that is all.
fn write_with_point(digits: &[u8], whole: usize, out: &mut Vec<u8>) {
    let (integer, fraction) = digits.split_at(whole);
    out.extend_from_slice(integer);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

/// Appends `e`, the sign and at least two digits.
fn write_exponent(exponent: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.abs() < 10 {
        out.push(b'0');
    }
    write_i64(i64::from(exponent.abs()), out);
}

/// A line of text on the stack, long enough for a double in scientific notation.
#[derive(Default)]
struct StackText {
    bytes: [u8; 32],
    len: usize,
}

impl StackText {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for StackText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn f64_text(value: f64) -> String {
        let mut out = Vec::new();
        write_f64_resp3(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Bits of a double and what Redis 7.0.15 answered to `ZSCORE` for it, in RESP2 and RESP3.
    #[rustfmt::skip]
    const ZSCORE_ANSWERS: &[(u64, &str)] = &[
        (0x3ff0000000000000, "1"),
        (0x3fb999999999999a, "0.10000000000000001"),
        (0x4008cccccccccccd, "3.1000000000000001"),
        (0xc004000000000000, "-2.5"),
        (0x4341c37937e08000, "10000000000000000"),
        (0x4376345785d89fff, "99999999999999984"),
        (0x4376345785d8a000, "1e+17"),
        (0x437b6951ef585a00, "1.2345e+17"),
        (0xc376345785d8a000, "-1e+17"),
        (0x444b1ae4d6e2ef50, "1e+21"),
        (0x4480f0cf064dd592, "1e+22"),
        (0x3f1a36e2eb1c432d, "0.0001"),
        (0x3f202e4b6ce5dc68, "0.00012344999999999999"),
        (0x3ee4f8b588e368f1, "1.0000000000000001e-05"),
        (0x3eef75104d551d69, "1.5e-05"),
        (0x3ff0000800000000, "1.0000076293945312"),
        (0x3ff0001800000000, "1.0000228881835938"),
        (0x4011666666666666, "4.3499999999999996"),
        (0x3fd3333333333333, "0.29999999999999999"),
        (0x3fd5555555555555, "0.33333333333333331"),
        (0x3fe5555555555555, "0.66666666666666663"),
        (0x0000000000000001, "4.9406564584124654e-324"),
        (0x0010000000000000, "2.2250738585072014e-308"),
        (0x7fefffffffffffff, "1.7976931348623157e+308"),
        (0xffefffffffffffff, "-1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0x419d6f3454800000, "123456789.125"),
        (0x3ddb7cdfd9d7bdbb, "1e-10"),
        (0x54b249ad2594c37d, "1e+100"),
        (0x2b2bff2ee48e0530, "1e-100"),
        (0xbeafe07017c01026, "-9.5000000000000001e-07"),
        (0x7ff0000000000000, "inf"),
        (0xfff0000000000000, "-inf"),
        (0x4340000000000001, "9007199254740994"),
        (0x3fe0000800000000, "0.50000381469726562"),
        (0x4059000000000000, "100"),
        (0x41d954fc4007df3b, "1700000000.1229999"),
        (0x4164d8399f767c45, "10928588.983213553"),
        (0x5bc8fbbcbde5c099, "1.4186613525849614e+134"),
        (0xb0c11fdecb91ce37, "-7.5719685560558675e-74"),
        (0xd76d4330f1446bea, "-1.4074705188261364e+113"),
        (0xa6eb8c9ebd69fe29, "-3.3339745473042614e-121"),
        (0x87b0b125ec1d7da0, "-1.2342180766211395e-271"),
        (0xc6a5387777330bdb, "-2.1520217579844227e+32"),
    ];

    #[test]
    fn doubles_print_as_zscore_answers() {
        for &(bits, text) in ZSCORE_ANSWERS {
            assert_eq!(f64_text(f64::from_bits(bits)), text);
        }
        assert_eq!(f64_text(0.0), "0");
        assert_eq!(f64_text(-0.0), "-0");
        assert_eq!(f64_text(f64::NAN), "nan");
    }

    #[test]
    fn doubles_parse_as_zadd_takes_them() {
        for (text, value) in [
            ("inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("0x10", 16.0),
            ("-0X1p4", -16.0),
            ("0x.8", 0.5),
            ("0x1.p-1", 0.5),
            ("0x1.fffffffffffff7p1023", f64::MAX),
            ("-0x1p-1074", -5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x0p99999999999999999999", 0.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+.5e1", 5.0),
            ("2.5e-324", 5e-324),
            ("0e-99999", 0.0),
            ("0e99999999999999999999", 0.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
        assert!(parse_f64(b"-0").unwrap().is_sign_negative());
        assert!(parse_f64(b"-0x0").unwrap().is_sign_negative());
    }

    #[test]
    fn doubles_zadd_refuses_are_refused() {
        for text in [
            "",
            "nan",
            "-nan",
            "NaN(12)",
            "infi",
            " 1",
            "1 ",
            "1\0",
            "0x",
            "0x.",
            "0x1p",
            "0x1p+",
            "0x1p-1075",
            "0x1p-1076",
            "0x1.fffffffffffff8p1023",
            "0x1p1024",
            "1e",
            "1e+",
            ".",
            "+-1",
            "1e309",
            "-1e309",
            "2.4e-324",
            "1e-400",
            "1_0",
            "1f",
            "\t1",
            "0b1",
            "1e5.",
            "+",
            "-",
            "0x1p99999999999999999999",
            "0x1..8",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_f64(b"\xff"), None);
    }

    #[test]
    fn integers_have_one_spelling() {
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-01",
            "-0",
            "00",
            " 1",
            "1 ",
            "1a",
            "1\0",
            "--1",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "1e3",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn unsigned_integers_parse_as_stream_identifiers() {
        for (text, value) in [
            ("5", 5),
            ("05", 5),
            ("+5", 5),
            (" 5", 5),
            ("\x0b7", 7),
            ("\n+5", 5),
            ("-0", 0),
            ("-00", 0),
            ("-05", u64::MAX - 4),
            ("-018446744073709551615", 1),
            ("18446744073709551615", u64::MAX),
            ("0000000000000000000000000000000000009", 9),
        ] {
            assert_eq!(parse_u64(text.as_bytes()), Some(value), "{text:?}");
        }
        for text in [
            "",
            " ",
            "-",
            "+",
            "-5",
            "5 ",
            "18446744073709551616",
            "-018446744073709551616",
            "+ 5",
            "+-5",
            "0x5",
            "5\0",
        ] {
            assert_eq!(parse_u64(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_i64_round_trips(value: i64) {
            let mut text = Vec::new();
            write_i64(value, &mut text);
            prop_assert_eq!(parse_i64(&text), Some(value));
            prop_assert_eq!(parse_u64(&text), u64::try_from(value).ok());
        }

        #[test]
        fn every_u64_round_trips(value: u64) {
            let mut text = Vec::new();
            write_u64(value, &mut text);
            prop_assert_eq!(parse_u64(&text), Some(value));
        }

        #[test]
        fn what_parses_as_i64_prints_the_same(text in "[-+ 0-9]{0,20}") {
            if let Some(value) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(value.to_string(), text);
            }
        }

        #[test]
        fn every_double_round_trips(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let parsed = parse_f64(f64_text(value).as_bytes()).unwrap();
            prop_assert_eq!(parsed.to_bits(), bits);
        }

        #[test]
        fn hexadecimal_integers_round_as_conversions_do(value: u64, shift in -1000i32..900) {
            let text = format!("0x{value:x}p{shift}");
            prop_assume!(value != 0);
            let expected = value as f64 * 2f64.powi(shift);
            prop_assert_eq!(parse_f64(text.as_bytes()), Some(expected));
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_i64(&text), parse_u64(&text), parse_f64(&text));
        }
    }
}
