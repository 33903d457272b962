//! `pvera_bank`: many adapters of one network in one file.

use std::ffi::c_char;

use super::adapter::pvera_adapter;
use super::bytes::give_text;
use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output, write_if_wanted};
use super::input::{self, Sized_};
use super::matrix::{optional_dtype, pvera_dtype};
use super::model::pvera_model;
use super::snapshot::pvera_snapshot;
use crate::adapter::Adapter;
use crate::bank::{Access, Bank, Options, Usage};
use crate::error::{Error, Result};
use crate::fail;
use crate::tensor::Dtype;

/// Read; any number of handles and programs at a time, also beside one that writes.
pub const PVERA_BANK_READ: i32 = 0;
/// Read and write; one handle at a time, of all programs.
pub const PVERA_BANK_WRITE: i32 = 1;
/// A new bank, to be written; PVERA_ERROR_EXISTS where there is a file already.
pub const PVERA_BANK_CREATE: i32 = 2;

/// Many adapters of one network in one file: thousands to hundreds of thousands. Names are known when a bank is open,
/// vectors are read when an adapter is first used, and kept as long as a budget allows. May be used by many threads; no
/// reader waits for a writer's disk. It keeps its model alive.
///
/// A bank holds each adapter's vectors and noise number, its config once for all that share it, and projections once (or
/// their key, where they were drawn from it). An adapter that carries tensors is refused.
///
/// The model's callbacks may call the bank that they come out of. What would wait for the very call that they come out of
/// (projections that it is drawing, a write within a write) is PVERA_ERROR_STATE.
///
/// What a kill at any moment leaves is the bank before or after the call that it fell into. A reader sees the bank as it was
/// when it was opened or last refreshed; within one handle, calls see what was written through it before.
pub struct pvera_bank(pub(super) Bank);

/// How a bank is opened. Zero is the default: to read, with a cache that is never emptied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_bank_options {
    /// sizeof(pvera_bank_options).
    pub struct_size: usize,
    /// `PVERA_BANK_…`.
    pub access: i32,
    /// 0 or 1 (as any other number): leave out vectors of layers that are not declared here, instead of refusing them.
    pub ignore_undeclared: u8,
    /// What adapters that were read may take, in bytes; the least recently used go first. 0: any amount. Adapters that
    /// somebody holds live on when they go from here.
    pub cache_bytes: usize,
    /// The largest in_features over all adapted layers of the whole model: needed where this program declares only some of
    /// them and the projections come from a key. 0: the largest declared ones.
    pub in_max: usize,
    /// The same of out_features.
    pub out_max: usize,
    /// 0 or 1, for a damaged bank that is to be written: go on from what is sound. A last commit that is damaged or cut off is
    /// overwritten, and pvera_bank_compact leaves out damaged adapters, with a warning that names each. Without it, both are
    /// PVERA_ERROR_FORMAT.
    pub repair: u32,
    /// Zero, which is checked. (Fills the struct.)
    pub reserved: u32,
}

// SAFETY: integers; the size comes first.
unsafe impl Sized_ for pvera_bank_options {
    const NAME: &'static str = "options";
}

/// What a bank holds, in the file and in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_bank_usage {
    /// sizeof(pvera_bank_usage), set by the caller.
    pub struct_size: usize,
    /// Adapters.
    pub adapters: usize,
    /// Entries that were damaged when the bank was opened or last refreshed, and are left out.
    pub damaged: usize,
    /// Bytes of the file that count.
    pub file_bytes: u64,
    /// Of these, what replaced and removed adapters and older indexes take: pvera_bank_compact gives them back.
    pub unused_bytes: u64,
    /// Bytes of memory that names and places take.
    pub index_bytes: usize,
    /// Adapters that are kept in memory.
    pub cached: usize,
    /// Bytes that they take.
    pub cached_bytes: usize,
    /// How often an adapter was found in memory.
    pub hits: u64,
    /// How often one had to be read.
    pub misses: u64,
    /// Families: how many configs, lists of layers and projections the adapters have, for pvera_outline_from_bank.
    pub families: usize,
}

// SAFETY: integers; the size comes first.
unsafe impl Sized_ for pvera_bank_usage {
    const NAME: &'static str = "usage";
}

impl From<Usage> for pvera_bank_usage {
    fn from(usage: Usage) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            adapters: usage.adapters,
            damaged: usage.damaged,
            file_bytes: usage.file_bytes,
            unused_bytes: usage.unused_bytes,
            index_bytes: usage.index_bytes,
            cached: usage.cached,
            cached_bytes: usage.cached_bytes,
            hits: usage.hits,
            misses: usage.misses,
            families: usage.families,
        }
    }
}

