#!/bin/sh
# Sets this library beside PyTorch and PEFT. Usage: benches/peers/run.sh [FOLDER [OPTION...]]
# FOLDER (build/peers) gets a virtual environment with requirements.txt; PEERS_VENV=DIR uses that environment as it is.
# PVERA_LIBRARY=PATH names the shared library (built with cargo if absent). Options go to main.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
folder=${1:-build/peers}
[ $# -eq 0 ] || shift
if [ -n "${PEERS_VENV:-}" ]; then
    venv=$PEERS_VENV
else
    venv=$folder/venv
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
fi
if [ -z "${PVERA_LIBRARY:-}" ]; then
    cargo build --release --locked --lib
    PVERA_LIBRARY=${CARGO_TARGET_DIR:-target}/release/libpvera.so
fi
exec "$venv/bin/python" "$here/main.py" --library "$PVERA_LIBRARY" "$@"
