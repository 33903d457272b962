//! The calls without a tape, and the two structs that say whose rows these are and where noise comes from.

use std::cell::LazyCell;

use super::context::pvera_context;
use super::error::pvera_error;
use super::guard;
use super::handle::{borrow, output};
use super::input::{self, Sized_};
use super::linear::pvera_linear;
use super::matrix::{self, pvera_device, pvera_matrix, pvera_matrix_mut};
use crate::backend::{Mode, Part, RowKeys};
use crate::error::Result;
use crate::fail;
use crate::linear::{self, Choice, Linear, ModeChoice, Noise, Request, Rows};
use crate::memory::{Allocator, Arena};
use crate::tensor::Device;

/// As PEFT would: sampled in a training forward, otherwise what each adapter's sample_at_inference says.
pub const PVERA_MODE_AS_PEFT: i32 = 0;
/// z = mu. Half the work with A.
pub const PVERA_MODE_MEAN: i32 = 1;
/// z = mu + eps ∘ exp(½ logvar).
pub const PVERA_MODE_SAMPLE: i32 = 2;
/// z = mu + exp(½ logvar): the authors' "fix".
pub const PVERA_MODE_FIXED: i32 = 3;

/// One adapter of several that are summed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_active {
    /// Which adapter.
    pub slot: i32,
    /// Factor of its delta (a learned bias is not scaled).
    pub scale: f32,
}

/// Whose rows these are. NULL or zero: slot 0 on every row; row i has identity i and sample 0.
///
/// Noise belongs to (seed, layer name, adapter, row identity, sample), never to a row's place. Identity =
/// hash(sequence, position) gives noise for each token; identity = sequence gives one coherent draw, the same in chunked
/// prefill and decode. S Monte Carlo passes of a network are S times as many rows, with samples 0 … S−1.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_rows {
    /// sizeof(pvera_rows).
    pub struct_size: usize,
    /// `[n]` one adapter a row, −1 for the base alone; or NULL.
    pub slot: *const i32,
    /// `[active_count]` adapters that are summed on every row, each slot once; or NULL. Not together with slot. Not NULL
    /// and a count of 0: the base alone.
    pub active: *const pvera_active,
    /// How many are summed.
    pub active_count: usize,
    /// `[n]`, or NULL: identity_base plus the row's number.
    pub identity: *const u64,
    /// The first row's identity where identity is NULL.
    pub identity_base: u64,
    /// `[n]`, or NULL: sample_base on every row. Draws count on from it, up to 2³² − 1: beyond that is an error where it
    /// lies on the host; in device memory the numbers go on from 0, and with them that sample's noise.
    pub sample: *const u32,
    /// Every row's sample where sample is NULL.
    pub sample_base: u32,
    /// Zero, which is checked. (Fills the struct.)
    pub reserved: u32,
    /// Where slot, identity and sample lie; zero: on the host, from which they are taken when the call is made. In device
    /// memory they are read when the work runs, so that a captured CUDA graph is replayed with others; a slot that holds no
    /// PVeRA adapter is then reported by `pvera_context_check`, and its row gets the base alone. A forward with a tape takes
    /// slots from the host alone (PVERA_ERROR_UNSUPPORTED). As nobody knows which slots rows have there, each such call sends
    /// the vectors' addresses of every published adapter along: one launch more for some 40 adapters (docs/cuda.md); with
    /// slots on the host, those alone that rows have. How many rows there are is never read from device memory: a graph has
    /// those of the capture, and rows that a replay leaves over get slot −1.
    pub device: pvera_device,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_rows {
    const NAME: &'static str = "rows";
}

/// How latents are made and where their noise comes from. NULL or zero: PVERA_MODE_AS_PEFT, keyed by seed 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_noise {
    /// sizeof(pvera_noise).
    pub struct_size: usize,
    /// `PVERA_MODE_…`.
    pub mode: i32,
    /// 0 or 1 (as any other number): whether sample 2j + 1 takes the negated noise of sample 2j.
    pub antithetic: u8,
    /// The seed of keyed noise and keyed dropout.
    pub seed: u64,
    /// Where the seed is read instead; or NULL. On a CUDA context it lies in device memory and is read when the work runs.
    pub seed_at: *const u64,
    /// The caller's noise instead of keyed one: a row for each row of y, a column for each latent (layers of a group in
    /// their order, in a layer the active adapters in theirs; with a slot per row, each row its adapter's first columns).
    /// All zero when absent.
    pub eps: pvera_matrix,
    /// The caller's dropout mask `[n, in_features]` on x, already scaled by 1/(1 − p), instead of keyed dropout. All zero
    /// when absent.
    pub dropout_mask: pvera_matrix,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_noise {
    const NAME: &'static str = "noise";
}

