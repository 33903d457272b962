//! Other programs' files: exports of the mean, merges on disk, shrinking and growing checkpoints, imports.

use std::ffi::c_char;

use super::adapter::pvera_adapter;
use super::bytes::give_text;
use super::context::{pvera_callbacks, pvera_context};
use super::error::pvera_error;
use super::guard;
use super::handle::{borrow, write_if_wanted};
use super::input::{self, Sized_};
use super::matrix::{optional_dtype, pvera_dtype, written_dtype};
use super::model::pvera_model;
use super::store::written_rounding;
use crate::error::Result;
use crate::fail;
use crate::interchange::{self, Authors, Gguf, ModelFiles, Options, Rope};
use crate::model::Listener;

/// The mean is meant, also of an adapter that samples at inference: its sampling is lost. As `PVERA_MERGE_MEAN`.
pub const PVERA_FILES_MEAN: u32 = 1;
/// What the target cannot hold (a learned bias, a carried tensor) is left out with a warning, instead of being an error.
pub const PVERA_FILES_LEAVE_OUT: u32 = 2;
/// What the target holds is replaced: the two files of a checkpoint or LoRA, a file by `pvera_adapter_export_gguf`, a whole
/// folder by `pvera_merge_files`. Without it, PVERA_ERROR_EXISTS names what is there.
pub const PVERA_FILES_REPLACE: u32 = 4;

/// By the architecture, as llama.cpp's converter does.
pub const PVERA_ROPE_BY_ARCHITECTURE: i32 = 0;
/// Rows of q and k stay as they are.
pub const PVERA_ROPE_KEEP: i32 = 1;
/// Rows of q and k are permuted, from rotate-half pairs to neighbours.
pub const PVERA_ROPE_PERMUTE: i32 = 2;

/// How files are read and written. Zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_files_options {
    /// sizeof(pvera_files_options).
    pub struct_size: usize,
    /// `PVERA_FILES_…`, or-ed.
    pub flags: u32,
    /// Of exports: the element type that is written; zero: f32. Of shrinking and growing: the base model's, to which the
    /// key's projections are rounded.
    pub dtype: pvera_dtype,
    /// What stands before a module's path in the names of the model's tensors; NULL: nothing.
    pub prefix: *const c_char,
    /// They hear of warnings and of progress: stages "export", "merge" and "compare projections". A result other than 0 stops
    /// the work with PVERA_ERROR_CANCELLED, and nothing is left behind.
    pub callbacks: pvera_callbacks,
}

// SAFETY: integers, pointers and optional functions; the size comes first.
unsafe impl Sized_ for pvera_files_options {
    const NAME: &'static str = "options";
}

/// A module and its tensor in llama.cpp.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_gguf_name {
    /// Module path: "model.layers.0.self_attn.q_proj".
    pub module: *const c_char,
    /// Tensor name: "blk.0.attn_q.weight".
    pub tensor: *const c_char,
}

/// What llama.cpp must be told of the model, and a checkpoint does not say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_gguf_options {
    /// sizeof(pvera_gguf_options).
    pub struct_size: usize,
    /// The model's general.architecture: "llama", "qwen2", …
    pub architecture: *const c_char,
    /// `[name_count]`: names of tensors, before those of the built-in table; NULL: that alone. It knows
    /// `model.layers.N.self_attn.{q,k,v,o}_proj`, `model.layers.N.mlp.{gate,up,down}_proj` and lm_head of llama (which is
    /// Mistral, too), granite, olmo, olmo2, qwen2, qwen3, gemma, gemma2 and gemma3 (these three without lm_head).
    pub names: *const pvera_gguf_name,
    /// How many.
    pub name_count: usize,
    /// num_attention_heads of the model, where rows of q are permuted.
    pub heads: usize,
    /// num_key_value_heads, where rows of k are.
    pub kv_heads: usize,
    /// `PVERA_ROPE_…`. The table's llama, granite and olmo are permuted.
    pub rope: i32,
}

