//! PyTorch's CPU standard normals, for parity with PEFT's `generator_seed`.
//!
//! Logarithm and cosine are the platform's, in f64, rounded to f32 at the end; PyTorch's own (f32 vectors) differ
//! from them, and from one of its machines to the next, in the last place: 2.4e-7 of the largest value. Noise whose
//! bits are promised is [`NormalKey`](super::NormalKey)'s.

use std::f64::consts::TAU;

use super::mt19937::Mt19937;

/// PyTorch draws a tensor of at least this many elements in blocks of this many.
const BLOCK: usize = 16;

/// `torch.Generator()` on the CPU after `manual_seed(seed)`, as `torch.randn` and `Tensor.normal_` see it.
#[derive(Clone, Debug)]
pub struct TorchGenerator {
    stream: Mt19937,
    /// The second normal of a pair, kept for the next short tensor; long ones between leave it alone.
    cached: Option<f64>,
}

impl TorchGenerator {
    pub fn new(seed: u64) -> Self {
        Self { stream: Mt19937::new(seed), cached: None }
    }

    /// Fills one contiguous float32 tensor; the next call continues the stream, as a second tensor would.
    pub fn normals(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            for value in out {
                *value = self.next_normal() as f32;
            }
            return;
        }
        for value in out.iter_mut() {
            *value = self.stream.uniform_f32();
        }
        let (blocks, tail) = out.as_chunks_mut::<BLOCK>();
        for block in blocks {
            box_muller(block);
        }
        if !tail.is_empty()
            && let Some(last) = out.last_chunk_mut::<BLOCK>()
        {
            // PyTorch draws the last 16 again, over values that are already normals.
            for value in last.iter_mut() {
                *value = self.stream.uniform_f32();
            }
            box_muller(last);
        }
    }

    fn next_normal(&mut self) -> f64 {
        if let Some(normal) = self.cached.take() {
            return normal;
        }
        let turn = TAU * self.stream.uniform_f64();
        let radius = (-2.0 * (-self.stream.uniform_f64()).ln_1p()).sqrt();
        self.cached = Some(radius * turn.sin());
        radius * turn.cos()
    }
}

/// Uniforms j and j + 8 become normals j and j + 8.
fn box_muller(block: &mut [f32; BLOCK]) {
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * f64::from(1.0 - block[j]).ln()).sqrt();
        // PyTorch rounds the angle to f32, and that shows.
        let angle = f64::from(std::f32::consts::TAU * block[j + BLOCK / 2]);
        block[j] = (radius * angle.cos()) as f32;
        block[j + BLOCK / 2] = (radius * angle.sin()) as f32;
    }
}

/// The first tensor of normals after `manual_seed(seed)`.
pub fn torch_normals(seed: u64, out: &mut [f32]) {
    TorchGenerator::new(seed).normals(out);
}
