//! The hash slot of a key: CRC16 (XMODEM) of the key, or of its hash tag, modulo 16384, as in
//! Redis Cluster.

/// Hash slots of a cluster.
pub const SLOTS: u16 = 16384;

const fn make_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut t = 1;
    while t < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[t - 1][i];
            tables[t][i] = (before << 8) ^ tables[0][(before >> 8) as usize];
            i += 1;
        }
        t += 1;
    }
    tables
}

/// Tables for eight bytes at a time ("slicing", Kounavis and Berry 2005): 4 KiB.
static TABLES: [[u16; 256]; 8] = make_tables();

/// The CRC after eight further bytes.
#[inline(always)]
fn crc16_word(crc: u16, c: &[u8; 8]) -> u16 {
    TABLES[7][(c[0] ^ (crc >> 8) as u8) as usize]
        ^ TABLES[6][(c[1] ^ crc as u8) as usize]
        ^ TABLES[5][c[2] as usize]
        ^ TABLES[4][c[3] as usize]
        ^ TABLES[3][c[4] as usize]
        ^ TABLES[2][c[5] as usize]
        ^ TABLES[1][c[6] as usize]
        ^ TABLES[0][c[7] as usize]
}

/// The CRC after one further byte.
#[inline(always)]
fn crc16_byte(crc: u16, byte: u8) -> u16 {
    (crc << 8) ^ TABLES[0][((crc >> 8) as u8 ^ byte) as usize]
}

/// CRC16 with polynomial 0x1021 and start value 0.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(0, crc16_word);
    rest.iter().fold(crc, |crc, &byte| crc16_byte(crc, byte))
}

/// The part of the key that decides its slot: what stands between the first `{` and the next `}`,
/// if that is not empty, else the whole key.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let inside = &key[open + 1..];
    match memchr::memchr(b'}', inside) {
        Some(0) | None => key,
        Some(close) => &inside[..close],
    }
}

/// Finds the slot of a key that is handed in word by word, by whoever has other use for the words.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotFinder {
    crc: u16,
    /// Not 0 once there was a `{`: only then is there a hash tag.
    braces: u64,
}

impl SlotFinder {
    /// Takes the next eight bytes.
    #[inline(always)]
    pub fn add(&mut self, word: &[u8; 8]) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        self.crc = crc16_word(self.crc, word);
        let differences = u64::from_le_bytes(*word) ^ (ONES * b'{' as u64);
        // The highest bit of the lowest byte that is `{` is left, and perhaps of further ones.
        self.braces |= differences.wrapping_sub(ONES) & !differences & (ONES << 7);
    }

    /// Takes the fewer bytes that are left of `key` and returns its slot.
    #[inline(always)]
    #[must_use]
    pub fn finish(mut self, rest: &[u8], key: &[u8]) -> u16 {
        for &byte in rest {
            self.crc = crc16_byte(self.crc, byte);
            self.braces |= u64::from(byte == b'{');
        }
        if self.braces == 0 { self.crc & (SLOTS - 1) } else { slot_of_tagged(key) }
    }
}

/// The hash slot of a key.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    let (words, rest) = key.as_chunks::<8>();
    let mut finder = SlotFinder::default();
    words.iter().for_each(|word| finder.add(word));
    finder.finish(rest, key)
}

#[cold]
fn slot_of_tagged(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc16_bit_by_bit(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ u16::from(byte) << 8, |c, _| {
                if c & 0x8000 != 0 { (c << 1) ^ 0x1021 } else { c << 1 }
            })
        })
    }

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn slicing_equals_bit_by_bit_at_every_length() {
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..len]), crc16_bit_by_bit(&bytes[..len]), "length {len}");
        }
    }

    #[test]
    fn hash_tags_follow_the_cluster_specification() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"{user1000}.following", b"user1000"),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"plain", b"plain"),
            (b"open{only", b"open{only"),
        ];
        for (key, tag) in cases {
            assert_eq!(hash_tag(key), tag);
            assert_eq!(slot_of(key), crc16_bit_by_bit(tag) & (SLOTS - 1));
        }
        assert_eq!(slot_of(b"foo"), 12182);
    }
}
