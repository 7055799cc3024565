#!/usr/bin/env bash
# The main job on a real model: fetches all-MiniLM-L6-v2, builds fewbit and compares every method on it.
# Arguments go to `fewbit compare`, for instance: --data pairs.jsonl
set -euo pipefail
cd "$(dirname "$0")/.."

model="$(scripts/sample-model.sh)"
cargo build --release --package fewbit-cli
exec target/release/fewbit compare "$model" "$@"
