"""What the tests of quantization-aware training share: configs, a few steps of training, what forward passes have used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import fewbit.torch as ft
from fewbit.torch.qat.layers import FakeQuantizedLayer

#: A name for each scheme. Groups of 16 divide the layers of the tiny models.
CONFIGS: dict[str, Any] = {
    "dynamic": ft.Int8DynamicActivationInt8WeightConfig(),
    "dynamic, learned": ft.Int8DynamicActivationInt8WeightConfig(scales="learned"),
    "static": ft.Int8StaticActivationInt8WeightConfig(),
    "static, learned": ft.Int8StaticActivationInt8WeightConfig(scales="learned", input_scales="learned", observed_steps=1),
    "weight-only": ft.Int8WeightOnlyConfig(),
    "W4A8, mse": ft.Int8DynamicActivationInt4WeightConfig(group_size=16),
    "W4A8, absmax": ft.Int8DynamicActivationInt4WeightConfig(group_size=16, scales="absmax"),
    "W4A8, asymmetric": ft.Int8DynamicActivationInt4WeightConfig(group_size=16, asymmetric=True),
    "W4A8, learned": ft.Int8DynamicActivationInt4WeightConfig(group_size=16, scales="learned"),
    "int4, learned, asymmetric": ft.Int4WeightOnlyConfig(group_size=16, scales="learned", asymmetric=True),
    "int4 by output": ft.Int4WeightOnlyConfig(group_size=None, scales="mse", scale_interval=1),
    "nf4": ft.NF4WeightOnlyConfig(),
    "nf4, double": ft.NF4WeightOnlyConfig(double_quant=True),
}


def train(model: nn.Module, loss: Callable[[], Tensor], steps: int = 3, lr: float = 1e-3) -> None:
    """Some steps of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def layers(model: nn.Module) -> dict[str, Any]:
    """The fake-quantized layers by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantizedLayer)}


@contextmanager
def used_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The values of weights (rows, columns) that forward passes use meanwhile, the last of each layer."""
    used: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            used[name] = output.detach().clone()

        return hook

    hooks = [layer.weight_fake_quant.register_forward_hook(keep(name)) for name, layer in layers(model).items()]
    yield used
    for hook in hooks:
        hook.remove()


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits; 0 and -0 are one number."""
    return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
