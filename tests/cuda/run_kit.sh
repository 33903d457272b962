#!/usr/bin/env bash
# All of the CUDA tests on this machine's GPU, then the tables of times; with compute-sanitizer on the path, its four tools too.
set -uo pipefail
cd "$(dirname "$0")"
export PVERA_GOLDEN=$PWD/golden
failed=0
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
./kernels_test ptx/*.ptx || failed=1
./tests --ignored --test-threads=1 || failed=1
LD_LIBRARY_PATH=$PWD ./c_cuda works || failed=1
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        compute-sanitizer --tool "$tool" --error-exitcode 9 ./tests --ignored --test-threads=1 one_plain groups_of graphs || failed=1
    done
fi
./bench --bench || failed=1
./kernels_test --times ptx/*.ptx || failed=1
[ "$failed" = 0 ] && echo 'all passed' || echo 'SOMETHING FAILED'
exit "$failed"
