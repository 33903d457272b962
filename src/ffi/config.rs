//! `pvera_config`: the hyper-parameters of an adapter.

use std::ffi::c_char;

use super::error::pvera_error;
use super::handle::{self, borrow, borrow_mut, output};
use super::{bytes, guard, input};
use crate::config::Config;
use crate::error::Result;

/// The hyper-parameters of an adapter, under PEFT's names and with PEFT's defaults.
///
/// Fields: `auto_mapping`, `base_model_name_or_path`, `bias` ("none", "pvera_only" or "vera_only", "all"), `d_initial`
/// (0.1), `fan_in_fan_out`, `generator_seed`, `inference_mode`, `init_weights`, `layers_pattern`,
/// `layers_to_transform`, `modules_to_save`, `peft_type` ("PVERA" or "VERA"), `peft_version`, `projection_prng_key`
/// (0), `pvera_dropout` (0), `r` (256), `revision`, `sample_at_inference`, `save_projection` (true), `target_modules`,
/// `task_type`; and two of ours: `alpha` (1), the factor of the delta, and `logvar_bound` (null, off):
/// `logvar = min(logvar, bound)`.
///
/// With `peft_type` VERA, the dropout is `vera_dropout`, and there is no `generator_seed`, `logvar_bound` and
/// `sample_at_inference`: set `peft_type` first. A change of it that would lose one of these that is set is refused.
pub struct pvera_config(pub(super) Config);

/// A config with PEFT's defaults.
///
/// # Safety
/// `config` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_new(config: *mut *mut pvera_config) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output("config", config)? };
        out.write(handle::give(pvera_config(Config::default()))?);
        Ok(())
    })
}

/// A config from the text of an `adapter_config.json` of `size` bytes. Missing fields get PEFT's defaults, unknown ones
/// are kept and written back, older spellings are understood.
///
/// Errors: `PVERA_ERROR_FORMAT` for a text that is not JSON, `PVERA_ERROR_CONFIG` for a field of the wrong type or range.
///
/// # Safety
/// `json` points to `size` bytes; `config` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_from_json(
    json: *const c_char,
    size: usize,
    config: *mut *mut pvera_config,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (out, json) = unsafe { (output("config", config)?, input::array("json", json.cast::<u8>(), size)?) };
        let own = Config::from_json(json)?;
        own.validate()?;
        out.write(handle::give(pvera_config(own))?);
        Ok(())
    })
}

/// The text of an `adapter_config.json` as PEFT lays it out; freed with `pvera_text_free`.
///
/// # Safety
/// `config` is a config; `json` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_to_json(config: *const pvera_config, json: *mut *mut c_char) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, out) = unsafe { (borrow("config", config)?, output("json", json)?) };
        out.write(bytes::give_text(&config.0.to_json())?);
        Ok(())
    })
}

/// A copy that shares nothing.
///
/// # Safety
/// `config` is a config; `copy` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_clone(
    config: *const pvera_config,
    copy: *mut *mut pvera_config,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, out) = unsafe { (borrow("config", config)?, output("copy", copy)?) };
        out.write(handle::give(pvera_config(config.0.clone()))?);
        Ok(())
    })
}

/// Frees a config; NULL is nothing.
///
/// # Safety
/// `config` is NULL or an owned config, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_free(config: *mut pvera_config) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(config) });
}

/// Whether the fields make sense, each and together; the error names the field, its value and what was wanted. Every call
/// that takes a config does this too.
///
/// # Safety
/// `config` is a config.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_validate(config: *const pvera_config) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { borrow("config", config) }?.0.validate())
}

/// Whether an adapter of this config targets a linear layer of this module path, by PEFT's rules. `output_head` says that
/// the layer is the model's head, which "all-linear" leaves out.
///
/// # Safety
/// `config` is a config, `path` a text, `targeted` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_targets(
    config: *const pvera_config,
    path: *const c_char,
    output_head: bool,
    targeted: *mut bool,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, path, out) =
            unsafe { (borrow("config", config)?, input::text("path", path)?, output("targeted", targeted)?) };
        out.write(config.0.targets(path, true, output_head)?);
        Ok(())
    })
}

