#!/bin/sh
# What there is to read is installed, and every relative link of every installed page leads to an installed file, and to a heading
# of it where it names one: docs.sh PREFIX/share
set -eu
cd "$1"
status=0
for page in LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md SECURITY.md docs/embedding.md docs/peft.md docs/platforms.md docs/cuda.md \
    docs/speed.md docs/design.md docs/digits.svg docs/clients/README.md bindings/cpp/README.md bindings/go/README.md \
    examples/c/digits.c examples/cpp/intervals.cpp examples/data/README.md examples/data/digits.bin examples/ggml/delta.c \
    examples/go/server/main.go examples/libtorch/train.cpp examples/mpi/data_parallel.c; do
    [ -s "doc/pvera/$page" ] || { echo "$page is not installed" >&2; status=1; }
done

# The names by which a page's headings are linked to, one a line.
headings() { sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'; }

# What a page links to: [text](target) without a scheme, and [text]: target.
targets() {
    grep -o '](<*[^)]*)' "$1" | sed 's/^](//; s/)$//; s/^<//; s/>$//; s/ "[^"]*"$//' | grep -v '[: ]' || true
    sed -n 's/^\[[^]]*]: *\([^ :]*\)$/\1/p' "$1"
}
links=0 anchors=0
for page in $(find . -name '*.md'); do
    for link in $(targets "$page"); do
        links=$((links + 1))
        file=$page anchor=
        case $link in '#'*) ;; *) file=$(dirname "$page")/${link%%#*} ;; esac
        case $link in *'#'*) anchor=${link#*#} ;; esac
        if [ ! -e "$file" ]; then
            echo "$page leads to $link, which is not installed" >&2
            status=1
        elif [ -n "$anchor" ]; then
            anchors=$((anchors + 1))
            headings "$file" | grep -qxF -e "$anchor" || { echo "$page leads to $link; there is no such heading" >&2; status=1; }
        fi
    done
done
[ "$links" -gt 60 ] && [ "$anchors" -gt 10 ] ||
    { echo "$links links found, $anchors of them to headings; the check itself is broken" >&2; status=1; }
exit $status
