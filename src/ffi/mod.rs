//! The C ABI and nothing else: one file a handle. `include/pvera.h` is generated from here.
//!
//! Every export goes through [`guard`]: a panic is an error, outputs are written last and only on success.

// The names are C's: this room is the header's source.
#![allow(non_camel_case_types)]

pub mod adapter;
pub mod bank;
pub mod bytes;
pub mod compute;
pub mod config;
pub mod context;
pub mod error;
mod guard;
mod handle;
mod input;
pub mod interchange;
mod layout;
pub mod linear;
pub mod matrix;
pub mod merge;
pub mod model;
pub mod noise;
pub mod optimizer;
pub mod outline;
pub mod snapshot;
pub mod statistics;
pub mod store;
pub mod tensor;
pub mod training;
pub mod uncertainty;
pub mod version;

use guard::guard;
