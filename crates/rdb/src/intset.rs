//! Intsets, in which Redis keeps small sets of integers: only read.
//!
//! ```text
//! bytes of each u32 | numbers u32 | number…          little-endian, ascending
//! ```

use crate::element::int_le;
use crate::reader::Reader;

/// The numbers of an intset, if it is sound.
pub(crate) fn numbers(bytes: &[u8]) -> Option<impl Iterator<Item = i64>> {
    let mut reader = Reader::new(bytes);
    let width = u32::from_le_bytes(reader.array()?) as usize;
    let count = u32::from_le_bytes(reader.array()?) as usize;
    if !matches!(width, 2 | 4 | 8) {
        return None;
    }
    let content = reader.take(count.checked_mul(width)?)?;
    let numbers = move || content.chunks_exact(width).map(int_le);
    let is_ascending = numbers().is_sorted_by(|a, b| a < b);
    (reader.is_empty() && is_ascending).then(numbers)
}