// SAFETY: integers and pointers; the size comes first.
unsafe impl Sized_ for pvera_gguf_options {
    const NAME: &'static str = "gguf";
}

/// What the files of the method's authors do not say. Zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_authors_options {
    /// sizeof(pvera_authors_options).
    pub struct_size: usize,
    /// By which they multiply the delta; 0: 16, as in their configuration.
    pub alpha: f64,
    /// Which of the copies that were trained side by side in a grid search. Their last file holds the best one alone, which
    /// keeps the projections of its number.
    pub head: usize,
    /// Where `draws` is set and the file holds no projections, these are drawn from this seed, as PyTorch does on the CPU.
    pub seed: u64,
    /// 0 or 1 (as any other number).
    pub draws: u8,
}

// SAFETY: numbers; the size comes first.
unsafe impl Sized_ for pvera_authors_options {
    const NAME: &'static str = "authors";
}

/// The options as a call reads them, with the listener that they name.
struct Given<'a> {
    options: Options<'a>,
    listener: Box<dyn Listener>,
}

impl Given<'_> {
    /// # Safety
    /// `options` is NULL or sized options, whose prefix outlives the call.
    unsafe fn read(options: *const pvera_files_options) -> Result<Self> {
        // SAFETY: the caller's promise.
        let given = unsafe { input::sized(options)? };
        let known = PVERA_FILES_MEAN | PVERA_FILES_LEAVE_OUT | PVERA_FILES_REPLACE;
        if given.flags & !known != 0 {
            fail!(Argument, "options.flags is {:#x}; wanted PVERA_FILES_… or-ed, at most {known:#x}", given.flags);
        }
        let options = Options {
            mean: given.flags & PVERA_FILES_MEAN != 0,
            leave_out: given.flags & PVERA_FILES_LEAVE_OUT != 0,
            replace: given.flags & PVERA_FILES_REPLACE != 0,
            dtype: optional_dtype("options.dtype", given.dtype)?,
            // SAFETY: the caller's promise.
            prefix: unsafe { optional_text("options.prefix", given.prefix)? },
            ..Options::default()
        };
        Ok(Self { options, listener: given.callbacks.listener() })
    }

    fn get(&self) -> Options<'_> {
        Options { listener: &*self.listener, ..self.options }
    }
}

/// # Safety
/// `text` is NULL or a text.
unsafe fn optional_text<'a>(name: &str, text: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    if text.is_null() { Ok("") } else { unsafe { input::text(name, text) } }
}

/// Declares the layers that a checkpoint adapts, in the order of their names and without weights, with the sizes that they
/// have in a model's files. Only headers are read. All layers are declared, or none.
///
/// `files` is a folder with model.safetensors or with model.safetensors.index.json and its shards, or one safetensors file.
/// `count` (may be NULL) gets how many layers these are, `dtype` (may be NULL) the element type of their weights: all zero
/// where they differ or are none that computing takes. Of the options, only the prefix matters.
///
/// Errors name the tensor: PVERA_ERROR_NOT_FOUND for a layer without a weight, PVERA_ERROR_SHAPE for one of the wrong shape,
/// PVERA_ERROR_FORMAT for files that are damaged or lie, PVERA_ERROR_EXISTS for a layer that is declared already.
///
/// # Safety
/// `model` is a model; `checkpoint` and `files` are texts; `options` is NULL or sized options; `count` and `dtype` are NULL or
/// places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_declare_files(
    model: *const pvera_model,
    checkpoint: *const c_char,
    files: *const c_char,
    options: *const pvera_files_options,
    count: *mut usize,
    dtype: *mut pvera_dtype,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (model, given) = (borrow("model", model)?, Given::read(options)?);
        let (checkpoint, files) = (input::path("checkpoint", checkpoint)?, input::path("files", files)?);
        let files = ModelFiles::open(files)?;
        let declared = interchange::declare_layers(&model.0, checkpoint, &files, given.options.prefix)?;
        write_if_wanted(count, declared.count);
        write_if_wanted(dtype, declared.dtype.map(written_dtype).unwrap_or_default());
        Ok(())
    })
}

