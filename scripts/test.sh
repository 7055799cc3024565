#!/usr/bin/env bash
# Runs every test; fetches what they need first. Arguments go to the test runner: `scripts/test.sh NAME` runs the tests whose names contain NAME.
# With cargo-nextest (`cargo install cargo-nextest`) the tests of all programs run side by side; without it one program after the other.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/sample-model.sh >/dev/null
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace "$@"
    # Examples in the documentation are not nextest's to run.
    exec cargo test --workspace --doc "$@"
fi
exec cargo test --workspace "$@"
