# Fills pvera.pc with what rustc says that a static link needs: -D NATIVE= -D TEMPLATE= -D OUT=.
cmake_minimum_required(VERSION 3.25)

file(READ ${NATIVE} native_static_libs)
string(STRIP "${native_static_libs}" native_static_libs)
if(NOT native_static_libs MATCHES "^-l[^\n]*$")
    message(FATAL_ERROR "${NATIVE} holds \"${native_static_libs}\"; wanted rustc's line of -l options")
endif()
configure_file(${TEMPLATE} ${OUT} @ONLY)
