"""Which layers need 8 bits, and which do with 4."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fewbit import _fewbit
from fewbit.calibration import Path, Texts, calibration_request
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, megabytes
from fewbit.threads import resolve_threads


@dataclass(frozen=True)
class ChoiceSensitivity:
    """What one choice of weights costs at a group of layers."""

    weights: str
    """The weights, as they are typed: ``int8``, ``int4+group-128``."""
    bytes: int
    """Bytes of codes and scales of the group."""
    loss: float
    """What it adds to 1 - mean cosine of the embeddings to the float model's; 0 of the baseline's."""


@dataclass(frozen=True)
class GroupSensitivity:
    """Layers that read the same rows and have the same weights: queries, keys and values are one group."""

    site: str
    """The rows: the path of a module, and ``.input``."""
    modules: tuple[str, ...]
    """The layers, by their paths without the model's prefix."""
    choices: tuple[ChoiceSensitivity, ...]
    """Each choice, in the order of the report's."""
    chosen: str
    """The one that the mixture has."""


@dataclass(frozen=True)
class UniformWeights:
    """A model whose layers all have the same weights."""

    weights: str
    file_bytes: int
    """Bytes of the file of weights."""
    cosine: float
    """Mean cosine of its embeddings to the float model's."""


@dataclass(frozen=True)
class SensitivityReport(Report):
    """A mixture of weights, what it was chosen by, and what it came to."""

    source: str
    texts: int
    """Texts whose embeddings were compared."""
    choices: tuple[str, ...]
    """The weights that layers could have."""
    baseline: str
    """What all other layers had while a group was measured."""
    groups: tuple[GroupSensitivity, ...]
    """The layers, in execution order."""
    uniform: tuple[UniformWeights, ...]
    """Each choice, everywhere."""
    file_bytes: int
    """Bytes of the mixture's file of weights."""
    predicted_cosine: float
    """Mean cosine of the mixture's embeddings to the float model's, as the sum of the costs has it."""
    measured_cosine: float
    """The same, measured, on the texts that the mixture was chosen by."""
    recipe: dict[str, Any]
    """The mixture, as :func:`fewbit.quantize_model` takes it."""

    def _head(self) -> str:
        return (
            f"{megabytes(self.file_bytes)} MB, mean cosine {self.predicted_cosine:.6f} predicted,"
            f" {self.measured_cosine:.6f} measured over {self.texts:,} texts"
        )

    def _tables(self) -> list[Table]:
        headers = ["layers", *(f">{choice}" for choice in self.choices), "chosen"]
        rows = [[", ".join(group.modules), *(f"{choice.loss:.1e}" for choice in group.choices), group.chosen] for group in self.groups]
        uniform = [[one.weights, megabytes(one.file_bytes), f"{one.cosine:.6f}"] for one in self.uniform]
        mixed = ["mixed", megabytes(self.file_bytes), f"{self.measured_cosine:.6f}"]
        return [
            Table(headers, rows, f"what each choice adds to 1 - mean cosine, all else being {self.baseline}"),
            Table(["weights", ">MB", ">mean cosine"], [*uniform, mixed]),
        ]

    def _bars(self) -> list[Bars]:
        names = [group.site.removesuffix(".input") for group in self.groups]
        losses = [max(choice.loss for choice in group.choices) for group in self.groups]
        return [Bars("Cost of the costliest choice", names, losses)]


def sensitivity(
    model: Path,
    calibration: Texts,
    *,
    max_bytes: str | int | None = None,
    min_cosine: float | None = None,
    method: str = "weight-only",
    weights: Sequence[str] = ("int8", "int4"),
    gptq: bool = False,
    embeddings: str | None = None,
    float_dtype: str | None = None,
    skip: str | Sequence[str] = (),
    samples: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    threads: int | None = None,
    show_progress: bool = False,
) -> SensitivityReport:
    """Measures what each choice of weights costs at each layer, and chooses the best mixture under a limit.

    Args:
        model: Model directory or Hub id, in floats.
        calibration: Texts like those that the model will see; or a file of them.
        max_bytes: The file of weights has at most so many bytes (``"20MB"``, or a number): the mixture with the least loss is chosen.
        min_cosine: The mean cosine to the float model's embeddings is at least this, on the texts: the mixture with the fewest bytes is chosen.
        method: ``weight-only``, ``dynamic``, whose inputs have 8 bits per token, or ``static``, whose ranges of inputs are calibrated with the same texts first.
        weights: The weights to choose from: ``int8``, ``int4``, with options ``int4+group-128``, ``int4+group-32+asymmetric``, and ``float`` for layers that stay as they are.
        gptq: Rounds weights by GPTQ, for the same texts.
        embeddings, float_dtype, skip: As for :func:`fewbit.quantize_model`.
        samples, seed, field: As for :func:`fewbit.calibrate`.
        threads: Worker threads; they never change a result.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: A model that fewbit does not run, weights that do not fit its layers, or a limit that no mixture keeps; the text says what can be reached.
        ValueError: Options that do not go together.
    """
    if (max_bytes is None) == (min_cosine is None):
        raise ValueError(f"expected max_bytes or min_cosine, found {'neither' if max_bytes is None else 'both'}")
    if method not in ("dynamic", "static", "weight-only"):
        raise ValueError(f"method: expected dynamic, static or weight-only, found {method!r}")
    if isinstance(weights, str):
        raise ValueError(f"weights: expected a list of choices, found {weights!r}\n  hint: weights=['int8', 'int4']")
    request = {
        "method": method,
        "weights": list(weights),
        "gptq": gptq,
        "embeddings": embeddings,
        "float_dtype": float_dtype,
        "skip": [skip] if isinstance(skip, str) else list(skip),
        "max_bytes": None if max_bytes is None else str(max_bytes),
        "min_cosine": min_cosine,
        "calibration": calibration_request(calibration, samples=samples, seed=seed, field=field),
        "threads": resolve_threads(threads),
    }
    with progress_bar(show_progress) as progress:
        text = _fewbit.sensitivity(resolve_model(model), json.dumps(request), progress=progress)
    return read_record(SensitivityReport, text)
