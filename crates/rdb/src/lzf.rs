//! LZF, which Redis packs strings with: runs of literal bytes, and references to what was written
//! before. Only unpacking: what is written here is not packed.

/// Most bytes that one packed byte can stand for: three make 264.
const RATIO_MAX: usize = 88;

/// What `packed` stands for; `None` unless that is sound and `len` bytes long.
pub(crate) fn unpack(mut packed: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > packed.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    while let Some(control) = next(&mut packed) {
        if control < 32 {
            let (literal, rest) = packed.split_at_checked(control + 1)?;
            out.extend_from_slice(literal);
            packed = rest;
        } else {
            let mut count = (control >> 5) + 2;
            if count == 9 {
                count += next(&mut packed)?;
            }
            let distance = ((control & 31) << 8 | next(&mut packed)?) + 1;
            if out.len() + count > len {
                return None;
            }
            repeat(&mut out, distance, count)?;
        }
    }
    (out.len() == len).then_some(out)
}

fn next(packed: &mut &[u8]) -> Option<usize> {
    let (first, rest) = packed.split_first()?;
    *packed = rest;
    Some(usize::from(*first))
}

/// Writes `count` bytes from `distance` back once more; they may reach into what is being written.
fn repeat(out: &mut Vec<u8>, distance: usize, count: usize) -> Option<()> {
    let from = out.len().checked_sub(distance)?;
    if count <= distance {
        out.extend_from_within(from..from + count);
    } else {
        (from..from + count).for_each(|i| out.push(out[i]));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_strings_are_unpacked() {
        // Three literals, then nine bytes from three back.
        assert_eq!(unpack(b"\x02abc\xe0\x00\x02", 12), Some(b"abcabcabcabc".to_vec()));
        assert_eq!(unpack(b"\x03abcd\x40\x03", 8), Some(b"abcdabcd".to_vec()));
        let broken = [(&b"\x02ab"[..], 3), (b"\x20\x00", 3), (b"\x00a", 2), (b"\x02abc", 2)];
        for (packed, len) in broken {
            assert_eq!(unpack(packed, len), None);
        }
        assert_eq!(unpack(b"\x00a\xe0\xff\x00", usize::MAX), None);
        assert_eq!(unpack(b"\x00a\xe0\xff\x00", 265), Some(vec![b'a'; 265]));
    }
}
