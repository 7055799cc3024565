"""``quantize_`` with torchao's arguments."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fewbit.torch import encoders
from fewbit.torch.qat import adapters
from fewbit.torch.qat.config import QATConfig
from fewbit.torch.qat.conversion import convert_trained
from fewbit.torch.qat.layers import FakeQuantizedLayer
from fewbit.torch.qat.preparation import prepare_qat


def quantize_(model: nn.Module, config: QATConfig, filter_fn: Callable[[nn.Module, str], bool] | None = None) -> None:
    """Carries out a step of quantization-aware training on ``model`` itself, by torchao's names.

    Args:
        model: A float model for the step ``prepare``; for ``convert`` what that made of it, trained.
        config: ``QATConfig(base_config, step="prepare")``, and afterwards ``QATConfig(base_config, step="convert")``.
        filter_fn: Called with a linear layer and its name; what it returns ``False`` for stays float.

    Raises:
        ValueError: As :func:`fewbit.torch.prepare_qat` and :func:`fewbit.torch.convert`; a model that is itself one layer or encoder, whose place a
            conversion takes: :func:`fewbit.torch.convert` returns it.
        TypeError: Another config.

    >>> import torch
    >>> from fewbit.torch import Int8DynamicActivationInt4WeightConfig, QATConfig, quantize_
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU())
    >>> quantize_(model, QATConfig(Int8DynamicActivationInt4WeightConfig(group_size=32), step="prepare"))
    >>> model.train()(torch.ones(1, 64)).sum().backward()
    >>> quantize_(model, QATConfig(step="convert"))
    >>> type(model[0]).__name__
    'QuantizedLinear'
    """
    if not isinstance(config, QATConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"config: expected a QATConfig of fewbit.torch, found {type(config).__name__}\n  hint: QATConfig(base_config, step='prepare')")
    if config.step == "prepare":
        assert config.base_config is not None
        prepare_qat(model, config.base_config, inplace=True, filter_fn=filter_fn)
        return
    if filter_fn is not None:
        raise ValueError("filter_fn: expected none for the step `convert`, which is about every layer that was prepared")
    if isinstance(model, FakeQuantizedLayer) or encoders.is_encoder(model) or adapters.is_wrapper(model):
        raise ValueError(
            f"quantize_: expected a model whose layers are replaced in it, found {type(model).__name__}, in whose place another comes\n"
            "  hint: `model = fewbit.torch.convert(model)`"
        )
    convert_trained(model, inplace=True)
