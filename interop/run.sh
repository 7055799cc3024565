#!/usr/bin/env bash
# Builds fewbit and runs interop.py with the sample model, then gguf_files.py. Arguments go to interop.py, which then runs alone.
# FEWBIT_INTEROP_PYTHON names a Python that has the packages of requirements.txt; without it scripts/python-environment.sh
# makes a virtual environment with them in the user's cache folder (a large download, once). FEWBIT_GGUF_PYTHON does the same for gguf_files.py: one with
# llama-cpp-python, too, runs all of it.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${FEWBIT_INTEROP_PYTHON:-$(scripts/python-environment.sh interop/requirements.txt)}"
model="${FEWBIT_SAMPLE_MODEL:-$(scripts/sample-model.sh)}"
cargo build --release --package fewbit-cli
# The other libraries keep the activations of weight-only int8 in floats: what is compared is what the files say.
export FEWBIT_WEIGHT_ONLY=floats
"$python" interop/interop.py target/release/fewbit --model "$model" "$@"
# The whole of it reads GGUF files, too.
if [ $# = 0 ]; then
    gguf_python="${FEWBIT_GGUF_PYTHON:-$(scripts/python-environment.sh interop/gguf-requirements.txt)}"
    "$gguf_python" interop/gguf_files.py target/release/fewbit --model "$model"
fi
