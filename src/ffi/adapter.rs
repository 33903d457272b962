//! `pvera_adapter`: one adapter, loaded or in training.

use std::ffi::c_char;
use std::sync::Arc;

use super::bytes::pvera_bytes;
use super::config::pvera_config;
use super::context::pvera_context;
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output, write_if_wanted};
use super::input::{self, Sized_};
use super::matrix::{optional_dtype, pvera_dtype};
use super::model::pvera_model;
use super::store::pvera_store;
use crate::adapter::{Adapter, LoadOptions, Span};
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::Allocator;

/// One adapter: config, store, and two vectors for every layer that it adapts.
///
/// Immutable and usable by many threads, unless it is trainable (made by `pvera_adapter_new` or `pvera_adapter_trainable`):
/// then its parameters are written by its owner, between calls.
pub struct pvera_adapter(pub(super) Arc<Adapter>);

/// What a checkpoint's files do not say. Zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_adapter_options {
    /// sizeof(pvera_adapter_options).
    pub struct_size: usize,
    /// The largest in_features over all adapted layers of the whole model: needed where this program
    /// declares only some of them and the projections come from the key. 0: the largest declared ones.
    pub in_max: usize,
    /// The same of out_features.
    pub out_max: usize,
    /// Element type of the base model, to which projections from the key are rounded, as PEFT does. Zero: f32.
    pub base_dtype: pvera_dtype,
    /// 0 or 1 (as any other number): carry the vectors of layers that are not declared here along, instead of refusing them.
    pub ignore_undeclared: u8,
    /// 0 or 1 (as any other number): map the tensor file instead of reading it; it must then stay as it is while the adapter
    /// lives.
    pub map_file: u8,
    /// The number under which the adapter draws its noise; 0: a hash of the name it is published under ("default" while it
    /// is not published). Checkpoints do not hold it: to draw the same noise again, publish under the same name or give the
    /// same number.
    pub identity: u64,
}

// SAFETY: integers; the size comes first.
unsafe impl Sized_ for pvera_adapter_options {
    const NAME: &'static str = "options";
}

/// Where one layer's vectors lie among an adapter's parameters: first element and count of each. Vectors are whole, also
/// where the layer is a shard. `bias_count` is 0 where no bias is learned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pvera_parameter_range {
    /// First element of `[out_total]`.
    pub lambda_b: usize,
    /// out_total.
    pub lambda_b_count: usize,
    /// First element of `[2r]`; `[r]` for VeRA.
    pub lambda_d: usize,
    /// 2r, or r.
    pub lambda_d_count: usize,
    /// First element of `[out_total]`, where a bias is learned.
    pub bias: usize,
    /// out_total, or 0.
    pub bias_count: usize,
}

/// # Safety
/// `options` is NULL or sized options.
unsafe fn read_options(options: *const pvera_adapter_options) -> Result<LoadOptions> {
    // SAFETY: the caller's promise.
    let given = unsafe { input::sized(options)? };
    let positive = |value: usize| (value > 0).then_some(value);
    Ok(LoadOptions {
        in_max: positive(given.in_max),
        out_max: positive(given.out_max),
        base_dtype: optional_dtype("options.base_dtype", given.base_dtype)?,
        ignore_undeclared: given.ignore_undeclared != 0,
        map: given.map_file != 0,
        identity: (given.identity != 0).then_some(given.identity),
    })
}

/// Loads a PEFT checkpoint folder (`adapter_config.json`, `adapter_model.safetensors`) for the layers of a model. Stores of
/// equal values are shared inside the model.
///
/// A layer whose vectors are in the file although the config does not target it is adapted, with a warning that names it.
///
/// Errors name the file, the tensor, what it holds and what was wanted. A folder that `pvera_adapter_save` replaces
/// meanwhile gives the old adapter or the new one.
///
/// # Safety
/// `model` is a model, `folder` a text, `options` NULL or sized options, `adapter` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_load(
    model: *const pvera_model,
    folder: *const c_char,
    options: *const pvera_adapter_options,
    adapter: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, folder) = unsafe { (borrow("model", model)?, input::path("folder", folder)?) };
        // SAFETY: as above.
        let (options, out) = unsafe { (read_options(options)?, output("adapter", adapter)?) };
        let own = Adapter::load(&model.0, folder, &options)?;
        out.write(handle::give(pvera_adapter(Arc::new(own)))?);
        Ok(())
    })
}

