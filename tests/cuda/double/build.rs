//! Gives the library the name that loaders look for: libcuda.so.1, as its soname and as a link beside libcuda.so.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    // target/<profile>/build/<package>-<hash>/out
    let profile = Path::new(&out).ancestors().nth(3).expect("OUT_DIR lies four levels down");
    let link = profile.join("libcuda.so.1");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("libcuda.so", &link).expect("libcuda.so.1 can be linked");
    }
}
