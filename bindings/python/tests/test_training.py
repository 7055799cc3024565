"""Quantization-aware training of model directories: what is written, what is refused, what an interruption leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import order_beside_another_thread

import fewbit
import fewbit.quantization
from fewbit import Encoder, QuantizationManager, QuantizePlan, TrainingReport, quantize_model
from fewbit.records import make_record

WORDS = ["cat", "dog", "mat", "ann", "bob", "york", "new", "sat"]
TEXTS = [f"the {WORDS[index % 8]} {WORDS[index // 3 % 8]} is not {WORDS[index * 5 % 7]}" for index in range(40)]
FEW: dict[str, Any] = {"steps": 6, "batch_size": 4, "evaluation_interval": 2, "learning_rate": 1e-3}
PER_CHANNEL: dict[str, Any] = {"weights": "int4", "group_size": "channel"}
PROGRAM = Path(os.environ.get("FEWBIT_PROGRAM", Path(__file__).parents[3] / "target/debug/fewbit"))


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def train(model: str, out: Path, **options: Any) -> TrainingReport:
    return quantize_model(model, out, "qat", **{"data": TEXTS, **FEW, **options})


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    """More texts than are calibrated with."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS * 8) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("options", "flags", "method"),
    [
        ({}, [], "dynamic"),
        ({"activations": "static", "seed": 3, "min_sqnr": -1000.0}, ["--activations", "static", "--seed", "3", "--min-sqnr=-1000"], "static"),
        ({"activations": "none"}, ["--activations", "none"], "weight-only"),
        (PER_CHANNEL, ["--weights", "int4", "--group-size", "channel"], "weight-only"),
        (
            {**PER_CHANNEL, "activations": "dynamic", "asymmetric": True, "samples": 50},
            ["--weights", "int4", "--group-size", "channel", "--activations", "dynamic", "--asymmetric", "--samples", "50"],
            "dynamic",
        ),
        ({"weights": "nf4", "double_quant": True, "skip": "*.0.output.dense"}, ["--weights", "nf4", "--double-quant", "--skip", "*.0.output.dense"], "nf4"),
    ],
)
def test_every_scheme_has_the_bytes_that_the_command_line_writes(
    encoder_model: str, tmp_path: Path, text_file: str, options: dict[str, Any], flags: list[str], method: str
) -> None:
    report = train(encoder_model, tmp_path / "out", data=text_file, **options)
    assert isinstance(report, TrainingReport)
    assert (report.recipe["method"], report.recipe["qat"]) == (method, True)
    assert report.cosine_after >= report.cosine_before and report.steps == 6
    if "samples" not in options:
        # Texts in memory are those of a file of them.
        given = train(encoder_model, tmp_path / "given", data=TEXTS * 8, **options)
        assert files(tmp_path / "given") == files(tmp_path / "out")
        assert (given.cosine_before, given.cosine_after) == (report.cosine_before, report.cosine_after)
    Encoder.open(report.output).encode(TEXTS)
    if PROGRAM.exists():
        command = [str(PROGRAM), "quantize", encoder_model, "-o", str(tmp_path / "cli"), "--method", "qat", "--data", text_file, "--json"]
        command += ["--steps", "6", "--batch-size", "4", "--evaluation-interval", "2", "--learning-rate", "1e-3", *flags]
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert files(tmp_path / "cli") == files(tmp_path / "out")
        own = ["steps", "best_step", "trained_texts", "held_out_texts", "cosine_before", "cosine_after", "end"]
        assert [getattr(report, key) for key in own] == [told[key] for key in own]
        of_heads = {"logits_before", "logits_after"}
        assert told.keys() - {"sensitivity"} - of_heads == vars(report).keys() - {"calibration"} - of_heads


def test_codes_are_trained_and_the_report_says_so(encoder_model: str, tmp_path: Path) -> None:
    report = train(encoder_model, tmp_path / "trained", steps=30, **PER_CHANNEL)
    plain = quantize_model(encoder_model, tmp_path / "plain", "weight-only", gptq=True, calibration=TEXTS, **PER_CHANNEL)
    assert (report.trained_texts, report.held_out_texts) == (38, 2)
    assert report.cosine_after > report.cosine_before and 0 < report.best_step <= 30
    assert report.output_bytes == plain.output_bytes
    assert files(tmp_path / "trained")["model.safetensors"] != files(tmp_path / "plain")["model.safetensors"]
    shown = str(report)
    assert shown.startswith("trained on 38 texts for 30 steps, ")
    assert f"held out: {report.cosine_before:.5f} before, {report.cosine_after:.5f} after step {report.best_step}" in shown
    assert "weight-only + int4 + per channel + QAT + int8 embeddings: " in shown and "<table>" in report._repr_html_()
    assert isinstance(report, fewbit.QuantizeReport)
    assert pickle.loads(pickle.dumps(report)) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "trained"]


