#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh virtual environment, and tests there what was installed: the tests, the examples of the
# documentation, types by mypy and pyright, the wheel's size. Arguments go to pytest.
# FEWBIT_INTEROP_PYTHON names a Python that has the packages of interop/requirements.txt; without it scripts/python-environment.sh
# makes a virtual environment with them in the user's cache folder (a large download, once).
set -euo pipefail
cd "$(dirname "$0")/../.."

pinned="${FEWBIT_INTEROP_PYTHON:-$(scripts/python-environment.sh interop/requirements.txt)}"
FEWBIT_SAMPLE_MODEL="${FEWBIT_SAMPLE_MODEL:-$(realpath "$(scripts/sample-model.sh)")}"
export FEWBIT_SAMPLE_MODEL

rm -rf target/wheels target/wheel-environment
"$pinned" -m maturin build --release --locked --manifest-path bindings/python/Cargo.toml --out target/wheels
wheel="$(echo target/wheels/fewbit-*.whl)"
most=15000000
size="$(stat --format=%s "$wheel")"
echo "$wheel: $size bytes"
if [ "$size" -gt "$most" ]; then
    echo "$wheel: expected at most $most bytes, found $size" >&2
    exit 1
fi

# The pinned packages lie where they are, so that nothing is downloaded or copied again.
"$pinned" -m venv --without-pip target/wheel-environment
python="$PWD/target/wheel-environment/bin/python"
"$pinned" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' \
    >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pinned.pth"
"$pinned" -m pip --python "$python" install --quiet --disable-pip-version-check --no-index --no-deps "$wheel"
installed="$(cd target && "$python" -c 'import os, fewbit; print(os.path.dirname(fewbit.__file__))')"
case "$installed" in
    "$PWD"/target/wheel-environment/*) ;;
    *)
        echo "expected the installed package to be tested, found $installed" >&2
        exit 1
        ;;
esac

# One thread a library, as several would take turns with the tests' own.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
"$python" -m pytest --quiet bindings/python/tests "$@"
# Examples name models by their place in the repository, which is where they run.
"$python" -m pytest --quiet --doctest-modules --pyargs fewbit --ignore-glob="*/integrations/*" --ignore="$installed/ray.py" \
    --ignore="$installed/spark.py" --import-mode=importlib
"$python" -m mypy --strict --cache-dir /dev/null --config-file bindings/python/pyproject.toml --package fewbit
"$python" -m pyright --project bindings/python/pyproject.toml --pythonpath "$python"
