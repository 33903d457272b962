//! Folding the mean of adapters into a base weight, and taking it out again bit for bit.

use super::Linear;
use super::overlap::check_place;
use super::plan::Plan;
use super::request::{Choice, ModeChoice, Noise, Request, Rows};
use crate::backend::{Mode, RowKeys, Term, Weight};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::model::WeightLayout;
use crate::tensor::{Device, Dtype, Matrix, MatrixMut, disjoint};

/// What a merge replaced, bit for bit.
#[derive(Debug)]
pub struct MergeUndo {
    original: Buffer<u8>,
    merged: u64,
    rows: usize,
    cols: usize,
    dtype: Dtype,
}

/// How a merge is asked for.
#[derive(Clone, Copy, Debug)]
pub struct MergeRequest<'a> {
    /// Which adapters: the first, or a sum.
    pub choice: Choice<'a>,
    pub layout: WeightLayout,
    /// Merge the mean of adapters that sample at inference, whose sampling is thereby lost.
    pub drop_sampling: bool,
    /// Keep what undoes the merge: as much memory as the weight.
    pub wants_undo: bool,
}

/// `merged = weight + Σ scale · diag(λ_b) B diag(λ_d[:r]) A[:r]`. Every element is checked before the first is written.
///
/// `merged` may be the very memory of `weight`; otherwise they share none. It shares none with the adapters' vectors.
pub fn merge(
    context: &Context,
    linear: &Linear,
    request: &MergeRequest<'_>,
    weight: &Matrix<'_>,
    merged: &MatrixMut<'_>,
) -> Result<Option<MergeUndo>> {
    let layer = linear.layer();
    let (out, inputs) = (("out_features", layer.out_features), ("in_features", layer.in_features));
    let transposed = request.layout == WeightLayout::InOut;
    let (rows, cols) = if transposed { (inputs, out) } else { (out, inputs) };
    weight.shape("weight", rows, cols)?;
    merged.shape("merged", rows, cols)?;
    merge_rows(context, linear, request, 0, weight, merged)
}

/// The same for some rows of the weight as it is stored, from `first` on: bit for bit what [`merge`] makes of them. Elements
/// are named by their place among these rows.
pub fn merge_rows(
    context: &Context,
    linear: &Linear,
    request: &MergeRequest<'_>,
    first: usize,
    weight: &Matrix<'_>,
    merged: &MatrixMut<'_>,
) -> Result<Option<MergeUndo>> {
    let (layer, transposed) = (linear.layer(), request.layout == WeightLayout::InOut);
    let (all, cols) = if transposed {
        (layer.in_features, ("out_features", layer.out_features))
    } else {
        (layer.out_features, ("in_features", layer.in_features))
    };
    let rows = ("rows of the part", weight.rows().min(all.saturating_sub(first)));
    weight.shape("weight", rows, cols)?;
    merged.shape("merged", rows, cols)?;
    if context.place() != Device::Host {
        fail!(
            Unsupported,
            "the context computes on {}; a merge runs on the CPU: wanted a context of PVERA_BACKEND_CPU, and the weight there",
            context.place()
        );
    }
    check_place(context, "weight", weight)?;
    check_place(context, "merged", &merged.as_const())?;
    if merged.dtype() != weight.dtype() {
        fail!(Dtype, "merged holds {}; wanted {}, as weight", merged.dtype().name(), weight.dtype().name());
    }
    let in_place = merged.as_const().data() == weight.data() && merged.as_const().row_stride() == weight.row_stride();
    if !in_place {
        disjoint("merged", merged, "weight", weight)?;
    }
    if matches!(request.choice, Choice::PerRow(_)) {
        fail!(Argument, "rows.slot is given; a weight has no rows of a batch: wanted rows.active, or neither");
    }
    let noise = Noise { mode: ModeChoice::All(Mode::Mean), ..Noise::default() };
    let plan_request =
        Request { rows: Rows { choice: request.choice, keys: RowKeys::default() }, noise, training: false };
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &[linear], 0, &plan_request)?;
    refuse_sampling(linear, &plan, request)?;
    for term in plan.calls[0].terms {
        for (name, vector) in [("lambda_b", term.lambda_b), ("lambda_d", term.lambda_d)] {
            check_place(context, name, &vector.matrix())?;
            disjoint("merged", merged, name, &vector.matrix())?;
        }
    }
    let count = weight.rows();
    let terms = frame.arena().collected(plan.calls[0].terms.iter().map(|term| match transposed {
        true => Term { a: term.a.inputs_from(first, count), ..*term },
        false => Term { b: term.b.outputs_from(first, count), lambda_b: term.lambda_b.part(first, count), ..*term },
    }))?;
    let undo = if request.wants_undo { Some(MergeUndo::before(context.allocator(), weight)?) } else { None };
    let as_used = Weight::output_major(weight);
    let as_used = if transposed { as_used.transposed() } else { as_used };
    frame.with_backend(|backend| backend.merge(terms, as_used, merged, transposed))?;
    Ok(undo.map(|undo| MergeUndo { merged: digest(&merged.as_const()), ..undo }))
}

