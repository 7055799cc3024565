"""Calibration: what the inputs of a model's layers are like on texts."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from fewbit import _fewbit
from fewbit.encoder import as_texts
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, optional

Path = Union[str, "os.PathLike[str]"]
Texts = Union[Path, Sequence[str]]
"""A file of texts, or several texts."""


@dataclass(frozen=True)
class SiteSensitivity:
    """What one range costs at the input of layers."""

    site: str
    """The input: the path of a module, and ``.input``."""
    modules: tuple[str, ...]
    """The linear layers that read it."""
    static_sqnr_db: float
    """Signal to quantization noise ratio with one scale for all texts, in dB."""
    dynamic_sqnr_db: float
    """The same with a scale for each token, in dB."""
    output_effect: float | None = None
    """What a static range at this input alone adds to 1 - mean cosine of the embeddings, where it was measured."""


@dataclass(frozen=True)
class NoisySites:
    """Inputs that are static although one range costs much there."""

    count: int
    worst: SiteSensitivity


@dataclass(frozen=True)
class Calibration(Report):
    """What calibration decided."""

    sites: tuple[SiteSensitivity, ...]
    """The inputs, in execution order."""
    least_sqnr_db: float | None
    """Inputs with less are dynamic per token, in dB; ``None``: every input is static."""
    backend: str
    noisy: NoisySites | None

    def _head(self) -> str:
        return _rule(self.least_sqnr_db)

    def _tables(self) -> list[Table]:
        return [sites_table(self.sites, self.least_sqnr_db)]

    def _bars(self) -> list[Bars]:
        return [_sites_bars(self.sites)]


@dataclass(frozen=True)
class CalibrationReport(Report):
    """What was observed."""

    stats: str | None
    """The file of statistics, if one was asked for."""
    samples: int
    """Texts, or rows of token ids."""
    tokens: int
    resumed_after: int
    """Samples that an interrupted calibration had observed."""
    settings: dict[str, Any]
    """The observer."""
    sites: tuple[SiteSensitivity, ...]
    """The inputs, in execution order."""
    least_sqnr_db: float | None
    """Inputs with less will be dynamic per token by default, in dB; ``None``: none."""

    def _head(self) -> str:
        where = f"; statistics in {self.stats}" if self.stats else ""
        return f"{self.samples:,} samples, {self.tokens:,} tokens observed{where}\n{_rule(self.least_sqnr_db)}"

    def _tables(self) -> list[Table]:
        return [sites_table(self.sites, self.least_sqnr_db)]

    def _bars(self) -> list[Bars]:
        return [_sites_bars(self.sites)]


def calibrate(
    model: Path,
    calibration: Texts,
    stats: Path | None = None,
    *,
    resume: bool = False,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
    show_progress: bool = False,
) -> CalibrationReport:
    """Observes a float model's activations on texts, and saves the statistics for :func:`fewbit.quantize_model` with the method ``static``.

    Args:
        model: Model directory or Hub id.
        calibration: Texts like those that the model will see; or a file of them: one a line, ``*.jsonl``, ``*.csv``, ``*.tsv`` or
            ``*.parquet``; or of token ids.
        stats: File to write the statistics to; must not exist. Without it nothing is kept.
        resume: Goes on where the same call with a file was interrupted.
        samples: Texts to draw from the file; 256 by default, or all of a file that has fewer. Texts that are given are all observed.
        batches: As many batches, in place of ``samples``.
        batch_size: Samples run together, 32 by default; the ranges of ``moving-average`` and ``histogram`` depend on it.
        seed: Seed of the random draw of texts.
        field: Columns of the file that hold a text; ``text`` by default.
        input_ids_column: Column of token ids.
        attention_mask_column: Column with 1 for each token and 0 for padding.
        observer: How ranges are chosen: ``min-max``, ``moving-average``, ``histogram``, ``percentile``, ``mse`` or ``entropy``.
        backend: Whose defaults to start from: ``native``, or PyTorch's ``fbgemm``, ``x86``, ``qnnpack``, ``onednn``.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: The model or the file cannot be read, or a text cannot be run.
        ValueError: Options that do not go together.
    """
    request = {
        "calibration": calibration_request(
            calibration,
            samples=samples,
            batches=batches,
            batch_size=batch_size,
            seed=seed,
            field=field,
            input_ids_column=input_ids_column,
            attention_mask_column=attention_mask_column,
            observer=observer,
            backend=backend,
        ),
        "out": None if stats is None else os.fspath(stats),
        "resume": resume,
    }
    if resume and (stats is None or not is_path(calibration)):
        raise ValueError("resume: expected a file of texts and a file of statistics: nothing else is kept when it is interrupted")
    with progress_bar(show_progress) as progress:
        found = _fewbit.calibrate(resolve_model(model), json.dumps(request), progress=progress)
    return read_record(CalibrationReport, found)


def is_path(texts: object) -> bool:
    """Whether this names a file, and is not a list of texts."""
    return isinstance(texts, str | os.PathLike)


def calibration_request(
    calibration: Texts | None,
    name: str = "calibration",
    *,
    stats: Path | Sequence[Path] = (),
    min_sqnr: float | None = None,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
) -> dict[str, Any]:
    """The options of calibration as the native half takes them; ``name`` is what the texts are called in errors.

    Raises:
        ValueError: Options that do not go together.
    """
    of_file = {
        "samples": samples,
        "batches": batches,
        "seed": seed,
        "field": field or None,
        "input_ids_column": input_ids_column,
        "attention_mask_column": attention_mask_column,
    }
    file = texts = None
    if calibration is None or not is_path(calibration):
        named = [option for option, value in of_file.items() if value is not None]
        if named:
            raise ValueError(f"{named[0]}: expected a file that texts are drawn from as {name}\n  hint: leave it out")
    if calibration is not None:
        if isinstance(calibration, str | os.PathLike):
            file = os.fspath(calibration)
        else:
            texts = as_texts(name, calibration)
            if not texts:
                raise ValueError(f"{name}: expected texts, found none\n  hint: a few hundred texts like those that the model will see")
    if samples is not None and batches is not None:
        raise ValueError("samples and batches: expected one of them, found both")
    for option, number in [("samples", samples), ("batches", batches), ("batch_size", batch_size)]:
        if number is not None and number < 1:
            raise ValueError(f"{option}: expected a number, 1 or more, found {number}")
    if (input_ids_column or attention_mask_column) and field:
        raise ValueError("field: expected no columns of texts beside columns of token ids")
    return {
        "file": file,
        "texts": texts,
        "stats": [os.fspath(one) for one in ([stats] if isinstance(stats, str | os.PathLike) else stats)],
        # As text, because infinite numbers are none in JSON.
        "min_sqnr": None if min_sqnr is None else repr(float(min_sqnr)),
        "samples": samples,
        "batches": batches,
        "batch_size": batch_size,
        "seed": seed,
        "field": [field] if isinstance(field, str) else list(field),
        "input_ids_column": input_ids_column,
        "attention_mask_column": attention_mask_column,
        "observer": observer,
        "backend": backend,
    }


def warn_of_noise(calibration: Calibration | None, min_sqnr: float | None, stacklevel: int) -> None:
    """Says what it costs that a backend of PyTorch makes every input static, where nobody asked for that in so many words."""
    if calibration is None or calibration.noisy is None or min_sqnr is not None:
        return
    noisy, worst = calibration.noisy, calibration.noisy.worst
    warnings.warn(
        f"backend {calibration.backend}: every input is static, as in PyTorch; {noisy.count} of {len(calibration.sites)} have a signal to"
        f" noise ratio below 30 dB, at worst {worst.static_sqnr_db:.1f} dB ({worst.site.removesuffix('.input')}): min_sqnr=30 makes these"
        " dynamic per token, the backend native and the method dynamic lose less",
        stacklevel=stacklevel + 1,
    )


def sites_table(sites: Sequence[SiteSensitivity], least: float | None) -> Table:
    """Inputs in execution order."""
    measured = any(site.output_effect is not None for site in sites)
    headers = ["input of", ">SQNR dB static", ">per token", *([">effect on output"] if measured else []), "range"]

    def row(site: SiteSensitivity) -> list[str]:
        dynamic = least is not None and site.static_sqnr_db < least and site.dynamic_sqnr_db > site.static_sqnr_db
        effect = [optional(site.output_effect, ".1e")] if measured else []
        numbers = [f"{site.static_sqnr_db:.1f}", f"{site.dynamic_sqnr_db:.1f}", *effect]
        return [site.site.removesuffix(".input"), *numbers, "dynamic" if dynamic else "static"]

    return Table(headers, [row(site) for site in sites])


def _sites_bars(sites: Sequence[SiteSensitivity]) -> Bars:
    names = [site.site.removesuffix(".input") for site in sites]
    return Bars("SQNR with one range", names, [site.static_sqnr_db for site in sites], "dB")


def _rule(least: float | None) -> str:
    return "every input is static" if least is None else f"inputs with less than {least:g} dB are dynamic per token"
