//! The definition: frozen values, an independent ChaCha8, prefixes, shards, and how good the functions are.

use crate::error::Code;
use crate::noise::math::{exp, log, sincos_turns};
use crate::noise::*;

/// Eight-round ChaCha written from Bernstein's paper, to hold the crate and our key layout to the documentation.
fn chacha8_block(key: [u64; 4], nonce: u64, counter: u64) -> [u32; 16] {
    let halves = |number: u64| [number as u32, (number >> 32) as u32];
    let mut start = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (index, number) in key.into_iter().chain([counter, nonce]).enumerate() {
        start[4 + 2 * index..][..2].copy_from_slice(&halves(number));
    }
    let mut state = start;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        for (into, from, rotated, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            state[into] = u32::wrapping_add(state[into], state[from]);
            state[rotated] = (state[rotated] ^ state[into]).rotate_left(by);
        }
    };
    for _ in 0..4 {
        for j in 0..4 {
            quarter(j, 4 + j, 8 + j, 12 + j);
        }
        for j in 0..4 {
            quarter(j, 4 + (j + 1) % 4, 8 + (j + 2) % 4, 12 + (j + 3) % 4);
        }
    }
    std::array::from_fn(|index| state[index].wrapping_add(start[index]))
}

/// Latent `latent` by the text of the module documentation, one number at a time.
fn normal_as_documented(names: [u64; 3], identity: u64, sample: u32, latent: u64) -> f32 {
    let [seed, layer, adapter] = names;
    let counter = (u64::from(sample) << 32) + latent / 16;
    let words = chacha8_block([seed, layer, adapter, 1 + (u64::from(NOISE_VERSION) << 32)], identity, counter);
    let place = (latent % 16) as usize;
    let uniform = ((words[place % 8] >> 1) as f32).mul_add(2f32.powi(-31), 2f32.powi(-32));
    let radius = (-2.0 * log(uniform)).sqrt();
    let (sin, cos) = sincos_turns(words[place % 8 + 8]);
    radius * if place < 8 { cos } else { sin }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn normals(identity: u64, sample: u32, antithetic: bool, first: usize, length: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; length];
    NormalKey::new(7, layer_hash("q_proj"), adapter_identity("first"))
        .fill_from(identity, sample, antithetic, first, &mut out);
    out
}

#[test]
fn the_independent_chacha_is_right() {
    // TC1 of draft-strombergson-chacha-test-vectors-01 (8 rounds, 256-bit key, all zero).
    let block = chacha8_block([0; 4], 0, 0);
    assert_eq!(block[..4], [0x2fef_003e, 0xd640_5f89, 0xe8b8_5b7f, 0xa1a5_091f]);
}

#[test]
fn normals_are_as_documented() {
    let names = [7, layer_hash("q_proj"), adapter_identity("first")];
    for (identity, sample) in [(0, 0), (1, 0), (0, 1), (u64::MAX, u32::MAX), (1 << 33, 77)] {
        let expected: Vec<f32> = (0..150).map(|k| normal_as_documented(names, identity, sample, k)).collect();
        assert_eq!(bits(&normals(identity, sample, false, 0, 150)), bits(&expected), "{identity} {sample}");
    }
}

#[test]
fn frozen_values_of_version_1() {
    assert_eq!(NOISE_VERSION, 1);
    let mut out = [0.0; 18];
    NormalKey::new(1, 2, 3).fill(4, 5, false, &mut out);
    assert_eq!(bits(&out), FROZEN_NORMALS);
    let mut mask = [0.0; 32];
    DropoutKey::new(1, 2, 3).fill(4, 5, 0, 0.25, &mut mask).unwrap();
    let kept = mask.iter().enumerate().fold(0u32, |kept, (c, &value)| kept | u32::from(value != 0.0) << c);
    assert_eq!(kept, FROZEN_MASK);
}

const FROZEN_NORMALS: [u32; 18] = [
    1033117548, 1028869732, 1080525126, 3224549571, 1059937524, 1050800309, 3203881243, 3209237616, 3213537679,
    1061889624, 1061538100, 3193011801, 1066914287, 1053696105, 3207205618, 3212240638, 1061774778, 1061225694,
];
const FROZEN_MASK: u32 = 0xbaef_ddff;

#[test]
fn names_hash_to_known_numbers() {
    // Computed by a few lines of Python from the documentation.
    assert_eq!(layer_hash(""), 0xa58e_60f4_2553_d41f);
    assert_eq!(layer_hash("model.layers.0.self_attn.q_proj"), 0xbf70_c330_e723_f7e7);
    assert_eq!(layer_hash("default"), 0x50e4_c856_919f_b164);
    assert_eq!(adapter_identity("default"), 0x6c82_a14c_be96_a62c);
}

