//! Noise by key: standard normals and dropout masks that are the same on every machine, and PyTorch's generators.
//!
//! # The definition, version 1
//!
//! Precise enough to be written again elsewhere (a CUDA kernel, another language) with the same bits.
//!
//! **Words.** ChaCha with 8 rounds and Bernstein's original layout: 4 constant words, 8 key words, a 64-bit counter
//! (low word first), a 64-bit nonce (low word first). All numbers are little endian.
//!
//! | part | value |
//! | --- | --- |
//! | key, 4 × u64 | seed, layer hash, adapter identity, domain + 2³²·version (domain: normals 1, dropout 2) |
//! | nonce, u64 | row identity: what the caller says a row is, such as a token or a whole sequence |
//! | counter, u64 | sample·2³² + block |
//!
//! Block b, 16 words, belongs to latents (normals) or input columns (dropout) 16b … 16b + 15. So a value depends on
//! these numbers alone: not on the rank, the batch, its order or split, the shard, the thread or the machine.
//! [`layer_hash`] and [`adapter_identity`] make the middle two from names.
//!
//! **Normals.** For j < 8, words w\[j\] and w\[j + 8\] of a block make its normals j and j + 8. In f32, each operation
//! rounded to nearest even, `fma` fused, `log` and `sincos` those of [`math`]:
//!
//! ```text
//! u        = fma(f32(w[j] >> 1), 2⁻³¹, 2⁻³²)      in (0, 1]; f32() rounds a 31-bit integer
//! ρ        = sqrt(−2 · log(u))
//! (s, c)   = sincos_turns(w[j + 8])                of 2π·w/2³²
//! n[j]     = ρ · c
//! n[j + 8] = ρ · s
//! ```
//!
//! Every normal is finite; the largest magnitude is 6.660437, which is √(64 ln 2) rounded. A zero may carry either sign.
//! Antithetic: sample 2j has the normals of counter sample j, and sample 2j + 1 the same with the sign bit flipped.
//!
//! **Dropout.** Column c takes word c mod 16 of block ⌊c/16⌋ and is kept when the word ≥ ⌊p·2³² + ½⌋; see
//! [`DropoutKey::fill`].
//!
//! **Parity.** [`TorchGenerator`] gives PyTorch's CPU normals, and [`draw_projection`] PEFT's projections bit for bit.

mod chacha;
mod dropout;
mod key;
pub mod math;
mod mt19937;
mod normals;
mod rows;
mod torch;

#[cfg(test)]
mod tests;

pub use dropout::{DropoutKey, dropout_threshold};
pub use key::{adapter_identity, layer_hash};
pub use mt19937::{Mt19937, draw_projection, projection_bound};
pub use normals::NormalKey;
pub use rows::Row;
pub use torch::{TorchGenerator, torch_normals};

/// The version of the definition above. It is part of every key: another definition gives unrelated noise, never
/// nearly the same.
pub const NOISE_VERSION: u32 = 1;
