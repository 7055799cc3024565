"""Models in other layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

import fewbit
from fewbit import Encoder, FewbitError, convert_model, quantize_model

TEXTS = ["the cat sat on the mat", "ann lives in new york", "a", "where does bob live?"]


def test_codes_come_back_as_floats(tiny_model: str, tmp_path: Path) -> None:
    quantize_model(tiny_model, tmp_path / "nf4", "nf4")
    report = convert_model(tmp_path / "nf4", tmp_path / "f32", "f32")
    assert report.source_quantization == "bitsandbytes nf4" and report.dequantized >= 6
    assert report.output_bytes > report.source_bytes and report.underflowed == 0
    config = json.loads((tmp_path / "f32/config.json").read_text())
    assert config["dtype"] == "float32" and "quantization_config" not in config
    # The layers of the 4-bit model compute with the same dequantized weights.
    numpy.testing.assert_array_equal(
        Encoder.open(tmp_path / "f32").encode(TEXTS), Encoder.open(tmp_path / "nf4").encode(TEXTS)
    )
    assert str(report).startswith("bitsandbytes nf4 -> f32") and "<svg" in report._repr_html_()
    assert fewbit.inspect(tmp_path / "f32").quantization is None


def test_codes_to_codes_are_asked_for(tiny_model: str, tmp_path: Path) -> None:
    quantize_model(tiny_model, tmp_path / "nf4", "nf4")
    with pytest.raises(FewbitError, match="allow_requantize"):
        convert_model(tmp_path / "nf4", tmp_path / "int8", "dynamic")
    assert not (tmp_path / "int8").exists()
    report = convert_model(tmp_path / "nf4", tmp_path / "int8", "dynamic", allow_requantize=True)
    assert "loses more" in str(report) or "lose more" in str(report)
    assert fewbit.inspect(tmp_path / "int8").quantization is not None
    with pytest.raises(FewbitError, match="force"):
        convert_model(tmp_path / "nf4", tmp_path / "int8", "f32")
    convert_model(tmp_path / "nf4", tmp_path / "int8", "f32", force=True)


def test_an_unknown_layout_is_named(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown layout `int3`: expected one of f32, fp16"):
        convert_model(tiny_model, tmp_path / "out", "int3")
