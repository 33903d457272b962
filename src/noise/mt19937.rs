//! The Mersenne Twister that PyTorch's CPU generator is, and what PEFT draws from it: the frozen projections.

/// Length of the state, and the distance of the word that is mixed in (Matsumoto and Nishimura 1998, table II).
const LENGTH: usize = 624;
const DISTANCE: usize = 397;

/// A stream of 32-bit words: MT19937, the words of `torch.Generator().manual_seed(seed)` on the CPU.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: [u32; LENGTH],
    used: usize,
}

impl Mt19937 {
    /// `init_genrand` of the low 32 bits of the seed, as PyTorch does.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; LENGTH];
        let mut word = seed as u32;
        for (index, place) in state.iter_mut().enumerate() {
            if index > 0 {
                word = (word ^ word >> 30).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
            }
            *place = word;
        }
        Self { state, used: LENGTH }
    }

    /// The next word, tempered.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == LENGTH {
            self.twist();
        }
        let mut word = self.state[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    fn twist(&mut self) {
        for index in 0..LENGTH {
            let next = self.state[(index + 1) % LENGTH];
            let pair = self.state[index] & 0x8000_0000 | next & 0x7fff_ffff;
            let feedback = if next & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + DISTANCE) % LENGTH] ^ pair >> 1 ^ feedback;
        }
        self.used = 0;
    }

    /// PyTorch's `float` uniform on [0, 1): the low 24 bits of a word.
    pub(super) fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0xff_ffff) as f32 / 16_777_216.0
    }

    /// PyTorch's `double` uniform on [0, 1): the low 53 bits of two words, the high word first.
    pub(super) fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }
}

/// The largest value that [`draw_projection`] draws.
pub fn projection_bound(fan_in: usize) -> f32 {
    (3f64.sqrt() * (2f64.sqrt() / (fan_in as f64).sqrt())) as f32
}

/// Draws a frozen projection bit for bit as PEFT does: Kaiming uniform, `U(−b, b)` with `b = √3·(√2/√fan_in)`.
///
/// One stream, `Mt19937::new(projection_prng_key)`, gives all of A (`[2r, in_max]` row major, `fan_in` = in_max) and
/// then all of B (`[out_max, r]`, `fan_in` = r). `fan_in` is at least 1.
pub fn draw_projection(stream: &mut Mt19937, fan_in: usize, out: &mut [f32]) {
    let bound = projection_bound(fan_in);
    let width = f64::from(bound - -bound);
    for value in out {
        // One rounding, as in PyTorch's fused multiply-add: product and sum are exact in f64.
        *value = (f64::from(stream.uniform_f32()) * width - f64::from(bound)) as f32;
    }
}
