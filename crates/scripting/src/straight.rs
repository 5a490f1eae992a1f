//! Which scripts surely end soon, so that nobody needs to ask them whether to.
//!
//! The interpreter asks at every call and every turn of a loop whether it may go on, which is a tenth
//! of what a short script takes. A script is *straight* if it is short, has neither loops nor functions
//! of its own, and reaches no function whose time depends on what it is given: then it takes each of
//! its steps once. That is found out from its tokens alone, in one pass that takes only what it knows;
//! whatever else is there makes a script one that is asked:
//! - A function of a library is reached by its name behind `.` or `:`, of which few are allowed; by an
//!   index, which must be a number; or by a walk, whose functions are not allowed.
//! - A global function is reached by its name, of which few are allowed; `_G` is not.
//! - A token must be one here where it is one for the interpreter. So all that only it may see
//!   through is refused: long brackets, strings across lines, strings with values in them, and other
//!   white space than everyone's.
//!
//! `redis.call` asks by itself (see [`crate::vm`]), so a straight script can be told to end as well.
//! What operators do with long strings, to join, compare or read them as numbers, is asked of no
//! script; `tonumber` and the functions of `math` do no more.

/// Longest script that is straight, in bytes: even if each step takes as long as memory allows, these
/// are not many.
const LEN_MAX: usize = 1024;

/// Names that may follow `.` or `:`. `error_reply` and `sha1hex` go through all of a text.
const MEMBERS: &[&str] =
    &["abs", "call", "ceil", "err", "floor", "len", "max", "min", "ok", "pcall", "status_reply"];

/// Globals that may be named.
const GLOBALS: &[&str] = &["assert", "error", "math", "redis", "tonumber", "tostring", "type"];

/// Words of the language with which something may run more than once.
const LOOPS: &[&str] = &["for", "function", "repeat", "while"];

/// White space and the signs that are tokens or parts of them. `[` and `]` are seen to elsewhere.
const SIGNS: &[u8] = b" \t\r\n.:,;=~<>+-*/%^#(){}";

/// Whether a script surely ends soon. See the module's text. What is no global of the script's world
/// is a local of the script, or naming it fails.
pub(crate) fn is_straight(script: &[u8], is_global: impl Fn(&[u8]) -> bool) -> bool {
    let is_in = |names: &[&str], name: &[u8]| names.iter().any(|one| one.as_bytes() == name);
    if script.len() > LEN_MAX {
        return false;
    }
    let mut rest = script;
    // Whether the next token belongs to a point or colon.
    let mut is_member = false;
    while !rest.is_empty() {
        let Some((token, after)) = token_len(rest).and_then(|len| rest.split_at_checked(len))
        else {
            return false;
        };
        rest = after;
        let is_known = match token[0] {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'-' if token.len() > 1 => continue,
            // A point is part of a number as well.
            b'0'..=b'9' => true,
            first if is_word(&first) && is_member => is_in(MEMBERS, token),
            first if is_word(&first) => {
                is_in(GLOBALS, token) || !is_in(LOOPS, token) && !is_global(token)
            }
            _ => !is_member,
        };
        if !is_known {
            return false;
        }
        is_member = matches!(token, b"." | b":");
    }
    true
}

/// Length of the token, comment or byte of white space that a text begins with; `None` when it is
/// none that straight scripts may have.
fn token_len(text: &[u8]) -> Option<usize> {
    let end_of = |start: usize, is_in: fn(&u8) -> bool| {
        start + text[start..].iter().take_while(|byte| is_in(byte)).count()
    };
    match text {
        [b'.', b'.', b'.', ..] | [b'-', b'-', b'[', ..] => None,
        [b'.', b'.', ..] => Some(2),
        [b'-', b'-', ..] => Some(end_of(2, is_text)),
        [quote @ (b'"' | b'\''), ..] => string_len(text, *quote),
        [b'[', ..] => {
            let end = end_of(1, u8::is_ascii_digit);
            (end > 1 && text.get(end) == Some(&b']')).then_some(end + 1)
        }
        [byte, ..] if is_word(byte) => Some(end_of(0, is_word)),
        [byte, ..] => SIGNS.contains(byte).then_some(1),
        [] => None,
    }
}

