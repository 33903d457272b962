//! AdamW, so that a program can train an adapter with nothing else.

use crate::error::Result;
use crate::fail;

/// The options of AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// 0 or more.
    pub learning_rate: f64,
    /// Decay of the first moment, 0 ≤ beta1 < 1.
    pub beta1: f64,
    /// Decay of the second moment, 0 ≤ beta2 < 1.
    pub beta2: f64,
    /// Added to the root of the second moment, 0 or more.
    pub epsilon: f64,
    /// Every step scales the parameters by 1 − learning_rate · weight_decay; 0 or more.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-2 }
    }
}

/// One step, in place. `step` counts from 1; `first` and `second` are the moments, zero before step 1. All four slices
/// have one length. The same operations in the same order as `torch.optim.AdamW` on a CPU with fused multiply-add (f32;
/// scalars in f64, rounded once), so also the same bits; where the hardware has none it is emulated.
///
/// # Errors
/// `Shape` for unequal lengths; `Argument` for an option out of range or step 0; `Overflow` for a gradient, parameter or
/// moment that is not finite, before the step or after it. Then nothing has changed.
pub fn adamw_step(
    options: &AdamW,
    step: u64,
    parameters: &mut [f32],
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) -> Result<()> {
    for (name, length) in [("gradients", gradients.len()), ("first", first.len()), ("second", second.len())] {
        if length != parameters.len() {
            fail!(Shape, "{name} has {length} elements; wanted {}, one a parameter", parameters.len());
        }
    }
    let scalars = Scalars::new(options, step)?;
    for index in 0..parameters.len() {
        let gradient = gradients[index];
        if !gradient.is_finite() {
            fail!(Overflow, "gradients[{index}] is {gradient}; wanted a finite number");
        }
        let after = scalars.advance(parameters[index], gradient, first[index], second[index]);
        if after.iter().any(|value| !value.is_finite()) {
            let (parameter, first, second) = (parameters[index], first[index], second[index]);
            fail!(
                Overflow,
                "element {index} would not stay finite: parameter {parameter}, gradient {gradient}, first moment {first}, second moment {second}"
            );
        }
    }
    for index in 0..parameters.len() {
        let after = scalars.advance(parameters[index], gradients[index], first[index], second[index]);
        [parameters[index], first[index], second[index]] = after;
    }
    Ok(())
}

/// What every element shares: computed in f64, then rounded to the type of the elements.
struct Scalars {
    decay: f32,
    first_weight: f32,
    beta2: f32,
    second_weight: f32,
    root_correction: f32,
    epsilon: f32,
    step_size: f32,
}

