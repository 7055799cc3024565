"""Convolutions in one and two dimensions."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch.layers.operators import windows
from fewbit.torch.layers.quantized_layer import QuantizedLayer
from fewbit.torch.layers.stored_weight import Activations, HalfWeight, StoredWeight

_SIZES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


class QuantizedConvolution(QuantizedLayer):
    """``nn.Conv1d`` and ``nn.Conv2d`` with a quantized weight, for inputs of float32, float16 or bfloat16; outputs have the dtype of inputs.

    Inputs are quantized window by window: what an output position is does not depend on the rest of the image or of the batch.

    The attributes are those of torch's convolutions.
    """

    kind = "convolution"
    transposed = False

    def __init__(
        self,
        stored: StoredWeight,
        bias: Tensor | None,
        *,
        method: str,
        activations: Activations,
        dtype: torch.dtype,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] | str,
        dilation: tuple[int, ...],
        groups: int,
        padding_mode: str,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple(kernel_size)
        self.stride = tuple(stride)
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        self.dilation = tuple(dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.output_padding = (0,) * len(kernel_size)
        self._hold(stored, bias, method=method, activations=activations, dtype=dtype)

    @staticmethod
    def sizes_of(module: nn.Conv1d | nn.Conv2d) -> dict[str, Any]:
        """The sizes of a float convolution, as the constructor takes them."""
        return {name: getattr(module, name) for name in _SIZES}

    def _sizes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SIZES}

    def _view(self) -> Callable[[Tensor], Tensor]:
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        return lambda matrix: matrix.reshape(shape)

    def _ends(self) -> list[tuple[int, int]]:
        """Padding before and after, for each axis."""
        if self.padding == "same":
            totals = [dilation * (kernel - 1) for dilation, kernel in zip(self.dilation, self.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        if isinstance(self.padding, str):
            return [(0, 0) for _ in self.kernel_size]
        return [(padding, padding) for padding in self.padding]

    def _windows(self) -> dict[str, list[Any]]:
        """Kernel, strides, dilations and padding with zeros, of height and width."""
        padding = self._ends() if self.padding_mode == "zeros" else [(0, 0) for _ in self.kernel_size]
        flat = len(self.kernel_size) == 1
        return {
            "kernel": [1] * flat + list(self.kernel_size),
            "stride": [1] * flat + list(self.stride),
            "dilation": [1] * flat + list(self.dilation),
            "padding": [(0, 0)] * flat + padding,
        }

    def _channels_last(self, matrix: Tensor) -> Tensor:
        return self._view()(matrix).flatten(2).transpose(1, 2).reshape(self.out_channels, -1)

    def _pack(self) -> Any:
        bias = None if self._bias is None else self._bias.numpy()
        parts = self._stored.parts(self._activations, self._channels_last)
        found: Any = self._windows()
        return _fewbit.Convolution(parts, (self.in_channels, self.out_channels), self.groups, bias=bias, **found)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (images, out, ...) for ``x`` (images, in, ...), or without the first axis."""
        axes = len(self.kernel_size)
        if x.dim() not in (axes + 1, axes + 2) or x.shape[-axes - 1] != self.in_channels:
            raise _fewbit.FewbitError(
                f"Conv{axes}d: expected inputs of shape (images, {self.in_channels}{', size' * axes}) or without images, found {tuple(x.shape)}"
            )
        single = x.dim() == axes + 1
        images = x.unsqueeze(0) if single else x
        if self.padding_mode != "zeros":
            # The last axis comes first in torch's padding.
            images = functional.pad(images, [end for ends in reversed(self._ends()) for end in ends], mode=self.padding_mode)
        if axes == 1:
            images = images.unsqueeze(2)
        if self._runs_at_once(images):
            y = self.compute(images)
        else:
            found = self._windows()
            padding = [end for ends in found["padding"] for end in ends]
            arguments = (self._number, self.out_channels, found["kernel"], found["stride"], found["dilation"], padding)
            y = torch.ops.fewbit.convolution(images, *arguments)
        if axes == 1:
            y = y.squeeze(2)
        return self._follow_autocast(y.squeeze(0) if single else y)

    def compute(self, x: Tensor) -> Tensor:
        found = self._windows()
        if isinstance(self._stored, HalfWeight) and self._stored.device.type != "cpu":
            top, bottom, left, right = [end for ends in found["padding"] for end in ends]
            padded = functional.pad(x.detach(), [left, right, top, bottom])
            bias = None if self._bias is None else self._bias.to(x.dtype)
            return functional.conv2d(padded, self._kernels().to(x.dtype), bias, found["stride"], 0, found["dilation"], self.groups)
        sizes = [
            windows(x.shape[2 + axis], found["kernel"][axis], found["stride"][axis], found["dilation"][axis], sum(found["padding"][axis]))
            for axis in (0, 1)
        ]
        if min(sizes) < 1:
            raise _fewbit.FewbitError(
                f"Conv{len(self.kernel_size)}d: expected inputs in which a kernel of {self.kernel_size} fits, found {tuple(x.shape)}"
            )
        values = self._floats_of(x).permute(0, 2, 3, 1).contiguous()
        y = torch.empty((x.shape[0], *sizes, self.out_channels), dtype=torch.float32, device="cpu")
        if y.numel():
            self.native().forward(values.numpy(), y.numpy(), resolve_threads(None))
        return y.to(x.dtype).permute(0, 3, 1, 2).contiguous()

    def _kernels(self) -> Tensor:
        """The weight (out, in / groups, height, width)."""
        weight = self._view()(self._stored.matrix())
        return weight.unsqueeze(2) if len(self.kernel_size) == 1 else weight

    def input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient with respect to inputs of ``shape``."""
        found = self._windows()
        (top, bottom), (left, right) = found["padding"]
        padded = torch.Size([shape[0], shape[1], shape[2] + top + bottom, shape[3] + left + right])
        of_inputs: Any = conv2d_input  # Not typed in torch.
        values: Tensor = of_inputs(
            padded, self._kernels(), gradient.to(torch.float32), tuple(found["stride"]), 0, tuple(found["dilation"]), self.groups
        )
        return values[:, :, top : top + shape[2], left : left + shape[3]].contiguous().to(gradient.dtype)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._sizes().items()) + f", method={self.method}"