/// Length of a string in quotes; `None` when it is not on one line.
fn string_len(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    while *text.get(at)? != quote {
        let end = if text[at] == b'\\' { at + 2 } else { at + 1 };
        let char = text.get(at..end)?;
        // `\z` takes lines away.
        if char == b"\\z" || !char.iter().all(is_text) {
            return None;
        }
        at = end;
    }
    Some(at + 1)
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// What strings and comments may hold: all but what could end their line.
fn is_text(byte: &u8) -> bool {
    *byte >= b' ' || *byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::{GLOBALS, MEMBERS};
    use hypercache_commands::config::Config;
    use hypercache_commands::testing::Harness;

    fn is_straight(script: &str) -> bool {
        let globals: &[&[u8]] = &[b"_G", b"load", b"next", b"pcall", b"string", b"table", b"type"];
        super::is_straight(script.as_bytes(), |name| globals.contains(&name))
    }

    #[test]
    fn short_scripts_without_loops_are_straight() {
        let limiter = "local n = redis.call('INCR', KEYS[1])\n\
            if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end\n\
            if n > tonumber(ARGV[2]) then return {err = 'LIMIT ' .. n} end\nreturn n * 1.5";
        for script in [
            "return 1",
            "return redis.call('get', KEYS[1])",
            "local n = redis.call('incr', KEYS[1])\n\
            if n == 1 then redis.call('expire', KEYS[1], 60) end\nreturn n",
            limiter,
            "return {KEYS[1], .5, 1e-3, 0x1F, #ARGV, -1, KEYS[2] ~= 'x', n <= 3, m // 2}",
            "-- It's the name.\nreturn redis.call('get', 'for:' .. KEYS[1]) -- while it's there",
            "return \"a\\\"table\\\\\" .. 'grün'",
            "return redis . pcall('get', KEYS[1]).err or type(1)",
            "",
        ] {
            assert!(is_straight(script), "{script}");
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
            "return redis.error_reply(ARGV[1])",
            "return s:\x0brep(40)",
            "return s.\x0crep",
            "return s:\x0bfind(('a-'):\x0brep(39)..'b')",
            "return s.\x0b--\x0b\nrep",
            "local h,a=redis.sha1hex,ARGV[1] h(a)h(a)h(a)h(a)",
            "return 0x1..next",
            "return 1.--\nnext",
            "return 'a\\z\n' .. 'b'",
            "return 'a\\\n' .. 'b'",
            "return 'a\\'' .. next",
            "return \"'\" .. next .. \"'\"",
            "return '\\\\' .. next .. '\\\\'",
            "-- it's\rreturn next -- it's",
            "return `{next}`",
            "return ...",
            "return pcall(error, 1)",
            "return 1 --[=[\n]=]",
            "return 'a",
            "return grün",
            "return 1\0",
            "return s::rep",
            &long,
        ] {
            assert!(!is_straight(script), "{script:?}");
        }
    }

    /// Whoever adds a function with one of these names finds out here that straight scripts call it.
    #[test]
    fn straight_scripts_reach_these_functions() {
        let h = &mut Harness::new(Config::default());
        h.shared.scripts.install(Box::new(crate::Engine));
        let walk = "local found = {} for name, value in pairs(_G) do\n\
            if type(value) == 'function' then table.insert(found, name) end\n\
            if type(value) == 'table' and value ~= _G then for member, f in pairs(value) do\n\
            if type(f) == 'function' then table.insert(found, name .. '.' .. member) end end end\n\
            end table.sort(found) return table.concat(found, ' ')";
        let reply = String::from_utf8(h.run_args(["EVAL", walk, "0"])).expect("text");
        let names = reply.lines().nth(1).expect("a line with the names").split(' ');
        let reached = names.filter(|name| match name.split_once('.') {
            Some((_, member)) => MEMBERS.contains(&member),
            None => GLOBALS.contains(name),
        });
        let all = "assert error math.abs math.ceil math.floor math.max math.min redis.call \
            redis.pcall redis.status_reply string.len tonumber tostring type";
        assert_eq!(reached.collect::<Vec<_>>().join(" "), all);
    }
}
