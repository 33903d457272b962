//! `pvera_model`: the host's layers, and the adapters published under names.

use std::ffi::c_char;
use std::sync::Arc;

use super::adapter::pvera_adapter;
use super::context::{pvera_allocator, pvera_callbacks};
use super::error::pvera_error;
use super::handle::{self, borrow, output, write_if_wanted};
use super::input::{self, Sized_};
use super::matrix::{self, pvera_matrix};
use super::{guard, snapshot};
use crate::error::Result;
use crate::fail;
use crate::model::{Layer, Model, WeightLayout};

/// `[out_features, in_features]`, as torch.nn.Linear.
pub const PVERA_WEIGHT_OUT_IN: i32 = 0;
/// `[in_features, out_features]`, as GPT-2's Conv1D.
pub const PVERA_WEIGHT_IN_OUT: i32 = 1;

/// A linear layer of the host, or this program's shard of one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_layer {
    /// sizeof(pvera_layer).
    pub struct_size: usize,
    /// Module path as in the checkpoint: "model.layers.0.self_attn.q_proj". Noise is keyed by it. Copied.
    pub name: *const c_char,
    /// Columns of x, of this shard.
    ///
    /// Fewer than in_total make a part of p. Forwards in mean mode add up over the shards, and so do their tapes' gradients of
    /// lambda_d (a bias goes to one shard). What needs the latents' variance cannot be had from a part and is
    /// PVERA_ERROR_UNSUPPORTED: another mode, pvera_sample, pvera_moments, pvera_latent, the divergence, first-order
    /// variance. Such forwards go by pvera_project, the sum of p over the shards, and pvera_expand.
    pub in_features: usize,
    /// Columns of y, of this shard.
    pub out_features: usize,
    /// Where the shard's inputs begin in the whole layer.
    pub in_offset: usize,
    /// Where its outputs begin.
    pub out_offset: usize,
    /// Inputs of the whole layer; 0: in_offset + in_features.
    pub in_total: usize,
    /// Outputs of the whole layer; 0: out_offset + out_features.
    pub out_total: usize,
    /// Optional base weight, borrowed: it stays alive and unchanged as long as the model (or standalone linear) and all
    /// that was made from it. Without one, forward adds the delta to what y holds. A view of a fused weight is fine.
    pub weight: pvera_matrix,
    /// `PVERA_WEIGHT_…`.
    pub weight_layout: i32,
    /// 0 or 1 (as any other number): whether this is the model's output head, which "all-linear" leaves out.
    pub output_head: u8,
    /// Optional base bias `[1, out_features]`, borrowed like the weight. Needed beside a foreign base only where an adapter
    /// learned a bias, which takes its place.
    pub bias: pvera_matrix,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_layer {
    const NAME: &'static str = "layer";
}

impl pvera_layer {
    /// # Safety
    /// `given` is sized, its name a text, its matrices borrowed for the life of the result.
    pub(super) unsafe fn read(given: *const pvera_layer) -> Result<Layer> {
        // SAFETY: the caller's promise.
        unsafe {
            let own = input::required(given)?;
            let layout = match own.weight_layout {
                PVERA_WEIGHT_OUT_IN => WeightLayout::OutIn,
                PVERA_WEIGHT_IN_OUT => WeightLayout::InOut,
                other => fail!(
                    Argument,
                    "layer.weight_layout is {other}; wanted PVERA_WEIGHT_OUT_IN (0) or PVERA_WEIGHT_IN_OUT (1)"
                ),
            };
            let total = |given: usize, offset: usize, features: usize| {
                if given == 0 { offset.saturating_add(features) } else { given }
            };
            Ok(Layer {
                name: input::text("layer.name", own.name)?.to_owned(),
                in_features: own.in_features,
                out_features: own.out_features,
                in_offset: own.in_offset,
                out_offset: own.out_offset,
                in_total: total(own.in_total, own.in_offset, own.in_features),
                out_total: total(own.out_total, own.out_offset, own.out_features),
                weight: matrix::optional("layer.weight", &own.weight)?.map(|weight| (weight, layout)),
                bias: matrix::optional("layer.bias", &own.bias)?,
                output_head: own.output_head != 0,
            })
        }
    }
}