/// The layer of that number: its module path (freed with `pvera_text_free`), and the sizes of the whole layer. Each output may
/// be NULL. Error: PVERA_ERROR_NOT_FOUND for a number that is not declared.
///
/// # Safety
/// `model` is a model; the others are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_model_layer(
    model: *const pvera_model,
    number: usize,
    name: *mut *mut c_char,
    in_total: *mut usize,
    out_total: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let layers = borrow("model", model)?.0.layers();
        let layer = layers.get(number)?;
        if !name.is_null() {
            name.write(give_text(&layer.name)?);
        }
        write_if_wanted(in_total, layer.in_total);
        write_if_wanted(out_total, layer.out_total);
        Ok(())
    })
}

/// Writes the adapter's mean as a LoRA in PEFT's format, which every engine with LoRA runs:
/// `A' = diag(λ_d[:r]) A[:r]`, `B' = alpha · diag(λ_b) B`, `lora_alpha = r`, so that its scaling is 1. An element is one
/// product, rounded once to options.dtype. Learned biases and carried tensors go along.
///
/// All or nothing, as `pvera_adapter_save`. Errors: PVERA_ERROR_STATE for an adapter that samples at inference, unless
/// options.flags has PVERA_FILES_MEAN; PVERA_ERROR_EXISTS for a folder that holds a LoRA, unless it has PVERA_FILES_REPLACE,
/// or an adapter of another kind; PVERA_ERROR_OVERFLOW for an element that the type does not hold.
///
/// # Safety
/// `adapter` is an adapter, not written meanwhile; `folder` is a text; `options` is NULL or sized options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_export_lora(
    adapter: *const pvera_adapter,
    folder: *const c_char,
    options: *const pvera_files_options,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (adapter, folder, given) =
            (borrow("adapter", adapter)?, input::path("folder", folder)?, Given::read(options)?);
        interchange::export_lora(&adapter.0, folder, &given.get())
    })
}

/// Writes the same LoRA as a GGUF adapter, in the layout that llama.cpp documents (tested against the gguf package; llama.cpp
/// itself was not run): rows of q and k are permuted where its converter permutes the model's.
/// The file appears at once, or not at all.
///
/// GGUF holds no learned bias and no carried tensor: PVERA_ERROR_UNSUPPORTED names the first, unless options.flags has
/// PVERA_FILES_LEAVE_OUT. PVERA_ERROR_EXISTS for a file that is there, unless it has PVERA_FILES_REPLACE;
/// PVERA_ERROR_NOT_FOUND for a module without a name, PVERA_ERROR_ARGUMENT for missing heads; the rest as for
/// `pvera_adapter_export_lora`.
///
/// # Safety
/// `adapter` is an adapter, not written meanwhile; `path` is a text; `gguf` is sized options; `options` is NULL or such.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_export_gguf(
    adapter: *const pvera_adapter,
    path: *const c_char,
    gguf: *const pvera_gguf_options,
    options: *const pvera_files_options,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (adapter, path, told, given) =
            (borrow("adapter", adapter)?, input::path("path", path)?, input::required(gguf)?, Given::read(options)?);
        let given_names = input::array("gguf.names", told.names, told.name_count)?;
        let mut names = Vec::new();
        names.try_reserve_exact(given_names.len()).map_err(|_| crate::error::Error::out_of_memory())?;
        for name in given_names {
            names
                .push((input::text("gguf.names.module", name.module)?, input::text("gguf.names.tensor", name.tensor)?));
        }
        let rope = match told.rope {
            PVERA_ROPE_BY_ARCHITECTURE => Rope::ByArchitecture,
            PVERA_ROPE_KEEP => Rope::Keep,
            PVERA_ROPE_PERMUTE => Rope::Permute,
            other => fail!(Argument, "gguf.rope is {other}; wanted PVERA_ROPE_… (0, 1 or 2)"),
        };
        let gguf = Gguf {
            architecture: input::text("gguf.architecture", told.architecture)?,
            names: &names,
            heads: told.heads,
            kv_heads: told.kv_heads,
            rope,
        };
        interchange::export_gguf(&adapter.0, path, &gguf, &given.get())
    })
}

