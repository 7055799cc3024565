"""What is reported of a model that is quantized, or that would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewbit.calibration import Calibration
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, megabytes, optional

_WORST = 5
"""Layers that a report shows as those that lost most."""


@dataclass(frozen=True)
class PartBytes:
    """Bytes of a part of the model."""

    part: str
    source_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class ModuleReport:
    """What became of one module, and what it cost: the stored weight, dequantized, against the source's."""

    module: str
    part: str
    action: str
    shape: tuple[int, ...]
    source_bytes: int
    output_bytes: int
    """Bytes of codes, scales and quantization state."""
    bits_per_weight: float
    sqnr_db: float | None
    """Signal to quantization noise ratio in dB; ``None`` where nothing was lost."""
    cosine: float
    """Cosine of the angle between the weight and its approximation."""
    max_absolute_error: float
    """Largest difference of one element."""


@dataclass(frozen=True)
class KeptModule:
    """A module with a matrix that stayed float, and why."""

    module: str
    reason: str


@dataclass(frozen=True)
class QuantizeReport(Report):
    """What was done."""

    source: str
    """Source directory."""
    output: str
    """The directory that was written."""
    recipe: dict[str, Any]
    """The recipe, as ``recipe.toml`` beside the model holds it."""
    source_bytes: int
    """Bytes of tensor data in the source."""
    output_bytes: int
    """Bytes of tensor data written."""
    file_bytes: int
    """Bytes of all files of weights, headers included."""
    files: int
    """Number of files of weights."""
    compression_ratio: float
    """``source_bytes / output_bytes``"""
    bits_per_weight: float | None
    """Bits a weight in the layers that were changed."""
    parts: tuple[PartBytes, ...]
    """Bytes by part of the model."""
    modules: tuple[ModuleReport, ...]
    """Modules whose weight was changed, in file order."""
    kept: tuple[KeptModule, ...]
    """Modules with a matrix that stayed float, and why."""
    underflowed: int
    """Values other than zero that a conversion to fp16 or bf16 rounded to zero."""
    notes: tuple[str, ...]
    """What a user should know about how the result can be used."""
    elapsed_seconds: float
    calibration: Calibration | None = None
    """What calibration decided, for the method ``static``."""

    def _head(self) -> str:
        return "\n".join([_summary(self), *self.notes, f"written to {self.output} in {self.elapsed_seconds:.2f} s"])

    def _tables(self) -> list[Table]:
        tables = [_parts_table(self.parts), *_kept_tables(self.kept)]
        lossy = sorted((module for module in self.modules if module.sqnr_db is not None), key=lambda module: module.sqnr_db or 0.0)
        rows = [
            [module.module, optional(module.sqnr_db, ".1f"), f"{module.cosine:.6f}", f"{module.max_absolute_error:.2e}"]
            for module in lossy[:_WORST]
        ]
        if rows:
            headers = ["layer", ">SQNR dB", ">cosine", ">largest error"]
            tables.append(Table(headers, rows, f"weights that lost most, of {len(self.modules)} layers"))
        return tables

    def _bars(self) -> list[Bars]:
        return [Bars("Bytes of tensors", ["before", "after"], [self.source_bytes / 1e6, self.output_bytes / 1e6], "MB")]


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that is to be written."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class PlanRow:
    """What becomes of one tensor of the source."""

    tensor: str
    module: str | None
    part: str
    dtype: str
    shape: tuple[int, ...]
    action: str
    source_bytes: int
    output_bytes: int
    outputs: tuple[PlannedTensor, ...]


