//! A test double of libcuda: the driver functions that pvera calls, over an interpreter of PTX that checks what kernels do.
//!
//! `exports` holds the C functions; each one locks the `driver`'s state and works on its contexts, streams, memory, modules and
//! graphs. Work that goes into streams runs only when somebody waits for it, see `stream` and `work`; kernels run in `run`.

pub mod clock;
pub mod codes;
pub mod context;
pub mod copies;
pub mod driver;
pub mod explain;
pub mod exports;
pub mod graph;
pub mod memory;
pub mod module;
pub mod ptx;
pub mod report;
pub mod run;
pub mod settings;
pub mod stream;
pub mod work;