/// Loads a PEFT checkpoint from memory: the bytes of its two files, which are copied.
///
/// # Safety
/// `config` and `tensors` point to that many bytes; the rest is as for `pvera_adapter_load`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_load_memory(
    model: *const pvera_model,
    config: *const u8,
    config_size: usize,
    tensors: *const u8,
    tensors_size: usize,
    options: *const pvera_adapter_options,
    adapter: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, config) = unsafe { (borrow("model", model)?, input::array("config", config, config_size)?) };
        // SAFETY: as above.
        let tensors = unsafe { input::array("tensors", tensors, tensors_size)? };
        // SAFETY: as above.
        let (options, out) = unsafe { (read_options(options)?, output("adapter", adapter)?) };
        let own = Adapter::from_memory(&model.0, config, tensors, &options)?;
        out.write(handle::give(pvera_adapter(Arc::new(own)))?);
        Ok(())
    })
}

/// A new trainable adapter for the declared layers that the config targets: `λ_b = 0`, `λ_d = d_initial`. Projections are
/// those of `store`, or drawn from the config's key when it is NULL.
///
/// # Safety
/// `model` is a model, `config` a config, `store` NULL or a store, `options` NULL or sized options, `adapter` a place for
/// the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_new(
    model: *const pvera_model,
    config: *const pvera_config,
    store: *const pvera_store,
    options: *const pvera_adapter_options,
    adapter: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, config) = unsafe { (borrow("model", model)?, borrow("config", config)?) };
        // SAFETY: as above.
        let (store, options, out) = unsafe { (store.as_ref(), read_options(options)?, output("adapter", adapter)?) };
        let own = Adapter::create(&model.0, &config.0, store.map(|store| store.0.clone()), &options)?;
        out.write(handle::give(pvera_adapter(Arc::new(own)))?);
        Ok(())
    })
}

/// A trainable copy. With `memory`, its parameters live there from now on: `count` f32 (the adapter's number of
/// parameters), which get today's values and outlive the copy and every linear made from it. With NULL (count is then not
/// looked at) it has memory of its own.
///
/// # Safety
/// `adapter` is an adapter, `memory` NULL or `count` f32, `copy` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_trainable(
    adapter: *const pvera_adapter,
    memory: *mut f32,
    count: usize,
    copy: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("copy", copy)?) };
        let own = if memory.is_null() {
            adapter.0.trainable(&Allocator::default())?
        } else {
            // SAFETY: as above.
            unsafe { adapter.0.trainable_in(memory, count)? }
        };
        out.write(handle::give(pvera_adapter(Arc::new(own)))?);
        Ok(())
    })
}

/// A trainable copy whose parameters live in device memory of a CUDA context: `count` f32 at `memory` (the adapter's number
/// of parameters), which get today's values in the order of the context's stream, and outlive the copy and every linear made
/// from it. Waits for that. Calls on the context read them there when the work runs; a save or a publish reads them back,
/// and waits.
///
/// Errors: PVERA_ERROR_UNSUPPORTED for a context of the CPU.
///
/// # Safety
/// `adapter` is an adapter, `context` a context, `memory` `count` f32 on its device, `copy` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_trainable_on(
    adapter: *const pvera_adapter,
    context: *const pvera_context,
    memory: *mut f32,
    count: usize,
    copy: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, context, out) =
            unsafe { (borrow("adapter", adapter)?, borrow("context", context)?, output("copy", copy)?) };
        #[cfg(feature = "cuda")]
        if let Some(device) = context.0.cuda() {
            // SAFETY: as above.
            let own = unsafe { adapter.0.trainable_on(device, memory, count)? };
            out.write(handle::give(pvera_adapter(Arc::new(own)))?);
            return Ok(());
        }
        let _ = (adapter, memory, count, out);
        fail!(
            Unsupported,
            "the context computes on {}; wanted one of PVERA_BACKEND_CUDA, or pvera_adapter_trainable",
            context.0.place()
        )
    })
}