/// The rows of a call, read from C. `arena` is asked for only when something is copied, which most calls do without.
///
/// # Safety
/// `rows` is NULL or sized rows whose arrays hold `count` entries and outlive `'a`.
pub(super) unsafe fn read_rows<'a>(
    arena: impl FnOnce() -> &'a Arena,
    rows: *const pvera_rows,
    count: usize,
    context_place: Device,
) -> Result<Rows<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let given = input::sized(rows)?;
        input::reserved("rows.reserved", given.reserved)?;
        let on_host = match matrix::device("rows.device", given.device)? {
            Device::Host => true,
            place if place == context_place => false,
            place => fail!(Device, "rows.device is {place}; this context computes on {context_place}"),
        };
        let address = |values: usize| if on_host { 0 } else { values as u64 };
        let slot_address = address(given.slot.addr());
        let slot = input::optional_array("rows.slot", here(given.slot, on_host), count)?;
        let has_active = !given.active.is_null() || given.active_count > 0;
        let active = has_active.then(|| input::array("rows.active", given.active, given.active_count)).transpose()?;
        let choice = match (slot, active) {
            (_, Some(_)) if slot.is_some() || slot_address != 0 => fail!(
                Argument,
                "rows.slot and rows.active are both given; wanted one adapter a row, or a sum on every row"
            ),
            (Some(slots), _) => Choice::PerRow(slots),
            (None, None) if slot_address != 0 => Choice::PerRowOnDevice(slot_address),
            (None, Some(active)) => Choice::Sum(arena().collected(active.iter().map(|one| (one.slot, one.scale)))?),
            (None, None) => Choice::First,
        };
        let keys = RowKeys {
            identity: input::optional_array("rows.identity", here(given.identity, on_host), count)?,
            identity_base: given.identity_base,
            sample: input::optional_array("rows.sample", here(given.sample, on_host), count)?,
            sample_base: given.sample_base,
            identity_at: address(given.identity.addr()),
            sample_at: address(given.sample.addr()),
        };
        Ok(Rows { choice, keys })
    }
}

/// An array that is read here; NULL when it lies on a device.
fn here<T>(values: *const T, on_host: bool) -> *const T {
    if on_host { values } else { std::ptr::null() }
}

/// # Safety
/// `noise` is NULL or sized noise whose matrices outlive `'a`.
pub(super) unsafe fn read_noise<'a>(noise: *const pvera_noise, context_place: Device) -> Result<Noise<'a>> {
    // SAFETY: the caller's promise.
    unsafe {
        let given = input::sized(noise)?;
        let mode = match given.mode {
            PVERA_MODE_AS_PEFT => ModeChoice::AsPeft,
            PVERA_MODE_MEAN => ModeChoice::All(Mode::Mean),
            PVERA_MODE_SAMPLE => ModeChoice::All(Mode::Sample),
            PVERA_MODE_FIXED => ModeChoice::All(Mode::Fixed),
            other => fail!(
                Argument,
                "noise.mode is {other}; wanted PVERA_MODE_AS_PEFT (0), MEAN (1), SAMPLE (2) or FIXED (3)"
            ),
        };
        let on_host = context_place == Device::Host;
        Ok(Noise {
            mode,
            seed: input::optional_array("noise.seed_at", here(given.seed_at, on_host), 1)?
                .map_or(given.seed, |seed| seed[0]),
            seed_at: if on_host { 0 } else { given.seed_at.addr() as u64 },
            antithetic: given.antithetic != 0,
            eps: matrix::optional("noise.eps", &given.eps)?,
            dropout_mask: matrix::optional("noise.dropout_mask", &given.dropout_mask)?,
        })
    }
}

/// # Safety
/// `linears` points to `count` linears.
pub(super) unsafe fn read_linears(
    arena: &Arena,
    linears: *const *const pvera_linear,
    count: usize,
) -> Result<&[&Linear]> {
    // SAFETY: the caller's promise.
    let given = unsafe { input::array("linears", linears, count)? };
    let read = |(index, linear): (usize, &*const pvera_linear)| {
        // SAFETY: as above.
        match unsafe { linear.as_ref() } {
            Some(linear) => Ok(&linear.0),
            None => fail!(Null, "linears[{index}] is NULL; wanted a handle"),
        }
    };
    Ok(input::collected(arena, count, given.iter().enumerate().map(read))?)
}

