//! The layout of a HyperLogLog value, bit for bit Redis', and its arithmetic.
//!
//! ```text
//! "HYLL" | encoding u8 | 3 unused | estimate u64 | registers
//! ```
//! The estimate is kept until an element changes a register; its top bit says that it is not known.
//! **Dense** (encoding 0): 16384 registers of 6 bits. **Sparse** (1): runs of registers, in order:
//! `00nnnnnn` n + 1 zeros, `01nnnnnn nnnnnnnn` n + 1 zeros, `1vvvvvnn` n + 1 registers of value v + 1.
//! A sparse value becomes dense when it grows beyond `hll-sparse-max-bytes` or needs a value above 32.
//!
//! The estimator is that of Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches"
//! (2017): no tables, no switch between ranges.

/// log2 of the registers.
const INDEX_BITS: u32 = 14;
/// Registers of a sketch.
pub(super) const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of a hash that are counted in.
const COUNT_BITS: usize = 50;
const HEADER: usize = 16;
const MAGIC: &[u8] = b"HYLL";
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
const ZERO_MAX: usize = 64;
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;
const HASH_SEED: u64 = 0xadc8_3b19;

/// The value does not hold what its header promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupted;

/// A sketch, in the form that the key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sketch {
    bytes: Vec<u8>,
}

impl Default for Sketch {
    /// An empty sketch: sparse, and its estimate, zero, is known.
    fn default() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEADER, 0);
        bytes[4] = SPARSE;
        Run::Zeros(REGISTERS).write(&mut bytes);
        Sketch { bytes }
    }
}

/// Registers in a row that have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Zeros(usize),
    Values(u8, usize),
}

impl Run {
    /// The run at the start of `bytes`, and how many bytes it takes.
    fn read(bytes: &[u8]) -> Option<(Run, usize)> {
        let op = *bytes.first()?;
        let low = (op & 0x3f) as usize;
        match op {
            0x80.. => Some((Run::Values((op >> 2 & 0x1f) + 1, (op & 3) as usize + 1), 1)),
            0x40.. => Some((Run::Zeros((low << 8 | *bytes.get(1)? as usize) + 1), 2)),
            _ => Some((Run::Zeros(low + 1), 1)),
        }
    }

    fn len(self) -> usize {
        match self {
            Run::Zeros(n) | Run::Values(_, n) => n,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Run::Zeros(0) | Run::Values(_, 0) => {}
            Run::Zeros(n @ ..=ZERO_MAX) => out.push(n as u8 - 1),
            Run::Zeros(n) => out.extend_from_slice(&[0x40 | ((n - 1) >> 8) as u8, (n - 1) as u8]),
            Run::Values(value, n) => out.push(0x80 | (value - 1) << 2 | (n as u8 - 1)),
        }
    }
}

