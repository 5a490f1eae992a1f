//! SHA-1 (FIPS 180-4), by which scripts are named. No use where security matters: collisions can be
//! made, and whoever makes two scripts of one name harms only themselves.

/// Twenty bytes that name a text.
pub type Digest = [u8; 20];

const BLOCK: usize = 64;

/// The digest of a text.
#[must_use]
pub fn digest(text: &[u8]) -> Digest {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    blocks.iter().for_each(|block| mix(&mut state, block));
    // The rest, a single bit, zeros, and the length in bits: one block or two.
    let mut tail = [0; 2 * BLOCK];
    tail[..rest.len()].copy_from_slice(rest);
    tail[rest.len()] = 0x80;
    let end = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
    tail[end - 8..end].copy_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    tail[..end].as_chunks::<BLOCK>().0.iter().for_each(|block| mix(&mut state, block));
    let mut digest = [0; 20];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

fn mix(state: &mut [u32; 5], block: &[u8; BLOCK]) {
    let mut words = [0u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for i in 16..80 {
        words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
    }
    let (rounds, _) = words.as_chunks::<20>();
    let mut now = *state;
    turn(&mut now, &rounds[0], 0x5a82_7999, |b, c, d| b & c | !b & d);
    turn(&mut now, &rounds[1], 0x6ed9_eba1, |b, c, d| b ^ c ^ d);
    turn(&mut now, &rounds[2], 0x8f1b_bcdc, |b, c, d| b & c | b & d | c & d);
    turn(&mut now, &rounds[3], 0xca62_c1d6, |b, c, d| b ^ c ^ d);
    for (sum, part) in state.iter_mut().zip(now) {
        *sum = sum.wrapping_add(part);
    }
}

/// Twenty rounds, with a constant and a function of their own.
#[inline(always)]
fn turn(state: &mut [u32; 5], words: &[u32; 20], k: u32, f: impl Fn(u32, u32, u32) -> u32) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for word in words {
        let next = a.rotate_left(5).wrapping_add(f(b, c, d)).wrapping_add(e);
        let next = next.wrapping_add(k).wrapping_add(*word);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    *state = [a, b, c, d, e];
}

/// A digest as forty hexadecimal digits.
#[must_use]
pub fn to_hex(digest: &Digest) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 40];
    for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    hex
}

/// The digest that forty hexadecimal digits stand for.
#[must_use]
pub fn from_hex(hex: &[u8]) -> Option<Digest> {
    if hex.len() != 40 {
        return None;
    }
    let (mut digest, mut seen) = ([0; 20], 0);
    for (byte, pair) in digest.iter_mut().zip(hex.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| VALUES[usize::from(digit)]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(digest)
}

/// What a byte is worth as a hexadecimal digit; more than 15 if it is none.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut n = 0;
    while n < 16 {
        let digit = b"0123456789abcdef"[n as usize];
        values[digit as usize] = n;
        values[digit.to_ascii_uppercase() as usize] = n;
        n += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &[u8]) -> String {
        String::from_utf8(to_hex(&digest(text)).to_vec()).expect("digits")
    }

    #[test]
    fn known_digests() {
        assert_eq!(hex(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(two), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(hex(&[b'a'; 1_000_000]), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    #[test]
    fn hexadecimal_digits_in_any_case() {
        let digest = digest(b"abc");
        assert_eq!(from_hex(&to_hex(&digest)), Some(digest));
        assert_eq!(from_hex(&to_hex(&digest).to_ascii_uppercase()), Some(digest));
        for wrong in [&b"abc"[..], &[b'g'; 40], &[b'0'; 41]] {
            assert_eq!(from_hex(wrong), None);
        }
    }
}
