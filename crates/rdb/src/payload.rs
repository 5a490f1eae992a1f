//! The end of a payload of DUMP: the version of its format and a checksum of all before it.

use crate::{VERSION_DEADLINES, VERSION_VALKEY};
use hypercache_stdx::crc64::crc64;

/// Version of two bytes, checksum of eight, both little-endian.
const FOOTER: usize = 10;
const CHECKSUM: usize = 8;

/// Ends a payload.
pub fn seal(payload: &mut Vec<u8>, version: u16) {
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(0, payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// What a payload holds and in which version, if it is whole and of a version that is known.
#[must_use]
pub fn open(payload: &[u8]) -> Option<(&[u8], u16)> {
    let (content, footer) = payload.split_last_chunk::<FOOTER>()?;
    let [low, high, checksum @ ..] = *footer;
    let version = u16::from_le_bytes([low, high]);
    let is_known = version <= VERSION_DEADLINES || version == VERSION_VALKEY;
    if !is_known {
        return None;
    }
    let sum = crc64(0, &payload[..payload.len() - CHECKSUM]);
    (u64::from_le_bytes(checksum) == sum).then_some((content, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_and_nothing_else() {
        let mut payload = b"\x00\x01a".to_vec();
        seal(&mut payload, 10);
        // What Redis 7.0 dumps of the string "a".
        assert_eq!(open(&payload), Some((&b"\x00\x01a"[..], 10)));
        for i in 0..payload.len() {
            let mut broken = payload.clone();
            broken[i] ^= 1;
            assert_eq!(open(&broken), None, "byte {i}");
            assert_eq!(open(&payload[..i]), None, "{i} bytes");
        }
        let mut newer = b"\x00\x01a".to_vec();
        seal(&mut newer, 13);
        assert_eq!(open(&newer), None);
    }
}