@dataclass(frozen=True)
class QuantizePlan(Report):
    """What would be done."""

    recipe: dict[str, Any]
    source_bytes: int
    output_bytes: int
    file_bytes: int
    """Bytes of the whole file of weights, header included, if it is one."""
    files: int
    """Number of files of weights."""
    compression_ratio: float
    bits_per_weight: float | None
    parts: tuple[PartBytes, ...]
    kept: tuple[KeptModule, ...]
    notes: tuple[str, ...]
    rows: tuple[PlanRow, ...]
    """The tensors of the source, in file order."""
    calibration: Calibration | None = None

    def _head(self) -> str:
        return "\n".join([_summary(self), *self.notes, "dry run: nothing was written"])

    def _tables(self) -> list[Table]:
        headers = ["tensor", ">shape", "now", "what is done", ">bytes now", ">bytes then"]
        rows = [
            [
                row.tensor,
                " x ".join(str(size) for size in row.shape),
                row.dtype,
                row.action,
                f"{row.source_bytes:,}",
                f"{row.output_bytes:,}",
            ]
            for row in self.rows
            if row.action != "keep"
        ]
        return [Table(headers, rows), _parts_table(self.parts), *_kept_tables(self.kept)]


def report_of(text: str) -> QuantizeReport:
    """The report of a conversion without calibration."""
    return read_record(QuantizeReport, text)


def label(recipe: Mapping[str, Any]) -> str:
    """A recipe in a few words: its method and what it adds."""
    additions = {
        "gptq": "GPTQ",
        "saturation_proof": "saturation-proof",
        "qat": "QAT",
        "double_quant": "double quantization",
    }
    scales = {"mse": "MSE scales", "activation-weighted": "activation-weighted scales"}
    words = [str(recipe["method"])]
    if recipe.get("weights") == "int4":
        words.append("int4")
        size = recipe.get("group_size", 64)
        if size != 64:
            words.append("per channel" if size == "channel" else f"groups of {size}")
        if recipe.get("asymmetric"):
            words.append("asymmetric")
        if recipe.get("scales") in ("absmax", "activation-weighted"):
            words.append(f"{recipe['scales']} scales")
        layout = recipe.get("layout", "pack-quantized")
        if layout != "pack-quantized":
            words.append(layout if layout == "int-quantized" else f"{layout} layout")
    elif recipe.get("weights") in ("fp8", "nvfp4", "mxfp4"):
        words.append(str(recipe["weights"]))
        if recipe.get("weight_scales") == "per-tensor":
            words.append("per tensor")
    else:
        if recipe.get("group_size"):
            words.append(f"groups of {recipe['group_size']}")
        layout = recipe.get("layout", "pack-quantized")
        if layout != "pack-quantized":
            words.append(layout if layout == "int-quantized" else f"{layout} layout")
    words += [addition for key, addition in additions.items() if recipe.get(key)]
    if recipe.get("weights") != "int4" and recipe.get("scales") in scales:
        words.append(scales[recipe["scales"]])
    of_the_method = "keep" if recipe["method"] in ("fp16", "bf16", "nf4", "fp4") else "auto"
    # A recipe without the key keeps the table.
    embeddings = str(recipe.get("embeddings", "keep"))
    if embeddings not in ("auto", of_the_method):
        words.append(f"{'float' if embeddings == 'keep' else embeddings} embeddings")
    if recipe.get("float_dtype"):
        words.append(f"{recipe['float_dtype']} floats")
    return " + ".join(words)


def _summary(report: QuantizeReport | QuantizePlan) -> str:
    bits = "" if report.bits_per_weight is None else f", {report.bits_per_weight:.2f} bits a weight in the layers changed"
    sizes = f"{megabytes(report.source_bytes)} MB -> {megabytes(report.output_bytes)} MB"
    files = "the whole file has" if report.files == 1 else f"the {report.files} files of weights have"
    return f"{label(report.recipe)}: {sizes}, {report.compression_ratio:.2f} times smaller{bits}; {files} {report.file_bytes:,} bytes"


def _parts_table(parts: Sequence[PartBytes]) -> Table:
    rows = [[part.part, f"{part.source_bytes:,}", f"{part.output_bytes:,}"] for part in parts]
    return Table(["part", ">bytes before", ">bytes after"], rows)


def _kept_tables(kept: Sequence[KeptModule]) -> list[Table]:
    modules: dict[str, list[str]] = {}
    for one in kept:
        modules.setdefault(one.reason, []).append(one.module)
    shown = 4
    rows = [
        [", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else ""), reason]
        for reason, names in modules.items()
    ]
    return [Table(["stays float", "why"], rows)] if rows else []
