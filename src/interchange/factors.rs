//! The mean of an adapted layer as two factors, exactly: `A' = diag(λ_d[:r]) A[:r]` and `B' = alpha · diag(λ_b) B`.

use half::{bf16, f16};

use super::adapted;
use crate::adapter::{Adapter, Vectors};
use crate::error::{Error, Result};
use crate::fail;
use crate::model::Layer;
use crate::projection::Frozen;
use crate::tensor::Dtype;

/// One layer's factors, made a row at a time. An element is one product, rounded once.
pub struct Factors<'a> {
    pub layer: &'a Layer,
    vectors: Vectors<'a>,
    a: &'a Frozen,
    b: &'a Frozen,
    alpha: f64,
    pub rank: usize,
}

impl<'a> Factors<'a> {
    /// Of every adapted layer, whole, also where only a shard is declared.
    pub fn of(adapter: &'a Adapter) -> Result<Vec<Self>> {
        let (store, alpha) = (adapter.store(), adapter.config().alpha);
        let factors = |(layer, vectors)| Self { layer, vectors, a: store.a(), b: store.b(), alpha, rank: store.rank() };
        Ok(adapted(adapter)?.into_iter().map(factors).collect())
    }

    /// A learned bias.
    pub fn bias(&self) -> Option<&'a [f32]> {
        self.vectors.bias.map(|bias| bias.on_host())
    }

    /// `[r, in]`.
    pub fn a_shape(&self) -> [usize; 2] {
        [self.rank, self.layer.in_total]
    }

    /// `[out, r]`.
    pub fn b_shape(&self) -> [usize; 2] {
        [self.layer.out_total, self.rank]
    }

    /// A row of A', stored.
    pub fn a_row(&self, row: usize, dtype: Dtype, out: &mut Vec<u8>) -> Result<()> {
        let factor = f64::from(self.vectors.lambda_d.on_host()[row]);
        self.row("A'", self.a, (row, self.layer.in_total), factor, dtype, out)
    }

    /// A row of B', stored.
    pub fn b_row(&self, row: usize, dtype: Dtype, out: &mut Vec<u8>) -> Result<()> {
        let factor = self.alpha * f64::from(self.vectors.lambda_b.on_host()[row]);
        self.row("B'", self.b, (row, self.rank), factor, dtype, out)
    }

    fn row(
        &self,
        name: &str,
        matrix: &Frozen,
        (row, cols): (usize, usize),
        factor: f64,
        dtype: Dtype,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        const BLOCK: usize = 1024;
        out.clear();
        out.try_reserve(cols * dtype.size()).map_err(|_| Error::out_of_memory())?;
        let (matrix, mut values) = (matrix.matrix(), [0.0f32; BLOCK]);
        for first in (0..cols).step_by(BLOCK) {
            let part = &mut values[..BLOCK.min(cols - first)];
            matrix.load(row, first, part);
            for (place, value) in part.iter().enumerate() {
                if !push(out, factor * f64::from(*value), dtype) {
                    fail!(
                        Overflow,
                        "layer '{}': {name} would hold {:e} at row {row}, column {}, which {} does not hold",
                        self.layer.name,
                        factor * f64::from(*value),
                        first + place,
                        dtype.name()
                    );
                }
            }
        }
        Ok(())
    }
}

/// Appends a value, rounded once; false where it is not finite then.
fn push(out: &mut Vec<u8>, value: f64, dtype: Dtype) -> bool {
    match dtype {
        Dtype::F32 => {
            out.extend_from_slice(&(value as f32).to_le_bytes());
            (value as f32).is_finite()
        }
        Dtype::F16 => {
            out.extend_from_slice(&f16::from_f64(value).to_le_bytes());
            f16::from_f64(value).is_finite()
        }
        Dtype::Bf16 => {
            out.extend_from_slice(&bf16::from_f64(value).to_le_bytes());
            bf16::from_f64(value).is_finite()
        }
    }
}
