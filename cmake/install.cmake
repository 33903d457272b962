# What is installed, and packed by cpack: headers, both libraries, the files by which pkg-config and CMake find them, the Go package,
# what there is to read.
set(package ${CMAKE_BINARY_DIR}/package)

# ---- The places: seen from the prefix, so that the installed tree may be moved ----
# Nix, for one, gives absolute ones.
foreach(name IN ITEMS LIBDIR INCLUDEDIR DATADIR)
    set(given ${CMAKE_INSTALL_${name}})
    cmake_path(ABSOLUTE_PATH given BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX} NORMALIZE OUTPUT_VARIABLE place)
    cmake_path(IS_PREFIX CMAKE_INSTALL_PREFIX ${place} NORMALIZE inside)
    if(NOT inside)
        message(FATAL_ERROR "CMAKE_INSTALL_${name} is ${given}; wanted a place inside CMAKE_INSTALL_PREFIX (${CMAKE_INSTALL_PREFIX})")
    endif()
    file(RELATIVE_PATH CMAKE_INSTALL_${name} ${CMAKE_INSTALL_PREFIX} ${place})
endforeach()

# ---- The static library: one object, whose only global names are the API's ----
add_custom_command(OUTPUT ${package}/libpvera.a
    COMMAND ${CMAKE_COMMAND} -D LINKER=${CMAKE_LINKER} -D OBJCOPY=${CMAKE_OBJCOPY} -D AR=${CMAKE_AR} -D NM=${CMAKE_NM}
            -D SHARED=${cargo_release}/libpvera.so -D ARCHIVE=${cargo_release}/libpvera.a -D OUT=${package}/libpvera.a
            -P ${CMAKE_SOURCE_DIR}/cmake/one_object.cmake
    DEPENDS library ${cargo_release}/libpvera.a ${CMAKE_SOURCE_DIR}/cmake/one_object.cmake
    COMMENT "libpvera.a as one object"
    VERBATIM)

# ---- pkg-config: only a build knows what a static link needs ----
# A libdir may be deeper than lib (lib/x86_64-linux-gnu).
file(RELATIVE_PATH pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" pc_to_prefix ${pc_to_prefix})
set(native_static_libs_line "@native_static_libs@") # filled in by the build
configure_file(cmake/pvera.pc.in ${package}/pvera.pc.in @ONLY)
add_custom_command(OUTPUT ${package}/pvera.pc
    COMMAND ${CMAKE_COMMAND} -D NATIVE=${native_static_libs} -D TEMPLATE=${package}/pvera.pc.in -D OUT=${package}/pvera.pc
            -P ${CMAKE_SOURCE_DIR}/cmake/pkg_config.cmake
    DEPENDS library ${native_static_libs} ${package}/pvera.pc.in ${CMAKE_SOURCE_DIR}/cmake/pkg_config.cmake
    COMMENT "pvera.pc"
    VERBATIM)
add_custom_target(packaged ALL DEPENDS ${package}/libpvera.a ${package}/pvera.pc)

# ---- CMake: where its package, in one folder of the tree, finds the others ----
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/pvera)
file(RELATIVE_PATH to_include /prefix/${package_dir} /prefix/${CMAKE_INSTALL_INCLUDEDIR})
file(RELATIVE_PATH to_lib /prefix/${package_dir} /prefix/${CMAKE_INSTALL_LIBDIR})
configure_file(cmake/pvera-places.cmake.in ${package}/pvera-places.cmake @ONLY)

# ---- The tree; Cargo.toml says the same to cargo-c ----
foreach(name IN ITEMS libpvera.so ${soname})
    file(CREATE_LINK libpvera.so.${PROJECT_VERSION} ${package}/${name} SYMBOLIC)
endforeach()
install(FILES ${cargo_release}/libpvera.so RENAME libpvera.so.${PROJECT_VERSION} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${package}/${soname} ${package}/libpvera.so ${package}/libpvera.a DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${package}/pvera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES include/pvera.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY bindings/cpp/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES cmake/pvera-config.cmake cmake/pvera-config-version.cmake ${package}/pvera-places.cmake
    DESTINATION ${package_dir})
# In the folders of the source tree, so that links between the pages hold.
set(docs ${CMAKE_INSTALL_DATADIR}/doc/pvera)
install(FILES LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md SECURITY.md DESTINATION ${docs})
install(DIRECTORY docs/ DESTINATION ${docs}/docs PATTERN Doxyfile EXCLUDE)
foreach(binding IN ITEMS cpp go)
    install(FILES bindings/${binding}/README.md DESTINATION ${docs}/bindings/${binding})
endforeach()
# The examples to read, and to build against the installed library; CMake's files build them in the source tree alone.
install(DIRECTORY examples DESTINATION ${docs} PATTERN CMakeLists.txt EXCLUDE PATTERN "*_test.go" EXCLUDE PATTERN __pycache__ EXCLUDE)
install(DIRECTORY bindings/go DESTINATION ${CMAKE_INSTALL_DATADIR}/pvera FILES_MATCHING
    PATTERN "*.go" PATTERN "*.c" PATTERN "*.h" PATTERN go.mod PATTERN README.md PATTERN "*_test.go" EXCLUDE PATTERN internal EXCLUDE)

# ---- cpack: a tarball and a Debian package ----
set(CPACK_GENERATOR "TGZ;DEB")
set(CPACK_PACKAGE_NAME pvera)
# A Debian package names a maintainer with an address. The project has none; mail to .invalid (RFC 2606) goes nowhere, and says so.
set(CPACK_PACKAGE_CONTACT "the pvera maintainers <noreply@pvera.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_PACKAGE_CHECKSUM SHA256)
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE-MIT)
# One package holds what Debian would split into libpvera0.1 and libpvera-dev.
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
# Within a soname functions are added, so that a program needs the version that it was linked with, or a newer one.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
if(DPKG_SHLIBDEPS)
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
endif()
include(CPack)
