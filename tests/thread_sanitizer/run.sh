#!/usr/bin/env bash
# The tests in which threads meet, under ThreadSanitizer: the library's code and std's, both instrumented. By hand: it builds std and
# all dependencies anew, some ten minutes. Needs Debian's rustc-web, rust-web-src (std's source) and lld, and the sanitizer's runtime,
# which rustup's toolchains have. Nothing is suppressed.
#
#     tests/thread_sanitizer/run.sh [FOLDER]      # build/thread-sanitizer
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:-build/thread-sanitizer}")
mkdir -p "$folder"
host=x86_64-unknown-linux-gnu

export RUSTC=${RUSTC:-/usr/bin/rustc} RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$folder
if ! [ -d "$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library/std" ]; then
    echo "$RUSTC has no source of std; wanted Debian's rustc-web and rust-web-src (apt-get install)" >&2
    exit 1
fi
runtime=$(find "${RUSTUP_HOME:-$HOME/.rustup}/toolchains" -name 'librustc-stable_rt.tsan.a' -path "*$host*" | head -1)
if [ -z "$runtime" ]; then
    echo "no librustc-stable_rt.tsan.a below ${RUSTUP_HOME:-$HOME/.rustup}/toolchains; wanted a toolchain of rustup's" >&2
    exit 1
fi

# A rustc of Debian's has no runtime of its own.
export TSAN_RUNTIME=$runtime RUSTFLAGS='-Zsanitizer=thread -Zexternal-clangrt'
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=$PWD/tests/thread_sanitizer/cc.sh
export TSAN_OPTIONS="halt_on_error=0 exitcode=66 ${TSAN_OPTIONS:-}"

run() { cargo test --locked --quiet --target "$host" -Zbuild-std "$@"; }
# Proof that it is on: two threads that write one word without order have to be told.
if run --test many_adapters -- --ignored race_that >"$folder/proof" 2>&1 || ! grep -q 'data race' "$folder/proof"; then
    cat "$folder/proof"
    echo 'the sanitizer did not see a planted race' >&2
    exit 1
fi
run --test many_adapters -- readers
run --test determinism
run --lib -- bank model memory context linear
