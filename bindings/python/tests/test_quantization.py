"""Models made of models: by quantize_model, and by the manager."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest

import fewbit
from fewbit import Encoder, QuantizationManager, QuantizePlan, quantize_model

TEXTS = ["the cat sat on the mat", "ann lives in new york", "a", "not the dog", "two spaces", "where does bob live?"] * 3


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("method", ["dynamic", "weight-only", "fp16", "bf16", "float16", "nf4", "int4", "fp4"])
def test_every_method_writes_a_model_that_runs(tiny_model: str, tmp_path: Path, method: str) -> None:
    report = quantize_model(tiny_model, tmp_path / "out", method)
    assert report.output_bytes < report.source_bytes and report.output == str(tmp_path / "out")
    found, original = Encoder.open(report.output).encode(TEXTS), Encoder.open(tiny_model).encode(TEXTS)
    cosine = (found * original).sum(1) / numpy.linalg.norm(found, axis=1) / numpy.linalg.norm(original, axis=1)
    assert cosine.min() > 0.9
    assert str(report).startswith(report.recipe["method"]) and "<table>" in report._repr_html_()


def test_options_are_those_of_a_recipe_and_of_the_command_line(tiny_model: str, tmp_path: Path) -> None:
    by_options = quantize_model(tiny_model, tmp_path / "a", "nf4", double_quant=True, block_size=128, skip=["*.0.output.dense"])
    recipe = {"method": "nf4", "double_quant": True, "block_size": 128, "skip": ["*.0.output.dense"]}
    assert by_options.recipe == {"version": 1, **recipe}
    quantize_model(tiny_model, tmp_path / "b", recipe=recipe)
    quantize_model(tiny_model, tmp_path / "c", recipe=tmp_path / "a/recipe.toml")
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")
    more = quantize_model(tiny_model, tmp_path / "d", recipe=recipe, skip="*.0.intermediate.dense")
    assert more.recipe["skip"] == ["*.0.output.dense", "*.0.intermediate.dense"]
    program = Path(os.environ.get("FEWBIT_PROGRAM", Path(__file__).parents[3] / "target/debug/fewbit"))
    if program.exists():
        command = [str(program), "quantize", tiny_model, "-o", str(tmp_path / "e"), "--method", "nf4", "--double-quant"]
        subprocess.run([*command, "--block-size", "128", "--skip", "*.0.output.dense"], check=True, capture_output=True)
        assert files(tmp_path / "a") == files(tmp_path / "e")


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tiny_model: str, tmp_path: Path) -> None:
    plan = quantize_model(tiny_model, method="dynamic", dry_run=True)
    assert isinstance(plan, QuantizePlan)
    report = quantize_model(tiny_model, tmp_path / "out", "dynamic")
    assert (plan.output_bytes, plan.kept, plan.parts) == (report.output_bytes, report.kept, report.parts)
    assert "dry run: nothing was written" in str(plan)
    quantize_model(tiny_model, tmp_path / "other", "dynamic", dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_static_scales_come_from_texts_a_file_or_statistics(tiny_model: str, tmp_path: Path) -> None:
    """All three observe the same texts, and so choose the same scales."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    report = quantize_model(tiny_model, tmp_path / "given", "static", calibration=TEXTS)
    assert report.calibration is not None and report.calibration.least_sqnr_db == 30.0
    assert "SQNR dB static" in str(report.calibration)
    quantize_model(tiny_model, tmp_path / "file", "static", calibration=tmp_path / "texts.txt")
    observed = fewbit.calibrate(tiny_model, str(tmp_path / "texts.txt"), tmp_path / "stats.json")
    assert (observed.samples, observed.stats) == (len(TEXTS), str(tmp_path / "stats.json"))
    quantize_model(tiny_model, tmp_path / "stats", "static", stats=tmp_path / "stats.json")
    assert files(tmp_path / "given") == files(tmp_path / "file") == files(tmp_path / "stats")


def test_statistics_of_parts_are_merged(tiny_model: str, tmp_path: Path) -> None:
    """The observer of ranges does not depend on the order, so that parts give the bits of the whole."""
    options: dict[str, Any] = {"observer": "min-max"}
    fewbit.calibrate(tiny_model, TEXTS[:4], tmp_path / "first.json", **options)
    fewbit.calibrate(tiny_model, TEXTS[4:], tmp_path / "second.json", **options)
    parts = [tmp_path / "first.json", tmp_path / "second.json"]
    quantize_model(tiny_model, tmp_path / "merged", "static", stats=parts)
    quantize_model(tiny_model, tmp_path / "whole", "static", calibration=TEXTS, **options)
    assert files(tmp_path / "merged") == files(tmp_path / "whole")


