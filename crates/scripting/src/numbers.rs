//! Numbers as C's `%.14g` and `%.17g` write them: what Lua 5.1 shows, and what becomes of a number
//! that is the argument of a command.

/// Digits that Lua shows.
pub(crate) const SHOWN: usize = 14;
/// Digits that tell a number exactly.
pub(crate) const EXACT: usize = 17;
/// Whole numbers below this are written without an exponent by both.
const PLAIN_MAX: f64 = 1e14;

/// Appends a number with at most `digits` significant digits.
pub(crate) fn write(value: f64, digits: usize, out: &mut Vec<u8>) {
    if value.trunc() == value
        && value.abs() < PLAIN_MAX
        && (value != 0.0 || value.is_sign_positive())
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    if !value.is_finite() {
        let sign = if value.is_sign_negative() { "-" } else { "" };
        let name = if value.is_nan() { "nan" } else { "inf" };
        out.extend_from_slice(sign.as_bytes());
        out.extend_from_slice(name.as_bytes());
        return;
    }
    let scientific = format!("{:.*e}", digits - 1, value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        let mantissa = without_zeros(mantissa);
        out.extend_from_slice(format!("{mantissa}e{sign}{:02}", exponent.abs()).as_bytes());
    } else {
        let places = (digits as i32 - 1 - exponent) as usize;
        let fixed = format!("{value:.places$}");
        out.extend_from_slice(without_zeros(&fixed).as_bytes());
    }
}

/// Without the zeros that end a fraction.
fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A number as text.
pub(crate) fn text(value: f64, digits: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, digits, &mut out);
    out
}

/// The number that a value is.
pub(crate) fn of(value: &mlua::Value) -> Option<f64> {
    match value {
        mlua::Value::Integer(n) => Some(*n as f64),
        mlua::Value::Number(n) => Some(*n),
        _ => None,
    }
}

/// A number as an integer reply: without its fraction; what does not fit is the least integer, as
/// on the machines that Redis runs on.
pub(crate) fn truncated(value: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&value) { value as i64 } else { i64::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_does() {
        for (value, shown, exact) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (100.0, "100", "100"),
            (-3.5, "-3.5", "-3.5"),
            (0.1, "0.1", "0.10000000000000001"),
            (1.0 / 3.0, "0.33333333333333", "0.33333333333333331"),
            (1e14, "1e+14", "100000000000000"),
            (1e15, "1e+15", "1000000000000000"),
            (9_007_199_254_740_992.0, "9.007199254741e+15", "9007199254740992"),
            (1e17, "1e+17", "1e+17"),
            (1e100, "1e+100", "1e+100"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1.0000000000000001e-05"),
            (f64::INFINITY, "inf", "inf"),
            (f64::NEG_INFINITY, "-inf", "-inf"),
        ] {
            assert_eq!(text(value, SHOWN), shown.as_bytes(), "{value}");
            assert_eq!(text(value, EXACT), exact.as_bytes(), "{value}");
        }
    }

    #[test]
    fn integers_lose_their_fraction() {
        assert_eq!((truncated(3.99), truncated(-3.99)), (3, -3));
        assert_eq!((truncated(1e30), truncated(f64::NAN)), (i64::MIN, i64::MIN));
    }
}
