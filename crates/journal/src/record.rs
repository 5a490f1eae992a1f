//! What one command, transaction or script did to a partition: its effects in order, each with its length
//! (u32, little-endian) before it. Copies of the partition apply all of them or none.

use crate::effect::{DecodeError, Effect, decode, encode};

const LENGTH_BYTES: usize = 4;

/// Appends an effect to a record.
pub fn add(effect: &Effect<'_>, record: &mut Vec<u8>) {
    let start = record.len();
    record.extend_from_slice(&[0; LENGTH_BYTES]);
    encode(effect, record);
    let length = (record.len() - start - LENGTH_BYTES) as u32;
    record[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// The first effect of what is here, in its encoded form, and what follows it; `None` if it is not here
/// as a whole.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The effects of a record.
pub fn effects(record: &[u8]) -> impl Iterator<Item = Result<Effect<'_>, DecodeError>> {
    let mut left = record;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let (effect, rest) = split(left).unwrap_or((&[], &[]));
        left = rest;
        Some(decode(effect))
    })
}

/// How many of these bytes, of which more may follow, are whole effects.
#[must_use]
pub fn whole_bytes(bytes: &[u8]) -> usize {
    let mut left = bytes;
    while let Some((_, rest)) = split(left) {
        left = rest;
    }
    bytes.len() - left.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Event};

    fn deleted(key: &[u8]) -> Effect<'_> {
        Effect { db: 1, key, change: Change::Del, event: Event::Del, is_new: false }
    }

    #[test]
    fn effects_come_back_in_order() {
        let mut record = Vec::new();
        let keys = [&b"a"[..], b"", b"ccc"];
        keys.iter().for_each(|key| add(&deleted(key), &mut record));
        let read: Vec<_> = effects(&record).collect();
        assert_eq!(read, keys.map(|key| Ok(deleted(key))));
        let mut ends = vec![];
        for n in 0..=record.len() {
            ends.push(whole_bytes(&record[..n]));
            let is_whole = effects(&record[..n]).all(|effect| effect.is_ok());
            assert_eq!(is_whole, ends[n] == n, "{n} bytes");
        }
        ends.dedup();
        assert_eq!(ends.len(), 1 + keys.len());
    }
}
