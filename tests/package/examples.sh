#!/bin/sh
# The installed examples build outside the source tree, on the installed library: examples.sh CC CXX PKG_CONFIG PREFIX LIBDIR OUT
set -eu
cc=$1 cxx=$2 pkg_config=$3 prefix=$4 out=$6
export PKG_CONFIG_PATH="$prefix/$5/pkgconfig" LD_LIBRARY_PATH="$prefix/$5"
rm -rf "$out"
mkdir -p "$out"
cp -r "$prefix/share/doc/pvera/examples" "$out"
cd "$out/examples"
flags=$("$pkg_config" --cflags --libs pvera)
for program in digits grid; do
    other=$([ $program = digits ] && echo grid || echo digits)
    # shellcheck disable=SC2046,SC2086
    "$cc" -std=c11 -Wall -Wextra -Werror $(ls c/*.c | grep -v "/$other.c$") $flags -lm -o "$out/$program"
done
# shellcheck disable=SC2086
"$cxx" -std=c++17 -Wall -Wextra -Werror cpp/intervals.cpp $flags -o "$out/intervals"
"$out/intervals"