#[test]
fn a_latent_is_the_same_whatever_is_asked_for() {
    let all = normals(9, 3, false, 0, 400);
    for length in [0, 1, 7, 8, 9, 10, 15, 16, 17, 63, 64, 65, 256] {
        assert_eq!(bits(&normals(9, 3, false, 0, length)), bits(&all[..length]), "prefix of {length}");
    }
    for first in [1, 8, 15, 16, 17, 63, 64, 65, 130] {
        for length in [0, 1, 16, 63, 64, 65, 200] {
            let part = normals(9, 3, false, first, length);
            assert_eq!(bits(&part), bits(&all[first..first + length]), "{length} from {first}");
        }
    }
}

#[test]
fn antithetic_samples_are_exact_negatives() {
    for pair in [0, 1, 1000, u32::MAX / 2] {
        let plain = normals(5, pair, false, 0, 100);
        assert_eq!(bits(&normals(5, 2 * pair, true, 0, 100)), bits(&plain));
        let negated: Vec<f32> = plain.iter().map(|value| -value).collect();
        assert_eq!(bits(&normals(5, 2 * pair + 1, true, 0, 100)), bits(&negated));
    }
}

#[test]
fn every_part_of_the_key_matters() {
    let fill = |seed, layer, adapter, identity, sample| {
        let mut out = [0.0; 16];
        NormalKey::new(seed, layer, adapter).fill(identity, sample, false, &mut out);
        bits(&out)
    };
    let top = 1 << 63;
    let mut all = vec![fill(0, 0, 0, 0, 0), fill(0, 0, 0, 0, 1), fill(0, 0, 0, 0, 1 << 31)];
    for one in [1, top] {
        all.extend([fill(one, 0, 0, 0, 0), fill(0, one, 0, 0, 0), fill(0, 0, one, 0, 0), fill(0, 0, 0, one, 0)]);
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn dropout_shards_agree_with_the_whole() {
    let key = DropoutKey::new(1, 2, 3);
    let mut whole = [f32::NAN; 300];
    key.fill(8, 2, 0, 0.3, &mut whole).unwrap();
    assert!(whole.iter().all(|&value| value == 0.0 || value == (1.0 / (1.0 - f64::from(0.3f32))) as f32));
    for first in [0, 1, 15, 16, 63, 64, 65, 100] {
        let mut shard = [f32::NAN; 150];
        key.fill(8, 2, first, 0.3, &mut shard).unwrap();
        assert_eq!(shard, whole[first..first + 150], "from {first}");
    }
}

#[test]
fn dropout_keeps_by_the_documented_threshold() {
    let names = [1, 2, 3, 2 + (u64::from(NOISE_VERSION) << 32)];
    let mut mask = [f32::NAN; 40];
    for probability in [f32::MIN_POSITIVE, 1e-9, 0.1, 0.5, 0.999, 1.0 - f32::EPSILON / 2.0] {
        DropoutKey::new(1, 2, 3).fill(4, 6, 0, probability, &mut mask).unwrap();
        let threshold = (f64::from(probability) * 2f64.powi(32) + 0.5).floor();
        for (column, &value) in mask.iter().enumerate() {
            let word = chacha8_block(names, 4, (6 << 32) + column as u64 / 16)[column % 16];
            assert_eq!(value != 0.0, f64::from(word) >= threshold, "{probability} {column}");
        }
    }
}

#[test]
fn dropout_keeps_a_word_that_is_exactly_the_threshold() {
    let names = [1, 2, 3, 2 + (u64::from(NOISE_VERSION) << 32)];
    // A word of 24 significant bits is a probability that f32 holds exactly.
    let word = |column: usize| chacha8_block(names, 4, column as u64 / 16)[column % 16];
    let column = (0..100_000).find(|&column| word(column) >= 1 << 31 && word(column) % 256 == 0).unwrap();
    let probability = (f64::from(word(column)) / 2f64.powi(32)) as f32;
    let mut mask = [f32::NAN];
    for (probability, kept) in [(probability, true), (probability.next_up(), false)] {
        DropoutKey::new(1, 2, 3).fill(4, 0, column, probability, &mut mask).unwrap();
        assert_eq!(mask[0] != 0.0, kept, "{probability}");
    }
}

#[test]
fn dropout_at_its_ends_and_beyond() {
    let key = DropoutKey::new(1, 2, 3);
    let mut mask = [f32::NAN; 5];
    key.fill(0, 0, 0, 0.0, &mut mask).unwrap();
    assert_eq!(mask, [1.0; 5]);
    key.fill(0, 0, usize::MAX, 0.5, &mut mask).unwrap();
    key.fill(0, 0, 0, 1.0, &mut mask).unwrap();
    assert_eq!(mask, [0.0; 5]);
    for wrong in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        let error = key.fill(0, 0, 0, wrong, &mut mask).unwrap_err();
        assert_eq!(error.code(), Code::Argument);
        assert!(error.message().contains("dropout probability"), "{error}");
        assert_eq!(mask, [0.0; 5], "a refused call writes nothing");
    }
}

/// |got − wanted| in units of the last place that an f32 of wanted's size has.
fn ulps(got: f32, wanted: f64) -> f64 {
    let exponent = wanted.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)).log2().floor();
    (f64::from(got) - wanted).abs() / (exponent - 23.0).exp2()
}

