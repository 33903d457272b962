#!/bin/sh
# Links two_rusts.c with archives, and with what pvera.pc says that a static link needs; runs it: two_rusts.sh CC PKG_CONFIG LIBDIR OUT ARCHIVE…
set -eu
cc=$1 pkg_config=$2 libdir=$3 program=$4
shift 4
export PKG_CONFIG_PATH="$libdir/pkgconfig"
native=$("$pkg_config" --static --libs pvera | sed 's/-lpvera//')
# shellcheck disable=SC2046,SC2086
"$cc" -std=c11 -Wall -Wextra -Werror $("$pkg_config" --cflags pvera) "$(dirname "$0")/two_rusts.c" "$@" $native -o "$program"
"$program"
