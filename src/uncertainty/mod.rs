//! What Monte Carlo passes say: running moments and votes, intervals, entropy, early stopping, calibration.
//!
//! A pass is one sampled forward of the whole network. [`Statistics`] takes passes one by one in constant memory and
//! answers questions about them; [`Stopping`] says which rows need more; [`calibration()`] and [`scores`] judge the
//! answers against labels.

mod calibration;
mod results;
mod statistics;
mod stopping;
mod student;

pub use calibration::{Bin, CalibrationError, Scores, calibration, scores};
pub use statistics::Statistics;
pub use stopping::Stopping;

#[cfg(test)]
mod tests;
