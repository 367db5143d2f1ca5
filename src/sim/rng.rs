//! Random bits that are the same on every machine and in every version: xoshiro256** (Blackman, Vigna 2018), seeded by SplitMix64.

/// A stream of random bits.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut at)) }
    }

    /// A stream of its own for `part` of the world `seed`: what one part draws does not move what another draws.
    pub fn part(seed: u64, part: u64) -> Self {
        let mut at = seed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self::new(split_mix(&mut at))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of a product is uniform enough for any limit that occurs here.
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `per_mille` of 1000 cases. Draws also when the answer is certain, so that the rest of the stream does not move.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

fn split_mix(at: &mut u64) -> u64 {
    *at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *at;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_for_ever() {
        let mut rng = Rng::new(1);
        assert_eq!(
            [rng.bits(), rng.bits(), rng.bits()],
            [12_966_619_160_104_079_557, 9_600_361_134_598_540_522, 10_590_380_919_521_690_900]
        );
    }

    #[test]
    fn numbers_stay_within_their_limits() {
        let mut rng = Rng::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| rng.within(3, 5)).collect();
        assert!(drawn.iter().all(|number| (3..=5).contains(number)) && drawn.contains(&3) && drawn.contains(&5));
        assert_eq!(rng.below(0), 0);
        assert_eq!((0..100).filter(|_| rng.chance(0)).count(), 0);
        assert_eq!((0..100).filter(|_| rng.chance(1000)).count(), 100);
    }
}
