//! Strings as arrays of bits. Bit 0 is the highest bit of the first byte.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Keys as Held;
use crate::string::{check_length, resolve_range};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::{Payload, Ttl};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command { group: Group::Bitmap, acl: Acl::BITMAP, ..Command::DEFAULT };
const READ_FAST: Flags = Flags::READONLY.or(Flags::FAST);
const WRITE: Flags = Flags::WRITE.or(Flags::DENY_OOM);
const TARGET: Keys =
    Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::OW.or(KeyFlags::UPDATE) };
const SOURCES: Keys =
    Keys::Range { first: 3, last: -1, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) };
const BITOP_KEYS: Keys = Keys::Two(&TARGET, &SOURCES);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SETBIT",
        since: "2.2.0",
        arity: 4,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::UPDATE)),
        flags: WRITE,
        run: setbit,
        summary: "Sets or clears a bit; answers what it was.",
        syntax: "key offset value",
        examples: "> SETBIT a 7 1\n(integer) 0\n> SETBIT a 7 0\n(integer) 1\n> SETBIT a 7 2\n(error) ERR bit is not an integer or out of range",
        ..BASE
    },
    Command {
        name: "GETBIT",
        since: "2.2.0",
        arity: 3,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: READ_FAST,
        run: getbit,
        summary: "A bit of a value.",
        syntax: "key offset",
        examples: "> SET a a\nOK\n> GETBIT a 1\n(integer) 1\n> GETBIT a 100\n(integer) 0",
        ..BASE
    },
    Command {
        name: "BITCOUNT",
        since: "2.6.0",
        arity: -2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: bitcount,
        summary: "Number of set bits, of the value or of a part.",
        complexity: "O(N)",
        syntax: "key [start end [BYTE | BIT]]",
        examples: "> SET a foobar\nOK\n> BITCOUNT a\n(integer) 26\n> BITCOUNT a 1 1\n(integer) 6\n> BITCOUNT a 5 30 BIT\n(integer) 17",
        ..BASE
    },
    Command {
        name: "BITPOS",
        since: "2.8.7",
        arity: -3,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: bitpos,
        summary: "Position of the first set or clear bit.",
        complexity: "O(N)",
        syntax: "key bit [start [end [BYTE | BIT]]]",
        examples: "> BITPOS a 0\n(integer) 0\n> BITPOS a 1\n(integer) -1\n> SETBIT a 12 1\n(integer) 0\n> BITPOS a 1\n(integer) 12",
        ..BASE
    },
    Command {
        name: "BITOP",
        since: "2.6.0",
        arity: -4,
        keys: BITOP_KEYS,
        flags: WRITE,
        run: bitop,
        summary: "Combines values bit by bit into a key; answers its length.",
        complexity: "O(N)",
        syntax: "<AND | OR | XOR | NOT | DIFF | DIFF1 | ANDOR | ONE> destkey key [key ...]",
        examples: "> SET a abc\nOK\n> SET b ab\nOK\n> BITOP AND c a b\n(integer) 3\n> GET c\n\"ab\\x00\"\n> BITOP DIFF c a b\n(integer) 3\n> GET c\n\"\\x00\\x00c\"",
        ..BASE
    },
];

/// The offset of a bit. With `width` given, `#n` stands for `n` times the width.
pub(crate) fn parse_offset(
    cx: &Cx<'_>,
    text: &[u8],
    width: Option<u32>,
) -> Result<u64, ReplyError> {
    let (digits, factor) = match (text, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, i64::from(width)),
        _ => (text, 1),
    };
    let offset = number::parse_i64(digits).and_then(|n| n.checked_mul(factor));
    let max = cx.shared.config.hot.bulk_bytes_max.load(Relaxed);
    match offset.map(u64::try_from) {
        Some(Ok(offset)) if offset / 8 < max => Ok(offset),
        _ => Err(ReplyError::BitOffset),
    }
}

fn mask_of(bit: u64) -> u8 {
    0x80 >> (bit % 8)
}

fn bit_of(value: &[u8], bit: u64) -> bool {
    value.get((bit / 8) as usize).is_some_and(|byte| byte & mask_of(bit) != 0)
}

