"""The names that PyTorch quantization scripts know, for a model that is an ``nn.Module``."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from fewbit.torch import encoders, static
from fewbit.torch.dynamic import quantize_dynamic
from fewbit.torch.measuring import MEBIBYTE, benchmark_inference_speed, profile_memory, tensor_bytes
from fewbit.torch.module_copy import copy_module
from fewbit.torch.qat import BaseConfig, convert_trained, is_prepared_for_training, prepare_qat

__all__ = [
    "ModuleQuantizationManager",
    "apply_int4_quantization",
    "benchmark_inference_speed",
    "profile_memory",
    "quantize_module",
]

_METHODS = ("dynamic", "static", "fp16", "int4", "qat")
_DTYPES = ("int8", "qint8", "fp16", "float16", "bf16", "bfloat16", "int4", "nf4")


class ModuleQuantizationManager:
    """One float model and what is made of it. The model itself is never changed.

    Args:
        model: Any model.
        method: ``dynamic``, ``static``, ``fp16``, ``int4`` or ``qat``: what the script is about; each method has its own calls.
        dtype: ``int8``, ``fp16`` or ``bf16``; which half precision :meth:`apply_fp16_quantization` makes.
    """

    def __init__(self, model: nn.Module, method: str = "dynamic", dtype: str = "int8") -> None:
        if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"model: expected an nn.Module, found {type(model).__name__}")
        if method not in _METHODS:
            raise ValueError(f"Unknown quantization method: {method}\n  hint: {', '.join(_METHODS[:-1])} and {_METHODS[-1]} are known")
        if str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(_DTYPES)}, found {dtype!r}")
        self.original_model = model
        self.method = method
        self.dtype = dtype
        self.quantized_model: nn.Module | None = None
        self.calibrated = False

    def get_model_size(self, model: nn.Module | None = None) -> dict[str, float]:
        """The size of ``model``, or else of the quantized model, or of the original if there is none yet.

        Returns:
            ``param_size_mb``, ``buffer_size_mb`` and ``total_size_mb`` of what the ``state_dict`` holds, in MB of 1024 * 1024 bytes;
            ``num_parameters``, which quantization does not change.
        """
        if model is None:
            model = self.original_model if self.quantized_model is None else self.quantized_model
        parameters, buffers = tensor_bytes(model)
        return {
            "param_size_mb": parameters / MEBIBYTE,
            "buffer_size_mb": buffers / MEBIBYTE,
            "total_size_mb": (parameters + buffers) / MEBIBYTE,
            "num_parameters": encoders.parameter_count(model),
        }

    def compare_sizes(self) -> dict[str, float]:
        """Prints the sizes of the original and of the quantized model and their ratio.

        Returns:
            ``original_size_mb``, ``quantized_size_mb``, ``compression_ratio`` and ``size_reduction_pct``.

        Raises:
            ValueError: There is no quantized model yet.
        """
        if self.quantized_model is None:
            raise ValueError("Must quantize the model first!\n  hint: `apply_dynamic_quantization()` needs no data")
        original = self.get_model_size(self.original_model)["total_size_mb"]
        quantized = self.get_model_size(self.quantized_model)["total_size_mb"]
        if quantized == 0:
            raise ValueError("compare_sizes: expected a model with parameters, found one without")
        ratio = original / quantized
        print(f"Original size:     {original:.2f} MB")  # noqa: T201
        print(f"Quantized size:    {quantized:.2f} MB")  # noqa: T201
        print(f"Compression ratio: {ratio:.2f}x")  # noqa: T201
        return {
            "original_size_mb": original,
            "quantized_size_mb": quantized,
            "compression_ratio": ratio,
            "size_reduction_pct": (1 - 1 / ratio) * 100,
        }

    def apply_dynamic_quantization(self) -> nn.Module:
        """int8 weights, activations quantized per token as they come: of encoders as a whole, and of all other linear layers."""
        self.quantized_model = quantize_dynamic(self.original_model, {nn.Linear}, dtype=torch.qint8)
        return self.quantized_model

    def prepare_static_quantization(self, backend: str = "fbgemm") -> None:
        """Gives a copy of the model observers: the first of three steps.

        Args:
            backend: ``fbgemm``, ``x86``, ``qnnpack``, ``onednn``, or ``native``, which leaves inputs dynamic that one range costs too much.
        """
        self.quantized_model = static.prepare(self.original_model, backend=backend)
        self.calibrated = False

    def calibrate(
        self,
        dataloader: Iterable[Any],
        device: str | torch.device = "cpu",
        num_batches: int = 100,
        use_student_input_ids: bool = False,
    ) -> None:
        """Runs batches through the prepared model: the second step.

        Args:
            dataloader: Dicts with the names that the model takes, tuples of tensors, or tensors.
            device: For the script's sake; calibration runs where the model is.
            num_batches: No more than so many.
            use_student_input_ids: Whether ``student_input_ids`` and ``student_attention_mask`` of a batch stand for its ids and mask.

        Raises:
            ValueError: The model is not prepared; a batch without what the model takes; no batch.
        """
        if self.quantized_model is None or not static.is_prepared(self.quantized_model):
            raise ValueError("Must call prepare_static_quantization() first!")
        place = next((parameter.device for parameter in self.quantized_model.parameters()), torch.device(device))
        static.calibrate(
            self.quantized_model, dataloader, num_batches=num_batches, device=place, use_student_input_ids=use_student_input_ids
        )
        self.calibrated = True

    def convert_static_quantization(self) -> nn.Module:
        """The statically quantized model: the third step.

        Raises:
            ValueError: The model is not prepared, or not calibrated.
        """
        if self.quantized_model is None or not static.is_prepared(self.quantized_model):
            raise ValueError("Must call prepare_static_quantization() first!")
        if not self.calibrated:
            raise ValueError("Must call calibrate() first!")
        self.quantized_model = static.convert(self.quantized_model, inplace=True)
        return self.quantized_model

    def prepare_qat(self, config: BaseConfig | str | os.PathLike[str] | Mapping[str, Any] = "dynamic", **options: Any) -> nn.Module:
        """A copy of the model whose layers compute with the values of codes, for training by any loop: the first of two steps. The loop trains
        what is returned, :attr:`quantized_model`.

        A model directory is trained without a loop and without labels by ``apply_qat`` of :class:`fewbit.QuantizationManager`.

        Args:
            config: ``dynamic``, ``static``, ``weight-only``, ``w4a8``, ``int4``, ``nf4``, a config or a recipe, as of :func:`fewbit.torch.prepare_qat`.
            options: ``modules``, ``module_configs``, ``scales``, ``skip`` … as of the same.

        Raises:
            ValueError: As for :func:`fewbit.torch.prepare_qat`.
        """
        self.quantized_model = prepare_qat(self.original_model, config, **options)
        return self.quantized_model

    def convert_qat(self) -> nn.Module:
        """The quantized model with the codes that training used: the second step.

        Raises:
            ValueError: The model is not prepared, or no step was trained.
        """
        if self.quantized_model is None or not is_prepared_for_training(self.quantized_model):
            raise ValueError("Must call prepare_qat() first!")
        self.quantized_model = convert_trained(self.quantized_model, inplace=True)
        return self.quantized_model

    def apply_fp16_quantization(self, device: str | torch.device = "cpu") -> nn.Module:
        """Half precision: on a CPU weights of 16 bits computed in float32 natively, on another device PyTorch's ``half()``.

        With the manager's ``dtype`` ``bf16`` it is bfloat16.
        """
        half = "bf16" if str(self.dtype).removeprefix("torch.") in ("bf16", "bfloat16") else "fp16"
        if torch.device(device).type == "cpu":
            self.quantized_model = quantize_dynamic(self.original_model, {nn.Linear}, dtype=half)
        else:
            dtype = torch.bfloat16 if half == "bf16" else torch.float16
            self.quantized_model = copy_module(self.original_model, {}).to(device=device, dtype=dtype).eval()
        return self.quantized_model

    def apply_int4_quantization(self, device: str | torch.device = "cpu") -> nn.Module:
        """NF4 with double quantization, see :func:`apply_int4_quantization`."""
        self.quantized_model = apply_int4_quantization(self.original_model, device)
        return self.quantized_model

    benchmark_inference_speed = staticmethod(benchmark_inference_speed)
    profile_memory = staticmethod(profile_memory)


def apply_int4_quantization(model: nn.Module, device: str | torch.device = "cpu") -> nn.Module:
    """A copy of ``model`` with weights of 4 bits: NF4 in blocks of 64, double quantization. ``model`` is not changed.

    Raises:
        ValueError: A device other than the CPU.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(
            f"device: expected cpu, found {device}\n  hint: on a GPU transformers loads the directory of `fewbit.quantize_model(…, method='nf4')` with bitsandbytes"
        )
    return quantize_dynamic(model, {nn.Linear}, dtype="nf4", double_quant=True)


