#!/usr/bin/env bash
# The kit's tests on this machine's GPU, then the tables of times; with compute-sanitizer on the path, its four tools too.
set -uo pipefail
cd "$(dirname "$0")"
export PVERA_GOLDEN=$PWD/golden
# libpvera.so for c_cuda.
export LD_LIBRARY_PATH=$PWD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
failed=0

# The C libraries of the machine that built the kit may be newer than this one's.
missing=$(ldd ./tests ./bench ./c_cuda ./kernels_test 2>&1 | grep 'not found')
if [ -n "$missing" ]; then
    echo "the kit does not run on this machine: it needs libstdc++, and the glibc of the machine that built it or a newer one (build it on an older one)"
    echo "$missing"
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
./kernels_test ptx/*.ptx || failed=1
./tests --ignored --test-threads=1 2>&1 | tee "$log" || failed=1
./c_cuda works || failed=1
if command -v compute-sanitizer >/dev/null; then
    # Calls that return an error are what some tests ask for.
    sanitizer="compute-sanitizer --report-api-errors no --error-exitcode 9"
    for tool in memcheck initcheck synccheck; do
        $sanitizer --tool "$tool" ./tests --ignored --test-threads=1 one_plain groups_of graphs || failed=1
        $sanitizer --tool "$tool" ./kernels_test ptx/*.ptx || failed=1
    done
    # Twenty times as slow as the others.
    $sanitizer --tool racecheck ./tests --ignored --test-threads=1 one_plain || failed=1
fi
./bench --bench || failed=1
./kernels_test --times ptx/*.ptx || failed=1

passed=$(sed -n 's/^test result:.* \([0-9]*\) passed;.*/\1/p' "$log")
skipped=$(grep -c 'skipped at ' "$log")
echo "Rust tests: $((${passed:-0} - skipped)) run and passed, $skipped skipped: they need a libcuda that fails or changes kernels when told to"
echo 'not in this kit: what is said without a usable libcuda, unloading, mutants'
[ "$failed" = 0 ] && echo 'all passed' || echo 'SOMETHING FAILED'
exit "$failed"