impl pvera_bank_options {
    fn read(&self) -> Result<Options> {
        input::reserved("options.reserved", self.reserved)?;
        let positive = |value: usize| (value > 0).then_some(value);
        let access = match self.access {
            PVERA_BANK_READ => Access::Read,
            PVERA_BANK_WRITE => Access::Write,
            PVERA_BANK_CREATE => Access::Create,
            other => fail!(
                Argument,
                "options.access is {other}; wanted PVERA_BANK_READ (0), PVERA_BANK_WRITE (1) or PVERA_BANK_CREATE (2)"
            ),
        };
        Ok(Options {
            access,
            cache_bytes: positive(self.cache_bytes),
            in_max: positive(self.in_max),
            out_max: positive(self.out_max),
            ignore_undeclared: self.ignore_undeclared != 0,
            repair: self.repair != 0,
        })
    }
}

/// Opens a bank for the layers of a model. Entries that are damaged are left out, with a warning that names each.
/// Of a bank that was cut short, or whose last commit record is damaged, the commit before it is read, with a warning; to
/// write such a bank is an error without options.repair.
///
/// Errors: `PVERA_ERROR_IO`, `PVERA_ERROR_FORMAT` for another file or a damaged one, `PVERA_ERROR_STATE` for one that is
/// being written through another handle, `PVERA_ERROR_EXISTS`.
///
/// # Safety
/// `model` is a model, `path` a text, `options` NULL or sized options, `bank` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_open(
    model: *const pvera_model,
    path: *const c_char,
    options: *const pvera_bank_options,
    bank: *mut *mut pvera_bank,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (model, path) = unsafe { (borrow("model", model)?, input::path("path", path)?) };
        // SAFETY: as above.
        let (options, out) = unsafe { (input::sized(options)?.read()?, output("bank", bank)?) };
        out.write(handle::give(pvera_bank(Bank::open(&model.0, path, &options)?))?);
        Ok(())
    })
}

/// Frees a bank; NULL is nothing. Its adapters and snapshots live on.
///
/// # Safety
/// `bank` is NULL or an owned bank, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_free(bank: *mut pvera_bank) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(bank) });
}

/// Adds count adapters under names, or puts them in the place of those of the same names: all of them or none. Vectors are
/// rounded once to dtype (f32, f16 or bf16; zero: f32). When it returns, they are on the disk. Many at a time cost less
/// than one at a time. A trainable adapter is written as it is now. Damaged entries stay in the file as they are.
///
/// # Safety
/// `bank` is a bank; `names` and `adapters` point to `count` texts and adapters made for the bank's model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_append(
    bank: *const pvera_bank,
    count: usize,
    names: *const *const c_char,
    adapters: *const *const pvera_adapter,
    dtype: pvera_dtype,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, names) = unsafe { (borrow("bank", bank)?, input::array("names", names, count)?) };
        // SAFETY: as above.
        let adapters = unsafe { input::array("adapters", adapters, count)? };
        let dtype = optional_dtype("dtype", dtype)?.unwrap_or(Dtype::F32);
        let mut list: Vec<(&str, &Adapter)> = Vec::new();
        list.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
        for (place, (name, adapter)) in names.iter().zip(adapters).enumerate() {
            // SAFETY: as above.
            let (name, adapter) = unsafe {
                (input::text(&format!("names[{place}]"), *name)?, borrow(&format!("adapters[{place}]"), *adapter)?)
            };
            list.push((name, &adapter.0));
        }
        bank.0.append(&list, dtype)
    })
}

/// Removes count adapters: all of them or none. Adapters and snapshots that somebody holds live on.
///
/// # Safety
/// `bank` is a bank; `names` points to `count` texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_remove(
    bank: *const pvera_bank,
    count: usize,
    names: *const *const c_char,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, names) = unsafe { (borrow("bank", bank)?, input::array("names", names, count)?) };
        let mut list = Vec::new();
        list.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
        for (place, name) in names.iter().enumerate() {
            // SAFETY: as above.
            list.push(unsafe { input::text(&format!("names[{place}]"), *name)? });
        }
        bank.0.remove(&list)
    })
}

/// Writes the bank anew without what nobody uses, and puts it in the place of the old file at once; a symbolic link to it
/// stays. Damaged adapters are an error; if the bank was opened with options.repair, they are left out, with a warning that
/// names each. Other programs that have the bank open go on with the old file until they refresh it.
///
/// Errors: `PVERA_ERROR_FORMAT` for damage, `PVERA_ERROR_STATE` where another file is in the bank's place, `PVERA_ERROR_IO`.
///
/// # Safety
/// `bank` is a bank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_compact(bank: *const pvera_bank) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { borrow("bank", bank)? }.0.compact())
}