def test_a_report_of_a_model_with_a_head_is_read(encoder_model: str, tmp_path: Path) -> None:
    report = train(encoder_model, tmp_path / "out")
    fields = {**vars(report), "logits_before": {"measure": "kullback_leibler", "distance": 0.5, "same_answers": 0.75}}
    fields["logits_after"] = {"measure": "kullback_leibler", "distance": 0.25, "same_answers": 1.0}
    fields |= {"parts": [], "modules": [], "kept": [], "calibration": None, "best_step": 4}
    found = make_record(TrainingReport, fields)
    assert found.logits_after is not None and found.logits_after.same_answers == 1.0
    assert "probabilities on 2 texts held out: 0.50000 before, 0.25000 after step 4\nsame answers: 75.0% before, 100.0% after\nmean" in str(found)


def test_threads_change_no_byte(encoder_model: str, tmp_path: Path) -> None:
    for threads in (1, 3):
        train(encoder_model, tmp_path / str(threads), threads=threads)
    assert files(tmp_path / "1") == files(tmp_path / "3")


def test_a_recipe_says_what_is_trained(encoder_model: str, tmp_path: Path) -> None:
    train(encoder_model, tmp_path / "options", weights="nf4", block_size=32)
    recipe = {"method": "nf4", "block_size": 32}
    train(encoder_model, tmp_path / "keys", recipe=recipe)
    again = quantize_model(encoder_model, tmp_path / "file", recipe=tmp_path / "keys/recipe.toml", data=TEXTS, **FEW)
    assert isinstance(again, TrainingReport)
    assert files(tmp_path / "options") == files(tmp_path / "keys") == files(tmp_path / "file")
    for recipe, texts, text in [
        ({"method": "nf4", "qat": True}, None, "recipe: `qat`: expected data to train on beside it, found none"),
        ({"method": "nf4"}, TEXTS, "recipe: `qat`: expected true beside data, found false"),
    ]:
        with pytest.raises(fewbit.FewbitError, match=text):
            quantize_model(encoder_model, tmp_path / "out", recipe=recipe, data=texts)
    with pytest.raises(fewbit.FewbitError, match="floats need no training|`qat`"):
        train(encoder_model, tmp_path / "out", recipe={"method": "fp16"})
    with pytest.raises(fewbit.FewbitError, match="layout: expected pack-quantized or int-quantized, found gptq"):
        train(encoder_model, tmp_path / "out", layout="gptq", **PER_CHANNEL, activations="none")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.training").exists()


