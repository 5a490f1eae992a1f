//! Zipmaps, in which Redis before 2.6 kept small hashes: only read.
//!
//! ```text
//! fields u8 | (length | field | length | unused u8 | value | unused bytes)… | 0xff
//! ```
//! A length is a byte, or 254 and a u32, little-endian. 254 fields or more are not counted.

use crate::element::Element;
use crate::reader::Reader;

const END: u8 = 0xff;
const MANY: u8 = 254;

/// Fields and values in turn, each checked as it is met: `None` is damage, and the end.
#[derive(Clone, Debug)]
pub(crate) struct Zipmap<'a> {
    /// From the next string on; `None` behind the end and behind damage.
    rest: Option<Reader<'a>>,
    count: u8,
    seen: usize,
}

impl<'a> Zipmap<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Reader::new(bytes);
        let count = rest.u8()?;
        Some(Zipmap { rest: Some(rest), count, seen: 0 })
    }

    fn is_counted(&self) -> bool {
        self.count >= MANY || usize::from(self.count) * 2 == self.seen
    }
}

impl<'a> Iterator for Zipmap<'a> {
    type Item = Option<Element<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take()?;
        let is_field = self.seen.is_multiple_of(2);
        match string(&mut rest, is_field) {
            Some(Some(bytes)) => {
                (self.rest, self.seen) = (Some(rest), self.seen + 1);
                Some(Some(Element::Bytes(bytes)))
            }
            Some(None) if is_field && rest.is_empty() && self.is_counted() => None,
            _ => Some(None),
        }
    }
}

/// The next string; the inner `None` is the end.
fn string<'a>(rest: &mut Reader<'a>, is_field: bool) -> Option<Option<&'a [u8]>> {
    let len = match rest.u8()? {
        END => return Some(None),
        254 => u32::from_le_bytes(rest.array()?) as usize,
        short => usize::from(short),
    };
    let unused = if is_field { 0 } else { usize::from(rest.u8()?) };
    let bytes = rest.take(len)?;
    rest.take(unused)?;
    Some(Some(bytes))
}
