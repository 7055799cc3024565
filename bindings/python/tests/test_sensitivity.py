"""Mixtures of int8 and int4 weights."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

import fewbit
from fewbit import Encoder, FewbitError, quantize_model, sensitivity

TEXTS = ["the cat sat on the mat", "ann lives in new york", "a", "where does bob live?"]
CHOICES = ["int8", "int4+channel"]


def test_the_recipe_makes_the_model_that_was_measured(tiny_model: str, tmp_path: Path) -> None:
    least = sensitivity(tiny_model, TEXTS, min_cosine=-1.0, weights=CHOICES)
    assert {group.chosen for group in least.groups} == {"int4+channel"}
    most = least.uniform[0].file_bytes
    report = sensitivity(tiny_model, TEXTS, max_bytes=(least.file_bytes + most) // 2, weights=CHOICES)
    assert {group.chosen for group in report.groups} == set(CHOICES)
    assert report.file_bytes <= (least.file_bytes + most) // 2
    assert any(len(group.modules) == 3 for group in report.groups)
    assert "int4+channel" in str(report) and "<svg" in report._repr_html_()
    written = quantize_model(tiny_model, tmp_path / "mixed", recipe=report.recipe)
    assert written.file_bytes == report.file_bytes
    reference, found = (Encoder.open(path).encode(TEXTS).astype(numpy.float64) for path in (tiny_model, tmp_path / "mixed"))
    cosines = (reference * found).sum(1) / numpy.linalg.norm(reference, axis=1) / numpy.linalg.norm(found, axis=1)
    assert cosines.mean() == pytest.approx(report.measured_cosine, abs=1e-9)
    assert fewbit.sensitivity is sensitivity


def test_what_cannot_be_reached_is_said_with_what_can(tiny_model: str) -> None:
    with pytest.raises(FewbitError, match=r"max-bytes: expected at least \d+"):
        sensitivity(tiny_model, TEXTS, max_bytes=1000, weights=CHOICES)
    with pytest.raises(FewbitError, match="min-cosine: expected at most 0"):
        sensitivity(tiny_model, TEXTS, min_cosine=1.0, weights=CHOICES)
    with pytest.raises(ValueError, match="found neither"):
        sensitivity(tiny_model, TEXTS)
    with pytest.raises(ValueError, match="max_bytes"):
        sensitivity(tiny_model, TEXTS, max_bytes="much")
    with pytest.raises(ValueError, match="unknown weights `int3`"):
        sensitivity(tiny_model, TEXTS, max_bytes="1MB", weights=["int8", "int3"])
    with pytest.raises(ValueError, match="method: expected dynamic"):
        sensitivity(tiny_model, TEXTS, max_bytes="1MB", method="nf4")


def test_single_layers_have_weights_of_their_own(tiny_model: str, tmp_path: Path) -> None:
    modules = {"*.output.dense": "int4+channel", "*.query": {"weights": "int4", "group_size": 8}}
    plan = quantize_model(tiny_model, method="dynamic", modules=modules, dry_run=True)
    actions = {row.module: row.action for row in plan.rows if row.module}
    assert any("int4 per channel" in action for module, action in actions.items() if module.endswith("output.dense"))
    assert any("groups of 8" in action for module, action in actions.items() if module.endswith("query"))
    assert any("int8" in action for module, action in actions.items() if module.endswith("key"))
    assert plan.recipe["modules"]["*.query"] == {"weights": "int4", "group_size": 8, "scales": "mse"}
    with pytest.raises(FewbitError, match="matches no linear layer"):
        quantize_model(tiny_model, tmp_path / "out", "dynamic", modules={"*.quarry": "int4"})
    with pytest.raises(ValueError, match="modules: expected a method beside it"):
        quantize_model(tiny_model, tmp_path / "out", recipe=plan.recipe, modules=modules)
