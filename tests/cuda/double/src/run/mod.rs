//! Running kernels: a launch goes over its blocks, a block over its threads, a thread over its instructions.

mod arithmetic;
pub mod block;
pub mod group;
pub mod reach;
pub mod shadow;
pub mod value;
