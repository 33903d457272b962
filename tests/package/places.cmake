# The places of GNUInstallDirs may be any inside the prefix: what was built is installed by other configurations of the project, and a
# user's project is built from each tree, moved. What lies outside is refused. -D SOURCE= -D BUILD= -D C_COMPILER=
# -D CXX_COMPILER= -D GENERATOR= -D PKG_CONFIG= -D OUT=.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${OUT})
set(configure ${CMAKE_COMMAND} -S ${SOURCE} -B ${OUT}/build -G ${GENERATOR} -D CMAKE_C_COMPILER=${C_COMPILER}
    -D CMAKE_CXX_COMPILER=${CXX_COMPILER} -D PVERA_CLI=OFF -D BUILD_TESTING=OFF -D CMAKE_INSTALL_PREFIX=${OUT}/tree)

# With these options for the configuration, the folders of the installed tree are these.
function(expect_tree libdir includedir datadir)
    file(REMOVE_RECURSE ${OUT}/tree ${OUT}/moved ${OUT}/consumer)
    execute_process(COMMAND ${configure} ${ARGN} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
    # In the place of a build.
    foreach(file IN ITEMS cargo/release/libpvera.so package/libpvera.a)
        get_filename_component(folder ${OUT}/build/${file} DIRECTORY)
        file(MAKE_DIRECTORY ${folder})
        file(COPY_FILE ${BUILD}/${file} ${OUT}/build/${file} ONLY_IF_DIFFERENT)
    endforeach()
    set(package ${OUT}/build/package)
    execute_process(COMMAND ${CMAKE_COMMAND} -D NATIVE=${BUILD}/cargo/native-static-libs.txt -D TEMPLATE=${package}/pvera.pc.in
        -D OUT=${package}/pvera.pc -P ${SOURCE}/cmake/pkg_config.cmake COMMAND_ERROR_IS_FATAL ANY)
    execute_process(COMMAND ${CMAKE_COMMAND} --install ${OUT}/build OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
    file(RENAME ${OUT}/tree ${OUT}/moved)

    foreach(file IN ITEMS ${libdir}/libpvera.so ${libdir}/pkgconfig/pvera.pc ${includedir}/pvera.hpp ${datadir}/doc/pvera/README.md)
        if(NOT EXISTS ${OUT}/moved/${file})
            message(FATAL_ERROR "with '${ARGN}' there is no ${file}")
        endif()
    endforeach()
    execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${SOURCE}/tests/c/consumer ${OUT}/consumer
        --build-generator ${GENERATOR} --build-options -D CMAKE_C_COMPILER=${C_COMPILER}
        -D pvera_DIR=${OUT}/moved/${datadir}/cmake/pvera --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure
        OUTPUT_VARIABLE printed ERROR_VARIABLE printed RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "with '${ARGN}' the package of CMake does not serve:\n${printed}")
    endif()
    if(PKG_CONFIG)
        execute_process(COMMAND sh ${SOURCE}/tests/c/consumer/pkg-config.sh shared ${C_COMPILER} ${PKG_CONFIG} ${OUT}/moved/${libdir}
            ${OUT} COMMAND_ERROR_IS_FATAL ANY)
    endif()
endfunction()

function(expect_refusal name place)
    execute_process(COMMAND ${configure} -D CMAKE_INSTALL_${name}=${place}
        OUTPUT_QUIET ERROR_VARIABLE failure RESULT_VARIABLE status)
    string(REGEX REPLACE "[ \n]+" " " failure "${failure}")
    set(wanted "CMAKE_INSTALL_${name} is ${place}; wanted a place inside CMAKE_INSTALL_PREFIX (${OUT}/tree)")
    string(FIND "${failure}" "${wanted}" at)
    if(status EQUAL 0 OR at EQUAL -1)
        message(FATAL_ERROR "CMAKE_INSTALL_${name}=${place} ended with ${status}; wanted '${wanted}'\n${failure}")
    endif()
endfunction()

expect_tree(lib/deep/er include/of/pvera data/other -D CMAKE_INSTALL_LIBDIR=lib/deep/er -D CMAKE_INSTALL_INCLUDEDIR=include/of/pvera
    -D CMAKE_INSTALL_DATADIR=data/other)
expect_tree(libs headers data -D CMAKE_INSTALL_LIBDIR=${OUT}/tree/libs -D CMAKE_INSTALL_INCLUDEDIR=${OUT}/tree/headers
    -D CMAKE_INSTALL_DATADIR=${OUT}/tree/data)
foreach(name IN ITEMS LIBDIR INCLUDEDIR DATADIR)
    expect_refusal(${name} /elsewhere)
    expect_refusal(${name} ../elsewhere)
    execute_process(COMMAND ${configure} -U CMAKE_INSTALL_${name} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
