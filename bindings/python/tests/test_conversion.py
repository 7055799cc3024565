"""Models in other layouts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file

import fewbit
from fewbit import Encoder, FewbitError, _fewbit, convert_model, quantize_model

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


def test_a_gguf_file_comes_back(sample_model: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    report = convert_model(sample_model, file, "gguf:q8_0")
    assert report.file_bytes == file.stat().st_size and report.files == 1
    found = fewbit.inspect_gguf(file)
    assert found.architecture == "bert" and found.by_type[0].name == "q8_0"
    assert {entry.key for entry in found.metadata} >= {"bert.block_count", "tokenizer.ggml.tokens"}
    assert "q8_0" in str(found)
    back = convert_model(file, tmp_path / "back", "f32")
    assert back.source_quantization == "GGUF q8_0" and back.dequantized > 0
    assert Encoder.open(tmp_path / "back").encode(TEXTS).shape[0] == len(TEXTS)
    with pytest.raises(FewbitError, match="fewbit convert"):
        Encoder.open(file)


def test_a_dry_run_writes_nothing(tiny_model: str, tmp_path: Path) -> None:
    plan = convert_model(tiny_model, tmp_path / "out", "int4", dry_run=True, group_size=8, asymmetric=True)
    assert "asymmetric" in plan.target and not (tmp_path / "out").exists()
    report = convert_model(tiny_model, tmp_path / "out", "int4", group_size=8, asymmetric=True)
    assert [file.name for file in plan.files] == ["model.safetensors"]
    assert plan.file_bytes == report.file_bytes and plan.output_bytes == report.output_bytes
    split = convert_model(tiny_model, to="f32", dry_run=True, max_shard_size="10KB")
    assert len(split.files) > 1
    report = convert_model(tiny_model, tmp_path / "split", "f32", max_shard_size="10KB")
    assert report.files == len(split.files)
    for file in split.files:
        assert file.name is not None and (tmp_path / "split" / file.name).stat().st_size == file.bytes


def test_options_of_other_layouts_are_named(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="group_size: does not go with this layout"):
        convert_model(tiny_model, tmp_path / "out", "nf4", group_size=32)
    with pytest.raises(ValueError, match="max_shard_size"):
        convert_model(tiny_model, tmp_path / "out", "f32", max_shard_size="many")
    with pytest.raises(ValueError, match="out: expected"):
        convert_model(tiny_model, None, "f32")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="to: expected"):
        convert_model(tiny_model, dry_run=True)


def test_codes_of_every_layout_are_dequantized(tiny_model: str, tmp_path: Path) -> None:
    """What PyTorch models in floats are made of is what `convert_model` writes, whatever tensors hold the codes."""
    layouts: dict[str, dict[str, Any]] = {
        layout: {"weights": "int4", "group_size": "channel", "layout": layout} for layout in ("pack-quantized", "int-quantized", "gptq", "gptq_v2", "awq")
    }
    layouts |= {"fp8": {"weights": "fp8"}, "bitsandbytes": {"layout": "bitsandbytes"}}
    for name, options in layouts.items():
        out, floats = tmp_path / name, tmp_path / f"{name}-floats"
        fewbit.quantize_model(tiny_model, out, "weight-only", embeddings="keep", **options)
        fewbit.convert_model(out, floats, "f32")
        found = dict(_fewbit.dequantized_weights(os.fspath(out)))
        expected = load_file(floats / "model.safetensors")
        assert len(found) == 6, name
        for module, weight in found.items():
            numpy.testing.assert_array_equal(weight, expected[f"{module}.weight"], err_msg=f"{name}: {module}")
