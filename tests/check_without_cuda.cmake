# PVERA_CUDA=OFF configures: cargo is asked for a library without CUDA, and no test needs one.
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BUILD} -D PVERA_CUDA=OFF -D PVERA_CLI=OFF
    OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${BUILD} --show-only OUTPUT_VARIABLE listed ERROR_QUIET
    COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL " #[0-9]+: [^\n]+" tests "${listed}")
if(NOT tests MATCHES "rust\\.lib")
    message(FATAL_ERROR "ctest lists no rust.lib among the tests '${tests}'")
endif()
list(FILTER tests INCLUDE REGEX "cuda")
# Clients are only compiled, against the one header that there is.
list(FILTER tests EXCLUDE REGEX ": (clients\\.|without_cuda)")
if(tests)
    message(FATAL_ERROR "without CUDA there are the tests '${tests}'; wanted none of CUDA")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} --target library -- -n OUTPUT_VARIABLE commands COMMAND_ERROR_IS_FATAL ANY)
if(NOT commands MATCHES "rustc [^\n]*--no-default-features")
    message(FATAL_ERROR "the library would be built with CUDA: ${commands}")
endif()
