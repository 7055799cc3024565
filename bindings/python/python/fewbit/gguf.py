"""What a GGUF file consists of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from fewbit import _fewbit
from fewbit.calibration import Path
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, megabytes


@dataclass(frozen=True)
class GgufTypeSize:
    """Sum over the tensors of one type."""

    name: str
    """ggml's type, in small letters: ``q4_k``."""
    is_read: bool
    """Whether ``convert_model`` reads it."""
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class GgufEntry:
    """An entry of the metadata."""

    key: str
    value: Any
    """Of an array of more than 8 elements a dict with its length, ``count``, and its ``first`` elements."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file."""

    name: str
    type: str
    """ggml's type, in small letters."""
    shape: tuple[int, ...]
    """Outermost dimension first."""
    parameters: int
    bytes: int


@dataclass(frozen=True)
class GgufInspection(Report):
    """What a GGUF file consists of."""

    file: str
    version: int
    architecture: str | None
    name: str | None
    parameters: int
    tensor_bytes: int
    file_bytes: int
    bits_per_parameter: float
    by_type: tuple[GgufTypeSize, ...]
    """Most bytes first."""
    metadata: tuple[GgufEntry, ...]
    tensors: tuple[GgufTensor, ...]

    def _head(self) -> str:
        return (
            f"{self.file}\nGGUF version {self.version}, architecture {self.architecture or 'unknown'}\n"
            f"{self.parameters:,} parameters, {megabytes(self.tensor_bytes)} MB of tensors ({self.bits_per_parameter:.2f} bits a parameter)"
        )

    def _tables(self) -> list[Table]:
        rows = [[kind.name, str(kind.tensors), f"{kind.parameters:,}", f"{kind.bytes:,}"] for kind in self.by_type]
        return [Table(["type", ">tensors", ">parameters", ">bytes"], rows)]

    def _bars(self) -> list[Bars]:
        return [Bars("Bytes by type", [kind.name for kind in self.by_type], [kind.bytes / 1e6 for kind in self.by_type], "MB")]


def inspect_gguf(path: Path) -> GgufInspection:
    """Types, sizes, metadata and tensors of a GGUF file. Reads its header alone.

    Args:
        path: The file, or a directory with one such file and no other weights.

    Raises:
        FewbitError: It is no GGUF file, or a damaged one.
    """
    return read_record(GgufInspection, _fewbit.inspect_gguf(os.fspath(path)))
