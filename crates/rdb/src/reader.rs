//! The pieces that everything is made of: lengths, strings, numbers.

use crate::lzf;
use hypercache_store::types::Digits;
use std::borrow::Cow;

/// Longest string that is read: no command takes a longer one.
const STRING_MAX: usize = 512 * 1024 * 1024;

/// Bytes to read from. Whatever they are, reading ends with `None` at worst.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

/// A length, or the number of a special encoding of a string.
enum Len {
    Plain(u64),
    Special(u8),
}

impl<'a> Reader<'a> {
    /// A reader from the first byte on.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes as they are.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
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
        (count <= self.0.len()).then_some(count)
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
                lzf::unpack(self.take(packed)?, len).map(Cow::Owned)
            }
            Len::Special(_) => None,
        }
    }
}

fn string_len(len: u64) -> Option<usize> {
    usize::try_from(len).ok().filter(|len| *len <= STRING_MAX)
}
