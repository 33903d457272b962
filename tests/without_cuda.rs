//! A library that was built without CUDA (`PVERA_CUDA=OFF`). With CUDA there is nothing here: `ctest -R without_cuda` builds it.
#![cfg(not(feature = "cuda"))]

use std::ffi::CStr;

use pvera::ffi::context::{PVERA_BACKEND_CUDA, pvera_context_free, pvera_context_new, pvera_context_options};
use pvera::ffi::error::{PVERA_ERROR_UNSUPPORTED, pvera_error_code, pvera_error_free, pvera_error_message};

#[test]
fn a_cuda_context_says_what_the_library_is() {
    // SAFETY: zero is what every option may be.
    let mut options: pvera_context_options = unsafe { std::mem::zeroed() };
    options.struct_size = size_of::<pvera_context_options>();
    options.backend = PVERA_BACKEND_CUDA;
    let mut context = std::ptr::null_mut();
    // SAFETY: options and a place for the context.
    unsafe {
        let error = pvera_context_new(&raw const options, &raw mut context);
        assert_eq!(pvera_error_code(error), PVERA_ERROR_UNSUPPORTED);
        assert_eq!(
            CStr::from_ptr(pvera_error_message(error)).to_str().unwrap(),
            "options.backend is 2, CUDA; this library was built without it (PVERA_CUDA=OFF)"
        );
        pvera_error_free(error);
        assert!(context.is_null());
        assert!(pvera_context_new(std::ptr::null(), &raw mut context).is_null(), "the CPU does not mind");
        pvera_context_free(context);
    }
}
