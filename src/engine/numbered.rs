//! Maps whose keys are numbers that this process counted out itself. Nobody can choose them so that they collide, so they
//! need no hash that withstands it: each job is looked up half a dozen times.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by such a number.
pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Any odd number whose bits are well mixed: the golden ratio's.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads numbers over all bits.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(number: u64) -> u64 {
        let mut hasher = NumberHasher::default();
        hasher.write_u64(number);
        hasher.finish()
    }

    #[test]
    fn numbers_in_a_row_and_addresses_fall_into_different_buckets() {
        for step in [1, 8, 16, 64, 4_096] {
            let buckets: HashSet<u64> = (0..1_024).map(|number| hash(number * step) & 0xffff).collect();
            assert!(buckets.len() > 950, "step {step}: {} buckets", buckets.len());
            let tags: HashSet<u64> = (0..1_024).map(|number| hash(number * step) >> 57).collect();
            assert!(tags.len() > 64, "step {step}: {} tags", tags.len());
        }
    }
}
