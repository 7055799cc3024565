#!/usr/bin/env bash
# Runs every test; fetches what they need first. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/sample-model.sh >/dev/null
exec cargo test --workspace "$@"