def quantize_module(
    model: nn.Module,
    method: str,
    config: Any = None,
    calibration_loader: Iterable[Any] | None = None,
    device: str | torch.device = "cpu",
    use_student_input_ids: bool = False,
) -> nn.Module:
    """A quantized copy of ``model``, with the sizes printed. ``model`` is not changed.

    Args:
        model: Any model.
        method: ``dynamic``, ``static``, ``fp16`` or ``int4``.
        config: ``config.quant_dtype`` (``int8`` by default) and ``config.quant_calibration_batches`` (100) are looked at.
        calibration_loader: Batches for ``static``.
        device: For ``fp16``: where the model goes.
        use_student_input_ids: Whether ``student_input_ids`` of a batch stand for its ids.

    Raises:
        ValueError: An unknown method; ``static`` without a loader; ``qat``, which is trained between two calls.
    """
    if method == "qat":
        raise ValueError(
            "method qat: expected a loop that trains the model\n  hint: `manager.prepare_qat()`, the loop, `manager.convert_qat()`; without labels and without a loop"
            " `fewbit.quantize_model(directory, out, 'qat', data=texts)` trains a saved model"
        )
    manager = ModuleQuantizationManager(model, method=method, dtype=getattr(config, "quant_dtype", "int8"))
    if method == "dynamic":
        quantized = manager.apply_dynamic_quantization()
    elif method == "static":
        if calibration_loader is None:
            raise ValueError("Static quantization requires calibration_loader!")
        manager.prepare_static_quantization()
        manager.calibrate(
            calibration_loader,
            device,
            num_batches=getattr(config, "quant_calibration_batches", 100),
            use_student_input_ids=use_student_input_ids,
        )
        quantized = manager.convert_static_quantization()
    elif method == "fp16":
        quantized = manager.apply_fp16_quantization(device)
    else:
        quantized = manager.apply_int4_quantization(device)
    manager.compare_sizes()
    return quantized
