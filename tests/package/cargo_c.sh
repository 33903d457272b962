#!/bin/sh
# cargo-c installs the tree that CMake installs: cargo_c.sh CARGO PKG_CONFIG STAGE LIBDIR OUT [FEATURES…]
#
# The same files and links, the same soname and exported names, the same flags. Only libpvera.a differs: cargo-c installs rustc's
# archive as it is, CMake one object. And CMake alone says in a file where its tree's folders are.
set -eu
cargo=$1 pkg_config=$2 stage=$3 libdir=$4 out=$5
shift 5
rm -rf "$out/tree"
"$cargo" cinstall --release --locked --offline --target-dir "$out/target" --prefix "$out/tree" --libdir "$libdir" "$@"

status=0
# equal WHAT COMMAND…: the command prints the same in both trees.
equal() {
    what=$1
    shift
    (cd "$stage" && "$@") >"$out/cmake.txt"
    (cd "$out/tree" && "$@") >"$out/cargo-c.txt"
    diff "$out/cmake.txt" "$out/cargo-c.txt" || { echo "differs (CMake <, cargo-c >): $what" >&2; status=1; }
}
tree() { find . ! -type d ! -name pvera-places.cmake | LC_ALL=C sort; }
links() { find . -type l -printf '%p -> %l\n' | LC_ALL=C sort; }
texts() { find . -type f ! -path './lib*/libpvera.*' ! -name pvera.pc ! -name pvera-places.cmake -exec cksum {} + | LC_ALL=C sort -k3; }
soname() { readelf --dynamic "$libdir/libpvera.so" | sed -n 's/.*SONAME//p'; }
symbols() { nm -D --defined-only "$libdir/libpvera.so" | sed 's/^[0-9a-f]* //'; }
flags() {
    export PKG_CONFIG_PATH="$PWD/$libdir/pkgconfig"
    "$pkg_config" --modversion pvera
    # CMake's prefix is relative to the file, cargo-c's absolute.
    "$pkg_config" --static --cflags --libs pvera | sed "s#$PWD/$libdir/pkgconfig/[./]*#/#g; s#$PWD/#/#g"
}
equal files tree
equal links links
equal texts texts
equal soname soname
equal 'exported names' symbols
equal 'flags of pkg-config' flags
exit $status
