//! `pvera_outline`: what is in a checkpoint or a bank, for programs that have yet to declare layers.

use std::ffi::c_char;

use super::bank::pvera_bank;
use super::bytes::give_text;
use super::config::pvera_config;
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output, write_if_wanted};
use super::input::{self, Sized_};
use super::matrix::pvera_dtype;
use super::store::{PVERA_GRID_NONE, written_rounding};
use crate::bank::FamilyOutline;
use crate::config::Config;
use crate::error::Result;
use crate::fail;
use crate::interchange::Outline;

/// What a checkpoint is, or the adapters of a bank that have one config, layers and projections (a family of them): read without a
/// model, for whoever has yet to declare its layers. It never changes, and holds nothing open.
pub struct pvera_outline {
    config: Config,
    modules: Vec<Module>,
    info: pvera_outline_info,
}

struct Module {
    path: String,
    outputs: usize,
    learns_bias: bool,
}

/// The numbers of an outline.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_outline_info {
    /// sizeof(pvera_outline_info), set by the caller.
    pub struct_size: usize,
    /// Adapted modules.
    pub modules: usize,
    /// Adapters: 1 for a checkpoint; of a family, how many the bank holds.
    pub adapters: usize,
    /// Tensors that the checkpoint carries beside the adapter: heads of modules_to_save, other modules' biases.
    pub tensors: usize,
    /// Columns of A; 0 for a checkpoint that holds none: its load takes the largest in_features of the declared layers.
    pub in_max: usize,
    /// Rows of B; 0 for a checkpoint that holds none.
    pub out_max: usize,
    /// 0 or 1: A and B are in the file, and not drawn from the config's key.
    pub holds_projections: u32,
    /// Of a family whose A and B are drawn: how they are rounded, as in pvera_store_options. Zero for a checkpoint, whose files do not
    /// say it, and where A and B are held.
    pub base_dtype: pvera_dtype,
    /// `PVERA_GRID_…`, likewise.
    pub grid: i32,
    /// Zero. (Fills the struct.)
    pub reserved: u32,
}

// SAFETY: integers; the size comes first.
unsafe impl Sized_ for pvera_outline_info {
    const NAME: &'static str = "info";
}

impl pvera_outline {
    fn of_checkpoint(outline: Outline) -> Result<Self> {
        let (mut in_max, mut out_max) = (0, 0);
        if let Some((a, b)) = outline.projections() {
            match (&a.shape[..], &b.shape[..]) {
                ([_, columns], [rows, _]) => (in_max, out_max) = (*columns, *rows),
                (a, b) => fail!(Shape, "A and B of the file have shapes {a:?} and {b:?}; wanted two matrices"),
            }
        }
        let module = |module: &crate::interchange::Module| {
            let (outputs, learns_bias) = (module.outputs()?, module.learns_bias);
            Ok(Module { path: module.path.clone(), outputs, learns_bias })
        };
        let modules: Vec<Module> = outline.modules.iter().map(module).collect::<Result<_>>()?;
        let info = pvera_outline_info {
            struct_size: size_of::<pvera_outline_info>(),
            modules: modules.len(),
            adapters: 1,
            tensors: outline.carried().len(),
            in_max,
            out_max,
            holds_projections: outline.projections().is_some().into(),
            base_dtype: pvera_dtype::default(),
            grid: PVERA_GRID_NONE,
            reserved: 0,
        };
        Ok(Self { config: outline.config, modules, info })
    }

    fn of_family(family: FamilyOutline) -> Self {
        let (base_dtype, grid) = written_rounding(family.drawn);
        let info = pvera_outline_info {
            struct_size: size_of::<pvera_outline_info>(),
            modules: family.layers.len(),
            adapters: family.adapters,
            tensors: 0,
            in_max: family.in_max,
            out_max: family.out_max,
            holds_projections: family.drawn.is_none().into(),
            base_dtype,
            grid,
            reserved: 0,
        };
        let layers = family.layers.into_iter();
        let modules =
            layers.map(|layer| Module { path: layer.name, outputs: layer.outputs, learns_bias: layer.learns_bias });
        Self { config: family.config, modules: modules.collect(), info }
    }
}

/// Reads the config of a checkpoint folder and the header of its tensor file; no tensor is read. Checkpoints of VeRA, too.
///
/// Errors: `PVERA_ERROR_IO`, `PVERA_ERROR_FORMAT` for a damaged file or one without an adapted module, `PVERA_ERROR_CONFIG`,
/// `PVERA_ERROR_SHAPE` for vectors and projections that are none.
///
/// # Safety
/// `folder` is a text; `outline` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_from_checkpoint(
    folder: *const c_char,
    outline: *mut *mut pvera_outline,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (folder, out) = unsafe { (input::path("folder", folder)?, output("outline", outline)?) };
        let own = pvera_outline::of_checkpoint(Outline::read(folder)?)?;
        out.write(handle::give(own)?);
        Ok(())
    })
}

/// The family of a number below `usage.families` of a bank, whose model need not declare any layer. Numbers are those of the bank
/// as it is now. Error: PVERA_ERROR_NOT_FOUND beyond the last one.
///
/// # Safety
/// `bank` is a bank; `outline` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_from_bank(
    bank: *const pvera_bank,
    family: usize,
    outline: *mut *mut pvera_outline,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, out) = unsafe { (borrow("bank", bank)?, output("outline", outline)?) };
        let mut families = bank.0.families()?;
        if family >= families.len() {
            fail!(NotFound, "family {family} is beyond the bank's {}", families.len());
        }
        out.write(handle::give(pvera_outline::of_family(families.swap_remove(family)))?);
        Ok(())
    })
}

/// Frees an outline; NULL is nothing.
///
/// # Safety
/// `outline` is NULL or an owned outline, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_free(outline: *mut pvera_outline) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(outline) });
}

/// The numbers of an outline. `info.struct_size` is set by the caller.
///
/// # Safety
/// `outline` is an outline; `info` is sized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_get_info(
    outline: *const pvera_outline,
    info: *mut pvera_outline_info,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (outline, out) = unsafe { (borrow("outline", outline)?, input::sized_output(info)?) };
        out.write(outline.info);
        Ok(())
    })
}

/// A copy of the config.
///
/// # Safety
/// `outline` is an outline; `config` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_config(
    outline: *const pvera_outline,
    config: *mut *mut pvera_config,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (outline, out) = unsafe { (borrow("outline", outline)?, output("config", config)?) };
        out.write(handle::give(pvera_config(outline.config.clone()))?);
        Ok(())
    })
}

/// An adapted module, by a number below `info.modules`: its path (freed with `pvera_text_free`), its out_features (of the whole
/// layer), and whether the adapter learned a bias for it. Each output may be NULL. Error: PVERA_ERROR_NOT_FOUND.
///
/// # Safety
/// `outline` is an outline; the others are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_outline_module(
    outline: *const pvera_outline,
    number: usize,
    path: *mut *mut c_char,
    out_features: *mut usize,
    learns_bias: *mut bool,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let outline = borrow("outline", outline)?;
        let Some(module) = outline.modules.get(number) else {
            fail!(NotFound, "module {number} is beyond the outline's {}", outline.modules.len())
        };
        if !path.is_null() {
            path.write(give_text(&module.path)?);
        }
        write_if_wanted(out_features, module.outputs);
        write_if_wanted(learns_bias, module.learns_bias);
        Ok(())
    })
}
