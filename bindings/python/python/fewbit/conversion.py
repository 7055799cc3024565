"""A model directory in another layout."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Literal, overload

from fewbit import _fewbit
from fewbit.calibration import Path
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, megabytes
from fewbit.threads import resolve_threads


@dataclass(frozen=True)
class ConvertReport(Report):
    """What was done."""

    source: str
    """What was read."""
    output: str
    """What was written."""
    target: str
    """The layout of the output."""
    source_quantization: str | None
    """How the source says it is quantized; ``None`` of floats."""
    dequantized: int
    """Weights of the source that were codes."""
    source_bytes: int
    """Bytes of tensor data in the source."""
    output_bytes: int
    """Bytes of tensor data written."""
    file_bytes: int
    """Bytes of the files of weights that were written, headers included."""
    files: int
    """How many files of weights."""
    underflowed: int
    """Values other than zero that a conversion to fp16 or bf16 rounded to zero."""
    notes: tuple[str, ...]
    """What a user should know about the result."""
    elapsed_seconds: float

    def _head(self) -> str:
        sizes = f"{megabytes(self.source_bytes)} MB -> {megabytes(self.output_bytes)} MB"
        summary = f"{self.source_quantization or 'floats'} -> {self.target}: {sizes}; {self.dequantized} weights dequantized"
        return "\n".join([summary, *self.notes, f"written to {self.output} in {self.elapsed_seconds:.2f} s"])

    def _tables(self) -> list[Table]:
        return []

    def _bars(self) -> list[Bars]:
        return [Bars("Bytes of tensors", ["before", "after"], [self.source_bytes / 1e6, self.output_bytes / 1e6], "MB")]


@dataclass(frozen=True)
class PlannedFile:
    """A file of weights that would be written."""

    name: str | None
    """``None`` of a GGUF file, which is the output itself."""
    bytes: int


@dataclass(frozen=True)
class ConvertPlan(Report):
    """What would be done."""

    source: str
    target: str
    source_quantization: str | None
    """How the source says it is quantized; ``None`` of floats."""
    dequantized: int
    """Weights of the source that are codes."""
    source_bytes: int
    output_bytes: int
    """Bytes of tensor data that would be written."""
    file_bytes: int
    """Bytes of the files of weights, headers included."""
    files: tuple[PlannedFile, ...]
    notes: tuple[str, ...]

    def _head(self) -> str:
        sizes = f"{megabytes(self.source_bytes)} MB -> {megabytes(self.output_bytes)} MB"
        return "\n".join([f"{self.source_quantization or 'floats'} -> {self.target}: {sizes}", *self.notes])

    def _tables(self) -> list[Table]:
        return [Table(["file", ">bytes"], [[file.name or "out", f"{file.bytes:,}"] for file in self.files])]

    def _bars(self) -> list[Bars]:
        return [Bars("Bytes of tensors", ["before", "after"], [self.source_bytes / 1e6, self.output_bytes / 1e6], "MB")]


@overload
def convert_model(
    source: Path,
    out: Path | None = None,
    to: str | None = None,
    *,
    dry_run: Literal[True],
    group_size: int | str | None = None,
    asymmetric: bool = False,
    allow_requantize: bool = False,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ConvertPlan: ...


@overload
def convert_model(
    source: Path,
    out: Path,
    to: str,
    *,
    dry_run: Literal[False] = False,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    allow_requantize: bool = False,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ConvertReport: ...


def convert_model(
    source: Path,
    out: Path | None = None,
    to: str | None = None,
    *,
    dry_run: bool = False,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    allow_requantize: bool = False,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ConvertReport | ConvertPlan:
    """Writes a model in another layout: one that is quantized as floats again, with other codes, or as a GGUF file; or a GGUF file as a directory.

    Args:
        source: Model directory or Hub id, in any layout that fewbit reads, or a GGUF file.
        out: Directory to write, or file with ``gguf``; must be absent or empty, unless ``force``. Nothing is left there unless it is whole.
        to: ``f32``, ``fp16`` or ``bf16``; or what ``quantize_model`` writes with its defaults: ``dynamic``, ``weight-only``, ``int4`` (weight-only with
            int4 weights), ``gptq``, ``gptq_v2`` or ``awq`` (the same in these layouts), ``fp8``, ``nvfp4``, ``mxfp4``, ``nf4``, ``fp4``; or ``gguf:`` and a type (``gguf:q8_0``), a file for llama.cpp.
        dry_run: Says what would be written (:class:`ConvertPlan`), and writes nothing.
        group_size: For ``int4``, ``gptq``, ``gptq_v2`` and ``awq``: neighbouring weights of a row that share a scale, or ``channel`` for all of a row; 64 unless said otherwise.
        asymmetric: Of the same: groups have zero points, too.
        allow_requantize: Gives new codes to weights that are codes already: what both lose adds up.
        force: Replaces ``out`` if it exists.
        max_shard_size: Weights of more than this are written as several files with an index: ``5GB``, ``500MB``, or a number of bytes. A GGUF file is one
            file, whatever its size.
        resume: Goes on where the same call was interrupted, to the same bytes, from the files of weights that were whole. A single file is begun anew.
        threads: Worker threads; they never change a result.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: The model cannot be read or converted so, or ``out`` cannot be written.
        ValueError: An argument that is none, or that does not go with ``to``.
    """
    if to is None:
        raise ValueError("to: expected a layout, found none\n  hint: `f32` gives floats")
    if out is None and not dry_run:
        raise ValueError("out: expected a directory or file to write, found none\n  hint: dry_run=True writes nothing")
    request = {
        "to": to,
        "group_size": None if group_size is None else str(group_size),
        "asymmetric": asymmetric,
        "allow_requantize": allow_requantize,
        "force": force,
        "max_shard_size": str(max_shard_size),
        "resume": resume,
        "threads": resolve_threads(threads),
    }
    target = None if out is None else os.fspath(out)
    with progress_bar(show_progress) as progress:
        text = _fewbit.convert_model(resolve_model(source), target, json.dumps(request), dry_run=dry_run, progress=progress)
    if dry_run:
        return read_record(ConvertPlan, text)
    return read_record(ConvertReport, text)
