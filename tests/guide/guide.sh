#!/bin/sh
# Does what docs/embedding.md says, as a newcomer would: guide.sh PAGE BUILD LIBDIR OUT WHAT
#
# The page's files are put into an empty folder, and its shell blocks for WHAT are run there as printed, with PREFIX set. What they
# print must end with the page's expected.txt. WHAT is one of the page's run= names (install comes first and makes the prefix),
# "reference" (the C client on the reference backend), or "fragments" (everything compiled, warnings as errors).
set -eu
page=$1 build=$2 libdir=$3 out=$4 what=$5
here=$(cd "$(dirname "$0")" && pwd)
export PREFIX="$out/prefix" PATH="${CMAKE_FOLDER:+$CMAKE_FOLDER:}$PATH"
folder=$out/$what
rm -rf "$folder"
mkdir -p "$folder"
awk -v out="$folder" -f "$here/extract.awk" "$page"
cd "$folder"

# A block as printed, but for lib where this system has another name for it, as the page says.
run() {
    sed "s#\$PREFIX/lib\([/ ]\|\$\)#\$PREFIX/$libdir\1#g" "$1.sh" >run.sh
    sh -eu run.sh
}

case $what in
install)
    rm -rf "$PREFIX"
    ln -s "$build" build
    run install
    ;;
fragments)
    export PKG_CONFIG_PATH="$PREFIX/$libdir/pkgconfig"
    flags="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I$here $(pkg-config --cflags pvera)"
    for file in *.c; do
        # A fragment need not use all that it sets.
        case $file in fragment_*) unused=-Wno-unused ;; *) unused= ;; esac
        # shellcheck disable=SC2086
        cc -std=c11 $flags $unused "$file"
    done
    # shellcheck disable=SC2086
    c++ -std=c++17 $flags -Wconversion client.cpp
    ;;
*)
    script=$what
    if [ "$what" = reference ]; then
        sed 's/pvera_context_new(NULL, /pvera_context_new(\&(pvera_context_options){sizeof(pvera_context_options), PVERA_BACKEND_REFERENCE}, /' \
            client.c >on_reference.c
        if cmp -s client.c on_reference.c; then echo "client.c makes no context with NULL options" >&2 && exit 1; fi
        mv on_reference.c client.c
        script=c
    fi
    run "$script" >printed.txt
    tail -n "$(wc -l <expected.txt)" printed.txt | diff expected.txt -
    ;;
esac
