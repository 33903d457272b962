//! Forward (with or without a tape) and backward: the two calls of training, and of everything else.

use std::cell::LazyCell;

use super::compute::{pvera_noise, pvera_rows, read_linears, read_noise, read_rows};
use super::context::{pvera_allocator, pvera_context};
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output};
use super::input::{self, Sized_};
use super::linear::pvera_linear;
use super::matrix::{self, pvera_matrix, pvera_matrix_mut};
use crate::backend::{Kl, Overwrite, PriorGradients};
use crate::error::Result;
use crate::fail;
use crate::linear::{self, Linear, Policy, Request, SlotGradients, Tape, VarianceTarget, Wanted};
use crate::memory::Arena;

/// Keep p: 2r floats a row for each distinct projection. The default.
pub const PVERA_TAPE_KEEP_LATENT: i32 = 0;
/// Keep p and z Bᵀ: out_features floats a row more for each layer. The fastest backward.
pub const PVERA_TAPE_KEEP_DELTA: i32 = 1;
/// Keep nothing but the keys; x stays borrowed until backward.
pub const PVERA_TAPE_RECOMPUTE: i32 = 2;

/// Set dx instead of adding to it; it then need not be initialised. So for the other outputs.
pub const PVERA_OVERWRITE_DX: u32 = 1;
/// Set the gradients of lambda_b.
pub const PVERA_OVERWRITE_LAMBDA_B: u32 = 2;
/// Set the gradients of lambda_d.
pub const PVERA_OVERWRITE_LAMBDA_D: u32 = 4;
/// Set the gradients of biases.
pub const PVERA_OVERWRITE_BIAS: u32 = 8;
/// All of these.
pub const PVERA_OVERWRITE_ALL: u32 = 15;

/// The KL divergence is averaged over the latent entries of the call, as the authors do: rows · rank, where a row counts the rank of
/// its own adapter (0 for the base alone), or those of all that are summed.
pub const PVERA_KL_MEAN: i32 = 0;
/// It is summed.
pub const PVERA_KL_SUM: i32 = 1;

/// What a training forward leaves for backward. Reusable: its memory grows to the largest call and stays. One thread at a
/// time. It keeps the adapters of its forward alive, but borrows `noise.eps`, `noise.dropout_mask`, base weights and (under
/// RECOMPUTE) x until the last backward; of a CUDA context also `noise.seed_at`, `rows.identity` and `rows.sample` where
/// they are in device memory, and it belongs to that context. `rows.slot` and `rows.active` it copies, so that backward knows
/// which adapter each row had: slots in device memory are refused (PVERA_ERROR_UNSUPPORTED).
pub struct pvera_tape(Tape);

/// A tape of a policy, `PVERA_TAPE_…`. `allocator` may be NULL.
///
/// # Safety
/// `allocator` is NULL or an allocator; `tape` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_tape_new(
    policy: i32,
    allocator: *const pvera_allocator,
    tape: *mut *mut pvera_tape,
) -> *mut pvera_error {
    guard(|| {
        let policy = match policy {
            PVERA_TAPE_KEEP_LATENT => Policy::KeepLatent,
            PVERA_TAPE_KEEP_DELTA => Policy::KeepDelta,
            PVERA_TAPE_RECOMPUTE => Policy::Recompute,
            other => {
                fail!(Argument, "policy is {other}; wanted PVERA_TAPE_KEEP_LATENT (0), KEEP_DELTA (1) or RECOMPUTE (2)")
            }
        };
        // SAFETY: the caller's promise.
        let (allocator, out) = unsafe { (allocator.as_ref(), output("tape", tape)?) };
        let allocator = allocator.map(|given| given.checked("allocator")).transpose()?.unwrap_or_default();
        out.write(handle::give(pvera_tape(Tape::new(policy, allocator)))?);
        Ok(())
    })
}

/// Bytes that a tape holds.
///
/// # Safety
/// `tape` is a tape; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_tape_bytes(tape: *const pvera_tape, bytes: *mut usize) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (tape, out) = unsafe { (borrow("tape", tape)?, output("bytes", bytes)?) };
        out.write(tape.0.bytes());
        Ok(())
    })
}

