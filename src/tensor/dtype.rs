//! The three element types, and how they widen to f32 and round back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// An element type. Everything is computed in f32 (or f64 in the reference) whatever the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Widens `out.len()` elements from element `start` on. Exact.
    ///
    /// # Safety
    /// `data` is aligned for the type and holds these elements.
    pub unsafe fn widen(self, data: *const u8, start: usize, out: &mut [f32]) {
        // SAFETY: the caller's promise, in each arm.
        unsafe {
            match self {
                Dtype::F32 => out.copy_from_slice(std::slice::from_raw_parts(data.cast::<f32>().add(start), out.len())),
                Dtype::F16 => {
                    std::slice::from_raw_parts(data.cast::<f16>().add(start), out.len()).convert_to_f32_slice(out)
                }
                Dtype::Bf16 => {
                    let bits = std::slice::from_raw_parts(data.cast::<u16>().add(start), out.len());
                    out.iter_mut().zip(bits).for_each(|(out, bits)| *out = f32::from_bits(u32::from(*bits) << 16));
                }
            }
        }
    }

    /// Rounds values to nearest even, once.
    ///
    /// # Safety
    /// `data` is aligned for the type, holds these elements, and is not accessed otherwise now.
    pub unsafe fn narrow(self, values: &[f32], data: *mut u8, start: usize) {
        // SAFETY: the caller's promise, in each arm.
        unsafe {
            match self {
                Dtype::F32 => {
                    std::slice::from_raw_parts_mut(data.cast::<f32>().add(start), values.len()).copy_from_slice(values);
                }
                Dtype::F16 => {
                    std::slice::from_raw_parts_mut(data.cast::<f16>().add(start), values.len())
                        .convert_from_f32_slice(values);
                }
                Dtype::Bf16 => {
                    let bits = std::slice::from_raw_parts_mut(data.cast::<u16>().add(start), values.len());
                    bits.iter_mut().zip(values).for_each(|(bits, value)| *bits = bf16_bits(*value));
                }
            }
        }
    }

    /// The value as this type holds it, widened again.
    pub fn rounded(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::F16 => f16::from_f32(value).to_f32(),
            Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// The bf16 nearest to a value, ties to even; a NaN stays one. Without a branch, so that loops over it are vectorised.
#[inline(always)]
pub fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
    (bits >> 16) as u16
}