fn setbit(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let bit = parse_offset(cx, args.get(2), None)?;
    let on = match number::parse_i64(args.get(3)) {
        Some(on @ (0 | 1)) => on == 1,
        _ => return Err(ReplyError::BitValue),
    };
    let (key, at) = (args.get(1), (bit / 8) as usize);
    let value = cx.keys.string_uncounted(key)?.map(|entry| entry.value());
    let was = bit_of(value.unwrap_or_default(), bit);
    let byte = value.and_then(|v| v.get(at)).copied();
    if byte.is_none() || was != on {
        let old = byte.unwrap_or(0);
        let new = if on { old | mask_of(bit) } else { old & !mask_of(bit) };
        let len = value.map_or(0, <[u8]>::len).max(at + 1);
        cx.keys.splice(key, len, at, &[new], Event::SetBit);
    }
    cx.reply.int(i64::from(was));
    Ok(())
}

fn getbit(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let bit = parse_offset(cx, args.get(2), None)?;
    let is_set = cx.keys.string(args.get(1))?.is_some_and(|entry| bit_of(entry.value(), bit));
    cx.reply.int(i64::from(is_set));
    Ok(())
}

/// Whether a range counts in bits: `BIT`, or in bytes: `BYTE`.
fn parse_unit(word: &[u8]) -> Result<bool, ReplyError> {
    match word.to_ascii_uppercase().as_slice() {
        b"BIT" => Ok(true),
        b"BYTE" => Ok(false),
        _ => Err(ReplyError::Syntax),
    }
}

/// Bits from `first` to `last` of a value, both included.
#[derive(Clone, Copy)]
struct Bits<'a> {
    value: &'a [u8],
    first: u64,
    last: u64,
}

impl<'a> Bits<'a> {
    /// All bits of a value, unless it has none.
    fn all(value: &'a [u8]) -> Option<Self> {
        Self::within(value, 0, -1, false)
    }

    /// The bits of a range given in bits or bytes.
    fn within(value: &'a [u8], start: i64, end: i64, in_bits: bool) -> Option<Self> {
        let units = if in_bits { value.len() * 8 } else { value.len() };
        let (start, end) = resolve_range(start, end, units)?;
        let (start, end) = (start as u64, end as u64);
        let (first, last) = if in_bits { (start, end) } else { (start * 8, end * 8 + 7) };
        Some(Bits { value, first, last })
    }

    /// The bytes, with what lies outside of the range replaced by bits like `fill`.
    fn edges(self, fill: u8) -> (u8, &'a [u8], Option<u8>) {
        let (a, b) = ((self.first / 8) as usize, (self.last / 8) as usize);
        let head = 0xffu8 >> (self.first % 8);
        let tail = !(0x7fu8 >> (self.last % 8));
        let masked = |byte: u8, mask: u8| byte & mask | fill & !mask;
        if a == b {
            return (masked(self.value[a], head & tail), &[], None);
        }
        let inner = &self.value[a + 1..b];
        (masked(self.value[a], head), inner, Some(masked(self.value[b], tail)))
    }

    fn count(self) -> u64 {
        let (head, inner, tail) = self.edges(0);
        let ends = head.count_ones() + tail.map_or(0, u8::count_ones);
        let (words, rest) = inner.as_chunks::<8>();
        let words = words.iter().map(|w| u64::from(u64::from_ne_bytes(*w).count_ones()));
        let rest = rest.iter().map(|b| u64::from(b.count_ones()));
        u64::from(ends) + words.sum::<u64>() + rest.sum::<u64>()
    }

    /// Position of the first bit that is (not) set.
    fn position(self, is_set: bool) -> Option<u64> {
        // What is looked for becomes a set bit.
        let flip = if is_set { 0 } else { 0xff };
        let (head, inner, tail) = self.edges(flip);
        let start = self.first / 8;
        let within = |byte: u8| u64::from((byte ^ flip).leading_zeros());
        if head ^ flip != 0 {
            return Some(start * 8 + within(head));
        }
        let (words, rest) = inner.as_chunks::<8>();
        let full = [flip; 8];
        let same = words.iter().take_while(|w| **w == full).count() * 8;
        let found = inner[same..].iter().position(|b| b ^ flip != 0).map(|i| same + i);
        debug_assert!(found.is_some() || same + rest.len() <= inner.len());
        if let Some(i) = found {
            return Some((start + 1 + i as u64) * 8 + within(inner[i]));
        }
        let tail = tail.filter(|tail| tail ^ flip != 0)?;
        Some((start + 1 + inner.len() as u64) * 8 + within(tail))
    }
}

