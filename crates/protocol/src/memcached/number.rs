//! Numbers as memcached reads them: with the C library's `strtoull` and `strtol`, so with leading
//! white space, a sign, and anything after white space.

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Sign and magnitude of the number that a text begins with. `None` if there is none, if it does
/// not fit 64 bits, or if something else follows without white space or a zero byte between.
fn parse(text: &[u8]) -> Option<(bool, u64)> {
    let start = text.iter().position(|&b| !is_space(b))?;
    let (is_negative, digits) = match text[start] {
        b'-' => (true, &text[start + 1..]),
        b'+' => (false, &text[start + 1..]),
        _ => (false, &text[start..]),
    };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let ends_well = digits.get(len).is_none_or(|&b| is_space(b) || b == 0);
    if len == 0 || !ends_well {
        return None;
    }
    let add = |n: u64, b: &u8| n.checked_mul(10)?.checked_add(u64::from(b - b'0'));
    Some((is_negative, digits[..len].iter().try_fold(0, add)?))
}

/// The usual case: one to nine digits and nothing else.
#[inline]
fn short(text: &[u8]) -> Option<u32> {
    let mut n = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n * 10 + u32::from(digit);
    }
    Some(n)
}

#[inline]
fn is_short(text: &[u8]) -> bool {
    (1..10).contains(&text.len())
}

/// An unsigned number. A negative one wraps around, but is refused where the result looks negative
/// as a signed one.
#[inline]
#[must_use]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if is_short(text)
        && let Some(n) = short(text)
    {
        return Some(u64::from(n));
    }
    let (is_negative, magnitude) = parse(text)?;
    let n = if is_negative { magnitude.wrapping_neg() } else { magnitude };
    (n as i64 >= 0 || !text.contains(&b'-')).then_some(n)
}

/// An unsigned number of 32 bits. memcached 1.6.18 cuts longer ones, which lose what the client
/// meant; here they are no numbers.
#[inline]
#[must_use]
pub fn parse_u32(text: &[u8]) -> Option<u32> {
    u32::try_from(parse_u64(text)?).ok()
}

/// A signed number.
#[inline]
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    if is_short(text)
        && let Some(n) = short(text)
    {
        return Some(i64::from(n));
    }
    let (is_negative, magnitude) = parse(text)?;
    let signed = i128::from(magnitude);
    i64::try_from(if is_negative { -signed } else { signed }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("", None),
            (" ", None),
            ("-", None),
            ("+5", Some(5)),
            ("  5", Some(5)),
            ("5 ab", Some(5)),
            ("5\0ab", Some(5)),
            ("5a", None),
            ("007", Some(7)),
            ("-5", None),
            ("-0", Some(0)),
            ("-18446744073709551615", Some(1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615 -", None),
            ("18446744073709551616", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_u64(text.as_bytes()), *expected, "{text:?}");
        }
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-1"), Some(-1));
    }
}
