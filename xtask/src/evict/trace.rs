//! Traces of requests, read from files.
//!
//! `NAME.hct.zst`, little endian once decompressed: `"HCT1"`, u32 flags, u64 requests N, u64 objects M,
//! u32 id\[N\], then if flag 1 u32 size\[M\], if flag 2 u32 seconds since the previous request\[N\], and if
//! flag 4 u32 time to live in seconds\[M\]. Ids are dense, in the order of first appearance.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// Bytes of key and value of each object of a trace that does not say.
const OBJECT_BYTES: u32 = 200;

/// Requests of objects.
pub(crate) struct Trace {
    pub(crate) name: String,
    /// The object of each request.
    pub(crate) ids: Vec<u32>,
    /// Bytes of each object.
    pub(crate) sizes: Vec<u32>,
    /// Whether the trace told them.
    pub(crate) has_sizes: bool,
    /// Index of each request's object's next request; `u32::MAX`: there is none.
    pub(crate) next: Vec<u32>,
}

impl Trace {
    pub(crate) fn read(path: &Path) -> Result<Trace> {
        let file = std::fs::File::open(path).with_context(|| format!("{}", path.display()))?;
        let bytes = zstd::decode_all(file).with_context(|| format!("{}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".zst").trim_end_matches(".hct").to_owned();
        let Some((b"HCT1", mut rest)) = bytes.split_first_chunk::<4>() else {
            bail!("{}: no trace: it does not begin with HCT1", path.display());
        };
        let flags = take(&mut rest, 1)?[0];
        let head = take(&mut rest, 4)?;
        let (requests, objects) = (head[0] as usize, head[2] as usize);
        let ids = take(&mut rest, requests)?;
        if ids.iter().any(|&id| id as usize >= objects) {
            bail!("{}: it has an object beyond its number of objects", path.display());
        }
        let has_sizes = flags & 1 != 0;
        let sizes = if has_sizes { take(&mut rest, objects)? } else { vec![OBJECT_BYTES; objects] };
        let sizes = sizes.into_iter().map(|size| size.max(1)).collect();
        let next = next_uses(&ids, objects);
        Ok(Trace { name, ids, sizes, has_sizes, next })
    }

    /// Bytes of all objects.
    pub(crate) fn footprint(&self) -> u64 {
        self.sizes.iter().map(|&size| u64::from(size)).sum()
    }
}

/// The next `n` numbers.
fn take(bytes: &mut &[u8], n: usize) -> Result<Vec<u32>> {
    let Some((head, rest)) = bytes.split_at_checked(4 * n) else { bail!("the trace is cut short") };
    *bytes = rest;
    Ok(head.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn next_uses(ids: &[u32], objects: usize) -> Vec<u32> {
    let mut last = vec![u32::MAX; objects];
    let mut next = vec![u32::MAX; ids.len()];
    for (at, &id) in ids.iter().enumerate().rev() {
        next[at] = last[id as usize];
        last[id as usize] = at as u32;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let words = [1, 3, 0, 2, 0, 0, 1, 0, 7, 9].map(|word: u32| word.to_le_bytes());
        let bytes = [b"HCT1".as_slice(), words.as_flattened()].concat();
        let folder = std::env::temp_dir().join(format!("hypercache-trace-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("small.hct.zst");
        std::fs::write(&path, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        let trace = Trace::read(&path).unwrap();
        assert_eq!((trace.name.as_str(), trace.has_sizes), ("small", true));
        assert_eq!((trace.ids, trace.sizes), (vec![0, 1, 0], vec![7, 9]));
        assert_eq!(trace.next, [2, u32::MAX, u32::MAX]);
        std::fs::write(&path, zstd::encode_all(&bytes[..30], 1).unwrap()).unwrap();
        assert!(Trace::read(&path).is_err(), "it is cut short");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
