//! AdamW, so that a C program can train with nothing else.

use super::error::pvera_error;
use super::guard;
use super::input::{self, Sized_};
use crate::optimizer::{AdamW, adamw_step};

/// AdamW (Loshchilov and Hutter 2019) with decoupled weight decay, as torch.optim.AdamW. Zero fields are zero, not
/// PyTorch's defaults: start from `pvera_adamw_default`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_adamw {
    /// sizeof(pvera_adamw).
    pub struct_size: usize,
    /// Of this step; a schedule is the caller's.
    pub learning_rate: f64,
    /// Decay of the first moments.
    pub beta1: f64,
    /// Decay of the second moments.
    pub beta2: f64,
    /// Added to the root of the second moments.
    pub epsilon: f64,
    /// Times the learning rate: the share of a parameter that a step takes off it.
    pub weight_decay: f64,
}

// SAFETY: numbers; the size comes first.
unsafe impl Sized_ for pvera_adamw {
    const NAME: &'static str = "options";
}

/// PyTorch's defaults: learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8, weight decay 1e-2.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_adamw_default() -> pvera_adamw {
    let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = AdamW::default();
    pvera_adamw { struct_size: size_of::<pvera_adamw>(), learning_rate, beta1, beta2, epsilon, weight_decay }
}

/// One step on `count` parameters, in place, with their gradients and the two moment arrays (zero before the first step).
/// The arrays lie in host memory. `step` counts from 1. Nothing is written when an option, a gradient or a result is not
/// finite.
///
/// # Safety
/// `options` is sized options; the arrays have `count` f32 each, share no memory and are used by nobody else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adamw_step(
    options: *const pvera_adamw,
    step: u64,
    count: usize,
    parameters: *mut f32,
    gradients: *const f32,
    first_moments: *mut f32,
    second_moments: *mut f32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let given = unsafe { input::required(options)? };
        let arrays = [
            ("parameters", parameters.cast_const()),
            ("gradients", gradients),
            ("first_moments", first_moments.cast_const()),
            ("second_moments", second_moments.cast_const()),
        ];
        input::apart(count, &arrays)?;
        // SAFETY: as above.
        let gradients = unsafe { input::array("gradients", gradients, count)? };
        // SAFETY: as above.
        let (parameters, first, second) = unsafe {
            (
                input::array_mut("parameters", parameters, count)?,
                input::array_mut("first_moments", first_moments, count)?,
                input::array_mut("second_moments", second_moments, count)?,
            )
        };
        let pvera_adamw { learning_rate, beta1, beta2, epsilon, weight_decay, .. } = given;
        let options = AdamW { learning_rate, beta1, beta2, epsilon, weight_decay };
        adamw_step(&options, step, parameters, gradients, first, second)
    })
}
