"""What a model directory consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewbit import _fewbit
from fewbit.calibration import Path
from fewbit.models import resolve_model
from fewbit.records import read_record
from fewbit.tables import Bars, Report, Table, megabytes


@dataclass(frozen=True)
class GroupSize:
    """Sum over the tensors of one dtype or of one part."""

    name: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    """Stored element types that occur, most bytes first."""


@dataclass(frozen=True)
class ModelSize(Report):
    """How large a model is."""

    parameters: int
    """A quantized weight counts the elements that it stands for."""
    parameter_bytes: int
    buffer_bytes: int
    """Bytes of what goes beside parameters: scales, zero points, code tables, positions."""
    disk_bytes: int
    """Bytes of the files of weights, headers included."""
    bits_per_parameter: float
    by_dtype: tuple[GroupSize, ...]
    by_part: tuple[GroupSize, ...]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.parameter_bytes + self.buffer_bytes

    def _head(self) -> str:
        return (
            f"{self.parameters:,} parameters, {megabytes(self.tensor_bytes)} MB of tensors"
            f" ({self.bits_per_parameter:.2f} bits a parameter), {megabytes(self.disk_bytes)} MB on disk"
        )

    def _tables(self) -> list[Table]:
        return [self._groups("part", self.by_part), self._groups("dtype", self.by_dtype)]

    def _bars(self) -> list[Bars]:
        return [Bars("Bytes by part", [part.name for part in self.by_part], [part.bytes / 1e6 for part in self.by_part], "MB")]

    def _groups(self, header: str, groups: tuple[GroupSize, ...]) -> Table:
        total = max(1, self.tensor_bytes)
        rows = [
            [
                group.name,
                str(group.tensors),
                f"{group.parameters:,}",
                f"{group.bytes:,}",
                f"{100 * group.bytes / total:.1f} %",
                " ".join(group.dtypes),
            ]
            for group in groups
        ]
        return Table([header, ">tensors", ">parameters", ">bytes", ">share", "dtypes"], rows)


@dataclass(frozen=True)
class TensorSize:
    """One stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Stored shape; of packed codes it is not the shape of the weight."""
    part: str
    role: str
    """``parameter`` or ``buffer``."""
    parameters: int
    bytes: int


@dataclass(frozen=True)
class MethodSize:
    """The size that a method would give."""

    label: str
    recipe: dict[str, Any]
    source_bytes: int
    output_bytes: int
    file_bytes: int
    """Bytes of the whole file of weights, header included."""
    compression_ratio: float


@dataclass(frozen=True)
class HeadInspection:
    """What config.json says of a task head."""

    model_class: str
    """The model class of transformers."""
    task: str | None
    """``None`` for a kind that fewbit does not know."""
    labels: tuple[str, ...]
    scores: str | None
    """What the logits of a text are put through."""
    not_run: str | None
    """Why fewbit gives no logits of it; ``None`` where it does."""


@dataclass(frozen=True)
class PairSaturation:
    """Whether the pairs of neighbouring weights of int8 layers can saturate 16 bits."""

    saturation_proof: bool
    saturating_pairs: int
    pairs: int


@dataclass(frozen=True)
class Inspection(Report):
    """What a model directory consists of."""

    directory: str
    model_type: str
    """``unknown`` where config.json names none."""
    head: HeadInspection | None
    quantization: str | None
    """How the checkpoint says it is quantized; ``None`` for a float one."""
    saturation: PairSaturation | None
    size: ModelSize
    tensors: tuple[TensorSize, ...]
    """Every tensor, in file order, under the names that modules have in transformers."""
    renamed: tuple[dict[str, Any], ...]
    """Tensors that have other names in the files, or are parts of others there."""
    methods: tuple[MethodSize, ...]
    """The size that each method would give; empty for a checkpoint that is quantized already."""
    layers: int | None = None
    """Transformer layers that the model runs; ``None``, as what follows, of a model that is no encoder."""
    stored_layers: int | None = None
    """Transformer layers that the files hold."""
    hidden_size: int | None = None
    heads: int | None = None
    vocab_size: int | None = None

    def _head(self) -> str:
        shape = (
            "a model that fewbit does not run"
            if self.layers is None
            else f"{self.layers} layers, hidden size {self.hidden_size}, {self.heads} heads, vocabulary {self.vocab_size:,}"
        )
        lines = [self.directory, f"{self.model_type}, {shape}"]
        if self.head is not None:
            about = self.head.not_run or ", ".join([self.head.task or "task head", *self.head.labels])
            lines.append(f"{self.head.model_class}: {about}")
        lines.append("not quantized" if self.quantization is None else f"quantized: {self.quantization}")
        # One line, of the class's own.
        lines.append(str(self.size).partition("\n")[0])
        return "\n".join(lines)

    def _tables(self) -> list[Table]:
        disk = self.size.disk_bytes
        rows = [[method.label, f"{megabytes(method.file_bytes)} MB", f"{disk / method.file_bytes:.2f}"] for method in self.methods]
        methods = [Table(["method", ">size", ">times smaller"], rows, "what each method would make of it")] if rows else []
        return [*self.size._tables(), *methods]  # pyright: ignore[reportPrivateUsage]

    def _bars(self) -> list[Bars]:
        names = ["now", *(method.label for method in self.methods)]
        sizes = [self.size.disk_bytes / 1e6, *(method.file_bytes / 1e6 for method in self.methods)]
        return [Bars("Size by method", names, sizes, "MB")]


def inspect(model: Path) -> Inspection:
    """Parameters, bytes and dtypes of a model, and the size that each method would give. Runs nothing.

    Args:
        model: Model directory or Hub id.

    Raises:
        FewbitError: The directory is not a readable checkpoint.
    """
    return read_record(Inspection, _fewbit.inspect(resolve_model(model)))
