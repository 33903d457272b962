//! Every instruction set against one number at a time, over the words of rand_chacha.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::noise::math::{log, sincos_turns};
use crate::noise::*;
use crate::simd::Isa;

/// Longer than a wide batch, so that a row's last blocks come in a second one.
const LONGEST: usize = 300;

/// SplitMix64: numbers to try.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Seed, layer hash and adapter identity.
type Names = [u64; 3];

/// `count` words of a row, from block `first / 16` on.
fn words(names: Names, domain: u64, identity: u64, sample: u32, first: usize, count: usize) -> Vec<u32> {
    let mut seed = [0; 32];
    let [a, b, c] = names;
    for (eight, field) in seed.chunks_exact_mut(8).zip([a, b, c, domain + (u64::from(NOISE_VERSION) << 32)]) {
        eight.copy_from_slice(&field.to_le_bytes());
    }
    let mut stream = ChaCha8Rng::from_seed(seed);
    stream.set_stream(identity);
    stream.set_word_pos((u128::from(sample) << 36) + (first as u128 & !15));
    (0..count).map(|_| stream.next_u32()).collect()
}

/// The bits of `count` normals, as the module's documentation defines them.
fn normals(names: Names, identity: u64, sample: u32, antithetic: bool, first: usize, count: usize) -> Vec<u32> {
    let (counted, sign) = if antithetic { (sample / 2, sample % 2) } else { (sample, 0) };
    let words = words(names, 1, identity, counted, first, (first % 16 + count).next_multiple_of(16));
    let normal = |place: usize| {
        let block = &words[place & !15..][..16];
        let uniform = ((block[place % 8] >> 1) as f32).mul_add(2f32.powi(-31), 2f32.powi(-32));
        let (sin, cos) = sincos_turns(block[place % 8 + 8]);
        let normal = (-2.0 * log(uniform)).sqrt() * if place % 16 < 8 { cos } else { sin };
        normal.to_bits() ^ sign << 31
    };
    (first % 16..first % 16 + count).map(normal).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Where a row may begin: at and beside the edges of blocks and batches, and at the end of what a sample has.
fn first(numbers: &mut Numbers) -> usize {
    const FIRSTS: [usize; 8] = [0, 1, 8, 15, 16, 63, 257, (1 << 36) - 2 * LONGEST];
    FIRSTS[numbers.below(FIRSTS.len())]
}

fn number(numbers: &mut Numbers) -> u64 {
    let any = numbers.next();
    [0, u64::MAX, any][numbers.below(3)]
}

#[test]
fn a_row_of_every_length_on_every_set() {
    let mut numbers = Numbers(1);
    for length in 1..=LONGEST {
        let names = [number(&mut numbers), number(&mut numbers), number(&mut numbers)];
        let [seed, layer, adapter] = names;
        let key = NormalKey::new(seed, layer, adapter);
        let (identity, sample, antithetic) = (number(&mut numbers), number(&mut numbers) as u32, numbers.below(2) == 1);
        let first = first(&mut numbers);
        let wanted = normals(names, identity, sample, antithetic, first, length);
        let from_zero = normals(names, identity, sample, antithetic, 0, length);
        let mut out = vec![f32::NAN; length];
        key.fill_from(identity, sample, antithetic, first, &mut out);
        assert_eq!(bits(&out), wanted, "{length} from {first}");
        for isa in Isa::all() {
            out.fill(f32::NAN);
            key.fill_rows(isa, antithetic, [Row { identity, sample, first, out: &mut out }]);
            assert_eq!(bits(&out), wanted, "{isa:?}, {length} from {first}");
            out.fill(f32::NAN);
            key.fill_on(isa, identity, sample, antithetic, &mut out);
            assert_eq!(bits(&out), from_zero, "{isa:?}, {length}");
        }
    }
}

#[test]
fn rows_of_one_call_do_not_know_each_other() {
    let mut numbers = Numbers(2);
    let names = [3, 4, 5];
    for round in 0..60 {
        let antithetic = round % 2 == 1;
        let rows: Vec<(u64, u32, usize, usize)> = (0..1 + round)
            .map(|_| (numbers.next(), numbers.next() as u32, first(&mut numbers), numbers.below(1 + 2 * round)))
            .collect();
        for isa in Isa::all() {
            let mut outs: Vec<Vec<f32>> = rows.iter().map(|row| vec![f32::NAN; row.3]).collect();
            let wanted = rows.iter().zip(&mut outs);
            let calls = wanted.map(|(&(identity, sample, first, _), out)| Row { identity, sample, first, out });
            NormalKey::new(3, 4, 5).fill_rows(isa, antithetic, calls);
            for (&(identity, sample, first, length), out) in rows.iter().zip(&outs) {
                let wanted = normals(names, identity, sample, antithetic, first, length);
                assert_eq!(bits(out), wanted, "{isa:?}, {length} from {first}, {} rows", rows.len());
            }
        }
    }
}

#[test]
fn dropout_masks_of_every_length_on_every_set() {
    let mut numbers = Numbers(3);
    for length in 1..=LONGEST {
        let names = [number(&mut numbers), number(&mut numbers), number(&mut numbers)];
        let [seed, layer, adapter] = names;
        let (identity, sample, first) = (number(&mut numbers), number(&mut numbers) as u32, first(&mut numbers));
        let words = words(names, 2, identity, sample, first, first % 16 + length);
        let kept = |word: &u32| if *word >= 1 << 30 { (4.0f64 / 3.0) as f32 } else { 0.0 };
        let wanted: Vec<f32> = words[first % 16..].iter().map(kept).collect();
        for isa in Isa::all() {
            let mut out = vec![f32::NAN; length];
            DropoutKey::new(seed, layer, adapter).fill_on(isa, identity, sample, first, 0.25, &mut out).unwrap();
            assert_eq!(out, wanted, "{isa:?}, {length} from {first}");
        }
    }
}
