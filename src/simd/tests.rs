//! Every operation of every set on this machine against the portable one, bit for bit; but for the product of pairs, which
//! needs the processor's mode and is compared in tests/kernels.

use half::f16;

use super::{Isa, Kernel, Set};

/// One operation on a few bytes of input, its result as f32 bits.
struct Operation<'a> {
    which: usize,
    bytes: &'a [u8],
    out: &'a mut [u32],
}

const OPERATIONS: usize = 13;

/// Results that may be streamed.
#[repr(align(64))]
struct Lines([u32; 64]);

impl Kernel for Operation<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let floats = self.bytes.as_ptr().cast::<f32>();
        for (place, out) in self.out.chunks_exact_mut(S::LANES).enumerate() {
            let at = place * S::LANES;
            // SAFETY: the test gives three times as many input values as results.
            unsafe {
                let (a, b, c) = (S::load(floats.add(at)), S::load(floats.add(at + 1)), S::load(floats.add(at + 2)));
                let pairs = floats.cast::<u32>().add(at);
                let result = match self.which {
                    0 => S::mul_add(a, b, c),
                    1 => S::add(a, b),
                    2 => S::mul(a, b),
                    3 => S::splat(*floats.add(3)),
                    4 => S::load_bf16(floats.cast::<u16>().add(at)),
                    5 => S::load_f16(floats.cast::<f16>().add(at)),
                    6 => S::load_i8(floats.cast::<i8>().add(at)),
                    7 => S::first_of_pairs(S::load_pairs(pairs)),
                    8 => S::second_of_pairs(S::load_pairs(pairs)),
                    _ => a,
                };
                let (words, others) = (S::load_pairs(pairs), S::load_pairs(pairs.add(1)));
                match self.which {
                    9 => S::store_words(S::add_words(words, others), out.as_mut_ptr()),
                    10 => S::store_words(S::xor_words(words, others), out.as_mut_ptr()),
                    11 => S::store_words(S::rotate_words::<7, 25>(words), out.as_mut_ptr()),
                    12 => {
                        S::stream(result, out.as_mut_ptr().cast());
                        S::end_streaming();
                    }
                    _ => S::store(result, out.as_mut_ptr().cast()),
                }
            }
        }
    }
}

/// Bit patterns that meet every exponent, both signs, zeros, subnormals and infinities.
fn patterns(count: usize) -> Vec<u32> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bits = state ^ (state >> 15);
        // A NaN's payload is not part of the contract.
        if f32::from_bits(bits).is_nan() { 0x7f80_0000 | (bits & 0x8000_0000) } else { bits }
    };
    (0..count).map(next).collect()
}

#[test]
fn every_operation_has_the_portable_bits() {
    let input = patterns(3 * 64);
    let bytes: &[u8] = bytemuck::cast_slice(&input);
    for which in 0..OPERATIONS {
        let mut wanted = Lines([0; 64]);
        Isa::PORTABLE.run(Operation { which, bytes, out: &mut wanted.0 });
        for isa in Isa::all() {
            let mut got = Lines([1; 64]);
            isa.run(Operation { which, bytes, out: &mut got.0 });
            let same = |a: u32, b: u32| a == b || (f32::from_bits(a).is_nan() && f32::from_bits(b).is_nan());
            assert!(wanted.0.iter().zip(&got.0).all(|(a, b)| same(*a, *b)), "operation {which} on {isa:?}");
        }
    }
}

struct Transpose<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32; 256],
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        // SAFETY: the test gives 16 rows.
        unsafe { S::transpose(self.from.as_ptr(), self.stride, self.to.as_mut_ptr(), None) };
    }
}

#[test]
fn a_block_is_transposed() {
    for stride in [16, 19] {
        let from: Vec<f32> = (0..16 * stride).map(|value| value as f32).collect();
        for isa in Isa::all() {
            let mut to = [0.0; 256];
            isa.run(Transpose { from: &from, stride, to: &mut to });
            for i in 0..16 {
                for j in 0..16 {
                    assert_eq!(to[16 * i + j], from[j * stride + i], "{isa:?}, stride {stride}, {i}, {j}");
                }
            }
        }
    }
}

#[test]
fn masks_take_features_away_and_never_give_any() {
    use super::Features;
    assert_eq!(Isa::without(Features(u32::MAX)), Isa::PORTABLE);
    assert_eq!(Isa::best().features(), Features::detected());
    for bit in 0..32 {
        let mask = Features(1 << bit);
        let features = Isa::without(mask).features();
        assert!(Features::detected().has(features) && features.0 & mask.0 == 0);
    }
    let sets = Isa::all();
    assert!(sets.contains(&Isa::PORTABLE) && sets.contains(&Isa::best()));
}
