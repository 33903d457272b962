#!/bin/sh
# Checkpoints both ways between this library and PEFT. Usage: tests/peft/round_trip.sh [PYTHON]
# PYTHON has the packages of tests/peft/requirements.txt.
set -eu
cd "$(dirname "$0")/../.."
python=${1:-python3}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo "PEFT's checkpoints here, and ours written:"
PVERA_PEFT_OUT="$out" cargo test --quiet --test peft_round_trip --test vera
echo "Ours in PEFT:"
"$python" tests/peft/read_ours.py "$out"/*
