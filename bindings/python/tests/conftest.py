"""What the tests of the package share: models that lie in the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY / "crates/model/tests/golden"


@pytest.fixture(scope="session")
def sample_model() -> str:
    """all-MiniLM-L6-v2: the directory that FEWBIT_SAMPLE_MODEL names, or the one that scripts/sample-model.sh makes."""
    directory = Path(os.environ.get("FEWBIT_SAMPLE_MODEL", REPOSITORY / "models/all-MiniLM-L6-v2"))
    if not directory.exists():
        pytest.fail(f"{directory}: the sample model is not there; scripts/sample-model.sh fetches it")
    return str(directory)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of different lengths, an empty one among them."""
    return ["A first text.", "A second, somewhat longer one.", "", "Köln ist eine Stadt am Rhein. " * 5]


@pytest.fixture(scope="session")
def tiny_model() -> str:
    """A BERT of one layer with a tokenizer, whose head names labels of texts; it makes embeddings, too."""
    return str(GOLDEN / "predictions/bert-single-label")


@pytest.fixture(scope="session")
def encoder_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model without its head: a model of embeddings."""
    out = tmp_path_factory.mktemp("models") / "encoder"
    shutil.copytree(GOLDEN / "predictions/bert-single-label", out)
    config = json.loads((out / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    (out / "config.json").write_text(json.dumps(config))
    return str(out)


@pytest.fixture(scope="session")
def bare_model() -> str:
    """A BERT of two layers without a tokenizer."""
    return str(GOLDEN / "architectures/bert")


def order_beside_another_thread(call: Callable[[], object]) -> list[str]:
    """What came when while a thread made a call. No thread gives the interpreter away here unless it is asked to, so that the order tells who did."""
    order: list[str] = []

    def work() -> None:
        order.append("call begins")
        call()
        order.append("call ends")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        order.append("other thread")
        thread.join()
    finally:
        sys.setswitchinterval(before)
    return order


def run_python(program: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """A program in an interpreter of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
