#!/usr/bin/env bash
# Puts what a GPU machine needs into a folder: kit.sh FOLDER [BUILD]. BUILD is a build folder of the default preset (build), whose
# c_cuda and libpvera.so are taken. On the GPU machine: FOLDER/run.sh, which needs the driver and nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."
kit=$(realpath -m "${1:?usage: kit.sh FOLDER [BUILD]}")
build=$(realpath "${2:-build}")
mkdir -p "$kit"

# cargo says "Executable … (path)" for what it has built.
built() { cargo "$@" --locked --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*(\(.*\))$/\1/p' | tail -1; }
cp "$(CARGO_TARGET_DIR=$build/cargo built test --test cuda)" "$kit/tests"
cp "$(CARGO_TARGET_DIR=$build/cargo built bench --bench cuda)" "$kit/bench"
cp "$build/tests/cuda/c_cuda" "$build/tests/cuda/oracle/kernels_test" "$build"/stage/lib*/libpvera.so.* "$kit"
strip "$kit/tests" "$kit/bench"
cp -r tests/golden src/backend/cuda/kernels/ptx "$kit"
cp tests/cuda/run_kit.sh "$kit/run.sh"
echo "copy $kit to a machine with a GPU and run $(basename "$kit")/run.sh there"
