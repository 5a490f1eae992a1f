//! What FUNCTION DUMP gives and FUNCTION RESTORE takes: the records of a snapshot of Redis, with its
//! version and checksum at the end. Written without compression, read with it.

use hypercache_stdx::crc64::crc64;

/// A record that holds the text of a library.
const LIBRARY: u8 = 245;
/// The same before functions had their final form.
const LIBRARY_PRE_GA: u8 = 246;
/// The version that Redis 7.0 writes; records of libraries are the same in later ones.
const VERSION: u16 = 10;
const VERSION_MAX: u16 = 12;
const FOOTER: usize = 10;
/// Longest text that is unpacked: a few bytes may stand for very many.
const UNPACKED_MAX: usize = 64 * 1024 * 1024;

const WRONG: &str = "ERR DUMP payload version or checksum are wrong";
const TRUNCATED: &str = "ERR failed loading functions from payload";

/// A payload of the texts given.
pub(super) fn write<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    for code in codes {
        payload.push(LIBRARY);
        write_len(&mut payload, code.len());
        payload.extend_from_slice(code);
    }
    payload.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = crc64(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

fn write_len(payload: &mut Vec<u8>, len: usize) {
    match len {
        0..64 => payload.push(len as u8),
        64..16384 => payload.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        _ => {
            payload.push(0x80);
            payload.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

/// The texts of a payload.
pub(super) fn read(payload: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (rest, footer) = payload.split_last_chunk::<FOOTER>().ok_or(WRONG)?;
    let [low, high, checksum @ ..] = *footer;
    let checksum = u64::from_le_bytes(checksum);
    let is_right = checksum == 0 || checksum == crc64(0, &payload[..payload.len() - 8]);
    if u16::from_le_bytes([low, high]) > VERSION_MAX || !is_right {
        return Err(WRONG);
    }
    let (mut rest, mut codes) = (rest, Vec::new());
    while let Some((kind, after)) = rest.split_first() {
        match *kind {
            LIBRARY => {}
            LIBRARY_PRE_GA => return Err("ERR Pre-GA function format not supported"),
            _ => return Err("ERR given type is not a function"),
        }
        rest = after;
        codes.push(read_string(&mut rest).ok_or(TRUNCATED)?);
    }
    Ok(codes)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// A length, or the number of a special encoding.
enum Len {
    Plain(usize),
    Special(u8),
}

fn read_len(rest: &mut &[u8]) -> Option<Len> {
    let first = take(rest, 1)?[0];
    let low = usize::from(first & 0x3f);
    Some(match first >> 6 {
        0 => Len::Plain(low),
        1 => Len::Plain(low << 8 | usize::from(take(rest, 1)?[0])),
        2 if first == 0x80 => {
            Len::Plain(u32::from_be_bytes(*take(rest, 4)?.first_chunk()?) as usize)
        }
        2 if first == 0x81 => {
            Len::Plain(usize::try_from(u64::from_be_bytes(*take(rest, 8)?.first_chunk()?)).ok()?)
        }
        2 => return None,
        _ => Len::Special(first & 0x3f),
    })
}

fn plain_len(rest: &mut &[u8]) -> Option<usize> {
    match read_len(rest)? {
        Len::Plain(len) => Some(len),
        Len::Special(_) => None,
    }
}

fn read_string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    const PACKED: u8 = 3;
    match read_len(rest)? {
        Len::Plain(len) => Some(take(rest, len)?.to_vec()),
        Len::Special(PACKED) => {
            let (packed, len) = (plain_len(rest)?, plain_len(rest)?);
            unpack(take(rest, packed)?, len)
        }
        // A library is never a number.
        Len::Special(_) => None,
    }
}

/// LZF: runs of literal bytes, and references to what was written before.
fn unpack(mut packed: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > UNPACKED_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    while let Some((&control, after)) = packed.split_first() {
        packed = after;
        if control < 32 {
            out.extend_from_slice(take(&mut packed, usize::from(control) + 1)?);
            continue;
        }
        let mut count = usize::from(control >> 5) + 2;
        if count == 9 {
            count += usize::from(take(&mut packed, 1)?[0]);
        }
        let low = usize::from(take(&mut packed, 1)?[0]);
        let from = out.len().checked_sub((usize::from(control & 31) << 8 | low) + 1)?;
        if out.len() + count > len {
            return None;
        }
        (from..from + count).for_each(|i| out.push(out[i]));
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = vec![b'x'; 70_000];
        let codes: Vec<&[u8]> = vec![b"", b"short", &[b'y'; 100], &long];
        assert_eq!(
            read(&write(codes.iter().copied())),
            Ok(codes.iter().map(|c| c.to_vec()).collect())
        );
        assert_eq!(read(b"abc"), Err(WRONG));
        let mut payload = write(codes.iter().copied());
        payload[3] ^= 1;
        assert_eq!(read(&payload), Err(WRONG));
    }

    #[test]
    fn compressed_texts_are_unpacked() {
        // Three literals, then nine bytes from three back.
        assert_eq!(unpack(b"\x02abc\xe0\x00\x02", 12), Some(b"abcabcabcabc".to_vec()));
        for (packed, len) in [(&b"\x02ab"[..], 3), (b"\x20\x00", 3), (b"\x00a", 2), (b"\x02abc", 2)]
        {
            assert_eq!(unpack(packed, len), None);
        }
    }
}
