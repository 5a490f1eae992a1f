//! How arguments are typed and how strings are shown: the quoting rules of `redis-cli`.
//!
//! Typing: words are separated by white space; `"..."` understands `\n`, `\r`, `\t`, `\a`, `\b`,
//! `\xHH` and a backslash before any other byte; `'...'` understands only `\'`. A closing quote
//! must end the word. Showing is the inverse, so what is shown can be typed back in.

use hypercache_stdx::quote::append_quoted;
/// Why a line could not be split.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SplitError {
    /// A quote was opened and never closed.
    Unbalanced,
    /// Something other than white space follows a closing quote.
    TextAfterQuote,
}

/// Splits a line into arguments.
pub(crate) fn split_arguments(line: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut rest = line.trim_ascii_start();
    let mut arguments = Vec::new();
    while !rest.is_empty() {
        let mut argument = Vec::new();
        rest = take_argument(rest, &mut argument)?.trim_ascii_start();
        arguments.push(argument);
    }
    Ok(arguments)
}

/// Takes one argument off the front of `rest`, and returns what follows it.
fn take_argument<'a>(mut rest: &'a [u8], argument: &mut Vec<u8>) -> Result<&'a [u8], SplitError> {
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            _ if byte.is_ascii_whitespace() => break,
            b'"' => return expect_end(take_double_quoted(after, argument)?),
            b'\'' => return expect_end(take_single_quoted(after, argument)?),
            _ => argument.push(byte),
        }
        rest = after;
    }
    Ok(rest)
}

/// Checks that the closing quote ended the word.
fn expect_end(rest: &[u8]) -> Result<&[u8], SplitError> {
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(SplitError::TextAfterQuote),
        _ => Ok(rest),
    }
}

fn take_single_quoted<'a>(
    mut rest: &'a [u8],
    argument: &mut Vec<u8>,
) -> Result<&'a [u8], SplitError> {
    loop {
        rest = match rest {
            [] => return Err(SplitError::Unbalanced),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                argument.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                argument.push(*byte);
                after
            }
        };
    }
}

fn take_double_quoted<'a>(
    mut rest: &'a [u8],
    argument: &mut Vec<u8>,
) -> Result<&'a [u8], SplitError> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(SplitError::Unbalanced),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) << 4 | hex_value(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        argument.push(byte);
        rest = after;
    }
}

fn hex_value(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 0x07,
        b'b' => 0x08,
        other => other,
    }
}

/// `bytes` in double quotes, as text.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    append_quoted(bytes, &mut out);
    // Everything that is not printable ASCII was escaped.
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let arguments = split_arguments(line.as_bytes()).unwrap();
        arguments.into_iter().map(|argument| String::from_utf8(argument).unwrap()).collect()
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(split("  set  k v "), ["set", "k", "v"]);
        assert_eq!(split(r#"set "a b" 'c d'"#), ["set", "a b", "c d"]);
        assert_eq!(split(r#"get """#), ["get", ""]);
        assert_eq!(split(r#"a"b c""#), ["ab c"]);
        assert!(split("   ").is_empty());
    }

    #[test]
    fn escapes() {
        assert_eq!(split(r#""\x41\n\t\"\\\q""#), ["A\n\t\"\\q"]);
        assert_eq!(split(r#""\xZZ""#), ["xZZ"]);
        assert_eq!(split(r"'it\'s \n'"), [r"it's \n"]);
        assert_eq!(split_arguments(br#""\xff\x00""#).unwrap(), [vec![0xff, 0]]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#"""#, r#"get "a"#, "get 'a", r#""a\""#, r#""\"#] {
            assert_eq!(split_arguments(line.as_bytes()), Err(SplitError::Unbalanced), "{line}");
        }
        for line in [r#""a"b"#, r"'a'b", r#""a"'b'"#] {
            assert_eq!(split_arguments(line.as_bytes()), Err(SplitError::TextAfterQuote), "{line}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        let all: Vec<u8> = (0..=255).collect();
        let shown = quoted(&all);
        assert!(shown.is_ascii());
        assert_eq!(split_arguments(shown.as_bytes()).unwrap(), [all]);
    }

    #[test]
    fn unprintable_bytes_are_escaped() {
        assert_eq!(quoted(b"a\"\\\n\r\t\x07\x08\x00\x7f\xff"), r#""a\"\\\n\r\t\a\b\x00\x7f\xff""#);
    }
}
