//! The judge of every numeric test can fail.

mod common;

use common::sha256::sha256;
use common::tolerance::{assert_close_or_empty, error, judge};

fn flat(found: &[f64], wanted: &[f64], tolerance: f64) -> Result<(), String> {
    judge((&[found.len()], found), (&[wanted.len()], wanted), tolerance)
}

#[test]
fn the_bound_is_relative_to_the_largest_expected_value() {
    assert!(flat(&[100.0, 0.05], &[100.0, 0.0], 1e-3).is_ok());
    assert!(flat(&[100.0, 0.2], &[100.0, 0.0], 1e-3).is_err());
    assert!(flat(&[100.2, 0.0], &[100.0, 0.0], 1e-3).is_err());
    assert!(flat(&[-100.0], &[100.0], 1e-3).is_err());
    assert_eq!(error((&[1], &[1.5]), (&[1], &[2.0])), Ok(0.25));
}

#[test]
fn what_is_no_number_fails() {
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(flat(&[bad, 1.0], &[1.0, 1.0], 1e3).is_err());
        assert!(flat(&[1.0, 1.0], &[1.0, bad], 1e3).is_err());
        assert!(flat(&[bad], &[bad], 1e3).is_err());
    }
}

#[test]
fn other_shapes_fail() {
    assert!(flat(&[1.0], &[1.0, 1.0], 1e3).is_err());
    assert!(judge((&[2, 3], &[1.0; 6]), (&[3, 2], &[1.0; 6]), 1e3).is_err());
    assert!(judge((&[2, 3], &[1.0; 6]), (&[2, 3], &[1.0; 6]), 0.0).is_ok());
}

#[test]
fn nothing_passes_only_where_it_is_said() {
    assert!(flat(&[], &[], 1.0).is_err());
    assert_close_or_empty::<f64, f64>("no rows", &[], &[], 0.0);
    assert!(std::panic::catch_unwind(|| assert_close_or_empty::<f64, f64>("", &[1.0], &[], 1.0)).is_err());
}

#[test]
fn zeros_are_met_by_zeros_alone() {
    assert!(flat(&[0.0, -0.0], &[0.0, 0.0], 0.0).is_ok());
    assert!(flat(&[0.0, 1e-30], &[0.0, 0.0], 1e3).is_err());
}

#[test]
fn sha256_knows_its_standard_examples() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    assert_eq!(sha256(two_blocks), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}
