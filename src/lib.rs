//! pvera runs, trains and serves PVeRA adapters: probabilistic vector-based random matrix adaptation
//! (arXiv 2512.07703), a LoRA-family method whose latent is a distribution.
//!
//! One frozen random pair `A [2r, in_max]`, `B [out_max, r]` serves every layer. A layer learns two vectors:
//!
//! ```text
//! p            = dropout(x) Aᵀ                     [n, 2r]
//! (mu, logvar) = split(λ_d ∘ p)                    [n, r] each
//! z            = mu  |  mu + eps ∘ exp(½ logvar)   mean | sample (fixed: eps = 1)
//! y            = x Wᵀ + bias + λ_b ∘ (z Bᵀ)        [n, out]
//! ```
//!
//! The rooms, in the order in which data flows through them:
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`ffi`] | the C ABI and nothing else |
//! | [`interchange`] | other programs' files: exports, merges on disk, shrinking, imports |
//! | [`model`] | the host's named layers and the published adapters |
//! | [`adapter`] | one trained adapter: load, save, its vectors for every layer |
//! | [`bank`] | thousands of adapters in one file |
//! | [`linear`] | the adapted layer: forward, backward, sample, moments, merge |
//! | [`projection`] | the shared store: A and B, from the key or a file |
//! | [`noise`] | standard normals by key, and PyTorch's generators for parity |
//! | [`backend`] | matrices and vectors: `reference` (f64, the oracle), `cpu` and `cuda` |
//! | [`uncertainty`] | running moments, intervals, entropy, early stopping, calibration |
//! | [`config`], [`tensor`], [`memory`], [`error`] | what all of them speak |

/// The library's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod adapter;
pub mod backend;
pub mod bank;
pub mod config;
pub mod context;
pub mod error;
pub mod ffi;
pub mod interchange;
pub mod linear;
pub mod memory;
pub mod model;
pub mod noise;
pub mod optimizer;
pub mod projection;
pub mod quiet;
pub mod simd;
pub mod tensor;
pub mod uncertainty;
