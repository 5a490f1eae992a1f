//! Answers of Redis, and arithmetic checked against exact integers and doubles.

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
    assert!(large.starts_with("100000000000000000000601894938796389132383777425453311477378504"));
    let half = incr_by_float("0x1p16383", "0").unwrap();
    assert!(half.starts_with("594865747678615882542879663314003565381722343548255118736337410"));
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
fn numbers_are_in_order() {
    let texts = ["-inf", "-1e4000", "-2", "-1.5", "-1e-4940", "0", "1e-4940", "1", "1e9", "inf"];
    let numbers = texts.map(|text| Float80::parse(text.as_bytes()).expect("a number"));
    for (i, a) in numbers.iter().enumerate() {
        for (j, b) in numbers.iter().enumerate() {
            assert_eq!(a.partial_cmp(b), Some(i.cmp(&j)), "{} and {}", texts[i], texts[j]);
        }
        assert_eq!(a.partial_cmp(&Float80::from_f64(f64::NAN)), None);
    }
    assert_eq!(-Float80::ZERO, Float80::ZERO);
    let largest = Float80::MAX;
    assert!(largest < numbers[9] && (largest + largest).is_infinite());
    assert_eq!(human(-numbers[7]), "-1");
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