def test_a_backend_of_pytorch_warns_of_what_it_costs(tiny_model: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = quantize_model(tiny_model, tmp_path / "out", "static", calibration=TEXTS, backend="fbgemm")
    assert report.calibration is not None and report.calibration.least_sqnr_db is None
    noisy = report.calibration.noisy
    assert [str(one.message).startswith("backend fbgemm: every input is static") for one in caught] == ([True] if noisy else [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_model(tiny_model, tmp_path / "other", "static", calibration=TEXTS, backend="fbgemm", min_sqnr=20)


def test_an_infinite_least_ratio_makes_every_input_static_or_none(tiny_model: str, tmp_path: Path) -> None:
    every = quantize_model(tiny_model, tmp_path / "out", "static", calibration=TEXTS, min_sqnr=float("-inf"))
    assert every.calibration is not None and every.calibration.least_sqnr_db is None
    assert len(every.recipe["static_inputs"]) == sum(len(site.modules) for site in every.calibration.sites)
    with pytest.raises(fewbit.FewbitError, match="static"):
        quantize_model(tiny_model, tmp_path / "none", "static", calibration=TEXTS, min_sqnr=float("inf"))


def test_gptq_rounds_for_the_texts(tiny_model: str, tmp_path: Path) -> None:
    report = quantize_model(tiny_model, tmp_path / "gptq", "dynamic", gptq=True, calibration=TEXTS, threads=2)
    assert report.recipe["gptq"] is True
    nearest = quantize_model(tiny_model, tmp_path / "nearest", "dynamic")
    assert report.output_bytes == nearest.output_bytes
    assert files(tmp_path / "gptq")["model.safetensors"] != files(tmp_path / "nearest")["model.safetensors"]


@pytest.mark.parametrize("options", [{"gptq": True}, {"scales": "activation-weighted"}, {"gptq": True, "double_quant": True}])
def test_four_bit_weights_are_calibrated(tiny_model: str, tmp_path: Path, options: dict[str, Any]) -> None:
    report = quantize_model(tiny_model, tmp_path / "calibrated", "nf4", calibration=TEXTS, **options)
    assert {key: report.recipe[key] for key in options} == options
    plain = quantize_model(tiny_model, tmp_path / "plain", "nf4", double_quant=bool(options.get("double_quant")))
    assert report.output_bytes == plain.output_bytes
    assert files(tmp_path / "calibrated")["model.safetensors"] != files(tmp_path / "plain")["model.safetensors"]


def test_dynamic_layers_of_pytorch_are_asked_for_by_backend(tiny_model: str, tmp_path: Path) -> None:
    report = quantize_model(tiny_model, tmp_path / "out", "dynamic", activations="per-tensor", backend="x86")
    assert report.recipe == {
        "version": 1,
        "method": "dynamic",
        "activations": "per-tensor",
        "weight_scales": "per-tensor",
        "reduce_range": True,
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "expected a method or a recipe, found neither"),
        ({"method": "nf4", "recipe": {"method": "nf4"}}, "expected a method or a recipe, found both"),
        ({"method": "int8"}, "unknown method `int8`(.|\n)*`dynamic` computes with int8 activations"),
        ({"method": "static"}, "method static: expected calibration or stats"),
        ({"method": "static", "calibration": []}, "calibration: expected texts, found none"),
        ({"method": "dynamic", "calibration": ["a"]}, "calibration: does not go with the method `dynamic`"),
        ({"method": "dynamic", "gptq": True}, "gptq: expected calibration"),
        ({"method": "nf4", "scales": "activation-weighted"}, "scales: expected calibration"),
        ({"method": "dynamic", "backend": "x86"}, "backend x86 with the method `dynamic`"),
        ({"method": "dynamic", "activations": "per-tensor"}, "expected backend fbgemm, x86, qnnpack or onednn beside it"),
        ({"method": "static", "calibration": ["a"], "samples": 3}, "samples: expected a file"),
        ({"method": "static", "calibration": "f", "samples": 3, "batches": 1}, "samples and batches: expected one of them"),
        ({"method": "static", "calibration": "f", "batch_size": 0}, "batch_size: expected a number, 1 or more"),
        ({"method": "static", "calibration": "f", "min_sqnr": float("nan")}, "min_sqnr: expected a number of decibels, found nan"),
        ({"method": "static", "calibration": ["a"], "observer": "eye"}, "observer: expected one of min-max"),
        ({"method": "static", "calibration": ["a"], "backend": "tpu"}, "unknown backend `tpu`"),
        ({"recipe": {"method": "nf4"}, "double_quant": True}, "double_quant: expected a method beside it"),
        ({"method": "dynamic", "max_shard_size": "much"}, "max_shard_size: expected a size such as 5GB, 500MB or 2GiB, found `much`"),
    ],
)
def test_options_that_do_not_go_together_are_value_errors(
    tiny_model: str, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        quantize_model(tiny_model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="out: expected a directory"):
        quantize_model(tiny_model, method="dynamic")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "fp16", "block_size": 64}, "block_size"),
        ({"method": "nf4", "block_size": 63}, "block_size"),
        ({"recipe": {"method": "dynamic", "blok_size": 3}}, "did you mean `block_size`"),
        ({"method": "dynamic", "skip": ["*.nothing.*"]}, "nothing"),
    ],
)
def test_recipes_that_cannot_be_followed_are_errors(tiny_model: str, tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(fewbit.FewbitError, match=text):
        quantize_model(tiny_model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_exception_of_the_progress_bar_stops_the_work_and_leaves_nothing(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewbit import _fewbit

    def stop(done: int, total: int, what: str) -> None:
        raise KeyError(what)

    request: dict[str, Any] = {"method": "dynamic", "recipe": None, "recipe_file": None, "double_quant": False, "block_size": None}
    request |= {"embeddings": None, "quantize_embeddings": False, "float_dtype": None}
    request |= { "skip": [], "weight_only": [], "activations": None, "gptq": False}
    request |= {"saturation_proof": False, "calibration": None, "sensitivity_of_output": False, "force": False, "resume": False}
    with pytest.raises(KeyError):
        _fewbit.quantize_model(tiny_model, str(tmp_path / "out"), json.dumps({**request, "threads": 1}), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_large_weights_are_written_as_several_files(tiny_model: str, tmp_path: Path) -> None:
    whole = quantize_model(tiny_model, tmp_path / "whole", "nf4")
    plan = quantize_model(tiny_model, method="nf4", max_shard_size="4KB", dry_run=True)
    report = quantize_model(tiny_model, tmp_path / "out", "nf4", max_shard_size=4000, resume=True)
    assert whole.files == 1 and plan.files == report.files > 1
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) == report.files
    assert f"the {report.files} files of weights have" in str(report)
    assert (Encoder.open(tmp_path / "out").encode(TEXTS) == Encoder.open(tmp_path / "whole").encode(TEXTS)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_an_exception_of_the_progress_bar_keeps_the_files_that_are_whole(tiny_model: str, tmp_path: Path) -> None:
    from fewbit import _fewbit

    tensors: list[str] = []

    def stop(done: int, total: int, what: str) -> None:
        tensors.append(what)
        # What is whole is kept by another thread, some time.
        if (tmp_path / "out.partial").exists():
            raise KeyboardInterrupt

    request = {"method": "nf4", "double_quant": False, "quantize_embeddings": False, "skip": [], "weight_only": [], "gptq": False}
    request |= {"saturation_proof": False, "sensitivity_of_output": False, "force": False, "max_shard_size": "1KB", "threads": 1}
    quantize_model(tiny_model, tmp_path / "whole", "nf4", max_shard_size="1KB")
    run = lambda resume: _fewbit.quantize_model(tiny_model, str(tmp_path / "out"), json.dumps({**request, "resume": resume}), progress=stop)  # noqa: E731
    try:
        run(False)
    except KeyboardInterrupt:
        assert not (tmp_path / "out").exists()
        with pytest.raises(fewbit.FewbitError, match="out.partial: expected nothing"):
            quantize_model(tiny_model, tmp_path / "out", "nf4", max_shard_size="1KB")
        quantize_model(tiny_model, tmp_path / "out", "nf4", max_shard_size="1KB", resume=True)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_an_output_is_replaced_only_with_force(tiny_model: str, tmp_path: Path) -> None:
    quantize_model(tiny_model, tmp_path / "out", "fp16")
    with pytest.raises(fewbit.FewbitError, match="out"):
        quantize_model(tiny_model, tmp_path / "out", "bf16")
    assert quantize_model(tiny_model, tmp_path / "out", "bf16", force=True).recipe["method"] == "bf16"


def test_the_manager_of_a_directory_has_the_names_of_the_script(tiny_model: str, tmp_path: Path) -> None:
    before = files(Path(tiny_model))
    manager = QuantizationManager(tiny_model)
    size = manager.get_model_size()
    assert size.parameter_bytes == 4 * size.parameters
    planned = {row.label: row.bytes for row in manager.compare_sizes().rows}
    manager.apply_dynamic_quantization(tmp_path / "dynamic")
    manager.apply_weight_only_quantization(tmp_path / "weight-only")
    manager.apply_fp16_quantization(tmp_path / "fp16")
    manager.apply_bf16_quantization(tmp_path / "bf16")
    int4 = manager.apply_int4_quantization(tmp_path / "int4")
    assert int4.recipe == {"version": 1, "method": "nf4", "block_size": 64, "double_quant": True}
    manager.prepare_static_quantization("fbgemm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager.calibrate(TEXTS)
    manager.convert_static_quantization(tmp_path / "static")
    rows = manager.compare_sizes()
    applied = {row.label: row for row in rows.rows if row.directory is not None}
    (static,) = (applied.pop(label) for label in list(applied) if label.startswith("static"))
    assert static.directory == str(tmp_path / "static") and static.bytes < size.tensor_bytes
    assert set(applied) >= {"original", "dynamic", "weight-only", "fp16", "bf16", "nf4 + double quantization"}
    for label, row in applied.items():
        assert row.bytes == planned[label], label
    assert "times smaller" in str(rows)
    assert files(Path(tiny_model)) == before


def test_the_steps_of_static_quantization_have_an_order(tiny_model: str, tmp_path: Path) -> None:
    manager = QuantizationManager(tiny_model)
    with pytest.raises(ValueError, match=r"Must call prepare_static_quantization\(\) first!"):
        manager.calibrate(TEXTS)
    with pytest.raises(ValueError, match=r"Must call prepare_static_quantization\(\) first!"):
        manager.convert_static_quantization(tmp_path / "out")
    manager.prepare_static_quantization()
    with pytest.raises(ValueError, match=r"Must call calibrate\(\) first!"):
        manager.convert_static_quantization(tmp_path / "out")
    with pytest.raises(ValueError, match="backend: expected one of native"):
        manager.prepare_static_quantization("tpu")


def test_the_manager_replaces_only_with_force(tiny_model: str, tmp_path: Path) -> None:
    QuantizationManager(tiny_model).apply_fp16_quantization(tmp_path / "out")
    with pytest.raises(fewbit.FewbitError):
        QuantizationManager(tiny_model).apply_bf16_quantization(tmp_path / "out")
    QuantizationManager(tiny_model, force=True).apply_bf16_quantization(tmp_path / "out")


def test_int4_weights_are_written_and_run(tiny_model: str, tmp_path: Path) -> None:
    plan = quantize_model(tiny_model, method="weight-only", weights="int4", group_size="channel", dry_run=True)
    report = quantize_model(tiny_model, tmp_path / "out", "weight-only", weights="int4", group_size="channel")
    assert plan.output_bytes == report.output_bytes
    assert (report.recipe["weights"], report.recipe["group_size"], report.recipe["scales"]) == ("int4", "channel", "mse")
    assert "weight-only + int4 + per channel" in str(report)
    floats, codes = Encoder.open(tiny_model).encode(TEXTS), Encoder.open(tmp_path / "out").encode(TEXTS)
    cosines = (floats * codes).sum(1) / numpy.linalg.norm(floats, axis=1) / numpy.linalg.norm(codes, axis=1)
    assert (cosines > 0.8).all() and (cosines < 1).any()
    for wrong, text in [({"weights": "int3"}, "weights"), ({"weights": "int4", "group_size": 0}, "group_size"), ({"layout": "packed"}, "layout")]:
        with pytest.raises(ValueError, match=text):
            quantize_model(tiny_model, method="dynamic", dry_run=True, **wrong)  # type: ignore[call-overload]
    with pytest.raises(fewbit.FewbitError, match="group_size"):
        quantize_model(tiny_model, method="dynamic", group_size=32, dry_run=True)
