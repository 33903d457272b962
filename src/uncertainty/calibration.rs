//! How far predicted probabilities can be trusted: calibration error, Brier score, log likelihood.

use super::statistics::check_values;
use crate::error::Result;
use crate::fail;

/// How far the probabilities of a row may sum from 1: what bf16 rounding leaves, but not logits.
const SUM_TOLERANCE: f64 = 0.02;

/// One bar of a reliability diagram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many predictions fell in.
    pub count: u64,
    /// Their mean confidence; 0 when there are none.
    pub mean_confidence: f64,
    /// The share that was correct; 0 when there are none.
    pub accuracy: f64,
}

/// How far confidence and accuracy lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationError {
    /// Σ over bins of count/n · |accuracy − mean confidence| (ECE).
    pub expected: f64,
    /// The largest |accuracy − mean confidence| of a bin that is not empty (MCE).
    pub maximum: f64,
}

/// Scores of probabilities against labels; lower is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Mean over rows of Σ_k (p_k − [k is the label])², from 0 to 2 (Brier 1950).
    pub brier: f64,
    /// Mean over rows of −ln p_label, in nats.
    pub negative_log_likelihood: f64,
}

/// Calibration error with bins of equal width (Guo et al. 2017, "On calibration of modern neural networks",
/// equations 3 and 5), and the bins.
///
/// `confidence` holds numbers from 0 to 1 (f32 or f64), `correct` a 1 for each right prediction and a 0 for each wrong
/// one. Bin m of M, counted from 1, takes ((m − 1)/M, m/M], the first one 0 too; bounds are rounded to f32, so that
/// 0.1 lies in the first of ten bins in either type. `bins` is filled, its length is M. Its former content is not read.
///
/// # Errors
/// `Shape` for no bin, no prediction or unequal lengths; `Argument` for a confidence outside 0 to 1 or another mark
/// than 0 and 1. Then nothing is written.
pub fn calibration<T: Copy + Into<f64>>(
    confidence: &[T],
    correct: &[u8],
    bins: &mut [Bin],
) -> Result<CalibrationError> {
    check_predictions(confidence, correct, bins.len())?;
    bins.fill(Bin::default());
    for (&confidence, &correct) in confidence.iter().zip(correct) {
        let confidence = confidence.into();
        let bin = &mut bins[bin_of(confidence, bins.len())];
        bin.count += 1;
        bin.mean_confidence += confidence;
        bin.accuracy += f64::from(correct);
    }
    let (mut expected, mut maximum) = (0.0, 0.0_f64);
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        let count = bin.count as f64;
        expected += (bin.accuracy - bin.mean_confidence).abs() / confidence.len() as f64;
        bin.mean_confidence /= count;
        bin.accuracy /= count;
        maximum = maximum.max((bin.accuracy - bin.mean_confidence).abs());
    }
    Ok(CalibrationError { expected, maximum })
}

fn check_predictions<T: Copy + Into<f64>>(confidence: &[T], correct: &[u8], bins: usize) -> Result<()> {
    if bins == 0 {
        fail!(Shape, "bins is empty; wanted at least one bin");
    }
    if confidence.is_empty() {
        fail!(Shape, "confidence is empty; wanted at least one prediction");
    }
    if correct.len() != confidence.len() {
        fail!(Shape, "correct has {} elements; wanted {}, one a confidence", correct.len(), confidence.len());
    }
    for (index, (&confidence, &correct)) in confidence.iter().zip(correct).enumerate() {
        let confidence = confidence.into();
        if !(0.0..=1.0).contains(&confidence) {
            fail!(Argument, "confidence[{index}] is {confidence}; wanted 0 to 1");
        }
        if correct > 1 {
            fail!(Argument, "correct[{index}] is {correct}; wanted 0 or 1");
        }
    }
    Ok(())
}

/// The bin, counted from 0, that holds a confidence from 0 to 1.
fn bin_of(confidence: f64, bins: usize) -> usize {
    let bin = ((confidence * bins as f64).ceil() as usize).saturating_sub(1).min(bins - 1);
    let lower_bound = (bin as f64 / bins as f64) as f32;
    if bin > 0 && confidence <= f64::from(lower_bound) { bin - 1 } else { bin }
}

/// Brier score and negative log likelihood of `probabilities`, `[labels.len(), classes]`, rows `row_stride` elements
/// apart, against the right class of each row.
///
/// # Errors
/// `Shape`, `Stride`; `Argument` for a probability outside 0 to 1, a row that does not sum to 1 (± 0.02) or a label
/// that is no class; `Overflow` for a value that is not finite and for a label of probability 0, whose likelihood has
/// no finite logarithm.
pub fn scores(probabilities: &[f32], row_stride: usize, classes: usize, labels: &[u32]) -> Result<Scores> {
    if classes == 0 {
        fail!(Shape, "classes is 0; wanted at least 1");
    }
    if labels.is_empty() {
        fail!(Shape, "labels is empty; wanted at least one");
    }
    check_values(probabilities, row_stride, labels.len(), classes).map_err(|error| error.within("probabilities"))?;
    let (mut brier, mut likelihood) = (0.0, 0.0);
    for (row, &label) in labels.iter().enumerate() {
        let line = &probabilities[row * row_stride..][..classes];
        check_distribution(row, line)?;
        let Some(&right) = line.get(label as usize) else {
            fail!(Argument, "labels[{row}] is {label}; wanted less than {classes}");
        };
        if right == 0.0 {
            fail!(Overflow, "row {row} gives its label {label} probability 0; its log likelihood is not finite");
        }
        let right = f64::from(right);
        let squares: f64 = line.iter().map(|&p| f64::from(p) * f64::from(p)).sum();
        brier += squares - right * right + (1.0 - right) * (1.0 - right);
        likelihood -= right.ln();
    }
    let rows = labels.len() as f64;
    Ok(Scores { brier: brier / rows, negative_log_likelihood: likelihood / rows })
}

fn check_distribution(row: usize, line: &[f32]) -> Result<()> {
    if let Some(class) = line.iter().position(|p| !(0.0..=1.0).contains(p)) {
        fail!(Argument, "probabilities at row {row}, column {class} is {}; wanted 0 to 1", line[class]);
    }
    let sum: f64 = line.iter().map(|&p| f64::from(p)).sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        fail!(Argument, "probabilities of row {row} sum to {sum}; wanted 1");
    }
    Ok(())
}