/// What a model is given by its host. Zero: the process's memory, no callbacks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_model_options {
    /// sizeof(pvera_model_options).
    pub struct_size: usize,
    /// For stores and adapters.
    pub allocator: pvera_allocator,
    /// They hear of warnings and of progress wherever an adapter of the model is loaded or made.
    pub callbacks: pvera_callbacks,
}

// SAFETY: integers, pointers and optional functions; the size comes first.
unsafe impl Sized_ for pvera_model_options {
    const NAME: &'static str = "options";
}

/// The layers of one network and the adapters published for it. May be used by many threads; publishing never waits for a
/// running pass, because a pass holds a snapshot.
pub struct pvera_model(pub(super) Arc<Model>);

/// A model without layers. `options` may be NULL.
///
/// # Safety
/// `options` is NULL or sized options; `model` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_new(
    options: *const pvera_model_options,
    model: *mut *mut pvera_model,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (options, out) = unsafe { (input::sized(options)?, output("model", model)?) };
        let own = Model::new(options.allocator.checked("options.allocator")?, options.callbacks.listener());
        out.write(handle::give(pvera_model(Arc::new(own)))?);
        Ok(())
    })
}

/// Declares a layer. Layers are numbered in the order of declaration, from 0; `number` (may be NULL) gets this one's. All
/// are declared before the first adapter or snapshot is made.
///
/// # Safety
/// `model` is a model, `layer` a sized layer, `number` NULL or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_declare(
    model: *const pvera_model,
    layer: *const pvera_layer,
    number: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, layer) = unsafe { (borrow("model", model)?, pvera_layer::read(layer)?) };
        let declared = model.0.declare(layer)?;
        // SAFETY: as above.
        unsafe { write_if_wanted(number, declared) };
        Ok(())
    })
}

/// The number of the layer of that name.
///
/// # Safety
/// `model` is a model, `name` a text, `number` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_find_layer(
    model: *const pvera_model,
    name: *const c_char,
    number: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, name, out) =
            unsafe { (borrow("model", model)?, input::text("name", name)?, output("number", number)?) };
        out.write(model.0.layers().find(name)?);
        Ok(())
    })
}

/// Publishes an adapter under a new name; `slot` (may be NULL) gets its number, which stays while the name is published.
/// The model holds a reference of its own. A trainable adapter is copied as it is now.
///
/// # Safety
/// `model` is a model, `name` a text, `adapter` an adapter made for this model, `slot` NULL or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_publish(
    model: *const pvera_model,
    name: *const c_char,
    adapter: *const pvera_adapter,
    slot: *mut i32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, name, adapter) =
            unsafe { (borrow("model", model)?, input::text("name", name)?, borrow("adapter", adapter)?) };
        let number = model.0.publish(name, adapter.0.clone())?;
        // SAFETY: as above.
        unsafe { write_if_wanted(slot, number) };
        Ok(())
    })
}

/// Puts an adapter in the place of the one published under that name; the slot stays. Snapshots taken before keep the old
/// one, whose memory goes with the last of them.
///
/// # Safety
/// As for `pvera_model_publish`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_replace(
    model: *const pvera_model,
    name: *const c_char,
    adapter: *const pvera_adapter,
    slot: *mut i32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, name, adapter) =
            unsafe { (borrow("model", model)?, input::text("name", name)?, borrow("adapter", adapter)?) };
        let number = model.0.replace(name, adapter.0.clone())?;
        // SAFETY: as above.
        unsafe { write_if_wanted(slot, number) };
        Ok(())
    })
}

/// Takes an adapter out. Its slot is free for the next one published.
///
/// # Safety
/// `model` is a model, `name` a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_remove(model: *const pvera_model, name: *const c_char) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, name) = unsafe { (borrow("model", model)?, input::text("name", name)?) };
        model.0.remove(name)
    })
}

/// A view of the adapters as they are now, for one pass over the network.
///
/// # Safety
/// `model` is a model; `snapshot` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_snapshot(
    model: *const pvera_model,
    snapshot: *mut *mut snapshot::pvera_snapshot,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, out) = unsafe { (borrow("model", model)?, output("snapshot", snapshot)?) };
        out.write(handle::give(snapshot::pvera_snapshot::new(model.0.snapshot()?)?)?);
        Ok(())
    })
}

/// Frees a model; NULL is nothing. Its adapters and snapshots live on.
///
/// # Safety
/// `model` is NULL or an owned model, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_free(model: *mut pvera_model) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(model) });
}
