//! `pvera_store`: the frozen random pair A and B.

use std::ffi::c_char;
use std::sync::Arc;

use super::context::{pvera_allocator, pvera_callbacks};
use super::error::pvera_error;
use super::handle::{self, borrow, output};
use super::input::{self, Sized_};
use super::matrix::{lent, optional_dtype, pvera_dtype, pvera_matrix, written_dtype};
use super::{guard, matrix};
use crate::adapter::{read_store, store_from_memory};
use crate::backend::cpu::Uses;
use crate::config::Method;
use crate::error::Result;
use crate::fail;
use crate::memory::Allocator;
use crate::projection::{Frozen, Rounding, Size, Store};
use crate::tensor::Dtype;

/// What packing is for, as bits: forward, sample, moments and latent.
pub const PVERA_PACK_FORWARD: u32 = 1;
/// Backward, with the forward that it recomputes left to PVERA_PACK_FORWARD.
pub const PVERA_PACK_BACKWARD: u32 = 2;

/// As PEFT draws them; the default.
pub const PVERA_GRID_NONE: i32 = 0;
/// For new adapters: the draw rounded to integers from −127 to 127 times one factor for A and one for B. Packed, a value
/// takes one byte and loses nothing (but in stores of a few thousand values, which may miss the largest integer), so that A
/// and B of a wide model stay in caches. No key of PEFT draws such a
/// store: save_projection of its adapters is true, and PEFT reads A and B from the checkpoint.
pub const PVERA_GRID_INT8: i32 = 1;

/// The pair `A [2r, in_max]` and `B [out_max, r]` that all layers share: a layer uses `A[:, :in]` and `B[:out, :]`.
/// That of VeRA adapters has `A [r, in_max]`; shapes tell the two apart. Immutable and reference counted: a clone is
/// the same store. May be used by many threads.
pub struct pvera_store(pub(super) Arc<Store>);

/// How large a store drawn from a key is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_store_options {
    /// sizeof(pvera_store_options).
    pub struct_size: usize,
    /// Rank r of the pair.
    pub rank: usize,
    /// The largest in_features over all adapted layers of the whole model.
    pub in_max: usize,
    /// The same of out_features.
    pub out_max: usize,
    /// Element type of the base model: PEFT casts A and B to it first, and so does the draw. Zero: f32, no rounding.
    pub base_dtype: pvera_dtype,
    /// For A and B.
    pub allocator: pvera_allocator,
    /// `PVERA_GRID_…`.
    pub grid: i32,
    /// Zero, which is checked. (Fills the struct.)
    pub reserved: u32,
    /// Progress is told while the store is drawn (stage "draw projections"); a result other than 0 stops it with
    /// PVERA_ERROR_CANCELLED. For the time of the call.
    pub callbacks: pvera_callbacks,
}

// SAFETY: integers, pointers and optional functions; the size comes first.
unsafe impl Sized_ for pvera_store_options {
    const NAME: &'static str = "options";
}

/// The host's allocator, or the library's own for NULL.
///
/// # Safety
/// `allocator` is NULL or an allocator.
unsafe fn optional(allocator: *const pvera_allocator) -> Result<Allocator> {
    // SAFETY: the caller's promise.
    unsafe { allocator.as_ref() }.map_or(Ok(Allocator::default()), |given| given.checked("allocator"))
}

/// How projections were rounded, as options would ask for it; zero for those that no key draws.
pub(super) fn written_rounding(drawn: Option<Rounding>) -> (pvera_dtype, i32) {
    match drawn {
        Some(Rounding::To(dtype)) => (written_dtype(dtype), PVERA_GRID_NONE),
        Some(Rounding::Int8Grid) => (written_dtype(Dtype::F32), PVERA_GRID_INT8),
        None => (pvera_dtype::default(), PVERA_GRID_NONE),
    }
}

