//! Quantiles of Student's t distribution.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

use crate::error::Result;
use crate::fail;

/// Far more steps than the longest run: about 500, at one degree of freedom, where each one doubles t up to `LARGEST`.
const MOST_STEPS: usize = 10_000;

/// Beyond this, t² leaves the range of f64. Only tails below 1e-150 reach it.
const LARGEST: f64 = 1e150;

/// The t that a variable with `freedom` degrees exceeds with probability `tail`, 0 < `tail` < ½.
///
/// Newton's method on statrs' tail function. It is convex and falls for t > 0, so from 0 the steps never pass the root.
/// statrs' own `inverse_cdf` is not used: its search does not end for some arguments (statrs issue 435).
pub fn upper_quantile(tail: f64, freedom: f64) -> Result<f64> {
    let Ok(student) = StudentsT::new(0.0, 1.0, freedom) else {
        fail!(Argument, "degrees of freedom are {freedom}; wanted a positive number");
    };
    let mut t = 0.0;
    for _ in 0..MOST_STEPS {
        let step = (student.sf(t) - tail) / student.pdf(t);
        if step.is_nan() || step <= f64::EPSILON * t {
            break;
        }
        t += step;
        if t > LARGEST {
            fail!(Overflow, "Student's t for a tail of {tail:e} and {freedom} degrees of freedom is above {LARGEST:e}");
        }
    }
    Ok(t)
}

/// Quantiles for one tail and the freedom of row after row: rows with equal passes share the work.
pub struct UpperQuantiles {
    tail: f64,
    passes: u32,
    quantile: f64,
}

impl UpperQuantiles {
    /// Quantiles for a two-sided interval that holds with probability `level`.
    pub fn two_sided(level: f64) -> Result<Self> {
        if !(level > 0.0 && level < 1.0) {
            fail!(Argument, "level is {level}; wanted more than 0 and less than 1");
        }
        Ok(Self::of_tail((1.0 - level) / 2.0))
    }

    pub fn of_tail(tail: f64) -> Self {
        Self { tail, passes: 0, quantile: 0.0 }
    }

    /// The quantile for a row with that many passes (at least 2): one degree of freedom less.
    pub fn at(&mut self, passes: u32) -> Result<f64> {
        if self.passes != passes {
            self.quantile = upper_quantile(self.tail, f64::from(passes) - 1.0)?;
            self.passes = passes;
        }
        Ok(self.quantile)
    }
}