/// Exact mean and variance of y given x, without sampling:
/// `E[y] = x Wᵀ + bias + λ_b ∘ (mu Bᵀ)`, `Var[y_j] = λ_b[j]² Σ_k exp(logvar_k) B[j,k]²`; variances of summed adapters add.
///
/// `x [n, in_features]`; `mean` and `variance [n, out_features]`, of any element type and stride, sharing no memory with x
/// or each other. A layer without a weight adds the mean delta to what `mean` holds; `variance` is set.
///
/// # Safety
/// The handles live, the matrices are lent for the call, `rows` is NULL or sized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_moments(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    mean: *const pvera_matrix_mut,
    variance: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear, x) = (borrow("context", context)?, borrow("linear", linear)?, matrix::read("x", x)?);
        let (mean, variance) = (matrix::write("mean", mean)?, matrix::write("variance", variance)?);
        let frame = LazyCell::new(|| context.0.enter());
        let request =
            Request { rows: read_rows(|| frame.arena(), rows, x.rows(), context.0.place())?, ..Request::default() };
        linear::moments(&context.0, &linear.0, &x, &request, &mean, &variance)
    })
}

/// The latent distribution of every row: `(mu, logvar) = split(λ_d ∘ (x Aᵀ))`, logvar bounded if the config says so,
/// and −∞ for a VeRA adapter.
///
/// `mu` and `logvar [n, latents]`, columns as those of `pvera_noise.eps`; sharing no memory with x or each other. Rows of the
/// base alone, and columns beyond the rank of a row's adapter, are left as they were.
///
/// # Safety
/// As for `pvera_moments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_latent(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    mu: *const pvera_matrix_mut,
    logvar: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear, x) = (borrow("context", context)?, borrow("linear", linear)?, matrix::read("x", x)?);
        let (mu, logvar) = (matrix::write("mu", mu)?, matrix::write("logvar", logvar)?);
        let frame = LazyCell::new(|| context.0.enter());
        let request =
            Request { rows: read_rows(|| frame.arena(), rows, x.rows(), context.0.place())?, ..Request::default() };
        linear::latent(&context.0, &linear.0, &x, &request, &mu, &logvar)
    })
}

/// `samples` sampled forwards of every row, with sample numbers `rows.sample + 0 … samples − 1`; the base product and the
/// product with A are done once. Draw s of row i is row `s·n + i` of `y [samples·n, out_features]`, bit for bit what
/// `pvera_forward` gives for that sample number.
///
/// A layer without a weight adds each draw's delta to what y holds. The mode must be sample (or as PEFT).
///
/// # Safety
/// As for `pvera_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_sample(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    samples: usize,
    y: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear, x) = (borrow("context", context)?, borrow("linear", linear)?, matrix::read("x", x)?);
        let frame = LazyCell::new(|| context.0.enter());
        let rows = read_rows(|| frame.arena(), rows, x.rows(), context.0.place())?;
        let (noise, y) = (read_noise(noise, context.0.place())?, matrix::write("y", y)?);
        let request = Request { rows, noise, training: false };
        linear::sample(&context.0, &linear.0, &x, &request, samples, &y)
    })
}

/// How many columns p has for such rows, and how many latents (columns of eps, mu and logvar). `n` is the number of rows.
///
/// # Safety
/// `linear` is a linear, `rows` NULL or sized; `width` and `latents` are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_project_width(
    linear: *const pvera_linear,
    rows: *const pvera_rows,
    n: usize,
    width: *mut usize,
    latents: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let linear = borrow("linear", linear)?;
        let arena = Arena::new(Allocator::default());
        let rows = read_rows(|| &arena, rows, n, matrix::device("rows.device", input::sized(rows)?.device)?)?;
        let (columns, latent_columns) = linear::project_width(&linear.0, n, &Request { rows, ..Request::default() })?;
        super::handle::write_if_wanted(width, columns);
        super::handle::write_if_wanted(latents, latent_columns);
        Ok(())
    })
}

