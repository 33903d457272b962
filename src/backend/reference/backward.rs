//! Gradients of a group of layers, in f64.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Axis, s};

use super::gather::{Member, dense, members, normals, weight};
use super::method::AdaptedGradients;
use super::write_row;
use crate::backend::{Backward, Call, Gradients};
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};

pub fn backward(group: &Backward<'_>, gradients: &mut [Gradients<'_, '_>], dx: Option<&MatrixMut<'_>>) -> Result<()> {
    let mut input_gradient = dx.map(|dx| match group.overwrite_dx {
        true => Array2::zeros((dx.rows(), dx.cols())),
        false => dense(&dx.as_const()),
    });
    for ((call, dy), wanted) in group.calls.iter().zip(group.dy).zip(gradients) {
        let dy = dense(dy);
        if let (Some(base), Some(sum)) = (call.base, &mut input_gradient) {
            *sum += &dy.dot(&weight(base.weight));
        }
        layer(call, &group.p, &dy, wanted, input_gradient.as_mut());
    }
    if let (Some(dx), Some(sum)) = (dx, input_gradient) {
        for (row, values) in sum.rows().into_iter().enumerate() {
            write_row(dx, row, 0, values.iter().copied());
        }
    }
    Ok(())
}

fn layer(
    call: &Call<'_>,
    p: &Matrix<'_>,
    dy: &Array2<f64>,
    wanted: &mut Gradients<'_, '_>,
    mut dx: Option<&mut Array2<f64>>,
) {
    let members = members(call);
    let entries: usize = members.iter().map(|member| member.rows.len() * member.term.rank()).sum();
    let divisor = if wanted.kl.mean { entries.max(1) as f64 } else { 1.0 };
    let mut kl_value = 0.0;
    for (index, member) in members.iter().enumerate() {
        let p = member.projected(p);
        let rows_dy = dy.select(Axis(0), &member.rows);
        let prior = prior(wanted, member);
        let own = member.adapted.gradients(
            &p,
            &normals(call, member, 0),
            &rows_dy,
            wanted.kl.weight / divisor,
            prior.as_ref(),
        );
        kl_value += member.adapted.kl(&p) / divisor;
        if let Some(dx) = dx.as_deref_mut() {
            let back = own.p.dot(&member.adapted.a) * member.mask(call);
            for (place, row) in member.rows.iter().enumerate() {
                let mut target = dx.row_mut(*row);
                target += &back.row(place);
            }
        }
        add_variance(call, member, &own, wanted);
        let overwrite = wanted.overwrite;
        let targets = &mut wanted.terms[index];
        put(targets.lambda_b.as_deref_mut(), &own.lambda_b, overwrite.lambda_b);
        put(targets.lambda_d.as_deref_mut(), &own.lambda_d, overwrite.lambda_d);
        put(targets.bias.as_deref_mut(), &rows_dy.sum_axis(Axis(0)), overwrite.bias);
    }
    if let Some(value) = wanted.kl_value.as_deref_mut() {
        *value = kl_value;
    }
}

fn prior(wanted: &Gradients<'_, '_>, member: &Member<'_>) -> Option<(Array2<f64>, Array2<f64>)> {
    let columns = member.term.latent_column..member.term.latent_column + member.term.rank();
    let part = |given: Option<Matrix<'_>>| match given {
        Some(matrix) => dense(&matrix).slice(s![.., columns.clone()]).select(Axis(0), &member.rows),
        None => Array2::zeros((member.rows.len(), member.term.rank())),
    };
    let (dmu, dlogvar) = (wanted.prior.dmu, wanted.prior.dlogvar);
    (dmu.is_some() || dlogvar.is_some()).then(|| (part(dmu), part(dlogvar)))
}

/// Rows of one identity and sample share their noise: their slopes add before they are squared.
fn add_variance(call: &Call<'_>, member: &Member<'_>, own: &AdaptedGradients, wanted: &mut Gradients<'_, '_>) {
    let Some(variance) = &mut wanted.variance else { return };
    let mut sums: BTreeMap<(usize, u64, u32), Array1<f64>> = BTreeMap::new();
    for (place, row) in member.rows.iter().enumerate() {
        let value = variance.index.map_or(*row, |index| index[*row] as usize);
        let key = (value, call.keys.identity(*row), call.keys.sample(*row));
        let sum = sums.entry(key).or_insert_with(|| Array1::zeros(member.term.rank()));
        *sum += &own.slope.row(place);
    }
    for ((value, ..), sum) in sums {
        variance.values[value] += sum.mapv(|slope| slope * slope).sum();
    }
}

fn put(target: Option<&mut [f32]>, values: &Array1<f64>, overwrite: bool) {
    for (place, value) in target.into_iter().flatten().zip(values) {
        *place = if overwrite { *value as f32 } else { (f64::from(*place) + value) as f32 };
    }
}
