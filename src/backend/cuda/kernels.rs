//! The kernels that the library embeds, by name.

use std::ffi::CStr;

/// A file of PTX with the zero at its end that libcuda wants.
macro_rules! text {
    ($file:literal) => {
        concat!(include_str!($file), "\0").as_bytes()
    };
}

/// The kernels, as `kernels/compile.py` makes them, and what each file has.
pub const MODULES: [(&[u8], &[&CStr]); 5] = [
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
