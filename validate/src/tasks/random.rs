//! Python's `random.Random`, as far as tasks draw from it.
//!
//! lm-evaluation-harness chooses few-shot examples and bootstrap samples with it, so equal seeds
//! must give equal draws: the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded by
//! an array of the seed's 32-bit digits, and the way CPython uses its output. It is written by
//! hand, not with `rand_mt`, because the figures of lm-evaluation-harness depend on CPython's
//! seeding and its `sample`, which no crate has.

const N: usize = 624;
const M: usize = 397;

pub(super) struct Random {
    state: [u32; N],
    at: usize,
}

impl Random {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(state[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        // The key has one digit.
        let mut i = 1;
        for _ in 0..N {
            state[i] = (state[i] ^ mixed(state[i - 1], 1_664_525)).wrapping_add(seed);
            i = next(&mut state, i);
        }
        for _ in 1..N {
            state[i] = (state[i] ^ mixed(state[i - 1], 1_566_083_941)).wrapping_sub(i as u32);
            i = next(&mut state, i);
        }
        state[0] = 0x8000_0000;
        Self { state, at: N }
    }

    /// 32 uniform bits.
    fn word(&mut self) -> u32 {
        if self.at == N {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }

    /// `random.random()`: 53 bits in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        let (a, b) = (self.word() >> 5, self.word() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }

    /// A number below `n`: as many bits as `n` has, drawn again while too large.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = match bits {
                0 => 0,
                1..=32 => (self.word() >> (32 - bits)) as usize,
                _ => {
                    let low = self.word() as usize;
                    low | ((self.word() >> (64 - bits)) as usize) << 32
                }
            };
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.sample(range(n), k)`, for k of at most n: indices without repetition.
    pub(super) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut set_size = 21;
        if k > 5 {
            let digits = ((3 * k) as f64).log(4.0).ceil();
            set_size += 4usize.pow(digits as u32);
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            let draw = |i| {
                let j = self.below(n - i);
                let drawn = pool[j];
                pool[j] = pool[n - i - 1];
                drawn
            };
            return (0..k).map(draw).collect();
        }
        let mut chosen = Vec::with_capacity(k);
        while chosen.len() < k {
            let drawn = self.below(n);
            if !chosen.contains(&drawn) {
                chosen.push(drawn);
            }
        }
        chosen
    }
}

fn mixed(before: u32, factor: u32) -> u32 {
    (before ^ (before >> 30)).wrapping_mul(factor)
}

/// The place after `i`; after the last one comes the first.
fn next(state: &mut [u32; N], i: usize) -> usize {
    if i + 1 == N {
        state[0] = state[N - 1];
        return 1;
    }
    i + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By CPython 3.11: `r = random.Random(1234); r.random(); r.sample(range(9), 3);
    /// r.sample(range(1000), 4); r.sample(range(100), 6)`.
    #[test]
    fn draws_are_those_of_python() {
        let mut random = Random::new(1234);
        assert_eq!(random.unit(), 0.9664535356921388);
        assert_eq!(random.sample(9, 3), [7, 1, 0]);
        assert_eq!(random.sample(1000, 4), [92, 932, 965, 961]);
        assert_eq!(random.sample(100, 6), [74, 4, 85, 88, 10, 12]);
    }
}
