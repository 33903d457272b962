//! Calibration error and scores against hand-computed answers.

use super::{assert_fails, assert_near};
use crate::error::Code;
use crate::uncertainty::{Bin, calibration, scores};

#[test]
fn calibration_error_by_hand() {
    let confidence = [0.95_f32, 0.875, 0.75, 0.625, 0.125];
    let mut bins = [Bin { count: 9, ..Bin::default() }; 4];
    let error = calibration(&confidence, &[1, 1, 0, 1, 0], &mut bins).unwrap();
    // (0, ¼]: 0.125, wrong. (½, ¾]: 0.75 wrong, 0.625 right. (¾, 1]: 0.95 and 0.875, right.
    assert_eq!(bins[0], Bin { count: 1, mean_confidence: 0.125, accuracy: 0.0 });
    assert_eq!(bins[1], Bin::default());
    assert_eq!(bins[2], Bin { count: 2, mean_confidence: 0.6875, accuracy: 0.5 });
    assert_eq!((bins[3].count, bins[3].accuracy), (2, 1.0));
    assert_near(error.expected, 0.2 * 0.125 + 0.4 * 0.1875 + 0.4 * 0.0875, 1e-7);
    assert_near(error.maximum, 0.1875, 1e-12);
}

#[test]
fn a_bound_belongs_to_the_bin_below_it_in_both_types() {
    for count in [1_usize, 3, 7, 10, 15, 100] {
        let mut bins = vec![Bin::default(); count];
        for bound in 0..=count {
            let wanted = bound.saturating_sub(1);
            let exact = bound as f64 / count as f64;
            calibration(&[exact], &[1], &mut bins).unwrap();
            assert_eq!(bins[wanted].count, 1, "f64 bound {bound} of {count}");
            calibration(&[exact as f32], &[1], &mut bins).unwrap();
            assert_eq!(bins[wanted].count, 1, "f32 bound {bound} of {count}");
        }
    }
}

#[test]
fn calibration_names_what_is_wrong_and_writes_nothing() {
    let before = [Bin { count: 9, ..Bin::default() }; 2];
    let mut bins = before;
    assert_fails(calibration::<f32>(&[], &[], &mut bins), Code::Shape, "confidence is empty");
    assert_fails(calibration(&[0.5_f32], &[], &mut bins), Code::Shape, "correct has 0 elements");
    assert_fails(calibration(&[0.5_f32, 1.5], &[1, 1], &mut bins), Code::Argument, "confidence[1] is 1.5");
    assert_fails(calibration(&[f64::NAN], &[1], &mut bins), Code::Argument, "confidence[0] is NaN");
    assert_fails(calibration(&[0.5_f32], &[2], &mut bins), Code::Argument, "correct[0] is 2");
    assert_fails(calibration(&[0.5_f32], &[1], &mut []), Code::Shape, "bins is empty");
    assert_eq!(bins, before);
}

#[test]
fn scores_by_hand() {
    // Two rows in a matrix with one element of padding.
    let probabilities = [0.5, 0.25, 0.25, 9.0, 0.0, 1.0, 0.0];
    let scores = scores(&probabilities, 4, 3, &[1, 1]).unwrap();
    assert_near(scores.brier, (0.25 + 0.5625 + 0.0625) / 2.0, 1e-15);
    assert_near(scores.negative_log_likelihood, 4.0_f64.ln() / 2.0, 1e-15);
}

#[test]
fn scores_name_what_is_wrong() {
    assert_fails(scores(&[0.5, 0.5], 1, 2, &[0]), Code::Stride, "row_stride");
    assert_fails(scores(&[0.5, 0.5], 2, 2, &[0, 1]), Code::Shape, "2 elements");
    assert_fails(scores(&[0.5, 0.5], 2, 2, &[]), Code::Shape, "labels is empty");
    assert_fails(scores(&[], 2, 0, &[0]), Code::Shape, "classes is 0");
    assert_fails(scores(&[0.5, 0.5], 2, 2, &[2]), Code::Argument, "labels[0] is 2");
    assert_fails(scores(&[0.5, 0.75], 2, 2, &[0]), Code::Argument, "sum to 1.25");
    assert_fails(scores(&[2.0, -1.0], 2, 2, &[0]), Code::Argument, "row 0, column 0 is 2");
    assert_fails(scores(&[1.0, 0.0], 2, 2, &[1]), Code::Overflow, "probability 0");
    assert_fails(scores(&[1.0, f32::NAN], 2, 2, &[1]), Code::Overflow, "row 0, column 1 is NaN");
}
