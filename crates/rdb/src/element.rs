//! What the packed encodings are made of: a string, or the number that it is the text of.

use hypercache_stdx::number;
use hypercache_store::types::Digits;

/// One element of a listpack, a ziplist or a zipmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// Bytes, whatever they are.
    Bytes(&'a [u8]),
    /// A decimal integer.
    Int(i64),
}

impl Element<'_> {
    /// The string.
    pub(crate) fn bytes<'b>(&'b self, digits: &'b mut Digits) -> &'b [u8] {
        match *self {
            Element::Bytes(bytes) => bytes,
            Element::Int(number) => digits.format(number).as_bytes(),
        }
    }

    /// The integer that it is or spells.
    pub(crate) fn int(&self) -> Option<i64> {
        match *self {
            Element::Bytes(bytes) => number::parse_i64(bytes),
            Element::Int(number) => Some(number),
        }
    }
}

/// A signed little-endian integer of up to eight bytes.
pub(crate) fn int_le(bytes: &[u8]) -> i64 {
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut full = if is_negative { [0xff; 8] } else { [0; 8] };
    full[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(full)
}
