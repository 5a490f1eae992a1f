//! Passwords are not for SLOWLOG and MONITOR.

use hypercache_protocol::parse::Args;

/// What stands in the place of a password.
pub(crate) const REDACTED: &[u8] = b"(redacted)";

/// Settings whose value is a password.
const SECRET_SETTINGS: &[&str] = &["requirepass", "cluster-secret"];

/// Subcommands of ACL that name a user.
const USER_SUBCOMMANDS: &[&str] = &["SETUSER", "DELUSER", "GETUSER"];

/// Argument `i` as it may be shown.
pub(crate) fn shown<'a>(args: Args<'a>, i: usize) -> &'a [u8] {
    if is_secret(args, i) { REDACTED } else { args.get(i) }
}

fn is_secret(args: Args<'_>, i: usize) -> bool {
    let is = |at: usize, word: &str| args.get(at).eq_ignore_ascii_case(word.as_bytes());
    if i == 0 {
        return false;
    }
    match args.get(0).len() {
        3 => i >= 2 && is(0, "ACL") && USER_SUBCOMMANDS.iter().any(|name| is(1, name)),
        4 => is(0, "AUTH"),
        5 => is(0, "HELLO") && (i >= 3 && is(i - 1, "AUTH") || i >= 4 && is(i - 2, "AUTH")),
        6 => {
            let is_value = i >= 3 && i % 2 == 1 && is(0, "CONFIG") && is(1, "SET");
            is_value && SECRET_SETTINGS.iter().any(|name| is(i - 1, name))
        }
        7 => is(0, "MIGRATE") && crate::migrate::is_secret(args, i),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_protocol::parse::OwnedArgs;

    fn all_shown(line: &str) -> String {
        let args = OwnedArgs::from_pieces(line.split(' '));
        let args = args.as_args();
        let words = (0..args.len()).map(|i| String::from_utf8_lossy(shown(args, i)));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (line, expected) in [
            ("auth pass", "auth (redacted)"),
            ("AUTH user pass", "AUTH (redacted) (redacted)"),
            ("HELLO 3 AUTH u p SETNAME n", "HELLO 3 AUTH (redacted) (redacted) SETNAME n"),
            ("HELLO 3 SETNAME n", "HELLO 3 SETNAME n"),
            (
                "CONFIG SET maxmemory 1 requirepass p",
                "CONFIG SET maxmemory 1 requirepass (redacted)",
            ),
            ("CONFIG GET requirepass", "CONFIG GET requirepass"),
            ("ACL SETUSER u on >p", "ACL SETUSER (redacted) (redacted) (redacted)"),
            ("acl whoami", "acl whoami"),
            ("SET AUTH requirepass", "SET AUTH requirepass"),
            ("MIGRATE h 1 k 0 9 AUTH p COPY", "MIGRATE h 1 k 0 9 AUTH (redacted) COPY"),
            (
                "MIGRATE h 1  0 9 auth2 u p KEYS auth a",
                "MIGRATE h 1  0 9 auth2 (redacted) (redacted) KEYS auth a",
            ),
        ] {
            assert_eq!(all_shown(line), expected);
        }
    }
}
