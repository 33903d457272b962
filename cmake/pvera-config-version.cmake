# The version of the installed library, as its header says it. Before 1.0 another minor version is another ABI.
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../include/pvera.h" PACKAGE_VERSION REGEX "^#define PVERA_VERSION_TEXT ")
string(REGEX REPLACE "^.*\"(.*)\"$" "\\1" PACKAGE_VERSION "${PACKAGE_VERSION}")
string(REGEX REPLACE "^([0-9]+\\.[0-9]+)\\..*$" "\\1" pvera_series "${PACKAGE_VERSION}")

if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION AND
        "${PACKAGE_FIND_VERSION_MAJOR}.${PACKAGE_FIND_VERSION_MINOR}" STREQUAL pvera_series)
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