/// Draws the store of a `projection_prng_key`, bit for bit what PEFT draws with PyTorch's CPU generator (with a grid:
/// that, rounded). It serves PVeRA adapters; `pvera_adapter_new` and a load draw VeRA's. `options.callbacks` may stop it.
///
/// # Safety
/// `options` is sized options; `store` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_from_key(
    key: u64,
    options: *const pvera_store_options,
    store: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (options, out) = unsafe { (input::required(options)?, output("store", store)?) };
        if options.rank == 0 || options.in_max == 0 || options.out_max == 0 {
            fail!(
                Argument,
                "options.rank, in_max and out_max are {}, {} and {}; wanted at least 1 each",
                options.rank,
                options.in_max,
                options.out_max
            );
        }
        let method = Method::Pvera;
        let size = Size { method, rank: options.rank, in_max: options.in_max, out_max: options.out_max };
        let round_to = optional_dtype("options.base_dtype", options.base_dtype)?.unwrap_or(Dtype::F32);
        let rounding = match (options.grid, round_to) {
            (PVERA_GRID_NONE, _) => Rounding::To(round_to),
            (PVERA_GRID_INT8, Dtype::F32) => Rounding::Int8Grid,
            (PVERA_GRID_INT8, _) => fail!(
                Argument,
                "options.grid is PVERA_GRID_INT8 and options.base_dtype is {}; values are rounded once, so wanted one of them",
                round_to.name()
            ),
            (other, _) => {
                fail!(Argument, "options.grid is {other}; wanted PVERA_GRID_NONE (0) or PVERA_GRID_INT8 (1)")
            }
        };
        input::reserved("options.reserved", options.reserved)?;
        let allocator = options.allocator.checked("options.allocator")?;
        let listener = options.callbacks.listener();
        let own =
            Store::from_key_watched(&allocator, key, size, rounding, &mut |drawn, total| listener.drawn(drawn, total))?;
        out.write(handle::give(pvera_store(Arc::new(own)))?);
        Ok(())
    })
}

/// A store of given matrices `a [2r, in_max]` (for VeRA `[r, in_max]`) and `b [out_max, r]`, which are copied.
///
/// # Safety
/// `a` and `b` are matrices, `allocator` is NULL or an allocator, `store` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_from_matrices(
    a: *const pvera_matrix,
    b: *const pvera_matrix,
    allocator: *const pvera_allocator,
    store: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (a, b, out) =
            unsafe { (matrix::read_on_host("a", a)?, matrix::read_on_host("b", b)?, output("store", store)?) };
        // SAFETY: as above.
        let allocator = unsafe { optional(allocator)? };
        let saved_dtype = a.dtype();
        let own = Store::new(Frozen::copied(&allocator, &a)?, Frozen::copied(&allocator, &b)?, saved_dtype)?;
        out.write(handle::give(pvera_store(Arc::new(own)))?);
        Ok(())
    })
}

/// The projections of a safetensors file that holds `base_model.pvera_A` and `base_model.pvera_B`, or those of VeRA,
/// `base_model.vera_A` and `base_model.vera_B`. With `map` the file is mapped instead of read; it must then stay as it
/// is while the store lives. `allocator` (NULL: the library's own) gives what A and B take outside the map; it must
/// live as long as the store.
///
/// # Safety
/// `path` is a text; `allocator` is NULL or an allocator; `store` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_from_file(
    path: *const c_char,
    map: bool,
    allocator: *const pvera_allocator,
    store: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (path, out) = unsafe { (input::path("path", path)?, output("store", store)?) };
        // SAFETY: as above.
        let allocator = unsafe { optional(allocator)? };
        out.write(handle::give(pvera_store(Arc::new(read_store(path, map, &allocator)?)))?);
        Ok(())
    })
}