/// Writes a checkpoint without its projections (save_projection false), after checking that its key draws them bit for bit, as
/// f32 or rounded to bf16 or f16 (options.dtype: that alone). Everything else stays as it is. All or nothing, as
/// `pvera_adapter_save`; with PVERA_FILES_REPLACE, `out` may be `folder`.
///
/// `base_dtype` and `in_max` (either may be NULL) get what the result's load is to be told: the element type that they were
/// rounded to, and the columns of A, where these are not the largest in_features of the adapted layers.
///
/// Errors: PVERA_ERROR_PROJECTION says where they first differ from the key's, or that there are none; PVERA_ERROR_EXISTS for a
/// checkpoint in `out`, unless options.flags has PVERA_FILES_REPLACE.
///
/// # Safety
/// `folder` and `out` are texts; `options` is NULL or sized options; `base_dtype` and `in_max` are NULL or places for the
/// results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_checkpoint_shrink(
    folder: *const c_char,
    out: *const c_char,
    options: *const pvera_files_options,
    base_dtype: *mut pvera_dtype,
    in_max: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (folder, out, given) = (input::path("folder", folder)?, input::path("out", out)?, Given::read(options)?);
        let shrunk = interchange::shrink(folder, out, &given.get())?;
        write_if_wanted(base_dtype, written_dtype(shrunk.dtype));
        write_if_wanted(in_max, shrunk.in_max);
        Ok(())
    })
}

/// The reverse: writes the projections that the key draws into a checkpoint that has none, rounded to options.dtype. `in_max`
/// is the largest in_features over all adapted layers, which the checkpoint does not say; `out_max` is that of out_features,
/// or 0 for the longest λ_b. All or nothing, as `pvera_adapter_save`; with PVERA_FILES_REPLACE, `out` may be `folder`.
///
/// Errors: PVERA_ERROR_EXISTS for a checkpoint that has projections, and for one in `out`, unless options.flags has
/// PVERA_FILES_REPLACE; PVERA_ERROR_ARGUMENT for an in_max of 0 or an out_max below the longest λ_b.
///
/// # Safety
/// `folder` and `out` are texts; `options` is NULL or sized options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_checkpoint_grow(
    folder: *const c_char,
    out: *const c_char,
    in_max: usize,
    out_max: usize,
    options: *const pvera_files_options,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (folder, out, given) = (input::path("folder", folder)?, input::path("out", out)?, Given::read(options)?);
        interchange::grow(folder, out, in_max, (out_max > 0).then_some(out_max), &given.get())
    })
}

/// Checks that the projections that a checkpoint holds are those that its key draws, bit for bit. Nothing is written. Checkpoints of
/// VeRA, too. Of the options, only the callbacks matter.
///
/// `held` (may be NULL) gets whether it holds any; `base_dtype` and `grid` (either may be NULL) how they were rounded, as
/// `pvera_store_options` has it: zero where there are none.
///
/// Error PVERA_ERROR_PROJECTION says where they first differ from the key's: they are damaged, another's, or trained.
///
/// # Safety
/// `folder` is a text; `options` is NULL or sized options; the others are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_checkpoint_check(
    folder: *const c_char,
    options: *const pvera_files_options,
    held: *mut bool,
    base_dtype: *mut pvera_dtype,
    grid: *mut i32,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (folder, given) = (input::path("folder", folder)?, Given::read(options)?);
        let found = interchange::check_projections(folder, &given.get())?;
        let (dtype, on_grid) = written_rounding(found);
        write_if_wanted(held, found.is_some());
        write_if_wanted(base_dtype, dtype);
        write_if_wanted(grid, on_grid);
        Ok(())
    })
}

