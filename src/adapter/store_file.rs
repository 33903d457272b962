//! A store from a safetensors file alone.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::load::dtype_of;
use super::source::{A_KEY, B_KEY, Contents, contents};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::projection::{Frozen, Store};

/// Reads (or maps) the projections of a checkpoint's tensor file.
pub fn read_store(path: &Path, map: bool) -> Result<Store> {
    let bytes = contents(path, map)?;
    let read = || {
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| Error::new(Code::Format, format!("not a valid safetensors file: {error}")))?;
        let view = |key: &str| match file.tensor(key) {
            Ok(view) if view.shape().len() == 2 => Ok(view),
            Ok(view) => fail!(Projection, "{key} has shape {:?}; wanted a matrix", view.shape()),
            Err(_) => fail!(Projection, "{key} is not in the file"),
        };
        let (a, b) = (view(A_KEY)?, view(B_KEY)?);
        Store::new(frozen(A_KEY, &a, &bytes)?, frozen(B_KEY, &b, &bytes)?, dtype_of(A_KEY, a.dtype())?)
    };
    read().map_err(|error| error.within(path.display()))
}

/// One projection, copied or left in the map.
pub(super) fn frozen(key: &str, view: &TensorView<'_>, bytes: &Contents) -> Result<Frozen> {
    let dtype = dtype_of(key, view.dtype())?;
    let (rows, cols) = (view.shape()[0], view.shape()[1]);
    match bytes {
        Contents::Read(_) => Frozen::from_bytes(&Allocator::default(), view.data(), dtype, rows, cols),
        Contents::Mapped(map) => {
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            Frozen::from_map(&Allocator::default(), map, start, dtype, rows, cols)
        }
    }
}
