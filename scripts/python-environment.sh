#!/usr/bin/env bash
# python-environment.sh REQUIREMENTS: prints the path of a Python that has the pinned packages of that file.
# It lives in a virtual environment under the user's cache folder, named by the hash of the requirements and of the Python version:
# made if it is not there (a large download), used again if it is.
#   XDG_CACHE_HOME  the user's cache folder (default: ~/.cache)
set -euo pipefail

requirements="$1"
interpreter="$(python3 -c 'import platform, sys; print(sys.implementation.name, platform.python_version())')"
name="$(python3 - "$requirements" "$interpreter" <<'PYTHON'
import hashlib, pathlib, sys
requirements, interpreter = pathlib.Path(sys.argv[1]).read_bytes(), sys.argv[2].encode()
print(hashlib.sha256(interpreter + b"\n" + requirements).hexdigest()[:16])
PYTHON
)"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/fewbit/python"
environment="$folder/$name"

mkdir -p "$folder"
# One at a time: a second caller waits and finds it made.
exec 9>"$environment.lock"
flock 9
if [ ! -e "$environment/complete" ]; then
    echo "installing $requirements into $environment (once; a large download)" >&2
    # What an interruption left is not to be trusted.
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --requirement "$requirements" >&2
    touch "$environment/complete"
fi
echo "$environment/bin/python"
