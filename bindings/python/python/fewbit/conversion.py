"""A model directory in another layout."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

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


def convert_model(
    source: Path,
    out: Path,
    to: str,
    *,
    allow_requantize: bool = False,
    force: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ConvertReport:
    """Writes a model in another layout: one that is quantized as floats again, with other codes, or as a GGUF file.

    Args:
        source: Model directory or Hub id, in any layout that fewbit reads.
        out: Directory to write, or file with ``gguf``; must be absent or empty, unless ``force``. Nothing is left there unless it is whole.
        to: ``f32``, ``fp16`` or ``bf16``; or what ``quantize_model`` writes with its defaults: ``dynamic``, ``weight-only``, ``nf4``, ``fp4``;
            or ``gguf:`` and a type (``gguf:q8_0``), a file for llama.cpp, of a BERT.
        allow_requantize: Gives new codes to weights that are codes already: what both lose adds up.
        force: Replaces ``out`` if it exists.
        threads: Worker threads; they never change a result.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: The model cannot be read or converted so, or ``out`` cannot be written.
    """
    request = {
        "to": to,
        "allow_requantize": allow_requantize,
        "force": force,
        "threads": resolve_threads(threads),
    }
    with progress_bar(show_progress) as progress:
        text = _fewbit.convert_model(resolve_model(source), os.fspath(out), json.dumps(request), progress=progress)
    return read_record(ConvertReport, text)
