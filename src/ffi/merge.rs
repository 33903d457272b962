//! Folding an adapter's mean into a weight, and taking it out again.

use super::compute::{pvera_rows, read_rows};
use super::context::pvera_context;
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow};
use super::linear::pvera_linear;
use super::matrix::{self, pvera_matrix, pvera_matrix_mut};
use super::model::{PVERA_WEIGHT_IN_OUT, PVERA_WEIGHT_OUT_IN};
use crate::fail;
use crate::linear::{self, MergeRequest, MergeUndo};
use crate::model::WeightLayout;

/// Merge the mean of an adapter that samples at inference, whose sampling is thereby lost.
pub const PVERA_MERGE_MEAN: u32 = 1;

/// The bits that a merge replaced.
pub struct pvera_undo(Option<MergeUndo>);

/// `merged = weight + scale · diag(λ_b) B diag(λ_d[:r]) A[:r]`, summed over the adapters of `rows` (active, or slot 0; not
/// one a row): the mean of the layer as one weight. `weight` and `merged` are of one shape (by `layout`, `PVERA_WEIGHT_…`)
/// and element type, and the same memory or none in common; merged shares none with the adapters' vectors.
///
/// Every element is checked before the first is written. `undo` (may be NULL) gets what undoes it bit for bit, which takes
/// as much memory as the weight. A learned bias is not merged: see the adapter's parameters.
///
/// Error PVERA_ERROR_STATE for an adapter that samples at inference, unless `flags` has PVERA_MERGE_MEAN.
///
/// # Safety
/// The handles live, the matrices are lent for the call, `rows` is NULL or sized, `undo` NULL or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_merge(
    context: *const pvera_context,
    linear: *const pvera_linear,
    rows: *const pvera_rows,
    flags: u32,
    layout: i32,
    weight: *const pvera_matrix,
    merged: *const pvera_matrix_mut,
    undo: *mut *mut pvera_undo,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, linear) = (borrow("context", context)?, borrow("linear", linear)?);
        let (weight, merged) = (matrix::read("weight", weight)?, matrix::write("merged", merged)?);
        let frame = context.0.enter();
        let rows = read_rows(|| frame.arena(), rows, 0, context.0.place())?;
        let layout = match layout {
            PVERA_WEIGHT_OUT_IN => WeightLayout::OutIn,
            PVERA_WEIGHT_IN_OUT => WeightLayout::InOut,
            other => fail!(Argument, "layout is {other}; wanted PVERA_WEIGHT_OUT_IN (0) or PVERA_WEIGHT_IN_OUT (1)"),
        };
        if flags & !PVERA_MERGE_MEAN != 0 {
            fail!(Argument, "flags is {flags:#x}; wanted 0 or PVERA_MERGE_MEAN (1)");
        }
        // The handle comes first: once the weight is changed, nothing may fail.
        let handle = if undo.is_null() { std::ptr::null_mut() } else { handle::give(pvera_undo(None))? };
        let request = MergeRequest {
            choice: rows.choice,
            layout,
            drop_sampling: flags & PVERA_MERGE_MEAN != 0,
            wants_undo: !undo.is_null(),
        };
        match linear::merge(&context.0, &linear.0, &request, &weight, &merged) {
            Ok(own) if !handle.is_null() => {
                (*handle).0 = own;
                undo.write(handle);
            }
            Ok(_) => {}
            Err(error) => {
                handle::take(handle);
                return Err(error);
            }
        }
        Ok(())
    })
}

/// Puts back the bits that the merge replaced. `weight` must hold exactly what the merge wrote, else
/// PVERA_ERROR_STATE and nothing is written. The undo may be used again after another merge of the same.
///
/// # Safety
/// `undo` is an undo; `weight` is lent for the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_unmerge(undo: *const pvera_undo, weight: *const pvera_matrix_mut) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (undo, weight) = (borrow("undo", undo)?, matrix::write("weight", weight)?);
        match &undo.0 {
            Some(own) => own.unmerge(&weight),
            None => fail!(State, "undo holds no merge"),
        }
    })
}

/// Frees an undo; NULL is nothing.
///
/// # Safety
/// `undo` is NULL or an owned undo, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_undo_free(undo: *mut pvera_undo) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(undo) });
}
