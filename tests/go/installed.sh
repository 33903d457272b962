#!/bin/sh
# Builds the installed service in a copy, as its go.mod says: installed.sh GO PREFIX OUT
set -eu
go=$1 prefix=$2 out=$3
rm -rf "$out"
cp -r "$prefix/share/doc/pvera/examples/go" "$out"
cd "$out"
eval "$(sed -n 's#^// .*: \(go mod edit .*\)#\1#p' go.mod | sed "s#^go #\"$go\" #; s#PREFIX#$prefix#")"
"$go" build -o server.out ./server
./server.out -base "$out/nowhere" -listen 127.0.0.1:0 2>refused.txt && exit 1
grep nowhere refused.txt
