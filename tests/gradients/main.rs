//! Gradients: the oracle against finite differences, and the kernels against the oracle.

#[path = "../common/mod.rs"]
mod common;
mod kernels;
mod layers;
mod oracle;
mod tape;
mod uncertainty;
