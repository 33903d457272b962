//! From resolved calls in f32 to the f64 matrices of one adapter and the rows that use it.

use ndarray::{Array1, Array2, Axis, s};

use super::method::Adapted;
use crate::backend::{Call, Mode, Term, Weight};
use crate::tensor::Matrix;

/// One term and its rows.
pub struct Member<'a> {
    pub term: &'a Term<'a>,
    pub index: usize,
    pub adapted: Adapted,
    pub rows: Vec<usize>,
}

pub fn members<'a>(call: &Call<'a>) -> Vec<Member<'a>> {
    let terms = call.terms.iter().enumerate();
    terms
        .map(|(index, term)| {
            let rows = (0..call.rows).filter(|row| call.membership.holds(*row, index)).collect();
            Member { term, index, adapted: Member::adapted(term), rows }
        })
        .collect()
}

impl Member<'_> {
    pub fn adapted(term: &Term<'_>) -> Adapted {
        Adapted {
            a: weight(term.a),
            b: weight(term.b),
            lambda_d: vector(&term.lambda_d),
            lambda_b: vector(&term.lambda_b),
            scale: f64::from(term.scale),
            mode: term.mode,
            logvar_bound: f64::from(term.logvar_bound),
        }
    }

    /// This member's rows of x, after dropout.
    pub fn masked_inputs(&self, call: &Call<'_>, x: &Matrix<'_>) -> Array2<f64> {
        dense(x).select(Axis(0), &self.rows) * self.mask(call)
    }

    /// The scaled dropout mask of this member's rows.
    pub fn mask(&self, call: &Call<'_>) -> Array2<f64> {
        if let Some(given) = call.noise.dropout_mask {
            return dense(&given).select(Axis(0), &self.rows);
        }
        let mut mask = Array2::ones((self.rows.len(), call.inputs));
        if let Some((key, probability)) = self.term.dropout {
            let mut values = vec![0.0; call.inputs];
            for (place, row) in self.rows.iter().enumerate() {
                let keys = &call.keys;
                key.fill(keys.identity(*row), keys.sample(*row), call.in_offset, probability, &mut values)
                    .expect("checked by the config");
                mask.row_mut(place).assign(&vector(&values));
            }
        }
        mask
    }

    pub fn projected(&self, p: &Matrix<'_>) -> Array2<f64> {
        let columns = self.term.p_column..self.term.p_column + self.term.width();
        dense(p).slice(s![.., columns]).select(Axis(0), &self.rows)
    }
}

/// The noise of a member's rows: the caller's, or drawn by key.
pub fn normals(call: &Call<'_>, member: &Member<'_>, draw: usize) -> Array2<f64> {
    let rank = member.term.rank();
    if let (Some(eps), Mode::Sample) = (call.noise.eps, member.term.mode) {
        let rows: Vec<usize> = member.rows.iter().map(|row| draw * call.rows + row).collect();
        let columns = member.term.latent_column..member.term.latent_column + rank;
        return dense(&eps).slice(s![.., columns]).select(Axis(0), &rows);
    }
    let mut eps = Array2::zeros((member.rows.len(), rank));
    if member.term.mode == Mode::Sample {
        let mut values = vec![0.0; rank];
        for (place, row) in member.rows.iter().enumerate() {
            let sample = call.keys.sample(*row).wrapping_add(draw as u32);
            member.term.noise.fill(call.keys.identity(*row), sample, call.noise.antithetic, &mut values);
            eps.row_mut(place).assign(&vector(&values));
        }
    }
    eps
}

pub fn dense(matrix: &Matrix<'_>) -> Array2<f64> {
    let mut values = vec![0.0; matrix.cols()];
    let mut out = Array2::zeros((matrix.rows(), matrix.cols()));
    for row in 0..matrix.rows() {
        matrix.load(row, 0, &mut values);
        out.row_mut(row).assign(&vector(&values));
    }
    out
}

pub fn weight(weight: Weight<'_>) -> Array2<f64> {
    Array2::from_shape_fn((weight.outputs(), weight.inputs()), |(output, input)| f64::from(weight.at(output, input)))
}

pub fn vector(values: &[f32]) -> Array1<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