def test_a_dry_run_trains_nothing(encoder_model: str, tmp_path: Path) -> None:
    plan = quantize_model(encoder_model, tmp_path / "out", "qat", data=TEXTS, weights="nf4", dry_run=True)
    assert isinstance(plan, QuantizePlan) and plan.recipe["qat"] is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "qat"}, "method qat: expected data\n  hint: a few thousand texts"),
        ({"method": "qat", "calibration": TEXTS}, "method qat: expected data"),
        ({"method": "qat", "data": []}, "data: expected texts, found none"),
        ({"method": "qat", "data": "a", "calibration": ["b"]}, "data and calibration: expected one of them, found both"),
        ({"method": "qat", "data": TEXTS, "samples": 3}, "samples: expected a file that texts are drawn from as data"),
        ({"method": "qat", "data": TEXTS, "learning_rate": 0}, "learning_rate: expected a number above 0, found 0\n  hint: 5e-5"),
        ({"method": "qat", "data": TEXTS, "learning_rate": float("nan")}, "learning_rate: expected a number above 0, found nan"),
        ({"method": "qat", "data": TEXTS, "learning_rate": float("inf")}, "learning_rate: expected a number above 0, found inf"),
        ({"method": "qat", "data": TEXTS, "learning_rate": -1e-5}, "learning_rate: expected a number above 0, found -1e-05"),
        ({"method": "qat", "data": TEXTS, "steps": 0}, "steps: expected a number, 1 or more, found 0"),
        ({"method": "qat", "data": TEXTS, "patience": 0}, "patience: expected a number, 1 or more, found 0"),
        ({"method": "qat", "data": TEXTS, "evaluation_interval": 0}, "evaluation_interval: expected a number, 1 or more, found 0"),
        ({"method": "qat", "data": TEXTS, "batch_size": 0}, "batch_size: expected a number, 1 or more, found 0"),
        ({"method": "qat", "data": TEXTS, "seed": -1}, "invalid value: integer `-1`"),
        ({"method": "qat", "data": TEXTS, "weights": "fp8"}, "weights: expected int8, int4 or nf4 with the method `qat`, found 'fp8'\n  hint: small"),
        ({"method": "qat", "data": TEXTS, "weights": "nf4", "activations": "dynamic"}, "weights='nf4': expected activations='none'"),
        ({"method": "qat", "data": TEXTS, "activations": "per-tensor"}, "activations: expected dynamic .* with the method `qat`, found 'per-tensor'"),
        ({"method": "qat", "data": TEXTS, "min_sqnr": 20}, "min_sqnr: does not go with the method `qat`, unless activations are static"),
        ({"method": "qat", "data": TEXTS, "backend": "x86"}, "backend x86 with the method `qat`: expected activations='static' beside it"),
        ({"method": "qat", "data": TEXTS, "recipe": {"method": "nf4"}, "weights": "nf4"}, "weights: expected a method beside it, found a recipe"),
        ({"method": "dynamic", "data": TEXTS}, "data: goes with the method `qat` alone, found `dynamic`"),
        ({"method": "dynamic", "steps": 3}, "steps: goes with the method `qat` alone, found `dynamic`\n  hint: leave it out"),
        ({"recipe": {"method": "nf4", "qat": True}, "steps": 3}, "steps: expected data"),
        ({"method": "dynamic", "weights": "nf4"}, "weights: expected one of int8.*\n  hint: method 'nf4' has these weights"),
        ({"method": "dynamic", "activations": "static"}, "activations: expected per-token or per-tensor.*\n  hint: method 'static'"),
    ],
)
def test_options_that_do_not_go_together_are_value_errors(encoder_model: str, tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        quantize_model(encoder_model, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_too_few_texts_are_an_error_that_leaves_nothing(encoder_model: str, tmp_path: Path, activations: str) -> None:
    with pytest.raises(fewbit.FewbitError, match="training data: expected at least 17 texts, a batch and some to hold out, found 16\n  hint: give more"):
        quantize_model(encoder_model, tmp_path / "out", "qat", data=TEXTS[:16], activations=activations, min_sqnr=None)
    assert list(tmp_path.iterdir()) == []
    train(encoder_model, tmp_path / "out", data=TEXTS[:17], batch_size=None)


def test_a_number_that_is_not_finite_ends_a_training_with_a_warning(encoder_model: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="training stopped after .*: loss or gradients were not finite; no step was better on held-out texts"):
        report = train(encoder_model, tmp_path / "out", learning_rate=1e30)
    assert (report.end, report.best_step, report.cosine_after) == ("not_finite", 0, report.cosine_before)
    assert "when a number was not finite any more" in str(report)
    Encoder.open(tmp_path / "out")


def test_an_output_is_replaced_only_with_force(encoder_model: str, tmp_path: Path) -> None:
    quantize_model(encoder_model, tmp_path / "out", "fp16")
    with pytest.raises(fewbit.FewbitError, match="out"):
        train(encoder_model, tmp_path / "out")
    assert train(encoder_model, tmp_path / "out", force=True).recipe["method"] == "dynamic"


def test_token_ids_are_trained_on(encoder_model: str, tmp_path: Path) -> None:
    rows = [{"input_ids": [2, *range(5, 8 + index % 5), 3]} for index in range(40)]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = train(encoder_model, tmp_path / "out", data=tmp_path / "ids.jsonl", input_ids_column="input_ids")
    assert report.trained_texts == 38


def test_a_model_from_the_hub_is_trained_as_its_directory(encoder_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache, whose layout is that of huggingface_hub; links as it makes them."""
    revision = "0123456789012345678901234567890123456789"
    snapshot = tmp_path / f"home/hub/models--owner--name/snapshots/{revision}"
    snapshot.mkdir(parents=True)
    for file in Path(encoder_model).iterdir():
        (snapshot / file.name).symlink_to(file)
    references = tmp_path / "home/hub/models--owner--name/refs"
    references.mkdir()
    (references / "main").write_text(revision)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    train("owner/name", tmp_path / "hub", activations="static")
    train(encoder_model, tmp_path / "directory", activations="static")
    assert files(tmp_path / "hub") == files(tmp_path / "directory")
    QuantizationManager("owner/name").apply_qat(tmp_path / "manager", TEXTS, activations="static", **FEW)
    assert files(tmp_path / "manager") == files(tmp_path / "hub")


Told = Callable[[int, int, str], None]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Told], None]:
    """Puts a function in the place of the bar that shows progress."""

    def watch(told: Told) -> None:
        @contextmanager
        def bar(show: bool, description: str | None = None) -> Iterator[Told | None]:
            yield told

        monkeypatch.setattr(fewbit.quantization, "progress_bar", bar)

    return watch


def test_progress_is_told_on_the_thread_of_the_call(encoder_model: str, tmp_path: Path, watched: Callable[[Told], None]) -> None:
    """Bars of notebooks belong to it, and signals are taken there."""
    told: list[tuple[int, int, str]] = []

    def tell(done: int, total: int, what: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append((done, total, what))

    watched(tell)
    report = train(encoder_model, tmp_path / "out", threads=2)
    beginning = [step for step in told if step[2] == "the model to begin with"]
    steps = told[len(beginning) :]
    assert beginning and {step[:2] for step in beginning} == {(0, 6)}
    assert [step[:2] for step in steps] == [(step, 6) for step in range(7)]
    assert steps[0][2] == f"held-out cosine {report.cosine_before:.5f}"
    assert all(what.startswith("loss 0.") and ", held-out cosine 0." in what for _, _, what in steps[1:])


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, KeyError])
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    encoder_model: str, tmp_path: Path, watched: Callable[[Told], None], stopped: type[BaseException]
) -> None:
    train(encoder_model, tmp_path / "whole", **PER_CHANNEL)
    out, saved = tmp_path / "out", tmp_path / "out.training"

    def stop(done: int, total: int, what: str) -> None:
        if done == 5:
            raise stopped("enough")

    watched(stop)
    with pytest.raises(stopped, match="enough") as raised:
        train(encoder_model, out, **PER_CHANNEL)
    notes = getattr(raised.value, "__notes__", [])
    if stopped is KeyboardInterrupt and sys.version_info >= (3, 11):
        assert len(notes) == 1 and str(saved) in notes[0] and "resume=True" in notes[0]
    assert not out.exists() and (saved / "step-4").is_dir()
    watched(lambda done, total, what: None)
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    other: list[tuple[dict[str, Any], str]] = [
        ({}, "out.training, found what an interrupted training has left there\n  hint: go on with --resume"),
        ({"resume": True, "data": TEXTS[1:]}, "expected a training of data, found another one"),
        ({"resume": True, "learning_rate": 2e-3}, "expected a training of options, found another one"),
        ({"resume": True, "seed": 1}, "expected a training of options, found another one"),
        ({"resume": True, "asymmetric": True}, "expected a training of recipe, found another one"),
    ]
    for options, text in other:
        with pytest.raises(fewbit.FewbitError, match=text):
            train(encoder_model, out, **{**PER_CHANNEL, **options})
        assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    report = train(encoder_model, out, resume=True, **PER_CHANNEL)
    assert report.steps == 6
    assert files(out) == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_an_interruption_before_the_first_step_leaves_nothing_in_the_way(
    encoder_model: str, tmp_path: Path, watched: Callable[[Told], None]
) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyError(what)

    watched(stop)
    with pytest.raises(KeyError, match="the model to begin with"):
        train(encoder_model, tmp_path / "out")
    watched(lambda done, total, what: None)
    train(encoder_model, tmp_path / "out", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_control_c_ends_a_training_that_goes_on_later(encoder_model: str, tmp_path: Path) -> None:
    """Although its steps are on another thread than that which takes signals."""
    program = """
import json, sys, time, fewbit, fewbit.quantization
from contextlib import contextmanager

def tell(done, total, what):
    print(done, flush=True)
    time.sleep(0.01)

@contextmanager
def bar(show, description=None):
    yield tell

fewbit.quantization.progress_bar = bar
fewbit.quantize_model(sys.argv[1], sys.argv[2], "qat", threads=2, **json.loads(sys.argv[3]))
"""
    options = {"data": TEXTS, **FEW, "steps": 300, "patience": 1000}
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, encoder_model, str(out), json.dumps(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "9\n":
            break
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    if sys.version_info >= (3, 11):
        assert error.rstrip().endswith("hint: the same call with resume=True goes on from there")
    steps = [int(path.name.removeprefix("step-")) for path in (tmp_path / "out.training").glob("step-*")]
    assert not out.exists() and len(steps) == 1 and 8 <= steps[0] < 300
    quantize_model(encoder_model, out, "qat", resume=True, **options)
    quantize_model(encoder_model, tmp_path / "whole", "qat", **options)
    assert files(out) == files(tmp_path / "whole")


def test_control_c_is_seen_while_nothing_is_told(sample_model: str, tmp_path: Path) -> None:
    """While a step of a larger model is under way."""
    program = """
import sys, threading, time, os, signal, fewbit
began = time.monotonic()
def press():
    while not os.path.exists(sys.argv[2] + ".training/run.json"):
        time.sleep(0.02)
    print("pressed", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
fewbit.quantize_model(sys.argv[1], sys.argv[2], "qat", data=["some text of a few words"] * 300, batch_size=256, steps=100_000)
"""
    command = [sys.executable, "-c", program, sample_model, str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.stdout == "pressed\n" and "KeyboardInterrupt" in found.stderr
    assert not (tmp_path / "out").exists()


def test_other_threads_run_during_a_training(encoder_model: str, tmp_path: Path) -> None:
    # What is imported or made up for the first time would change the order.
    train(encoder_model, tmp_path / "first")
    order = order_beside_another_thread(lambda: train(encoder_model, tmp_path / "out"))
    assert order == ["call begins", "other thread", "call ends"]
    assert files(tmp_path / "out") == files(tmp_path / "first")


def train_in_a_worker(task: tuple[str, Path]) -> dict[str, bytes]:
    signal.alarm(120)
    model, out = task
    train(model, out, threads=2)
    return files(out)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_that_trained_train_too(encoder_model: str, tmp_path: Path, method: str) -> None:
    """(pitfall 41)"""
    expected = train_in_a_worker((encoder_model, tmp_path / "out"))
    signal.alarm(0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(train_in_a_worker, [(encoder_model, tmp_path / str(number)) for number in range(2)])
    assert found == [expected, expected]


def test_the_manager_trains_and_counts_what_it_wrote(encoder_model: str, tmp_path: Path) -> None:
    manager = QuantizationManager(encoder_model)
    report = manager.apply_qat(tmp_path / "out", TEXTS, weights="nf4", **FEW)
    train(encoder_model, tmp_path / "function", weights="nf4")
    assert isinstance(report, TrainingReport) and files(tmp_path / "out") == files(tmp_path / "function")
    rows = {row.label: row for row in manager.compare_sizes().rows if row.directory is not None}
    assert rows["nf4 + QAT"].bytes == report.output_bytes and rows["nf4 + QAT"].directory == str(tmp_path / "out")
    with pytest.raises(fewbit.FewbitError, match="out"):
        manager.apply_qat(tmp_path / "out", TEXTS, **FEW)
    QuantizationManager(encoder_model, force=True).apply_qat(tmp_path / "out", TEXTS, **FEW)


def test_trained_models_are_compared_beside_methods(encoder_model: str, tmp_path: Path) -> None:
    train(encoder_model, tmp_path / "trained", **PER_CHANNEL)
    quantize_model(encoder_model, tmp_path / "half", "fp16")
    (tmp_path / "half/recipe.toml").unlink()
    comparison = fewbit.compare(encoder_model, "dynamic", quantized=[tmp_path / "trained", str(tmp_path / "half"), tmp_path / "none"], texts=TEXTS)
    assert [row.name for row in comparison.rows] == ["original", "dynamic", "trained", "half"]
    _, dynamic, trained, half = comparison.rows
    assert trained.recipe is not None and trained.recipe["qat"] is True and half.recipe is None
    assert trained.directory == str(tmp_path / "trained") and dynamic.directory is None
    assert trained.parameter_bytes < dynamic.parameter_bytes
    assert [failed.name for failed in comparison.failed] == ["none"]
    one = fewbit.compare(encoder_model, "fp16", quantized=tmp_path / "trained", texts=TEXTS)
    assert [row.name for row in one.rows] == ["original", "fp16", "trained"]
    with pytest.raises(fewbit.FewbitError, match="trained"):
        fewbit.compare(encoder_model, "fp16", quantized=[tmp_path / "trained"] * 2, texts=TEXTS)
