//! Proof that both ends of a connection know the cluster's secret: HMAC-SHA256 (RFC 2104) over both
//! greetings. The secret itself is never sent.

use hypercache_stdx::rng::entropy;
use sha2::{Digest, Sha256};

const BLOCK: usize = 64;

/// The secret of a cluster; without one, everybody knows it.
#[derive(Clone, Default)]
pub(crate) struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(crate) fn new(secret: Option<&str>) -> Self {
        Secret(secret.unwrap_or_default().as_bytes().to_vec())
    }

    /// What shows that this side knows the secret. `role` keeps one side's proof from being the other's.
    pub(crate) fn proof(&self, role: &str, parts: [&[u8]; 2]) -> [u8; 32] {
        let lengths = parts.map(|part| (part.len() as u64).to_le_bytes());
        hmac(&self.0, &[role.as_bytes(), b"\0", &lengths[0], parts[0], &lengths[1], parts[1]])
    }

    /// Whether the other side's proof is right, in a time that tells nothing of how wrong it is.
    pub(crate) fn accepts(&self, given: &[u8; 32], role: &str, parts: [&[u8]; 2]) -> bool {
        let expected = self.proof(role, parts);
        let differs = expected.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

/// 16 bytes that were never used before.
pub(crate) fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&entropy().to_le_bytes());
    nonce[8..].copy_from_slice(&entropy().to_le_bytes());
    nonce
}

fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let hash = |pad: u8, parts: &[&[u8]]| -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(block.map(|byte| byte ^ pad));
        parts.iter().for_each(|part| hash.update(part));
        hash.finalize().into()
    };
    let inner = hash(0x36, message);
    hash(0x5c, &[&inner])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Cases 2 and 6 of RFC 4231.
    #[test]
    fn known_answers() {
        let short = hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&short), expected);
        let long = hmac(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hex(&long), expected);
    }

    #[test]
    fn a_proof_is_of_one_side_and_one_secret() {
        let (ours, theirs) = (Secret::new(Some("s")), Secret::new(None));
        let proof = ours.proof("a", [b"x", b"y"]);
        assert!(ours.accepts(&proof, "a", [b"x", b"y"]));
        assert!(!ours.accepts(&proof, "b", [b"x", b"y"]));
        assert!(!ours.accepts(&proof, "a", [b"xy", b""]));
        assert!(!theirs.accepts(&proof, "a", [b"x", b"y"]));
        assert_ne!(nonce(), nonce());
    }
}