fn bitcount(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let Some(entry) = cx.keys.string(args.get(1))? else {
        cx.reply.int(0);
        return Ok(());
    };
    let bits = match args.len() {
        2 => Bits::all(entry.value()),
        4 | 5 => {
            let start = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
            let end = number::parse_i64(args.get(3)).ok_or(ReplyError::NotAnInteger)?;
            if start < 0 && end < 0 && start > end {
                None
            } else {
                let in_bits = args.len() == 5 && parse_unit(args.get(4))?;
                Bits::within(entry.value(), start, end, in_bits)
            }
        }
        _ => return Err(ReplyError::Syntax),
    };
    cx.reply.int(bits.map_or(0, Bits::count) as i64);
    Ok(())
}

fn bitpos(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let wanted = number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    if !(0..=1).contains(&wanted) {
        return Err(ReplyError::Text("ERR The bit argument must be 1 or 0."));
    }
    let is_set = wanted == 1;
    let Some(entry) = cx.keys.string(args.get(1))? else {
        cx.reply.int(if is_set { -1 } else { 0 });
        return Ok(());
    };
    if args.len() > 6 {
        return Err(ReplyError::Syntax);
    }
    let int = |i: usize| number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger);
    let start = if args.len() > 3 { int(3)? } else { 0 };
    let in_bits = args.len() == 6 && parse_unit(args.get(5))?;
    let end = if args.len() > 4 { Some(int(4)?) } else { None };
    let value = entry.value();
    let units = if in_bits { value.len() * 8 } else { value.len() };
    // Unlike elsewhere, an end before the value is its first unit even where the start is later.
    let last = end.unwrap_or(-1).max(-(units as i64));
    let found = Bits::within(value, start, last, in_bits).map(|b| b.position(is_set));
    cx.reply.int(match found {
        Some(Some(position)) => position as i64,
        // Zeros follow the value, unless an end was given.
        Some(None) if !is_set && end.is_none() => value.len() as i64 * 8,
        _ => -1,
    });
    Ok(())
}

/// The error of an operation that sets one value against others and got only one.
macro_rules! too_few {
    ($name:literal) => {
        concat!("ERR BITOP ", $name, " must be called with at least two source keys.")
    };
}

/// What BITOP does with the values.
#[derive(Clone, Copy)]
enum Operation {
    Not,
    /// Combines one after the other.
    Fold(fn(u8, u8) -> u8),
    /// Combines the first with what any of the others has.
    FirstAndUnion(fn(u8, u8) -> u8),
    /// Keeps the bits that exactly one of them has.
    One,
}

impl Operation {
    fn parse(word: &[u8], sources: usize) -> Result<Self, ReplyError> {
        let operation = match word.to_ascii_uppercase().as_slice() {
            b"AND" => Operation::Fold(|a, b| a & b),
            b"OR" => Operation::Fold(|a, b| a | b),
            b"XOR" => Operation::Fold(|a, b| a ^ b),
            b"ONE" => Operation::One,
            b"NOT" if sources == 1 => Operation::Not,
            b"NOT" => {
                let text = "ERR BITOP NOT must be called with a single source key.";
                return Err(ReplyError::Text(text));
            }
            b"DIFF" if sources > 1 => Operation::FirstAndUnion(|first, any| first & !any),
            b"DIFF1" if sources > 1 => Operation::FirstAndUnion(|first, any| !first & any),
            b"ANDOR" if sources > 1 => Operation::FirstAndUnion(|first, any| first & any),
            b"DIFF" => return Err(ReplyError::Text(too_few!("DIFF"))),
            b"DIFF1" => return Err(ReplyError::Text(too_few!("DIFF1"))),
            b"ANDOR" => return Err(ReplyError::Text(too_few!("ANDOR"))),
            _ => return Err(ReplyError::Syntax),
        };
        Ok(operation)
    }
}

