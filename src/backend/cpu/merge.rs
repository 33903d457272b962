//! Folding adapters into a weight: a dense product that nobody repeats, so nothing is packed.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::Cpu;
use super::dense::{panel_floats, product};
use super::float_mode::FloatMode;
use super::groups::{self, ROW_BLOCK};
use crate::backend::{Term, Weight, check_merged};
use crate::error::Result;
use crate::memory::Buffer;
use crate::tensor::MatrixMut;

/// `merged = weight + Σ scale · diag(λ_b) B diag(λ_d[:r]) A[:r]`. Every element is checked before the first is written.
pub fn merge(
    cpu: &Cpu<'_>,
    terms: &[Term<'_>],
    weight: Weight<'_>,
    merged: &MatrixMut<'_>,
    transposed: bool,
) -> Result<()> {
    let rank = terms.iter().map(Term::rank).max().unwrap_or(0);
    let (outputs, inputs) = (weight.outputs(), weight.inputs());
    // Rows of `B diag(λ_d[:r])`, a block at a time, times A[:r].
    let mut left = cpu.workers.lend(ROW_BLOCK * rank)?;
    let mut delta = cpu.workers.lend(ROW_BLOCK * inputs)?;
    // As large as the weight, and rare: not from what the context keeps.
    let mut sum = Buffer::<f32>::zeroed(cpu.workers.allocator(), outputs * inputs)?;
    let panel = terms.iter().map(|term| panel_floats(&term.a.transposed())).max().unwrap_or(0);
    let mut panel = cpu.workers.lend(panel)?;
    let _mode = FloatMode::enter();
    for block in groups::blocks(0..outputs) {
        for output in block.clone() {
            let row = &mut sum[output * inputs..][..inputs];
            row.iter_mut().enumerate().for_each(|(input, value)| *value = weight.at(output, input));
        }
        for term in terms {
            let rank = term.rank();
            for (place, output) in block.clone().enumerate() {
                let row = &mut left[place * rank..][..rank];
                row.iter_mut().enumerate().for_each(|(k, value)| *value = term.b.at(output, k) * term.lambda_d[k]);
            }
            let mean_half = term.a.outputs_from(0, rank).transposed();
            let rows = ArrayView2::from_shape((block.len(), rank), &left[..block.len() * rank]).expect("sized");
            let target =
                ArrayViewMut2::from_shape((block.len(), inputs), &mut delta[..block.len() * inputs]).expect("sized");
            product(rows, mean_half, target, &mut panel);
            for (place, output) in block.clone().enumerate() {
                let coefficient = term.scale * term.lambda_b[output];
                let row = &mut sum[output * inputs..][..inputs];
                let delta = &delta[place * inputs..][..inputs];
                row.iter_mut().zip(delta).for_each(|(value, delta)| *value = coefficient.mul_add(*delta, *value));
            }
        }
    }
    store_merged(&sum, outputs, inputs, merged, transposed)
}

/// Checks that every rounded element is finite, then writes.
fn store_merged(sum: &[f32], outputs: usize, inputs: usize, merged: &MatrixMut<'_>, transposed: bool) -> Result<()> {
    check_merged(merged.dtype(), (0..outputs * inputs).map(|at| (at / inputs, at % inputs, sum[at])))?;
    for output in 0..outputs {
        for (input, value) in sum[output * inputs..][..inputs].iter().enumerate() {
            let (row, col) = if transposed { (input, output) } else { (output, input) };
            // SAFETY: one thread; the shapes were checked.
            unsafe { merged.store(row, col, &[*value]) };
        }
    }
    Ok(())
}