/// Writes a model with the adapter's mean folded into it: the bits of `pvera_merge` in every adapted weight, a learned bias in
/// the place of the module's, a carried tensor (in the model's element type) in that of its namesake, everything else byte for
/// byte. Weights pass a block of rows at a time, so that the model need not fit in memory.
///
/// `files` is as for `pvera_model_declare_files`; every layer that the adapter adapts is declared whole. `out` is a new or
/// empty folder; with PVERA_FILES_REPLACE, what it holds is replaced whole. It gets the files of the model, and of a folder
/// the other files in it, but no folder, and no weights in other formats, which are named in a warning.
///
/// Everything is checked before anything is written. An error, a stop or a kill leaves `out` as it was. Errors name the
/// tensor: PVERA_ERROR_NOT_FOUND for a weight or bias that the files do not hold, PVERA_ERROR_DTYPE for one that is no f32, f16
/// or bf16, PVERA_ERROR_UNSUPPORTED for a carried tensor without a namesake, unless options.flags has
/// PVERA_FILES_LEAVE_OUT; PVERA_ERROR_STATE as for `pvera_adapter_export_lora`.
///
/// # Safety
/// `context` is a context of the CPU; `adapter` is an adapter, not written meanwhile; `files` and `out` are texts; `options` is
/// NULL or sized options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_merge_files(
    context: *const pvera_context,
    adapter: *const pvera_adapter,
    files: *const c_char,
    out: *const c_char,
    options: *const pvera_files_options,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (context, adapter, given) =
            (borrow("context", context)?, borrow("adapter", adapter)?, Given::read(options)?);
        let (files, out) = (input::path("files", files)?, input::path("out", out)?);
        interchange::merge_files(&context.0, &adapter.0, &ModelFiles::open(files)?, out, &given.get())
    })
}

/// Writes a PEFT checkpoint of a state dictionary of the method's authors (github.com/leofillioux/pvera), given as safetensors:
/// `MODULE.heads.adapter_qd`, `…_vd`, `…_qb`, `…_vb`, or `MODULE.heads.N.…` of a grid search. They adapt q and v of a fused
/// qkv, each through projections of its own; one layer of twice the rank is exactly that, with zeros in B where q and v do not
/// meet. Alpha is multiplied into λ_b. options.prefix (theirs is "backbone.") is taken off the module paths.
///
/// Their files hold no projections, unless they were added as q_downsample, v_downsample, q_upsample and v_upsample; see
/// `pvera_authors_options`. Errors: PVERA_ERROR_PROJECTION where there is neither; PVERA_ERROR_EXISTS for a checkpoint in `out`,
/// unless options.flags has PVERA_FILES_REPLACE.
///
/// # Safety
/// `file` and `out` are texts; `authors` and `options` are NULL or sized options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_import_authors(
    file: *const c_char,
    out: *const c_char,
    authors: *const pvera_authors_options,
    options: *const pvera_files_options,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (file, out) = (input::path("file", file)?, input::path("out", out)?);
        let (told, given) = (input::sized(authors)?, Given::read(options)?);
        if !told.alpha.is_finite() {
            fail!(Argument, "authors.alpha is {}; wanted a finite number", told.alpha);
        }
        let authors = Authors {
            alpha: if told.alpha == 0.0 { interchange::ALPHA } else { told.alpha },
            head: told.head,
            seed: (told.draws != 0).then_some(told.seed),
        };
        interchange::import_authors(file, out, &authors, &given.get())
    })
}