/// Combines `other` into `result`; bytes that `other` lacks count as zero.
fn combine(result: &mut [u8], other: &[u8], op: fn(u8, u8) -> u8) {
    let (same, beyond) = result.split_at_mut(other.len());
    same.iter_mut().zip(other).for_each(|(a, b)| *a = op(*a, *b));
    beyond.iter_mut().for_each(|a| *a = op(*a, 0));
}

/// The values combined, of which the longest has `len` bytes.
fn combined(keys: &mut Held<'_>, operation: Operation, args: Args<'_>, len: usize) -> Vec<u8> {
    let mut value_of = |key| keys.peek(key).map_or(&b""[..], |entry| entry.value()).to_vec();
    let mut result = value_of(args.get(3));
    result.resize(len, 0);
    let others = args.iter_from(4);
    match operation {
        Operation::Not => result.iter_mut().for_each(|byte| *byte = !*byte),
        Operation::Fold(op) => others.for_each(|key| combine(&mut result, &value_of(key), op)),
        Operation::FirstAndUnion(op) => {
            let mut union = vec![0; len];
            others.for_each(|key| combine(&mut union, &value_of(key), |a, b| a | b));
            combine(&mut result, &union, op);
        }
        Operation::One => {
            let mut several = vec![0; len];
            for other in others.map(value_of) {
                let both = result.iter().zip(&other).map(|(any, byte)| any & byte);
                several.iter_mut().zip(both).for_each(|(several, both)| *several |= both);
                combine(&mut result, &other, |a, b| a | b);
            }
            combine(&mut result, &several, |any, several| any & !several);
        }
    }
    result
}

fn bitop(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let operation = Operation::parse(args.get(1), args.len() - 3)?;
    let mut len = 0;
    for key in args.iter_from(3) {
        len = len.max(cx.keys.string(key)?.map_or(0, |entry| entry.value().len()));
    }
    check_length(cx, len)?;
    let result = combined(&mut cx.keys, operation, args, len);
    let target = args.get(2);
    if result.is_empty() {
        cx.keys.delete(target, Event::Del);
    } else {
        cx.keys.exists(target);
        let value = Payload::Blob(Arc::new(result));
        cx.keys.set(target, value, Ttl::Clear, Event::Set);
    }
    cx.reply.int(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn newer_operations_combine_bits() {
        let mut h = Harness::default();
        // 1100, 1010 and 0110 0001 in the first bits.
        for (key, value) in [("a", &[0b1100_0000][..]), ("b", &[0b1010_0000]), ("c", &[0x60, 1])] {
            h.run_args([&b"SET"[..], key.as_bytes(), value]);
        }
        for (operation, expected) in [
            ("DIFF to a b", &[0b0100_0000][..]),
            ("DIFF to a b c", &[0, 0]),
            ("DIFF1 to a b c", &[0b0010_0000, 1]),
            ("ANDOR to a b c", &[0b1100_0000, 0]),
            ("ANDOR to b none c", &[0b0010_0000, 0]),
            ("ONE to a b c", &[0, 1]),
            ("ONE to a c c", &[0b1000_0000, 0]),
            ("ONE to a b", &[0b0110_0000]),
            ("ONE to a", &[0b1100_0000]),
        ] {
            let reply = format!(":{}\r\n", expected.len());
            assert_eq!(h.run(&format!("BITOP {operation}")), reply.as_bytes(), "{operation}");
            let head = format!("${}\r\n", expected.len());
            let reply = [head.as_bytes(), expected, b"\r\n"].concat();
            assert_eq!(h.run("GET to"), reply, "{operation}");
        }
        for name in ["DIFF", "DIFF1", "ANDOR"] {
            let text =
                format!("-ERR BITOP {name} must be called with at least two source keys.\r\n");
            assert_eq!(h.run(&format!("BITOP {name} to a")), text.as_bytes());
        }
    }
}
