//! Which scripts surely end soon, so that nobody needs to ask them whether to.
//!
//! The interpreter asks at every call and every turn of a loop whether it may go on, which is a tenth
//! of what a short script takes. A script is *straight* if it is short and has neither loops nor
//! functions of its own, and reaches no function that could loop for it: then it takes each of its
//! steps once. That is found out from its words alone, so words that could be harmless make a script
//! one that is asked; the converse cannot happen:
//! - A function of a library is reached by its name behind `.` or `:`, of which few are allowed; by an
//!   index, which must be a number; or by a walk, whose functions are not allowed.
//! - A global function is reached by its name. `_G` and what looks into tables are not allowed.
//!
//! `redis.call` asks by itself (see [`crate::vm`]), so a straight script can be told to end as well.

/// Longest script that is straight, in bytes: even if each step takes as long as memory allows, these
/// are not many.
const LEN_MAX: usize = 1024;

/// Names that may follow `.` or `:`.
const MEMBERS: &[&str] = &[
    "abs",
    "byte",
    "call",
    "ceil",
    "err",
    "error_reply",
    "floor",
    "len",
    "max",
    "min",
    "ok",
    "pcall",
    "sha1hex",
    "status_reply",
];

/// Words of the language and globals with which a script is not straight.
const LOOPS: &[&str] = &[
    "_G",
    "bit",
    "cjson",
    "cmsgpack",
    "collectgarbage",
    "coroutine",
    "for",
    "function",
    "gcinfo",
    "getmetatable",
    "ipairs",
    "load",
    "loadstring",
    "next",
    "os",
    "pairs",
    "pcall",
    "rawget",
    "rawset",
    "repeat",
    "require",
    "select",
    "setmetatable",
    "string",
    "struct",
    "table",
    "until",
    "while",
    "xpcall",
];

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a script surely ends soon. See the module's text.
pub(crate) fn is_straight(script: &[u8]) -> bool {
    script.len() <= LEN_MAX
        && script.is_ascii()
        && has_plain_indexes(script)
        && has_plain_comments(script)
        && has_plain_words(script)
}

/// Whether no comment stands between a point or colon and the name that belongs to it.
fn has_plain_comments(script: &[u8]) -> bool {
    let mut starts = (0..script.len()).filter(|&at| script[at..].starts_with(b"--"));
    starts.all(|at| !matches!(last_sign(&script[..at]), Some((b'.' | b':', _))))
}

/// Whether every index is a number, and no string or comment spans lines.
fn has_plain_indexes(script: &[u8]) -> bool {
    let mut after_brackets = script.split(|byte| *byte == b'[').skip(1);
    after_brackets.all(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && rest.get(digits) == Some(&b']')
    })
}

fn has_plain_words(script: &[u8]) -> bool {
    let mut before = 0;
    while let Some(start) = script[before..].iter().position(|byte| is_word(*byte)) {
        let start = before + start;
        let len = script[start..].iter().take_while(|byte| is_word(**byte)).count();
        let word = &script[start..start + len];
        let is_in = |names: &[&str]| names.iter().any(|name| name.as_bytes() == word);
        let is_plain = match last_sign(&script[..start]) {
            // Two points join strings.
            Some((b'.', b'.')) => !is_in(LOOPS),
            Some((b'.' | b':', _)) => is_in(MEMBERS),
            _ => !is_in(LOOPS),
        };
        // A number with a point looks like a member.
        if !is_plain && !word[0].is_ascii_digit() {
            return false;
        }
        before = start + len;
    }
    true
}

/// The last byte that is no space, and the one before it.
fn last_sign(text: &[u8]) -> Option<(u8, u8)> {
    let text = text.trim_ascii_end();
    let (last, rest) = text.split_last()?;
    Some((*last, rest.last().copied().unwrap_or(b' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_scripts_without_loops_are_straight() {
        let limiter = "local n = redis.call('INCR', KEYS[1])\n\
            if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end\n\
            if n > tonumber(ARGV[2]) then return {err = 'LIMIT ' .. n} end\nreturn n * 1.5";
        for script in ["return 1", "return redis.call('get', KEYS[1])", limiter, "return {KEYS[1]}"]
        {
            assert!(is_straight(script.as_bytes()), "{script}");
        }
    }

    #[test]
    fn what_could_loop_is_not_straight() {
        let long = "return 1 ".repeat(200);
        for script in [
            "while true do end",
            "for i = 1, 10 do end",
            "repeat until false",
            "local function f() return f() end",
            "return s:rep(1e9)",
            "return s : rep(1e9)",
            "return KEYS[1]:find(ARGV[1])",
            "return string.rep('x', 10)",
            "return KEYS[1]['fi' .. 'nd'](KEYS[1], 'x')",
            "return ('x')[[find]]",
            "return _G",
            "return next",
            "local f = redis.call; return table",
            "return 'a' ..load",
            "-- one\n--[[ two ]]",
            "return s.--\nrep",
            "return s:-- one\n-- two\nrep(9)",
            &long,
        ] {
            assert!(!is_straight(script.as_bytes()), "{script}");
        }
    }
}
