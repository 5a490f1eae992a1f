//! The pieces that everything is made of: lengths, strings, numbers.

use crate::lzf;
use hypercache_store::types::Digits;
use std::borrow::Cow;

/// Longest string that is read: no command takes a longer one.
const STRING_MAX: usize = 512 * 1024 * 1024;

/// How much all packed strings together may unpack to: so many times the bytes that there are, and one
/// string of the greatest length. LZF packs up to 88 times, which only long runs of one byte reach: a
/// sparse bitmap does, and SETBIT makes one of any length as cheaply, but not a whole collection.
const UNPACKED_RATIO: usize = 20;
const UNPACKED_FREE: usize = STRING_MAX;

/// Bytes to read from. Whatever they are, reading ends with `None` at worst.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// How much packed strings may still unpack to.
    unpacked_left: usize,
}

/// A length, or the number of a special encoding of a string.
enum Len {
    Plain(u64),
    Special(u8),
}

impl<'a> Reader<'a> {
    /// A reader from the first byte on.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let ratio = UNPACKED_RATIO.saturating_mul(bytes.len());
        Reader { rest: bytes, unpacked_left: ratio.saturating_add(UNPACKED_FREE) }
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next bytes as they are.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A time in milliseconds since the epoch, or -1 for none.
    pub fn time_ms(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn len_or_special(&mut self) -> Option<Len> {
        let first = self.u8()?;
        let low = first & 0x3f;
        Some(match first >> 6 {
            0 => Len::Plain(u64::from(low)),
            1 => Len::Plain(u64::from(low) << 8 | u64::from(self.u8()?)),
            2 if first == 0x80 => Len::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Len::Plain(u64::from_be_bytes(self.array()?)),
            2 => return None,
            _ => Len::Special(low),
        })
    }

    /// A length or another number that is written like one.
    pub fn len(&mut self) -> Option<u64> {
        match self.len_or_special()? {
            Len::Plain(len) => Some(len),
            Len::Special(_) => None,
        }
    }

    /// How many things follow. Each takes a byte at least, so there are no more than bytes.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.len()?).ok()?;
        (count <= self.rest.len()).then_some(count)
    }

    /// A string, whichever way it is written.
    pub fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        let number = |n: i64| Cow::Owned(Digits::new().format(n).as_bytes().to_vec());
        match self.len_or_special()? {
            Len::Plain(len) => Some(Cow::Borrowed(self.take(string_len(len)?)?)),
            Len::Special(0) => Some(number(i64::from(i8::from_le_bytes(self.array()?)))),
            Len::Special(1) => Some(number(i64::from(i16::from_le_bytes(self.array()?)))),
            Len::Special(2) => Some(number(i64::from(i32::from_le_bytes(self.array()?)))),
            Len::Special(3) => {
                let (packed, len) = (string_len(self.len()?)?, string_len(self.len()?)?);
                self.unpacked_left = self.unpacked_left.checked_sub(len)?;
                lzf::unpack(self.take(packed)?, len).map(Cow::Owned)
            }
            Len::Special(_) => None,
        }
    }
}

fn string_len(len: u64) -> Option<usize> {
    usize::try_from(len).ok().filter(|len| *len <= STRING_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_strings_unpack_within_bounds_together() {
        // Each stands for 265 bytes.
        let packed = b"\xc3\x05\x41\x09\x00a\xe0\xff\x00".repeat(10);
        let lens = |mut from: Reader<'_>| -> Vec<usize> {
            std::iter::from_fn(|| Some(from.string()?.len())).collect()
        };
        assert_eq!(lens(Reader::new(&packed)), [265; 10]);
        assert_eq!(lens(Reader { rest: &packed, unpacked_left: 3 * 265 }), [265; 3]);
        assert_eq!(lens(Reader { rest: &packed, unpacked_left: 3 * 265 - 1 }), [265; 2]);
        // A sparse bitmap of the greatest length has a payload of a few megabytes.
        assert!(Reader::new(b"").unpacked_left >= STRING_MAX);
        assert_eq!(Reader::new(&packed).unpacked_left, STRING_MAX + 20 * packed.len());
    }
}
