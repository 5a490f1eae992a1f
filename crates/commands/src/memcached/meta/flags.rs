//! The flags of meta commands: one letter each, some with a token.

use super::base64;
use hypercache_protocol::memcached::Refusal;
use hypercache_protocol::memcached::number::{parse_i64, parse_u32, parse_u64};

pub(super) const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";
/// Longest `O` flag, the letter included.
const OPAQUE_MAX: usize = 32;

/// What the flags of one command ask for.
#[derive(Clone, Debug)]
pub(super) struct Flags {
    /// `q`
    pub(super) is_quiet: bool,
    /// `b`
    pub(super) is_binary: bool,
    /// `v`
    pub(super) wants_value: bool,
    /// `u`: the read is no use of the item.
    pub(super) keeps_use: bool,
    /// `I`
    pub(super) invalidates: bool,
    /// `x`
    pub(super) removes_value: bool,
    /// `T`
    pub(super) exptime: Option<i64>,
    /// `N`
    pub(super) vivifies: Option<i64>,
    /// `R`
    pub(super) recache: Option<i64>,
    /// `C`
    pub(super) cas: Option<u64>,
    /// `E`
    pub(super) new_cas: Option<u64>,
    /// `F`
    pub(super) client_flags: u32,
    /// `D`
    pub(super) delta: u64,
    /// `J`
    pub(super) initial: u64,
    /// `M`, or 0.
    pub(super) mode: u8,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            is_quiet: false,
            is_binary: false,
            wants_value: false,
            keeps_use: false,
            invalidates: false,
            removes_value: false,
            exptime: None,
            vivifies: None,
            recache: None,
            cas: None,
            new_cas: None,
            client_flags: 0,
            delta: 1,
            initial: 0,
            mode: 0,
        }
    }
}

/// A flag that was not understood.
enum Wrong {
    /// What is told unless a later flag is wrong, too.
    Token(&'static str),
    /// Nothing further is looked at.
    Letter(&'static str),
}

const TOKEN: Wrong = Wrong::Token("CLIENT_ERROR bad token in command line format");

impl Flags {
    /// Reads the flags, and decodes the key if they say that it is in base64.
    ///
    /// # Errors
    /// The line that says what is wrong.
    pub(super) fn parse<'a>(
        key: &[u8],
        words: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Flags, Option<Vec<u8>>), &'static str> {
        let mut flags = Flags::default();
        let (mut seen, mut wrong, mut decoded) = (0u128, None, None);
        let mut is_opaque_long = false;
        for word in words {
            let letter = word[0];
            if letter >= 127 || seen & 1 << letter != 0 {
                return Err("CLIENT_ERROR duplicate flag");
            }
            seen |= 1 << letter;
            is_opaque_long |= letter == b'O' && word.len() > OPAQUE_MAX;
            let result = match letter {
                b'b' => {
                    flags.is_binary = true;
                    decoded = base64::decode(key);
                    let is_valid = decoded.is_some();
                    is_valid.then_some(()).ok_or(Wrong::Token("CLIENT_ERROR error decoding key"))
                }
                _ => flags.read(letter, &word[1..]),
            };
            match result {
                Ok(()) => {}
                // As memcached, where this flag has no text of its own.
                Err(Wrong::Token(text)) if letter == b'F' => wrong = wrong.or(Some(text)),
                Err(Wrong::Token(text)) => wrong = Some(text),
                Err(Wrong::Letter(text)) => return Err(text),
            }
        }
        match wrong {
            Some(text) => Err(text),
            None if is_opaque_long => Err(OPAQUE_TOO_LONG),
            None => Ok((flags, decoded)),
        }
    }

    fn read(&mut self, letter: u8, token: &[u8]) -> Result<(), Wrong> {
        match letter {
            b'q' => self.is_quiet = true,
            b'v' => self.wants_value = true,
            b'u' => self.keeps_use = true,
            b'I' => self.invalidates = true,
            b'x' => self.removes_value = true,
            b'T' => self.exptime = Some(parse_i64(token).ok_or(TOKEN)?),
            b'N' => self.vivifies = Some(parse_i64(token).ok_or(TOKEN)?),
            b'R' => self.recache = Some(parse_i64(token).ok_or(TOKEN)?),
            b'C' => self.cas = Some(parse_u64(token).ok_or(TOKEN)?),
            b'E' => self.new_cas = Some(parse_u64(token).ok_or(TOKEN)?),
            b'F' => {
                let wrong = Wrong::Token(Refusal::Line.text());
                self.client_flags = parse_u32(token).ok_or(wrong)?;
            }
            b'D' => {
                let wrong = Wrong::Token("CLIENT_ERROR invalid numeric delta value");
                self.delta = parse_u64(token).ok_or(wrong)?;
            }
            b'J' => {
                let wrong = Wrong::Token("CLIENT_ERROR invalid numeric initial value");
                self.initial = parse_u64(token).ok_or(wrong)?;
            }
            b'M' => match token {
                [mode] => self.mode = *mode,
                _ => return Err(Wrong::Token("CLIENT_ERROR incorrect length for M token")),
            },
            // What is told in the reply, and what is left to routers between client and server.
            b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'l' | b'h' => {}
            _ => return Err(Wrong::Letter("CLIENT_ERROR invalid flag")),
        }
        Ok(())
    }
}
