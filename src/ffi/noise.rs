//! Normals: the library's own by key, and PyTorch's for parity.

use std::ffi::c_char;

use super::error::pvera_error;
use super::handle::{self, borrow_mut, output};
use super::{guard, input};
use crate::noise::{NormalKey, TorchGenerator, adapter_identity, layer_hash};

/// PyTorch's CPU generator: consecutive tensors continue one stream, as `torch.randn` does.
pub struct pvera_torch_generator(TorchGenerator);

/// `torch.Generator().manual_seed(seed)`.
///
/// # Safety
/// `generator` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_torch_generator_new(
    seed: u64,
    generator: *mut *mut pvera_torch_generator,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output("generator", generator)? };
        out.write(handle::give(pvera_torch_generator(TorchGenerator::new(seed)))?);
        Ok(())
    })
}

/// Fills `values [count]` with the standard normals that PyTorch puts into a contiguous f32 CPU tensor of `count` elements:
/// what PEFT's `generator_seed` draws. The last place may differ, by the platform's logarithm and cosine.
///
/// # Safety
/// `generator` is a generator that nobody else uses; `values` points to `count` f32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_torch_generator_normals(
    generator: *mut pvera_torch_generator,
    count: usize,
    values: *mut f32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (generator, values) =
            unsafe { (borrow_mut("generator", generator)?, input::array_mut("values", values, count)?) };
        generator.0.normals(values);
        Ok(())
    })
}

/// Frees a generator; NULL is nothing.
///
/// # Safety
/// `generator` is NULL or an owned generator, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_torch_generator_free(generator: *mut pvera_torch_generator) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(generator) });
}

/// The number under which an adapter published as `name` draws its noise.
///
/// # Safety
/// `name` is a text; `identity` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_identity(name: *const c_char, identity: *mut u64) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (name, out) = unsafe { (input::text("name", name)?, output("identity", identity)?) };
        out.write(adapter_identity(name));
        Ok(())
    })
}

/// The keyed normals that a sampled forward uses: eps of latents 0 … count − 1 of one row, for this seed, layer name,
/// adapter number (`pvera_adapter_identity`), row identity and sample number. The same bits on every machine.
///
/// # Safety
/// `layer` is a text; `values` points to `count` f32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_keyed_normals(
    seed: u64,
    layer: *const c_char,
    adapter: u64,
    identity: u64,
    sample: u32,
    antithetic: bool,
    count: usize,
    values: *mut f32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (layer, values) = unsafe { (input::text("layer", layer)?, input::array_mut("values", values, count)?) };
        NormalKey::new(seed, layer_hash(layer), adapter).fill(identity, sample, antithetic, values);
        Ok(())
    })
}
