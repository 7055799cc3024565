#!/usr/bin/env bash
# Runs bench.py with the sample model. Arguments go to bench.py.
# FEWBIT_PEERS_PYTHON names a Python that has the packages of requirements.txt; without it scripts/python-environment.sh
# makes a virtual environment with them in the user's cache folder (a large download, once).
# FEWBIT_DATA names a file of texts (lines, or JSONL with sentence1 and sentence2) for calibration and for the check of embeddings.
set -euo pipefail
cd "$(dirname "$0")/../.."

python="${FEWBIT_PEERS_PYTHON:-$(scripts/python-environment.sh bench/peers/requirements.txt)}"
data="${FEWBIT_DATA:-../shared/data/stsb/train.jsonl}"
if [ ! -f "$data" ]; then
    echo "$data: no such file; set FEWBIT_DATA to a file of at least 128 texts (lines, or JSONL with sentence1 and sentence2)" >&2
    exit 2
fi
model="${FEWBIT_SAMPLE_MODEL:-$(scripts/sample-model.sh)}"
exec "$python" bench/peers/bench.py --sample "$model" --calibration "$data" "$@"
