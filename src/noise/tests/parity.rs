//! PyTorch's numbers: `tests/data/noise_torch.json`, written by `tests/data/make_torch_normals.py`.

use serde_json::Value;

use crate::noise::{Mt19937, TorchGenerator, draw_projection, torch_normals};

fn torch() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/noise_torch.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    list(value).iter().map(|bits| f32::from_bits(number(bits) as u32)).collect()
}

/// log and cos differ in the last place between PyTorch's machines and ours: so far, relative to the largest value.
const TOLERANCE: f32 = 2.4e-7;

/// The largest |got − wanted|, or infinity if the lengths differ.
fn distance(got: &[f32], wanted: &[f32]) -> f32 {
    if got.len() != wanted.len() {
        return f32::INFINITY;
    }
    got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs()).fold(0.0, f32::max)
}

#[test]
fn normals_are_pytorchs_over_consecutive_tensors() {
    let mut compared = 0;
    for case in list(&torch()["normals"]) {
        let mut generator = TorchGenerator::new(number(&case["seed"]));
        for tensor in list(&case["tensors"]) {
            let mut got = vec![f32::NAN; number(&tensor["length"]) as usize];
            generator.normals(&mut got);
            let (first, last) = (floats(&tensor["first"]), floats(&tensor["last"]));
            let far = distance(&got[..first.len()], &first).max(distance(&got[got.len() - last.len()..], &last));
            let bound = TOLERANCE * tensor["largest"].as_f64().unwrap() as f32;
            assert!(got.iter().all(|value| value.is_finite()) && far <= bound, "{far} > {bound} in {case}");
            compared += first.len() + last.len();
        }
    }
    assert!(compared > 3000, "only {compared} numbers in the file");
}

#[test]
fn the_distance_sees_a_wrong_number() {
    assert_eq!(distance(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
    assert_eq!(distance(&[1.0], &[1.0, 2.0]), f32::INFINITY);
}

#[test]
fn a_short_tensors_second_normal_waits_for_the_next_short_one() {
    let (mut together, mut single) = ([0.0; 4], [0.0; 1]);
    torch_normals(3, &mut together);
    let mut generator = TorchGenerator::new(3);
    for wanted in together {
        generator.normals(&mut single);
        assert_eq!(single[0], wanted);
    }
}

#[test]
fn mt19937_is_the_authors() {
    let mut stream = Mt19937::new(5489);
    // The 10,000th word of the default seed (C++ standard, [rand.predef]).
    assert_eq!((0..10_000).map(|_| stream.next_u32()).last(), Some(4_123_659_995));
    assert_eq!(Mt19937::new(5489 + (3 << 32)).next_u32(), 3_499_211_612);
}

#[test]
fn projections_are_pefts_bit_for_bit() {
    for case in list(&torch()["projections"]) {
        let [r, in_max, out_max] = ["r", "in_max", "out_max"].map(|name| number(&case[name]) as usize);
        let mut stream = Mt19937::new(number(&case["key"]));
        for (name, length, fan_in) in [("A", 2 * r * in_max, in_max), ("B", out_max * r, r)] {
            let mut matrix = vec![f32::NAN; length];
            draw_projection(&mut stream, fan_in, &mut matrix);
            let wanted = &case[name];
            assert_eq!(u64::from(matrix[0].to_bits()), number(&wanted["first"]), "{name} of {case}");
            assert_eq!(u64::from(matrix[length - 1].to_bits()), number(&wanted["last"]), "{name} of {case}");
            assert_eq!(fnv1a_words(&matrix), number(&wanted["fnv1a_words"]), "{name} of {case}");
        }
    }
}

/// The script's hash. Where it wrote this hash it also wrote the SHA-256 of the same bytes.
fn fnv1a_words(values: &[f32]) -> u64 {
    values
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, value| (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3))
}
