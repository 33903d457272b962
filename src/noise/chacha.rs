//! ChaCha8 for several blocks side by side, one a lane: plain loops over lanes, which compilers turn into vectors.

use super::key::{BLOCK, Key};

/// Lanes of a batch: as many blocks as an AVX-512 register has words. Narrower registers take them in parts.
pub(super) const LANES: usize = 16;

/// Word j of every lane's block, or a value made of it, at `[j]`; aligned, so that a register meets one cache line.
#[repr(align(64))]
pub(super) struct ByWord<T, const L: usize>(pub(super) [[T; L]; BLOCK]);

/// Which block each lane makes: the low and high halves of its counter and its nonce.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Blocks<const L: usize> {
    counters: [[u32; L]; 2],
    nonces: [[u32; L]; 2],
}

impl<const L: usize> Blocks<L> {
    pub(super) const ZERO: Self = Self { counters: [[0; L]; 2], nonces: [[0; L]; 2] };

    #[inline(always)]
    pub(super) fn set(&mut self, lane: usize, counter: u64, nonce: u64) {
        for (half, shift) in [0, 32].into_iter().enumerate() {
            self.counters[half][lane] = (counter >> shift) as u32;
            self.nonces[half][lane] = (nonce >> shift) as u32;
        }
    }

    /// Lanes `first` to `first + N`.
    #[inline(always)]
    pub(super) fn part<const N: usize>(&self, first: usize) -> Blocks<N> {
        let mut part = Blocks::ZERO;
        for half in 0..2 {
            part.counters[half].copy_from_slice(&self.counters[half][first..][..N]);
            part.nonces[half].copy_from_slice(&self.nonces[half][first..][..N]);
        }
        part
    }

    /// The words of the blocks.
    #[inline(always)]
    pub(super) fn words(&self, key: &Key) -> ByWord<u32, L> {
        let mut words = ByWord([[0; L]; BLOCK]);
        // One lane is one scalar block; the loop over them is what becomes vectors.
        for lane in 0..L {
            let mut start = [0; BLOCK];
            // "expand 32-byte k", Bernstein's constant.
            start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
            start[4..12].copy_from_slice(key.words());
            (start[12], start[13]) = (self.counters[0][lane], self.counters[1][lane]);
            (start[14], start[15]) = (self.nonces[0][lane], self.nonces[1][lane]);
            // Not a loop: one inside the loop over lanes would keep it from being vectorised.
            let state = double_round(double_round(double_round(double_round(start))));
            for word in 0..BLOCK {
                words.0[word][lane] = state[word].wrapping_add(start[word]);
            }
        }
        words
    }
}

/// A round over the columns and one over the diagonals.
#[inline(always)]
fn double_round(mut state: [u32; BLOCK]) -> [u32; BLOCK] {
    quarter_round(&mut state, 0, 4, 8, 12);
    quarter_round(&mut state, 1, 5, 9, 13);
    quarter_round(&mut state, 2, 6, 10, 14);
    quarter_round(&mut state, 3, 7, 11, 15);
    quarter_round(&mut state, 0, 5, 10, 15);
    quarter_round(&mut state, 1, 6, 11, 12);
    quarter_round(&mut state, 2, 7, 8, 13);
    quarter_round(&mut state, 3, 4, 9, 14);
    state
}

#[inline(always)]
fn quarter_round(state: &mut [u32; BLOCK], a: usize, b: usize, c: usize, d: usize) {
    for (into, from, rotated, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[into] = state[into].wrapping_add(state[from]);
        state[rotated] = (state[rotated] ^ state[into]).rotate_left(by);
    }
}