/// Looks at the file at the path again and takes its newest commit, also where a compaction or a rename put another file there.
/// `changed` (may be NULL) gets whether there was one. It reads the names, or the first 4096 bytes alone where nothing changed.
/// Other threads use the bank meanwhile, and see all of it before or all of it after. Adapters and snapshots that were handed out
/// stay as they are. What is cached of unchanged adapters is kept, but not where another file took the place.
///
/// Put a new file in the bank's place by a rename. One that is written over is damaged for whoever reads it. A relative path is looked
/// up anew, in the working directory of the moment.
///
/// A handle that writes sees all there is, and never a change.
///
/// Errors leave the handle as it was, to be refreshed again or opened anew: `PVERA_ERROR_IO` where no file can be read,
/// `PVERA_ERROR_FORMAT` for one that is no bank, was cut short, lost its last commit, or has more damaged entries than before;
/// `PVERA_ERROR_STATE` from a callback of this very call.
///
/// # Safety
/// `bank` is a bank; `changed` is NULL or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_refresh(bank: *const pvera_bank, changed: *mut bool) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let found = borrow("bank", bank)?.0.refresh()?;
        write_if_wanted(changed, found);
        Ok(())
    })
}

/// Reads everything that adapters use, warns of each adapter and each store (projections in the file) that is damaged, and goes
/// on. `damaged` gets how many they are, with the entries that were left out when the bank was opened or last refreshed: each
/// adapter and each store once. Adapters of a damaged store are counted only where their own vectors are damaged. Nothing is
/// drawn, and nothing is kept in memory. The progress callback may stop it.
///
/// # Safety
/// `bank` is a bank; `damaged` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_verify(bank: *const pvera_bank, damaged: *mut usize) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, out) = unsafe { (borrow("bank", bank)?, output("damaged", damaged)?) };
        out.write(bank.0.verify()?);
        Ok(())
    })
}

/// What the bank holds. `usage.struct_size` is set by the caller.
///
/// # Safety
/// `bank` is a bank; `usage` is sized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_get_usage(
    bank: *const pvera_bank,
    usage: *mut pvera_bank_usage,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, out) = unsafe { (borrow("bank", bank)?, input::sized_output(usage)?) };
        out.write(bank.0.usage().into());
        Ok(())
    })
}

/// Whether the bank holds an adapter of that name.
///
/// # Safety
/// `bank` is a bank, `name` a text, `contains` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_contains(
    bank: *const pvera_bank,
    name: *const c_char,
    contains: *mut bool,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, name) = unsafe { (borrow("bank", bank)?, input::text("name", name)?) };
        // SAFETY: as above.
        unsafe { output("contains", contains)? }.write(bank.0.contains(name));
        Ok(())
    })
}

/// The name of the adapter of a number below `usage.adapters`, in the order in which names were first added (removing one
/// moves those after it); freed with `pvera_text_free`.
///
/// # Safety
/// `bank` is a bank; `name` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_name_at(
    bank: *const pvera_bank,
    number: usize,
    name: *mut *mut c_char,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, out) = unsafe { (borrow("bank", bank)?, output("name", name)?) };
        out.write(give_text(&bank.0.name(number)?)?);
        Ok(())
    })
}

/// The adapter of that name, from memory or read now: an adapter as any other, to be published, copied, saved, freed. Its
/// noise has the number that the bank holds: a hash of the name, where it was appended without one of its own. It does not
/// change when the bank does.
///
/// Errors: `PVERA_ERROR_NOT_FOUND`; `PVERA_ERROR_FORMAT` where its vectors are damaged.
///
/// # Safety
/// `bank` is a bank, `name` a text, `adapter` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_adapter(
    bank: *const pvera_bank,
    name: *const c_char,
    adapter: *mut *mut pvera_adapter,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, name, out) =
            unsafe { (borrow("bank", bank)?, input::text("name", name)?, output("adapter", adapter)?) };
        out.write(handle::give(pvera_adapter(bank.0.adapter(name)?))?);
        Ok(())
    })
}

/// A snapshot of the adapters that the rows of a batch want, for one pass: `names[i]` is row i's, or NULL for the base alone.
/// `slots[i]` gets its slot in the snapshot, for `pvera_rows.slot`; rows of one name have one slot. What is published on the
/// model is not in it.
///
/// # Safety
/// `bank` is a bank; `names` points to `count` texts or NULLs, `slots` to `count` places; `snapshot` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bank_snapshot(
    bank: *const pvera_bank,
    count: usize,
    names: *const *const c_char,
    slots: *mut i32,
    snapshot: *mut *mut pvera_snapshot,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (bank, names) = unsafe { (borrow("bank", bank)?, input::array("names", names, count)?) };
        // SAFETY: as above.
        let (places, out) = unsafe { (input::array_mut("slots", slots, count)?, output("snapshot", snapshot)?) };
        let mut list = Vec::new();
        list.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
        for (place, name) in names.iter().enumerate() {
            // SAFETY: as above.
            let text = || unsafe { input::text(&format!("names[{place}]"), *name) };
            list.push(if name.is_null() { None } else { Some(text()?) });
        }
        let (view, slots) = bank.0.snapshot(&list)?;
        let own = handle::give(pvera_snapshot::new(view)?)?;
        places.copy_from_slice(&slots);
        out.write(own);
        Ok(())
    })
}
