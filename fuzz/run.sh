#!/usr/bin/env bash
# Fuzzes one target, or all, for a number of seconds each (600): fuzz/run.sh [TARGET|all] [SECONDS] [libFuzzer's flags].
# What is found new stays in fuzz/corpus/TARGET; an input that fails is left in fuzz/artifacts/TARGET, and ends the run.
# With SECONDS 0 the seeds are run and nothing else. See fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")"

targets="${1:-all}"
seconds="${2:-600}"
shift $(($# < 2 ? $# : 2))
if [ "$targets" = all ]; then
    targets=$(cd fuzz_targets && ls | sed 's/\.rs$//')
fi
if ! cargo fuzz --version > /dev/null 2>&1; then
    echo "fuzz/run.sh needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# Coverage and the address sanitizer are compiler flags that stable Rust has behind this variable.
export RUSTC_BOOTSTRAP=1
# Files of an input are written to memory where the system has such a file system.
parent=/dev/shm
[ -d "$parent" ] && [ -w "$parent" ] || parent="${TMPDIR:-/tmp}"
TMPDIR=$(mktemp -d "$parent/fewbit-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

for target in $targets; do
    # What needs no crate of the model is built without them, in a fraction of the time.
    case "$target" in
        recipe | statistics | tokenizer_files) features=() ;;
        *) features=(--no-default-features) ;;
    esac
    limits=(-rss_limit_mb=2048 -timeout=30 "-dict=dictionaries/$target.dict")
    if [ "$seconds" = 0 ]; then
        limits+=(-runs=0)
    else
        limits+=("-max_total_time=$seconds")
    fi
    mkdir -p "corpus/$target"
    cargo fuzz run --fuzz-dir . "${features[@]}" "$target" "corpus/$target" "seeds/$target" -- "${limits[@]}" "$@"
done
