"""One model under several methods, measured side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from fewbit import _fewbit
from fewbit.calibration import Path, Texts, calibration_request, is_path
from fewbit.encoder import as_texts
from fewbit.measuring import measuring_process
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.records import make_record, read_record
from fewbit.tables import Bars, Report, Table, megabytes, optional
from fewbit.threads import resolve_threads

Pairs = Union[Path, Sequence[tuple[str, str, float]]]
"""A file of sentence pairs with scores, or several of them."""


@dataclass(frozen=True)
class EmbeddingAgreement:
    """How close embeddings are to those of the original."""

    mean_cosine: float
    minimum_cosine: float
    largest_absolute_difference: float


@dataclass(frozen=True)
class ClassifierAgreement:
    """How close logits are to those of the original."""

    same_label: float | None
    """Share of the texts with the same label; ``None`` for a model whose output is a number."""
    mean_divergence: float | None
    """Mean Kullback-Leibler divergence of the probabilities, in nats; ``None`` for a model whose output is a number."""
    largest_logit_difference: float


@dataclass(frozen=True)
class ClassificationQuality:
    """How often labels are right."""

    accuracy: float
    macro_f1: float
    texts: int


@dataclass(frozen=True)
class ClassFigures:
    """What a model of labels makes of the texts."""

    agreement: ClassifierAgreement | None
    """``None`` for the original."""
    quality: ClassificationQuality | None
    """``None`` without right labels."""


@dataclass(frozen=True)
class SentenceSimilarity:
    """Correlation of cosine similarities with scores."""

    spearman: float
    pearson: float
    pairs: int


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison."""

    name: str
    """``original``, what the method is called, or the name of the directory of a model that was quantized already."""
    disk_bytes: int
    """Bytes of the files of its weights."""
    weight_memory_bytes: int
    """Parameters, in the form in which they are computed with."""
    scratch_bytes: int
    """Activation buffers that the executor keeps."""
    peak_resident_bytes: int | None
    """Peak memory of the process that encoded all texts, the Python interpreter's own (about 10 MB) included."""
    compression_ratio: float
    """Bytes on disk of the original over those of this model."""
    bits_per_weight: float
    agreement: EmbeddingAgreement | None
    """``None`` for the original, and for classifiers."""
    classes: ClassFigures | None
    """``None`` for models of embeddings."""
    similarity: SentenceSimilarity | None
    """``None`` without scores, and for a model that finds all pairs equally similar."""
    median_milliseconds: float
    """Median time to encode one text."""
    texts_per_second: float
    """In batches."""
    recipe: dict[str, Any] | None
    """``None`` for the original, and for a quantized model that does not say how it was made."""
    directory: str | None
    """Where the model was kept, if it was, or lies."""
    parameter_bytes: int
    buffer_bytes: int
    directory_bytes: int
    load_seconds: float
    quantize_seconds: float | None


@dataclass(frozen=True)
class FailedMethod:
    """A method without a row."""

    name: str
    error: str


@dataclass(frozen=True)
class MissedGate:
    """A method that loses more than allowed."""

    name: str
    drop: float | None
    """What it loses; ``None`` if there is no figure to judge it by."""


