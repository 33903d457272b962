# Compiles the fragment of C in README.md, as the body of a function that is given what the fragment does not declare.
file(READ ${README} text)
# CMake's regular expressions have no lazy repetition, so the fences are found by hand.
string(FIND "${text}" "\n```c\n" start)
if(start EQUAL -1)
    message(FATAL_ERROR "${README} has no fragment of C")
endif()
math(EXPR start "${start} + 6")
string(SUBSTRING "${text}" ${start} -1 fragment)
string(FIND "${fragment}" "\n```" end)
string(SUBSTRING "${fragment}" 0 ${end} fragment)
string(REPLACE "#include <pvera.h>\n" "" body "${fragment}")
if(body STREQUAL fragment)
    message(FATAL_ERROR "the fragment of ${README} does not include <pvera.h>")
endif()
file(WRITE ${OUT} "#include <pvera.h>
#include <stdio.h>

void readme(const float *activations, float *base_output, size_t n);
void readme(const float *activations, float *base_output, size_t n) {
${body}
}
")
execute_process(COMMAND ${COMPILER} -std=c11 -fsyntax-only -Wall -Wextra -Werror -I${INCLUDE} ${OUT} COMMAND_ERROR_IS_FATAL ANY)
