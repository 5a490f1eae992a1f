//! Glob patterns as Redis 7.0 matches them, in `KEYS`, `SCAN`, `PSUBSCRIBE` and `CONFIG GET`.
//!
//! `*` stands for any bytes, `?` for one byte, `[a-c]` for one byte of a class (`[^a-c]` for one
//! outside it), and `\x` for `x` itself. Malformed patterns have a meaning too, found by asking
//! Redis, and clients do send them: an unterminated class ends with the pattern, an escape in a
//! class is compared with its case, a backslash at the end stands for itself, and bytes in a
//! range order as signed ones. Stars match nothing against an empty text.
//!
//! The matcher is the classic loop that remembers only the last star: when what follows fails,
//! that star takes one byte more. An earlier star never needs to be tried again, since whatever
//! it could yield the last one can reach as well. So the cost is at most the pattern's length
//! times the text's, with no recursion and no allocation, whatever the peer sends.

/// Whether all of `text` matches `pattern`; `nocase` ignores the case of ASCII letters.
pub fn glob_match(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let mut pattern_at = 0;
    let mut text_at = 0;
    let mut last_star: Option<Star> = None;
    loop {
        while let (Some(&first), Some(&byte)) = (pattern.get(pattern_at), text.get(text_at)) {
            if first == b'*' {
                pattern_at += count_stars(&pattern[pattern_at..]);
                if pattern_at == pattern.len() {
                    return true;
                }
                last_star = Some(Star { pattern_after: pattern_at, text_from: text_at });
                continue;
            }
            let Some(used) = match_one(&pattern[pattern_at..], byte, nocase) else { break };
            pattern_at += used;
            text_at += 1;
            if text_at == text.len() {
                pattern_at += count_stars(&pattern[pattern_at..]);
            }
        }
        if pattern_at == pattern.len() && text_at == text.len() {
            return true;
        }
        let Some(star) = &mut last_star else { return false };
        star.text_from += 1;
        if star.text_from == text.len() {
            return false;
        }
        (pattern_at, text_at) = (star.pattern_after, star.text_from);
    }
}

/// Where to resume when what follows the last star did not match.
struct Star {
    pattern_after: usize,
    /// The first byte of the text that the star leaves to the rest of the pattern.
    text_from: usize,
}

fn count_stars(pattern: &[u8]) -> usize {
    pattern.iter().take_while(|byte| **byte == b'*').count()
}

/// Matches one byte against the element `pattern` starts with, which is not a star.
///
/// Returns the element's length if it matches.
fn match_one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    match *pattern {
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => match_class(class, byte, nocase).map(|used| used + 1),
        [b'\\', literal, ..] => same(literal, byte, nocase).then_some(2),
        [literal, ..] => same(literal, byte, nocase).then_some(1),
        [] => None,
    }
}

/// Matches one byte against a class, given from after its `[`.
///
/// Returns the class's length, up to and with its `]`, if it matches.
fn match_class(class: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match class[at..] {
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [start, b'-', end, ..] => {
                found |= in_range(start, end, byte, nocase);
                at += 3;
            }
            [literal, ..] => {
                found |= same(literal, byte, nocase);
                at += 1;
            }
            [] => break,
        }
    }
    (found != negated).then_some(at)
}

/// Whether a byte lies between two others, given in either order, compared as signed bytes.
fn in_range(start: u8, end: u8, byte: u8, nocase: bool) -> bool {
    // The ends are put in order before the case is dropped, which shows for ranges like `[Z-a]`.
    let (low, high) = if start as i8 > end as i8 { (end, start) } else { (start, end) };
    let fold = |byte: u8| if nocase { byte.to_ascii_lowercase() as i8 } else { byte as i8 };
    (fold(low)..=fold(high)).contains(&fold(byte))
}

