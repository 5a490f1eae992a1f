//! Strings that are changed only while they are what the client saw last, and the digest by which it may
//! tell so without sending the value: commands of Redis 8.4 and of Valkey 9.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::expire::{self, TimeUnit};
use crate::string::{payload_of, store};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys, counted};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::{EntryRef, Ttl};
use xxhash_rust::xxh3::xxh3_64;

const BASE: Command =
    Command { group: Group::String, since: "8.4.0", acl: Acl::STRING, ..Command::DEFAULT };
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "DELEX",
        arity: -2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE).or(KeyFlags::VARIABLE_FLAGS)),
        flags: CHANGE_FAST,
        run: delex,
        summary: "Deletes a key, if its value or the digest of it is (not) as expected.",
        complexity: "O(N) in the length of the value where digests are compared, else O(1)",
        syntax: "key [IFEQ match-value | IFNE match-value | IFDEQ match-digest | IFDNE match-digest]",
        examples: "> SET a 1\nOK\n> DELEX a IFEQ 2\n(integer) 0\n> DELEX a IFEQ 1\n(integer) 1\n\
                   > DELEX a IFNE 1\n(integer) 0",
        ..BASE
    },
    Command {
        name: "DELIFEQ",
        since: "9.0.0",
        arity: 3,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE)),
        flags: CHANGE_FAST,
        run: delifeq,
        summary: "Deletes a key, if it has this value: how a lock is given back by who took it.",
        syntax: "key value",
        examples: "> SET lock me NX\nOK\n> DELIFEQ lock you\n(integer) 0\n> DELIFEQ lock me\n(integer) 1",
        ..BASE
    },
    Command {
        name: "DIGEST",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY.or(Flags::FAST),
        run: digest,
        summary: "A hash of a value (64-bit XXH3, in hexadecimal), which IFDEQ and IFDNE compare with.",
        complexity: "O(N) in the length of the value",
        syntax: "key",
        examples: "> DIGEST a\n(nil)\n> SET a hello\nOK\n> DIGEST a\n\"9555e8555c62dcfd\"\n\
                   > SET a world IFDEQ 9555e8555c62dcfd\nOK",
        ..BASE
    },
    Command {
        name: "MSETEX",
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        arity: -4,
        keys: Keys::CountedPairs { count: 1, flags: KeyFlags::OW.or(KeyFlags::UPDATE) },
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::MOVABLE_KEYS),
        run: msetex,
        summary: "Sets several keys at once with one expiry; with NX or XX none or all of them.",
        complexity: "O(N) in the number of keys",
        syntax: "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
        examples: "> MSETEX 2 a 1 b 2 EX 100\n(integer) 1\n> TTL b\n(integer) 100\n\
                   > MSETEX 2 b 3 c 4 NX\n(integer) 0\n> EXISTS c\n(integer) 0",
        ..BASE
    },
];

/// The words that begin a condition.
pub(crate) const WORDS: [&[u8]; 4] = [b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"];

/// Digits of a digest.
const DIGEST_LEN: usize = 16;

/// What a value must be for a write to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition<'a> {
    /// Whether it is to be as expected, or anything else.
    is_equal: bool,
    /// Whether digests are compared and not values.
    is_digest: bool,
    expected: &'a [u8],
}

impl<'a> Condition<'a> {
    /// The condition that one of [`WORDS`] stands for.
    pub(crate) fn parse(word: &[u8], expected: &'a [u8]) -> Option<Self> {
        let i = WORDS.iter().position(|known| word.eq_ignore_ascii_case(known))?;
        Some(Condition { is_equal: i % 2 == 0, is_digest: i >= 2, expected })
    }

    /// Whether it is true of what a key holds. A key that is not there is like no value.
    ///
    /// # Errors
    /// If there is something to compare with and the digest expected is none.
    pub(crate) fn holds(&self, entry: Option<EntryRef<'_>>) -> Result<bool, ReplyError> {
        let Some(entry) = entry else { return Ok(!self.is_equal) };
        let is_same = if self.is_digest {
            if self.expected.len() != DIGEST_LEN {
                let text = "ERR digest must be exactly 16 hexadecimal characters";
                return Err(ReplyError::Text(text));
            }
            digest_of(entry.value()).as_bytes().eq_ignore_ascii_case(self.expected)
        } else {
            entry.value() == self.expected
        };
        Ok(is_same == self.is_equal)
    }
}

/// The digest of a value. Redis documents the function, so that clients can reckon it themselves.
fn digest_of(value: &[u8]) -> String {
    format!("{:016x}", xxh3_64(value))
}

fn digest(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.string(args.get(1))? {
        Some(entry) => cx.reply.bulk(digest_of(entry.value()).as_bytes()),
        None => cx.reply.null(),
    }
    Ok(())
}

