//! The kernels that the library embeds, by name, and their code in a CUDA context.

use std::ffi::CStr;

use super::driver::{Driver, Function, Module};
use crate::error::Result;

/// A file of PTX with the zero at its end that libcuda wants.
macro_rules! text {
    ($file:literal) => {
        concat!(include_str!($file), "\0").as_bytes()
    };
}

/// The kernels, as `kernels/compile.py` makes them, and what each file has.
const MODULES: [(&[u8], &[&CStr]); 5] = [
    (text!("kernels/ptx/lists.ptx"), &[c"put", c"resolve"]),
    (
        text!("kernels/ptx/product.ptx"),
        &[c"product_split_k", c"product_split_j", c"product_tile_k", c"product_tile_j", c"combine"],
    ),
    (text!("kernels/ptx/latent.ptx"), &[c"mask", c"latent"]),
    (text!("kernels/ptx/finish.ptx"), &[c"finish"]),
    (
        text!("kernels/ptx/gradients.ptx"),
        &[c"weigh", c"slopes", c"divergence", c"kl_total", c"sums", c"deliver", c"accumulate"],
    ),
];

/// A kernel, by its place in the list above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Put,
    Resolve,
    ProductSplitK,
    ProductSplitJ,
    ProductTileK,
    ProductTileJ,
    Combine,
    Mask,
    Latent,
    Finish,
    Weigh,
    Slopes,
    Divergence,
    KlTotal,
    Sums,
    Deliver,
    Accumulate,
}

/// The kernels in a CUDA context: loaded once, run on each of its streams.
#[derive(Debug, Default)]
pub struct Code {
    modules: Vec<Module>,
    /// In the order of [`Kernel`].
    pub functions: Vec<Function>,
    /// Whether they gave the known answers.
    pub is_tested: bool,
}

// SAFETY: handles of libcuda may be used on any thread.
unsafe impl Send for Code {}

impl Code {
    /// Loads what is not loaded yet: all or nothing.
    pub fn load(&mut self, driver: &Driver) -> Result<()> {
        if !self.functions.is_empty() {
            return Ok(());
        }
        self.unload(driver);
        let outcome = MODULES.iter().try_for_each(|(ptx, kernels)| {
            let text = CStr::from_bytes_with_nul(ptx).expect("PTX has no other zero");
            let module = driver.load_module(text);
            let module = module
                .map_err(|error| error.within(format!("the module of kernel {}", kernels[0].to_string_lossy())))?;
            self.modules.push(module);
            kernels.iter().try_for_each(|name| driver.function(module, name).map(|found| self.functions.push(found)))
        });
        if outcome.is_err() {
            self.unload(driver);
        }
        outcome
    }

    /// No kernel of it runs any more. What a driver does not unload stays for the next time.
    pub fn unload(&mut self, driver: &Driver) {
        self.modules.retain(|module| driver.unload_module(*module).is_err());
        self.functions.clear();
        self.is_tested = false;
    }

    pub fn is_unloaded(&self) -> bool {
        self.modules.is_empty()
    }
}
