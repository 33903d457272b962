#!/usr/bin/env bash
# Puts what a GPU machine needs into a folder: kit.sh FOLDER [BUILD]. BUILD is a build folder of the default preset (build), whose
# c_cuda, kernels_test and libpvera.so are taken. On the GPU machine: FOLDER/run.sh, which needs the driver, libstdc++ and the
# glibc that is named at the end, or a newer one.
set -euo pipefail
cd "$(dirname "$0")/../.."
kit=$(realpath -m "${1:?usage: kit.sh FOLDER [BUILD]}")
build=$(realpath "${2:-build}")
mkdir -p "$kit"

# cargo says "Executable … (path)" for what it has built.
built() { cargo "$@" --locked --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*(\(.*\))$/\1/p' | tail -1; }
cp "$(CARGO_TARGET_DIR=$build/cargo built test --test cuda)" "$kit/tests"
cp "$(CARGO_TARGET_DIR=$build/cargo built bench --bench cuda)" "$kit/bench"
cp "$build/tests/cuda/c_cuda" "$build/tests/cuda/oracle/kernels_test" "$kit"
# The library under the one name that c_cuda asks for.
soname=$(objdump -p "$kit/c_cuda" | sed -n 's/.*NEEDED *\(libpvera\.so.*\)/\1/p')
cp "$build"/stage/lib*/"$soname" "$kit"
strip "$kit/tests" "$kit/bench"
cp -r tests/golden src/backend/cuda/kernels/ptx "$kit"
cp tests/cuda/run_kit.sh "$kit/run.sh"
glibc=$(cd "$kit" && objdump -T tests bench c_cuda kernels_test "$soname" | grep -o 'GLIBC_[0-9.]*' | sort --unique --version-sort | tail -1)
echo "copy $kit to a machine with a GPU, ${glibc/_/ } or newer and libstdc++, and run $(basename "$kit")/run.sh there"
