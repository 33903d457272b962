#!/usr/bin/env bash
# Installs what the CMake preset arm needs, on Debian 12 for x86-64 with its security updates: cross compilers, an emulator,
# and Debian's rustc, the only one whose standard library for Arm is packaged. As root.
set -euo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail 'apt-get is not here; the preset arm is prepared for Debian 12 only'
[ "$(dpkg --print-architecture)" = amd64 ] || fail "this machine is $(dpkg --print-architecture); the preset arm crosses from amd64"

# The pinned Rust is the oldest that the lock file is tested with.
oldest=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$(dirname "$0")/../../rust-toolchain.toml")
packages=(
    gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    rustc-web libstd-rust-web-dev libstd-rust-web-dev:arm64
)

installed() {
    dpkg-query --show --showformat '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "not installed, and only root may: ${missing[*]}"
    dpkg --print-foreign-architectures | grep -qx arm64 || dpkg --add-architecture arm64
    apt-get update -qq
    available=$(apt-cache policy rustc-web | sed -n 's/^  Candidate: //p')
    dpkg --compare-versions "${available:-0}" ge "$oldest" ||
        fail "Debian has rustc-web ${available:-in no version}; wanted $oldest or newer (it comes with bookworm-security)"
    # Both architectures of a library must have one version, so apt may bring some that are there up to date.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" >/dev/null
fi