/// Deletes a string of which a condition is true.
fn delete_if(cx: &mut Cx<'_>, key: &[u8], condition: Condition<'_>) -> Outcome {
    let entry = cx.keys.string_uncounted(key)?;
    let is_there = entry.is_some();
    let goes = is_there && condition.holds(entry)?;
    if goes {
        cx.keys.delete(key, Event::Del);
    }
    cx.reply.int(i64::from(goes));
    Ok(())
}

fn delex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    match args.len() {
        2 => {
            let is_gone = cx.keys.delete(key, Event::Del);
            cx.reply.int(i64::from(is_gone));
            Ok(())
        }
        4 => {
            let condition = Condition::parse(args.get(2), args.get(3)).ok_or(ReplyError::Text(
                "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE",
            ))?;
            delete_if(cx, key, condition).map_err(|error| match error {
                ReplyError::WrongType => {
                    ReplyError::Text("ERR Key should be of string type if conditions are specified")
                }
                other => other,
            })
        }
        _ => Err(ReplyError::Text("ERR wrong number of arguments for 'delex' command")),
    }
}

fn delifeq(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let condition = Condition { is_equal: true, is_digest: false, expected: args.get(2) };
    delete_if(cx, args.get(1), condition)
}

/// What follows the keys and values of MSETEX.
#[derive(Default)]
struct MsetOptions {
    /// Whether all keys must be there, or none of them.
    all_there: Option<bool>,
    keeps_ttl: bool,
    /// Unit, and the number of the argument with the time.
    time: Option<(TimeUnit, usize)>,
}

fn parse_mset_options(args: Args<'_>, first: usize) -> Result<MsetOptions, ReplyError> {
    let mut options = MsetOptions::default();
    let mut i = first;
    while i < args.len() {
        let word = args.get(i);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let may_be = |unit| options.time.is_none_or(|(other, _)| unit == other);
        match TimeUnit::of_option(word) {
            _ if is("NX") && options.all_there != Some(true) => options.all_there = Some(false),
            _ if is("XX") && options.all_there != Some(false) => options.all_there = Some(true),
            _ if is("KEEPTTL") && options.time.is_none() => options.keeps_ttl = true,
            Some(unit) if !options.keeps_ttl && may_be(unit) && i + 1 < args.len() => {
                i += 1;
                options.time = Some((unit, i));
            }
            _ => return Err(ReplyError::Syntax),
        }
        i += 1;
    }
    Ok(options)
}

