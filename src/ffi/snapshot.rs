//! `pvera_snapshot`: the adapters of a model at one moment.

use std::ffi::c_char;

use super::error::pvera_error;
use super::handle::{self, borrow, output};
use super::linear::pvera_linear;
use super::{guard, input};
use crate::error::{Error, Result};
use crate::fail;
use crate::model::Snapshot;

/// An immutable view of a model's adapters. May be used by many threads.
pub struct pvera_snapshot {
    view: Snapshot,
    linears: Vec<pvera_linear>,
}

impl pvera_snapshot {
    pub(super) fn new(view: Snapshot) -> Result<Self> {
        let mut linears = Vec::new();
        linears.try_reserve_exact(view.linears().len()).map_err(|_| Error::out_of_memory())?;
        linears.extend(view.linears().iter().cloned().map(pvera_linear));
        Ok(Self { view, linears })
    }
}

/// The slot of the adapter published under that name when the snapshot was taken.
///
/// # Safety
/// `snapshot` is a snapshot, `name` a text, `slot` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_snapshot_slot(
    snapshot: *const pvera_snapshot,
    name: *const c_char,
    slot: *mut i32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (snapshot, name, out) =
            unsafe { (borrow("snapshot", snapshot)?, input::text("name", name)?, output("slot", slot)?) };
        out.write(snapshot.view.slots().find(name)?);
        Ok(())
    })
}

/// The adapted layer of that number. It belongs to the snapshot: valid as long as it, never freed.
///
/// # Safety
/// `snapshot` is a snapshot; `linear` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_snapshot_linear(
    snapshot: *const pvera_snapshot,
    layer: usize,
    linear: *mut *const pvera_linear,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (snapshot, out) = unsafe { (borrow("snapshot", snapshot)?, output("linear", linear)?) };
        match snapshot.linears.get(layer) {
            Some(linear) => out.write(linear),
            None => {
                fail!(NotFound, "layer number {layer} is not declared; the model has {} layers", snapshot.linears.len())
            }
        }
        Ok(())
    })
}

/// Frees a snapshot and, with the last one that shows it, an adapter that was replaced or removed. NULL is nothing.
///
/// # Safety
/// `snapshot` is NULL or an owned snapshot, not used again; nor is any of its linears.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_snapshot_free(snapshot: *mut pvera_snapshot) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(snapshot) });
}
