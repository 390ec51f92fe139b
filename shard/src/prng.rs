//! Randomness that repeats.

/// A generator of pseudo-random numbers: xoshiro256** 1.0 by David Blackman and Sebastiano Vigna
/// (<https://prng.di.unimi.it/xoshiro256starstar.c>), its state filled by SplitMix64 as its authors advise.
///
/// The same seed gives the same numbers on every machine. Not for secrets.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// A generator that `seed` determines; any seed will do, zero too.
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        Self { state: std::array::from_fn(|_| split_mix_64(&mut counter)) }
    }

    /// The next number, each of 2^64 equally likely.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `n`, each equally likely: Lemire's method, "Fast Random Integer Generation in an
    /// Interval" (2019).
    ///
    /// # Panics
    ///
    /// When `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below zero");
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }
}

fn split_mix_64(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *counter;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_gives_the_same_numbers() {
        // The first outputs of the authors' C code with the state 1, 2, 3, 4.
        let mut prng = Prng { state: [1, 2, 3, 4] };
        assert_eq!([(); 4].map(|()| prng.next_u64()), [11520, 0, 1509978240, 1215971899390074240]);
        // SplitMix64 of seed 0, as in https://prng.di.unimi.it/splitmix64.c.
        assert_eq!(Prng::new(0).state[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn a_seed_determines_the_numbers() {
        let numbers = |seed| [(); 8].map(|()| Prng::new(seed).next_u64());
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut prng = Prng::new(1);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[prng.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(prng.below(1), 0);
        // Of four raw numbers this bound must reject one, else every third result comes twice as often.
        let thirds = (0..10_000).filter(|_| prng.below(3 << 62).is_multiple_of(3)).count();
        assert!((3_000..3_700).contains(&thirds), "{thirds}");
    }
}