/// One adapter in the place of a weighted sum of count adapters: the one whose mean delta is nearest to
/// Σ weights[i] · delta of adapters[i]. They are of one model and one store, adapt the same layers, and neither learned biases
/// nor carry other tensors; config and layers are those of the first, with alpha multiplied into λ_b.
///
/// Of a layer, Σ wᵢ λ_bᵢ λ_dᵢᵀ (mu halves) is replaced by its largest singular pair. error (may be NULL) gets how far that
/// is: the largest, over layers, of the relative Frobenius norm of the rest. It is 0 where the adapters share λ_d, or λ_b,
/// up to a factor. The exact sum is run by `pvera_rows.active`, at the price of one latent for each adapter.
///
/// **The variance** is not that of the sum. There, noises are independent and variances add, Σ wᵢ² Varᵢ. Here one latent is
/// drawn, with a logvar half that is the mean of the adapters' weighted by |wᵢ|: of equal adapters with weights that add up
/// to 1 it is the variance of one of them.
///
/// # Safety
/// `adapters` points to `count` adapters, not written meanwhile, `weights` to `count` numbers; `error` is NULL or a place, and
/// `combined` a place, for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_combine(
    count: usize,
    adapters: *const *const pvera_adapter,
    weights: *const f64,
    error: *mut f64,
    combined: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapters, weights) =
            unsafe { (input::array("adapters", adapters, count)?, input::array("weights", weights, count)?) };
        // SAFETY: as above.
        let out = unsafe { output("combined", combined)? };
        let mut list: Vec<(&Adapter, f64)> = Vec::new();
        list.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
        for (place, (adapter, weight)) in adapters.iter().zip(weights).enumerate() {
            // SAFETY: as above.
            list.push((unsafe { &borrow(&format!("adapters[{place}]"), *adapter)?.0 }, *weight));
        }
        let (own, rest) = Adapter::combined(&list, &Allocator::default())?;
        let own = handle::give(pvera_adapter(Arc::new(own)))?;
        // SAFETY: as above.
        unsafe { write_if_wanted(error, rest) };
        out.write(own);
        Ok(())
    })
}

/// Another handle on the same adapter.
///
/// # Safety
/// `adapter` is an adapter; `clone` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_clone(
    adapter: *const pvera_adapter,
    clone: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("clone", clone)?) };
        out.write(handle::give(pvera_adapter(adapter.0.clone()))?);
        Ok(())
    })
}

/// Frees a handle; the adapter goes with its last one, the model's and the linears' included. NULL is nothing.
///
/// # Safety
/// `adapter` is NULL or an owned adapter, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_free(adapter: *mut pvera_adapter) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(adapter) });
}

/// The live parameters of a trainable adapter, to be written between calls: one flat array of every adapted layer's λ_b,
/// λ_d and learned bias (see `pvera_adapter_range`). Valid as long as the adapter. Of `pvera_adapter_trainable_on` it is the
/// caller's device memory.
///
/// Error: `PVERA_ERROR_STATE` for an adapter that is not trainable.
///
/// # Safety
/// `adapter` is an adapter; `parameters` and `count` are places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_parameters(
    adapter: *const pvera_adapter,
    parameters: *mut *mut f32,
    count: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, values, length) =
            unsafe { (borrow("adapter", adapter)?, output("parameters", parameters)?, output("count", count)?) };
        values.write(adapter.0.parameters_memory()?);
        length.write(adapter.0.parameters().len());
        Ok(())
    })
}