#[test]
fn the_ulp_measure_measures() {
    assert_eq!(ulps(1.0 + f32::EPSILON, 1.0), 1.0);
    assert_eq!(ulps(f32::from_bits(3), f64::from(f32::from_bits(1))), 2.0);
    assert!(ulps(1e-30, 0.0) > 1e6);
}

#[test]
fn exp_is_within_one_ulp() {
    for word in (0..=u32::MAX).step_by(4099) {
        let x = f32::from_bits(word);
        if x.is_nan() {
            assert!(exp(x).is_nan());
        } else if (-104.0..88.72).contains(&x) {
            assert!(ulps(exp(x), f64::from(x).exp()) <= 1.0, "exp({x}) = {}", exp(x));
        }
    }
    assert_eq!([exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-104.0)], [1.0, 1.0, 0.0, 0.0]);
    // The last x with a finite result, and the next; the last with a result above zero, and the next.
    assert!(exp(88.722_83).is_finite());
    assert_eq!([exp(88.722_84), exp(f32::INFINITY), exp(f32::MAX)], [f32::INFINITY; 3]);
    assert_eq!([exp(-103.972_07).to_bits(), exp(-103.972_09).to_bits()], [1, 0]);
}

#[test]
fn log_is_within_one_ulp() {
    for word in (f32::MIN_POSITIVE.to_bits()..f32::INFINITY.to_bits()).step_by(1021) {
        let x = f32::from_bits(word);
        assert!(ulps(log(x), f64::from(x).ln()) <= 1.0, "log({x}) = {}", log(x));
    }
    for step in 1..5000 {
        let x = f32::from_bits(1f32.to_bits() - step);
        assert!(ulps(log(x), f64::from(x).ln()) <= 1.0, "log({x}) = {}", log(x));
    }
    assert_eq!(log(1.0).to_bits(), 0);
}

#[test]
fn sincos_is_within_one_and_a_half_ulp_and_exact_at_quarters() {
    for word in (0..=u32::MAX).step_by(2003) {
        // The turn is taken relative to the nearest quarter, so that f64 loses nothing near a zero.
        let quadrant = word.wrapping_add(1 << 29) >> 30;
        let rest = word.wrapping_sub(quadrant << 30) as i32;
        let (s, c) = (f64::from(rest) * std::f64::consts::TAU / 2f64.powi(32)).sin_cos();
        let wanted = [(s, c), (c, -s), (-s, -c), (-c, s)][quadrant as usize];
        let (sin, cos) = sincos_turns(word);
        assert!(ulps(sin, wanted.0) <= 1.5 && ulps(cos, wanted.1) <= 1.5, "{word}: {sin} {cos}");
    }
    let quarters = [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)];
    for (quarter, wanted) in quarters.into_iter().enumerate() {
        assert_eq!(sincos_turns((quarter as u32) << 30), wanted);
    }
}

#[test]
fn mathematics_has_the_same_bits_everywhere() {
    // Hashes of results over a sweep; a machine or compiler that rounds otherwise changes them.
    let hash = |hash: u64, value: f32| (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
    let sweep = || (0..=u32::MAX).step_by(65_537);
    let finite = |word: u32| f32::from_bits(word % 0x7f80_0000);
    let sum = |of: &dyn Fn(u32) -> f32| sweep().fold(0, |total, word| hash(total, of(word)));
    let sums = [
        sum(&|word| exp(f32::from_bits((word % 0x42b0_0000) | (word & 0x8000_0000)))),
        sum(&|word| log(finite(word).max(f32::MIN_POSITIVE))),
        sum(&|word| sincos_turns(word).0),
        sum(&|word| sincos_turns(word).1),
    ];
    assert_eq!(sums, [7460486082997957220, 14007708684458993872, 3593319385574867950, 5292041394048021941]);
}
