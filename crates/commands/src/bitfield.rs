//! BITFIELD: integers of 1 to 64 bits at any bit of a string, most significant bit first.

use crate::bitmap::parse_offset;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;

const BASE: Command = Command { group: Group::Bitmap, acl: Acl::BITMAP, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const WRITE: Flags = Flags::WRITE.or(Flags::DENY_OOM);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "BITFIELD",
        since: "3.2.0",
        arity: -2,
        keys: Keys::first(
            KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE).or(KeyFlags::VARIABLE_FLAGS),
        ),
        flags: WRITE,
        run: bitfield,
        summary: "Reads and changes integers of any width within a value; parts may be repeated.",
        complexity: "O(1) for each part",
        syntax: "key [GET encoding offset] [OVERFLOW <WRAP | SAT | FAIL>] [SET encoding offset value] [INCRBY encoding offset increment]",
        examples: "> BITFIELD a SET u8 0 255 GET u4 0\n1) (integer) 0\n2) (integer) 15\n> BITFIELD a OVERFLOW FAIL INCRBY u8 0 1\n1) (nil)",
        ..BASE
    },
    Command {
        name: "BITFIELD_RO",
        since: "6.0.0",
        arity: -2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: bitfield_ro,
        summary: "Reads integers of any width within a value.",
        complexity: "O(1) for each part",
        syntax: "key [GET encoding offset [GET encoding offset ...]]",
        examples: "> SET a a\nOK\n> BITFIELD_RO a GET i8 0\n1) (integer) 97\n> BITFIELD_RO a SET i8 0 1\n(error) ERR BITFIELD_RO only supports the GET subcommand",
        ..BASE
    },
];

/// A type such as `i16` or `u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encoding {
    is_signed: bool,
    bits: u32,
}

impl Encoding {
    fn parse(text: &[u8]) -> Result<Self, ReplyError> {
        let error = ReplyError::Text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported \
             but i64 is.",
        );
        let (is_signed, digits) = match text {
            [b'i', digits @ ..] => (true, digits),
            [b'u', digits @ ..] => (false, digits),
            _ => return Err(error),
        };
        let max = if is_signed { 64 } else { 63 };
        match number::parse_i64(digits) {
            Some(bits) if (1..=max).contains(&bits) => {
                Ok(Encoding { is_signed, bits: bits as u32 })
            }
            _ => Err(error),
        }
    }

    /// Least and greatest value.
    fn bounds(self) -> (i128, i128) {
        if self.is_signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        }
    }

    /// The value that the lowest bits of `n` stand for.
    fn wrap(self, n: i128) -> i64 {
        let unused = 128 - self.bits;
        let shifted = n << unused;
        if self.is_signed { (shifted >> unused) as i64 } else { (shifted as u128 >> unused) as i64 }
    }
}

