#!/bin/sh
# Runs a command that calls Go, after the header: go.sh HEADER COMMAND…
# Go's cache does not see that a header outside the module has changed, so its checksum becomes an argument of the compiler.
set -eu
CGO_CFLAGS="-O2 -g -DPVERA_HEADER_SUM=$(cksum <"$1" | cut -d' ' -f1)"
export CGO_CFLAGS
shift
exec "$@"