fn refuse_sampling(linear: &Linear, plan: &Plan<'_>, request: &MergeRequest<'_>) -> Result<()> {
    for slot in plan.slots[0] {
        let vectors = linear.slots().get(*slot)?.adapter.vectors(linear.index());
        if vectors.is_some_and(|vectors| vectors.samples) && !request.drop_sampling {
            fail!(
                State,
                "the adapter of slot {slot} samples at inference in layer '{}', and a merged weight cannot; ask for its mean with PVERA_MERGE_MEAN",
                linear.layer().name
            );
        }
    }
    Ok(())
}

impl MergeUndo {
    fn before(allocator: &Allocator, weight: &Matrix<'_>) -> Result<Self> {
        let (rows, cols, dtype) = (weight.rows(), weight.cols(), weight.dtype());
        let mut original = Buffer::zeroed(allocator, rows * cols * dtype.size())?;
        for row in 0..rows {
            original[row * cols * dtype.size()..][..cols * dtype.size()].copy_from_slice(row_bytes(weight, row));
        }
        Ok(Self { original, merged: 0, rows, cols, dtype })
    }

    /// Puts the original bits back. Refuses when the weight is not what the merge wrote.
    pub fn unmerge(&self, weight: &MatrixMut<'_>) -> Result<()> {
        weight.shape("weight", ("rows of the merge", self.rows), ("columns of the merge", self.cols))?;
        if weight.dtype() != self.dtype {
            fail!(Dtype, "weight holds {}; the merge was of {}", weight.dtype().name(), self.dtype.name());
        }
        if weight.device() != Device::Host {
            fail!(Device, "weight is on {}; the merge was of one on the CPU", weight.device());
        }
        if digest(&weight.as_const()) != self.merged {
            fail!(State, "weight is not what the merge wrote; it changed since, and nothing was undone");
        }
        let length = self.cols * self.dtype.size();
        for row in 0..self.rows {
            let original = &self.original[row * length..][..length];
            // SAFETY: the row has `length` bytes; the caller lent the matrix for writing.
            unsafe { std::ptr::copy_nonoverlapping(original.as_ptr(), weight.row_pointer(row), length) };
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.original.len()
    }
}

fn row_bytes<'a>(matrix: &Matrix<'a>, row: usize) -> &'a [u8] {
    assert!(row < matrix.rows());
    let size = matrix.dtype().size();
    // SAFETY: one row of the matrix.
    unsafe { std::slice::from_raw_parts(matrix.data().add(row * matrix.row_stride() * size), matrix.cols() * size) }
}

fn digest(matrix: &Matrix<'_>) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for row in 0..matrix.rows() {
        for byte in row_bytes(matrix, row) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state
}