/// The number of parameters, all layers together.
///
/// # Safety
/// `adapter` is an adapter; `count` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_parameter_count(
    adapter: *const pvera_adapter,
    count: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("count", count)?) };
        out.write(adapter.0.parameters().len());
        Ok(())
    })
}

/// Whether the adapter adapts the layer of that number.
///
/// # Safety
/// `adapter` is an adapter; `adapts` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_adapts(
    adapter: *const pvera_adapter,
    layer: usize,
    adapts: *mut bool,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("adapts", adapts)?) };
        adapter.0.layers().get(layer)?;
        out.write(adapter.0.vectors(layer).is_some());
        Ok(())
    })
}

/// Where a layer's vectors lie among the parameters (and, in the same layout, gradients and optimiser state).
///
/// # Safety
/// `adapter` is an adapter; `range` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_range(
    adapter: *const pvera_adapter,
    layer: usize,
    range: *mut pvera_parameter_range,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("range", range)?) };
        let ranges = adapter.0.ranges(layer)?;
        let bias = ranges.bias.unwrap_or(Span { start: 0, count: 0 });
        out.write(pvera_parameter_range {
            lambda_b: ranges.lambda_b.start,
            lambda_b_count: ranges.lambda_b.count,
            lambda_d: ranges.lambda_d.start,
            lambda_d_count: ranges.lambda_d.count,
            bias: bias.start,
            bias_count: bias.count,
        });
        Ok(())
    })
}

/// A copy of the adapter's config.
///
/// # Safety
/// `adapter` is an adapter; `config` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_config(
    adapter: *const pvera_adapter,
    config: *mut *mut pvera_config,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("config", config)?) };
        out.write(handle::give(pvera_config(adapter.0.config().clone()))?);
        Ok(())
    })
}

/// A handle on the adapter's store.
///
/// # Safety
/// `adapter` is an adapter; `store` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_store(
    adapter: *const pvera_adapter,
    store: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("store", store)?) };
        out.write(handle::give(pvera_store(adapter.0.store().clone()))?);
        Ok(())
    })
}

/// Writes a PEFT checkpoint folder, which PEFT loads with the same outputs. `alpha` is multiplied into λ_b, since PEFT has
/// none: it is 1 after a reload, and `inference_mode` is true. `logvar_bound` is written, but PEFT ignores it: where the
/// bound acts, PEFT's sampled outputs differ. A parameter (or its product with alpha) that is not finite is
/// PVERA_ERROR_OVERFLOW, and nothing is written.
///
/// All or nothing: the files are written beside the folder and take its place in one step. Other files and folders in it
/// are kept. A folder in it that cannot be moved over at once stays beside it, in `.NAME.pvera-…`, and the next save moves it. If
/// the folder is the process's working directory, the process is moved into the new one.
///
/// It calls no callback and cannot be stopped. The files are made in memory, A and B included where save_projection is true; most
/// of the time goes into writing them to the disk, for which the call waits.
///
/// # Safety
/// `adapter` is an adapter, not written meanwhile; `folder` is a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_save(adapter: *const pvera_adapter, folder: *const c_char) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, folder) = unsafe { (borrow("adapter", adapter)?, input::path("folder", folder)?) };
        adapter.0.save(folder)
    })
}

/// The two files of a checkpoint in memory; both are freed with `pvera_bytes_free`. Like a save, it cannot be stopped.
///
/// # Safety
/// `adapter` is an adapter, not written meanwhile; `config` and `tensors` are places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_save_memory(
    adapter: *const pvera_adapter,
    config: *mut pvera_bytes,
    tensors: *mut pvera_bytes,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, config, tensors) =
            unsafe { (borrow("adapter", adapter)?, output("config", config)?, output("tensors", tensors)?) };
        let checkpoint = adapter.0.checkpoint()?;
        config.write(pvera_bytes::give(checkpoint.config));
        tensors.write(pvera_bytes::give(checkpoint.tensors));
        Ok(())
    })
}
