#!/bin/sh
# The ABI that include/pvera.h promises, as libabigail sees it: abi.sh check compares it with pvera.abi, abi.sh renew writes that anew.
#
# A C object that defines every function of the header is what is dumped, and not the library: rustc's debug information names Rust's
# types and changes with each version of rustc. That the library keeps to the header is left to tests/c/test_abi.c, src/ffi/layout.rs,
# which has the same numbers, and tests/header.rs.
set -eu
here=$(dirname "$0")
header=$here/../../include/pvera.h
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A declaration becomes a definition: what begins a line with a return type and ends with ");" is a function of the API.
{
    echo '#include "pvera.h"'
    "${CC:-cc}" -E -P "$header" | tr '\n' ' ' | sed 's/[;}] /&\n/g' |
        sed -n '/^ *typedef/d; /^ *static/d; s/^ *\(.*pvera_[a-z0-9_]*(.*)\);.*$/\1 { __builtin_trap(); }/p'
} >"$work/api.c"
cp "$header" "$work"
defined=$(grep -c __builtin_trap "$work/api.c")
exported=$(grep -c . "$here/../c/symbols.txt")
if [ "$defined" != "$exported" ]; then
    echo "$defined functions were found in include/pvera.h; tests/c/symbols.txt has $exported" >&2
    exit 1
fi
"${CC:-cc}" -std=c11 -g -O0 -fPIC -shared -Wl,-soname,libpvera.so -I"$work" "$work/api.c" -o "$work/libpvera.so"

case ${1:-} in
renew)
    abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --type-id-style hash \
        --out-file "$here/pvera.abi" "$work/libpvera.so"
    sed -i "s#$work/##" "$here/pvera.abi"
    ;;
check)
    if ! abidiff "$here/pvera.abi" "$work/libpvera.so"; then
        echo 'The ABI is not that of tests/abi/pvera.abi. If it is meant to change: sh tests/abi/abi.sh renew' >&2
        exit 1
    fi
    ;;
*)
    echo 'usage: abi.sh check|renew' >&2
    exit 2
    ;;
esac