/// The projections of a safetensors file in memory, `size` bytes, which are copied. `allocator` (NULL: the library's own)
/// is as for `pvera_store_from_file`.
///
/// # Safety
/// `bytes` points to `size` bytes; `allocator` is NULL or an allocator; `store` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_from_memory(
    bytes: *const u8,
    size: usize,
    allocator: *const pvera_allocator,
    store: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bytes, out) = unsafe { (input::array("bytes", bytes, size)?, output("store", store)?) };
        // SAFETY: as above.
        let allocator = unsafe { optional(allocator)? };
        out.write(handle::give(pvera_store(Arc::new(store_from_memory(bytes, &allocator)?)))?);
        Ok(())
    })
}

/// Another handle on the same store.
///
/// # Safety
/// `store` is a store; `clone` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_clone(
    store: *const pvera_store,
    clone: *mut *mut pvera_store,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (store, out) = unsafe { (borrow("store", store)?, output("clone", clone)?) };
        out.write(handle::give(pvera_store(store.0.clone()))?);
        Ok(())
    })
}

/// Frees a handle; the store goes with its last one. NULL is nothing.
///
/// # Safety
/// `store` is NULL or an owned store, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_free(store: *mut pvera_store) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(store) });
}

/// A and B as they are held: read only, valid while a handle on the store lives. Both keep their values in 16 bits where
/// that loses nothing, so look at the dtype. Shapes give rank, in_max and out_max.
///
/// # Safety
/// `store` is a store; `a` and `b` are places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_matrices(
    store: *const pvera_store,
    a: *mut pvera_matrix,
    b: *mut pvera_matrix,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (store, a, b) = unsafe { (borrow("store", store)?, output("a", a)?, output("b", b)?) };
        a.write(lent(&store.0.a().matrix()));
        b.write(lent(&store.0.b().matrix()));
        Ok(())
    })
}

/// Whether two stores hold the same values, whatever their origin and element type.
///
/// # Safety
/// `first` and `second` are stores; `equal` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_equal(
    first: *const pvera_store,
    second: *const pvera_store,
    equal: *mut bool,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (first, second, out) =
            unsafe { (borrow("first", first)?, borrow("second", second)?, output("equal", equal)?) };
        out.write(Arc::ptr_eq(&first.0, &second.0) || first.0.same_values(&second.0));
        Ok(())
    })
}

/// Packs A and B now for the kernels, for `uses` (`PVERA_PACK_…`); otherwise each form is packed when a call first needs
/// it. All layers and adapters of the store share the packed forms, which hold their values in the fewest bits that lose
/// nothing (int8, f16, bf16 or f32).
///
/// # Safety
/// `store` is a store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_pack(store: *const pvera_store, uses: u32) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let store = unsafe { borrow("store", store)? };
        store.0.pack(packing_uses(uses)?)
    })
}

/// Bytes that the packed forms for `uses` take or would take. They are kept beside A and B as they were given.
///
/// # Safety
/// `store` is a store; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_packed_bytes(
    store: *const pvera_store,
    uses: u32,
    bytes: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (store, out) = unsafe { (borrow("store", store)?, output("bytes", bytes)?) };
        out.write(store.0.packed_bytes(packing_uses(uses)?)?);
        Ok(())
    })
}

/// What packing is for.
pub(super) fn packing_uses(uses: u32) -> Result<Uses> {
    if uses == 0 || uses > (PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD) {
        fail!(Argument, "uses is {uses}; wanted PVERA_PACK_FORWARD (1), PVERA_PACK_BACKWARD (2), or both (3)");
    }
    Ok(Uses { forward: uses & PVERA_PACK_FORWARD != 0, backward: uses & PVERA_PACK_BACKWARD != 0 })
}

/// Bytes that A and B take, packed forms included as far as they are made.
///
/// # Safety
/// `store` is a store; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_store_bytes(store: *const pvera_store, bytes: *mut usize) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (store, out) = unsafe { (borrow("store", store)?, output("bytes", bytes)?) };
        out.write(store.0.bytes());
        Ok(())
    })
}
