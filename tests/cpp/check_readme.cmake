# Compiles and runs the first program printed in README, from nothing but the installed package and pkg-config's flags.
cmake_minimum_required(VERSION 3.25)

file(READ ${README} text)
# CMake's regular expressions have no lazy repetition, so the fences are found by hand.
string(FIND "${text}" "\n```cpp\n" start)
if(start EQUAL -1)
    message(FATAL_ERROR "${README} has no program in C++")
endif()
math(EXPR start "${start} + 8")
string(SUBSTRING "${text}" ${start} -1 program)
string(FIND "${program}" "\n```" end)
string(SUBSTRING "${program}" 0 ${end} program)
file(REMOVE_RECURSE ${OUT})
file(WRITE ${OUT}/client.cpp "${program}\n")
execute_process(COMMAND ${COMPILER} -std=c++17 -Wall -Wextra -Werror client.cpp -o client -I${PREFIX}/include -L${PREFIX}/${LIBDIR}
    -lpvera -Wl,-rpath,${PREFIX}/${LIBDIR}
    WORKING_DIRECTORY ${OUT} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ./client WORKING_DIRECTORY ${OUT} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
message(STATUS "${said}")
if(NOT said MATCHES "loss ([0-9.]+), then ([0-9.]+)\nrow 0: [-0-9.]+ to [-0-9.]+\n.*error 3: .*x")
    message(FATAL_ERROR "the client of ${README} said\n${said}")
endif()
if(NOT CMAKE_MATCH_2 LESS CMAKE_MATCH_1)
    message(FATAL_ERROR "its loss did not fall")
endif()
