//! A store from the bytes of a safetensors file, inside a checkpoint or alone.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::load::dtype_of;
use super::source::{Contents, Keys};
use crate::config::Method;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::projection::{Frozen, Store};

/// Reads (or maps) the projections of a checkpoint's tensor file. What is not mapped lives in the allocator's memory.
pub fn read_store(path: &Path, map: bool, allocator: &Allocator) -> Result<Store> {
    store_in(&Contents::of(path, map)?, allocator).map_err(|error| error.within(path.display()))
}

/// The same from memory, copied.
pub fn store_from_memory(bytes: &[u8], allocator: &Allocator) -> Result<Store> {
    store_in(&Contents::memory(bytes)?, allocator).map_err(|error| error.within("the tensors in memory"))
}

fn store_in(bytes: &Contents, allocator: &Allocator) -> Result<Store> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::new(Code::Format, format!("not a valid safetensors file: {error}")))?;
    let view = |key: &str| match file.tensor(key) {
        Ok(view) if view.shape().len() == 2 => Ok(view),
        Ok(view) => fail!(Projection, "{key} has shape {:?}; wanted a matrix", view.shape()),
        Err(_) => fail!(Projection, "{key} is not in the file"),
    };
    let method = if file.tensor(Keys::VERA.a).is_ok() { Method::Vera } else { Method::Pvera };
    let keys = Keys::of(method);
    let (a, b) = (view(keys.a)?, view(keys.b)?);
    let (rank, rows) = (b.shape()[1], method.a_rows_text());
    if rank > usize::MAX / 2 || a.shape()[0] != method.a_rows(rank) {
        fail!(
            Projection,
            "{} has shape {:?}; wanted [{rows}, in_max] with r = {rank}, the columns of {}",
            keys.a,
            a.shape(),
            keys.b
        );
    }
    stored(allocator, &a, &b, keys, bytes)
}

/// A and B of a file, copied or left in its map.
pub(super) fn stored(
    allocator: &Allocator,
    a: &TensorView<'_>,
    b: &TensorView<'_>,
    keys: &Keys,
    bytes: &Contents,
) -> Result<Store> {
    let frozen = |key: &str, view: &TensorView<'_>| {
        let dtype = dtype_of(key, view.dtype())?;
        let (rows, cols) = (view.shape()[0], view.shape()[1]);
        match bytes {
            Contents::Read(_) => Frozen::from_bytes(allocator, view.data(), dtype, rows, cols),
            Contents::Mapped(map) => {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                Frozen::from_map(allocator, map, start, dtype, rows, cols)
            }
        }
    };
    Store::new(frozen(keys.a, a)?, frozen(keys.b, b)?, dtype_of(keys.a, a.dtype())?)
}
