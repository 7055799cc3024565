"""How fast models are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fewbit import _fewbit
from fewbit.calibration import Path, Texts
from fewbit.encoder import as_texts
from fewbit.measuring import measuring_process
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, optional
from fewbit.threads import resolve_threads


@dataclass(frozen=True)
class StartupTime:
    """The way to the first embedding, each time anew."""

    load_milliseconds: float
    first_embedding_milliseconds: float
    """Opening included."""
    peak_resident_bytes: int | None
    """The Python interpreter's own (about 10 MB) included."""
    startups: int
    threads: int


@dataclass(frozen=True)
class BenchedModel:
    """A model of a benchmark."""

    name: str
    directory: str
    model_type: str
    method: str | None
    """The recipe that made it, where fewbit did."""
    stored_as: str
    arithmetic: str
    """Arithmetic of most linear layers: ``int8`` or ``f32``."""
    max_tokens: int
    peak_gmacs_per_second: float
    """The most that one thread reached in that arithmetic, in units of 10^9 multiply-adds a second."""
    startup: StartupTime
    weight_memory_bytes: int
    scratch_bytes: int
    peak_resident_bytes: int | None


@dataclass(frozen=True)
class ShapeResult:
    """One model at one shape."""

    model: str
    median_milliseconds: float
    p10_milliseconds: float
    p90_milliseconds: float
    p99_milliseconds: float
    calls: int
    texts_per_second: float
    tokens_per_second: float
    gmacs_per_second: float
    share_of_peak: float
    multiply_adds: int
    times_faster: float
    """Median time of the first model over that of this one."""


@dataclass(frozen=True)
class ShapeRow:
    """All models at one shape: a batch of sequences of as many tokens each, through the network alone."""

    batch: int
    tokens: int
    threads: int
    models: tuple[ShapeResult, ...]


@dataclass(frozen=True)
class StageTime:
    """A stage of the network."""

    name: str
    milliseconds: float
    share: float


@dataclass(frozen=True)
class ProfileResult:
    """The stages of one model at one shape, on one thread."""

    batch: int
    tokens: int
    model: str
    stages: tuple[StageTime, ...]
    other_milliseconds: float
    whole_milliseconds: float
    calls: int


@dataclass(frozen=True)
class TextResult:
    """One model on the texts."""

    model: str
    median_seconds: float
    """Of a pass over all texts."""
    texts_per_second: float
    tokens_per_second: float
    tokens: int
    truncated: int
    passes: int
    times_faster: float


@dataclass(frozen=True)
class TextRow:
    """All models on the texts, tokenization included."""

    batch_size: int
    threads: int
    order: str
    """``as-given`` or ``by-length``."""
    models: tuple[TextResult, ...]


@dataclass(frozen=True)
class TextsReport:
    """Speed on texts."""

    texts: int
    rows: tuple[TextRow, ...]


@dataclass(frozen=True)
class BenchReport(Report):
    """Times of models. Wherever there are several, they are in the order of the first; ratios are to the first."""

    version: str
    isa: str
    """Instruction set of the kernels."""
    seconds: float
    rounds: int
    models: tuple[BenchedModel, ...]
    shapes: tuple[ShapeRow, ...]
    profiles: tuple[ProfileResult, ...]
    texts: TextsReport | None

    def _head(self) -> str:
        return f"fewbit {self.version}, {self.isa} kernels; {self.seconds:g} s a model and shape in {self.rounds} rounds"

    def _tables(self) -> list[Table]:
        models = [
            [
                model.name,
                model.model_type,
                model.method or model.stored_as,
                model.arithmetic,
                f"{model.startup.first_embedding_milliseconds:.1f}",
                optional(None if model.peak_resident_bytes is None else model.peak_resident_bytes / 1e6, ".1f"),
            ]
            for model in self.models
        ]
        shapes = [
            [
                f"{row.batch} x {row.tokens}",
                str(row.threads),
                result.model,
                f"{result.median_milliseconds:.2f}",
                f"{result.p90_milliseconds:.2f}",
                f"{result.p99_milliseconds:.2f}",
                f"{result.tokens_per_second:,.0f}",
                f"{100 * result.share_of_peak:.0f}",
                f"{result.times_faster:.2f}",
            ]
            for row in self.shapes
            for result in row.models
        ]
        tables = [
            Table(["model", "type", "weights", "computes in", ">first embedding ms", ">peak MB"], models),
            Table(
                ["batch x tokens", ">threads", "model", ">median ms", ">p90", ">p99", ">tokens/s", ">% of peak", ">times faster"],
                shapes,
                "network alone, sequences of one length",
            ),
        ]
        if self.texts is not None:
            rows = [
                [str(row.batch_size), row.order, str(row.threads), result.model, f"{result.texts_per_second:.1f}", f"{result.times_faster:.2f}"]
                for row in self.texts.rows
                for result in row.models
            ]
            headers = ["batches of", "order", ">threads", "model", ">texts/s", ">times faster"]
            tables.append(Table(headers, rows, f"{self.texts.texts:,} texts, tokenization included"))
        for profile in self.profiles:
            stages = [[stage.name, f"{stage.milliseconds:.3f}", f"{100 * stage.share:.1f}"] for stage in profile.stages]
            title = f"stages of {profile.model}, {profile.batch} x {profile.tokens}, one thread: {profile.whole_milliseconds:.2f} ms"
            tables.append(Table(["stage", ">ms", ">%"], stages, title))
        return tables

    def _bars(self) -> list[Bars]:
        return [
            Bars(
                f"{row.batch} x {row.tokens} tokens, threads: {row.threads}",
                [result.model for result in row.models],
                [result.median_milliseconds for result in row.models],
                "ms",
            )
            for row in self.shapes
        ]


