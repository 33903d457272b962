#!/bin/sh
# Builds and runs the consumer with the flags of pkg-config alone: pkg-config.sh shared|static CXX PKG_CONFIG LIBDIR OUT
set -eu
kind=$1 cxx=$2 pkg_config=$3 libdir=$4 program=$5/consumer-pkg-config-$1
here=$(dirname "$0")
export PKG_CONFIG_PATH="$libdir/pkgconfig"
if [ "$kind" = static ]; then
    # The linker prefers libpvera.so of the same folder, so the archive is named outright.
    libs=$("$pkg_config" --static --libs pvera | sed 's/-lpvera/-l:libpvera.a/')
else
    libs="$("$pkg_config" --libs pvera) -Wl,-rpath,$libdir"
fi
# shellcheck disable=SC2046,SC2086
"$cxx" -std=c++17 $("$pkg_config" --cflags pvera) "$here/main.cpp" $libs -o "$program"
"$program"
