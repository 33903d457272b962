//! Modules, functions and launches.

use super::device::SHARED_BYTES;
use super::{exports, put};
use crate::codes::{
    INVALID_HANDLE, INVALID_IMAGE, INVALID_VALUE, LAUNCH_OUT_OF_RESOURCES, NOT_FOUND, NOT_SUPPORTED, Outcome,
};
use crate::driver::Driver;
use crate::module::Function;
use crate::ptx::instruction::Code;
use crate::work::{Action, Kernel};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

fn load(driver: &mut Driver, to: *mut u64, image: *const c_char) -> Outcome {
    let context = driver.context()?;
    driver.refuse_while_capturing("loading a module")?;
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: an image is PTX text that ends with a zero; of binary ones only the first bytes are looked at.
    let first = unsafe { std::slice::from_raw_parts(image.cast::<u8>(), 4) };
    if first == [0x7f, b'E', b'L', b'F'] || first == 0xba55_ed50_u32.to_le_bytes() {
        driver.fault("the double runs PTX, not binaries");
        return Err(INVALID_IMAGE);
    }
    // SAFETY: as above.
    let Ok(source) = unsafe { CStr::from_ptr(image) }.to_str() else {
        return Err(INVALID_IMAGE);
    };
    let handle = driver.load_module(context, source)?;
    put(to, handle)
}

fn entry(driver: &Driver, function: u64) -> Option<(&Function, &crate::module::Module, &Code)> {
    let function = driver.functions.get(&function)?;
    let module = driver.modules.get(&function.module)?;
    Some((function, module, module.image.entries.get(function.entry)?))
}

/// What a launch may be, on any device.
fn fits(code: &Code, grid: [u32; 3], block: [u32; 3], dynamic_shared: u32) -> Outcome {
    let threads = block.iter().map(|&size| u64::from(size)).product::<u64>();
    let within =
        |sizes: [u32; 3], limits: [u32; 3]| sizes.iter().zip(limits).all(|(&size, limit)| size >= 1 && size <= limit);
    if !within(grid, [i32::MAX as u32, 65_535, 65_535]) || !within(block, [1024, 1024, 64]) || threads > 1024 {
        return Err(INVALID_VALUE);
    }
    if code.max_threads.is_some_and(|limit| threads > limit.iter().map(|&size| u64::from(size)).product()) {
        return Err(LAUNCH_OUT_OF_RESOURCES);
    }
    if u64::from(code.dynamic_shared.unwrap_or(code.shared_bytes)) + u64::from(dynamic_shared) > u64::from(SHARED_BYTES)
    {
        return Err(INVALID_VALUE);
    }
    // Threads are numbered by 32 bits here.
    if grid.iter().map(|&size| u64::from(size)).product::<u64>().saturating_mul(threads) >= u64::from(u32::MAX) {
        return Err(NOT_SUPPORTED);
    }
    Ok(())
}

exports! {
    fn cuModuleLoadData(driver, to: *mut u64, image: *const c_char) {
        load(driver, to, image)
    }

    fn cuModuleLoadDataEx(driver, to: *mut u64, image: *const c_char, _count: c_uint, _options: *mut c_int, _values: *mut *mut c_void) {
        load(driver, to, image)
    }

    fn cuModuleUnload(driver, module: u64) {
        let context = driver.context()?;
        driver.refuse_while_capturing("cuModuleUnload")?;
        match driver.modules.get(&module) {
            Some(known) if known.context == context => {}
            Some(_) => {
                driver.fault("cuModuleUnload of another context's module");
                return Err(INVALID_HANDLE);
            }
            None => {
                driver.fault("cuModuleUnload of what is no module, or was unloaded");
                return Err(INVALID_HANDLE);
            }
        }
        let runs = |action: &Action| match action {
            Action::Kernel(kernel) => kernel.module == module,
            Action::Graph { nodes, .. } => nodes.iter().any(|node| matches!(&node.action, Action::Kernel(kernel) if kernel.module == module)),
            _ => false,
        };
        if driver.streams.values().any(|stream| stream.queue.iter().any(|work| runs(&work.action))) {
            driver.fault("cuModuleUnload while kernels of the module are queued: nobody waited for them");
            driver.finish_context(context);
        }
        driver.unload_module(module);
        Ok(())
    }

    fn cuModuleGetFunction(driver, to: *mut u64, module: u64, name: *const c_char) {
        let context = driver.context()?;
        let known = driver.modules.get(&module).filter(|module| module.context == context).ok_or(INVALID_HANDLE)?;
        if name.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: a name that ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let entry = known.image.entries.iter().position(|entry| entry.name.as_bytes() == name).ok_or(NOT_FOUND)?;
        // The same function has the same handle.
        let known = driver.functions.iter().find(|(_, function)| function.module == module && function.entry == entry);
        let handle = match known {
            Some((&handle, _)) => handle,
            None => {
                let handle = driver.handle();
                driver.functions.insert(handle, Function { module, entry });
                handle
            }
        };
        put(to, handle)
    }

    fn cuFuncGetAttribute(driver, to: *mut c_int, which: c_int, function: u64) {
        driver.context()?;
        let (_, _, code) = entry(driver, function).ok_or(INVALID_HANDLE)?;
        let value = match which {
            0 => code.max_threads.map_or(1024, |limit| limit.iter().product::<u32>() as c_int),
            1 => code.shared_bytes as c_int,
            2 => 0,
            3 => code.local_bytes as c_int,
            4 => code.places.min(255) as c_int,
            5 => 75,
            6 => driver.settings.capability as c_int,
            8 => (SHARED_BYTES - code.shared_bytes) as c_int,
            _ => return Err(INVALID_VALUE),
        };
        put(to, value)
    }

    fn cuLaunchKernel(driver, function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        dynamic_shared: c_uint, given: u64, params: *mut *mut c_void, extra: *mut *mut c_void) {
        let stream = driver.stream(given)?;
        let Some((known, module, code)) = entry(driver, function) else {
            driver.fault("cuLaunchKernel of what is no function, or whose module was unloaded");
            return Err(INVALID_HANDLE);
        };
        if module.context != driver.streams[&stream].context {
            driver.fault("cuLaunchKernel: function and stream are of different contexts");
            return Err(INVALID_HANDLE);
        }
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        if let Err(error) = fits(code, grid, block, dynamic_shared) {
            let text = format!("kernel `{}` cannot be launched with grid {grid:?}, block {block:?}, {dynamic_shared} bytes of shared memory", code.name);
            driver.fault(&text);
            return Err(error);
        }
        if !extra.is_null() || (params.is_null() && !code.params.is_empty()) {
            driver.fault("cuLaunchKernel: the double takes arguments in kernelParams");
            return Err(INVALID_VALUE);
        }
        let mut bytes = vec![0; code.param_bytes as usize];
        for (index, &(offset, size)) in code.params.iter().enumerate() {
            // SAFETY: the caller gave one pointer for each of the kernel's parameters, to a value of its size.
            unsafe {
                let from = *params.add(index);
                std::ptr::copy_nonoverlapping(from.cast::<u8>(), bytes.as_mut_ptr().add(offset as usize), size as usize);
            }
        }
        let kernel = Kernel { module: known.module, image: module.image.clone(), entry: known.entry, grid, block, dynamic_shared, params: bytes };
        driver.enqueue(stream, Action::Kernel(Arc::new(kernel)))
    }
}
