#!/usr/bin/env bash
# Builds fewbit and runs interop.py with the sample model. Arguments go to interop.py.
# FEWBIT_INTEROP_PYTHON names a Python that has the packages of requirements.txt; without it scripts/python-environment.sh
# makes a virtual environment with them in the user's cache folder (a large download, once).
set -euo pipefail
cd "$(dirname "$0")/.."

python="${FEWBIT_INTEROP_PYTHON:-$(scripts/python-environment.sh interop/requirements.txt)}"
model="${FEWBIT_SAMPLE_MODEL:-$(scripts/sample-model.sh)}"
cargo build --release --package fewbit-cli
# The other libraries keep the activations of weight-only int8 in floats: what is compared is what the files say.
export FEWBIT_WEIGHT_ONLY=floats
exec "$python" interop/interop.py target/release/fewbit --model "$model" "$@"
