//! Ziplists, which listpacks replaced in Redis 7: only read.
//!
//! ```text
//! bytes u32 | offset of the last u32 | elements u16 | element… | 0xff
//! element = length of the element before | head | payload
//! ```
//! The length before is a byte, or 254 and a u32. Numbers are little-endian, lengths in heads are not.
//!
//! | head | payload |
//! |---|---|
//! | `00xxxxxx` | a string of that many bytes |
//! | `01xxxxxx` | a string, its length of 14 bits with the next byte |
//! | `10……` | length u32, then the string |
//! | `11000000`, `11010000`, `11100000` | a signed integer of 2, 4 or 8 bytes |
//! | `11110000`, `11111110` | a signed integer of 3 bytes, of 1 byte |
//! | `1111xxxx` | none: the number 0 to 12, plus one |

use crate::element::{Element, int_le};
use crate::reader::Reader;

const HEAD: usize = 10;
const END: u8 = 0xff;
/// Stands for any number of elements from itself on.
const MANY: u16 = u16::MAX;

/// The elements of a ziplist in order, each checked as it is met: `None` is damage, and the end.
#[derive(Clone, Debug)]
pub(crate) struct Ziplist<'a> {
    bytes: &'a [u8],
    /// Where the next element is; `None` behind the end and behind damage.
    at: Option<usize>,
    /// Where the element before it is.
    last: usize,
    /// Where the last element is said to be.
    tail: usize,
    count: u16,
    seen: usize,
}

impl<'a> Ziplist<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut head = Reader::new(bytes);
        let len = u32::from_le_bytes(head.array()?);
        let tail = u32::from_le_bytes(head.array()?) as usize;
        let count = u16::from_le_bytes(head.array()?);
        let ziplist = Ziplist { bytes, at: Some(HEAD), last: HEAD, tail, count, seen: 0 };
        (len as usize == bytes.len()).then_some(ziplist)
    }

    fn is_sound(&self) -> bool {
        let is_counted = self.count == MANY || usize::from(self.count) == self.seen;
        is_counted && self.tail == self.last
    }
}

impl<'a> Iterator for Ziplist<'a> {
    type Item = Option<Element<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        let rest = &self.bytes[at..];
        if rest == [END] {
            return if self.is_sound() { None } else { Some(None) };
        }
        let mut reader = Reader::new(rest);
        let found = element(&mut reader, at - self.last);
        Some(found.map(|(element, len)| {
            (self.last, self.at) = (at, Some(at + len));
            self.seen += 1;
            element
        }))
    }
}

/// The next element, behind one of `before` bytes, and its length.
fn element<'a>(reader: &mut Reader<'a>, before: usize) -> Option<(Element<'a>, usize)> {
    let (said, said_len) = match reader.u8()? {
        254 => (u32::from_le_bytes(reader.array()?), 5),
        255 => return None,
        short => (u32::from(short), 1),
    };
    if said as usize != before {
        return None;
    }
    let head = reader.u8()?;
    let (element, len) = match head {
        0x00..=0x3f => string(reader, u32::from(head), 1)?,
        0x40..=0x7f => {
            let len = u16::from_be_bytes([head & 0x3f, reader.u8()?]);
            string(reader, u32::from(len), 2)?
        }
        0x80..=0xbf => {
            let len = u32::from_be_bytes(reader.array()?);
            string(reader, len, 5)?
        }
        0xc0 => int(reader, 2)?,
        0xd0 => int(reader, 4)?,
        0xe0 => int(reader, 8)?,
        0xf0 => int(reader, 3)?,
        0xfe => int(reader, 1)?,
        0xf1..=0xfd => (Element::Int(i64::from(head & 0x0f) - 1), 1),
        _ => return None,
    };
    Some((element, said_len + len))
}

fn string<'a>(reader: &mut Reader<'a>, len: u32, head: usize) -> Option<(Element<'a>, usize)> {
    Some((Element::Bytes(reader.take(len as usize)?), head + len as usize))
}

fn int<'a>(reader: &mut Reader<'a>, len: usize) -> Option<(Element<'a>, usize)> {
    Some((Element::Int(int_le(reader.take(len)?)), 1 + len))
}
