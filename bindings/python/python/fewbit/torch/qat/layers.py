"""Float layers that compute with fake-quantized weights and inputs.

A layer stays the object that it was and changes its class: optimizers that hold its parameters, hooks on it, and places that share it go on. The keys
of its parameters in a ``state_dict`` stay, too; flags and ranges come to them.
"""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbit.torch.layers.stored_weight import StoredWeight
from fewbit.torch.qat.config import BaseConfig
from fewbit.torch.qat.inputs import InputFakeQuantize, input_fake_quantize
from fewbit.torch.qat.switches import FakeQuantize
from fewbit.torch.qat.weights import WeightFakeQuantize, table_fake_quantize, weight_fake_quantize

_WEIGHT = "weight_fake_quant"
_INPUT = "input_fake_quant"
_CONFIG = "_fewbit_qat_config"


class FakeQuantizedLayer(nn.Module):
    """What all of them have.

    Attributes:
        weight_fake_quant: Of the weight.
        input_fake_quant: Of the inputs; ``None`` where they stay float.
    """

    weight_fake_quant: WeightFakeQuantize
    input_fake_quant: InputFakeQuantize | None

    #: The class that the layer had, and gets back.
    float_class: type[nn.Module]

    def float_matrix(self) -> Tensor:
        """The weight as a matrix (rows, columns), each row an output channel or a row of a table, with its gradient."""
        weight: Any = self.weight
        result: Tensor = weight.flatten(1)
        return result

    def stored(self) -> StoredWeight:
        """The codes and scales whose values the layer computes with."""
        return self.weight_fake_quant.stored(self.float_matrix())

    def _quantized_weight(self) -> Tensor:
        weight: Any = self.weight
        result: Tensor = self.weight_fake_quant(self.float_matrix()).view_as(weight)
        return result

    def _quantized_inputs(self, x: Tensor) -> Tensor:
        if self.input_fake_quant is None:
            return x
        result: Tensor = self.input_fake_quant(x)
        return result


class FakeQuantizedLinear(FakeQuantizedLayer, nn.Linear):
    """``nn.Linear`` with fake quantization."""

    float_class = nn.Linear

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        return functional.linear(self._quantized_inputs(input), self._quantized_weight(), self.bias)


class _FakeQuantizedConvolution(FakeQuantizedLayer):
    """Convolutions: as in the executor a window is a row, with a range of its own where inputs are dynamic."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        layer: Any = self
        weight = self._quantized_weight()
        if self.input_fake_quant is None or not self.input_fake_quant.is_by_row or not self.input_fake_quant.is_enabled():
            result: Tensor = layer._conv_forward(self._quantized_inputs(input), weight, layer.bias)
            return result
        return self._by_windows(input, weight)

    def _by_windows(self, x: Tensor, weight: Tensor) -> Tensor:
        layer: Any = self
        axes = len(layer.kernel_size)
        single = x.dim() == axes + 1
        images = x.unsqueeze(0) if single else x
        # Padding by torch's own numbers, whose last axis comes first.
        if layer.padding_mode != "zeros" or any(layer._reversed_padding_repeated_twice):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            images = functional.pad(images, layer._reversed_padding_repeated_twice, mode=mode)
        if axes == 1:
            images = images.unsqueeze(2)
        flat = (1,) * (2 - axes)
        kernel, stride, dilation = (flat + tuple(getattr(layer, name)) for name in ("kernel_size", "stride", "dilation"))
        sizes = [(images.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1 for axis in (0, 1)]
        windows = functional.unfold(images, kernel, dilation=dilation, stride=stride)
        groups = layer.groups
        # (images, windows, groups, channels of a group * kernel)
        rows = windows.reshape(windows.shape[0], groups, -1, windows.shape[2]).permute(0, 3, 1, 2)
        products = torch.einsum("nwgk,gok->ngow", self._quantized_inputs(rows.contiguous()), weight.reshape(groups, layer.out_channels // groups, -1))
        y = products.reshape(windows.shape[0], layer.out_channels, *sizes)
        if layer.bias is not None:
            y = y + layer.bias.to(y.dtype).reshape(-1, 1, 1)
        y = y.squeeze(2) if axes == 1 else y
        return y.squeeze(0) if single else y


class FakeQuantizedConv1d(_FakeQuantizedConvolution, nn.Conv1d):
    """``nn.Conv1d`` with fake quantization."""

    float_class = nn.Conv1d


class FakeQuantizedConv2d(_FakeQuantizedConvolution, nn.Conv2d):
    """``nn.Conv2d`` with fake quantization."""

    float_class = nn.Conv2d


class FakeQuantizedEmbedding(FakeQuantizedLayer, nn.Embedding):
    """``nn.Embedding`` of int8 or NF4 rows: those that are looked up are fake-quantized, where a row has all that its codes follow from."""

    float_class = nn.Embedding

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        if not self.weight_fake_quant.is_by_row:
            return functional.embedding(
                input, self._quantized_weight(), self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse
            )
        rows = super().forward(input)
        result: Tensor = self.weight_fake_quant(rows.reshape(-1, self.embedding_dim)).view_as(rows)
        return result


#: The classes by those that they take the places of.
CLASSES: dict[type[nn.Module], type[FakeQuantizedLayer]] = {
    kind.float_class: kind for kind in (FakeQuantizedLinear, FakeQuantizedConv1d, FakeQuantizedConv2d, FakeQuantizedEmbedding)
}


def insert(module: nn.Module, kind: type[FakeQuantizedLayer], config: BaseConfig, name: str) -> None:
    """Makes a fake-quantized layer of a float one, in its place.

    Raises:
        FewbitError: A weight that is not finite.
    """
    _change_class(module, kind)
    assert isinstance(module, FakeQuantizedLayer)
    is_table = isinstance(module, nn.Embedding)
    matrix = module.float_matrix().detach()
    weight = table_fake_quantize(config.weight) if is_table else weight_fake_quantize(config.weight, matrix)
    inputs = None if is_table else input_fake_quantize(config.inputs)
    module.__dict__[_CONFIG] = config
    for key, part in ((_WEIGHT, weight), (_INPUT, inputs)):
        if part is not None:
            part.layer = name
            part.train(module.training).to(matrix.device)
        module._modules[key] = part


def remove(module: nn.Module) -> None:
    """Makes the float layer of a fake-quantized one again, in its place."""
    assert isinstance(module, FakeQuantizedLayer)
    layer: nn.Module = module
    kind: type[nn.Module] = module.float_class
    for key in (_WEIGHT, _INPUT):
        layer._modules.pop(key, None)
    layer.__dict__.pop(_CONFIG, None)
    _change_class(layer, kind)


def _change_class(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = kind


def config_of(module: FakeQuantizedLayer) -> BaseConfig:
    """What the layer is trained to become."""
    config: BaseConfig = module.__dict__[_CONFIG]
    return config


def parts_of(module: FakeQuantizedLayer) -> list[FakeQuantize]:
    """Its fake quantizations."""
    return [part for part in (module.weight_fake_quant, module.input_fake_quant) if part is not None]


__all__ = [
    "CLASSES",
    "FakeQuantizedConv1d",
    "FakeQuantizedConv2d",
    "FakeQuantizedEmbedding",
    "FakeQuantizedLayer",
    "FakeQuantizedLinear",
    "config_of",
    "insert",
    "parts_of",
    "remove",
]
