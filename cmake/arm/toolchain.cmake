# Cross-builds for 64-bit Arm and runs the result under an emulator, with Debian's packages (install.sh beside this file).
#
# Debian's rustc, since its standard library for Arm fits no other; cargo is still the one that rust-toolchain.toml names.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# No -L: the C library is Debian's own for Arm. Programs hang at their first thread with that of libc6-arm64-cross 2.36-8.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)

set(PVERA_RUST_TARGET aarch64-unknown-linux-gnu)
set(PVERA_RUSTC /usr/bin/rustc)
set(PVERA_CARGO_ENVIRONMENT
    RUSTC=${PVERA_RUSTC}
    CARGO_BUILD_TARGET=${PVERA_RUST_TARGET}
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CMAKE_C_COMPILER}
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=${CMAKE_CROSSCOMPILING_EMULATOR})

# What is missing is said here, before a compiler fails in its own words.
get_property(trying GLOBAL PROPERTY IN_TRY_COMPILE)
if(NOT trying)
    foreach(tool IN ITEMS ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${CMAKE_CROSSCOMPILING_EMULATOR} ${PVERA_RUSTC})
        unset(found)
        find_program(found ${tool} NO_CACHE)
        if(NOT found)
            message(FATAL_ERROR "${tool} is not installed; cmake/arm/install.sh installs what the preset arm needs")
        endif()
    endforeach()
    execute_process(COMMAND ${PVERA_RUSTC} --print target-libdir --target ${PVERA_RUST_TARGET}
        OUTPUT_VARIABLE libdir OUTPUT_STRIP_TRAILING_WHITESPACE)
    file(GLOB standard_library ${libdir}/libstd-*.rlib)
    if(NOT standard_library)
        message(FATAL_ERROR "${PVERA_RUSTC} has no standard library for ${PVERA_RUST_TARGET} in '${libdir}'; "
            "cmake/arm/install.sh installs what the preset arm needs")
    endif()
    if(NOT EXISTS /lib/ld-linux-aarch64.so.1)
        message(FATAL_ERROR "there is no C library for 64-bit Arm (/lib/ld-linux-aarch64.so.1); "
            "cmake/arm/install.sh installs what the preset arm needs")
    endif()
endif()