/// Bytes of scratch that a context holds after its calls on `count` linears with one input (a group, or one) and `n` rows:
/// forward, sample with `samples` draws (1 otherwise), moments and latent; with `training` also a taped forward and a
/// backward that is asked for everything, dx included. Without a tape's own bytes (`pvera_tape_bytes`). An upper bound for
/// one calling thread; a context that serves other shapes too holds the largest of each. `rows` may be NULL. The first
/// question about a store packs its A and B, as the first call does.
///
/// Of a CUDA context: bytes of device memory alone, as `pvera_context_scratch_bytes`, and nothing is packed or copied. Stores
/// and adapters are not scratch. A dropout mask of the caller's takes n · in_features f32 more for each pair of projections.
///
/// # Safety
/// `context` is a context; `linears` points to `count` linears; `rows` is NULL or sized; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_scratch_bytes(
    context: *const pvera_context,
    count: usize,
    linears: *const *const pvera_linear,
    n: usize,
    rows: *const pvera_rows,
    samples: usize,
    training: bool,
    bytes: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, out) = (borrow("context", context)?, output("bytes", bytes)?);
        let frame = context.0.enter();
        let linears = read_linears(frame.arena(), linears, count)?;
        let request = Request { rows: read_rows(|| frame.arena(), rows, n, context.0.place())?, ..Request::default() };
        out.write(linear::scratch_bytes(&context.0, linears, n, &request, samples, training)?);
        Ok(())
    })
}

/// The first half of a forward: `p = x Aᵀ`, linear in x, so that tensor-parallel ranks that hold a part of the inputs sum
/// their p before `pvera_expand`.
///
/// `p [n, width]` f32 (see `pvera_project_width`), overwritten; its logvar half is left alone in mean mode. The dropout
/// mask of `noise` is honoured; keyed dropout belongs to training forwards.
///
/// # Safety
/// As for `pvera_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_project(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    p: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { pvera_project_part(context, linear, x, rows, noise, p, 0, 1) }
}

/// Part `index` of `count` of `pvera_project`. The parts of one call may run on any threads at the same time, with one
/// context, and start none; each writes its own share of p.
///
/// # Safety
/// As for `pvera_forward`; concurrent calls are parts of one call, of the same count, with different indices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_project_part(
    context: *const pvera_context,
    linear: *const pvera_linear,
    x: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    p: *const pvera_matrix_mut,
    index: usize,
    count: usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear, x) = (borrow("context", context)?, borrow("linear", linear)?, matrix::read("x", x)?);
        let frame = LazyCell::new(|| context.0.enter());
        let rows = read_rows(|| frame.arena(), rows, x.rows(), context.0.place())?;
        let (noise, p) = (read_noise(noise, context.0.place())?, matrix::write("p", p)?);
        let request = Request { rows, noise, training: false };
        linear::project(&context.0, &linear.0, &x, &request, &p, Part { index, count })
    })
}

/// The second half of a forward: `y += λ_b ∘ (z Bᵀ)` with z made from p; the base weight is not used. A learned bias is
/// added less the declared one.
///
/// `p [n, width]` f32 from `pvera_project` with the same rows and mode; `y [n, out_features]` of any element type and
/// stride, sharing no memory with p.
///
/// # Safety
/// As for `pvera_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_expand(
    context: *const pvera_context,
    linear: *const pvera_linear,
    p: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    y: *const pvera_matrix_mut,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { pvera_expand_part(context, linear, p, rows, noise, y, 0, 1) }
}

/// Part `index` of `count` of `pvera_expand`; rules as for `pvera_project_part`. All parts of project come before any part
/// of expand.
///
/// # Safety
/// As for `pvera_project_part`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_expand_part(
    context: *const pvera_context,
    linear: *const pvera_linear,
    p: *const pvera_matrix,
    rows: *const pvera_rows,
    noise: *const pvera_noise,
    y: *const pvera_matrix_mut,
    index: usize,
    count: usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear, p) = (borrow("context", context)?, borrow("linear", linear)?, matrix::read("p", p)?);
        let frame = LazyCell::new(|| context.0.enter());
        let rows = read_rows(|| frame.arena(), rows, p.rows(), context.0.place())?;
        let (noise, y) = (read_noise(noise, context.0.place())?, matrix::write("y", y)?);
        let request = Request { rows, noise, training: false };
        linear::expand(&context.0, &linear.0, &p, &request, &y, Part { index, count })
    })
}
