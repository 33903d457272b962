# What find_package takes and refuses, in configure runs of a small project: the staged copy, and trees that say that they hold other
# versions. -D STAGE= -D LIBDIR= -D C_COMPILER= -D PROJECT= -D OUT=.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${OUT})
file(COPY ${STAGE}/share/cmake DESTINATION ${OUT}/staged/share)
file(COPY ${STAGE}/include DESTINATION ${OUT}/staged)
file(COPY ${STAGE}/${LIBDIR}/pkgconfig DESTINATION ${OUT}/staged/${LIBDIR})
file(TOUCH ${OUT}/staged/${LIBDIR}/libpvera.so ${OUT}/staged/${LIBDIR}/libpvera.a)

# Makes the tree of another version.
function(tree version)
    file(COPY ${OUT}/staged/ DESTINATION ${OUT}/${version})
    file(READ ${OUT}/${version}/include/pvera.h header)
    string(REGEX REPLACE "(PVERA_VERSION_TEXT) \"[^\"]*\"" "\\1 \"${version}\"" header "${header}")
    file(WRITE ${OUT}/${version}/include/pvera.h "${header}")
endfunction()

# find_package(pvera REQUEST…) with that tree alone gives an answer that begins so.
function(expect tree wanted)
    list(JOIN ARGN ";" request)
    execute_process(
        COMMAND ${CMAKE_COMMAND} -S ${PROJECT} -B ${OUT}/build -U pvera_DIR -D CMAKE_C_COMPILER=${C_COMPILER}
                -D CMAKE_PREFIX_PATH=${OUT}/${tree} -D CMAKE_FIND_USE_SYSTEM_PACKAGE_REGISTRY=OFF "-DREQUEST=${request}"
        OUTPUT_VARIABLE printed ERROR_VARIABLE failure RESULT_VARIABLE status)
    if(NOT status EQUAL 0 OR NOT printed MATCHES "answer: ${wanted}")
        string(REGEX MATCH "answer: [^\n]*" answer "${printed}")
        message(FATAL_ERROR "${tree}: find_package(pvera ${ARGN}) ended with ${status}, '${answer}'; wanted '${wanted}'\n${failure}")
    endif()
endfunction()

foreach(version IN ITEMS 0.1.3 0.2.0 1.4.2)
    tree(${version})
endforeach()

file(STRINGS ${STAGE}/include/pvera.h version REGEX "^#define PVERA_VERSION_TEXT ")
string(REGEX REPLACE "^.*\"(.*)\"$" "\\1" version "${version}")
expect(staged "found ${version}")
expect(staged "found ${version}" ${version} EXACT)

# One version: the same ABI, and no older one.
expect(0.1.3 "found 0.1.3" 0)
expect(0.1.3 "found 0.1.3" 0.1)
expect(0.1.3 "found 0.1.3" 0.1.3)
expect(0.1.3 "not found" 0.1.4)
expect(0.1.3 "not found" 0.1.2 EXACT)
expect(0.1.3 "not found" 0.0)
expect(0.1.3 "not found" 0.2)
expect(0.1.3 "not found" 1)
expect(0.2.0 "found 0.2.0" 0)
expect(0.2.0 "not found" 0.1)
expect(1.4.2 "found 1.4.2" 1)
expect(1.4.2 "found 1.4.2" 1.2)
expect(1.4.2 "not found" 1.5)
expect(1.4.2 "not found" 0)
expect(1.4.2 "not found" 0.1)

# A range: what lies in it.
expect(0.1.3 "found 0.1.3" 0.1...<0.2)
expect(0.1.3 "found 0.1.3" 0.1...0.1.3)
expect(0.1.3 "found 0.1.3" 0.0.1...<1)
expect(0.1.3 "not found" 0.1...<0.1.3)
expect(0.1.3 "not found" 0.1...0.1.2)
expect(0.1.3 "not found" 0.1.4...<0.2)
expect(0.2.0 "not found" 0.1...<0.2)
expect(0.2.0 "found 0.2.0" 0.1...0.2)
expect(1.4.2 "not found" 0.1...<1)
expect(1.4.2 "found 1.4.2" 0.1...<2)

# Components: the libraries that are there. Of an unknown one only an optional wish is passed over.
expect(staged "found ${version}, static TRUE" COMPONENTS shared static)
expect(staged "found ${version}, static TRUE" OPTIONAL_COMPONENTS nonsense)
expect(staged "not found there is no component nonsense; wanted shared, or static where ${OUT}/staged/${LIBDIR}/libpvera.a is"
    COMPONENTS shared nonsense)
file(REMOVE ${OUT}/1.4.2/${LIBDIR}/libpvera.a)
expect(1.4.2 "found 1.4.2, static FALSE")
expect(1.4.2 "found 1.4.2, static FALSE" COMPONENTS shared OPTIONAL_COMPONENTS static)
expect(1.4.2 "not found there is no component static; wanted" COMPONENTS static)

# A tree of cargo-c does not say where its folders are; the library is in one of the usual ones.
file(REMOVE ${OUT}/0.2.0/share/cmake/pvera/pvera-places.cmake)
expect(0.2.0 "found 0.2.0" 0.2)
file(RENAME ${OUT}/0.2.0/${LIBDIR} ${OUT}/0.2.0/lib64)
expect(0.2.0 "found 0.2.0" 0.2)

# A tree without its library is not found, and says why.
file(REMOVE ${OUT}/0.1.3/${LIBDIR}/libpvera.so)
expect(0.1.3 "not found [^\n]* no libpvera.so in ${OUT}/0.1.3/${LIBDIR}\n" 0.1)
file(REMOVE ${OUT}/0.2.0/lib64/libpvera.so)
expect(0.2.0 "not found there is no pvera.h in ${OUT}/0.2.0/include, or no libpvera.so in [^\n]* or ${OUT}/0.2.0/lib64 or ${OUT}/0.2.0/lib\n" 0.2)
