"""What is measured: comparisons, benchmarks, inspections, and how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.tables import Bars, Table

TEXTS = ["the cat sat on the mat", "ann lives in new york", "a", "not the dog"]


def test_a_comparison_has_a_row_for_each_method(encoder_model: str, tmp_path: Path) -> None:
    comparison = fewbit.compare(encoder_model, ["fp16", "nf4+double"], texts=TEXTS, keep=tmp_path, threads=1)
    assert [row.name for row in comparison.rows] == ["original", "fp16", "nf4 + double quantization"]
    original, half, four = comparison.rows
    assert original.agreement is None and half.agreement is not None and four.agreement is not None
    assert half.agreement.mean_cosine > four.agreement.mean_cosine
    assert half.directory is not None and Path(half.directory).exists()
    assert all((row.peak_resident_bytes or 0) > 0 for row in comparison.rows)
    shown = str(comparison).splitlines()
    assert shown[3].startswith("method") and shown[5].startswith("original")
    html = comparison._repr_html_()
    assert html.count("<table>") == 1 and html.count("<svg") == 2
    assert comparison.missed == ()


def test_a_model_is_measured_in_a_process_of_its_own(encoder_model: str) -> None:
    """What this process holds is not in its peak."""
    ballast = bytearray(300_000_000)
    for index in range(0, len(ballast), 4096):
        ballast[index] = 1
    alone = fewbit.compare(encoder_model, ["fp16"], texts=TEXTS)
    here = fewbit.compare(encoder_model, ["fp16"], texts=TEXTS, isolated=False)
    assert all((row.peak_resident_bytes or 0) < len(ballast) for row in alone.rows)
    assert all((row.peak_resident_bytes or len(ballast)) >= len(ballast) for row in here.rows)


def test_pairs_with_scores_add_a_correlation_and_gates_are_told(encoder_model: str) -> None:
    pairs = [("the cat", "a cat", 5.0), ("the cat", "bob", 1.0), ("new york", "not in new york", 3.0)]
    comparison = fewbit.compare(encoder_model, "fp16", data=pairs, max_drop=0)
    assert all(row.similarity is not None and row.similarity.pairs == 3 for row in comparison.rows)
    assert "Spearman" in str(comparison)
    assert comparison.missed == ()


def test_a_classifier_is_compared_by_its_logits(tiny_model: str) -> None:
    comparison = fewbit.compare(tiny_model, ["fp16"], texts=TEXTS, labels=["good", "bad", "fair", "good"])
    assert (comparison.output, comparison.texts_kind) == ("logits", "labelled")
    classes = comparison.rows[1].classes
    assert classes is not None and classes.quality is not None and classes.quality.texts == 4
    assert "accuracy" in str(comparison)


def test_static_and_gptq_take_part_where_there_are_texts(encoder_model: str) -> None:
    comparison = fewbit.compare(encoder_model, ["static", "dynamic+gptq"], texts=TEXTS, calibration=TEXTS)
    assert [row.name for row in comparison.rows] == ["original", "static", "dynamic + GPTQ"]


def test_a_sweep_shows_how_many_texts_are_enough(encoder_model: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 2) + "\n")
    sweep = fewbit.calibration_sweep(encoder_model, tmp_path / "texts.txt", [1, 4], texts=TEXTS)
    assert [row.samples for row in sweep.rows] == [1, 4] and len(sweep.rows[0].runs) == 3
    assert str(sweep).splitlines()[-1].startswith("(dynamic)")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"methods": ["static"]}, "static: expected calibration or stats"),
        ({"methods": ["dynamic+gptq"]}, "gptq: expected calibration"),
        ({"methods": ["fp16"], "calibration": ["a"]}, "goes with static and gptq"),
        ({"methods": ["int9"]}, "unknown method `int9`"),
        ({"methods": ["nf4", "int4"]}, "expected each method once"),
        ({"max_drop": -1}, "max_drop: expected a number of points"),
        ({"data": [("a", "b", 1)], "texts": ["a"]}, "data and texts: expected one of them"),
        ({"texts": ["a"], "labels": []}, "labels: expected one for each of 1 texts, found 0"),
        ({"texts": ["a"], "label_column": "x"}, "expected a file of texts"),
        ({"samples": 3}, "samples: expected calibration or stats beside it"),
        ({"weight_only_in": "words"}, "words"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_a_value_error(encoder_model: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fewbit.compare(encoder_model, **options)


def test_a_benchmark_times_models_side_by_side(encoder_model: str, tmp_path: Path) -> None:
    fewbit.quantize_model(encoder_model, tmp_path / "int8", "dynamic")
    report = fewbit.bench(
        [encoder_model, tmp_path / "int8"], batch=[1, 2], tokens=4, threads=1, seconds=0.01, rounds=1, texts=TEXTS, profile=True
    )
    assert [model.name for model in report.models] == ["encoder", "int8"]
    assert [(row.batch, row.tokens, row.threads) for row in report.shapes] == [(1, 4, 1), (2, 4, 1)]
    assert report.models[1].method == "dynamic + int8 embeddings" and report.shapes[0].models[0].times_faster == 1
    assert report.texts is not None and report.texts.texts == len(TEXTS) and len(report.profiles) == 4
    assert "network alone" in str(report) and report._repr_html_().count("<svg") == 2


def test_models_of_one_name_are_told_apart(encoder_model: str) -> None:
    report = fewbit.bench([encoder_model, encoder_model], batch=1, tokens=2, threads=1, seconds=0.01, rounds=1)
    assert [model.name for model in report.models] == [f"{encoder_model} (1)", f"{encoder_model} (2)"]


def test_a_benchmark_that_makes_no_sense_is_an_error(encoder_model: str) -> None:
    for options, text in [({"batch": []}, "batch"), ({"tokens": 100_000}, "tokens"), ({"rounds": 0}, "rounds"), ({"threads": [1, 1]}, "twice")]:
        with pytest.raises(fewbit.FewbitError, match=text):
            fewbit.bench(encoder_model, **{"batch": 1, "tokens": 2, **options})  # type: ignore[arg-type]
    with pytest.raises(fewbit.FewbitError, match="models: expected at least one"):
        fewbit.bench([])


def test_an_inspection_says_what_a_model_consists_of(bare_model: str, tiny_model: str) -> None:
    found = fewbit.inspect(bare_model)
    assert (found.model_type, found.layers, found.hidden_size, found.head) == ("bert", 2, 32, None)
    assert found.size.parameters == 19384 == sum(part.parameters for part in found.size.by_part)
    assert {method.label for method in found.methods} >= {"dynamic", "fp16", "nf4"}
    head = fewbit.inspect(Path(tiny_model)).head
    assert head is not None and head.task == "sequence-classification" and len(head.labels) == 3
    assert "what each method would make of it" in str(found)


def test_tables_align_numbers_to_the_right_and_escape_html() -> None:
    table = Table(["name", ">number"], [["a", "1"], ["b<c", "1,000"]], "title")
    assert table.text() == "title\nname  number\n------------\na          1\nb<c    1,000"
    assert "b&lt;c" in table.html() and "text-align:right" in table.html()
    assert "1,000 MB" in Bars("sizes", ["x"], [1000.0], "MB").html()
