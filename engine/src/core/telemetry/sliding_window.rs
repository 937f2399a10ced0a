//! The window of an absolute guard.

use serde::{Deserialize, Serialize};

/// The last canary observations of an absolute guard, bad or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// One bit each, a ring.
    bits: Vec<u64>,
    size: u32,
    next: u32,
    /// The share of bad ones that is too much.
    above: f64,
    pub n: u32,
    pub bad: u32,
    /// More than the limit were bad at some time. Latched.
    pub fired: bool,
}

impl Recent {
    pub fn new(size: u32, above: f64) -> Recent {
        let words = size.div_ceil(64) as usize;
        Recent { bits: vec![0; words], size, next: 0, above, n: 0, bad: 0, fired: false }
    }

    /// Takes in `n` observations of which `bad` are bad. The order inside a sum is not known: the bad ones are spread evenly,
    /// so that the window shows the share that the sum has. All at once they would show any share.
    pub fn spread(&mut self, n: u64, bad: u64) {
        let before_the = |i: u64| u128::from(i) * u128::from(bad) / u128::from(n.max(1));
        // Spread evenly, they say no more after two windows.
        let most = 2 * u64::from(self.size);
        (0..n.min(most)).for_each(|i| self.push(before_the(i + 1) > before_the(i)));
    }

    fn push(&mut self, bad: bool) {
        let (word, bit) = ((self.next / 64) as usize, 1u64 << (self.next % 64));
        if self.n == self.size {
            self.bad -= u32::from(self.bits[word] & bit != 0);
        } else {
            self.n += 1;
        }
        if bad {
            self.bits[word] |= bit;
            self.bad += 1;
        } else {
            self.bits[word] &= !bit;
        }
        self.next = (self.next + 1) % self.size;
        // Counted against the whole window: more bad ones than it allows cannot be undone by filling it.
        self.fired |= f64::from(self.bad) > self.above * f64::from(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a window of 200 says of sums, each `(n, bad)`, when more than 20 % may not be bad.
    fn fires(sums: &[(u64, u64)]) -> bool {
        let mut recent = Recent::new(200, 0.2);
        sums.iter().for_each(|(n, bad)| recent.spread(*n, *bad));
        recent.fired
    }

    /// Their order is not known, and a window of the worst order shows nothing but how large the sum is.
    #[test]
    fn a_window_sees_the_share_of_a_sum_not_its_bad_ones_in_a_row() {
        assert!(!fires(&[(10_000, 50)]));
        assert!(!fires(&[(100, 5); 50]));
        assert!(fires(&[(10_000, 2_100)]));
        assert!(fires(&[(30, 15), (30, 15), (30, 15)]));
        assert!(fires(&[(1_000_000_000_000, 300_000_000_000)]));
    }
}
