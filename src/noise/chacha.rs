//! ChaCha8 for several blocks side by side, one a lane.

use std::marker::PhantomData;

use super::key::{BLOCK, Key};
use crate::simd::Set;

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
    pub(super) fn words<S: Set>(&self, key: &Key) -> ByWord<u32, L> {
        let mut words = ByWord([[0; L]; BLOCK]);
        if L >= S::LANES {
            for first in (0..L).step_by(S::LANES) {
                // SAFETY: each array of lanes has `S::LANES` words from `first` on.
                unsafe { self.words_of::<S>(key, first, &mut words) };
            }
            return words;
        }
        let mut start = [[0; L]; BLOCK];
        for (word, constant) in CONSTANT.iter().enumerate() {
            start[word] = [*constant; L];
        }
        for (word, value) in key.words().iter().enumerate() {
            start[4 + word] = [*value; L];
        }
        start[12..14].copy_from_slice(&self.counters);
        start[14..].copy_from_slice(&self.nonces);
        let state = eight_rounds::<Array<L>>(start);
        for word in 0..BLOCK {
            words.0[word] = Array::add(state[word], start[word]);
        }
        words
    }

    /// The words of as many lanes as a vector has. Vectors by name: loops over lanes are not always turned into them.
    ///
    /// # Safety
    /// `first + S::LANES` is at most `L`.
    #[inline(always)]
    unsafe fn words_of<S: Set>(&self, key: &Key, first: usize, words: &mut ByWord<u32, L>) {
        let mut start = [S::splat_word(0); BLOCK];
        for (word, constant) in CONSTANT.iter().enumerate() {
            start[word] = S::splat_word(*constant);
        }
        for (word, value) in key.words().iter().enumerate() {
            start[4 + word] = S::splat_word(*value);
        }
        // SAFETY: the caller's promise.
        unsafe {
            start[12] = S::load_pairs(self.counters[0].as_ptr().add(first));
            start[13] = S::load_pairs(self.counters[1].as_ptr().add(first));
            start[14] = S::load_pairs(self.nonces[0].as_ptr().add(first));
            start[15] = S::load_pairs(self.nonces[1].as_ptr().add(first));
        }
        let state = eight_rounds::<Lanes<S>>(start);
        for word in 0..BLOCK {
            // SAFETY: the caller's promise.
            unsafe {
                S::store_words(S::add_words(state[word], start[word]), words.0[word].as_mut_ptr().add(first));
            }
        }
    }
}

/// "expand 32-byte k", Bernstein's constant.
const CONSTANT: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Words that the rounds work on: of one block, or of a vector of them.
trait Words {
    type Word: Copy;
    fn add(a: Self::Word, b: Self::Word) -> Self::Word;
    /// `(a ⊕ b)` rotated left.
    fn mix<const LEFT: i32, const RIGHT: i32>(a: Self::Word, b: Self::Word) -> Self::Word;
}

/// Fewer lanes than a vector has.
struct Array<const L: usize>;
struct Lanes<S>(PhantomData<S>);

impl<const L: usize> Words for Array<L> {
    type Word = [u32; L];

    #[inline(always)]
    fn add(mut a: [u32; L], b: [u32; L]) -> [u32; L] {
        (0..L).for_each(|lane| a[lane] = a[lane].wrapping_add(b[lane]));
        a
    }

    #[inline(always)]
    fn mix<const LEFT: i32, const RIGHT: i32>(mut a: [u32; L], b: [u32; L]) -> [u32; L] {
        (0..L).for_each(|lane| a[lane] = (a[lane] ^ b[lane]).rotate_left(LEFT as u32));
        a
    }
}

impl<S: Set> Words for Lanes<S> {
    type Word = S::Words;

    #[inline(always)]
    fn add(a: S::Words, b: S::Words) -> S::Words {
        S::add_words(a, b)
    }

    #[inline(always)]
    fn mix<const LEFT: i32, const RIGHT: i32>(a: S::Words, b: S::Words) -> S::Words {
        S::rotate_words::<LEFT, RIGHT>(S::xor_words(a, b))
    }
}

/// Four times a round over the columns and one over the diagonals.
#[inline(always)]
fn eight_rounds<W: Words>(mut state: [W::Word; BLOCK]) -> [W::Word; BLOCK] {
    for _ in 0..4 {
        quarter_round::<W>(&mut state, [0, 4, 8, 12]);
        quarter_round::<W>(&mut state, [1, 5, 9, 13]);
        quarter_round::<W>(&mut state, [2, 6, 10, 14]);
        quarter_round::<W>(&mut state, [3, 7, 11, 15]);
        quarter_round::<W>(&mut state, [0, 5, 10, 15]);
        quarter_round::<W>(&mut state, [1, 6, 11, 12]);
        quarter_round::<W>(&mut state, [2, 7, 8, 13]);
        quarter_round::<W>(&mut state, [3, 4, 9, 14]);
    }
    state
}

#[inline(always)]
fn quarter_round<W: Words>(state: &mut [W::Word; BLOCK], [a, b, c, d]: [usize; 4]) {
    state[a] = W::add(state[a], state[b]);
    state[d] = W::mix::<16, 16>(state[d], state[a]);
    state[c] = W::add(state[c], state[d]);
    state[b] = W::mix::<12, 20>(state[b], state[c]);
    state[a] = W::add(state[a], state[b]);
    state[d] = W::mix::<8, 24>(state[d], state[a]);
    state[c] = W::add(state[c], state[d]);
    state[b] = W::mix::<7, 25>(state[b], state[c]);
}
