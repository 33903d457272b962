//! `pvera_linear`: an adapted layer, of a snapshot, of one adapter, or standalone on a store.

use std::sync::Arc;

use super::adapter::pvera_adapter;
use super::config::pvera_config;
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output};
use super::input::{self, Sized_};
use super::matrix::{self, pvera_device};
use super::model::pvera_layer;
use super::store::{packing_uses, pvera_store};
use crate::adapter::{Adapter, Apart};
use crate::config::Config;
use crate::linear::Linear;

/// A layer and the adapters that may run on it. Immutable; may be used by many threads, as far as the parameters behind it
/// are not written meanwhile.
pub struct pvera_linear(pub(super) Linear);

/// The vectors of a standalone layer, borrowed: they are read at every call, where they lie, and stay as long as the linear.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_linear_vectors {
    /// sizeof(pvera_linear_vectors).
    pub struct_size: usize,
    /// `[out_total]` f32.
    pub lambda_b: *const f32,
    /// `[2r]` f32; `[r]` on a store of VeRA.
    pub lambda_d: *const f32,
    /// `[out_total]` f32, a learned bias that takes the place of the layer's; or NULL.
    pub bias: *const f32,
    /// The number under which noise is drawn; 0: a hash of "default".
    pub identity: u64,
    /// Where the vectors lie; zero: on the CPU.
    pub device: pvera_device,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_linear_vectors {
    const NAME: &'static str = "vectors";
}

/// A standalone layer on a store, for hosts that keep the vectors themselves (a tensor library's autograd function). Its
/// one adapter is slot 0. `config` gives alpha, dropout, logvar_bound and sample_at_inference; with NULL rank and peft_type
/// are the store's and the rest PEFT's defaults.
///
/// # Safety
/// `layer` and `vectors` are sized, with what they point to; `store` is a store, `config` NULL or a config, `linear` a
/// place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_linear_new(
    layer: *const pvera_layer,
    store: *const pvera_store,
    config: *const pvera_config,
    vectors: *const pvera_linear_vectors,
    linear: *mut *mut pvera_linear,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (layer, store, out) =
            unsafe { (pvera_layer::read(layer)?, borrow("store", store)?, output("linear", linear)?) };
        // SAFETY: as above.
        let vectors = unsafe { input::required(vectors)? };
        // SAFETY: as above.
        let config = match unsafe { config.as_ref() } {
            Some(config) => config.0.clone(),
            None => Config { method: store.0.method(), rank: store.0.rank(), ..Config::default() },
        };
        let apart = Apart {
            lambda_b: vectors.lambda_b,
            lambda_d: vectors.lambda_d,
            bias: vectors.bias,
            identity: (vectors.identity != 0).then_some(vectors.identity),
            device: matrix::device("vectors.device", vectors.device)?,
        };
        // SAFETY: as above.
        let adapter = unsafe { Adapter::standalone(layer, &config, store.0.clone(), &apart)? };
        out.write(handle::give(pvera_linear(Linear::single(Arc::new(adapter), 0)))?);
        Ok(())
    })
}

/// One layer of one adapter, in slot 0, with the adapter's live parameters: for training. The adapter lives on in it.
///
/// # Safety
/// `adapter` is an adapter; `linear` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_linear(
    adapter: *const pvera_adapter,
    layer: usize,
    linear: *mut *mut pvera_linear,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("linear", linear)?) };
        adapter.0.layers().get(layer)?;
        adapter.0.check_biases()?;
        out.write(handle::give(pvera_linear(Linear::single(adapter.0.clone(), layer)))?);
        Ok(())
    })
}

/// Packs the layer's base weight for `uses` (`PVERA_PACK_…`): its products are then faster, for one row by as much as two to
/// three times. Nothing else changes, no bit either. The packed form takes about as much memory as the weight, once for each use, lives
/// as long as the layer's declaration, serves every linear of the layer, and is not made anew when the weight changes. May
/// run beside other calls.
///
/// # Safety
/// `linear` is a linear.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_linear_pack_base(linear: *const pvera_linear, uses: u32) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let linear = unsafe { borrow("linear", linear)? };
        linear.0.pack_base(packing_uses(uses)?)
    })
}

/// Bytes that the base weight's packed forms for `uses` take or would take.
///
/// # Safety
/// `linear` is a linear; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_linear_packed_base_bytes(
    linear: *const pvera_linear,
    uses: u32,
    bytes: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (linear, out) = unsafe { (borrow("linear", linear)?, output("bytes", bytes)?) };
        out.write(linear.0.packed_base_bytes(packing_uses(uses)?)?);
        Ok(())
    })
}

/// Frees a linear made by `pvera_linear_new` or `pvera_adapter_linear`; NULL is nothing. Those of a snapshot are const and
/// not freed.
///
/// # Safety
/// `linear` is NULL or an owned linear, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_linear_free(linear: *mut pvera_linear) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(linear) });
}