/// Frees a tape; NULL is nothing.
///
/// # Safety
/// `tape` is NULL or an owned tape, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_tape_free(tape: *mut pvera_tape) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(tape) });
}

/// `y = x Wᵀ + bias + λ_b ∘ (z Bᵀ)`, with `(mu, logvar) = split(λ_d ∘ (x Aᵀ))` and z by mode (PVeRA, arXiv 2512.07703).
/// A layer declared without a weight adds the delta to what y holds. A layer that the adapter does not adapt gets its base
/// alone.
///
/// `x [n, in_features]`, `y [n, out_features]`: any element type and row stride; computed in f32, rounded once. y shares no
/// memory with anything that the call reads: x, weights, biases, adapters' vectors, noise; it need not be initialised when
/// the layer has a weight.
/// `rows` and `noise` may be NULL. With a tape (may be NULL) this is a training forward: sampled unless the mode says
/// otherwise, with the adapter's dropout on x, and `pvera_backward` can follow.
///
/// Errors before anything is written: NULL, wrong shape, dtype, stride, overlap, device, unknown slot. After it only
/// PVERA_ERROR_OVERFLOW (exp(½ logvar) does not fit; see logvar_bound) and PVERA_ERROR_PANIC. On a CUDA context an overflow
/// is told by `pvera_context_check`, and what the driver refuses while the call is queued leaves y written in part or not:
/// PVERA_ERROR_CUDA, PVERA_ERROR_MEMORY (device memory), PVERA_ERROR_STATE (memory to be had while the stream is captured).
///
/// # Safety
/// The handles live; x, y and the matrices of noise are lent for the call (for the tape: see `pvera_tape`); `rows` and
/// `noise` are NULL or sized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_forward(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    tape: *mut pvera_tape,
    y: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear) = (borrow("context", context)?, borrow("linear", linear)?);
        let (frame, y) = (LazyCell::new(|| context.0.enter()), matrix::write("y", y)?);
        forward(context, || frame.arena(), &[&linear.0], x, rows, noise, tape, &[y])
    })
}

/// `pvera_forward` of `count` layers with one input (q, k and v): they share one product with A where their adapters share
/// a store. One matrix of `y` for each layer, views of one fused buffer if the host likes. A layer that the adapter does
/// not adapt gets its base alone.
///
/// # Safety
/// As for `pvera_forward`; `linears` and `y` point to `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_forward_group(
    context: *const pvera_context,
    count: usize,
    linears: *const *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    tape: *mut pvera_tape,
    y: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let context = borrow("context", context)?;
        let frame = context.0.enter();
        let linears = read_linears(frame.arena(), linears, count)?;
        let y = matrix::write_all(frame.arena(), "y", y, count)?;
        forward(context, || frame.arena(), linears, x, rows, noise, tape, y)
    })
}

/// # Safety
/// As for `pvera_forward`.
#[allow(clippy::too_many_arguments)]
unsafe fn forward<'a>(
    context: &pvera_context,
    arena: impl FnOnce() -> &'a Arena,
    linears: &[&Linear],
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    tape: *mut pvera_tape,
    y: &[crate::tensor::MatrixMut<'_>],
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let x = matrix::read("x", x)?;
        let (rows, noise) =
            (read_rows(arena, rows, x.rows(), context.0.place())?, read_noise(noise, context.0.place())?);
        let request = Request { rows, noise, training: false };
        match tape.as_mut() {
            Some(tape) => linear::record(&context.0, linears, &x, &request, &mut tape.0, y),
            None => linear::forward(&context.0, linears, &x, &request, y),
        }
    }
}

