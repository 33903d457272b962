# The C++ in README, from nothing but the installed package: the first piece is a program, which is compiled and run; the others are
# fragments, which are compiled with what they do not declare.
cmake_minimum_required(VERSION 3.25)

# Puts what the first fence of text_name holds into piece_name, and what follows it into text_name.
function(take_piece text_name piece_name)
    # CMake's regular expressions have no lazy repetition, so the fences are found by hand.
    string(FIND "${${text_name}}" "\n```cpp\n" start)
    if(start EQUAL -1)
        message(FATAL_ERROR "${README} has too few pieces of C++")
    endif()
    math(EXPR start "${start} + 8")
    string(SUBSTRING "${${text_name}}" ${start} -1 rest)
    string(FIND "${rest}" "\n```" end)
    string(SUBSTRING "${rest}" 0 ${end} piece)
    string(SUBSTRING "${rest}" ${end} -1 rest)
    set(${piece_name} "${piece}" PARENT_SCOPE)
    set(${text_name} "${rest}" PARENT_SCOPE)
endfunction()

set(compile ${COMPILER} -std=c++17 -Wall -Wextra -Werror -I${PREFIX}/include)
file(READ ${README} text)
file(REMOVE_RECURSE ${OUT})

# ---- The program ----
take_piece(text program)
file(WRITE ${OUT}/client.cpp "${program}\n")
execute_process(COMMAND ${compile} client.cpp -o client -L${PREFIX}/${LIBDIR} -lpvera -Wl,-rpath,${PREFIX}/${LIBDIR}
    WORKING_DIRECTORY ${OUT} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ./client WORKING_DIRECTORY ${OUT} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
message(STATUS "${said}")
if(NOT said MATCHES "loss ([0-9.]+), then ([0-9.]+)\nrow 0: [-0-9.]+ to [-0-9.]+\n.*error 3: .*x")
    message(FATAL_ERROR "the client of ${README} said\n${said}")
endif()
if(NOT CMAKE_MATCH_2 LESS CMAKE_MATCH_1)
    message(FATAL_ERROR "its loss did not fall")
endif()

# ---- The fragments ----
take_piece(text without_exceptions)
file(WRITE ${OUT}/without_exceptions.cpp "#include <cstdio>
#include <pvera.hpp>
${without_exceptions}
int main() {
    report(serve(*pvera::model::create(), \"no/such/folder\"));
}
")
execute_process(COMMAND ${compile} -fno-exceptions without_exceptions.cpp -o without_exceptions -L${PREFIX}/${LIBDIR} -lpvera
    -Wl,-rpath,${PREFIX}/${LIBDIR} WORKING_DIRECTORY ${OUT} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ./without_exceptions WORKING_DIRECTORY ${OUT} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
if(NOT said MATCHES "^error 11: .*no/such/folder")
    message(FATAL_ERROR "without exceptions, the fragment of ${README} said\n${said}")
endif()
take_piece(text tensors)
file(WRITE ${OUT}/tensors.cpp "#include <pvera.hpp>
#include <vector>
using managed_tensor = pvera::dlpack::managed_tensor_versioned;
void capsule(managed_tensor *given);
void body(const managed_tensor *managed, std::shared_ptr<std::vector<float>> values, std::size_t n, std::size_t out);
void body(const managed_tensor *managed, std::shared_ptr<std::vector<float>> values, std::size_t n, std::size_t out) {
${tensors}
    static_cast<void>(x);
}
")
execute_process(COMMAND ${compile} -fsyntax-only tensors.cpp WORKING_DIRECTORY ${OUT} COMMAND_ERROR_IS_FATAL ANY)