/// What happens to a result out of bounds.
#[derive(Clone, Copy, Debug)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Self, ReplyError> {
        match word.to_ascii_uppercase().as_slice() {
            b"WRAP" => Ok(Overflow::Wrap),
            b"SAT" => Ok(Overflow::Saturate),
            b"FAIL" => Ok(Overflow::Fail),
            _ => Err(ReplyError::Text("ERR Invalid OVERFLOW type specified")),
        }
    }

    /// The value to store, unless it may not be.
    fn apply(self, encoding: Encoding, n: i128) -> Option<i64> {
        let (min, max) = encoding.bounds();
        match self {
            _ if (min..=max).contains(&n) => Some(encoding.wrap(n)),
            Overflow::Wrap => Some(encoding.wrap(n)),
            Overflow::Saturate => Some(encoding.wrap(n.clamp(min, max))),
            Overflow::Fail => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set(i64),
    IncrBy(i64),
}

/// One part of the command.
#[derive(Clone, Copy, Debug)]
struct Part {
    encoding: Encoding,
    offset: u64,
    overflow: Overflow,
    action: Action,
}

impl Part {
    /// Bytes that the value must have for this part to be within it.
    fn bytes(&self) -> usize {
        ((self.offset + u64::from(self.encoding.bits) - 1) / 8 + 1) as usize
    }

    fn is_write(&self) -> bool {
        !matches!(self.action, Action::Get)
    }
}

fn parse_parts(cx: &Cx<'_>, args: Args<'_>) -> Result<Vec<Part>, ReplyError> {
    let mut parts = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut i = 2;
    while i < args.len() {
        let left = args.len() - i - 1;
        let word = args.get(i).to_ascii_uppercase();
        let words = match (word.as_slice(), left) {
            (b"GET", 2..) => 3,
            (b"SET" | b"INCRBY", 3..) => 4,
            (b"OVERFLOW", 1..) => {
                overflow = Overflow::parse(args.get(i + 1))?;
                i += 2;
                continue;
            }
            _ => return Err(ReplyError::Syntax),
        };
        let encoding = Encoding::parse(args.get(i + 1))?;
        let offset = parse_offset(cx, args.get(i + 2), Some(encoding.bits))?;
        let number = || number::parse_i64(args.get(i + 3)).ok_or(ReplyError::NotAnInteger);
        let action = match word.as_slice() {
            b"GET" => Action::Get,
            b"SET" => Action::Set(number()?),
            _ => Action::IncrBy(number()?),
        };
        parts.push(Part { encoding, offset, overflow, action });
        i += words;
    }
    Ok(parts)
}

/// The integer at a bit; bits beyond the value are zero.
fn read(value: &[u8], offset: u64, encoding: Encoding) -> i64 {
    let first = (offset / 8) as usize;
    // An integer of 64 bits at any bit lies within 9 bytes.
    let window =
        (0..9).fold(0u128, |w, i| w << 8 | u128::from(value.get(first + i).copied().unwrap_or(0)));
    let below = 72 - (offset % 8) as u32 - encoding.bits;
    encoding.wrap((window >> below) as i128)
}

/// Writes the integer at a bit of a value that is long enough.
fn write(value: &mut [u8], offset: u64, encoding: Encoding, n: i64) {
    for i in 0..encoding.bits {
        let bit = offset + u64::from(i);
        let mask = 0x80u8 >> (bit % 8);
        let byte = &mut value[(bit / 8) as usize];
        let is_set = n >> (encoding.bits - 1 - i) & 1 == 1;
        *byte = if is_set { *byte | mask } else { *byte & !mask };
    }
}

fn bitfield(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let parts = parse_parts(cx, args)?;
    if !parts.iter().any(Part::is_write) {
        return read_parts(cx, args.get(1), &parts);
    }
    change_parts(cx, args.get(1), &parts)
}

fn bitfield_ro(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let parts = parse_parts(cx, args)?;
    if parts.iter().any(Part::is_write) {
        return Err(ReplyError::Text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_parts(cx, args.get(1), &parts)
}

fn read_parts(cx: &mut Cx<'_>, key: &[u8], parts: &[Part]) -> Outcome {
    let value = cx.keys.string(key)?.map_or(&b""[..], |entry| entry.value());
    cx.reply.array(parts.len());
    for part in parts {
        cx.reply.int(read(value, part.offset, part.encoding));
    }
    Ok(())
}

/// Carries out the parts on a copy of the bytes they touch, then stores those.
fn change_parts(cx: &mut Cx<'_>, key: &[u8], parts: &[Part]) -> Outcome {
    let entry = cx.keys.string_uncounted(key)?;
    let is_new = entry.is_none();
    let mut value = entry.map_or_else(Vec::new, |e| e.value().to_vec());
    let old_len = value.len();
    let writes = || parts.iter().filter(|part| part.is_write());
    let len = writes().map(Part::bytes).fold(old_len, usize::max);
    value.resize(len, 0);
    let grows = is_new || len > old_len;
    let mut is_changed = false;
    cx.reply.array(parts.len());
    for part in parts {
        let old = read(&value, part.offset, part.encoding);
        let (wanted, is_increment) = match part.action {
            Action::Get => {
                cx.reply.int(old);
                continue;
            }
            Action::Set(n) => (wanted_by_set(part.encoding, n), false),
            Action::IncrBy(n) => (i128::from(old) + i128::from(n), true),
        };
        match part.overflow.apply(part.encoding, wanted) {
            None => cx.reply.null(),
            Some(new) => {
                write(&mut value, part.offset, part.encoding, new);
                is_changed |= grows || new != old;
                cx.reply.int(if is_increment { new } else { old });
            }
        }
    }
    if !is_changed && !grows {
        return Ok(());
    }
    let start = writes().map(|part| (part.offset / 8) as usize).min().unwrap_or(0);
    let end = writes().map(Part::bytes).max().unwrap_or(0);
    let event = if is_changed { Event::SetBit } else { Event::Silent };
    cx.keys.splice(key, len, start, &value[start..end], event);
    Ok(())
}

/// Redis takes the argument of an unsigned SET as the 64 bits of an unsigned number.
fn wanted_by_set(encoding: Encoding, n: i64) -> i128 {
    if encoding.is_signed { i128::from(n) } else { i128::from(n as u64) }
}