/// Where one adapter's gradients go. Vectors are whole, in the layout of `pvera_adapter_range`; of a shard, its part is
/// written. NULL skips.
///
/// Which adapter a row had is on the tape. With `rows.slot` an adapter's gradients are sums over the rows that had it, with
/// `rows.active` over all rows, its scale multiplied in; without either, slot 0 had all rows. Adapters that are not named get none,
/// but their rows count in dx and in the divergence as before. Rows of the base alone give dy W to dx, and nothing else.
/// Gradients are those of the values that the forward read. Linears of `pvera_adapter_linear` read an adapter's live parameters,
/// and have slot 0 alone; those of a snapshot, where a row has any slot, read copies as they were published: after each step on
/// the parameters, `pvera_model_replace` and take a new snapshot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_slot_gradients {
    /// The adapter's slot: one that some row of the forward had and whose adapter adapts this layer (else PVERA_ERROR_NOT_FOUND),
    /// named once.
    pub slot: i32,
    /// `[out_total]`.
    pub lambda_b: *mut f32,
    /// `[2r]`; `[r]` for VeRA.
    pub lambda_d: *mut f32,
    /// `[out_total]`; only for an adapter that learns this layer's bias.
    pub bias: *mut f32,
}

/// What backward of one layer gives besides dx. Zero: nothing, added to nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_gradients {
    /// sizeof(pvera_gradients).
    pub struct_size: usize,
    /// `PVERA_OVERWRITE_…`, or-ed. Of a group, the first layer's DX counts.
    pub overwrite: u32,
    /// `PVERA_KL_…`.
    pub kl_reduction: i32,
    /// `[slot_count]`, in any order; each layer of a group has its own.
    pub slots: *const pvera_slot_gradients,
    /// How many slots; 0: no vectors' gradients.
    pub slot_count: usize,
    /// What the KL divergence of the latents to the standard normal counts in the loss; 0 leaves it out, as it has to
    /// be where a VeRA adapter takes part, whose latent has no variance.
    pub kl_weight: f64,
    /// Gets the divergence (before its weight); or NULL (with a VeRA adapter, always). In device memory on a CUDA
    /// context.
    pub kl_value: *mut f64,
    /// The gradient of another prior, `[n, latents]`, that is added to dL/dmu. All zero when absent.
    pub dmu: pvera_matrix,
    /// The same of logvar; VeRA adapters pass it over.
    pub dlogvar: pvera_matrix,
    /// First-order variance of f, when dy is df/dy of one number f a row (or a sequence): `Σ over latents of (Σ over rows of
    /// one identity and sample of g·σ)²` with g = dL/dz is added to `variance[variance_index[row]]`, whatever `overwrite`
    /// says. For a network: a mean forward with a tape for each layer, then one backward with the same array for every
    /// layer, zero before it. NULL leaves it out, as it has to be on a CUDA context.
    pub variance: *mut f64,
    /// How many values variance has.
    pub variance_count: usize,
    /// `[n]`, which value each row belongs to; NULL: row i to value i.
    pub variance_index: *const u32,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_gradients {
    const NAME: &'static str = "gradients";
}

/// Gradients of the recorded forward for the output gradient `dy [n, out_features]`, into `gradients` (may be NULL) and
/// `dx [n, in_features]` (NULL skips it). With g = (λ_b ∘ dy) B: dλ_b = Σ dy ∘ (z Bᵀ), dλ_d = Σ dm ∘ p,
/// dx += mask ∘ ((λ_d ∘ dm) A) + dy W, where dmu = g and dlogvar = ½ g ∘ eps ∘ exp(½ logvar), plus KL and priors. The noise
/// is drawn again from its key.
///
/// No output shares memory with another (of any layer of a group) or with what the call reads: PVERA_ERROR_OVERLAP. Only
/// `variance` may be one array for several layers.
///
/// The tape may be used for several backwards. Error PVERA_ERROR_STATE when a parameter changed since the forward (in
/// device memory that is not looked at). Sums over rows have the same bits for any number of threads. Nothing is written
/// before every check and every sum is done, but for dx after an overflow or a panic, and on a CUDA context, where errors
/// are those of `pvera_forward` and outputs may be written when one comes.
///
/// # Safety
/// As for `pvera_forward`; every pointer of `gradients` is NULL or lent for the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_backward(
    context: *const pvera_context,
    tape: *const pvera_tape,
    dy: *const pvera_matrix,
    gradients: *const pvera_gradients,
    dx: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { pvera_backward_group(context, tape, 1, dy, gradients, dx) }
}

