//! What the running statistics say: means, variances, intervals, votes and entropies.

use super::statistics::{Moments, Statistics, largest};
use super::student::UpperQuantiles;
use crate::error::Result;
use crate::fail;

/// Results fill the caller's slices and check everything first: on an error nothing is written. Each fails with
/// `Shape` for a slice of another length and with `State` for a row with too few passes.
impl Statistics {
    /// The mean of every output over the passes, `[rows, outputs]`. At least one pass.
    pub fn mean(&self, mean: &mut [f64]) -> Result<()> {
        self.check_values_slice("mean", mean.len())?;
        self.check_passes(1, "a mean")?;
        mean.copy_from_slice(&self.values.mean);
        Ok(())
    }

    /// The unbiased variance Σ(x − mean)² / (S − 1) of every output over the S passes, `[rows, outputs]`. At least
    /// two passes.
    pub fn variance(&self, variance: &mut [f64]) -> Result<()> {
        self.check_values_slice("variance", variance.len())?;
        self.check_passes(2, "a variance")?;
        for (row, line) in variance.chunks_exact_mut(self.outputs()).enumerate() {
            for (column, value) in line.iter_mut().enumerate() {
                *value = self.values.variance(row * self.outputs() + column, self.passes()[row]);
            }
        }
        Ok(())
    }

    /// The interval that holds the *mean* of infinitely many passes with probability `level`:
    /// mean ± t · s / √S with t the (1 + level)/2 quantile of Student's t with S − 1 degrees of freedom (Student
    /// 1908). It says how well S passes know the mean, shrinks as S grows, and is exact for normal draws.
    /// `lower` and `upper` are `[rows, outputs]`. At least two passes.
    pub fn mean_interval(&self, level: f64, lower: &mut [f64], upper: &mut [f64]) -> Result<()> {
        self.interval(level, lower, upper, |passes| 1.0 / passes)
    }

    /// The interval that holds the value of *one further pass* with probability `level`: mean ± t · s · √(1 + 1/S)
    /// (Hahn and Meeker 1991, "Statistical intervals", section 4.7). It says how far the predictive distribution
    /// spreads, does not shrink to nothing as S grows, and is exact for normal draws.
    /// `lower` and `upper` are `[rows, outputs]`. At least two passes.
    pub fn predictive_interval(&self, level: f64, lower: &mut [f64], upper: &mut [f64]) -> Result<()> {
        self.interval(level, lower, upper, |passes| 1.0 + 1.0 / passes)
    }

    /// mean ± t · √(variance · share(S)).
    fn interval(&self, level: f64, lower: &mut [f64], upper: &mut [f64], share: impl Fn(f64) -> f64) -> Result<()> {
        self.check_values_slice("lower", lower.len())?;
        self.check_values_slice("upper", upper.len())?;
        let mut quantiles = UpperQuantiles::two_sided(level)?;
        self.check_passes(2, "an interval")?;
        for row in 0..self.rows() {
            let passes = self.passes()[row];
            let quantile = quantiles.at(passes)?;
            for index in row * self.outputs()..(row + 1) * self.outputs() {
                let half = quantile * (self.values.variance(index, passes) * share(f64::from(passes))).sqrt();
                lower[index] = self.values.mean[index] - half;
                upper[index] = self.values.mean[index] + half;
            }
        }
        Ok(())
    }

    /// The class that most passes voted for, `[rows]`; the lowest one on a tie. At least one pass, two outputs.
    pub fn most_voted(&self, classes: &mut [u32]) -> Result<()> {
        self.check_class_slice("classes", classes.len())?;
        self.check_passes(1, "a most voted class")?;
        for (row, class) in classes.iter_mut().enumerate() {
            *class = self.top_class(row) as u32; // outputs fits into 32 bits: Statistics::new
        }
        Ok(())
    }

    /// The mean softmax probability of the most voted class, `[rows]`. At least one pass, two outputs.
    pub fn most_voted_probability(&self, probabilities: &mut [f64]) -> Result<()> {
        self.check_class_slice("probabilities", probabilities.len())?;
        self.check_passes(1, "a most voted class")?;
        for (row, probability) in probabilities.iter_mut().enumerate() {
            *probability = self.probabilities.mean[row * self.outputs() + self.top_class(row)];
        }
        Ok(())
    }

