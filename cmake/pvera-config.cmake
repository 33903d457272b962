# The CMake package: pvera::pvera is the shared library, pvera::static the static one, pvera::cpp and pvera::cpp_static are the C++
# binding on either. The components are shared and static; without libpvera.a there are no static targets and no component static.
#
# Nothing here is generated. The libraries are looked for in the tree that this file lies in, and what a static link needs is read
# from pvera.pc beside them, so that both ways of building the tree (CMake, cargo-c) install this very file. CMake, whose tree may have
# other folders, says in pvera-places.cmake which. A toolchain that looks for everything under its CMAKE_FIND_ROOT_PATH has found this
# file; its tree is not to be looked for under that path again.
get_filename_component(_pvera_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_pvera_includedir "${_pvera_prefix}/include")
set(_pvera_libdirs "${_pvera_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}" "${_pvera_prefix}/lib64" "${_pvera_prefix}/lib")
include("${CMAKE_CURRENT_LIST_DIR}/pvera-places.cmake" OPTIONAL)
find_path(_pvera_include pvera.h PATHS "${_pvera_includedir}" NO_CACHE NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_library(_pvera_shared NAMES libpvera.so NO_CACHE NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH PATHS ${_pvera_libdirs})
if(NOT _pvera_include OR NOT _pvera_shared)
    set(pvera_FOUND FALSE)
    list(JOIN _pvera_libdirs " or " _pvera_libdirs)
    set(pvera_NOT_FOUND_MESSAGE "there is no pvera.h in ${_pvera_includedir}, or no libpvera.so in ${_pvera_libdirs}")
else()
    get_filename_component(_pvera_libdir "${_pvera_shared}" DIRECTORY)
    set(pvera_shared_FOUND TRUE)
    if(NOT TARGET pvera::pvera)
        add_library(pvera::pvera SHARED IMPORTED)
        set_target_properties(pvera::pvera PROPERTIES
            IMPORTED_LOCATION "${_pvera_shared}"
            INTERFACE_INCLUDE_DIRECTORIES "${_pvera_include}")
        add_library(pvera::cpp INTERFACE IMPORTED)
        set_target_properties(pvera::cpp PROPERTIES
            INTERFACE_LINK_LIBRARIES pvera::pvera
            INTERFACE_COMPILE_FEATURES cxx_std_17)
    endif()
    set(pvera_static_FOUND FALSE)
    if(EXISTS "${_pvera_libdir}/libpvera.a")
        set(pvera_static_FOUND TRUE)
    endif()
    if(pvera_static_FOUND AND NOT TARGET pvera::static)
        file(STRINGS "${_pvera_libdir}/pkgconfig/pvera.pc" _pvera_private REGEX "^Libs\\.private:")
        string(REGEX MATCHALL "-l[^ ]+" _pvera_private "${_pvera_private}")
        add_library(pvera::static STATIC IMPORTED)
        set_target_properties(pvera::static PROPERTIES
            IMPORTED_LOCATION "${_pvera_libdir}/libpvera.a"
            INTERFACE_INCLUDE_DIRECTORIES "${_pvera_include}"
            INTERFACE_LINK_LIBRARIES "${_pvera_private}")
        add_library(pvera::cpp_static INTERFACE IMPORTED)
        set_target_properties(pvera::cpp_static PROPERTIES
            INTERFACE_LINK_LIBRARIES pvera::static
            INTERFACE_COMPILE_FEATURES cxx_std_17)
    endif()
    foreach(_pvera_component IN LISTS pvera_FIND_COMPONENTS)
        if(pvera_FIND_REQUIRED_${_pvera_component} AND NOT pvera_${_pvera_component}_FOUND)
            set(pvera_FOUND FALSE)
            set(pvera_NOT_FOUND_MESSAGE
                "there is no component ${_pvera_component}; wanted shared, or static where ${_pvera_libdir}/libpvera.a is installed")
        endif()
    endforeach()
endif()
# find_path and find_library look for nothing that is set, and a project may find pvera twice.
unset(_pvera_prefix)
unset(_pvera_includedir)
unset(_pvera_libdirs)
unset(_pvera_include)
unset(_pvera_shared)
unset(_pvera_libdir)
unset(_pvera_component)
unset(_pvera_private)
