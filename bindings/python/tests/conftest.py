"""What the tests of the package share: the sample model and tiny models."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ["A first text.", "A second, somewhat longer one.", "", "Köln ist eine Stadt am Rhein. " * 5]


@pytest.fixture(scope="session")
def sample_model() -> Path:
    """all-MiniLM-L6-v2, which scripts/sample-model.sh fetches."""
    model = Path(os.environ.get("FEWBIT_SAMPLE_MODEL") or ROOT / "models/all-MiniLM-L6-v2")
    assert model.is_dir(), f"{model}: not there; scripts/sample-model.sh fetches it"
    return model


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS
