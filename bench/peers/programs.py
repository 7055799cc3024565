"""Builds what is no Python: fewbit, its runner, and the runner of the other Rust engines."""

import subprocess
import sys

RUNNER_PACKAGE = "fewbit-peers-runner"


def cargo(*arguments):
    if subprocess.run(["cargo", "build", "--release", *arguments]).returncode:
        sys.exit("cargo build failed: " + " ".join(map(str, arguments)))


def build_in(tree, *packages):
    """The folder of the programs of these packages of the fewbit tree `tree`."""
    flags = [flag for package in packages for flag in ("--package", package)]
    cargo("--manifest-path", tree / "Cargo.toml", "--target-dir", tree / "target", *flags)
    return tree / "target/release"


def fewbit(tree):
    """The fewbit program and the runner of `tree`, which share what they are made of."""
    folder = build_in(tree, "fewbit-cli", RUNNER_PACKAGE)
    return folder / "fewbit", folder / RUNNER_PACKAGE


def other_fewbit(path):
    """The runner at `path`, or that of the tree there."""
    return path if path.is_file() else build_in(path, RUNNER_PACKAGE) / RUNNER_PACKAGE


def rust_engines(tree):
    """The runner of candle, rten and tract."""
    target = tree / "target/peers/rust"
    cargo("--locked", "--manifest-path", tree / "bench/peers/rust/Cargo.toml", "--target-dir", target)
    return target / "release/runner"


def commit(path):
    """The commit of the tree `path`, with `-dirty` if it is changed; None where there is none."""
    if not path.is_dir():
        return None
    done = subprocess.run(["git", "-C", path, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return done.stdout.strip() or None
