//! CRC-64 with the polynomial of Jones, bits reflected: what dumps and snapshots of Redis end with.
//!
//! Eight bytes at a time by eight tables of 256 entries, 16 KiB together ("slicing by 8": Kounavis and
//! Berry, "Novel table lookup-based algorithms for high-performance CRC generation", 2008): table `k`
//! says what a byte contributes that has `k` others behind it.

const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
const SLICE: usize = 8;

static TABLES: [[u64; 256]; SLICE] = tables();

const fn tables() -> [[u64; 256]; SLICE] {
    let mut tables = [[0; 256]; SLICE];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u64, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut k = 1;
    while k < SLICE {
        let mut i = 0;
        while i < 256 {
            let shorter = tables[k - 1][i];
            tables[k][i] = tables[0][(shorter & 0xff) as usize] ^ shorter >> 8;
            i += 1;
        }
        k += 1;
    }
    tables
}

/// The checksum of `bytes`, going on from that of what is before them.
#[must_use]
pub fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    let (slices, rest) = bytes.as_chunks::<SLICE>();
    for slice in slices {
        let mixed = (crc ^ u64::from_le_bytes(*slice)).to_le_bytes();
        let parts = TABLES.iter().rev().zip(mixed);
        crc = parts.fold(0, |sum, (table, byte)| sum ^ table[usize::from(byte)]);
    }
    rest.iter().fold(crc, |crc, byte| TABLES[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_redis() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn it_goes_on_from_anywhere() {
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
        let whole = crc64(0, &bytes);
        for at in 0..=bytes.len() {
            assert_eq!(crc64(crc64(0, &bytes[..at]), &bytes[at..]), whole, "cut at {at}");
        }
    }
}