def bench(
    models: Path | Sequence[Path],
    *,
    batch: int | Sequence[int] = (1, 8, 32),
    tokens: int | Sequence[int] = (16, 128),
    threads: int | Sequence[int] | None = None,
    texts: Texts | None = None,
    field: str | Sequence[str] = (),
    profile: bool = False,
    seconds: float = 1.0,
    rounds: int = 5,
    weight_only_in: str | None = None,
    isolated: bool = True,
    show_progress: bool = False,
) -> BenchReport:
    """Measures how fast models are, at fixed shapes and on texts.

    Args:
        models: Model directories or Hub ids; the first is the one that the others are compared with.
        batch: Sequences in a batch.
        tokens: Tokens of every sequence, special tokens included.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        texts: Texts to embed, too, or a file of them, tokenization included, in batches of ``batch``.
        field: Columns of that file that hold a text; ``text`` by default.
        profile: Measures the stages of the network, too, on one thread.
        seconds: Seconds for which every model is timed at every shape, in all rounds together.
        rounds: Rounds over the models.
        weight_only_in: What layers compute in whose weights alone are int8: ``integers`` or ``floats``.
        isolated: Whether each model is measured in a process of its own, so that peak memory is its own. Without, all memory of this process
            counts.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: A model cannot be run at these shapes, or a number is out of range.
    """
    named = [os.fspath(model) for model in ([models] if isinstance(models, str | os.PathLike) else models)]
    counts = [resolve_threads(None)] if threads is None else _numbers(threads)
    file = isinstance(texts, str | os.PathLike)
    request = {
        "batch": _numbers(batch),
        "tokens": _numbers(tokens),
        "threads": [resolve_threads(count) for count in counts],
        "texts": None if texts is None or isinstance(texts, str | os.PathLike) else as_texts("texts", texts),
        "texts_file": os.fspath(texts) if isinstance(texts, str | os.PathLike) else None,
        "field": [field] if isinstance(field, str) else list(field),
        "seconds": seconds,
        "rounds": rounds,
        "profile": profile,
        "weight_only_in": weight_only_in,
    }
    if field and not file:
        raise ValueError("field: expected a file of texts beside it")
    directories = [resolve_model(model) for model in named]
    with progress_bar(show_progress) as progress:
        pairs = list(zip(_names(named), directories, strict=True))
        text = _fewbit.bench(pairs, json.dumps(request), process=measuring_process(isolated), progress=progress)
    return read_record(BenchReport, text)


def _numbers(numbers: int | Sequence[int]) -> list[int]:
    return [numbers] if isinstance(numbers, int) else list(numbers)


def _names(models: Sequence[str]) -> list[str]:
    """What each model is called: the last part of its path or Hub id; where several have the same, all of it, and a number."""
    last = [model.rstrip("/").rpartition("/")[2] for model in models]
    often = Counter(last)
    names = [short if short and often[short] == 1 else model for short, model in zip(last, models, strict=True)]
    often, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        if often[name] > 1:
            names[index] = f"{name} ({seen[name]})"
    return names
