//! The CUDA backend against the CPU's: the same bits. Needs a libcuda: the driver's on a machine with a GPU, or one of the
//! doubles of `double/` and `oracle/`. ctest runs these on both doubles; `docs/cuda.md` says how to on a GPU.

mod bits;
mod captures;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod errors;
mod golden;
mod graphs;
mod lifetimes;
mod out_of_memory;
mod requests;

use std::rc::Rc;
use std::sync::Arc;

use common::place;
use driver::Gpu;
use pvera::backend::cuda::Device;
use pvera::context::Context;
use pvera::memory::Allocator;

/// A GPU (or its double) for one test, and a context of the library on its stream.
pub fn bench() -> (Rc<Gpu>, Context) {
    let gpu = Gpu::new();
    place::set_memory(gpu.clone());
    // SAFETY: the stream lives as long as the test.
    let device = gpu.inside(|| unsafe { Device::new(None, gpu.stream) }).unwrap();
    let context = Context::on_cuda(Arc::new(device), Allocator::default()).unwrap();
    (gpu, context)
}

/// The end of a test: the models are done, and nothing went wrong that only a double can see.
pub fn no_complaints(gpu: &Gpu) {
    place::release_models();
    assert_eq!(gpu.complaints(), "");
}
