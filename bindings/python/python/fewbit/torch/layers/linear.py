"""Linear layers: torch's, and transformers' ``Conv1D``."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch.layers.quantized_layer import QuantizedLayer
from fewbit.torch.layers.stored_weight import Activations, StoredWeight


class QuantizedLinear(QuantizedLayer):
    """``y = x W^T + b`` with a quantized W, for inputs (..., in) of float32, float16 or bfloat16; outputs have the dtype of inputs.

    NaN and infinity have no code: a layer that quantizes its inputs raises :class:`fewbit.FewbitError` where it meets them.

    Attributes:
        in_features: Columns of inputs.
        out_features: Columns of outputs.
        transposed: Whether ``weight`` has the shape (in, out), as that of transformers' ``Conv1D`` has.
    """

    kind = "linear"

    def __init__(
        self,
        stored: StoredWeight,
        bias: Tensor | None,
        *,
        method: str,
        activations: Activations,
        dtype: torch.dtype,
        in_features: int,
        out_features: int,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.transposed = transposed
        if transposed:
            self.nx, self.nf = in_features, out_features
        self._hold(stored, bias, method=method, activations=activations, dtype=dtype)

    def _view(self) -> Callable[[Tensor], Tensor]:
        return torch.t if self.transposed else super()._view()

    def _sizes(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "transposed": self.transposed}

    def _pack(self) -> Any:
        if 0 in (self.in_features, self.out_features):
            return None
        bias = None if self._bias is None else self._bias.numpy()
        parts = self._stored.parts(self._activations, lambda matrix: matrix)
        return _fewbit.Linear(parts, (self.out_features, self.in_features), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., out)."""
        if self._runs_at_once(x):
            return self._follow_autocast(self.compute(x))
        y: Tensor = torch.ops.fewbit.linear(x, self._number, self.out_features)
        return self._follow_autocast(y)

    def compute(self, x: Tensor) -> Tensor:
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise _fewbit.FewbitError(f"Linear: expected inputs of shape (..., {self.in_features}), found {tuple(x.shape)}")
        if self._stored.device.type != "cpu":
            weight = self._stored.matrix().to(x.dtype)
            return functional.linear(x.detach(), weight, None if self._bias is None else self._bias.to(x.dtype))
        values = self._floats_of(x).reshape(x.shape[:-1].numel(), self.in_features).contiguous()
        shape = (*x.shape[:-1], self.out_features)
        native = self.native()
        if native is None or values.shape[0] == 0:
            y = torch.zeros((values.shape[0], self.out_features), dtype=torch.float32, device="cpu")
            if self._bias is not None:
                y += self._bias
        else:
            y = torch.empty((values.shape[0], self.out_features), dtype=torch.float32, device="cpu")
            native.forward(values.numpy(), y.numpy(), resolve_threads(None))
        y = y.view(shape)
        return y if x.dtype is torch.float32 else y.to(x.dtype)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to inputs."""
        return (gradient.to(torch.float32) @ self._stored.matrix()).to(gradient.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}, method={self.method}"
