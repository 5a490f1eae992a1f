//! CRC-32C (Castagnoli), bits reflected: what frames between nodes and records of the log are checked
//! with. Eight tables, eight bytes a step (Kounavis and Berry 2005).

const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
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
            tables[t][i] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            i += 1;
        }
        t += 1;
    }
    tables
}

/// The checksum of `bytes`, going on from that of what is before them (0 at the start).
#[must_use]
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(!crc, |crc, eight| step(crc, *eight));
    !rest.iter().fold(crc, |crc, byte| TABLES[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

fn step(crc: u32, eight: [u8; 8]) -> u32 {
    let mixed = (u64::from_le_bytes(eight) ^ u64::from(crc)).to_le_bytes();
    let looked_up = |i: usize| TABLES[7 - i][usize::from(mixed[i])];
    (0..8).fold(0, |sum, i| sum ^ looked_up(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_the_standard() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xe306_9283);
        // RFC 3720, B.4: 32 bytes of zeros, of ones, and counting up.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(0, &up), 0x46dd_794e);
    }
}
