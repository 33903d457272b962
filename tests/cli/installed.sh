#!/bin/sh
# The tool as it is installed: installed.sh CMAKE BUILD PREFIX BINDIR DATADIR MANDIR VERSION
set -eu
cmake=$1 build=$2 prefix=$3 bin=$4 data=$5 man=$6 version=$7
rm -rf "$prefix"
"$cmake" --install "$build" --prefix "$prefix" --component tool >"$build/install_tool.log"
test "$("$prefix/$bin/pvera" --version)" = "pvera $version"
"$prefix/$bin/pvera" completions bash | cmp - "$prefix/$data/bash-completion/completions/pvera"
"$prefix/$bin/pvera" completions zsh | cmp - "$prefix/$data/zsh/site-functions/_pvera"
"$prefix/$bin/pvera" completions fish | cmp - "$prefix/$data/fish/vendor_completions.d/pvera.fish"
grep -q "TH pvera 1" "$prefix/$man/man1/pvera.1"
test -s "$prefix/$man/man1/pvera-bank-create.1"
# Nothing but what the system has: a user needs no second file.
if ldd "$prefix/$bin/pvera" | grep -E 'pvera|not found'; then exit 1; fi
