# `just check` is what continuous integration runs.

# Format, lints, documentation, tests: the cheapest first.
check: format-check lint documentation test

format:
    cargo fmt --all

format-check:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --locked -- -D warnings

documentation:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

test *arguments:
    scripts/test.sh {{arguments}}

# The numerics and the kernels on 64-bit ARM, cross-built and run by qemu (root; the first run fetches a toolchain).
test-arm *arguments:
    scripts/test-arm.sh {{arguments}}

# The main job on the sample model.
compare *arguments:
    scripts/compare-sample.sh {{arguments}}

# Kernel throughput by instruction set and shape.
bench-kernels:
    cargo bench --package fewbit-kernels

# Loads what fewbit writes with transformers, bitsandbytes and compressed-tensors, and the reverse (needs pip packages: see interop/README.md).
interop *arguments:
    interop/run.sh {{arguments}}

# The Python package: builds its wheel, installs it into a fresh virtual environment and tests it there (needs the packages of interop).
test-python *arguments:
    bindings/python/test.sh {{arguments}}

# Speed of fewbit and of other engines on the same token ids, taking turns (needs pip packages: see bench/peers/README.md).
bench-peers *arguments:
    bench/peers/run.sh {{arguments}}

# Fuzzes one target, or all, for SECONDS each (needs cargo-fuzz; see fuzz/README.md).
fuzz target="all" seconds="600" *flags:
    fuzz/run.sh {{target}} {{seconds}} {{flags}}
