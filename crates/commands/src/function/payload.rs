//! What FUNCTION DUMP gives and FUNCTION RESTORE takes: the records of a snapshot of Redis that hold
//! libraries, with its version and checksum at the end.

use hypercache_rdb::{Reader, VERSION, payload, put_string};

/// A record that holds the text of a library.
const LIBRARY: u8 = 245;
/// The same before functions had their final form.
const LIBRARY_PRE_GA: u8 = 246;

const WRONG: &str = "ERR DUMP payload version or checksum are wrong";
const TRUNCATED: &str = "ERR failed loading functions from payload";

/// A payload of the texts given.
pub(super) fn write<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    for code in codes {
        payload.push(LIBRARY);
        put_string(&mut payload, code);
    }
    payload::seal(&mut payload, VERSION);
    payload
}

/// The texts of a payload.
pub(super) fn read(payload: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (content, _) = payload::open(payload).ok_or(WRONG)?;
    let (mut rest, mut codes) = (Reader::new(content), Vec::new());
    while let Some(kind) = rest.u8() {
        match kind {
            LIBRARY => codes.push(rest.string().ok_or(TRUNCATED)?.into_owned()),
            LIBRARY_PRE_GA => return Err("ERR Pre-GA function format not supported"),
            _ => return Err("ERR given type is not a function"),
        }
    }
    Ok(codes)
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
    fn what_holds_no_whole_library_is_refused() {
        let sealed = |content: &[u8]| {
            let mut payload = content.to_vec();
            payload::seal(&mut payload, VERSION);
            payload
        };
        assert_eq!(read(&sealed(b"\xf5\x05abc")), Err(TRUNCATED));
        assert_eq!(read(&sealed(b"\x00\x01a")), Err("ERR given type is not a function"));
        assert!(read(&sealed(b"\xf6\x01a")).is_err());
    }
}