/// # Safety
/// The pointers obey the rules of the export that calls this.
unsafe fn get<T>(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut T,
    read: impl FnOnce(&Config, &str) -> Result<T>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let (config, field, out) =
        unsafe { (borrow("config", config)?, input::text("field", field)?, output("value", value)?) };
    out.write(read(&config.0, field)?);
    Ok(())
}

/// # Safety
/// The pointers obey the rules of the export that calls this.
unsafe fn set(
    config: *mut pvera_config,
    field: *const c_char,
    write: impl FnOnce(&mut Config, &str) -> Result<()>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let (config, field) = unsafe { (borrow_mut("config", config)?, input::text("field", field)?) };
    write(&mut config.0, field)
}

/// Reads a whole-number field: `r`, `projection_prng_key`, `generator_seed`, `layers_to_transform` (of one value).
///
/// # Safety
/// `config` is a config, `field` a text, `value` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_get_int(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut i64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { get(config, field, value, |config, field| config.get_int(field)) })
}

/// Sets a whole-number field. On an error the config is as before.
///
/// # Safety
/// `config` is a config that nobody else uses, `field` a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_set_int(
    config: *mut pvera_config,
    field: *const c_char,
    value: i64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { set(config, field, |config, field| config.set_int(field, value)) })
}

/// Reads a number: `d_initial`, `pvera_dropout`, `alpha`, `logvar_bound`.
///
/// # Safety
/// `config` is a config, `field` a text, `value` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_get_real(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { get(config, field, value, |config, field| config.get_real(field)) })
}

/// Sets a number. On an error the config is as before.
///
/// # Safety
/// `config` is a config that nobody else uses, `field` a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_set_real(
    config: *mut pvera_config,
    field: *const c_char,
    value: f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { set(config, field, |config, field| config.set_real(field, value)) })
}

/// Reads a truth value: `fan_in_fan_out`, `inference_mode`, `init_weights`, `sample_at_inference`, `save_projection`.
///
/// # Safety
/// `config` is a config, `field` a text, `value` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_get_bool(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut bool,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { get(config, field, value, |config, field| config.get_bool(field)) })
}

/// Sets a truth value. On an error the config is as before.
///
/// # Safety
/// `config` is a config that nobody else uses, `field` a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_set_bool(
    config: *mut pvera_config,
    field: *const c_char,
    value: bool,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { set(config, field, |config, field| config.set_bool(field, value)) })
}

/// Reads a text field: `bias`, `target_modules` (of the pattern form), `task_type`, …; freed with `pvera_text_free`.
///
/// # Safety
/// `config` is a config, `field` a text, `value` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_get_text(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut *mut c_char,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { get(config, field, value, |config, field| bytes::give_text(&config.get_text(field)?)) })
}

/// Sets a text field. On an error the config is as before.
///
/// # Safety
/// `config` is a config that nobody else uses, `field` and `value` are texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_set_text(
    config: *mut pvera_config,
    field: *const c_char,
    value: *const c_char,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let value = unsafe { input::text("value", value)? };
        // SAFETY: as above.
        unsafe { set(config, field, |config, field| config.set_text(field, value)) }
    })
}

/// Reads any field, known or not, as JSON; freed with `pvera_text_free`.
///
/// # Safety
/// `config` is a config, `field` a text, `value` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_get_json(
    config: *const pvera_config,
    field: *const c_char,
    value: *mut *mut c_char,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { get(config, field, value, |config, field| bytes::give_text(&config.get_json(field)?)) })
}

/// Sets any known field from JSON: `pvera_config_set_json(config, "target_modules", "[\"q_proj\", \"v_proj\"]")`. On an
/// error the config is as before.
///
/// # Safety
/// `config` is a config that nobody else uses, `field` and `value` are texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_config_set_json(
    config: *mut pvera_config,
    field: *const c_char,
    value: *const c_char,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let value = unsafe { input::text("value", value)? };
        // SAFETY: as above.
        unsafe { set(config, field, |config, field| config.set_json(field, value)) }
    })
}
