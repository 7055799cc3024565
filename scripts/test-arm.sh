#!/usr/bin/env bash
# Runs the tests of fewbit-numerics and fewbit-kernels on 64-bit ARM: cross-built, then run by qemu as three CPUs, so that each
# instruction set runs and is also missing once. Needs root and x86-64 Debian or a relative of it (mmdebstrap is installed if it is
# missing); the first run fetches a toolchain of 1.9 GB. Arguments go to the test programs.
#   FEWBIT_ARM_ROOT  where that toolchain is kept between runs (default: target/arm/root)
set -euo pipefail
cd "$(dirname "$0")/.."

root="${FEWBIT_ARM_ROOT:-$PWD/target/arm/root}"
packages="cargo,rustc,libstd-rust-dev:arm64,gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,qemu-user"

if [ "$(id -u)" != 0 ]; then
    echo "test-arm: expected root, which chroot and mount need, found user $(id -un)" >&2
    echo "  hint: run it in a container or virtual machine, or with sudo" >&2
    exit 1
fi

# Debian forky has a Rust with the standard library for both architectures, and a qemu that knows the newer instructions.
if [ ! -e "$root" ]; then
    if ! command -v mmdebstrap >/dev/null; then
        apt-get update --quiet=2
        apt-get install --quiet=2 --yes --no-install-recommends mmdebstrap
    fi
    mkdir -p "$(dirname "$root")"
    scratch="$(mktemp -d "$root-XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
    echo "test-arm: installing Debian forky's Rust for ARM and qemu into $root" >&2
    # A mirror that lags behind is good enough here; what it serves is signed all the same.
    mmdebstrap --quiet --variant=apt --architectures=amd64,arm64 --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
        forky "$scratch"
    mkdir -p "$scratch/fewbit" "$scratch/cargo/registry"
    # Renamed last, so an interrupted installation never looks finished.
    mv "$scratch" "$root"
    trap - EXIT
fi

# Fetched by the host's cargo; the one inside stays offline.
cargo fetch --locked
registry="${CARGO_HOME:-$HOME/.cargo}/registry"

# inside CPU REQUIRED_SETS COMMAND...: the mounts end with the namespace.
inside() {
    local cpu="$1" required="$2"
    shift 2
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount bash -euc '
        root="$1" registry="$2"
        shift 2
        mount --bind /proc "$root/proc"
        mount --bind . "$root/fewbit"
        mount --bind "$registry" "$root/cargo/registry"
        exec chroot "$root" "$@"
    ' bash "$root" "$registry" env -i --chdir=/fewbit \
        PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/fewbit/target/arm/build \
        CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64 \
        QEMU_CPU="$cpu" FEWBIT_REQUIRE_ISA="$required" "$@"
}

# census CPU REQUIRED_SETS: prints which sets ran, and fails if one of these did not.
census() {
    echo "== qemu-aarch64 -cpu $1"
    inside "$1" "$2" cargo test --quiet --offline --locked --package fewbit-kernels --test routines -- \
        --exact census --nocapture
}

kernels() {
    census "$1" "$2"
    inside "$1" "$2" cargo test --offline --locked --package fewbit-kernels --lib --tests -- "${arguments[@]}"
}

arguments=("$@")
inside max "" rustc --version
inside max "" qemu-aarch64 --version

# Neither dot products nor matrix products; dot products; all there is. The last one also runs what depends on no set.
kernels cortex-a53 scalar,neon
kernels cortex-a76 scalar,neon,neon-dotprod
kernels max scalar,neon,neon-dotprod,neon-i8mm
inside max "" cargo test --offline --locked --package fewbit-kernels --doc
inside max "" cargo test --offline --locked --package fewbit-numerics -- "${arguments[@]}"
