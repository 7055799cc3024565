"""The names that users of PyTorch quantization scripts know, for model directories."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, overload

from fewbit import _fewbit
from fewbit.calibration import Calibration, Path, Texts, calibration_request, warn_of_noise
from fewbit.inspection import ModelSize
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.quantization import quantize_model
from fewbit.quantize_report import QuantizeReport, report_of
from fewbit.records import make_record, read_record, read_records
from fewbit.tables import Bars, Report, Table, megabytes
from fewbit.threads import resolve_threads
from fewbit.training import TrainingReport


@dataclass(frozen=True)
class SizeComparison:
    """The size of the original, of what was made of it, or of what a method would make of it."""

    label: str
    bytes: int
    """Bytes of tensor data."""
    compression_ratio: float
    """Bytes of the original divided by these."""
    directory: str | None
    """The directory that holds it; ``None`` for a method that has not been applied, whose size is the planned one."""


@dataclass(frozen=True)
class SizeComparisons(Report):
    """Sizes side by side."""

    rows: tuple[SizeComparison, ...]

    def _tables(self) -> list[Table]:
        rows = [
            [row.label, f"{megabytes(row.bytes)} MB", f"{row.compression_ratio:.2f}", row.directory or "(planned)"] for row in self.rows
        ]
        return [Table(["method", ">size", ">times smaller", "directory"], rows)]

    def _bars(self) -> list[Bars]:
        return [Bars("Sizes", [row.label for row in self.rows], [row.bytes / 1e6 for row in self.rows], "MB")]


class QuantizationManager:
    """One float model and what has been made of it.

    Given a model directory or a Hub id, every ``apply_…`` writes a standard checkpoint directory; the source is never changed. Given an
    ``nn.Module``, this is :class:`fewbit.torch.manager.ModuleQuantizationManager`, which has the same names, and needs torch.

    >>> import tempfile
    >>> manager = QuantizationManager("crates/model/tests/golden/architectures/bert")
    >>> manager.get_model_size().parameters
    19384
    >>> report = manager.apply_dynamic_quantization(tempfile.mkdtemp())
    >>> report.compression_ratio > 2
    True
    """

    @overload
    def __new__(cls, model: Path, *, force: bool = False) -> QuantizationManager: ...
    @overload
    def __new__(cls, model: Any, *arguments: Any, **options: Any) -> Any: ...
    def __new__(cls, model: Any, *arguments: Any, **options: Any) -> Any:
        """A manager of the model that it is given."""
        if isinstance(model, str | os.PathLike):
            return super().__new__(cls)
        from fewbit.torch.manager import ModuleQuantizationManager  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return ModuleQuantizationManager(model, *arguments, **options)  # pyright: ignore[reportUnknownVariableType]

    def __init__(self, model: Path, *, force: bool = False) -> None:  # pyright: ignore[reportInconsistentConstructor]
        """Args:
            model: Model directory or Hub id.
            force: Whether ``apply_…`` may replace a directory that exists.

        Raises:
            FewbitError: The directory is not a readable checkpoint.
        """
        self._directory = resolve_model(model)
        self._force = force
        self._native = _fewbit.QuantizationManager(self._directory, force)
        self._backend: str | None = None
        self._static: str | None = None

    def get_model_size(self) -> ModelSize:
        """Parameters and bytes of the source, by dtype and by part of the model."""
        return read_record(ModelSize, self._native.model_size())

    def compare_sizes(self) -> SizeComparisons:
        """Sizes side by side: the original, everything that this manager has written, and what each other method would give."""
        return SizeComparisons(tuple(read_records(SizeComparison, self._native.compare_sizes())))

    def apply(self, recipe: dict[str, Any], out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """Writes what a recipe (``{"method": "nf4", "block_size": 32}``) makes of the source. As in a recipe file, a key that is left out has the
        value that ``docs/recipe.md`` says: without ``embeddings`` the word embeddings stay float.

        Raises:
            FewbitError: The recipe does not go with the model, or ``out`` exists. Nothing is left there then.
        """
        text = json.dumps({"version": 1, **recipe})
        with progress_bar(show_progress) as progress:
            return report_of(self._native.apply(text, os.fspath(out), threads=resolve_threads(None), progress=progress))

    def apply_dynamic_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """int8 weights, one scale an output channel, and embeddings; activations quantized per token at run time."""
        return self.apply({"method": "dynamic", "embeddings": "auto"}, out, show_progress=show_progress)

    def apply_weight_only_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """int8 weights, one scale an output channel, and embeddings; activations are not stored as quantized."""
        return self.apply({"method": "weight-only", "embeddings": "auto"}, out, show_progress=show_progress)

    def apply_fp16_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """IEEE half precision as storage; computed in float32."""
        return self.apply({"method": "fp16"}, out, show_progress=show_progress)

    def apply_bf16_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """bfloat16 as storage; computed in float32."""
        return self.apply({"method": "bf16"}, out, show_progress=show_progress)

    def apply_int4_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """4-bit NormalFloat codes (nf4) in blocks of 64, with double quantization."""
        return self.apply({"method": "nf4", "double_quant": True}, out, show_progress=show_progress)

    def apply_qat(self, out: Path, data: Texts, *, show_progress: bool = False, **options: Any) -> TrainingReport:
        """Quantization-aware training on texts without labels: int8 weights and activations quantized per token, unless options say otherwise.

        Args:
            out: Directory to write.
            data: A few thousand texts like those that the model will see, or a file of texts or token ids.
            show_progress: Whether to show a progress bar.
            options: ``weights``, ``activations``, ``recipe``, ``steps``, ``learning_rate``, ``batch_size``, ``seed``, ``resume`` and so on, as of
                :func:`fewbit.quantize_model` with the method ``qat``.

        Raises:
            FewbitError: As for ``apply``; too few texts; a form of weights that is not trained.
            ValueError: Options that do not go together.

        >>> import tempfile
        >>> manager = QuantizationManager("crates/model/tests/golden/predictions/bert-single-label")
        >>> texts = ["the cat sat on the mat", "ann lives in new york", "not the dog", "where does bob live?"] * 6
        >>> report = manager.apply_qat(tempfile.mkdtemp() + "/out", texts, steps=4, batch_size=4)
        >>> report.recipe["method"], report.recipe["qat"], report.steps
        ('dynamic', True, 4)
        """
        report: TrainingReport = quantize_model(
            self._directory, out, "qat", data=data, dry_run=False, force=self._force, show_progress=show_progress, **options
        )
        self._native.add_written(json.dumps(report.recipe), report.output)
        return report

    def prepare_static_quantization(self, backend: str = "native") -> None:
        """The first of three steps: which backend's defaults calibration has.

        Args:
            backend: ``native``, which makes inputs dynamic that one range costs too much, or PyTorch's ``fbgemm``, ``x86``, ``qnnpack``,
                ``onednn``, which make every input static.

        Raises:
            ValueError: There is no such backend.
        """
        backends = ("native", "fbgemm", "x86", "qnnpack", "onednn")
        if backend not in backends:
            raise ValueError(f"backend: expected one of {', '.join(backends)}, found {backend!r}")
        self._backend, self._static = backend, None

    def calibrate(
        self, calibration: Texts, *, min_sqnr: float | None = None, show_progress: bool = False, **options: Any
    ) -> Calibration:
        """The second step: observes the model on texts, and finds out which inputs tolerate one scale.

        Args:
            calibration: Texts, or a file of texts or token ids.
            min_sqnr: Inputs whose signal to noise ratio with one range is lower, in dB, are dynamic.
            show_progress: Whether to show a progress bar.
            options: ``samples``, ``batch_size``, ``seed``, ``field``, ``observer`` and so on, as of :func:`fewbit.calibrate`.

        Raises:
            ValueError: Nothing was prepared, or options that do not go together.
        """
        if self._backend is None:
            raise ValueError("Must call prepare_static_quantization() first!")
        request = calibration_request(calibration, min_sqnr=min_sqnr, backend=self._backend, **options)
        with progress_bar(show_progress) as progress:
            text = _fewbit.static_recipe(self._directory, json.dumps(request), progress=progress)
        answer = json.loads(text)
        self._static = json.dumps(answer["recipe"])
        decided = make_record(Calibration, answer["calibration"])
        warn_of_noise(decided, min_sqnr, stacklevel=2)
        return decided

    def convert_static_quantization(self, out: Path, *, show_progress: bool = False) -> QuantizeReport:
        """The third step: int8 weights; activations with the scales that calibration chose, or per token where one scale costs too much.

        Raises:
            ValueError: Nothing was prepared, or nothing calibrated.
        """
        if self._backend is None:
            raise ValueError("Must call prepare_static_quantization() first!")
        if self._static is None:
            raise ValueError("Must call calibrate() first!")
        with progress_bar(show_progress) as progress:
            return report_of(self._native.apply(self._static, os.fspath(out), threads=resolve_threads(None), progress=progress))

    @property
    def directory(self) -> str:
        """The source."""
        return self._directory