    /// The interval of the mean softmax probability of the most voted class, as PEFT's PVeRA example computes it
    /// (`mean_confidence_interval` in examples/pvera/confidence_interval_generation.py of huggingface/peft): the class
    /// is the mode of the argmax of each pass, the lowest on a tie; of that class's probabilities over the S passes,
    /// mean ± t · s / √S with t the (1 + level)/2 quantile at S − 1 degrees of freedom, cut to [0, 1].
    /// `lower` and `upper` are `[rows]`. At least two passes, two outputs.
    pub fn most_voted_interval(&self, level: f64, lower: &mut [f64], upper: &mut [f64]) -> Result<()> {
        self.check_class_slice("lower", lower.len())?;
        self.check_class_slice("upper", upper.len())?;
        let mut quantiles = UpperQuantiles::two_sided(level)?;
        self.check_passes(2, "an interval")?;
        for row in 0..self.rows() {
            let passes = self.passes()[row];
            let index = row * self.outputs() + self.top_class(row);
            let error = (self.probabilities.variance(index, passes) / f64::from(passes)).sqrt();
            let half = quantiles.at(passes)? * error;
            lower[row] = (self.probabilities.mean[index] - half).max(0.0);
            upper[row] = (self.probabilities.mean[index] + half).min(1.0);
        }
        Ok(())
    }

    /// The mean softmax probability of every class, `[rows, outputs]`. At least one pass, two outputs.
    pub fn mean_probabilities(&self, probabilities: &mut [f64]) -> Result<()> {
        self.check_classes()?;
        self.check_values_slice("probabilities", probabilities.len())?;
        self.check_passes(1, "a mean")?;
        probabilities.copy_from_slice(&self.probabilities.mean);
        Ok(())
    }

    /// The entropy −Σ p̄ ln p̄ of the mean probabilities, in nats, `[rows]`: all of the uncertainty. At least one pass,
    /// two outputs.
    pub fn predictive_entropy(&self, entropy: &mut [f64]) -> Result<()> {
        self.check_class_slice("entropy", entropy.len())?;
        self.check_passes(1, "an entropy")?;
        for (row, value) in entropy.iter_mut().enumerate() {
            *value = self.entropy_of_mean(row);
        }
        Ok(())
    }

    /// The mean over the passes of the entropy of each, in nats, `[rows]`: the part of the uncertainty that every
    /// pass admits itself. At least one pass, two outputs.
    pub fn expected_entropy(&self, entropy: &mut [f64]) -> Result<()> {
        self.check_class_slice("entropy", entropy.len())?;
        self.check_passes(1, "an entropy")?;
        entropy.copy_from_slice(&self.entropy);
        Ok(())
    }

    /// Predictive minus expected entropy, in nats, `[rows]`: how much the passes disagree (Houlsby et al. 2011,
    /// "Bayesian active learning for classification and preference learning"). Entropy is concave, so the difference is
    /// never negative; one that rounding left below zero, as when all passes agree, is returned as zero. At least one
    /// pass, two outputs.
    pub fn mutual_information(&self, information: &mut [f64]) -> Result<()> {
        self.check_class_slice("information", information.len())?;
        self.check_passes(1, "an entropy")?;
        for (row, value) in information.iter_mut().enumerate() {
            *value = (self.entropy_of_mean(row) - self.entropy[row]).max(0.0);
        }
        Ok(())
    }

    fn entropy_of_mean(&self, row: usize) -> f64 {
        let probabilities = &self.probabilities.mean[row * self.outputs()..][..self.outputs()];
        // p ln p → 0 as p → 0, and a sum that starts at +0 never ends as −0.
        probabilities.iter().filter(|&&p| p > 0.0).fold(0.0, |sum, p| sum - p * p.ln())
    }

    pub(super) fn row_votes(&self, row: usize) -> &[u32] {
        &self.votes()[row * self.outputs()..][..self.outputs()]
    }

    fn top_class(&self, row: usize) -> usize {
        largest(self.row_votes(row))
    }

    fn check_values_slice(&self, name: &str, length: usize) -> Result<()> {
        let (rows, outputs) = (self.rows(), self.outputs());
        if length != rows * outputs {
            fail!(Shape, "{name} has {length} elements; wanted {} ({rows} rows of {outputs})", rows * outputs);
        }
        Ok(())
    }

    fn check_class_slice(&self, name: &str, length: usize) -> Result<()> {
        self.check_classes()?;
        if length != self.rows() {
            fail!(Shape, "{name} has {length} elements; wanted one for each of the {} rows", self.rows());
        }
        Ok(())
    }

    pub(super) fn check_classes(&self) -> Result<()> {
        if self.outputs() < 2 {
            fail!(Shape, "the statistics have 1 output, which is no class; wanted at least 2");
        }
        Ok(())
    }

    fn check_passes(&self, least: u32, result: &str) -> Result<()> {
        if let Some(row) = self.passes().iter().position(|&passes| passes < least) {
            let plural = if least == 1 { "" } else { "es" };
            let passes = self.passes()[row];
            fail!(State, "row {row} has {passes} passes; {result} wants at least {least} pass{plural}");
        }
        Ok(())
    }
}

impl Moments {
    /// The unbiased variance of an element after `passes` ≥ 2 values.
    pub fn variance(&self, index: usize, passes: u32) -> f64 {
        self.squares[index] / (f64::from(passes) - 1.0)
    }
}
