# The CMake package: pvera::pvera is the shared library, pvera::static the static one, pvera::cpp the C++ binding on the shared one.
#
# Nothing here is generated. The libraries are looked for in the tree that this file lies in, and what a static link needs is read
# from pvera.pc beside them, so that both ways of building the tree (CMake, cargo-c) install this very file. A toolchain that looks
# for everything under its CMAKE_FIND_ROOT_PATH has found this file; its tree is not to be looked for under that path again.
get_filename_component(pvera_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_path(pvera_include pvera.h PATHS "${pvera_prefix}/include" NO_CACHE NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_library(pvera_shared NAMES libpvera.so NO_CACHE NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH
    PATHS "${pvera_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}" "${pvera_prefix}/lib64" "${pvera_prefix}/lib")
if(NOT pvera_include OR NOT pvera_shared)
    set(pvera_FOUND FALSE)
    set(pvera_NOT_FOUND_MESSAGE "${pvera_prefix} holds no include/pvera.h, or no libpvera.so in lib, lib64 or lib/ARCHITECTURE")
    return()
endif()

if(NOT TARGET pvera::pvera)
    get_filename_component(pvera_libdir "${pvera_shared}" DIRECTORY)
    file(STRINGS "${pvera_libdir}/pkgconfig/pvera.pc" pvera_private REGEX "^Libs\\.private:")
    string(REGEX MATCHALL "-l[^ ]+" pvera_private "${pvera_private}")
    add_library(pvera::pvera SHARED IMPORTED)
    set_target_properties(pvera::pvera PROPERTIES
        IMPORTED_LOCATION "${pvera_shared}"
        INTERFACE_INCLUDE_DIRECTORIES "${pvera_include}")
    add_library(pvera::static STATIC IMPORTED)
    set_target_properties(pvera::static PROPERTIES
        IMPORTED_LOCATION "${pvera_libdir}/libpvera.a"
        INTERFACE_INCLUDE_DIRECTORIES "${pvera_include}"
        INTERFACE_LINK_LIBRARIES "${pvera_private}")
    add_library(pvera::cpp INTERFACE IMPORTED)
    set_target_properties(pvera::cpp PROPERTIES
        INTERFACE_LINK_LIBRARIES pvera::pvera
        INTERFACE_COMPILE_FEATURES cxx_std_17)
endif()