@dataclass(frozen=True)
class Comparison(Report):
    """Models side by side."""

    model: str
    parameters: int
    texts: int
    texts_kind: str
    """``built-in``, ``texts``, ``labelled`` or ``pairs``."""
    output: str
    """``embeddings`` or ``logits``."""
    tokens: int
    truncated: int
    latency_texts: int
    speed_texts: int
    rounds_of_speed: int
    threads: int
    batch_size: int
    isa: str
    weight_only_in: str
    rows: tuple[ComparedModel, ...]
    """The model as it is, then one row for each method that did not fail."""
    failed: tuple[FailedMethod, ...]
    missed: tuple[MissedGate, ...] = ()
    """Methods that lose more than ``max_drop``, if it was given."""

    def _head(self) -> str:
        lines = [
            f"{self.model}: {self.parameters:,} parameters",
            f"{self.texts:,} texts ({self.texts_kind}), {self.tokens:,} tokens; threads: {self.threads}, {self.isa}",
        ]
        lines += [f"{failed.name} failed: {failed.error}" for failed in self.failed]
        lines += [f"{missed.name} loses too much: {optional(missed.drop, '.3f')}" for missed in self.missed]
        return "\n".join(lines)

    def _tables(self) -> list[Table]:
        headers = ["method", ">disk MB", ">times less", ">bits/weight"]
        if self.output == "embeddings":
            headers += [">cosine mean", ">least", ">max |diff|"]
        else:
            headers += [">same label", ">KL nats", ">logit |diff|"]
        if self.texts_kind == "pairs":
            headers += [">Spearman"]
        if self.texts_kind == "labelled":
            headers += [">accuracy", ">macro F1"]
        headers += [">median ms", ">texts/s", ">peak MB"]
        return [Table(headers, [self._row(row) for row in self.rows])]

    def _row(self, row: ComparedModel) -> list[str]:
        cells = [row.name, megabytes(row.disk_bytes), f"{row.compression_ratio:.2f}", f"{row.bits_per_weight:.2f}"]
        close, classes = row.agreement, row.classes
        if self.output == "embeddings":
            cells += [
                optional(close.mean_cosine if close else None, ".5f"),
                optional(close.minimum_cosine if close else None, ".5f"),
                optional(close.largest_absolute_difference if close else None, ".4f"),
            ]
        else:
            logits = classes.agreement if classes else None
            same = logits.same_label if logits else None
            cells += [
                "-" if same is None else f"{100 * same:.2f}",
                optional(logits.mean_divergence if logits else None, ".5f"),
                optional(logits.largest_logit_difference if logits else None, ".4f"),
            ]
        if self.texts_kind == "pairs":
            cells += ["-" if row.similarity is None else f"{100 * row.similarity.spearman:.2f}"]
        if self.texts_kind == "labelled":
            quality = classes.quality if classes else None
            cells += [f"{100 * quality.accuracy:.2f}", f"{100 * quality.macro_f1:.2f}"] if quality else ["-", "-"]
        peak = "-" if row.peak_resident_bytes is None else f"{row.peak_resident_bytes / 1e6:.0f}"
        return [*cells, f"{row.median_milliseconds:.2f}", f"{row.texts_per_second:.0f}", peak]

    def _bars(self) -> list[Bars]:
        names = [row.name for row in self.rows]
        return [
            Bars("Size on disk", names, [row.disk_bytes / 1e6 for row in self.rows], "MB"),
            Bars("Time for one text", names, [row.median_milliseconds for row in self.rows], "ms"),
        ]


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds."""

    mean: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Judgement:
    """How close a model is to the float one."""

    agreement: EmbeddingAgreement
    similarity: SentenceSimilarity | None


@dataclass(frozen=True)
class SweepRun:
    """The model made from one draw of texts."""

    seed: int
    tokens: int
    dynamic_inputs: int
    agreement: EmbeddingAgreement
    similarity: SentenceSimilarity | None


@dataclass(frozen=True)
class SweepRow:
    """The models made from one number of texts."""

    samples: int
    mean_cosine: Spread
    spearman: Spread | None
    runs: tuple[SweepRun, ...]


@dataclass(frozen=True)
class CalibrationSweep(Report):
    """``static`` calibrated on more and more texts."""

    model: str
    calibration: str
    seeds: tuple[int, ...]
    texts: int
    texts_kind: str
    inputs: int
    threads: int
    isa: str
    original: SentenceSimilarity | None
    dynamic: Judgement
    """The method ``dynamic``, which needs no texts."""
    rows: tuple[SweepRow, ...]

    def _head(self) -> str:
        return f"{self.model}\nstatic, calibrated on texts of {self.calibration}; judged by {self.texts:,} texts ({self.texts_kind})"

    def _tables(self) -> list[Table]:
        def row(swept: SweepRow) -> list[str]:
            cosine, spearman = swept.mean_cosine, swept.spearman
            dynamic = sorted({run.dynamic_inputs for run in swept.runs})
            return [
                f"{swept.samples:,}",
                *(f"{value:.5f}" for value in (cosine.mean, cosine.least, cosine.greatest)),
                "-" if spearman is None else f"{100 * spearman.mean:.2f}",
                " to ".join(str(number) for number in sorted({dynamic[0], dynamic[-1]})),
            ]

        rows = [row(swept) for swept in self.rows]
        rows.append(["(dynamic)", f"{self.dynamic.agreement.mean_cosine:.5f}", "", "", "", str(self.inputs)])
        headers = ["calibration texts", ">cosine mean", ">lowest", ">highest", ">Spearman", ">dynamic inputs"]
        return [Table(headers, rows)]


def compare(
    model: Path,
    methods: str | Sequence[str] = (),
    *,
    quantized: Path | Sequence[Path] = (),
    data: Pairs | None = None,
    data_fields: Sequence[str] = (),
    texts: Texts | None = None,
    labels: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    label_column: str | None = None,
    pair_column: str | None = None,
    keep: Path | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
    batch_size: int = 32,
    weight_only_in: str | None = None,
    isolated: bool = True,
    show_progress: bool = False,
    **calibration: Any,
) -> Comparison:
    """Runs a model under several methods and puts what each costs side by side: size, closeness to the original, speed, memory.

    Args:
        model: Model directory or Hub id.
        methods: ``fp16``, ``dynamic``, ``dynamic+float-embeddings``, ``nf4+double+fp16``, ``static+gptq`` … as of ``fewbit compare --methods``; by
            default every kind, and ``static`` where there is something to calibrate with.
        quantized: Directories of models that are quantized already, trained ones (``method="qat"``) for example, which are compared as they are.
        data: Sentence pairs (first, second, score), or a file of them: adds the Spearman correlation.
        data_fields: The three columns of that file, if they are not sentence1, sentence2 and score.
        texts: Texts to compare embeddings on, or a file of them; by default some that are built in.
        labels: The right label of each text, of a model that classifies texts: adds accuracy and macro F1.
        pairs: The text that is read with each text.
        label_column: Column of the file of texts that holds the right label.
        pair_column: Column of the file of texts that holds a second text.
        keep: Directory to keep the quantized models in.
        max_drop: Names methods that lose more, in points, as :attr:`Comparison.missed`.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        batch_size: Texts that are run together where speed in batches is measured.
        weight_only_in: What layers compute in whose weights alone are int8: ``integers`` or ``floats``.
        isolated: Whether each model is measured in a process of its own, so that peak memory is its own. Without, all memory of this process
            counts.
        show_progress: Whether to show a progress bar.
        calibration: ``calibration``, ``stats``, ``min_sqnr``, ``samples``, ``field`` and so on, as of :func:`fewbit.quantize_model`.

    Raises:
        FewbitError: The model or the texts cannot be used. A method that fails does not end the comparison: :attr:`Comparison.failed`.
        ValueError: Options that do not go together.
    """
    if max_drop is not None and not 0 <= max_drop < float("inf"):
        raise ValueError(f"max_drop: expected a number of points, 0 or more, found {max_drop}")
    field = calibration.get("field", ())
    if calibration.get("calibration") is None and is_path(texts):
        calibration.pop("field", None)
    named = [methods] if isinstance(methods, str) else list(methods)
    _check_methods(named, calibration)
    request = {
        "methods": named,
        "quantized": [os.fspath(one) for one in ([quantized] if isinstance(quantized, str | os.PathLike) else quantized)],
        "texts": _texts(data, data_fields, texts, labels, pairs, label_column, pair_column, field),
        "keep": None if keep is None else os.fspath(keep),
        "max_drop": max_drop,
        "threads": resolve_threads(threads),
        "batch_size": batch_size,
        "weight_only_in": weight_only_in,
        "calibration": _calibration(calibration),
    }
    with progress_bar(show_progress) as progress:
        text = _fewbit.compare(resolve_model(model), json.dumps(request), process=measuring_process(isolated), progress=progress)
    answer = json.loads(text)
    return make_record(Comparison, {**answer["comparison"], "missed": answer["missed"]})


def calibration_sweep(
    model: Path,
    calibration: Path,
    numbers: Sequence[int] = (1, 4, 16, 64, 256, 1024),
    *,
    data: Pairs | None = None,
    data_fields: Sequence[str] = (),
    texts: Texts | None = None,
    threads: int | None = None,
    batch_size: int = 32,
    show_progress: bool = False,
    **options: Any,
) -> CalibrationSweep:
    """Compares ``static`` calibrated on more and more texts of a file, each number drawn with three seeds.

    Args:
        model: Model directory or Hub id.
        calibration: A file of texts or token ids.
        numbers: How many texts.
        data: Sentence pairs (first, second, score), or a file of them, to judge by.
        data_fields: The three columns of that file, if they are not sentence1, sentence2 and score.
        texts: Texts to judge by, or a file of them; by default some that are built in.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        batch_size: Texts that are run together.
        show_progress: Whether to show a progress bar.
        options: ``min_sqnr``, ``seed``, ``field``, ``observer``, ``backend`` … as of :func:`fewbit.quantize_model`.

    Raises:
        FewbitError: The model or a file cannot be used.
        ValueError: Options that do not go together.
    """
    request = {
        "numbers": list(numbers),
        "texts": _texts(data, data_fields, texts, None, None, None, None, options.get("field", ())),
        "threads": resolve_threads(threads),
        "batch_size": batch_size,
        "calibration": calibration_request(calibration, **options),
    }
    with progress_bar(show_progress) as progress:
        found = _fewbit.calibration_sweep(resolve_model(model), json.dumps(request), progress=progress)
    return read_record(CalibrationSweep, found)


def _texts(
    data: Pairs | None,
    data_fields: Sequence[str],
    texts: Texts | None,
    labels: Sequence[str] | None,
    pairs: Sequence[str] | None,
    label_column: str | None,
    pair_column: str | None,
    field: str | Sequence[str],
) -> Any:
    """What the models of a comparison are run on, as the native half takes it."""
    fields = [field] if isinstance(field, str) else list(field)
    if data is not None and texts is not None:
        raise ValueError("data and texts: expected one of them, found both")
    if data_fields and (len(data_fields) != 3 or not is_path(data)):
        raise ValueError("data_fields: expected a file of pairs, and the names of its first sentence, second sentence and score")
    if isinstance(data, str | os.PathLike):
        return {"pairs-file": {"path": os.fspath(data), "columns": list(data_fields)}}
    if data is not None:
        return {"pairs": [(first, second, float(score)) for first, second, score in data]}
    if isinstance(texts, str | os.PathLike):
        path = os.fspath(texts)
        if labels is not None or pairs is not None:
            raise ValueError("labels and pairs: expected texts beside them, found a file\n  hint: label_column and pair_column name its columns")
        if label_column is None and pair_column is None:
            return {"file": {"path": path, "field": fields}}
        if len(fields) > 1:
            raise ValueError(f"field: expected one column of texts beside label_column or pair_column, found {len(fields)}")
        return {"labelled-file": {"path": path, "text": (fields or ["text"])[0], "pair": pair_column, "label": label_column}}
    if label_column is not None or pair_column is not None:
        raise ValueError("label_column and pair_column: expected a file of texts, found none")
    if texts is None:
        if labels is not None or pairs is not None:
            raise ValueError("labels and pairs: expected texts beside them, found none")
        return "built-in"
    batch = as_texts("texts", texts)
    if labels is None and pairs is None:
        return {"given": batch}
    for name, other in [("labels", labels), ("pairs", pairs)]:
        if other is not None and len(other) != len(batch):
            raise ValueError(f"{name}: expected one for each of {len(batch)} texts, found {len(other)}")
    return {"labelled": {"texts": batch, "pairs": as_texts("pairs", pairs or ()), "labels": as_texts("labels", labels or ())}}


def _calibration(options: dict[str, Any]) -> dict[str, Any] | None:
    if not options:
        return None
    if options.get("calibration") is None and not options.get("stats"):
        raise ValueError(f"{next(iter(options))}: expected calibration or stats beside it\n  hint: texts like those that the model will see")
    rest = {name: value for name, value in options.items() if name != "calibration"}
    return calibration_request(options.get("calibration"), **rest)


def _check_methods(methods: Sequence[str], calibration: dict[str, Any]) -> None:
    """Refuses methods that need what they are not given, and what no method needs."""
    words = [set(method.lower().replace(" ", "").split("+")) for method in methods]
    fixed, rounded = (any(word in method for method in words) for word in ("static", "gptq"))
    weighted = any("activation-weighted" in method for method in methods)
    texts = calibration.get("calibration") is not None
    if fixed and not (texts or calibration.get("stats")):
        raise ValueError("methods: static: expected calibration or stats\n  hint: `dynamic` needs none")
    if (rounded or weighted) and not texts:
        who = "gptq" if rounded else "activation-weighted"
        raise ValueError(f"methods: {who}: expected calibration: texts like those that the model will see")
    if methods and calibration and not (fixed or rounded or weighted):
        raise ValueError("calibration: goes with static and gptq, which are not among the methods\n  hint: add one, or leave it out")
