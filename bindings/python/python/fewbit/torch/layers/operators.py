"""The operators of ``torch.library`` that layers are to ``torch.compile``, ``torch.export`` and autograd.

A layer is handed over as the tensor of its number: compiled code reads the number when it runs, so that one graph serves many layers.
Annotations stay objects here: torch reads the operators' schemas from them.
"""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fewbit._fewbit import FewbitError

if TYPE_CHECKING:
    from fewbit.torch.layers.quantized_layer import QuantizedLayer

_numbers = itertools.count(1)
_layers: "weakref.WeakValueDictionary[int, QuantizedLayer]" = weakref.WeakValueDictionary()


def number_of(layer: "QuantizedLayer") -> Tensor:
    """A new number for ``layer``, by which operators find it while it lives."""
    number = next(_numbers)
    _layers[number] = layer
    return torch.tensor(number, dtype=torch.int64, device="cpu")


def _layer_of(number: Tensor) -> Any:
    layer = _layers.get(int(number))
    if layer is None:
        raise FewbitError(
            "expected a layer that is still there, found that of a model that was deleted or belongs to another process\n"
            "  hint: compile or export the model again"
        )
    return layer


@torch.library.custom_op("fewbit::linear", mutates_args=())
def linear(x: Tensor, layer: Tensor, out_features: int) -> Tensor:
    """Outputs (..., out) of a linear layer for ``x`` (..., in)."""
    result: Tensor = _layer_of(layer).compute(x)
    return result


@torch.library.custom_op("fewbit::linear_input_gradient", mutates_args=())
def linear_input_gradient(gradient: Tensor, layer: Tensor, in_features: int) -> Tensor:
    """The gradient (..., in) with respect to the inputs of a linear layer: that of a float layer with the dequantized weight."""
    result: Tensor = _layer_of(layer).input_gradient(gradient)
    return result


@torch.library.custom_op("fewbit::convolution", mutates_args=())
def convolution(
    x: Tensor, layer: Tensor, out_channels: int, kernel: list[int], stride: list[int], dilation: list[int], padding: list[int]
) -> Tensor:
    """Outputs (images, out, height, width) of a convolution for ``x`` (images, in, height, width)."""
    result: Tensor = _layer_of(layer).compute(x)
    return result


@torch.library.custom_op("fewbit::convolution_input_gradient", mutates_args=())
def convolution_input_gradient(gradient: Tensor, layer: Tensor, shape: list[int]) -> Tensor:
    """The gradient with respect to the inputs, of ``shape``, of a convolution: that of a float one with the dequantized weight."""
    result: Tensor = _layer_of(layer).input_gradient(gradient, torch.Size(shape))
    return result


@torch.library.custom_op("fewbit::embedding", mutates_args=())
def embedding(ids: Tensor, layer: Tensor, embedding_dim: int, dtype: torch.dtype) -> Tensor:
    """Rows (..., size) of an embedding table."""
    result: Tensor = _layer_of(layer).compute(ids)
    return result


def windows(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """The number of windows of a convolution along one axis, ``padding`` being that of both ends."""
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


@linear.register_fake
def _linear_fake(x: Tensor, layer: Tensor, out_features: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


@linear_input_gradient.register_fake
def _linear_input_gradient_fake(gradient: Tensor, layer: Tensor, in_features: int) -> Tensor:
    return gradient.new_empty((*gradient.shape[:-1], in_features))


@convolution.register_fake
def _convolution_fake(
    x: Tensor, layer: Tensor, out_channels: int, kernel: list[int], stride: list[int], dilation: list[int], padding: list[int]
) -> Tensor:
    sizes = [windows(x.shape[2 + axis], kernel[axis], stride[axis], dilation[axis], padding[2 * axis] + padding[2 * axis + 1]) for axis in (0, 1)]
    return x.new_empty((x.shape[0], out_channels, *sizes))


@convolution_input_gradient.register_fake
def _convolution_input_gradient_fake(gradient: Tensor, layer: Tensor, shape: list[int]) -> Tensor:
    return gradient.new_empty(shape)


@embedding.register_fake
def _embedding_fake(ids: Tensor, layer: Tensor, embedding_dim: int, dtype: torch.dtype) -> Tensor:
    return ids.new_empty((*ids.shape, embedding_dim), dtype=dtype)


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.in_features = inputs[0].shape[-1]


def _linear_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.fewbit.linear_input_gradient(gradient, *ctx.saved_tensors, ctx.in_features), None, None


def _convolution_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape


def _convolution_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.fewbit.convolution_input_gradient(gradient, *ctx.saved_tensors, ctx.shape)
    return found, None, None, None, None, None, None


linear.register_autograd(_linear_backward, setup_context=_linear_context)
convolution.register_autograd(_convolution_backward, setup_context=_convolution_context)