impl Scalars {
    fn new(options: &AdamW, step: u64) -> Result<Self> {
        let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = *options;
        for (name, value) in [("learning_rate", learning_rate), ("epsilon", epsilon), ("weight_decay", weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                fail!(Argument, "{name} is {value}; wanted a finite number, 0 or more");
            }
        }
        for (name, value) in [("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&value) {
                fail!(Argument, "{name} is {value}; wanted 0 or more and less than 1");
            }
        }
        if step == 0 {
            fail!(Argument, "step is 0; wanted 1 for the first step");
        }
        Ok(Self {
            decay: (1.0 - learning_rate * weight_decay) as f32,
            first_weight: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            second_weight: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powf(step as f64)).sqrt() as f32,
            epsilon: epsilon as f32,
            step_size: (learning_rate / (1.0 - beta1.powf(step as f64))) as f32,
        })
    }

    /// Parameter, first and second moment after the step.
    fn advance(&self, parameter: f32, gradient: f32, first: f32, second: f32) -> [f32; 3] {
        let parameter = parameter * self.decay;
        // PyTorch's lerp starts from the nearer end.
        let first = if self.first_weight < 0.5 {
            (gradient - first).mul_add(self.first_weight, first)
        } else {
            (gradient - first).mul_add(self.first_weight - 1.0, gradient)
        };
        let second = (self.second_weight * gradient).mul_add(gradient, second * self.beta2);
        let scale = second.sqrt() / self.root_correction + self.epsilon;
        [parameter - self.step_size * first / scale, first, second]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::error::Code;

    fn number(value: &Value) -> f64 {
        value.as_f64().expect("a number")
    }

    fn vector(value: &Value) -> Vec<f32> {
        value.as_array().expect("an array").iter().map(|value| number(value) as f32).collect()
    }

    #[track_caller]
    fn assert_near(given: &[f32], wanted: &[f32], what: &str) {
        assert_eq!(given.len(), wanted.len());
        for (given, wanted) in given.iter().zip(wanted) {
            assert!((given - wanted).abs() <= 1e-6 * wanted.abs(), "{what}: {given} is not {wanted}");
        }
    }

    #[test]
    fn fifty_steps_have_the_bits_of_torch() {
        let reference: Value = serde_json::from_str(include_str!("../tests/data/adamw.json")).unwrap();
        for case in reference["cases"].as_array().unwrap() {
            let options = AdamW {
                learning_rate: number(&case["learning_rate"]),
                beta1: number(&case["beta1"]),
                beta2: number(&case["beta2"]),
                epsilon: number(&case["epsilon"]),
                weight_decay: number(&case["weight_decay"]),
            };
            let mut parameters = vector(&case["start"]);
            let (mut first, mut second) = (vec![0.0; parameters.len()], vec![0.0; parameters.len()]);
            let reached = case["parameters"].as_array().unwrap();
            assert_eq!(reached.len(), 50);
            for (index, wanted) in reached.iter().enumerate() {
                let (step, gradients) = (index as u64 + 1, vector(&case["gradients"][index]));
                adamw_step(&options, step, &mut parameters, &gradients, &mut first, &mut second).unwrap();
                assert_eq!(parameters, vector(wanted), "parameters after step {step}");
            }
            assert_eq!(first, vector(&case["first"]));
            assert_eq!(second, vector(&case["second"]));
        }
    }

    #[test]
    fn the_first_default_step_by_hand() {
        // The corrected moments are g and g², so the step is the learning rate; the decay is 1e-3 · 1e-2.
        let (mut parameter, mut first, mut second) = ([2.0], [0.0], [0.0]);
        adamw_step(&AdamW::default(), 1, &mut parameter, &[4.0], &mut first, &mut second).unwrap();
        assert_near(&parameter, &[2.0 * (1.0 - 1e-5) - 1e-3], "parameter");
        assert_near(&first, &[0.4], "first");
        assert_near(&second, &[0.016], "second");
    }

    #[track_caller]
    fn assert_refused(options: AdamW, step: u64, state: [f32; 4], code: Code, part: &str) {
        // A good element before the bad one: it must stay as it is.
        let (mut parameters, gradients) = ([1.0, state[0]], [1.0, state[1]]);
        let (mut first, mut second) = ([0.5, state[2]], [0.5, state[3]]);
        let error = adamw_step(&options, step, &mut parameters, &gradients, &mut first, &mut second).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(part), "{error}");
        assert_eq!((parameters[0], first[0], second[0]), (1.0, 0.5, 0.5));
    }

    #[test]
    fn bad_input_is_named_and_nothing_is_written() {
        let (good, sound) = (AdamW::default(), [1.0, 1.0, 0.0, 0.0]);
        assert_refused(good, 0, sound, Code::Argument, "step is 0");
        assert_refused(AdamW { learning_rate: -1.0, ..good }, 1, sound, Code::Argument, "learning_rate is -1");
        assert_refused(AdamW { beta1: 1.0, ..good }, 1, sound, Code::Argument, "beta1 is 1");
        assert_refused(AdamW { beta2: f64::NAN, ..good }, 1, sound, Code::Argument, "beta2 is NaN");
        assert_refused(AdamW { epsilon: f64::INFINITY, ..good }, 1, sound, Code::Argument, "epsilon is inf");
        assert_refused(AdamW { weight_decay: f64::NAN, ..good }, 1, sound, Code::Argument, "weight_decay is NaN");
        assert_refused(good, 1, [1.0, f32::NAN, 0.0, 0.0], Code::Overflow, "gradients[1] is NaN");
        assert_refused(good, 1, [1.0, 1e30, 0.0, 0.0], Code::Overflow, "element 1"); // its square overflows
        assert_refused(good, 1, [f32::INFINITY, 1.0, 0.0, 0.0], Code::Overflow, "parameter inf");
        assert_refused(good, 1, [1.0, 0.0, 0.0, -1.0], Code::Overflow, "second moment -1");
    }

    #[test]
    fn unequal_lengths_are_named_and_none_is_fine() {
        let options = AdamW::default();
        let error = adamw_step(&options, 1, &mut [1.0], &[1.0], &mut [0.0], &mut []).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Shape, "second has 0 elements; wanted 1, one a parameter"));
        assert_eq!(adamw_step(&options, 1, &mut [], &[], &mut [], &mut []), Ok(()));
    }
}
