#!/usr/bin/env bash
# Builds fewbit and runs interop.py with the sample model. Arguments go to interop.py.
# FEWBIT_INTEROP_PYTHON names a Python that has the packages of requirements.txt; without it a virtual environment with
# them is made in target/interop-venv (a large download).
set -euo pipefail
cd "$(dirname "$0")/.."

python="${FEWBIT_INTEROP_PYTHON:-}"
if [ -z "$python" ]; then
    python=target/interop-venv/bin/python
    if [ ! -e target/interop-venv/complete ]; then
        python3 -m venv target/interop-venv
        "$python" -m pip install --quiet --requirement interop/requirements.txt
        touch target/interop-venv/complete
    fi
fi
model="${FEWBIT_SAMPLE_MODEL:-$(scripts/sample-model.sh)}"
cargo build --release --package fewbit-cli
exec "$python" interop/interop.py target/release/fewbit --model "$model" "$@"
