//! Listpacks, in which Redis 7 keeps small collections and the nodes of lists and streams.
//!
//! ```text
//! bytes u32 | elements u16 | element… | 0xff        element = head | payload | length backwards
//! ```
//! | head | payload |
//! |---|---|
//! | `0xxxxxxx` | none: the number 0 to 127 |
//! | `10xxxxxx` | a string of that many bytes |
//! | `110xxxxx` | a signed integer of 13 bits with the next byte |
//! | `1110xxxx` | a string, its length of 12 bits with the next byte |
//! | `11110000` | length u32, then the string |
//! | `11110001` to `11110100` | a signed integer of 2, 3, 4 or 8 bytes |
//!
//! Numbers are little-endian but for those of 12 and 13 bits. The length backwards is that of head and
//! payload, seven bits a byte, written so that it is read from its end.

use crate::element::{Element, int_le};
use hypercache_store::types::Item;

const HEAD: usize = 6;
const END: u8 = 0xff;
/// Stands for any number of elements from itself on.
const MANY: u16 = u16::MAX;

/// The elements of a listpack in order, each checked as it is met: `None` is damage, and the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listpack<'a> {
    /// From the next element on; `None` behind the end and behind damage.
    rest: Option<&'a [u8]>,
    count: u16,
    seen: usize,
}

impl<'a> Listpack<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let is_whole = u32::from_le_bytes(*len) as usize == bytes.len();
        let count = u16::from_le_bytes(*count);
        is_whole.then_some(Listpack { rest: Some(rest), count, seen: 0 })
    }
}

impl<'a> Iterator for Listpack<'a> {
    type Item = Option<Element<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if rest == [END] {
            let is_counted = self.count == MANY || usize::from(self.count) == self.seen;
            return if is_counted { None } else { Some(None) };
        }
        let Some((element, after)) = split_element(rest) else { return Some(None) };
        self.rest = Some(after);
        self.seen += 1;
        Some(Some(element))
    }
}

/// The first element, and what follows it.
fn split_element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (element, body) = element(bytes)?;
    let (back, after) = bytes[body..].split_at_checked(back_len(body))?;
    let mut expected = [0; 5];
    write_back(body, &mut expected[..back.len()]);
    (back == &expected[..back.len()]).then_some((element, after))
}

/// The first element and the length of its head and payload.
fn element(bytes: &[u8]) -> Option<(Element<'_>, usize)> {
    let (&head, rest) = bytes.split_first()?;
    let low = |bits: u8| u32::from(head & ((1 << bits) - 1));
    let wide = |bits| Some(low(bits) << 8 | u32::from(*rest.first()?));
    match head {
        0x00..=0x7f => Some((Element::Int(i64::from(head)), 1)),
        0x80..=0xbf => string(bytes, 1, low(6)),
        0xc0..=0xdf => {
            let number = i64::from(wide(5)?);
            Some((Element::Int(if number < 1 << 12 { number } else { number - (1 << 13) }), 2))
        }
        0xe0..=0xef => string(bytes, 2, wide(4)?),
        0xf0 => string(bytes, 5, u32::from_le_bytes(*rest.first_chunk()?)),
        0xf1..=0xf4 => {
            let len = [2, 3, 4, 8][usize::from(head - 0xf1)];
            Some((Element::Int(int_le(rest.get(..len)?)), 1 + len))
        }
        _ => None,
    }
}

fn string(bytes: &[u8], start: usize, len: u32) -> Option<(Element<'_>, usize)> {
    let end = start.checked_add(len as usize)?;
    Some((Element::Bytes(bytes.get(start..end)?), end))
}

/// Bytes of the length backwards. Redis goes on to the next length one number early, but for the first.
fn back_len(body: usize) -> usize {
    match body {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

fn write_back(mut body: usize, out: &mut [u8]) {
    let mut more = 0;
    for byte in out.iter_mut().rev() {
        *byte = (body & 0x7f) as u8;
        body >>= 7;
    }
    for byte in out.iter_mut() {
        *byte |= more;
        more = 0x80;
    }
}

/// A listpack that is being written.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder { bytes: vec![0; HEAD], count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, item: Item<'_>) {
        let start = self.bytes.len();
        match item {
            Item::Int(number) => self.push_int(number),
            Item::Bytes(bytes) => {
                match bytes.len() {
                    len @ 0..64 => self.bytes.push(0x80 | len as u8),
                    len @ 64..4096 => {
                        self.bytes.extend_from_slice(&(0xe000 | len as u16).to_be_bytes());
                    }
                    len => {
                        self.bytes.push(0xf0);
                        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
                    }
                }
                self.bytes.extend_from_slice(bytes);
            }
        }
        let body = self.bytes.len() - start;
        let end = self.bytes.len() + back_len(body);
        self.bytes.resize(end, 0);
        write_back(body, &mut self.bytes[start + body..]);
        self.count += 1;
    }

    fn push_int(&mut self, number: i64) {
        let (head, len) = match number {
            0..=127 => return self.bytes.push(number as u8),
            -4096..=4095 => {
                let low = (number & 0x1fff) as u16;
                return self.bytes.extend_from_slice(&(0xc000 | low).to_be_bytes());
            }
            -0x8000..=0x7fff => (0xf1, 2),
            -0x80_0000..=0x7f_ffff => (0xf2, 3),
            -0x8000_0000..=0x7fff_ffff => (0xf3, 4),
            _ => (0xf4, 8),
        };
        self.bytes.push(head);
        self.bytes.extend_from_slice(&number.to_le_bytes()[..len]);
    }

    /// The whole listpack.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let len = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(MANY);
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..HEAD].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(items: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = Builder::new();
        items.iter().for_each(|item| builder.push(Item::of(item)));
        builder.finish()
    }

    fn texts(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut digits = hypercache_store::types::Digits::new();
        Listpack::new(bytes)?.map(|e| Some(e?.bytes(&mut digits).to_vec())).collect()
    }

    fn edges() -> Vec<Vec<u8>> {
        let bits = [6, 7, 12, 13, 15, 16, 23, 24, 31, 32, 62].map(|n| 1i64 << n);
        let near = bits.iter().flat_map(|n| [n - 1, *n, n + 1, -n - 1, -n, 1 - n]);
        let numbers = near.chain([0, i64::MIN, i64::MAX]).map(|n| n.to_string().into_bytes());
        let lens = [0, 1, 63, 64, 120, 127, 128, 4095, 4096, 16_370, 16_383, 16_390, 2_097_160];
        numbers.chain(lens.map(|len| vec![b'x'; len])).collect()
    }

    #[test]
    fn what_is_built_is_read() {
        assert_eq!(texts(&build(&edges())), Some(edges()));
        assert_eq!(texts(&build(&[])), Some(Vec::new()));
        let many = vec![b"7".to_vec(); 70_000];
        assert_eq!(texts(&build(&many)), Some(many));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let items: Vec<_> = edges().into_iter().filter(|item| item.len() < 100).collect();
        let whole = build(&items);
        for cut in 0..whole.len() {
            assert_eq!(texts(&whole[..cut]), None, "{cut} bytes");
        }
        let mut longer = whole.clone();
        longer.push(END);
        assert_eq!(texts(&longer), None);
        let mut miscounted = whole;
        miscounted[4] += 1;
        assert_eq!(texts(&miscounted), None);
    }
}
