//! Hashing lane names: a fold of multiplications, seeded per queue, done once per lookup.
//!
//! The seed keeps names that others chose from being steered into one bucket by a fixed table.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// Odd, and with no pattern in its bits: the fraction of the golden ratio.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Clone, Copy)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0_u8))
    }

    pub(crate) fn hash(self, name: &str) -> u64 {
        let (words, rest) = name.as_bytes().as_chunks::<8>();
        let mut state = self.0 ^ name.len() as u64;
        for word in words {
            state = fold(state ^ u64::from_le_bytes(*word), FACTOR ^ self.0 | 1);
        }
        let last = rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        fold(state ^ last, FACTOR)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "both halves of the product are wanted"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// For keys that are hashes already.
pub(crate) type Hashed = BuildHasherDefault<Identity>;

#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u64` is used; anything else would still be a hash, if a poor one.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