impl Sketch {
    /// The sketch in a value, if its header is one.
    pub(super) fn read(value: &[u8]) -> Option<Sketch> {
        let is_one = value.len() >= HEADER
            && value.starts_with(MAGIC)
            && (value[4] == SPARSE || value[4] == DENSE && value.len() == DENSE_LEN);
        is_one.then(|| Sketch { bytes: value.to_vec() })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_dense(&self) -> bool {
        self.bytes[4] == DENSE
    }

    /// The estimate, if it was kept since the last change.
    pub(super) fn known_estimate(&self) -> Option<u64> {
        let kept = self.bytes[8..HEADER].first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        (kept >> 63 == 0).then_some(kept)
    }

    pub(super) fn forget_estimate(&mut self) {
        self.bytes[HEADER - 1] |= 0x80;
    }

    /// Makes the estimate and keeps it.
    pub(super) fn keep_estimate(&mut self) -> Result<u64, Corrupted> {
        let mut registers = [0; REGISTERS];
        self.merge_into(&mut registers)?;
        let estimate = estimate(&registers);
        self.bytes[8..HEADER].copy_from_slice(&estimate.to_le_bytes());
        Ok(estimate)
    }

    /// Counts an element. Returns whether a register changed.
    pub(super) fn add(&mut self, element: &[u8], max: usize) -> Result<bool, Corrupted> {
        let (index, count) = locate(element);
        self.raise(index, count, max)
    }

    /// Raises a register to `count`. Returns whether it was lower.
    pub(super) fn raise(&mut self, index: usize, count: u8, max: usize) -> Result<bool, Corrupted> {
        if self.is_dense() {
            return Ok(self.raise_dense(index, count));
        }
        self.raise_sparse(index, count, max)
    }

    fn raise_dense(&mut self, index: usize, count: u8) -> bool {
        if self.dense(index) >= count {
            return false;
        }
        let (at, shift) = place(index);
        let mask = 0x3fu16 << shift;
        let word = self.dense_word(at) & !mask | u16::from(count) << shift;
        let [low, high] = word.to_le_bytes();
        self.bytes[at] = low;
        if let Some(byte) = self.bytes.get_mut(at + 1) {
            *byte = high;
        }
        true
    }

    fn dense_word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes.get(at + 1).copied().unwrap_or(0)])
    }

    fn dense(&self, index: usize) -> u8 {
        let (at, shift) = place(index);
        (self.dense_word(at) >> shift & 0x3f) as u8
    }

    fn raise_sparse(&mut self, index: usize, count: u8, max: usize) -> Result<bool, Corrupted> {
        let (mut at, mut before, mut first) = (HEADER, HEADER, 0);
        let (run, len) = loop {
            let (run, len) = Run::read(&self.bytes[at..]).ok_or(Corrupted)?;
            if index < first + run.len() {
                break (run, len);
            }
            (before, first, at) = (at, first + run.len(), at + len);
        };
        if matches!(run, Run::Values(value, _) if value >= count) {
            return Ok(false);
        }
        if count > VALUE_MAX {
            self.make_dense()?;
            return Ok(self.raise_dense(index, count));
        }
        let (left, right) = (index - first, first + run.len() - 1 - index);
        let part = |n| match run {
            Run::Zeros(_) => Run::Zeros(n),
            Run::Values(value, _) => Run::Values(value, n),
        };
        let mut runs = Vec::with_capacity(5);
        [part(left), Run::Values(count, 1), part(right)].iter().for_each(|r| r.write(&mut runs));
        if runs.len() > len && self.bytes.len() + runs.len() - len > max {
            self.make_dense()?;
            return Ok(self.raise_dense(index, count));
        }
        self.bytes.splice(at..at + len, runs);
        self.join_values(before);
        Ok(true)
    }

    /// Joins runs of the same value from `at` on, within the few that a change may have made.
    fn join_values(&mut self, mut at: usize) {
        for _ in 0..5 {
            let Some((run, len)) = Run::read(&self.bytes[at..]) else { return };
            let next = Run::read(&self.bytes[at + len..]);
            match (run, next) {
                (Run::Values(a, n), Some((Run::Values(b, m), _)))
                    if a == b && n + m <= VALUE_RUN_MAX =>
                {
                    let mut joined = Vec::with_capacity(1);
                    Run::Values(a, n + m).write(&mut joined);
                    self.bytes.splice(at..at + 2, joined);
                }
                _ => at += len,
            }
        }
    }

    /// Makes the sketch dense. Returns whether it was not.
    pub(super) fn make_dense(&mut self) -> Result<bool, Corrupted> {
        if self.is_dense() {
            return Ok(false);
        }
        let mut registers = [0; REGISTERS];
        self.merge_into(&mut registers)?;
        self.bytes.truncate(HEADER);
        self.bytes[4] = DENSE;
        self.bytes.resize(DENSE_LEN, 0);
        for (i, count) in registers.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.raise_dense(i, *count);
        }
        Ok(true)
    }

    /// Raises registers to those of this sketch.
    pub(super) fn merge_into(&self, registers: &mut [u8; REGISTERS]) -> Result<(), Corrupted> {
        if self.is_dense() {
            for (i, register) in registers.iter_mut().enumerate() {
                *register = (*register).max(self.dense(i));
            }
            return Ok(());
        }
        let (mut at, mut first) = (HEADER, 0);
        while at < self.bytes.len() {
            let (run, len) = Run::read(&self.bytes[at..]).ok_or(Corrupted)?;
            let covered = registers.get_mut(first..first + run.len()).ok_or(Corrupted)?;
            if let Run::Values(value, _) = run {
                covered.iter_mut().for_each(|register| *register = (*register).max(value));
            }
            (first, at) = (first + run.len(), at + len);
        }
        if first == REGISTERS { Ok(()) } else { Err(Corrupted) }
    }

    /// The runs of a sparse sketch as PFDEBUG DECODE shows them; `None` of a dense one.
    pub(super) fn decode_sparse(&self) -> Option<String> {
        if self.is_dense() {
            return None;
        }
        let (mut at, mut words) = (HEADER, Vec::new());
        while let Some((run, len)) = self.bytes.get(at..).and_then(Run::read) {
            words.push(match run {
                Run::Zeros(n) if len == 1 => format!("z:{n}"),
                Run::Zeros(n) => format!("Z:{n}"),
                Run::Values(value, n) => format!("v:{value},{n}"),
            });
            at += len;
        }
        Some(words.join(" "))
    }
}

/// Where a dense register is: the first byte, and the shift within the two bytes from there.
fn place(index: usize) -> (usize, usize) {
    (HEADER + index * 6 / 8, index * 6 % 8)
}

/// The register of an element, and one more than the zeros that the rest of its hash ends with.
fn locate(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let index = hash as usize & (REGISTERS - 1);
    let rest = hash >> INDEX_BITS | 1 << COUNT_BITS;
    (index, rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash2 by Austin Appleby (public domain), its 64-bit variant A.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 47;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 47
}

/// How many different elements registers stand for.
pub(super) fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    const ALPHA_INFINITY: f64 = 0.721_347_520_444_481_7;
    let mut histogram = [0u32; 64];
    registers.iter().for_each(|count| histogram[(count & 0x3f) as usize] += 1);
    let m = REGISTERS as f64;
    let mut z = m * tau((m - f64::from(histogram[COUNT_BITS + 1])) / m);
    for count in histogram[1..=COUNT_BITS].iter().rev() {
        z = (z + f64::from(*count)) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA_INFINITY * m * m / z).round() as u64
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        y *= 0.5;
        let before = z;
        z -= (1.0 - x).powi(2) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;

    #[test]
    fn both_representations_hold_the_same_registers() {
        let (mut sparse, mut dense) = (Sketch::default(), Sketch::default());
        dense.make_dense().expect("a new sketch is sound");
        let mut model = [0u8; REGISTERS];
        let mut rng = Rng::new(7);
        for _ in 0..3000 {
            let (index, count) = (rng.below(REGISTERS as u64) as usize, rng.below(40) as u8 + 1);
            let is_higher = count > model[index];
            model[index] = model[index].max(count);
            assert_eq!(sparse.raise(index, count, 3000), Ok(is_higher));
            assert_eq!(dense.raise(index, count, 3000), Ok(is_higher));
        }
        for sketch in [&sparse, &dense] {
            let mut registers = [0; REGISTERS];
            sketch.merge_into(&mut registers).expect("a sound sketch");
            assert_eq!(registers, model);
        }
    }

    #[test]
    fn a_sparse_value_stays_small_for_few_elements_and_its_runs_join() {
        let mut sketch = Sketch::default();
        (0..4).for_each(|i| assert_eq!(sketch.raise(100 + i, 3, 3000), Ok(true)));
        assert_eq!(sketch.decode_sparse().as_deref(), Some("Z:100 v:3,4 Z:16280"));
        assert_eq!(sketch.raise(102, 5, 3000), Ok(true));
        assert_eq!(sketch.decode_sparse().as_deref(), Some("Z:100 v:3,2 v:5,1 v:3,1 Z:16280"));
    }

    #[test]
    fn estimates_are_close() {
        let mut sketch = Sketch::default();
        for n in 0..50_000u32 {
            sketch.add(&n.to_le_bytes(), 3000).expect("a sound sketch");
        }
        let estimate = sketch.keep_estimate().expect("a sound sketch");
        assert!((49_000..=51_000).contains(&estimate), "{estimate}");
        assert_eq!(sketch.known_estimate(), Some(estimate));
    }

    #[test]
    fn hostile_values_are_refused() {
        let mut bytes = Sketch::default().bytes;
        bytes.truncate(HEADER);
        for tail in [&b"\x40"[..], b"\x7f\xff\x00", b"\x00", b"", b"\xff\xff\x7f\xff"] {
            let value = [&bytes[..], tail].concat();
            let mut sketch = Sketch::read(&value).expect("the header is sound");
            assert_eq!(sketch.make_dense(), Err(Corrupted), "{tail:?}");
        }
        assert_eq!(Sketch::read(b"HYLL"), None);
        bytes[4] = DENSE;
        assert_eq!(Sketch::read(&bytes), None);
    }
}