fn msetex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let keys = number::parse_i64(args.get(1)).and_then(|keys| i32::try_from(keys).ok());
    if keys.is_none_or(|keys| keys <= 0) {
        return Err(ReplyError::Text("ERR invalid numkeys value"));
    }
    let Some(keys) = counted(args, 1).filter(|keys| 2 * keys < args.len() - 1) else {
        return Err(ReplyError::Text("ERR wrong number of key-value pairs"));
    };
    let end = 2 + 2 * keys;
    let options = parse_mset_options(args, end)?;
    let ttl = match options.time {
        Some((unit, i)) => Ttl::At(expire::deadline(cx, args.get(i), unit)?),
        None if options.keeps_ttl => Ttl::Keep,
        None => Ttl::Clear,
    };
    let mut places = (2..end).step_by(2);
    let may = match options.all_there {
        None => {
            // A key whose time is past goes first, so that it is a new one that is set.
            places.for_each(|i| {
                cx.keys.exists(args.get(i));
            });
            true
        }
        Some(wanted) => places.all(|i| cx.keys.exists(args.get(i)) == wanted),
    };
    if may {
        (2..end).step_by(2).for_each(|i| store(cx, args.get(i), payload_of(args, i + 1), ttl));
    }
    cx.reply.int(i64::from(may));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    fn check(h: &mut Harness, steps: &[(&str, &str)]) {
        for (line, reply) in steps {
            assert_eq!(String::from_utf8_lossy(&h.run(line)), format!("{reply}\r\n"), "{line}");
        }
    }

    #[test]
    fn set_goes_by_the_value_that_is_there() {
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        check(
            &mut Harness::default(),
            &[
                ("SET a 1 IFEQ 0", "$-1"),
                ("SET a 1 IFNE 0", "+OK"),
                ("SET a 2 IFNE 1", "$-1"),
                ("SET a 2 ifeq 1 EX 100", "+OK"),
                ("SET a 3 IFEQ 2 KEEPTTL GET", "$1\r\n2"),
                ("TTL a", ":100"),
                ("SET a 4 IFEQ 2 GET", "$1\r\n3"),
                ("GET a", "$1\r\n3"),
                ("SET a 4 GET IFNE 3", "$1\r\n3"),
                ("SET b 4 IFNE 3 GET", "$-1"),
                ("GET b", "$1\r\n4"),
                ("RPUSH l x", ":1"),
                ("SET l 1 IFEQ x", wrong),
                ("SET l 1 IFDNE 0", wrong),
                ("SET l 1 IFNE x GET", wrong),
            ],
        );
    }

    #[test]
    fn one_condition_is_enough() {
        let mut h = Harness::default();
        for options in [
            "NX IFEQ 1",
            "IFEQ 1 NX",
            "IFEQ 1 XX",
            "IFEQ 1 IFNE 2",
            "IFEQ 1 IFEQ 1",
            "IFEQ",
            "EX 10 IFDEQ",
        ] {
            let line = format!("SET a 1 {options}");
            assert_eq!(h.run(&line), b"-ERR syntax error\r\n", "{line}");
        }
        // What follows a condition is a value, whatever it spells.
        assert_eq!(h.run("SET a 1 IFNE NX"), b"+OK\r\n");
    }

    #[test]
    fn digests_are_compared() {
        let text = "-ERR digest must be exactly 16 hexadecimal characters";
        check(
            &mut Harness::default(),
            &[
                ("SET a hello IFDEQ x", "$-1"),
                ("SET a hello IFDNE x", "+OK"),
                ("DIGEST a", "$16\r\n9555e8555c62dcfd"),
                ("SET a 1 IFDEQ 9555E8555C62DCFD", "+OK"),
                ("SET a 2 IFDEQ x GET", text),
                ("DELEX a IFDNE 9555e8555c62dcf", text),
                ("DELEX a IFDEQ 9555e8555c62dcfd", ":0"),
                ("DELEX a IFDNE 9555e8555c62dcfd", ":1"),
                ("SET empty \"\"", "+OK"),
                ("DIGEST empty", "$16\r\n2d06800538d394c2"),
            ],
        );
    }

    #[test]
    fn keys_are_deleted_if_they_are_as_expected() {
        let arity = "-ERR wrong number of arguments for 'delex' command";
        check(
            &mut Harness::default(),
            &[
                ("DELEX a", ":0"),
                ("DELEX a IFNE 1", ":0"),
                ("SET a 1", "+OK"),
                ("DELEX a IFEQ", arity),
                ("DELEX a IFEQ 1 2", arity),
                ("DELEX a IF 1", "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"),
                ("DELEX a IFNE 1", ":0"),
                ("DELEX a IFNE 2", ":1"),
                ("RPUSH l x", ":1"),
                ("DELEX l IFEQ x", "-ERR Key should be of string type if conditions are specified"),
                (
                    "DELIFEQ l x",
                    "-WRONGTYPE Operation against a key holding the wrong kind of value",
                ),
                ("DELEX l", ":1"),
                ("DELIFEQ l x", ":0"),
            ],
        );
    }

    #[test]
    fn several_keys_are_set_with_one_deadline() {
        check(
            &mut Harness::default(),
            &[
                ("MSETEX 2 a 1 b 2 px 100000 nx", ":1"),
                ("PTTL b", ":100000"),
                ("MSETEX 2 a 3 c 4 XX", ":0"),
                ("MSETEX 2 a 3 b 4 XX KEEPTTL", ":1"),
                ("PTTL a", ":100000"),
                ("MSETEX 1 a 5", ":1"),
                ("TTL a", ":-1"),
                ("MSETEX 2 a 1 a 2 NX", ":0"),
                ("MSETEX 2 d 1 d 2 NX", ":1"),
                ("GET d", "$1\r\n2"),
                ("MSETEX 0 a 1", "-ERR invalid numkeys value"),
                ("MSETEX 2147483648 a 1", "-ERR invalid numkeys value"),
                ("MSETEX 2147483647 a 1", "-ERR wrong number of key-value pairs"),
                ("MSETEX 2 a 1 b", "-ERR wrong number of key-value pairs"),
                ("MSETEX 1 a 1 EX 0", "-ERR invalid expire time in 'msetex' command"),
                ("MSETEX 1 a 1 NX XX", "-ERR syntax error"),
                ("MSETEX 1 a 1 KEEPTTL EX 1", "-ERR syntax error"),
                ("MSETEX 1 a 1 EX 1 KEEPTTL", "-ERR syntax error"),
                ("MSETEX 1 a 1 EX 1 PX 1", "-ERR syntax error"),
                ("MSETEX 1 a 1 EX", "-ERR syntax error"),
                ("MSETEX 1 a 1 NX NX EX 7 EX 9", ":0"),
                ("MSETEX 1 a 1 EX 7 EX 9", ":1"),
                ("TTL a", ":9"),
            ],
        );
    }
}
