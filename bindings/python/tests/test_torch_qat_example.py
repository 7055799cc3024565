"""The example of quantization-aware training, run as its users do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

torch.set_num_threads(1)


def test_a_classifier_is_trained_to_have_int4_weights(tmp_path: Path) -> None:
    """It has learned its task, and keeps it in the executor and in transformers."""
    path = Path(__file__).parents[1] / "examples" / "train_w4a8.py"
    specification = importlib.util.spec_from_file_location("train_w4a8", path)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    found = example.main(str(tmp_path / "model"))
    assert found["float"] > 90
    for stage in ("W4A8, trained", "W4A8, converted", "W4A8, loaded by transformers"):
        # 500 answers: ten of them.
        assert found[stage] >= found["float"] - 2, stage
