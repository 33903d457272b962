# The version of the installed library, as its header says it, and whether it is one that a program asks for. A range is taken as it
# is said. A single version wants the same ABI (before 1.0 that of its minor version), and no older one; a major version alone, that
# one.
set(_pvera_includedir "${CMAKE_CURRENT_LIST_DIR}/../../../include")
include("${CMAKE_CURRENT_LIST_DIR}/pvera-places.cmake" OPTIONAL) # see pvera-config.cmake
file(STRINGS "${_pvera_includedir}/pvera.h" PACKAGE_VERSION REGEX "^#define PVERA_VERSION_TEXT ")
string(REGEX REPLACE "^.*\"(.*)\"$" "\\1" PACKAGE_VERSION "${PACKAGE_VERSION}")
string(REGEX MATCH "^0\\.[0-9]+|^[0-9]+" _pvera_abi "${PACKAGE_VERSION}")

if(PACKAGE_FIND_VERSION_RANGE)
    if(PACKAGE_FIND_VERSION_MIN VERSION_LESS_EQUAL PACKAGE_VERSION AND (PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION_MAX OR
            (PACKAGE_FIND_VERSION_RANGE_MAX STREQUAL "INCLUDE" AND PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION_MAX)))
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
elseif(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
    string(REGEX MATCH "^0\\.[0-9]+|^[0-9]+" _pvera_wanted "${PACKAGE_FIND_VERSION}")
    string(REGEX MATCH "^[0-9]+" _pvera_major "${PACKAGE_VERSION}")
    if(_pvera_wanted STREQUAL _pvera_abi OR PACKAGE_FIND_VERSION STREQUAL _pvera_major)
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
