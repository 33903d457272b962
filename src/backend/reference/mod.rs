//! The oracle: f64, whole matrices, no blocks, no threads. Slow and readable; allocates as it likes.

mod backward;
mod gather;
pub mod method;

use ndarray::Array2;

use super::{Backend, Backward, Call, Expand, Forward, Gradients, Part, Scope, Term, Weight};
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};
use gather::{Member, dense, members, normals};

/// Computes in f64 and rounds what it stores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn forward(&self, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
        let mut own = vec![0.0; if forward.p.is_none() { forward.x.rows() * forward.width } else { 0 }];
        let own = MatrixMut::from_f32(&mut own, if forward.p.is_none() { forward.x.rows() } else { 0 }, forward.width);
        let p = forward.p.unwrap_or(&own);
        self.project(forward.projections, &forward.x, forward.scope, p, Part::WHOLE)?;
        let Forward { calls, x, draws, keep, .. } = *forward;
        self.expand(&Expand { calls, x: Some(x), p: p.as_const(), draws, keep }, y, Part::WHOLE)
    }

    fn scratch_bytes(&self, _: &Forward<'_>, _: Option<(&Backward<'_>, &MatrixMut<'_>)>) -> Result<usize> {
        // It allocates as it goes and keeps nothing.
        Ok(0)
    }

    fn project(
        &self,
        projections: &[Call<'_>],
        x: &Matrix<'_>,
        _scope: Scope,
        p: &MatrixMut<'_>,
        part: Part,
    ) -> Result<()> {
        let share = part.of(x.rows());
        for call in projections {
            for member in members(call) {
                let projected = method::project(&member.masked_inputs(call, x), &member.adapted.a);
                for (row, values) in member.rows.iter().zip(projected.rows()) {
                    if share.contains(row) {
                        write_row(p, *row, member.term.p_column, values.iter().copied());
                    }
                }
            }
        }
        Ok(())
    }

    fn expand(&self, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()> {
        for (position, (call, y)) in expand.calls.iter().zip(y).enumerate() {
            for draw in 0..expand.draws {
                let first = draw * call.rows;
                let mut sum = base(call, expand.x.as_ref(), y, first, part);
                for member in members(call) {
                    let z = member.adapted.step(&member.projected(&expand.p), &normals(call, &member, draw));
                    let delta = member.adapted.delta(&z);
                    let kept = z.dot(&member.adapted.b.t());
                    for (place, row) in member.rows.iter().enumerate() {
                        let mut target = sum.row_mut(*row);
                        target += &delta.row(place);
                        if let Some(keep) = expand.keep
                            && part.of(call.rows).contains(row)
                        {
                            write_row(
                                &keep[position],
                                *row,
                                call.kept_column(member.index),
                                kept.row(place).iter().copied(),
                            );
                        }
                    }
                }
                for row in part.of(call.rows) {
                    write_row(y, first + row, 0, sum.row(row).iter().copied());
                }
            }
        }
        Ok(())
    }

    fn moments(
        &self,
        call: &Call<'_>,
        x: &Matrix<'_>,
        p: &Matrix<'_>,
        mean: &MatrixMut<'_>,
        variance: &MatrixMut<'_>,
    ) -> Result<()> {
        let mut expected = base(call, Some(x), mean, 0, Part::WHOLE);
        let mut spread = Array2::<f64>::zeros((call.rows, call.outputs));
        for member in members(call) {
            let projected = member.projected(p);
            let (mu, _) = member.adapted.latents(&projected);
            let (delta, term_variance) = (member.adapted.delta(&mu), member.adapted.variance(&projected));
            for (place, row) in member.rows.iter().enumerate() {
                let mut target = expected.row_mut(*row);
                target += &delta.row(place);
                let mut target = spread.row_mut(*row);
                target += &term_variance.row(place);
            }
        }
        for row in 0..call.rows {
            write_row(mean, row, 0, expected.row(row).iter().copied());
            write_row(variance, row, 0, spread.row(row).iter().copied());
        }
        Ok(())
    }

    fn latent(&self, call: &Call<'_>, p: &Matrix<'_>, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()> {
        for member in members(call) {
            let (means, logvars) = member.adapted.latents(&member.projected(p));
            for (place, row) in member.rows.iter().enumerate() {
                write_row(mu, *row, member.term.latent_column, means.row(place).iter().copied());
                write_row(logvar, *row, member.term.latent_column, logvars.row(place).iter().copied());
            }
        }
        Ok(())
    }

    fn backward(
        &self,
        group: &Backward<'_>,
        gradients: &mut [Gradients<'_, '_>],
        dx: Option<&MatrixMut<'_>>,
    ) -> Result<()> {
        backward::backward(group, gradients, dx)
    }

    fn merge(&self, terms: &[Term<'_>], weight: Weight<'_>, merged: &MatrixMut<'_>, transposed: bool) -> Result<()> {
        let mut sum = gather::weight(weight);
        for term in terms {
            sum += &Member::adapted(term).merged();
        }
        super::check_merged(
            merged.dtype(),
            sum.indexed_iter().map(|((output, input), value)| (output, input, *value as f32)),
        )?;
        let stored = if transposed { sum.t().to_owned() } else { sum };
        for (row, values) in stored.rows().into_iter().enumerate() {
            write_row(merged, row, 0, values.iter().copied());
        }
        Ok(())
    }
}

/// `x Wᵀ + bias`, or what y holds with the learned bias in place of the declared one.
///
/// Of y, only the rows of the part are read: the others may be written at this moment.
fn base(call: &Call<'_>, x: Option<&Matrix<'_>>, y: &MatrixMut<'_>, first: usize, part: Part) -> Array2<f64> {
    let has_base = call.base.is_some() && x.is_some();
    let mut sum = match (call.base, x) {
        (Some(base), Some(x)) => dense(x).dot(&gather::weight(base.weight).t()),
        _ => Array2::zeros((call.rows, call.outputs)),
    };
    if !has_base {
        let mut held = vec![0.0; call.outputs];
        for row in part.of(call.rows) {
            y.as_const().load(first + row, 0, &mut held);
            sum.row_mut(row).assign(&gather::vector(&held));
        }
    }
    let own = call.bias.map(|bias| dense(&bias).row(0).to_owned());
    for row in 0..call.rows {
        let learned = call.learned_bias(row).map(|bias| bias.iter().map(|value| f64::from(*value)).collect());
        let mut target = sum.row_mut(row);
        match (&own, learned, has_base) {
            (_, Some(learned), true) => target += &ndarray::Array1::from_vec(learned),
            (Some(own), None, true) => target += own,
            (Some(own), Some(learned), false) => target += &(ndarray::Array1::from_vec(learned) - own),
            _ => {}
        }
    }
    sum
}

fn write_row(target: &MatrixMut<'_>, row: usize, first_col: usize, values: impl Iterator<Item = f64>) {
    let mut rounded: Vec<f32> = Vec::new();
    values.for_each(|value| rounded.push(value as f32));
    // SAFETY: the reference runs on one thread, or on the disjoint rows of a part.
    unsafe { target.store(row, first_col, &rounded) }
}