fn same(literal: u8, byte: u8, nocase: bool) -> bool {
    literal == byte || (nocase && literal.eq_ignore_ascii_case(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pattern, key, and whether `KEYS` of Redis 7.0.15 found it.
    #[rustfmt::skip]
    const KEYS_ANSWERS: &[(&[u8], &[u8], bool)] = &[
        (b"**", b"", false),
        (b"", b"", true),
        (b"", b"a", false),
        (b"a**", b"a", true),
        (b"*a*", b"bab", true),
        (b"*?", b"a", true),
        (b"?*?", b"a", false),
        (b"h[ae]llo", b"hello", true),
        (b"h[^e]llo", b"hello", false),
        (b"h[^e]llo", b"hallo", true),
        (b"[a-c]", b"b", true),
        (b"[c-a]", b"b", true),
        (b"[a-c]", b"d", false),
        (b"[abc", b"c", true),
        (b"[abc", b"d", false),
        (b"[", b"[", false),
        (b"[", b"a", false),
        (b"[^", b"a", true),
        (b"[]", b"a", false),
        (b"[^]", b"a", true),
        (b"[]a]", b"a]", false),
        (b"[a-]", b"a", true),
        (b"[a-]", b"-", false),
        (b"[a-", b"-", true),
        (b"[a-]x", b"ax", false),
        (b"[a-]]", b"`", true),
        (b"[-a]", b"-", true),
        (b"[\\]]", b"]", true),
        (b"[\\", b"\\", true),
        (b"[a\\-z]", b"-", true),
        (b"[a\\-z]", b"m", false),
        (b"[\\a-z]", b"m", false),
        (b"[\\a-z]", b"-", true),
        (b"\\", b"\\", true),
        (b"a\\", b"a\\", true),
        (b"\\*", b"*", true),
        (b"\\*", b"a", false),
        (b"\\?x", b"?x", true),
        (b"\\\\", b"\\", true),
        (b"\\a", b"a", true),
        (b"[a-\xff]", b"b", false),
        (b"[a-\xff]", b"A", true),
        (b"[\x80-\xff]", b"\x90", true),
        (b"[\x7f-\x80]", b"a", true),
        (b"[^a]", b"^", true),
        (b"[a^]", b"^", true),
        (b"*[b", b"ab", true),
        (b"*a[^", b"bax", true),
        (b"a*b*c", b"aXbXbXc", true),
        (b"a*b*c", b"aXbXbX", false),
        (b"*\\", b"a\\", true),
        (b"a?", b"a", false),
        (b"A", b"a", false),
        (b"*a", b"aaab", false),
        (b"a*", b"", false),
    ];

    /// Pattern, and whether `COMMAND LIST FILTERBY PATTERN`, which ignores case, found `get`.
    #[rustfmt::skip]
    const NOCASE_ANSWERS: &[(&[u8], bool)] = &[
        (b"GET", true),
        (b"G[E]T", true),
        (b"G[\\E]T", false),
        (b"G[\\e]T", true),
        (b"[F-H]et", true),
        (b"[Z-a]et", false),
        (b"[a-Z]et", false),
        (b"[Z-_]et", false),
        (b"\\G\\E\\T", true),
        (b"g?T", true),
    ];

    #[test]
    fn keys_finds_the_same() {
        for &(pattern, text, expected) in KEYS_ANSWERS {
            let found = glob_match(pattern, text, false);
            assert_eq!(found, expected, "{} {}", pattern.escape_ascii(), text.escape_ascii());
        }
    }

    #[test]
    fn command_list_finds_the_same() {
        for &(pattern, expected) in NOCASE_ANSWERS {
            assert_eq!(glob_match(pattern, b"get", true), expected, "{}", pattern.escape_ascii());
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = b"a*".repeat(2000);
        let mut text = vec![b'a'; 4000];
        assert!(glob_match(&pattern, &text, false));
        text.insert(0, b'b');
        assert!(!glob_match(&pattern, &text, false));
        let mut hopeless = pattern;
        hopeless.push(b'c');
        assert!(!glob_match(&hopeless, &text[1..], false));
    }

    /// The textbook table of which prefixes match, for patterns of letters, `?` and `*` only.
    fn matches_by_table(pattern: &[u8], text: &[u8]) -> bool {
        let mut row = vec![false; text.len() + 1];
        row[0] = true;
        for &element in pattern {
            let mut next = vec![false; text.len() + 1];
            next[0] = element == b'*' && row[0];
            for at in 0..text.len() {
                next[at + 1] = match element {
                    b'*' => row[at + 1] || next[at],
                    b'?' => row[at],
                    _ => row[at] && element == text[at],
                };
            }
            row = next;
        }
        row[text.len()]
    }

    proptest! {
        #[test]
        fn stars_match_by_the_book(pattern in "[ab*?]{0,12}", text in "[ab]{1,12}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            let expected = matches_by_table(pattern, text);
            prop_assert_eq!(glob_match(pattern, text, false), expected);
        }

        #[test]
        fn escaped_text_matches_itself_only(
            text in proptest::collection::vec(any::<u8>(), 0..20),
            other in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(glob_match(&pattern, &text, false));
            prop_assert_eq!(glob_match(&pattern, &other, false), text == other);
        }

        #[test]
        fn no_bytes_panic(
            pattern in proptest::collection::vec(proptest::sample::select(&b"[]^-\\*?a\xff\0"[..]), 0..30),
            text in proptest::collection::vec(any::<u8>(), 0..30),
            nocase: bool,
        ) {
            let _ = glob_match(&pattern, &text, nocase);
        }
    }
}