/// Backward of `pvera_forward_group`: one matrix of `dy` and one struct of `gradients` for each of the `count` layers (or
/// NULL for none), one `dx` for all.
///
/// # Safety
/// As for `pvera_backward`; `dy` and `gradients` point to `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_backward_group(
    context: *const pvera_context,
    tape: *const pvera_tape,
    count: usize,
    dy: *const pvera_matrix,
    gradients: *const pvera_gradients,
    dx: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, tape) = (borrow("context", context)?, borrow("tape", tape)?);
        let frame = context.0.enter();
        let arena = frame.arena();
        let dy = matrix::read_all(arena, "dy", dy, count)?;
        let dx = if dx.is_null() { None } else { Some(matrix::write("dx", dx)?) };
        let rows = dy.first().map_or(0, |dy| dy.rows());
        let given = read_gradients(arena, gradients, count)?;
        let wanted = input::collected(arena, count, given.iter().map(|given| read_wanted(arena, given, rows)))?;
        let overwrite_dx = given.first().is_some_and(|given| given.overwrite & PVERA_OVERWRITE_DX != 0);
        linear::backward(&context.0, &tape.0, dy, wanted, dx.as_ref(), overwrite_dx)
    })
}

/// # Safety
/// `gradients` is NULL or points to `count` sized structs of one size.
unsafe fn read_gradients(arena: &Arena, gradients: *const pvera_gradients, count: usize) -> Result<&[pvera_gradients]> {
    // SAFETY: the caller's promise; the structs of an older or newer header lie `struct_size` bytes apart.
    unsafe {
        if !gradients.is_aligned() {
            fail!(Argument, "gradients is {gradients:p}; wanted an aligned address");
        }
        let step = gradients.cast::<usize>().as_ref().copied().unwrap_or(0);
        Ok(input::collected(arena, count, (0..count).map(|index| input::sized(gradients.byte_add(index * step))))?)
    }
}

/// # Safety
/// The pointers of `given` are NULL or lent.
unsafe fn read_slots<'a>(arena: &'a Arena, given: &pvera_gradients) -> Result<&'a [SlotGradients]> {
    // SAFETY: the caller's promise.
    let slots = unsafe { input::array("gradients.slots", given.slots, given.slot_count)? };
    Ok(arena.collected(slots.iter().map(|&pvera_slot_gradients { slot, lambda_b, lambda_d, bias }| SlotGradients {
        slot,
        lambda_b,
        lambda_d,
        bias,
    }))?)
}

/// # Safety
/// The pointers of `given` are NULL or lent.
unsafe fn read_wanted<'a>(arena: &'a Arena, given: &pvera_gradients, rows: usize) -> Result<Wanted<'a>> {
    let mean = match given.kl_reduction {
        PVERA_KL_MEAN => true,
        PVERA_KL_SUM => false,
        other => fail!(Argument, "gradients.kl_reduction is {other}; wanted PVERA_KL_MEAN (0) or PVERA_KL_SUM (1)"),
    };
    if given.overwrite & !PVERA_OVERWRITE_ALL != 0 {
        fail!(
            Argument,
            "gradients.overwrite is {:#x}; wanted a combination of PVERA_OVERWRITE_… (at most 15)",
            given.overwrite
        );
    }
    let bit = |bit: u32| given.overwrite & bit != 0;
    // SAFETY: the caller's promise.
    unsafe {
        let count = given.variance_count;
        let variance = input::optional_places("gradients.variance", given.variance, count)?;
        let index = input::optional_array("gradients.variance_index", given.variance_index, rows)?;
        Ok(Wanted {
            slots: read_slots(arena, given)?,
            overwrite: Overwrite {
                lambda_b: bit(PVERA_OVERWRITE_LAMBDA_B),
                lambda_d: bit(PVERA_OVERWRITE_LAMBDA_D),
                bias: bit(PVERA_OVERWRITE_BIAS),
            },
            kl: Kl { weight: given.kl_weight, mean },
            prior: PriorGradients {
                dmu: matrix::optional("gradients.dmu", &given.dmu)?,
                dlogvar: matrix::optional("gradients.dlogvar", &given.dlogvar)?,
            },
            kl_value: input::optional_places("gradients.kl_value", given.kl_value, 1)?,
            variance: variance.map(|values| VarianceTarget { values, count, index }),
        })
    }
}
