#!/bin/sh
# What there is to read is installed, and its pages lead to each other: docs.sh PREFIX/share/doc/pvera
#
# Links into examples/ and tests/ lead into the sources, which are not installed.
set -eu
cd "$1"
status=0
for page in LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md SECURITY.md docs/embedding.md docs/peft.md docs/platforms.md docs/cuda.md \
    docs/speed.md docs/design.md docs/digits.svg docs/clients/README.md bindings/cpp/README.md bindings/go/README.md; do
    [ -s "$page" ] || { echo "$page is not installed" >&2; status=1; }
done
links=0
for page in $(find . -name '*.md'); do
    for link in $(grep -o ']([A-Za-z.][^):# ]*[)#]' "$page" | sed 's/^](//; s/[)#]$//'); do
        target=$(realpath -m --relative-to=. "$(dirname "$page")/$link")
        case $target in examples/* | tests/*) continue ;; esac
        links=$((links + 1))
        [ -e "$target" ] || { echo "$page leads to $target, which is not installed" >&2; status=1; }
    done
done
[ "$links" -gt 15 ] || { echo "$links links found; the check itself is broken" >&2; status=1; }
exit $status
