"""The example of the script, run as its users do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

torch.set_num_threads(1)


def test_a_classifier_with_two_heads_goes_through_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    """It has learned its sentences, and every method keeps what it has learned and makes it smaller."""
    path = Path(__file__).parents[1] / "examples" / "electra_two_heads.py"
    specification = importlib.util.spec_from_file_location("electra_two_heads", path)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    table = example.main()
    assert list(table) == ["float", "dynamic", "static, fbgemm", "static, native", "fp16", "int4"]
    assert table["float"]["accuracy"] == 100
    assert capsys.readouterr().out.count("\n") == 7
    for method, row in table.items():
        # 48 answers: one more or less is 2 %.
        assert row["accuracy"] >= 93, method
        assert row["latency_ms"] > 0
        if method != "float":
            assert row["size_mb"] < 0.6 * table["float"]["size_mb"], method
